"""What TX_DEBUG prints, to stderr: 1 retraces, 2 also the times of each run, 3 also the graph after
each pass and the fusions that were refused, 4 also the generated source.

Called by compiled.py and execute.py, which ask for the level when they make a plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..backends.describe import describe
from ..backends.kernel import Kernel, Opaque
from ..backends.native import ir, render
from ..backends.native.target import Target
from ..errors import UserError
from ..node import CONST, Graph, Node, Spec
from .explain import named, refusals, wave_times
from .passes import PASSES
from .plan import Plan

RETRACES, TIMES, GRAPHS, SOURCE = 1, 2, 3, 4
_LEVELS = ("0", "1", "2", "3", "4")


def level() -> int:
    """TX_DEBUG as a number, 0 where it is not set."""
    text = os.environ.get("TX_DEBUG") or "0"
    if text not in _LEVELS:
        raise UserError(f"TX_DEBUG={text}: it must be a number from 0 to {SOURCE}")
    return int(text)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def show_graphs(name: str, roots: Sequence[Node]) -> None:
    """What was recorded, and the graph after each pass."""
    found = tuple(roots)
    say(f"{name}: as it was traced:\n{listing(found)}")
    for rewrite in PASSES:
        found = rewrite(found)
        say(f"{name}: after {rewrite.__name__}:\n{listing(found)}")


def show_plan(name: str, plan: Plan, target: Target | None) -> None:
    """The fusions that were refused; with a target, also the source of every kernel."""
    lines = refusals(plan.refusals) or ["nothing"]
    say("\n".join([f"{name}: not fused:", *(f"  {line}" for line in lines)]))
    if target is not None:
        calls = [*plan.kept, *(call for launch in plan.launches() for call in launch.calls)]
        for kernel in dict.fromkeys(call.kernel for call in calls):
            say(f"{name}: {source(kernel, target)}")


def show_times(name: str, run: int, plan: Plan, seconds: Sequence[float]) -> None:
    say(f"{name}: run {run}, {sum(seconds) * 1e6:.0f} us\n{wave_times(plan, seconds)}")


def source(kernel: Kernel, target: Target) -> str:
    """A kernel in a few lines, and as LLVM IR."""
    if isinstance(kernel, Opaque):
        return describe(kernel)
    module = ir.Module()
    render.render(kernel, module, "kernel", target)
    return f"{describe(kernel)}\n{module.text()}"


def listing(roots: Sequence[Node]) -> str:
    """A graph, a line for each node: its number, op, sources and attributes, result and place."""
    graph = Graph(roots)
    numbers = {node: i for i, node in enumerate(graph)}
    lines = []
    for node, i in numbers.items():
        specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
        given = [f"%{numbers[src]}" for src in node.srcs]
        if node.op is CONST:
            given.append(repr(node.attrs["value"]))
        else:
            given += [f"{key}={value!r}" for key, value in node.attrs.items()]
        made = " ".join(f"{s.dtype.name}{list(s.shape)}" for s in specs)
        line = f"  %{i} = {node.op.name}({', '.join(given)}) {made}  {named(node)}"
        lines.append(line.rstrip())
    return "\n".join(lines)
