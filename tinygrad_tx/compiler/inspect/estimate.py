"""estimate: a plan on paper: what each launch moves and multiplies, and what memory a call takes.

In: a function of Tensors, on any device: on "meta" nothing of their size is allocated. Out: an
Estimate, of which a GPU's table (backends/gpus.py) makes times. Nothing runs. Called by
training/outlook.py and `tinygrad-tx plan`.

A launch touches memory once: an element that it reads in several places counts once, a broadcast
one too, and what one call of it makes for another one alone stays on the chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ... import backends
from ...backends.gpus import GPU
from ...backends.kernels.arguments import Place, ScatterAddArgs, words
from ...backends.kernels.kinds import Opaque
from ...backends.target import Target
from ...context import set_precision
from ...dtypes import ALL
from ...ops.collective import IN_ORDER
from .. import pipeline
from ..capture.trace import Argument, GradOf, Traced, trace
from ..schedule.records import Buffer, Call, Launch, Plan, View, itemsize
from .costs import Phases
from .loads import Load, loads
from .origin import origin
from .work import flops


class Work(NamedTuple):
    """A launch of a plan. kernel: the kinds of its calls; ops: what they compute; result, where: of
    the last of them; phase: of a training step, "forward", "backward" or "update". times: how often
    it runs in a call, more than once in loops. bytes, flops: of one time. given: bytes that a rank
    gives to an op of all ranks. load: what it asks of this processor; None of other machines."""

    kernel: str
    ops: str
    result: str
    where: str
    phase: str
    times: int
    bytes: int
    flops: int
    given: int = 0
    load: Load | None = None


class Memory(NamedTuple):
    """Bytes of a call. weights: Tensors that require a gradient; gradients: those that are there
    before it; state: other Tensors that the function knows by itself, such as moments; inputs: its
    arguments; arena: all that lives for a part of it, other gradients too; results: what it makes
    anew, constants and packed weights."""

    weights: int
    gradients: int
    state: int
    inputs: int
    arena: int
    results: int

    @property
    def peak(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class Estimate:
    """A call on paper. precision: of tx.autocast; stand_in: the device that it was planned
    for because there are no kernels for the one that was asked for, or empty; opaque: the ops that
    no kernel does; tensors: how many it reads or changes; fresh: whether code of its kernels has to
    be made."""

    works: tuple[Work, ...]
    memory: Memory
    precision: str
    stand_in: str
    opaque: tuple[str, ...]
    tensors: int = 0
    fresh: bool = True

    @property
    def launches(self) -> int:
        return sum(work.times for work in self.works)

    @property
    def bytes(self) -> int:
        return sum(work.times * work.bytes for work in self.works)

    @property
    def flops(self) -> int:
        return sum(work.times * work.flops for work in self.works)

    def seconds(self, gpu: GPU) -> float:
        """The least time that the launches take, one after the other."""
        return sum(work.times * self.seconds_of(work, gpu) for work in self.works)

    def seconds_of(self, work: Work, gpu: GPU) -> float:
        """The least time of one launch."""
        return gpu.seconds(work.bytes, work.flops, self.precision)


def estimate(
    f: Callable[..., Any],
    *args: Any,
    precision: str = "fp32",
    device: str = "cuda",
    here: Target | None = None,
) -> Estimate:
    """A call f(*args) on paper, as a device would run it, wherever its Tensors are. It is traced,
    and neither run nor are its effects applied.

    precision: of tx.autocast, in which f is called. here: this machine, as whose it is planned,
    and what each launch asks of it is told. Raises what tracing raises.
    """
    target, stand_in = _target(device) if here is None else (here, "")
    with set_precision(precision):
        traced = trace(f, args, {})
    states = {found.placeholder: found.node for found in traced.changed}
    results = [made._node for made in traced.made.values()]
    plan = pipeline.plan(results, states, target)
    works = tuple(_works(plan, target, 1, Phases(traced.ends), here is not None))
    opaque = [call.ops for launch in plan.launches() if launch.opaque for call in launch.calls]
    memory = _memory(plan, traced)
    ops = tuple(dict.fromkeys(opaque))
    kernels = dict.fromkeys(call.kernel for call in (*plan.prepacked, *plan.calls()))
    fresh = not all(target.kept(kernel) for kernel in kernels if not isinstance(kernel, Opaque))
    return Estimate(works, memory, precision, stand_in, ops, len(traced.inputs), fresh)


def _target(device: str) -> tuple[Target, str]:
    """The Target of a device, which need not be able to run anything here; where there is none, the
    processor's, and the processor's name as that of the stand-in."""
    found = backends.planned_for(device)
    if found is not None:
        return found, ""
    stand_in = backends.devices()[0]
    found = backends.planned_for(stand_in)
    assert found is not None
    return found, stand_in


# Launches ------------------------------------------------------------------------------------


def _works(plan: Plan, target: Target, times: int, phase: Phases, here: bool) -> Iterator[Work]:
    """Each launch of a plan that runs so many times; of a loop, those of its rounds. here: with
    their loads."""
    readers: dict[Buffer, int] = {}
    for launch in plan.launches():
        for buffer in {view.buffer for view in launch.reads}:
            readers[buffer] = readers.get(buffer, 0) + 1
    for wave in plan.waves():
        if wave[0].loop:
            yield from _works(wave[0].loop.plan, target, times * wave[0].loop.rounds, phase, here)
            continue
        load = dict(zip(wave, loads(wave), strict=True)) if here else {}
        for launches in _launched(plan, target, wave):
            last = launches[-1].calls[-1]
            outs = (f"{ALL[v.dtype].short}[{','.join(map(str, v.shape))}]" for v in last.writes)
            again = f" x {len(launches)}" if len(launches) > 1 else ""
            yield Work(
                " + ".join(call.kernel.word for call in launches[0].calls) + again,
                "; ".join(call.ops for call in launches[0].calls),
                " ".join(outs),
                origin(last),
                phase.of(last.nodes)[1],
                times,
                sum(_touched(launch, plan.roles, readers) for launch in launches),
                sum(flops(call) for launch in launches for call in launch.calls),
                _given(last),
                load.get(launches[0]),
            )


def _launched(plan: Plan, target: Target, wave: Sequence[Launch]) -> list[list[Launch]]:
    """The launches of a wave, those that the target makes one of together."""
    single = [launch for launch in wave if len(launch.calls) == 1 and not launch.opaque]
    calls = [(x.calls[0].kernel, _words(plan, x.calls[0])) for x in single]
    together = [[single[i] for i in group] for group in target.together(calls)]
    return [*together, *([launch] for launch in wave if launch not in single)]


def _words(plan: Plan, call: Call) -> list[int]:
    """A call's words; addresses as bytes behind the beginning of an allocation."""
    return [
        plan.offsets.get(x.buffer, 0) + x.offset * itemsize(x.buffer.dtype)
        if isinstance(x, Place)
        else x
        for x in words(call.args)
    ]


