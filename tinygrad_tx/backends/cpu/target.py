"""The processor as a Target, and the interpreter in its place where there is no native code.

In: a Processor (vector width, registers). Out: its answers to the compiler. Called through
backends.target_of().
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from .. import target
from ..kernels import interpreter
from ..kernels.kinds import Kernel
from ..kernels.summation import KC
from ..llvm import ir
from ..target import Cut, Done, Part
from . import jit, library, writers
from .matmul import gemm
from .memory import HostMemory
from .processor import Processor
from .run.program import Launch, Loop, Program, Wave

TALL = 8  # tiles of rows from which on a product has tasks enough without cutting its columns


_MEMORY = HostMemory()


@dataclass(frozen=True)
class Cpu(target.Target):
    machine: Processor
    block = KC
    native = True
    memory = _MEMORY

    def cut(
        self, m: int, n: int, k: int, batch: int, dtype: str, *, full_rows: bool = False
    ) -> Cut:
        return Cut(*gemm.choose(m, n, k, batch, dtype, self.machine, full_rows=full_rows))

    def takes_epilogues(self, m: int, dtype: str) -> bool:
        return m >= TALL * self.machine.tile(dtype)[0]

    def pack_width(self, dtype: str) -> int:
        return self.machine.tile(dtype)[1]

    def link(self, kernels: Sequence[Kernel]) -> Any:
        return library.functions(kernels, self.machine)

    def program(
        self,
        code: Any,
        waves: Sequence[target.Entry],
        values: Sequence[int],
        alone: bool,
    ) -> target.Program:
        parts = [p for wave in target.waves_in(waves) for x in wave.launches for p in x]
        needs = (writers.scratch(p.kernel, values[p.start : p.end], self.machine) for p in parts)
        native = [_entry(code, entry, values) for entry in waves]
        return Program(native, max(needs, default=0), alone)

    def interpret(self, kernel: Kernel, args: Sequence[int]) -> bool:
        return interpreter.inside(kernel, args, self.machine)

    def source(self, kernel: Kernel) -> str:
        module = ir.Module()
        writers.render(kernel, module, "kernel", self.machine)
        return module.text()

    def kept(self, kernel: Kernel) -> bool:
        return library.kept(kernel, self.machine)

    def assembly(self, kernel: Kernel) -> str:
        return jit.assembly(self.source(kernel), self.machine)


def _entry(code: Mapping[Kernel, int], entry: target.Entry, values: Sequence[int]) -> Wave | Loop:
    if isinstance(entry, target.Loop):
        inner = tuple(_entry(code, x, values) for x in entry.waves)
        return Loop(inner, entry.rounds, tuple(entry.moves))
    return Wave(tuple(_launch(code, launch, values) for launch in entry.launches), entry.stop)


def _launch(code: Mapping[Kernel, int], parts: Sequence[Part], values: Sequence[int]) -> Launch:
    first = parts[0]
    tasks = first.kernel.tasks(values[first.start : first.end])
    return Launch(tuple((code[p.kernel], p.start) for p in parts), tasks)


@dataclass(frozen=True)
class Interpreted(Cpu):
    """Kernels run in NumPy, one call after the other. machine: how packed matrices are laid out."""

    native = False

    def link(self, kernels: Sequence[Kernel]) -> Any:
        return None

    def program(
        self,
        code: Any,
        waves: Sequence[target.Entry],
        values: Sequence[int],
        alone: bool,
    ) -> target.Program:
        return _Interpretation(self, waves)


class _Interpretation:
    def __init__(self, interpreted: Interpreted, waves: Sequence[target.Entry]) -> None:
        self._target, self._waves = interpreted, waves
        self._number = {id(wave): i for i, wave in enumerate(target.waves_in(waves), 1)}

    def run(self, args: Any) -> int:
        return self._run(self._waves, args) or len(self._number)

    def _run(self, waves: Sequence[target.Entry], args: Any) -> int:
        """The number of the wave after which it stopped; 0 if none did."""
        for entry in waves:
            stopped = (
                self._rounds(entry, args)
                if isinstance(entry, target.Loop)
                else self._wave(entry, args)
            )
            if stopped:
                return stopped
        return 0

    def _rounds(self, loop: target.Loop, args: Any) -> int:
        for number in range(loop.rounds):
            stopped = self._run(loop.waves, args)
            if stopped:
                return stopped
            last = number == loop.rounds - 1
            for word, step in loop.moves:
                args[word] += -step * number if last else step
        return 0

    def _wave(self, wave: target.Wave, args: Any) -> int:
        done = all(
            self._target.interpret(part.kernel, args[part.start : part.end].tolist())
            for launch in wave.launches
            for part in launch
        )
        return 0 if done else self._number[id(wave)]

    def notes(self) -> list[str]:
        return []

    def blamed(self, args: Any, low: int) -> int:
        """Nothing: a run ends with such a wave."""
        return 0

    def run_timed(self, args: Any) -> tuple[int, list[float]]:
        seconds: list[float] = []
        for entry in self._waves:
            started = perf_counter()
            stopped = self._run([entry], args)
            seconds.append(perf_counter() - started)
            if stopped:
                return stopped, seconds
        return len(self._number), seconds

    def done(self) -> list[Done]:
        return []


def host() -> Cpu:
    """This processor. NativeUnavailable where code cannot be made for it."""
    return Cpu(jit.host_target())


def on_paper() -> Interpreted:
    """The answers of a processor; no code."""
    return interpreted()


def interpreted() -> Interpreted:
    """The interpreter, which runs on any machine."""
    return Interpreted(Processor("plain", 16))
