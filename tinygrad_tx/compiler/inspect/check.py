"""TX_CHECK=1: every launch is run natively and by the interpreter, which has its memory copied.

In: a segment whose arguments are bound. Out: as from running it; its memory is what native code has
made of it. CheckError names the first launch whose results differ by more than rounding, or in
which a NaN appears. Called by run/execution.py.

A launch is checked as a whole: its parts go over the same rows one task after the other, and may
write over what they read. The copies are the host's, wherever the memory of the machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np

from ... import backends, settings
from ...backends.kernels import interpreter
from ...backends.kernels.arguments import (
    ColumnReduceArgs,
    MatmulArgs,
    RowProgramArgs,
    ScatterAddArgs,
)
from ...backends.kernels.instructions import REDUCTIONS
from ...backends.kernels.kinds import (
    CheckIndex,
    ColumnReduce,
    GemmEpilogue,
    Kernel,
    Matmul,
    RowProgram,
    ScatterAdd,
)
from ...dtypes import as_dtype
from ...errors import CheckError
from ..run.opaque import raise_outside
from ..run.segment import Segment, Words
from ..schedule.records import Buffer, Call, Launch, View
from .origin import origin

Array = np.ndarray[Any, Any]
ToHost = Callable[[Any], Array]

ROUNDINGS = 256  # how many roundings of the largest value an element may be off, for one operation
TF32 = 2.0**-10  # the unit of numbers that are rounded to tf32
FLIPS = 0.01  # the part of flags and indices that may differ where they come from rounded numbers


def wanted() -> bool:
    """True if TX_CHECK asks for it."""
    return settings.get("TX_CHECK") not in ("", "0", "nan")


def run(segment: Segment, bases: Words, device: str) -> list[Launch]:
    """Run a segment, checked; the last wave that has run, as Segment.run. bases: the addresses of
    the plan's buffers. IndexError at once where one was outside on a machine that nobody else would
    ask for it."""
    checked = _Checked(segment, bases, backends.get(device).to_host)
    inside, last = checked.waves(segment.waves)
    reports = segment.target.reports
    if reports is not None and not inside:
        reports.dismiss()
        raise_outside(segment, last, segment.args)
    return last


class _Checked:
    """A run of a segment, launch by launch. to_host: what an array of the machine holds."""

    def __init__(self, segment: Segment, bases: Words, to_host: ToHost) -> None:
        self.segment, self.bases, self.to_host = segment, bases, to_host

    def waves(self, waves: Sequence[list[Launch]]) -> tuple[bool, list[Launch]]:
        """False where an index was outside; the last wave that has run."""
        for wave in waves:
            loop = wave[0].loop
            if loop is not None:
                for _ in self.segment.rounds(loop):
                    inside, last = self.waves(loop.plan.waves())
                    if not inside:
                        return False, last
                continue
            for launch in wave:
                # The report of an index is looked at below, when the interpreter has seen it too.
                if not self._agrees(launch):
                    return False, wave
        return True, waves[-1]

    def _agrees(self, launch: Launch) -> bool:
        """Run one launch both ways and compare. False where an index was outside."""
        copy = _Copy(self, launch)
        given = [copy.look(view) for view in _read(launch)]
        made = self._left(launch)
        # What is written in part keeps the rest.
        given += [copy.look(_all(view.buffer)) for call, view in made if _partly(call, view)]
        clean = not any(map(_has_nan, given))
        largest = max([1.0, *map(_largest, given)])
        self.segment.alone(launch, self.bases).run(self.segment.args)
        native = [self.look(view) for _, view in made]
        inside = self.segment.interpret(launch, copy.args)
        largest = max([largest, *map(_largest, native)])
        for (call, view), found in zip(made, native, strict=True):
            _compare(call, launch, found, copy.look(view), largest, clean)
        return inside

    def _left(self, launch: Launch) -> list[tuple[Call, View]]:
        """The live-outs of a launch that are there when it ends: a later part may have got the
        memory of an earlier part's result, which it reads for the last time."""
        order = {call: number for number, call in enumerate(launch.calls)}
        spans = [
            (order[call], self._span(view.buffer)) for call in launch.calls for view in call.writes
        ]
        return [
            (call, view)
            for call, view in _made(launch)
            for begin, end in [self._span(view.buffer)]
            if not any(order[call] < by and a < end and begin < b for by, (a, b) in spans)
        ]

    def _span(self, buffer: Buffer) -> tuple[int, int]:
        """The addresses of a buffer: the first, and the one behind the last."""
        begin = self.segment.address(_all(buffer), self.bases)
        return begin, begin + buffer.bytes

    def look(self, view: View) -> Array:
        """What lies under a view in the memory of the machine."""
        return self.at(self.segment.address(view, self.bases), view)

    def at(self, address: int, view: View) -> Array:
        memory = self.segment.target.memory
        return np.array(self.to_host(memory.view(address, view.dtype, view.shape, view.strides)))


class _Copy:
    """The memory of a launch on the host, as it is now. args: those of the segment, there."""

    def __init__(self, checked: _Checked, launch: Launch) -> None:
        self.segment, self.bases = checked.segment, checked.bases.copy()
        self._arrays = []  # what lives as long as this
        for number, buffer in self.segment.buffers(launch):
            clean = buffer.kind == "report"  # the machine has it in a form of its own
            whole = _all(buffer)
            array = np.zeros(2, np.int64) if clean else checked.at(int(self.bases[number]), whole)
            self.bases[number] = array.ctypes.data
            self._arrays.append(array)
        moved = self.bases - checked.bases
        self.args = self.segment.args + moved[self.segment.slots]

    def look(self, view: View) -> Array:
        """The copy of what lies under a view."""
        address = self.segment.address(view, self.bases)
        return interpreter.view(address, view.dtype, view.shape, view.strides)