def _touched(launch: Launch, roles: Mapping[Buffer, str], readers: Mapping[Buffer, int]) -> int:
    """The bytes that a launch reads and writes. readers: how many launches read each buffer."""
    reads: dict[Buffer, dict[Any, int]] = {}
    writes: dict[Buffer, dict[Any, int]] = {}
    for call in launch.calls:
        for i, view in enumerate(call.reads):
            key, elements = _places(view, call, i in call.gathered)
            reads.setdefault(view.buffer, {})[key] = elements
        for view in call.writes:
            key, elements = _places(view, call, False)
            writes.setdefault(view.buffer, {})[key] = elements
    on_chip = {b for b in reads.keys() & writes.keys() if _is_made_before(launch, b)}
    gone = {b for b in on_chip if roles.get(b) == "arena" and readers[b] == 1}
    total = 0
    for touched, skipped in ((reads, on_chip), (writes, gone)):
        for buffer, places in touched.items():
            if buffer not in skipped:
                size = min(buffer.size, sum(places.values()))
                total += size * itemsize(buffer.dtype)
    return total


def _given(call: Call) -> int:
    """The bytes that a rank gives to an op of all ranks; 0 of other calls."""
    if not any(node.op in IN_ORDER for node in call.nodes):
        return 0
    return sum(prod(view.shape) * itemsize(view.dtype) for view in call.reads)


def _is_made_before(launch: Launch, buffer: Buffer) -> bool:
    """True if a launch reads of a buffer only what an earlier call of it has made."""
    for call in launch.calls:
        if any(view.buffer is buffer for view in call.reads):
            return False
        if any(view.buffer is buffer for view in call.writes):
            return True
    return False


def _places(view: View, call: Call, gathered: bool) -> tuple[Any, int]:
    """A key for the places that a view names, and their number. gathered: of rows which other
    values name, so that each may be another one."""
    if gathered:
        return (view.offset, view.shape, "gathered"), prod(view.shape)
    args = call.args
    if isinstance(args, ScatterAddArgs) and view.buffer is args.out.buffer:
        return "scattered", min(args.rows * args.columns, view.buffer.size)
    axes = [(n, s) for n, s in zip(view.shape, view.strides, strict=True) if n > 1 and s]
    offset = view.offset + sum((n - 1) * s for n, s in axes if s < 0)
    merged: list[tuple[int, int]] = []
    for n, s in sorted(((n, abs(s)) for n, s in axes), key=lambda axis: -axis[1]):
        if merged and merged[-1][1] == n * s:
            merged[-1] = (merged[-1][0] * n, s)
        else:
            merged.append((n, s))
    return (offset, tuple(merged)), prod(n for n, _ in merged)


# Memory ----------------------------------------------------------------------------------------


def _memory(plan: Plan, traced: Traced) -> Memory:
    weights = gradients = state = inputs = 0
    for found in traced.inputs:
        size = prod(found.placeholder.shape) * found.placeholder.dtype.itemsize
        if isinstance(found.source, Argument):
            inputs += size
        elif isinstance(found.source, GradOf):
            gradients += size
        elif found.signature.requires_grad:
            weights += size
        else:
            state += size
    results = sum(b.bytes for b, role in plan.roles.items() if role in ("result", "prepacked"))
    results += sum(array.nbytes for array in plan.constants.values())
    return Memory(weights, gradients, state, inputs, plan.arena_bytes, results)
