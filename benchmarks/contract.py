"""What contenders agree on with worker.py. A contender names a class or function for each role it
has (contenders.py); these are their types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from .works import Array, Batch, Decoding, RecurrentWork, Work


class Training(Protocol):
    """A model and its optimizer. Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: Work, dropout: float, shared: bool) -> None:
        """shared: begin with works.weights; otherwise with whatever the library begins with."""

    def __call__(self, batch: Batch) -> float: ...

    def stats(self) -> dict[str, Any]:
        """What the library knows of its own work, if anything."""


class RecurrentTraining(Protocol):
    """Recurrent layers with works.weights and their optimizer. Called with a batch, it takes a step
    and gives the loss."""

    def __init__(self, work: RecurrentWork) -> None: ...

    def __call__(self, batch: Batch) -> float: ...


class Embedder(Protocol):
    """A function that makes the call which gives the vectors (n, width) of lines."""

    def __call__(self, lines: Sequence[str]) -> Callable[[], Array]: ...


class Translation(NamedTuple):
    """tokens int (B, new_tokens): each row's best hypothesis; no step may choose the end token.
    scores (B,): the sums of their log-probabilities."""

    tokens: Array
    scores: Array


class Translator(Protocol):
    """A model with case.weights(). Called with sources (B, S), it translates them."""

    def __init__(self, case: Decoding) -> None: ...

    def __call__(self, sources: Array) -> Translation: ...


Kernel = Callable[..., Callable[[], Any]]
"""kernel(name, *float32 arrays) -> a call that computes it and gives something like an array."""
