"""loads: what a launch asks of a processor, as numbers that its time grows with.

In: a Launch of a plan for a processor. Out: a Load. A Machine (machine.py) knows the seconds that
one of each kind takes, from launches that were timed, and makes times of the loads of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from ...backends.kernels.arguments import Place, words
from ...backends.kernels.instructions import REDUCTIONS, cost
from ...backends.kernels.kinds import Attention, AttentionGrad, ColumnReduce, Matmul, RowProgram
from ...backends.kernels.kinds import per_row as once_a_row
from ..schedule.records import Call, Launch
from .work import flops, moved

_DEAR = (
    20  # the cost of an instruction from which on it is a function: exp, log, a division of ints
)
_LANES = 16  # columns that are computed at once
_NEAR, _MIDDLE = (
    1 << 20,
    16 << 20,
)  # bytes of a launch that lie in a core's cache, in the shared one
KINDS = (
    *("launch", "task", "row", "op", "function", "column op", "near", "middle", "far"),
    *("product", "product out", "attention", "score", "attention grad", "score grad"),
    *("pack", "draw", "index", "opaque"),
)


class Load(NamedTuple):
    """amounts: of each of KINDS. tasks: of all launches in its wave; launches: how many these are:
    what a wave takes beside their work is shared among them."""

    amounts: tuple[float, ...]
    tasks: int
    launches: int


def loads(wave: Sequence[Launch]) -> list[Load]:
    """Those of the launches of a wave."""
    tasks = [_tasks(launch) for launch in wave]
    return [
        Load(_amounts(launch, n), max(sum(tasks), 1), len(wave))
        for launch, n in zip(wave, tasks, strict=True)
    ]


def _tasks(launch: Launch) -> int:
    first = launch.calls[0]
    if launch.opaque or launch.loop:
        return 1
    given = [0 if isinstance(x, Place) else x for x in words(first.args)]
    return max(first.kernel.tasks(given), 1)


def _amounts(launch: Launch, tasks: int) -> tuple[float, ...]:
    found = dict.fromkeys(KINDS, 0.0)
    found["launch"], found["task"] = 1.0, float(tasks)
    size = sum(map(moved, launch.calls)) * (1 + launch.opaque)  # what it takes, it copies
    found["near" if size <= _NEAR else "middle" if size <= _MIDDLE else "far"] = float(size)
    for call in launch.calls:
        _add(found, call)
    return tuple(found.values())


def _add(found: dict[str, float], call: Call) -> None:
    kernel = call.kernel
    args: Any = call.args
    match kernel:
        case RowProgram() | ColumnReduce():
            rows = prod(args.outer)
            padded = rows * -(-args.columns // _LANES) * _LANES
            once = once_a_row(kernel.inputs, kernel.instrs)
            costs = [
                cost(instr.op)
                for instr, single in zip(kernel.instrs, once, strict=True)
                if not single or instr.op in REDUCTIONS
            ]
            cheap = sum(c for c in costs if c < _DEAR)
            if isinstance(kernel, ColumnReduce):
                found["column op"] += padded * cheap
            else:
                found["op"] += padded * cheap
                found["row"] += rows
            found["function"] += padded * sum(c >= _DEAR for c in costs)
        case Matmul():
            found["product"] += flops(call)
            found["product out"] += args.b0 * args.b1 * args.m * args.n
        case Attention():
            found["attention"] += flops(call)
            found["score"] += args.b * args.h * args.t * args.s / (1 + kernel.causal)
        case AttentionGrad():
            found["attention grad"] += flops(call)
            found["score grad"] += args.b * args.h * args.t * args.s / (1 + kernel.causal)
        case _:
            kind = {"pack": "pack", "keep": "draw", "opaque": "opaque"}.get(kernel.word, "index")
            found[kind] += sum(prod(view.shape) for view in (*call.reads, *call.writes))
