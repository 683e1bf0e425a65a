"""segment: waves of launches between two opaque calls, as one program of the target.

In: waves, and the code of their kernels. Out: a Segment, which runs them on a table of the buffers'
addresses. Called by run/execution.py; inspect/check.py takes its launches one by one.

The calls in a loop's rounds have their arguments once: the program moves their addresses from round
to round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...backends.kernels.arguments import Place, words
from ...backends.kernels.kinds import CheckIndex
from ...backends.target import Done, Part, Program, Target, Wave
from ...backends.target import Loop as Rounds
from ..schedule.records import Buffer, Call, Launch, Loop, View, itemsize

Words = np.ndarray[Any, np.dtype[np.int64]]
ALONE = 20_000  # elements: a segment that touches fewer is not worth waking a team


class Segment:
    """waves, and for each of their launches (those inside loops too) its calls as parts."""

    def __init__(
        self,
        waves: list[list[Launch]],
        code: Any,
        target: Target,
        numbers: Mapping[Buffer, int],
        moving: Collection[int],
        states: Collection[int] = (),
    ) -> None:
        """code: of the kernels, as target.link() gives it. moving: numbers of the buffers that lie
        elsewhere at each run; states: of those that are state, where it lies."""
        self.waves, self.target, self._code = waves, target, code
        self._numbers, self._states = numbers, states
        self._values: list[int] = []
        self._slots: list[int] = []
        self.parts: dict[Launch, list[Part]] = {}
        self._all_waves: list[list[Launch]] = []  # as the program counts them
        self._inside: list[Loop] = []  # the loops around what is being linked
        self._loop_of: dict[Buffer, Loop] = {}  # whose rounds a buffer belongs to
        self._moves: dict[Loop, dict[int, int]] = {}  # words that grow from round to round
        self._round: dict[Loop, int] = {}
        self._work = 0
        linked = [self._entry(wave) for wave in waves]
        self.values = np.array(self._values, np.int64)
        self.slots = np.array(self._slots, np.int64)
        self.args = np.empty_like(self.values)
        self._moving = np.flatnonzero(np.isin(self.slots, list(moving)))
        self._program = self._linked(linked, alone=self._work < ALONE)
        self._stale = False  # whether a stop has left addresses of a round behind

    # Linking --------------------------------------------------------------------------------------
    def _entry(self, wave: list[Launch]) -> Wave | Rounds:
        """A wave, or the loop that it consists of."""
        if wave[0].loop is not None:
            return self._rounds(wave[0].loop)
        stop = -1
        for launch in wave:
            self.parts[launch] = [self._part(call) for call in launch.calls]
            for part in self.parts[launch]:
                if isinstance(part.kernel, CheckIndex):
                    stop = part.start + part.kernel.layout.report
        self._all_waves.append(wave)
        return Wave([self.parts[launch] for launch in wave], stop)

    def _rounds(self, loop: Loop) -> Rounds:
        self._inside.append(loop)
        self._moves[loop], self._round[loop] = {}, 0
        self._loop_of.update(dict.fromkeys(loop.bindings, loop))
        waves = [self._entry(wave) for wave in loop.plan.waves()]
        self._inside.pop()
        return Rounds(waves, loop.rounds, tuple(self._moves[loop].items()))

    def _part(self, call: Call) -> Part:
        start = len(self._values)
        for word in words(call.args):
            if isinstance(word, Place):
                slot, offset, steps = self._find(word.buffer)
                for loop, step in steps.items():
                    self._moves[loop][len(self._values)] = step
                self._values.append(offset + word.offset * itemsize(word.buffer.dtype))
                self._slots.append(slot)
            else:
                self._values.append(word)
                self._slots.append(-1)
        rounds = 1
        for loop in self._inside:
            rounds *= loop.rounds
        self._work += rounds * sum(v.buffer.size for v in call.writes)
        state = any(self._find(v.buffer)[0] in self._states for v in call.writes)
        return Part(call.kernel, start, len(self._values), state)

    def _find(self, buffer: Buffer) -> tuple[int, int, dict[Loop, int]]:
        """The number of the buffer outside of all loops in which one lies, the bytes before it, and
        by how many it moves in a round of each loop."""
        offset, steps = 0, dict[Loop, int]()
        while buffer in self._loop_of:
            loop = self._loop_of[buffer]
            buffer, ahead, step = loop.bindings[buffer]
            offset += ahead
            if step:
                steps[loop] = step
        return self._numbers[buffer], offset, steps

    def _linked(self, waves: Sequence[Wave | Rounds], *, alone: bool) -> Program:
        found: Program = self.target.program(self._code, waves, self._values, alone)
        return found

    # Running --------------------------------------------------------------------------------------
    def bind(self, bases: Words, moved: bool) -> None:
        """Put addresses into the arguments. moved: all anew, not only those that always move."""
        if moved or self._stale:
            np.add(self.values, bases[self.slots], out=self.args)
            self._stale = False
        else:
            at = self._moving
            self.args[at] = self.values[at] + bases[self.slots[at]]

    def run(self) -> list[Launch]:
        """Run it; the last wave that has run: the one in which an index was outside, if the plan's
        report says so."""
        return self._all_waves[self._program.run(self.args) - 1]

    def run_timed(self) -> tuple[list[Launch], list[float]]:
        """As run(), and the seconds of each of `waves` that has run."""
        ran, seconds = self._program.run_timed(self.args)
        return self._all_waves[ran - 1], seconds

    def done(self) -> list[tuple[Launch, Done]]:
        """What each thread did in the last timed run."""
        return [(self._all_waves[x.wave][x.launch], x) for x in self._program.done()]

    def notes(self) -> list[str]:
        """What is to be said of how it runs."""
        return self._program.notes()

    def blamed(self, args: Words, low: int) -> list[Launch] | None:
        """The wave of the check whose report has these low bits. args: those of that run."""
        wave = self._program.blamed(args, low)
        return self._all_waves[wave - 1] if wave else None

    @property
    def checks(self) -> bool:
        """True if indices are checked in it."""
        return any(isinstance(p.kernel, CheckIndex) for parts in self.parts.values() for p in parts)

    def checked_index(self, launch: Launch, call: Call, args: Words) -> Any:
        """What a check of indices has looked at, where it has ended the run that had these args."""
        self._stale = True
        part = self.parts[launch][launch.calls.index(call)]
        assert isinstance(part.kernel, CheckIndex)
        view = call.reads[0]
        address = int(args[part.start + part.kernel.layout.given])
        return self.target.memory.view(address, view.dtype, view.shape, view.strides)

    # One launch by itself, for inspect/check.py ---------------------------------------------------
    def alone(self, launch: Launch, bases: Words) -> Program:
        """Its program, in the round that rounds() has come to. The report of an index is not looked
        at."""
        values = (self.args - bases[self.slots]).tolist()
        wave = Wave([self.parts[launch]], -1)
        found: Program = self.target.program(self._code, [wave], values, False)
        return found

    def buffers(self, launch: Launch) -> list[tuple[int, Buffer]]:
        """Those outside of all loops in which its operands lie, with their numbers."""
        words = (self.slots[start:end] for _, start, end, _ in self.parts[launch])
        mine = set(np.concatenate(list(words)).tolist())
        return [(number, b) for b, number in self._numbers.items() if number in mine]

    def rounds(self, loop: Loop) -> Iterator[int]:
        """The rounds of a loop: its launches' arguments are those of each one in turn."""
        moves = self._moves[loop]
        for number in range(loop.rounds):
            self._round[loop] = number
            yield number
            for word, step in moves.items():
                self.args[word] += step if number + 1 < loop.rounds else -step * number
        self._round[loop] = 0

    def address(self, view: View, bases: Words) -> int:
        """Of a view, in the round that rounds() has come to."""
        slot, offset, steps = self._find(view.buffer)
        address = int(bases[slot]) + offset + view.offset * itemsize(view.dtype)
        return address + sum(step * self._round[loop] for loop, step in steps.items())

    def interpret(self, launch: Launch, args: Words) -> bool:
        """Run it in NumPy on the host's memory; False where an index was outside."""
        return all(
            self.target.interpret(part.kernel, args[part.start : part.end].tolist())
            for part in self.parts[launch]
        )