def _read(launch: Launch) -> list[View]:
    """The live-ins of a launch: its reads, but for values that an earlier part of it makes."""
    views: list[View] = []
    inside: set[Buffer] = set()
    for call in launch.calls:
        rows = call.gathered
        reads = [_all(v.buffer) if i in rows else v for i, v in enumerate(call.reads)]
        views += [view for view in reads if view.buffer not in inside]
        inside.update(view.buffer for view in call.writes)
    return views


def _made(launch: Launch) -> list[tuple[Call, View]]:
    """The live-outs of a launch: each view with its call; of a buffer that a later part writes
    again only the later view; the whole buffer where the place of the write is known at run time
    only. The report of a check is none."""
    writes = [(call, view) for call in launch.calls for view in call.writes]
    last = {view.buffer: call for call, view in writes}
    return [
        (call, _all(view.buffer) if _partly(call, view) else view)
        for call, view in writes
        if last[view.buffer] is call and view.buffer.kind != "report"
    ]


def _partly(call: Call, view: View) -> bool:
    """True if a call writes to a place in a view's buffer that it reads from memory."""
    if not isinstance(call.kernel, RowProgram):
        return False
    outputs = zip(call.kernel.outputs, call.writes, strict=True)
    return any(o.at >= 0 and v.buffer is view.buffer for o, v in outputs)


def _all(buffer: Buffer) -> View:
    return View(buffer, (buffer.size,), (1,))


# Comparing -------------------------------------------------------------------------------------


def _compare(
    call: Call, launch: Launch, found: Array, wanted: Array, largest: float, clean: bool
) -> None:
    """CheckError where an output is not what it should be."""
    if _has_nan(found) and clean:
        at = _first(np.isnan(found))
        raise CheckError(f"{_name(call)}: a NaN appears at {at}, and no input has one")
    wrong = _wrong(launch, found, wanted, largest)
    if wrong.any():
        at = _first(wrong)
        raise CheckError(
            f"{_name(call)}: native code made {found[at]} at {at} where the interpreter made "
            f"{wanted[at]}; {wrong.mean():.1%} of {list(found.shape)} are beyond tolerance"
        )


def _wrong(launch: Launch, found: Array, wanted: Array, largest: float) -> Array:
    """A mask of the elements that differ by more than rounding can explain."""
    unit = as_dtype(found.dtype).eps
    if any(_is_tf32(call.kernel) for call in launch.calls):
        unit = max(unit, TF32)
    if not unit:
        differs = np.asarray(found != wanted)
        exact = not any(isinstance(c.kernel, Matmul) or _rounds(c) for c in launch.calls)
        return differs & (exact or bool(differs.mean() > FLIPS))
    length = max(map(_length, launch.calls))
    tolerance = ROUNDINGS * unit * sqrt(length) * (np.abs(wanted.astype(float)) + _largest(wanted))
    if length > 1:  # a sum may be small though what it adds is not: it errs by a part of that
        tolerance = tolerance + 2 * unit * length * largest**2
    with np.errstate(invalid="ignore"):
        near = np.abs(found.astype(float) - wanted.astype(float)) <= tolerance
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return np.asarray(~(near & np.isfinite(found)) & ~same)


def _rounds(call: Call) -> bool:
    """True if a row program's numbers may be rounded in another way natively."""
    kernel = call.kernel
    return isinstance(kernel, RowProgram) and any(
        i.dtype.startswith("float") and i.op not in ("load", "gather", "const")
        for i in kernel.instrs
    )


def _is_tf32(kernel: Kernel) -> bool:
    of = kernel.product if isinstance(kernel, GemmEpilogue) else kernel
    return bool(getattr(of, "tf32", False))


def _length(call: Call) -> int:
    """The most numbers that one result is a sum of."""
    match call.kernel, call.args:
        case Matmul(), MatmulArgs(k=k):
            return k
        case RowProgram(instrs=instrs), RowProgramArgs(columns=columns):
            return columns if any(i.op in REDUCTIONS for i in instrs) else 1
        case ColumnReduce(), ColumnReduceArgs(rows_per_task=rows):
            return rows
        case ScatterAdd(), ScatterAddArgs(rows=rows):
            return rows
        case CheckIndex(), _:
            return 1
        case _:
            return max((max(view.shape, default=1) for view in call.reads), default=1)


def _largest(values: Array) -> float:
    """The largest absolute value of those that can be multiplied; what stands for infinity is not
    added to anything."""
    if not as_dtype(values.dtype).is_floating_point:
        return 0.0
    wide = values.astype(np.float32) if values.dtype.itemsize == 2 else values
    size = np.abs(wide)
    return float(size[size < np.sqrt(np.finfo(wide.dtype).max)].max(initial=0.0))


def _has_nan(values: Array) -> bool:
    return as_dtype(values.dtype).is_floating_point and bool(np.isnan(values).any())


def _first(flags: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(flags)[0])


def _name(call: Call) -> str:
    return f"TX_CHECK: {call.kernel.word} ({call.ops}) at {origin(call) or 'a copy'}"
