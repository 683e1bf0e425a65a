"""Plans: what is read was written before and is still there, and memory is used again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from plan_case import TARGET, calls, floats, kinds, launches, places, plan, plan_for_gpu, waves
from random_graphs import PROGRAMS, SMALL, Machine, Program, kept, sizes

import tinygrad_tx as tx
from tinygrad_tx.backends.gpu.target import Gpu
from tinygrad_tx.backends.kernels.arguments import MatmulArgs
from tinygrad_tx.compiler.fuse import limits
from tinygrad_tx.compiler.schedule.records import Buffer, Call, Launch, Plan, View, itemsize


class Memory:
    """All bytes that a plan touches, each with the number of the buffer it was written as."""

    def __init__(self, plan: Plan) -> None:
        self.starts: dict[Buffer, int] = {}
        end = plan.arena_bytes
        self.numbers = plan.numbers
        for buffer, role in plan.roles.items():
            if role == "arena":
                self.starts[buffer] = plan.offsets[buffer]
                assert plan.offsets[buffer] + buffer.bytes <= plan.arena_bytes
            elif buffer not in plan.aliases:
                self.starts[buffer], end = end, end + buffer.bytes
        for new, old in plan.aliases.items():
            self.starts[new] = self.starts[old]
        self.tags = np.full(end, -1)
        for buffer, role in plan.roles.items():
            if buffer.kind in ("input", "constant") or role == "prepacked":
                self.write(View(buffer, (buffer.size,), (1,)))

    def elements(self, view: View) -> np.ndarray:
        """The first byte of each element, in order."""
        return self.starts[view.buffer] + places(view).ravel() * itemsize(view.dtype)

    def bytes(self, view: View) -> np.ndarray:
        return np.unique(self.elements(view)[:, None] + np.arange(itemsize(view.dtype)))

    def write(self, view: View) -> None:
        self.tags[self.bytes(view)] = self.numbers[view.buffer]

    def holds(self, view: View) -> bool:
        return bool((self.tags[self.bytes(view)] == self.numbers[view.buffer]).all())

    def meet(self, a: list[View], b: list[View]) -> bool:
        """Whether any byte is in both."""
        return any(np.intersect1d(self.bytes(x), self.bytes(y)).size for x in a for y in b)

    def in_place(self, call: Call) -> bool:
        """Whether what a call writes over another value's memory lies where it reads that value,
        element by element."""
        return all(
            np.array_equal(self.elements(old), self.elements(new))
            for old in reads(call)
            for new in call.writes
            if old.buffer is not new.buffer and self.meet([old], [new])
        )


def reads(call: Call) -> list[View]:
    """What a call may read: where it gathers, any part of the buffer."""
    found = list(call.reads)
    for instr in getattr(call.kernel, "instrs", ()):
        if instr.op == "gather":
            buffer = found[instr.value].buffer
            found[instr.value] = View(buffer, (buffer.size,), (1,))
    return found


def replay(plan: Plan) -> None:
    """Every read finds what was written for it; no two launches of a wave are in each other's way,
    nor a product and what rides on it, whose tasks run beside each other."""
    memory = Memory(plan)
    for wave in waves(plan):
        read = [[view for call in launch.calls for view in reads(call)] for launch in wave]
        for i, launch in enumerate(wave):
            for j, other in enumerate(wave[:i]):
                assert not memory.meet(launch.writes, [*read[j], *other.writes])
                assert not memory.meet(read[i], other.writes)
            for j, call in enumerate(launch.calls):
                assert not any(memory.meet(reads(c), call.writes) for c in launch.calls[:j])
        for launch in wave:
            for call in launch.calls:
                assert all(map(memory.holds, reads(call))), words(call)
                assert memory.in_place(call), words(call)
                for view in call.writes:
                    memory.write(view)
    for view in plan.places.values():
        assert memory.holds(view), "what is handed out is still there at the end"


def words(call: Call) -> str:
    return " ".join(node.op.name for node in call.nodes)


@given(PROGRAMS)
@settings(max_examples=10, derandomize=True, deadline=None, database=None)
def test_random_plans(program: Program) -> None:
    machine = Machine(kept(program))
    for changes in ({}, SMALL):
        with sizes(changes):
            replay(plan(machine.step, *machine.inputs))
            replay(plan_for_gpu(machine.step, *machine.inputs))


def test_the_memory_of_dead_values_is_used_again() -> None:
    weights = [floats(32, 32) for _ in range(6)]

    def f(x: tx.Tensor) -> tx.Tensor:
        for w in weights:
            x = (x @ w).tanh()
        return x.sum()

    found = plan(f, floats(120, 32))
    replay(found)
    assert kinds(found)["Matmul"] == 6
    assert found.arena_bytes <= 3 * 120 * 32 * 4


def test_a_row_program_writes_over_what_dies_with_it() -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        return x.cumsum(0).exp().cumsum(0)

    found = plan(f, floats(40, 50))
    replay(found)
    (program,) = (c for c in calls(found) if type(c.kernel).__name__ == "RowProgram" and c.reads)
    read, written = program.reads[0].buffer, program.writes[0].buffer
    assert read is not written and found.offsets[read] == found.offsets[written]


@pytest.mark.parametrize("mode", ["native", "interp"])
def test_elements_of_another_width_lie_elsewhere(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rows in twice the width are as many bytes, and not in the same places."""
    monkeypatch.setenv("TX_COMPILE", mode)

    def f(a: tx.Tensor, b: tx.Tensor) -> tx.Tensor:
        wide = (a @ b)[:32].double()
        return wide.T @ wide

    a, b = tx.randn(64, 8), tx.randn(8, 32)
    replay(plan(f, a, b))
    np.testing.assert_allclose(tx.compile(f)(a, b).numpy(), f(a, b).numpy(), rtol=1e-3, atol=1e-2)


