"""Plans of traced functions, without a run: what the tests of fusing and planning share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.cpu.target import Interpreted
from tinygrad_tx.backends.gpu.target import Gpu
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.compiler import pipeline
from tinygrad_tx.compiler.capture.trace import trace
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.compiler.schedule.records import Call, Launch, Plan, View

# One for every machine: tiles decide what rides on a product.
TARGET = Interpreted(Processor("avx512", 64))
Shape = tuple[int, ...]


def plan(f: Callable[..., Any], *args: tx.Tensor) -> Plan:
    """The plan of f for these arguments. Nothing is run."""
    return Execution(trace(f, args, {}), TARGET).plan


def plan_for_gpu(f: Callable[..., Any], *args: tx.Tensor) -> Plan:
    """The plan that a GPU would run."""
    traced = trace(f, args, {})
    states = {found.placeholder: found.node for found in traced.changed}
    return pipeline.plan([made._node for made in traced.made.values()], states, Gpu())


def floats(*shape: int, grad: bool = False) -> tx.Tensor:
    return tx.zeros(*shape, requires_grad=grad)


def waves(plan: Plan) -> list[list[Launch]]:
    """In the order in which they run; what is called as it is, alone."""
    return plan.waves()


def calls(plan: Plan) -> list[Call]:
    return [call for launch in plan.launches() for call in launch.calls]


def kinds(plan: Plan) -> Counter[str]:
    """How many calls of each kind of kernel."""
    return Counter(type(call.kernel).__name__ for call in calls(plan))


def launches(plan: Plan) -> list[str]:
    """Each launch in words: its kinds, joined by "+"."""
    return ["+".join(type(c.kernel).__name__ for c in x.calls) for x in plan.launches()]


def instrs(kernel: Kernel) -> list[str]:
    """The scalar operations of a row program or a reduction along rows."""
    return [i.op for i in getattr(kernel, "instrs", ())]


def sizes(plan: Plan, *roles: str) -> list[int]:
    """The elements of every buffer of these roles, largest first."""
    return sorted((b.size for b, role in plan.roles.items() if role in roles), reverse=True)


def places(view: View) -> np.ndarray:
    """The places in its buffer that a view names, as an array of its shape."""
    grid = np.indices(view.shape, sparse=True)
    steps = (g * s for g, s in zip(grid, view.strides, strict=True))
    return view.offset + sum(steps, np.zeros(view.shape, np.int64))
