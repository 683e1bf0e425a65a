"""execute: run a plan, natively or through the interpreter of kernels.

In: a recorded call. Out: an Execution, which is used as a Replay is. Called by compiled.py.
Everything is computed first and Tensors change last. State whose Tensor is the only one to hold its
memory is written over where it lies, after all that can fail; other state is copied first.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from .. import backends
from ..backends import interpreter
from ..backends.kernel import Index, Opaque
from ..backends.native import library, render
from ..backends.native.program import Launch as NativeLaunch
from ..backends.native.program import Program, Wave
from ..backends.native.target import Target
from ..node import OPS, Node, naming
from ..tensor import Tensor
from .arena import ARENA
from .explain import explained
from .plan import Launch, indices, make
from .replay import Recording, find
from .trace import Input, Traced
from .views import ITEMSIZE, Buffer, View

Words = np.ndarray[Any, np.dtype[np.int64]]
TIMED = 3  # the run whose waves are timed, for explain(): the first that finds everything warm
ALONE = 20_000  # elements: a segment that touches fewer is not worth waking a team


class Execution(Recording):
    """A recorded call, ready to run from its plan."""

    def __init__(self, traced: Traced, target: Target, native: bool) -> None:
        super().__init__(traced)
        self.target, self.native = target, native
        states = {i.placeholder: i.node for i in traced.changed}
        self.plan = make(self.results, states, target)
        self.graph = self.plan.graph
        self.rewrite_seconds = self.plan.seconds
        self.bases = np.zeros(len(self.plan.buffers) + 1, np.int64)  # the last one stays 0
        self.report = np.zeros(2, np.int64)
        self.runs = 0
        self.inputs: list[tuple[Input, Buffer]] = [
            (i, self.plan.inputs[i.placeholder])
            for i in traced.inputs
            if i.placeholder in self.plan.inputs
        ]
        self.fresh = [b for b in self.plan.buffers if b.kind == "result" and not self._alias(b)]
        self.shapes = {view.buffer: view.shape for view in self.plan.places.values()}
        self.arena = [(b.number, offset) for b, offset in self.plan.offsets.items()]
        for buffer in self.plan.buffers:
            if buffer.kind == "constant":
                self.bases[buffer.number] = self.plan.constants[buffer].ctypes.data
            elif buffer.kind == "report":
                self.bases[buffer.number] = self.report.ctypes.data
        addresses: dict[Any, int] = {}
        if native:
            kernels = {c.kernel for x in self.plan.launches() for c in x.calls}
            addresses = dict(
                library.functions([k for k in kernels if not isinstance(k, Opaque)], target)
            )
        self.steps: list[Segment | Launch] = [
            step if isinstance(step, Launch) else Segment(step, addresses, target, native)
            for step in self.plan.steps
        ]

    def _alias(self, buffer: Buffer) -> bool:
        return buffer in self.plan.aliases

    def run(self, args: list[Any]) -> Any:
        """The function's result for arguments (as leaves) that pass the guards."""
        with ARENA.lock:
            arrays = self._bind(args)
            self.report[0] = 0
            self.runs += 1
            for step in self.steps:
                if isinstance(step, Segment):
                    if not step.run(self.bases, self.runs == TIMED):
                        self._raise(step)
                else:
                    self._call(step)
            places = self.plan.places
            return self.commit(args, lambda n: _shaped(arrays[places[n].buffer], n.shape))

    def kernels(self) -> int:
        """How many calls of kernels a run takes."""
        return sum(len(launch.calls) for launch in self.plan.launches())

    def peak_bytes(self) -> int:
        """What a run needs beside its inputs: the arena and its results."""
        return self.plan.arena_bytes + sum(b.bytes for b in self.fresh)

    def explain(self) -> str:
        times = [t for s in self.steps for t in (s.seconds if isinstance(s, Segment) else [0.0])]
        return explained(self.plan, times)

    # Before a run -------------------------------------------------------------------------------
    def _bind(self, args: list[Any]) -> dict[Buffer, Any]:
        """Find every buffer's address; the arrays of inputs and results."""
        bases, arrays = self.bases, {}
        for found, buffer in self.inputs:
            array = _array(find(found, args), buffer.state)
            arrays[buffer] = array
            bases[buffer.number] = array.ctypes.data
        for buffer in self.fresh:
            arrays[buffer] = array = np.empty(self.shapes[buffer], buffer.dtype)
            bases[buffer.number] = array.ctypes.data
        for new, old in self.plan.aliases.items():
            arrays[new] = arrays[old]
            bases[new.number] = bases[old.number]
        base = ARENA.reserve(self.plan.arena_bytes)
        for number, offset in self.arena:
            bases[number] = base + offset
        return arrays

    # What is not native -------------------------------------------------------------------------
    def _call(self, launch: Launch) -> None:
        """Call an op's forward as it is."""
        (call,) = launch.calls
        node = call.nodes[0]
        xp = backends.get(node.device)
        with xp.quiet(), naming(node.op):
            out = OPS[node.op.name].forward(xp, *map(self.look, call.reads), **node.attrs)
        outs = out if isinstance(out, tuple) else (out,)
        for view, value in zip(call.writes, outs, strict=True):
            np.copyto(self.look(view), value)

    def look(self, view: View) -> np.ndarray[Any, Any]:
        """The array that lies under a view now."""
        address = int(self.bases[view.buffer.number]) + view.offset * ITEMSIZE[view.dtype]
        return interpreter.view(address, view.dtype, view.shape, view.strides)

    def _raise(self, step: Segment) -> None:
        """An index was outside: say which one."""
        for wave in step.waves:
            for call in indices(wave):
                node, xp = call.nodes[0], backends.get("cpu")
                attrs = dict(node.attrs)
                name = attrs.get("of", "")
                if name == "update":
                    raise IndexError(
                        f"update: a write at position {self.report[1]} leaves its places: it must "
                        f"begin in 0..{attrs['size'] - 1}"
                    )
                with naming(OPS.get(name, node.op)):
                    node.op.forward(xp, self.look(call.reads[0]), **attrs)
        raise IndexError("an index is outside the entries it chooses from")


