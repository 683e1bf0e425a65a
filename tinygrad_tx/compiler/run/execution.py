"""execution: run a plan, natively or through the interpreter of kernels.

In: a recorded call. Out: an Execution, which is used as a Replay is. Called by compiled.py.
Everything is computed first and Tensors change last. State whose Tensor is the only one to hold its
memory is written over where it lies, after all that can fail, and the Tensor keeps its node; other
state is copied first.

In Python a call costs little more than a walk through lists: an input whose node is that of the
last call keeps its address.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from ...backends.kernels.kinds import Kernel, Opaque
from ...backends.reports import Reports
from ...backends.target import Target
from ...distributed import world
from ...node import Node
from .. import pipeline
from ..capture.guards import Match
from ..capture.trace import Argument, Traced
from ..inspect import check, debug
from ..inspect.describe import of_execution
from ..inspect.explain import Source, explained
from ..inspect.timeline import TIMED, Timeline
from ..schedule.in_place import early
from ..schedule.records import Buffer, Launch, Plan
from . import opaque
from .addresses import Addresses
from .by_ops import ByOps
from .deferred import Undo, blaming
from .host_loops import HOST
from .host_part import HostPart
from .ownership import held_elsewhere, may_stay
from .prepacked import Packs
from .recording import Budget, Recording
from .segment import Segment, Words


class Execution(Recording):
    """A recorded call, ready to run from its plan."""

    def __init__(self, traced: Traced, target: Target, device: str = HOST) -> None:
        super().__init__(traced)
        self.debug, self.checked = debug.level(), target.native and check.wanted()
        self.device, self.memory, self.reports = device, target.memory, target.reports
        inputs = [i.placeholder for i in traced.inputs]
        changed = {i.placeholder: i.node for i in traced.changed}
        ends = list(dict.fromkeys((*self.results, *changed.values())))
        self.host = HostPart(ends, inputs, device)
        ours = [node for node in ends if node not in self.host.ends]
        stands = dict(zip(ours, self.host.without(ours), strict=True))
        results = [stands[node] for node in self.results if node in stands]
        states = {i: stands[node] for i, node in changed.items() if node in stands}
        watch = debug.watch(traced.name, tuple(stands.values()), target, self.debug)
        self.planned = results, states, target  # to see the stages again
        self.plan = plan = pipeline.plan(results, states, target, watch)
        self.graph, self.stages = plan.graph, plan.seconds
        self.rewrite_seconds = sum(plan.seconds[name] for name in pipeline.REWRITING)
        self.report = np.zeros(2, np.int64)
        report = self.report.ctypes.data if target.reports is None else target.reports.address
        self.by_ops = ByOps(self)
        self.timed: Timeline | None = None  # run number TIMED
        self.timing = False  # whether the next run is timed, whatever its number
        # Inputs that no kernel reads have no buffer. Behind them stand the numbers of the host.
        buffers = [plan.inputs.get(x) for x in (*inputs, *self.host.given.values())]
        self.addresses = Addresses(plan, buffers, report, self.memory)
        self._numbers = self.memory.constant(np.zeros(len(self.host.given), np.int64))
        for i in range(len(self.host.given)):
            address = self.memory.address(self._numbers) + 8 * i
            self.addresses.put(len(inputs) + i, address)
        self._find_states(stands, buffers)
        self._link(target, buffers)

    def _find_states(self, stands: dict[Node, Node], buffers: list[Buffer | None]) -> None:
        """Find the inputs that are written over, and for each node that outlives the run the number
        of its array: among the inputs', behind them the results', or last those of the host.
        stands: for each end of the device, the node in the plan."""
        plan, self.count = self.plan, len(buffers)
        count, made = self.count, plan.results()
        order = {b: i for i, b in enumerate((*buffers, *made)) if b is not None}
        buffer_of = {node: plan.places[stand].buffer for node, stand in stands.items()}
        self.where = {n: order[plan.aliases.get(b, b)] for n, b in buffer_of.items()}
        self.where |= {n: count + len(made) + i for i, n in enumerate(self.host.ends)}
        self.states = [i for i, b in enumerate(buffers) if b and plan.roles.get(b) == "state"]
        # The inputs whose arrays each run asks for. Others are known to lie where they lay, and to
        # look at hundreds of them takes its time after a run that has emptied the caches.
        kept = {i for i in self.where.values() if i < count}
        self.asked = sorted(kept.union(self.states, self.host.inputs))
        # A check that fails leaves all as it was.
        soon = {plan.numbers[b] for b in (plan.numbers if self.checked else early(plan.steps))}
        numbers = self.addresses.of_input
        self.early = {i for i in self.states if not soon.isdisjoint(numbers[i])}
        asks = {i: requires_grad for i, _, requires_grad in self.changed}
        self.asks = {i: asks[i] for i in self.states}  # whether they go on asking for a gradient
        # True if a run changes nothing but state that it may overwrite.
        self.steady = len(self.changed) == len(self.states) and not self.traced.grads

    def _link(self, target: Target, buffers: list[Buffer | None]) -> None:
        """The code of all kernels, as programs of the target."""
        plan, inputs = self.plan, enumerate(self.traced.inputs)
        self.arguments = {i for i, x in inputs if isinstance(x.source, Argument)}
        moving = {number for i in self.arguments for number in self.addresses.of_input[i]}
        moving.update(number for number, *_ in self.addresses.results)
        states = {plan.numbers[b] for b, role in plan.roles.items() if role == "state"}
        code = target.link(_kernels(plan))
        self.steps: list[Segment | Launch] = [
            step
            if isinstance(step, Launch)
            else Segment(step, code, target, plan.numbers, moving, states)
            for step in plan.steps
        ]

        def packing(waves: list[list[Launch]]) -> Callable[[Words], None]:
            segment = Segment(waves, code, target, plan.numbers, ())

            def pack(bases: Words) -> None:
                segment.bind(bases, moved=True)
                self._run_segment(segment)

            return pack

        self.packs = Packs(plan.prepacked, plan.numbers, packing)
        sources = {call.reads[0].buffer for call in plan.prepacked}
        self.number_of = {b: i for i, b in enumerate(buffers) if b in sources}
        self.packed = set(self.number_of.values())

    def run(self, match: Match, budget: Budget | None = None) -> Any:
        """The function's result for a call. The caller is inside the arena. budget: it runs again
        and again where a run leaves everything as the next one needs it."""
        self.by_ops.begin(match)
        arrays: list[Any] = [None] * self.count
        for i in (*self.asked, *match.unknown):
            arrays[i] = match.nodes[i].array
        self.meet(match)
        values = self.host.run(arrays)
        shared = self._bind(match, arrays)
        arrays += [values[node] for node in self.host.ends]
        if self.host.given:
            self.memory.write(self._numbers, self.host.numbers(values))
        if budget is not None:
            budget.left -= 1
        if self.reports is not None:
            return self._given(self.reports, match, arrays, shared)
        self._once()
        if budget is not None:
            while self.steady and not shared and not self.by_ops.on and budget.again():
                self._once()
                budget.left -= 1
        return self._committed(match, arrays, shared)

    def _given(
        self,
        reports: Reports,
        match: Match,
        arrays: list[Any],
        shared: set[int],
    ) -> Any:
        """Give a run to a machine that nobody waits for; its results, which are there in time."""
        if self.checked:  # each launch is waited for: what earlier runs have to say comes first
            reports.hear()
        segments = [x for x in self.steps if isinstance(x, Segment) and x.checks]
        with reports.run(bool(segments), blaming(segments, arrays, opaque.blame)) as run:
            stays = self.asks.keys() - shared
            changed = [match.tensors[i] for i, *_ in self.changed if i not in stays]
            run.undo = undo = Undo(changed, [match.tensors[i] for i, _ in self._grads])
            self._once()
            result = self._committed(match, arrays, shared)
            undo.done()
        return result

    def _committed(self, match: Match, arrays: list[Any], shared: set[int]) -> Any:
        """The result, when the user's Tensors have been told."""
        where = self.where
        self.by_ops.end(where, arrays)
        result = self.commit(
            match.tensors,
            lambda n: _shaped(arrays[where[n]], n.shape),
            self.asks.keys() - shared,
        )
        for i in shared:
            self.inputs.remember(i, match.tensors[i]._node)
        return result

    def _once(self) -> None:
        self.report[0] = 0
        self.runs += 1
        # The first, too, for whoever wants a timeline so soon; but not where nobody waits.
        timed = self.timing or self.runs == TIMED or (self.runs == 1 and self.reports is None)
        if (timed or self.debug >= debug.TIMES) and not self.checked:
            self._run_timed()
        else:
            self._run()

    def _run(self) -> None:
        """Run all steps."""
        for step in self.steps:
            if isinstance(step, Launch):
                opaque.call(step, self.addresses, self.memory)
            else:
                last = self._run_segment(step)
                if self.report[0]:
                    opaque.raise_outside(step, last, step.args)

    def _run_segment(self, segment: Segment) -> list[Launch]:
        if self.checked:
            return check.run(segment, self.addresses.bases, self.device)
        return segment.run()

    def _run_timed(self) -> None:
        """Run all steps, and note what ran when."""
        self.timing, self.timeline = False, _timeline(self)
        if self.debug >= debug.TIMES:
            debug.show_times(self.traced.name, self.plan, self.timeline)
        if self.runs == TIMED:
            self.timed = self.timeline

    def kernels(self) -> int:
        """The number of calls of kernels in a run, those of loops once."""
        return len(self.plan.calls())

    def peak_bytes(self) -> int:
        """Bytes of a run beside its inputs: the arena, its results, prepacked weights."""
        roles = self.plan.roles.items()
        own = sum(b.bytes for b, role in roles if role in ("result", "prepacked"))
        return self.plan.arena_bytes + own

    def explain(self, source: Source = False) -> str:
        if self.timed is not None:
            timed = f"times are those of run {TIMED} of {self.runs}, the first that finds all warm"
        else:
            timed = f"no times: {self.untimed()}"
        return explained(self.plan, self.timed, [timed, *self.notes()], self.planned[2], source)

    def notes(self) -> list[str]:
        """What is to be said of how it runs."""
        return [x for step in self.steps if isinstance(step, Segment) for x in step.notes()]

    def describe(self) -> dict[str, Any]:
        """All that is known of it, as plain data."""
        return of_execution(self)

    def untimed(self) -> str:
        """Why no run was timed, as far as none was."""
        if self.runs < TIMED and not self.checked:
            return f"run {TIMED} of a plan is timed, and there were {self.runs}"
        return f"TX_CHECK was set, or run {TIMED} has failed"

    # Before a run -------------------------------------------------------------------------------
    def _bind(self, match: Match, arrays: list[Any]) -> set[int]:
        """Find every buffer's address. arrays: of the inputs asked for; copies take the place of
        those that kernels cannot read or must not write, and the results' are appended. Gives the
        numbers of the states that run on a copy."""
        addresses, shared = self.addresses, self._shared(match, arrays)
        for i in {*match.unknown, *shared}:
            self.inputs.forget(i)
            if i in self.host.inputs:
                continue
            copies = self.memory.copied if i in shared else self.memory.readable
            arrays[i] = array = copies(arrays[i])
            addresses.moved = addresses.moved or i not in self.arguments
            addresses.put_input(i, array)
            if array is match.nodes[i].array:
                self.inputs.remember(i, match.nodes[i])
        if not self.packed.isdisjoint(match.unknown):
            addresses.moved = True
            self.packs.bind(addresses.bases, lambda b: match.nodes[self.number_of[b]])
        arrays += addresses.make_results()
        addresses.reserve_arena()
        for step in self.steps:
            if isinstance(step, Segment):
                step.bind(addresses.bases, addresses.moved)
        addresses.moved = False
        return shared

    def _shared(self, match: Match, arrays: list[Any]) -> set[int]:
        """The states that must not be written over: those whose node or array somebody else
        holds, and those that a run changes while it may still fail."""
        if not self.states:
            return set()
        shared = self.early.copy()
        shared.update(held_elsewhere(match.nodes, self.states))
        shared.update(held_elsewhere(arrays, self.states))
        for i in match.unknown:
            asks = self.asks.get(i)
            stays = asks is None or may_stay(match.tensors[i], match.nodes[i], asks)
            if asks is not None and not (stays and self.memory.owns(arrays[i])):
                shared.add(i)
        return shared


