"""Plans: what is read was written before and is still there, and memory is used again."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from plan_case import places, plan, waves
from random_graphs import Machine, Program, kept
from test_fuzz import PROGRAMS, SMALL
from test_fuzz import sizes as small_sizes

from tinygrad_tx.compiler.plan import Launch, Plan
from tinygrad_tx.compiler.views import ITEMSIZE, Buffer, View


class Memory:
    """All bytes that a plan touches, each with the number of the buffer it was written as."""

    def __init__(self, plan: Plan) -> None:
        self.starts: dict[Buffer, int] = {}
        end = plan.arena_bytes
        for buffer in plan.buffers:
            if buffer.kind == "arena":
                self.starts[buffer] = plan.offsets[buffer]
                assert plan.offsets[buffer] + buffer.bytes <= plan.arena_bytes
            elif buffer not in plan.aliases:
                self.starts[buffer], end = end, end + buffer.bytes
        for new, old in plan.aliases.items():
            self.starts[new] = self.starts[old]
        self.tags = np.full(end, -1)
        for buffer in plan.buffers:
            if buffer.kind in ("input", "constant", "kept"):
                self.write(View(buffer, (buffer.size,), (1,)))

    def bytes(self, view: View) -> np.ndarray:
        size = ITEMSIZE[view.dtype]
        first = self.starts[view.buffer] + places(view).ravel() * size
        return np.unique(first[:, None] + np.arange(size))

    def write(self, view: View) -> None:
        self.tags[self.bytes(view)] = view.buffer.number

    def holds(self, view: View) -> bool:
        return bool((self.tags[self.bytes(view)] == view.buffer.number).all())

    def meet(self, a: list[View], b: list[View]) -> bool:
        """Whether any byte is in both."""
        return any(np.intersect1d(self.bytes(x), self.bytes(y)).size for x in a for y in b)


def replay(plan: Plan) -> None:
    """Every read finds what was written for it; no two launches of a wave are in each other's way,
    nor a product and what rides on it, whose tasks run beside each other."""
    memory = Memory(plan)
    for wave in waves(plan):
        for i, launch in enumerate(wave):
            for other in wave[:i]:
                assert not memory.meet(launch.writes, [*other.reads, *other.writes])
                assert not memory.meet(launch.reads, other.writes)
            for j, call in enumerate(launch.calls):
                assert not any(memory.meet(c.reads, call.writes) for c in launch.calls[:j])
        for launch in wave:
            for call in launch.calls:
                assert all(map(memory.holds, call.reads)), launch_words(launch)
                for view in call.writes:
                    memory.write(view)
    for view in plan.places.values():
        assert memory.holds(view), "what is handed out is still there at the end"


def launch_words(launch: Launch) -> str:
    return " + ".join(" ".join(n.op.name for n in c.nodes) for c in launch.calls)


@given(PROGRAMS)
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_random_plans(program: Program) -> None:
    machine = Machine(kept(program))
    for changes in ({}, SMALL):
        with small_sizes(changes):
            replay(plan(machine.step, *machine.inputs))
