"""generate: from a model and source ids (or prompts) to the best continuations.

In: ids and the settings of the search. Out: Hypothesis lists. Called by translate.py, the command
line and users.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import UserError
from ..nn.module import evaluating
from ..tensor import Tensor, no_grad
from .beam import BeamSearch
from .controls import Controls
from .loop import Model, decode, round_up
from .protocols import Hypothesis, Ints, Search, Stops
from .sampling import Sampling

MOST = 2**20  # new tokens: memory for the keys and values of all of them is taken at the start


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
    min_new_tokens: no end token before that many others.
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
    _require_kinds(
        ints={
            "beam_size": beam_size,
            "num_return_sequences": num_return_sequences,
            "min_new_tokens": min_new_tokens,
            "top_k": top_k,
        },
        numbers={
            "length_penalty": length_penalty,
            "temperature": temperature,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
        },
    )
    if not hasattr(model, "padding_side"):
        kind = type(model).__name__
        raise TypeError(
            f"generate: model must be a Transformer or a GPT, or have their start() and step(), "
            f"not a {kind}"
        )
    _check(beam_size, num_return_sequences, do_sample, temperature, top_k, top_p, length_penalty)
    rows = _rows(ids, model)
    limits = _limits(max_new_tokens, min_new_tokens, len(rows))
    if not rows:
        return []
    _check_room(model, rows, limits)
    _check_controls(min_p, repetition_penalty, seed)
    size = model.config.vocab_size
    stops = sequences("stop", stop, size)
    controls = _controls(model, rows, repetition_penalty, prefix_tokens, bad_words)
    eos_id = -1 if model.config.eos_id is None else model.config.eos_id
    search: BeamSearch | Sampling
    if do_sample:
        search = Sampling(
            limits,
            eos_id=eos_id,
            samples=num_return_sequences,
            min_new_tokens=min_new_tokens,
            length_penalty=length_penalty,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            stops=stops,
            seed=seed,
            often=False,
            device=next(model.parameters()).device,
        )
    else:
        search = BeamSearch(
            limits,
            eos_id=eos_id,
            beam_size=beam_size,
            min_new_tokens=min_new_tokens,
            length_penalty=length_penalty,
            stops=stops,
        )
    with evaluating(model.modules()), no_grad():
        for _ in run(model, rows, max(limits), search, controls):
            pass
    found = search.results(num_return_sequences)
    for i, row in enumerate(found):
        if not row:
            raise UserError(f"row {i}: the model gives every continuation allowed probability 0")
    return found


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


def _controls(
    model: Model,
    rows: list[list[int]],
    penalty: float,
    prefix_tokens: Any,
    bad_words: Any,
) -> Controls | None:
    """What is to be done to logits; None for nothing."""
    size = model.config.vocab_size
    nested = bool(prefix_tokens) and not isinstance(next(iter(prefix_tokens)), Integral)
    found = [sequence("prefix_tokens", row, size) for row in prefix_tokens] if nested else []
    if nested and len(found) != len(rows):
        raise UserError(f"prefix_tokens has {len(found)} lists for {len(rows)} rows")
    every = () if nested else sequence("prefix_tokens", prefix_tokens, size)
    prefixes = tuple(found) if nested else (every,) * len(rows)
    bad = sequences("bad_words", bad_words, size)
    if penalty == 1 and not bad and not any(prefixes):
        return None
    said = [row[:-1] for row in rows] if model.padding_side == "left" else [[] for _ in rows]
    return Controls(size, said, penalty, prefixes, bad)


def sequences(name: str, given: Any, size: int) -> Stops:
    """Tokens and sequences of tokens, as sequences. UserError for what is no token."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"generate: {name} must be a list of tokens, not {given!r}")
    found = tuple(
        sequence(name, (word,) if isinstance(word, Integral) else word, size) for word in given
    )
    if not all(found):
        raise UserError(f"{name}: a sequence without tokens")
    return found