class Segment:
    """Waves between two opaque calls, with the list of their arguments."""

    def __init__(
        self, waves: list[list[Launch]], addresses: dict[Any, int], target: Target, native: bool
    ) -> None:
        self.waves, self.target = waves, target
        values: list[int] = []
        slots: list[int] = []
        self.calls: list[tuple[Any, int, int]] = []
        self.program: Program | None = None
        native_waves, scratch, work = [], 0, 0
        for wave in waves:
            launches, stop = [], -1
            for launch in wave:
                parts, tasks = [], 0
                for call in launch.calls:
                    start = len(values)
                    for item in call.args:
                        if isinstance(item, tuple):
                            buffer, offset = item
                            values.append(offset * ITEMSIZE[buffer.dtype])
                            slots.append(buffer.number)
                        else:
                            values.append(item)
                            slots.append(-1)
                    numbers = values[start:]
                    tasks = tasks or call.kernel.tasks(numbers)
                    if isinstance(call.kernel, Index):
                        stop = len(values) - 1
                    self.calls.append((call.kernel, start, len(values)))
                    work += sum(v.buffer.size for v in call.writes)
                    if native:
                        parts.append((addresses[call.kernel], start))
                        scratch = max(scratch, render.scratch(call.kernel, numbers, target))
                launches.append(NativeLaunch(tuple(parts), tasks))
            native_waves.append(Wave(tuple(launches), stop))
        self.values = np.array(values, np.int64)
        self.slots = np.array(slots, np.int64)
        self.args = np.empty_like(self.values)
        self.seconds: list[float] = []
        if native:
            self.program = Program(native_waves, scratch, alone=work < ALONE)

    def run(self, bases: Words, timed: bool = False) -> bool:
        """Run it; False where an index was outside. timed: note the seconds of each wave."""
        np.add(self.values, bases[self.slots], out=self.args)
        if self.program is not None:
            if timed:
                self.seconds = self.program.run_timed(self.args)
                return len(self.seconds) == len(self.waves)
            return self.program.run(self.args) == len(self.waves)
        for kernel, start, end in self.calls:
            args = self.args[start:end].tolist()
            interpreter.run(kernel, args, self.target)
            if isinstance(kernel, Index) and ctypes.c_int64.from_address(args[-1]).value:
                return False
        return True


def _array(tensor: Tensor, state: bool) -> np.ndarray[Any, Any]:
    """A Tensor's values as kernels read them; for state, memory that nobody else looks at."""
    node = tensor._node
    array = np.asarray(node.array)
    if not array.flags.c_contiguous or not array.flags.aligned:
        return array.copy(order="C")
    if state and not _sole(node, array):
        return array.copy(order="C")
    return array


def _shaped(array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The array itself where it has the shape: a view would not own its memory."""
    return array if array.shape == shape else array.reshape(shape)


def _sole(node: Node, array: Any) -> bool:
    """Whether a Tensor alone holds its node, and the node alone its array. The numbers are the
    references that are in use here: the slot, the callers' variables, the call's argument."""
    if not (array is node.array and array.flags.owndata and array.flags.writeable):
        return False
    return sys.getrefcount(node) <= 4 and sys.getrefcount(array) <= 4
