"""segment: waves of launches between two opaque calls, as one native program.

In: waves, and the address of every kernel's code. Out: a Segment, which runs them on a table of the
buffers' addresses. Called by run/execution.py; inspect/check.py takes its launches one by one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...backends import interpreter
from ...backends.kernel import Index, Kernel
from ...backends.native import render
from ...backends.native.program import Launch as NativeLaunch
from ...backends.native.program import Program, Wave
from ...backends.native.target import Target
from ..schedule.records import Launch, itemsize

Words = np.ndarray[Any, np.dtype[np.int64]]
ALONE = 20_000  # elements: a segment that touches fewer is not worth waking a team


class Part(NamedTuple):
    """A kernel's call: its arguments are these words of the segment's."""

    kernel: Kernel
    start: int
    end: int


class Segment:
    """waves, and for each of their launches its calls as parts."""

    def __init__(
        self,
        waves: list[list[Launch]],
        addresses: Mapping[Kernel, int] | None,
        target: Target,
        moving: Collection[int],
    ) -> None:
        """addresses: of the kernels' code; None: the interpreter runs them. moving: numbers of the
        buffers that lie elsewhere at each run."""
        self.waves, self.target = waves, target
        values: list[int] = []
        slots: list[int] = []
        self.parts: dict[Launch, list[Part]] = {}
        native, self.scratch, work = [], 0, 0
        for wave in waves:
            launches, stop = [], -1
            for launch in wave:
                parts = self.parts[launch] = []
                for call in launch.calls:
                    start = len(values)
                    for item in call.args:
                        if isinstance(item, tuple):
                            buffer, offset = item
                            values.append(offset * itemsize(buffer.dtype))
                            slots.append(buffer.number)
                        else:
                            values.append(item)
                            slots.append(-1)
                    parts.append(Part(call.kernel, start, len(values)))
                    if isinstance(call.kernel, Index):
                        stop = len(values) - 1
                    work += sum(v.buffer.size for v in call.writes)
                    if addresses is not None:
                        needed = render.scratch(call.kernel, values[start:], target)
                        self.scratch = max(self.scratch, needed)
                if addresses is not None:
                    first = parts[0]
                    tasks = first.kernel.tasks(values[first.start : first.end])
                    code = tuple((addresses[p.kernel], p.start) for p in parts)
                    launches.append(NativeLaunch(code, tasks))
            native.append(Wave(tuple(launches), stop))
        self.values = np.array(values, np.int64)
        self.slots = np.array(slots, np.int64)
        self.args = np.empty_like(self.values)
        self._moving = np.flatnonzero(np.isin(self.slots, list(moving)))
        self.native = native if addresses is not None else None
        self._program = Program(native, self.scratch, work < ALONE) if self.native else None

    def bind(self, bases: Words, moved: bool) -> None:
        """Put addresses into the arguments. moved: all anew, not only those that always move."""
        if moved:
            np.add(self.values, bases[self.slots], out=self.args)
        else:
            at = self._moving
            self.args[at] = self.values[at] + bases[self.slots[at]]

    def run(self) -> int:
        """Run it; how many waves have run: all, or up to the one in which an index was outside,
        which the plan's report tells apart."""
        if self._program is not None:
            return self._program.run(self.args)
        for number, wave in enumerate(self.waves, 1):
            if not all(map(self.interpret, wave)):
                return number
        return len(self.waves)

    def run_timed(self) -> list[float]:
        """Run it; the seconds of each wave that has run. None are known of the interpreter."""
        if self._program is not None:
            return self._program.run_timed(self.args)
        return [0.0] * self.run()

    def interpret(self, launch: Launch) -> bool:
        """One launch through the interpreter; False where an index was outside."""
        for kernel, start, end in self.parts[launch]:
            args = self.args[start:end].tolist()
            interpreter.run(kernel, args, self.target)
            if isinstance(kernel, Index) and ctypes.c_int64.from_address(args[-1]).value:
                return False
        return True
