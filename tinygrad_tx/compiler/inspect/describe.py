"""describe: all that is known of a recorded call, as plain data: its modules, its graph after each
stage, its kernels and its memory.

In: what runs the call. Out: mappings, lists, texts and numbers, as JSON has them. Called by
`compiled.describe()`; explore.py makes a page of it. docs/explorer.md tells of the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ...backends.kernels.describe import describe as listing
from ...backends.kernels.kinds import Kernel, Opaque
from ...context import as_given
from ...node import Graph, Node
from ...tensor import Tensor
from .. import pipeline
from ..capture.trace import Traced
from ..run.garbage import REST
from ..schedule.records import Buffer, Call, Launch, Plan
from .costs import Cost, Phases, add_kept, of_calls, seconds_of
from .names import Modules, input_names, kept, modules_of
from .tables import Table, results, stage_rows
from .timeline import Timeline
from .work import calls_run, flops, moved, node_flops

if TYPE_CHECKING:  # both have a method that calls these
    from ..run.execution import Execution
    from ..run.replay import Replay

Data = dict[str, Any]
TRACED = "as it was traced"


def of_execution(recording: Execution) -> Data:
    """A plan of kernels."""
    plan, traced, timeline = recording.plan, recording.traced, recording.timeline
    phase, modules = Phases(traced.ends), modules_of(Graph(traced.ends))
    names = _input_names(traced, modules)
    names |= dict.fromkeys(recording.host.given.values(), "a number of the host")
    table = Table(phase, names)
    stages, again = _stages(recording, table)
    seconds = seconds_of(plan, timeline)
    kernels = _Kernels(table, phase, seconds)
    kernels.add(plan, again)
    costs = _costs(plan, seconds, phase)
    memory = kernels.memory(plan, names)
    refusals = kernels.refusals(plan, again)
    kernel_data = {"calls": kernels.calls, "sources": kernels.sources(recording.planned[2])}
    waves = [
        {"seconds": took, "kernels": [kernels.of_launch[x] for x in wave]}
        for wave, took in zip(plan.waves(), _padded(timeline, len(plan.waves())), strict=True)
    ]
    totals = {
        "kernels": recording.kernels(),
        "launches": len(plan.launches()),
        "waves": len(plan.waves()),
        "flops": sum(cost.flops for cost in costs.values()),
        "bytes": sum(n * moved(c) for x in plan.launches() for c, n in calls_run(x)),
        "seconds": timeline.total if timeline else None,
        "arena_bytes": plan.arena_bytes,
        "peak_bytes": recording.peak_bytes(),
    }
    return _whole(
        recording,
        table,
        {
            "kind": "kernels",
            "device": recording.device,
            "why": "",
            "notes": recording.notes(),
            "totals": totals,
            "modules": _modules(table, modules, costs),
            "graph": {"stages": stages},
            "kernels": {**kernel_data, "waves": waves, "refusals": refusals},
            "memory": memory,
        },
    )


def modules_of_execution(recording: Execution) -> list[Data]:
    """Its modules alone, as describe() has them, which is soon told."""
    plan, graph = recording.plan, Graph(recording.traced.ends)
    phase = Phases(recording.traced.ends)
    table = Table(phase, {})
    for node in sorted(graph, key=lambda node: node.place):  # in the order of the program
        table.modules(node.scope)
    costs = _costs(plan, seconds_of(plan, recording.timeline), phase)
    return _modules(table, modules_of(graph), costs)


def _costs(plan: Plan, seconds: Mapping[Call, float], phase: Phases) -> dict[tuple[str, str], Cost]:
    """What each module does in each phase."""
    calls = [x for launch in plan.launches() for x in calls_run(launch)]
    costs = of_calls(calls, seconds, phase)
    add_kept(costs, plan, phase)
    return costs


def of_replay(recording: Replay) -> Data:
    """A call that runs op by op: each op is as good as a kernel, each value has memory of its
    own."""
    traced, timeline = recording.traced, recording.timeline
    phase, modules = Phases(traced.ends), modules_of(Graph(traced.ends))
    names = _input_names(traced, modules)
    table = Table(phase, names)
    rows = table.graph(tuple(traced.ends))
    steps = recording.procedure.steps
    times = _padded(timeline, len(steps))
    calls: list[Data] = []
    costs: dict[tuple[str, str], Cost] = {}
    for i, (step, took) in enumerate(zip(steps, times, strict=True)):
        node = step.node
        size = _bytes(node) + sum(_bytes(src) for src in node.srcs)
        work = node_flops(node)
        number = table.number(node)
        row = table.rows[number]
        calls.append(
            {
                "wave": i + 1,
                "kind": "op",
                "ops": node.op.name,
                "result": _shapes(node),
                "flops": work,
                "bytes": size,
                "seconds": took,
                "times": 1,
                "source": -1,
                "place": row[5],
                "gradient_of": row[6],
                "module": row[4],
                "unit": number,
                "phase": phase(node),
                "nodes": [number],
                "reads": [],
                "writes": [],
                "loop": -1,
            }
        )
        cost = costs.setdefault((node.scope, phase(node)), Cost())
        cost.flops, cost.bytes = cost.flops + work, cost.bytes + size
        cost.seconds += took or 0.0
    memory = _op_memory(recording, table, calls)
    devices = sorted({node.device for node in recording.graph})
    totals = {
        "kernels": len(steps),
        "launches": len(steps),
        "waves": len(steps),
        "flops": sum(c["flops"] for c in calls),
        "bytes": sum(c["bytes"] for c in calls),
        "seconds": timeline.total if timeline else None,
        "arena_bytes": 0,
        "peak_bytes": recording.peak_bytes(),
    }
    return _whole(
        recording,
        table,
        {
            "kind": "ops",
            "device": ", ".join(devices),
            "why": recording.why,
            "notes": [f"it runs op by op: {recording.why}"],
            "totals": totals,
            "modules": _modules(table, modules, costs),
            "graph": {"stages": [{"name": TRACED, "seconds": None, "nodes": rows}]},
            "kernels": {
                "calls": calls,
                "sources": [],
                "refusals": [],
                "waves": [{"seconds": took, "kernels": [[i]]} for i, took in enumerate(times)],
            },
            "memory": memory,
        },
    )


def _whole(recording: Execution | Replay, table: Table, found: Data) -> Data:
    timeline = recording.timeline
    found["graph"] = {**table.as_data(), **found["graph"]}
    found["totals"]["nodes"] = len(recording.graph)
    return {
        "name": recording.traced.name,
        "runs": recording.runs,
        "timed": timeline.run if timeline else None,
        "places": table.places(),
        **found,
    }


def _padded(timeline: Timeline | None, count: int) -> list[float | None]:
    """The seconds of each wave; None where they are not known."""
    known = list(timeline.seconds) if timeline else []
    return [*known, *[None] * (count - len(known))]


# Names -----------------------------------------------------------------------------------------


def _input_names(traced: Traced, modules: Modules) -> dict[Node, str]:
    """What the inputs are called: a parameter by its path in the model, others by the variables
    that hold them, what an optimizer remembers by the parameter that it is of."""
    of_tensors: dict[int, str] = {}
    for path, found in modules.items():
        for attribute, value in vars(found() or object).items():
            if isinstance(value, Tensor):
                of_tensors.setdefault(id(value), f"{path}.{attribute}")
    of_tensors, state = {**traced.variables, **of_tensors}, kept()

    def captured(tensor: Tensor) -> str:
        if id(tensor) in of_tensors:
            return of_tensors[id(tensor)]
        what, parameter = state.get(id(tensor), ("", None))
        if parameter is not None:
            return f"{what} of {captured(parameter)}"
        return what or ("a parameter" if tensor._node.requires_grad else "a captured Tensor")

    return input_names(traced, captured)


# The graph --------------------------------------------------------------------------------------


def _stages(recording: Execution, table: Table) -> tuple[list[Data], Plan]:
    """What each stage makes of the graph, and the plan, made once more: a plan that runs keeps no
    graph but its own."""
    stages: list[Data] = []
    results, states, target = recording.planned
    ends = (*results, *states.values())
    stages.append({"name": TRACED, "seconds": None, "nodes": table.graph(ends)})

    def watch(name: str, before: Any, after: Any) -> None:
        rows = stages[-1]["nodes"] if after is before else stage_rows(table, after)
        stages.append({"name": name, "seconds": recording.stages.get(name), "nodes": rows})

    with REST, as_given():
        again = pipeline.plan(results, states, target, watch)
    for before, stage in zip(stages[:0:-1], stages[-2::-1], strict=False):
        if before["nodes"] == stage["nodes"]:
            before["nodes"] = None  # as in the stage before
    return stages, again


# Kernels ----------------------------------------------------------------------------------------


class _Kernels:
    """The calls of a plan as rows, and what names them."""

    def __init__(self, table: Table, phase: Phases, seconds: Mapping[Call, float]) -> None:
        self.table, self.phase, self.seconds = table, phase, seconds
        self.calls: list[Data] = []
        self.of_launch: dict[Launch, list[int]] = {}
        self._of_call: dict[Call, int] = {}
        self._kernels: dict[Kernel, int] = {}
        self._units: dict[Launch, int] = {}

    def add(self, plan: Plan, again: Plan) -> None:
        """The calls of a plan. again: the same plan, of the nodes that the table knows."""
        rows = iter(self.table.units(again))
        for call in plan.prepacked:
            self._add(call, call, 0, 1, -1, -1)
        waves = zip(plan.waves(), again.waves(), strict=True)
        for i, (wave, twins) in enumerate(waves, 1):
            for launch, twin in zip(wave, twins, strict=True):
                self._launch(launch, twin, i, 1, -1, rows)

    def _launch(
        self, launch: Launch, twin: Launch, wave: int, times: int, loop: int, rows: Iterator[int]
    ) -> None:
        unit = next(rows)
        numbers = [
            self._add(call, other, wave, times, loop, unit)
            for call, other in zip(launch.calls, twin.calls, strict=True)
        ]
        self.of_launch[launch] = numbers
        if launch.loop is not None and twin.loop is not None:
            inner = zip(launch.loop.plan.launches(), twin.loop.plan.launches(), strict=True)
            for a, b in inner:
                self._launch(a, b, wave, times * launch.loop.rounds, numbers[0], rows)

    def _add(self, call: Call, twin: Call, wave: int, times: int, loop: int, unit: int) -> int:
        number = self._of_call[call] = len(self.calls)
        last, phase = self.phase.of(call.nodes)
        place, gradient_of = self.table.places_of(last)
        inner = call.loop is not None
        self.calls.append(
            {
                "wave": wave,  # 0: once, before all runs
                "kind": call.kernel.word,
                "ops": f"{call.loop.rounds} rounds" if call.loop else call.ops,
                "result": results(call),
                "flops": 0 if inner else times * flops(call),
                "bytes": 0 if inner else times * moved(call),
                "seconds": None if inner else self.seconds.get(call),
                "times": times,
                "source": -1
                if inner
                else self._kernels.setdefault(call.kernel, len(self._kernels)),
                "place": place,
                "gradient_of": gradient_of,
                "module": self.table.modules(last.scope if last else ""),
                "phase": phase,
                "unit": unit,
                "nodes": [x for x in map(self.table.number, twin.nodes) if x >= 0],
                "reads": [],
                "writes": [],
                "loop": loop,
            }
        )
        return number

    def sources(self, target: Any) -> list[Data]:
        """Each distinct kernel once: its listing, the code that is compiled for it, how many calls
        have it."""
        counts = [0] * len(self._kernels)
        for call in self.calls:
            if call["source"] >= 0:
                counts[call["source"]] += 1
        return [
            {
                "kind": kernel.word,
                "listing": listing(kernel),
                "code": _code(kernel, target),
                "calls": counts[number],
            }
            for kernel, number in self._kernels.items()
        ]

    def refusals(self, plan: Plan, again: Plan) -> list[Data]:
        """The fusions that were refused, each with the kernel that computes the node instead."""
        of_node = {n: i for call, i in self._of_call.items() for n in call.nodes}
        return [
            {
                "op": node.op.name,
                "reason": reason,
                "module": self.table.modules(node.scope),
                "place": self.table.lines(node.line),
                "node": self.table.number(twin),
                "kernel": of_node.get(node, -1),
            }
            for (node, reason), (twin, _) in zip(plan.refusals, again.refusals, strict=True)
        ]

    # Memory ---------------------------------------------------------------------------------------
    def memory(self, plan: Plan, names: Mapping[Node, str]) -> Data:
        """Every buffer: its role, bytes and place, the waves in which it lives."""
        first: dict[Buffer, int] = {}
        last: dict[Buffer, int] = {}
        number = {buffer: i for i, buffer in enumerate(plan.roles)}
        of_input = {buffer: names.get(node, "") for node, buffer in plan.inputs.items()}
        pairs = [*plan.aliases.items(), *((b, a) for a, b in plan.aliases.items())]
        over = {new: old for new, old in pairs if new not in of_input and old in of_input}
        of_input |= {new: f"new {of_input[old]}" for new, old in over.items()}
        makers: dict[Buffer, int] = {}
        entries: list[tuple[int, tuple[Call, ...]]] = [(0, (call,)) for call in plan.prepacked]
        entries += [(i, x.calls) for i, wave in enumerate(plan.waves(), 1) for x in wave]
        for wave, calls in entries:
            for call in calls:
                row = self.calls[self._of_call[call]]
                for views, key in ((call.reads, "reads"), (call.writes, "writes")):
                    touched = dict.fromkeys(view.buffer for view in views)
                    row[key] = [number[b] for b in touched]
                    for buffer in touched:
                        first.setdefault(buffer, wave)
                        last[buffer] = wave
                for view in call.writes:
                    makers.setdefault(view.buffer, self._of_call[call])
        return {
            "arena_bytes": plan.arena_bytes,
            "stacked": False,
            "buffers": [
                self._buffer(buffer, role, of_input.get(buffer, ""), makers.get(buffer, -1))
                | {
                    "offset": plan.offsets.get(buffer),
                    "first": first.get(buffer, 0),
                    "last": last.get(buffer, 0),
                    "over": number[over[buffer]] if buffer in over else -1,
                }
                for buffer, role in plan.roles.items()
            ],
        }

    def _buffer(self, buffer: Buffer, role: str, name: str, kernel: int) -> Data:
        """What a buffer holds: the value of a node; where it was made for none, as a packing is,
        what its kernel makes."""
        found = {"role": role, "dtype": buffer.dtype, "bytes": buffer.bytes, "kernel": kernel}
        node = buffer.node
        if node is not None or kernel < 0:
            place, gradient_of = self.table.places_of(node)
            return found | {
                "name": name or (node.op.name if node else ""),
                "result": _shapes(node) if node else "",
                "module": self.table.modules(node.scope if node else ""),
                "place": place,
                "gradient_of": gradient_of,
                "phase": self.phase(node) if node else "",
            }
        call = self.calls[kernel]
        same = ("result", "module", "place", "gradient_of", "phase")
        return found | {"name": f"{call['kind']} {call['ops']}"} | {key: call[key] for key in same}


def _code(kernel: Kernel, target: Any) -> str:
    """The text that is compiled; what is called as it is has none."""
    return "" if isinstance(kernel, Opaque) or not target.native else str(target.source(kernel))


# Modules ----------------------------------------------------------------------------------------


def _modules(table: Table, modules: Modules, costs: Mapping[tuple[str, str], Cost]) -> list[Data]:
    """A row for each path that a node, a called module or one around them has, parents first; the
    numbers are those of a module with all inside. The first is all that lies in no module."""
    paths = {path for path, _ in costs} | set(modules) | set(table.modules.listed())
    own = {path: _own(path, modules) for path in paths}
    whole: dict[str, None] = {}
    for path in sorted(paths, key=lambda path: table.modules.numbers.get(path, 1 << 30)):
        for end in _ends(path):
            whole.setdefault(path[:end])
    rows: dict[str, Data] = {}
    for path in ("", *whole):
        if path in rows:
            continue
        parent = path.rpartition(".")[0] if path else None
        rows[path] = {
            "path": path,
            "title": _title(path, modules),
            "parent": -1 if not parent else [*rows].index(parent),
            "number": table.modules(path),
            "parameters": 0,
            "tensors": own.get(path, {}).get("tensors", []),
            "phases": {},
        }
    for path, facts in own.items():
        for end in _ends(path):
            rows[path[:end]]["parameters"] += facts["parameters"]
    for (path, phase), cost in costs.items():
        for end in _ends(path) if path else [0]:
            into = rows[path[:end]]["phases"].setdefault(phase, vars(Cost()).copy())
            for key, value in vars(cost).items():
                into[key] += value
    for row in rows.values():
        for key in vars(Cost()):
            row[key] = sum(numbers[key] for numbers in row["phases"].values())
    return [*rows.values()]


def _ends(path: str) -> list[int]:
    """Where the paths of the modules around one end, and its own."""
    return [i for i, c in enumerate(path) if c == "."] + [len(path)] if path else []


def _own(path: str, modules: Modules) -> Data:
    """The Tensors that are attributes of a module itself."""
    module = modules.get(path, lambda: None)()
    found = [(n, x) for n, x in vars(module or object).items() if isinstance(x, Tensor)]
    learnt = [x for _, x in found if x.requires_grad]
    return {
        "parameters": sum(prod(x.shape) for x in learnt),
        "tensors": [
            {"name": n, "result": _shapes(x._node), "learnt": x.requires_grad} for n, x in found
        ],
    }


def _title(path: str, modules: Modules) -> str:
    """A module as its class says it: Linear(2, 16)."""
    module = modules.get(path, lambda: None)()
    if module is None:
        return ""
    return repr(module).partition("\n")[0].rstrip("(")


# Op by op -----------------------------------------------------------------------------------------


def _op_memory(recording: Replay, table: Table, calls: Sequence[Data]) -> Data:
    """The values as if they shared an arena: each in the lowest gap while it is there."""
    steps = recording.procedure.steps
    maker = {step.result: i for i, step in enumerate(steps)}
    end = {slot: i for i, step in enumerate(steps) for slot in step.frees}
    living: list[tuple[int, int, int]] = []  # offset, size, the step after which it is gone
    buffers: list[Data] = []
    total = 0
    number: dict[int, int] = {}
    for i, step in enumerate(steps):
        node, size = step.node, _bytes(step.node)
        last = end.get(step.result, len(steps) - 1)
        living = [x for x in living if x[2] >= i]
        offset = _gap(living, size)
        living.append((offset, size, last))
        total = max(total, offset + size)
        number[step.result] = len(buffers)
        row = table.rows[table.number(node)]
        buffers.append(
            {
                "role": "arena",
                "dtype": node.specs[0].dtype.name,
                "bytes": size,
                "name": node.op.name,
                "result": _shapes(node),
                "module": row[4],
                "place": row[5],
                "gradient_of": row[6],
                "phase": calls[i]["phase"],
                "offset": offset,
                "first": i + 1,
                "last": last + 1,
                "over": -1,
                "kernel": i,
            }
        )
        calls[i]["writes"] = [number[step.result]]
        calls[i]["reads"] = [number[slot] for slot in step.reads if slot in maker]
    return {"arena_bytes": total, "stacked": True, "buffers": buffers}


def _gap(living: Iterable[tuple[int, int, int]], size: int) -> int:
    """The lowest offset at which so many bytes are free."""
    at = 0
    for offset, taken, _ in sorted(living):
        if offset - at >= size:
            break
        at = max(at, offset + taken)
    return at


def _shapes(node: Node) -> str:
    return " ".join(f"{s.dtype.short}{list(s.shape)}" for s in node.specs)


def _bytes(node: Node) -> int:
    return sum(prod(s.shape) * s.dtype.itemsize for s in node.specs)
