"""The decoding loop: a model's compiled steps, driven by a search.

Comes in: a model that can be decoded, the ids to start from, a search. Goes out: nothing; the
search holds what was found. Called by generate.py.

A step (embed the newest tokens, update the caches, choose candidates) is traced once for each
shape; position and settings are 0-d Tensors, and only candidates leave it. Shapes are rounded up to
a small set, so there are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .. import tree
from ..compiler import Compiled, compile
from ..creation import tensor
from ..dtypes import float32
from ..errors import UserError
from ..tensor import Tensor

Ints = NDArray[np.int64]


class State(Protocol):
    """What a model remembers of the rows it decodes: containers of Tensors, rows first."""

    def select(self, rows: Tensor) -> Self:
        """The rows (N',) as a new state."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; both are of the same sentence."""
        ...


class Decodable(Protocol):
    """A model that can be decoded."""

    def start(self, ids: Tensor, max_len: int) -> Any:
        """The state before the first step for ids (B, S)."""
        ...

    def step(self, state: Any, tokens: Tensor, position: Tensor) -> Tensor:
        """Logits (N, V) after the tokens (N,) at a 0-d position, which the state now knows."""
        ...


class Search(Protocol):
    """What drives a decoding: BeamSearch or Sampling. A slot is a row that is being worked on."""

    width: int  # hypotheses of a row
    choice: Callable[..., tuple[Tensor, Tensor]]  # hashable; runs inside the step
    reorders: bool  # whether hypotheses change places
    done: NDArray[np.bool_]  # (slots,)
    parents: Ints  # (slots, width): which hypothesis each one continues

    @property
    def tokens(self) -> Ints: ...
    def inputs(self) -> tuple[Any, ...]: ...
    def select(self, slots: Ints, done: NDArray[np.bool_]) -> None: ...
    def advance(self, log_probs: NDArray[np.float64], ids: Ints) -> None: ...


def round_up(n: int, least: int = 1) -> int:
    """n, at least `least`, as the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: 2^i or 3 2^i."""
    n = max(n, least)
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if n <= power * 3 // 4 else power


class Steps:
    """A model's compiled functions. They live as long as the model, in an attribute of it."""

    def __init__(self, model: Decodable) -> None:
        def start(ids: Tensor, max_len: int) -> Any:
            return model.start(ids, max_len)

        def step(
            choice: Callable[..., tuple[Tensor, Tensor]],
            state: Any,
            rows: Tensor | None,
            tokens: Tensor,
            position: Tensor,
            inputs: tuple[Any, ...],
        ) -> tuple[Tensor, Tensor]:
            if rows is not None:
                state.reorder(rows)
            logits = model.step(state, tokens, position)
            if logits.dtype.itemsize < 4:
                logits = logits.to(float32)
            return choice(logits.log_softmax(-1), *inputs)

        self.start: Compiled = compile(start)
        self.step: Compiled = compile(step)

    @classmethod
    def of(cls, model: Any) -> Steps:
        """The model's own, made at first use."""
        found: Steps = vars(model).setdefault("_decoding_steps", cls(model))
        return found
