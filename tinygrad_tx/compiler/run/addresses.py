"""Addresses: the table that a run reads the places of a plan's buffers from.

In: a Plan, then arrays as runs bring them. Out: `bases`, which Segment.bind() adds to arguments.
Called by execution.py. Buffers that lie where they lay are not touched: hundreds of inputs of a
training step keep their addresses from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...backends.target import Memory
from ...dtypes import ALL
from ..schedule.records import Buffer, Plan, View, itemsize


class Addresses:
    """inputs: the buffer of each input of the recorded call; report: the address of that of the
    checks of indices."""

    def __init__(
        self, plan: Plan, inputs: Sequence[Buffer | None], report: int, memory: Memory
    ) -> None:
        self.plan, self._memory, numbers = plan, memory, plan.numbers
        self.bases = np.zeros(len(numbers) + 1, np.int64)  # the last one stays 0
        self._constants = {b: memory.constant(array) for b, array in plan.constants.items()}
        for buffer, number in numbers.items():
            if buffer.kind == "constant":
                self.bases[number] = memory.address(self._constants[buffer])
            elif buffer.kind == "report":
                self.bases[number] = report
        # Of each input: its own number, and those of new state that is written over it.
        self.of_input = [[numbers[b]] if b and b in numbers else [] for b in inputs]
        index = {buffer: i for i, buffer in enumerate(inputs) if buffer is not None}
        for new, old in plan.aliases.items():
            self.of_input[index[old]].append(numbers[new])
        shapes = {view.buffer: view.shape for view in plan.places.values()}
        self.results = [(numbers[b], shapes[b], ALL[b.dtype].np) for b in plan.results()]
        self._arena = [(numbers[b], offset) for b, offset in plan.offsets.items()]
        self._sizes = [b.bytes for b in plan.offsets]
        self._arena_base = -1
        self.moved = True  # whether the table knows more than the segments' arguments

    def put_input(self, i: int, array: Any) -> None:
        """Enter the address of an array, as that of input i and of the results written over it."""
        self.put(i, self._memory.address(array))

    def put(self, i: int, address: int) -> None:
        """Enter an address, as put_input does."""
        for number in self.of_input[i]:
            self.bases[number] = address

    def make_results(self) -> list[Any]:
        """New arrays for the results of a run."""
        arrays = []
        for number, shape, dtype in self.results:
            array = self._memory.empty(shape, dtype)
            self.bases[number] = self._memory.address(array)
            arrays.append(array)
        return arrays

    def reserve_arena(self) -> None:
        """The arena, as large as the plan needs it. The caller has its turn."""
        apart = self._memory.apart(self, self._sizes)
        if apart is not None:
            for (number, _), address in zip(self._arena, apart, strict=True):
                self.moved = self.moved or self.bases[number] != address
                self.bases[number] = address
            self._arena_base = -1
            return
        base = self._memory.reserve(self.plan.arena_bytes)
        if base != self._arena_base:
            self.moved, self._arena_base = True, base
            for number, offset in self._arena:
                self.bases[number] = base + offset

    def array_at(self, view: View) -> Any:
        """The memory under a view as an array."""
        base = int(self.bases[self.plan.numbers[view.buffer]])
        address = base + view.offset * itemsize(view.dtype)
        return self._memory.view(address, view.dtype, view.shape, view.strides)
