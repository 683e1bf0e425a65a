"""stream: the text that a language model goes on with, piece by piece while it is made.

In: a model, its tokenizer and a prompt. Out: pieces of text, which end in whole characters. Called
by the command line and users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from numbers import Integral
from typing import Any

from ..errors import UserError
from ..nn.module import evaluating
from ..tensor import no_grad
from .generate import prepared, require_found, run
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
    finds with the same settings, as text. Where the model has no room for max_new_tokens, or for
    the prompt, it goes on from the last half of what it could see, as often as it takes.

    stop: texts at which it ends; they are not part of it. settings: as for generate(), but for
    beam_size and num_return_sequences: a beam changes its mind.
    """
    for name in ("beam_size", "num_return_sequences"):
        if settings.pop(name, 1) != 1:
            raise UserError(f"stream: {name} must be 1: what has been said is not taken back")
    if isinstance(stop, str) or any(not isinstance(text, str) or not text for text in stop):
        raise TypeError(f"stream: stop must be a list of texts, not {stop!r}")
    known = {field.name for field in fields(Settings)}
    if unknown := [name for name in settings if name not in known]:
        raise TypeError(f"stream: unexpected argument {unknown[0]!r}")
    wanted = Settings(max_new_tokens=max_new_tokens, **settings)
    (most,) = wanted.limits(1)
    if tokenizer is None:
        raise UserError("stream: the model has no tokenizer, so no text can be made of its ids")
    (row,) = prepared(model, [tokenizer.encode(prompt)])
    if not row:
        raise UserError("stream: an empty prompt; give at least one token")
    return _pieces(model, tokenizer, row, most, tuple(stop), wanted)


def _pieces(
    model: Model,
    tokenizer: Any,
    row: list[int],
    most: int,
    stops: tuple[str, ...],
    settings: Settings,
) -> Iterator[str]:
    before = tokenizer.decode(row)
    shown, tokens = "", list[int]()

    def text() -> str:
        """What the tokens say after the prompt: a first one may say otherwise alone."""
        whole: str = tokenizer.decode([*row, *tokens])
        return whole.removeprefix(before)

    def next_piece(done: bool) -> tuple[str, bool]:
        """What may be shown beyond what was, and whether it ends there."""
        found = text()
        ends = [found.index(stop) for stop in stops if stop in found]
        if ends:
            found = found[: min(ends)]
        elif not done:
            found = found.rstrip(_BROKEN)
            found = found[: len(found) - _begun(found, stops)]
        return (found[len(shown) :] if found.startswith(shown) else ""), bool(ends)

    for leg in _legs(model, row, most, tokens, settings):
        for done in leg:
            piece, over = next_piece(done)
            if piece:
                yield piece
                shown += piece
            if over:
                return


def _legs(
    model: Model, row: list[int], most: int, tokens: list[int], settings: Settings
) -> Iterator[Iterator[bool]]:
    """The continuation in as many parts as the model's positions ask for. tokens: it so far, which
    grows; each part tells after every step whether it was the last one of all."""
    number, prefix = 0, settings.prefixes
    if prefix and not isinstance(prefix[0], Integral):  # that of the one row
        prefix = list(prefix[0])
    while len(tokens) < most:
        known = [*row, *tokens]
        room = model.room(len(known))
        if number or (room is not None and room < 1):
            known = known[-max(1, model.config.n_positions // 2) :]
        room = model.room(len(known))
        left = most - len(tokens)
        limit = left if room is None else min(left, room)
        own = replace(
            settings,
            prefix_tokens=prefix[len(tokens) :],
            min_new_tokens=min(max(settings.min_new_tokens - len(tokens), 0), limit),
            seed=None if settings.seed is None else (settings.seed + number) % 2**63,
        )
        size = len(tokens)
        yield _leg(model, known, limit, limit == left, tokens, own)
        if len(tokens) - size < limit or tokens[-1] == model.config.eos_id:
            return
        number += 1


def _leg(
    model: Model,
    known: list[int],
    limit: int,
    last: bool,
    tokens: list[int],
    settings: Settings,
) -> Iterator[bool]:
    search, controls = (
        settings.search(model, [limit], often=True),
        settings.controls(model, [known]),
    )
    before = list(tokens)
    looks = run(model, [known], limit, search, controls)
    while True:
        with evaluating(model.modules()), no_grad():  # not while others do something with a piece
            if next(looks, looks) is looks:
                break
        tokens[:] = [*before, *search.newest(0)]
        yield False
    require_found(search.results(1))
    found = search.results(1)[0][0].tokens
    tokens[:] = [*before, *found]
    yield last or len(found) < limit or found[-1] == model.config.eos_id


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """The length of the longest end of a text with which a stop may have begun."""
    longest = max(map(len, stops), default=1) - 1
    for n in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-n:]) for stop in stops):
            return n
    return 0
