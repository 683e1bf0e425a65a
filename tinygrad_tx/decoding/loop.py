"""The decoding loop: a model's compiled steps, driven by a search.

In: a model that can be decoded, padded ids, a search. Out: nothing; the search holds its findings.
Called by generate.py.

A step (feed the newest tokens, update the caches, choose candidates) is traced once for each shape:
position and settings are 0-d Tensors. It leaves its candidates in `Notes` and, where hypotheses do
not change places, takes the next tokens by itself: so steps follow each other with no Python in
between until a row may be done, and the search takes in their candidates afterwards. Shapes are
rounded up to a small set, so there are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..compiler import compile
from ..creation import tensor, zeros
from ..dtypes import float32, float64, int64
from ..errors import UserError
from ..models.stepwise import Start, State, Stepwise
from ..nn import Module
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor
from .controls import Controls, Told, allowed, penalised
from .owned import Owned, alive
from .protocols import Bools, Choice, Floats, Ints, Search

AHEAD = 64  # steps at most between two looks: other threads may wait for one


class Model(Stepwise, Protocol):
    """A module that can be decoded. config: has eos_id and pad_id."""

    @property
    def config(self) -> Any: ...
    def modules(self) -> Iterator[Module]: ...
    def parameters(self) -> Iterator[Tensor]: ...


class Notes(NamedTuple):
    """The notes that the steps of N rows leave for the search, which reads them when it looks. All
    are written in place."""

    log_probs: Tensor  # float64 (steps, N, k)
    ids: Tensor  # (steps, N, k)
    steps: Tensor  # 0-d: how many there are
    open: Tensor  # bool (N,): the rows that are not done
    look: Tensor  # 0-d bool: one of those has come to an end token

    @classmethod
    def blank(cls, steps: int, k: int, open: Bools, taken: int, device: str) -> Notes:
        """Room for so many steps with k candidates. taken: the steps before these."""
        shape = (steps, len(open), k)
        return cls(
            zeros(shape, dtype=float64, device=device),
            zeros(shape, dtype=int64, device=device),
            tensor(taken, device=device),
            tensor(open, device=device),
            tensor(False, device=device),
        )

    def write(self, log_probs: Tensor, ids: Tensor, ends: Tensor) -> None:
        for own, new in ((self.log_probs, log_probs), (self.ids, ids)):
            own.assign(F.write_at(own, new.to(own.dtype).unsqueeze(0), self.steps, 0))
        self.steps.assign(self.steps + 1)
        self.look.assign((ends & self.open).any())

    def read(self, begin: int, end: int, width: int) -> Iterator[tuple[Floats, Ints]]:
        """Copies of each step's log-probabilities and ids, as a search takes them."""
        log_probs, ids = self.log_probs.numpy()[begin:end], self.ids.numpy()[begin:end]
        shape = (end - begin, -1, width, ids.shape[-1])
        return zip(log_probs.copy().reshape(shape), ids.copy().reshape(shape), strict=True)


class Steps(Owned):
    """A model's compiled functions."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        owner = self.model

        def start(ids: Tensor, lengths: Tensor | None, max_new_tokens: int, beam: int) -> Start:
            own: Model = alive(owner)
            return own.start(ids, lengths, max_new_tokens=max_new_tokens, beam=beam)

        def step(
            choice: Choice,
            state: State,
            rows: Tensor | None,
            ids: Tensor,
            position: Tensor,
            notes: Notes,
            inputs: tuple[Tensor, ...],
            told: Told | None,
        ) -> None:
            if rows is not None:
                state.reorder(rows)
                if told is not None:
                    told.reorder(rows)
            if told is not None:
                told.take(ids)
            logits = alive(owner).step(state, ids, position)
            if logits.dtype.itemsize < 4:
                logits = logits.to(float32)
            if told is not None and not choice.sums:
                logits = penalised(logits, told)
            log_probs = logits.log_softmax(-1)
            if told is not None:
                if choice.sums:  # as everybody else does it: a beam adds up what is penalised
                    log_probs = penalised(log_probs, told)
                log_probs = allowed(log_probs, notes.steps, told)
            found, chosen = choice(log_probs, notes.steps, *inputs)
            notes.write(found, chosen, choice.ends(chosen))
            ids.assign(choice.next(chosen))
            position.assign(position + 1)

        self.start, self.step = compile(start), compile(step)


def round_up(n: int) -> int:
    """n as the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: 2^i or 3 2^i."""
    power: int = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power > 2 and n <= power * 3 // 4 else power


def decode(
    model: Model,
    ids: Ints,
    lengths: Ints | None,
    max_new_tokens: int,
    search: Search,
    controls: Controls | None = None,
) -> Iterator[None]:
    """Run a search on a model from ids (B, S) until every row is done; it stops at every look at
    what the steps have found.

    Raises UserError where the model's logits are no numbers.
    """
    steps = Steps.of(model)
    device = next(model.parameters()).device

    def on_device(array: NDArray[Any]) -> Tensor:
        return tensor(array, device=device)

    search.select(*_filled(np.arange(len(ids))))
    counts = None if lengths is None else on_device(lengths[search.rows])
    start = steps.start(on_device(ids[search.rows]), counts, max_new_tokens, search.width)
    state, newest, position = start.state, start.ids, start.position
    taken, told = 0, None
    if controls is not None:
        told = controls.told(np.repeat(search.rows, search.width), max_new_tokens, device)

    def prepared() -> tuple[Notes, tuple[Tensor, ...]]:
        """The inputs of the steps as long as the slots stay."""
        open = np.repeat(~search.done, search.width)
        blank = Notes.blank(max_new_tokens, search.choice.k, open, taken, device)
        return blank, search.inputs(max_new_tokens)

    notes, inputs = prepared()
    while True:
        slots, width = search.parents.shape
        rows = None
        if search.reorders:
            rows = on_device((np.arange(slots)[:, None] * width + search.parents).reshape(-1))
        given = (search.choice, state, rows, newest, position, notes, inputs, told)
        count = steps.step.repeat(min(search.ahead, AHEAD), notes.look, *given)
        before = search.done.copy()
        for log_probs, chosen in notes.read(taken, taken + count, width):
            _require_numbers(search, log_probs)
            search.advance(log_probs, chosen)
            active = np.flatnonzero(~search.done)
            if not active.size:
                return
        yield
        taken += count
        if 2 * round_up(len(active)) <= slots:  # go on with fewer rows
            kept, filling = _filled(active)
            search.select(kept, filling)
            state = state.keep(on_device(kept))
            if told is not None:
                places = np.arange(search.width)
                told = told.keep(on_device((kept[:, None] * width + places).reshape(-1)))
            notes, inputs = prepared()
        elif (search.done != before).any():
            notes = notes._replace(open=on_device(np.repeat(~search.done, width)))
        newest = on_device(search.tokens.reshape(-1))


def _filled(slots: Ints) -> tuple[Ints, Bools]:
    """Slots in a rounded number, and which of them, repeated, only fill it."""
    size = round_up(len(slots))
    return np.resize(slots, size), np.arange(size) >= len(slots)


def _require_numbers(search: Search, log_probs: NDArray[Any]) -> None:
    # A logit that is NaN or +inf makes NaN of its whole row, and NaN comes first among candidates.
    if not np.isnan(log_probs.sum()):  # mostly so
        return
    bad = np.isnan(log_probs[:, :, 0]).any(axis=1) & ~search.done
    if bad.any():
        raise UserError(
            f"row {search.rows[bad][0]}: the model's logits are not finite; its weights are "
            "damaged, or its training has diverged"
        )
