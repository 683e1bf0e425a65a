"""segment: waves of launches between two opaque calls, as one program of the target.

In: waves, and the code of their kernels. Out: a Segment, which runs them on a table of the buffers'
addresses. Called by run/execution.py; inspect/check.py takes its launches one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ...backends.kernels.arguments import Place, words
from ...backends.kernels.kinds import CheckIndex
from ...backends.target import Part, Program, Target, Wave
from ..schedule.records import Buffer, Launch, itemsize

Words = np.ndarray[Any, np.dtype[np.int64]]
ALONE = 20_000  # elements: a segment that touches fewer is not worth waking a team


class Segment:
    """waves, and for each of their launches its calls as parts."""

    def __init__(
        self,
        waves: list[list[Launch]],
        code: Any,
        target: Target,
        numbers: Mapping[Buffer, int],
        moving: Collection[int],
    ) -> None:
        """code: of the kernels, as target.link() gives it. moving: numbers of the buffers that lie
        elsewhere at each run."""
        self.waves, self.target, self._code = waves, target, code
        self._values: list[int] = []
        slots: list[int] = []
        self.parts: dict[Launch, list[Part]] = {}
        linked, work = [], 0
        for wave in waves:
            stop = -1
            for launch in wave:
                self.parts[launch] = []
                for call in launch.calls:
                    start = len(self._values)
                    for word in words(call.args):
                        if isinstance(word, Place):
                            self._values.append(word.offset * itemsize(word.buffer.dtype))
                            slots.append(numbers[word.buffer])
                        else:
                            self._values.append(word)
                            slots.append(-1)
                    self.parts[launch].append(Part(call.kernel, start, len(self._values)))
                    if isinstance(call.kernel, CheckIndex):
                        stop = start + call.kernel.layout.report
                    work += sum(v.buffer.size for v in call.writes)
            linked.append(Wave([self.parts[launch] for launch in wave], stop))
        self.values = np.array(self._values, np.int64)
        self.slots = np.array(slots, np.int64)
        self.args = np.empty_like(self.values)
        self._moving = np.flatnonzero(np.isin(self.slots, list(moving)))
        self._program = self._linked(linked, alone=work < ALONE)

    def bind(self, bases: Words, moved: bool) -> None:
        """Put addresses into the arguments. moved: all anew, not only those that always move."""
        if moved:
            np.add(self.values, bases[self.slots], out=self.args)
        else:
            at = self._moving
            self.args[at] = self.values[at] + bases[self.slots[at]]

    def run(self) -> int:
        """Run it; the number of waves that have run: all, or up to the one in which an index was
        outside, as the plan's report says."""
        return self._program.run(self.args)

    def run_timed(self) -> list[float]:
        """Run it; the seconds of each wave that has run."""
        return self._program.run_timed(self.args)

    # One launch by itself, for inspect/check.py ---------------------------------------------------
    def alone(self, launch: Launch) -> Program:
        """Its program. The report of an index is not looked at."""
        return self._linked([Wave([self.parts[launch]], -1)], alone=False)

    def _linked(self, waves: Sequence[Wave], *, alone: bool) -> Program:
        found: Program = self.target.program(self._code, waves, self._values, alone)
        return found

    def interpret(self, launch: Launch) -> bool:
        """Run it in NumPy; False where an index was outside."""
        return all(
            self.target.interpret(kernel, self.args[start:end].tolist())
            for kernel, start, end in self.parts[launch]
        )