def test_what_is_read_again_is_not_written_over() -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        y = x.cumsum(0)
        return (y.exp().cumsum(0) + y).cumsum(0)

    found = plan(f, floats(40, 50))
    replay(found)
    assert len(set(found.offsets.values())) >= 2


def test_independent_products_share_a_wave() -> None:
    weights = [floats(32, 32) for _ in range(4)]
    found = plan(lambda x: tuple(x @ w for w in weights), floats(100, 32))
    assert [len(wave) for wave in waves(found)] == [4]


# Tasks ------------------------------------------------------------------------------------------


def gates(y: tx.Tensor) -> tx.Tensor:
    i, f, u, o = y.chunk(4, 1)
    return o.sigmoid() * (f.sigmoid() + i.sigmoid() * u.tanh()).tanh()


def product(f: Callable[[tx.Tensor], tx.Tensor]) -> tuple[list[str], MatmulArgs]:
    """The launches of f(x @ w), and its product."""
    w = floats(64, 1024)
    found = plan(lambda x: f(x @ w), floats(128, 64))
    (args,) = (c.args for c in calls(found) if isinstance(c.args, MatmulArgs))
    return launches(found), args


def test_parts_of_a_norm_are_one_launch_on_a_gpu() -> None:
    """Each is known at another time: the gradients of a deep net, and the new weights."""
    weights = [tx.nn.Parameter(floats(8 + i, 9 + i)) for i in range(12)]
    optimizer = tx.optim.SGD(weights, 0.1)

    def step(x: tx.Tensor) -> tx.Tensor:
        for w in weights:
            x = (x @ w).tanh()
        x.sum().backward()
        norm = tx.optim.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    found = plan_for_gpu(step, floats(4, 8))
    replay(found)
    alone = [len(group) for wave in waves(found) for group in _together(wave)]
    assert sum(n >= 12 for n in alone) >= 5  # two norms of two steps each, and the updates


