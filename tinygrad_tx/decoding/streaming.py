"""stream: the text that a language model goes on with, piece by piece while it is made.

In: a model, its tokenizer and a prompt. Out: pieces of text, which end in whole characters. Called
by the command line and users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import UserError
from ..nn.module import evaluating
from ..tensor import no_grad
from .generate import check_room, prepared, run
from .loop import Model
from .settings import Settings

_BROKEN = "\ufffd"  # how a character shows whose bytes are not all there


def stream(
    model: Model,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    **settings: Any,
) -> Iterator[str]:
    """The continuation of a prompt in pieces, as they are made; together they are what generate()
    finds with the same settings, as text.

    stop: texts at which it ends; they are not part of it. settings: as for generate(), but for
    beam_size and num_return_sequences: a beam changes its mind.
    """
    for name in ("beam_size", "num_return_sequences"):
        if settings.pop(name, 1) != 1:
            raise UserError(f"stream: {name} must be 1: what has been said is not taken back")
    if isinstance(stop, str) or any(not isinstance(text, str) or not text for text in stop):
        raise TypeError(f"stream: stop must be a list of texts, not {stop!r}")
    wanted = Settings(max_new_tokens=max_new_tokens, **settings)
    rows = prepared(model, [tokenizer.encode(prompt)])
    limits = wanted.limits(1)
    check_room(model, rows, limits)
    return _pieces(model, tokenizer, rows, limits, tuple(stop), wanted)


def _pieces(
    model: Model,
    tokenizer: Any,
    rows: list[list[int]],
    limits: list[int],
    stops: tuple[str, ...],
    settings: Settings,
) -> Iterator[str]:
    search, controls = settings.search(model, limits, often=True), settings.controls(model, rows)
    before = tokenizer.decode(rows[0])
    shown = ""

    def text(tokens: list[int]) -> str:
        """What some tokens say after the prompt: a first one may say otherwise alone."""
        whole: str = tokenizer.decode([*rows[0], *tokens])
        return whole.removeprefix(before)

    def said(tokens: list[int], done: bool) -> tuple[str, bool]:
        """What may be shown of some tokens, and whether it ends there."""
        found = text(tokens)
        ends = [found.index(stop) for stop in stops if stop in found]
        if ends:
            return found[: min(ends)], True
        if done:
            return found, True
        found = found.rstrip(_BROKEN)
        return found[: len(found) - _begun(found, stops)], False

    looks = run(model, rows, limits[0], search, controls)
    while True:
        with evaluating(model.modules()), no_grad():  # not while others do something with a piece
            if next(looks, looks) is looks:
                break
        found, over = said(search.newest(0), done=False)
        if found.startswith(shown) and found != shown:
            yield found[len(shown) :]
            shown = found
        if over:
            return
    found, _ = said(search.results(1)[0][0].tokens, done=True)
    if found.startswith(shown) and found != shown:
        yield found[len(shown) :]


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """The length of the longest end of a text with which a stop may have begun."""
    longest = max(map(len, stops), default=1) - 1
    for n in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-n:]) for stop in stops):
            return n
    return 0