def _timeline(execution: Execution) -> Timeline:
    """Run all steps; the seconds of each wave and opaque call, and what each thread did."""
    seconds: list[float] = []
    segments: list[tuple[float, Segment]] = []
    began = perf_counter()
    for step in execution.steps:
        if isinstance(step, Launch):
            started = perf_counter()
            opaque.call(step, execution.addresses, execution.memory)
            seconds.append(perf_counter() - started)
            continue
        segments.append((sum(seconds), step))
        last, took = step.run_timed()
        seconds += took
        if execution.report[0]:
            opaque.raise_outside(step, last, step.args)
    done = [(at, step.done()) for at, step in segments]
    spans = [x for x in world.current().spans if x.begin >= began]
    sent = [x._replace(begin=x.begin - began, end=x.end - began) for x in spans]
    return Timeline.of(execution.runs, seconds, done, execution.plan.waves(), sent)


def _kernels(plan: Plan) -> list[Kernel]:
    calls = [*plan.prepacked, *plan.calls()]
    kernels = dict.fromkeys(call.kernel for call in calls)
    return [k for k in kernels if not isinstance(k, Opaque)]


def _shaped(array: Any, shape: tuple[int, ...]) -> Any:
    """The array itself where it has the shape: a view would not own its memory."""
    return array if array.shape == shape else array.reshape(shape)