def _together(wave: list[Launch]) -> list[list[int]]:
    called = [(launch.calls[0].kernel, [1] * 200) for launch in wave]
    return Gpu().together(called)


def test_an_epilogue_reads_parts_of_its_rows() -> None:
    made, args = product(gates)
    cut = TARGET.cut(128, 1024, 64, 1, "float32", full_rows=True)
    assert made == ["Matmul+RowProgram"]
    assert (args.rows_per_task, args.columns_per_task) == (cut.rows, 1024)


@pytest.mark.parametrize("f", [lambda y: gates(y.flip(0)), lambda y: gates(y[1:])])
def test_a_product_that_nothing_rides_on_is_cut_as_suits_it(
    f: Callable[[tx.Tensor], tx.Tensor],
) -> None:
    made, args = product(f)
    cut = TARGET.cut(128, 1024, 64, 1, "float32")
    assert "Matmul" in made and cut.columns < 1024
    assert (args.rows_per_task, args.columns_per_task) == (cut.rows, cut.columns)


def test_threads_share_what_is_costly() -> None:
    found = plan(lambda y: (gates(y), y + 1), floats(64, 1024))
    costly, cheap = sorted((c.args for c in calls(found)), key=lambda a: a.columns)
    assert prod(costly.outer) >= 10 * costly.rows_per_task
    assert cheap.columns * cheap.rows_per_task == limits.TASK_ELEMENTS


def test_threads_share_a_long_row_of_costly_elements() -> None:
    def chain(x: tx.Tensor) -> tx.Tensor:
        for _ in range(24):
            x = (x + 1).tanh()
        return x

    (call,) = calls(plan(chain, floats(512 * 40)))
    assert call.args.columns < 1000 and prod(call.args.outer) > 20
    assert call.args.rows_per_task == 1


def test_a_product_beside_the_one_that_is_ridden_on_keeps_its_cut() -> None:
    """One row program reads both, whose rows would be cut differently: it rides on the second."""
    a, b = floats(512, 512), floats(2, 512)
    found = plan(lambda x, y: (x @ a).tanh() + y @ b, floats(224, 512), floats(224, 2))
    assert launches(found) == ["Matmul", "Matmul+RowProgram"]
    cuts = [c.args for c in calls(found) if isinstance(c.args, MatmulArgs)]
    alone = TARGET.cut(224, 512, 512, 1, "float32")
    assert alone.columns < 512
    assert [(x.rows_per_task, x.columns_per_task) for x in cuts] == [alone[:2], (224, 512)]


# State ------------------------------------------------------------------------------------------


def test_a_swap_of_state_reads_both_before_it_writes() -> None:
    a, b = floats(50, 60), floats(50, 60)

    def swap() -> None:
        old = a * 1.5
        a.assign(b * 2.5)
        b.assign(old)

    replay(plan(swap))


def test_state_that_is_shifted_is_not_written_over() -> None:
    """Each element is read at another place than it is written."""
    a = floats(50, 60)
    found = plan(lambda: a.assign(a.flip(0) * 2))
    replay(found)
    assert not found.aliases
    b = floats(50, 60)
    found = plan(lambda: b.assign(b * 2))
    replay(found)
    assert len(found.aliases) == 1


@pytest.mark.parametrize("broken", ["order", "memory"])
def test_broken_plans_are_noticed(broken: str) -> None:
    """replay() is worth something: waves in the wrong order, memory that is one place."""

    def f(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        return ((x.exp() @ y).tanh() @ x).sum()

    found = plan(f, floats(40, 40), floats(40, 40))
    replay(found)
    if broken == "order":
        (segment,) = found.steps
        assert isinstance(segment, list)
        found = replace(found, steps=(segment[::-1],))
    else:
        found = replace(found, offsets=dict.fromkeys(found.offsets, 0))
    with pytest.raises(AssertionError):
        replay(found)
