"""generate: from a model and source ids (or prompts) to the best continuations.

In: ids and the settings of the search. Out: Hypothesis lists. Called by translate.py, the command
line and users.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from ..nn.module import evaluating
from ..tensor import Tensor, no_grad
from .controls import Controls
from .loop import Model, decode, round_up
from .protocols import Hypothesis, Ints, Search
from .settings import Settings


def generate(
    model: Model,
    ids: Tensor | np.ndarray[Any, Any] | Sequence[Sequence[int]],
    *,
    beam_size: int = 1,
    max_new_tokens: int | Sequence[int] = 64,
    min_new_tokens: int = 0,
    length_penalty: float = 0.0,
    num_return_sequences: int = 1,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    prefix_tokens: Sequence[int] | Sequence[Sequence[int]] = (),
    bad_words: Sequence[int | Sequence[int]] = (),
    stop: Sequence[int | Sequence[int]] = (),
    seed: int | None = None,
) -> list[list[Hypothesis]]:
    """For each row the num_return_sequences best hypotheses found (fewer where there are no more),
    best first.

    ids: (B, S), sources padded with pad_id, or a GPT's prompts; or a list of lists of any length,
        which are taken as they are.
    beam_size: how many hypotheses a row pursues; 1 is greedy search.
    max_new_tokens: the most tokens, the end token included; may be a list, one for each row. The
        memory for so many is taken at once.
    min_new_tokens: no end token before that many others; what is in `stop` ends it nevertheless.
    length_penalty: the exponent that scores are divided by, see Hypothesis; above 0 favours long
        output.
    do_sample: draw num_return_sequences continuations at random instead, from the distribution
        sharpened by a temperature below 1 or flattened by one above it, cut to the top_k most
        probable tokens (0: all), then to the smallest set of them that reaches top_p, then to those
        that are min_p times as probable as the best one.
    repetition_penalty: tokens that are in the output already, or in a prompt, are made less likely
        by that factor: logits above 0 are divided by it, those below multiplied. 1 is none.
    prefix_tokens: the tokens that every output begins with, or a list of them for each row; they
        are part of the hypothesis.
    bad_words: tokens, and sequences of tokens, that no output has.
    stop: tokens, and sequences of tokens, that end an output, as the end token does; they are not
        part of the hypothesis.
    seed: of what is drawn, for the same outputs whatever was drawn before; None: the numbers that
        tx.manual_seed has begun go on.

    Everything runs in evaluation mode and without gradients; the model's modes are as before
    afterwards. Raises UserError for settings that make no sense, for rows that the model has no
    room for, and where logits are not finite.
    """
    settings = Settings(
        beam_size, max_new_tokens, min_new_tokens, length_penalty, num_return_sequences, do_sample,
        temperature, top_k, top_p, min_p, repetition_penalty, prefix_tokens, bad_words, stop, seed,
    )  # fmt: skip
    rows = prepared(model, ids)
    limits = settings.limits(len(rows))
    if not rows:
        return []
    check_room(model, rows, limits)
    search, controls = settings.search(model, limits), settings.controls(model, rows)
    with evaluating(model.modules()), no_grad():
        for _ in run(model, rows, max(limits), search, controls):
            pass
    found = search.results(num_return_sequences)
    require_found(found)
    return found


def require_found(found: list[list[Hypothesis]]) -> None:
    """UserError for a row of which nothing was found."""
    for i, row in enumerate(found):
        if not row:
            raise UserError(f"row {i}: the model gives every continuation allowed probability 0")


def run(
    model: Model,
    rows: list[list[int]],
    most: int,
    search: Search,
    controls: Controls | None = None,
) -> Iterator[None]:
    """Pad the rows, round the shapes up as far as the model has room, and decode; it stops at every
    look at what has been found."""
    width = max(1, *map(len, rows))
    room = model.room(round_up(width))
    if room is None or room >= most:
        width = round_up(width)
    else:
        room = model.room(width)
    most = round_up(most) if room is None else max(most, min(round_up(most), room))
    pad = model.config.pad_id or 0
    ids = np.full((len(rows), width), pad, np.int64)
    left = model.padding_side == "left"
    for line, row in zip(ids, rows, strict=True):
        line[width - len(row) if left else 0 :][: len(row)] = row
    # On the right padding is told by pad_id, as in training; on the left it may be any id.
    lengths = np.array([len(row) for row in rows]) if left else None
    return decode(model, ids, lengths, most, search, controls)


def prepared(model: Model, ids: Any) -> list[list[int]]:
    """Each row's ids. An array's padding goes, for it may be of another width than ours."""
    if not hasattr(model, "padding_side"):
        kind = type(model).__name__
        raise TypeError(
            f"generate: model must be a Transformer or a GPT, or have their start() and step(), "
            f"not a {kind}"
        )
    if not isinstance(ids, (Tensor, np.ndarray)):
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            what = repr(ids) if isinstance(ids, (str, int, float)) else f"a {type(ids).__name__}"
            raise TypeError(
                f"generate: ids must be integers (batch, length) or a list of lists, not {what}"
            )
        return [_whole(row).tolist() for row in ids]
    array = _whole(ids, ndim=2)
    pad = model.config.pad_id
    rows: list[list[int]] = array.tolist()
    if pad is None:
        return rows
    for row in rows:
        while row and row[-1] == pad:
            row.pop()
        if model.padding_side == "left":
            del row[: next((i for i, token in enumerate(row) if token != pad), 0)]
    return rows


def _whole(ids: Any, ndim: int = 1) -> Ints:
    try:
        array = np.asarray(ids)
    except ValueError:  # nested lists of unequal length
        array = np.empty((0, 0, 0))
    if array.ndim != ndim or (array.size and array.dtype.kind not in "iu"):
        raise UserError(
            f"ids: {array.dtype} {array.shape}, but they must be integers (batch, length), or a "
            "list of lists of integers"
        )
    return array.astype(np.int64)


def check_room(model: Model, rows: list[list[int]], limits: list[int]) -> None:
    for i, (row, limit) in enumerate(zip(rows, limits, strict=True)):
        if model.padding_side == "left" and not row:
            raise UserError(f"row {i}: an empty prompt; give at least one token")
        room = model.room(len(row))
        if room is not None and room < limit:
            raise UserError(
                f"row {i}: {len(row)} tokens leave room for {max(room, 0)} new ones in this model, "
                f"not {limit}; shorten the row or max_new_tokens"
            )