def sequence(name: str, given: Any, size: int) -> tuple[int, ...]:
    """The tokens of a sequence. UserError for what is no token."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"generate: {name} must be a list of tokens, not {given!r}")
    found = tuple(given)
    for token in found:
        if isinstance(token, bool) or not isinstance(token, Integral):
            raise TypeError(f"generate: {name} must be tokens, which are ints, not {token!r}")
        if not 0 <= token < size:
            raise UserError(f"{name}: {token} is no token: they are from 0 to {size - 1}")
    return tuple(int(token) for token in found)


def _check_controls(min_p: float, repetition_penalty: float, seed: Any) -> None:
    if not 0 <= min_p <= 1:
        raise UserError(f"min_p = {min_p} must be from 0 to 1")
    if not 0 < repetition_penalty < math.inf:
        raise UserError(f"repetition_penalty = {repetition_penalty} must be above 0; 1 is none")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise TypeError(f"generate: seed must be an int, not {seed!r}")
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed = {seed} must be from 0 to 2**63 - 1")


def _require_kinds(ints: dict[str, Any], numbers: dict[str, Any]) -> None:
    """TypeError naming a setting that is no number."""
    for name, value in {**ints, **numbers}.items():
        wanted = Integral if name in ints else Real
        if isinstance(value, bool) or not isinstance(value, wanted):
            kind = "an int" if name in ints else "a number"
            raise TypeError(f"generate: {name} must be {kind}, not {value!r}")


def _check(
    beam_size: int,
    num_return_sequences: int,
    do_sample: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    length_penalty: float,
) -> None:
    for name, value in (("beam_size", beam_size), ("num_return_sequences", num_return_sequences)):
        if value < 1:
            raise UserError(f"{name} = {value} must be 1 or more")
    if do_sample and beam_size > 1:
        raise UserError(f"sampling knows no beam: beam_size = {beam_size} must be 1 with do_sample")
    if not do_sample and num_return_sequences > beam_size:
        raise UserError(
            f"num_return_sequences = {num_return_sequences} needs a beam_size that large, "
            f"not {beam_size}; or do_sample"
        )
    if not 0 < temperature < math.inf:
        raise UserError(
            f"temperature = {temperature} must be above 0; for the most probable tokens leave out "
            "do_sample"
        )
    if top_k < 0:
        raise UserError(f"top_k = {top_k} must be 1 or more, or 0 for all tokens")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p = {top_p} must be above 0 and at most 1")
    if not math.isfinite(length_penalty):
        raise UserError(f"length_penalty = {length_penalty} must be a finite number")


def _rows(ids: Any, model: Model) -> list[list[int]]:
    """Each row's ids. An array's padding goes, for it may be of another width than ours."""
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


def _limits(max_new_tokens: int | Sequence[int], min_new_tokens: int, rows: int) -> list[int]:
    if isinstance(max_new_tokens, (int, np.integer)):
        limits = [int(max_new_tokens)] * rows
    elif isinstance(max_new_tokens, (list, tuple)) and all(
        isinstance(n, Integral) and not isinstance(n, bool) for n in max_new_tokens
    ):
        limits = [int(n) for n in max_new_tokens]
    else:
        wanted = "an int, or a list with one for each row"
        raise TypeError(f"generate: max_new_tokens must be {wanted}, not {max_new_tokens!r}")
    if len(limits) != rows:
        raise UserError(f"max_new_tokens has {len(limits)} numbers for {rows} rows")
    for n in limits:
        if n < 1:
            raise UserError(f"max_new_tokens = {n} must be 1 or more")
        if n > MOST:
            raise UserError(
                f"max_new_tokens = {n} must be at most {MOST}: there must be room for it"
            )
        if not 0 <= min_new_tokens <= n:
            raise UserError(f"min_new_tokens = {min_new_tokens} must be from 0 to max_new_tokens")
    return limits


def _check_room(model: Model, rows: list[list[int]], limits: list[int]) -> None:
    for i, (row, limit) in enumerate(zip(rows, limits, strict=True)):
        if model.padding_side == "left" and not row:
            raise UserError(f"row {i}: an empty prompt; give at least one token")
        room = model.room(len(row))
        if room is not None and room < limit:
            raise UserError(
                f"row {i}: {len(row)} tokens leave room for {max(room, 0)} new ones in this model, "
                f"not {limit}; shorten the row or max_new_tokens"
            )
