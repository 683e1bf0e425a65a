"""The decoding loop: a model's compiled steps, driven by a search.

Comes in: a model that can be decoded, padded ids, a search. Goes out: nothing; the search holds
what was found. Called by generate.py.

A step (feed the newest tokens, update the caches, choose candidates) is traced once for each shape:
position and settings are 0-d Tensors, it moves the position on, and only the candidates leave it.
Shapes are rounded up to a small set, so there are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from ..compiler import compile
from ..creation import tensor
from ..dtypes import float32
from ..errors import UserError
from ..models.stepwise import Start, State, Stepwise
from ..nn import Module
from ..tensor import Tensor
from .search import Bools, Choice, Ints, Search


class Model(Stepwise, Protocol):
    """A module that can be decoded. config: has eos_id and pad_id."""

    @property
    def config(self) -> Any: ...
    def modules(self) -> Iterator[Module]: ...
    def parameters(self) -> Iterator[Tensor]: ...


class Steps:
    """A model's compiled functions, kept in an attribute of it: they live as long as it does."""

    def __init__(self, model: Model) -> None:
        self.model = owner = ref(model)

        def start(ids: Tensor, lengths: Tensor | None, max_new_tokens: int, beam: int) -> Start:
            return _alive(owner).start(ids, lengths, max_new_tokens=max_new_tokens, beam=beam)

        def step(
            choice: Choice,
            state: State,
            rows: Tensor | None,
            ids: Tensor,
            position: Tensor,
            inputs: tuple[Tensor, ...],
        ) -> tuple[Tensor, Tensor]:
            if rows is not None:
                state.reorder(rows)
            logits = _alive(owner).step(state, ids, position)
            position.assign(position + 1)
            if logits.dtype.itemsize < 4:
                logits = logits.to(float32)
            return choice(logits.log_softmax(-1), *inputs)

        self.start, self.step = compile(start), compile(step)

    @classmethod
    def of(cls, model: Model) -> Steps:
        """The model's own, made at first use."""
        attributes = vars(model)
        found = attributes.get("_decoding_steps")
        if not isinstance(found, Steps) or found.model() is not model:
            found = attributes["_decoding_steps"] = Steps(model)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy of the model makes its own


def _alive(owner: Any) -> Model:
    model: Model | None = owner()
    assert model is not None  # only calls of its own reach this
    return model


def round_up(n: int) -> int:
    """n as the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: 2^i or 3 2^i."""
    power: int = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power > 2 and n <= power * 3 // 4 else power


def decode(
    model: Model, ids: Ints, lengths: Ints | None, max_new_tokens: int, search: Search
) -> None:
    """Run a search on a model from ids (B, S) until every row is done.

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
    while True:
        slots, width = search.parents.shape
        rows = None
        if search.reorders:
            rows = on_device((np.arange(slots)[:, None] * width + search.parents).reshape(-1))
        found = steps.step(search.choice, state, rows, newest, position, search.inputs())
        log_probs, chosen = (x.numpy().reshape(slots, width, -1) for x in found)
        _require_numbers(search, log_probs)
        search.advance(log_probs.astype(np.float64), chosen)
        active = np.flatnonzero(~search.done)
        if not active.size:
            return
        if 2 * round_up(len(active)) <= slots:  # go on with fewer rows
            kept, filling = _filled(active)
            search.select(kept, filling)
            state = state.keep(on_device(kept))
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
