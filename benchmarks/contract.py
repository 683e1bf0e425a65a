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


class Device(Protocol):
    """A library on a GPU (gpu_worker.py). What it computes is on its way when a call returns;
    wait() is until it is there. Making one fails where there is no GPU, and says why."""

    def facts(self) -> dict[str, Any]:
        """`name` of the GPU, `memory` in bytes, and versions."""

    def training(self, work: Work, dropout: float, precision: str) -> Callable[[Any], Any]:
        """A model with works.weights, and its optimizer: called with what put() has made of a
        batch, it takes a step and gives the loss. precision: "fp32" or "bf16", mixed as the library
        recommends."""

    def put(self, batch: Batch) -> Any:
        """A batch on the GPU."""

    def kernel(self, name: str, precision: str, arrays: Sequence[Array]) -> Callable[[], Any]:
        """The call of a kernel of gpu_kernels.py on these inputs; what it gives is for sample().
        KeyError where the library has no such one."""

    def sample(self, found: Any, count: int) -> list[float]:
        """About so many of the numbers that a step or a kernel gives, on the host."""

    def wait(self) -> None: ...

    def forget(self) -> None:
        """Give back the memory of what is not used any more."""

    def held(self) -> int:
        """The most bytes of the GPU that the library has had for itself so far."""

    def waits(self, call: Callable[[], Any]) -> int | None:
        """How often the host waits for the GPU in a call; None where nobody can tell."""
