"""EMA: an exponential moving average of parameters, to evaluate with.

In: parameters after each step. Out: their average, swapped in for a while. Called by the trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..dtypes import float32
from ..errors import DeviceError
from ..partition import Partition, partitions_of, whole_state
from ..state import KEEPERS, State, load_state
from ..tensor import Tensor, no_grad
from .optimizer import require, require_numbers, require_tensors, tensors


class EMA:
    """average = decay * average + (1 - decay) * parameter at each update(); starts as the
    parameters are. In float32 where a parameter has 16 bits, which hold no small steps."""

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.999) -> None:
        require_numbers(decay=decay)
        require("EMA: decay", decay, 0 <= decay < 1, "at least 0 and below 1")
        self.decay = decay
        self.parameters = tensors("EMA", parameters)
        require_tensors("EMA", self.parameters)
        self.averages = [
            p.detach().to(float32) if p.dtype.is_half else p.detach() for p in self.parameters
        ]
        KEEPERS.add(self)

    @no_grad()
    def update(self) -> None:
        """Take the parameters' values of now into the average: call it after optimizer.step()."""
        for average, p in zip(self.averages[:1], self.parameters, strict=False):
            if average.device != p.device:
                raise DeviceError(
                    f"EMA: the parameters are on {p.device}, their averages on {average.device}: "
                    "make the EMA after model.to(...)"
                )
        for average, p in zip(self.averages, self.parameters, strict=True):
            average.assign(average + (1 - self.decay) * (p.to(average.dtype) - average))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters are the averages; after it, they are exactly as before."""
        before = [p.detach() for p in self.parameters]
        self._set(self.averages)
        try:
            yield
        finally:
            self._set(before)

    @no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for p, value in zip(self.parameters, values, strict=True):
            p.assign(value.to(p.dtype))

    def state_dict(self) -> dict[str, Tensor]:
        """The averages as "average.{parameter number}", whole ones where ranks share them, who then
        ask together."""
        return whole_state(self._state(), self._partitions())

    def load_state_dict(self, state: State) -> None:
        """Go on from a state_dict; UserError naming what does not fit."""
        load_state("EMA", self._state(), state, strict=True, partitions=self._partitions())

    def _state(self) -> dict[str, Tensor]:
        return {f"average.{i}": average for i, average in enumerate(self.averages)}

    def _partitions(self) -> dict[str, Partition]:
        return partitions_of({f"average.{i}": p for i, p in enumerate(self.parameters)})
