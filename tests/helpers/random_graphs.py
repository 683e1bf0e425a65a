"""Random programs on Tensors with gradients and state: what the fuzzer of the compiler runs.

A Program is plain data, so that hypothesis can shrink it: what its inputs are like, and a list of
steps. A step names one of STEPS and says which earlier values it takes and, by one number, how
(axes, shapes, ranges). STEPS look at shapes only, so a program does the same traced and eagerly;
`kept` runs it once on values and drops the steps whose values grow too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from random_steps import STEPS

import tinygrad_tx as tx
from tinygrad_tx import random
from tinygrad_tx.compiler.fuse import limits
from tinygrad_tx.compiler.run import segment
from tinygrad_tx.tree import leaves

MOST = 1000  # elements of a value
LARGEST = 50.0  # and its largest value


class Step(NamedTuple):
    name: str
    x: int
    y: int
    k: int


class Program(NamedTuple):
    """base: the largest shape of an input. shapes: for each input, which of its axes are kept (a
    bit each; the others are 1), and how many of the first ones are left out. layouts: how each
    input lies in memory."""

    steps: tuple[Step, ...]
    base: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]
    layouts: tuple[str, ...]
    dtype: str
    seed: int

    def shape(self, i: int) -> tuple[int, ...]:
        bits, left_out = self.shapes[i]
        return tuple(n if bits >> a & 1 else 1 for a, n in enumerate(self.base))[left_out:]


LAYOUTS = ("plain", "transposed", "reversed", "strided", "broadcast")
NUMBER = st.integers(0, 255)
DIMENSION = st.sampled_from([1, 2, 2, 3, 4, 4, 5, 6, 7, 17])
PROGRAMS = st.builds(
    Program,
    steps=st.lists(
        st.builds(Step, st.sampled_from(sorted(STEPS)), st.integers(0, 2) | NUMBER, NUMBER, NUMBER),
        min_size=1,
        max_size=12,
    ).map(tuple),
    base=(st.lists(DIMENSION, max_size=4) | st.lists(DIMENSION, min_size=2, max_size=4)).map(tuple),
    shapes=st.tuples(*(st.tuples(st.sampled_from([15, 15, 14, 7, 5]), st.integers(0, 2)),) * 3),
    layouts=st.tuples(*(st.sampled_from(LAYOUTS),) * 3),
    dtype=st.sampled_from(["float64", "float64", "float64", "float32"]),
    seed=st.integers(0, 1000),
)


class Machine:
    """One run of a program: its Tensors and the values so far."""

    def __init__(self, program: Program, moved: float = 0.0, noise: int = 0) -> None:
        """moved: the inputs are a little off, by so much of themselves. noise: the seed of that."""
        self.program, self.moved = program, moved
        self.rng = np.random.default_rng(program.seed)
        self.noise = np.random.default_rng(noise)
        count = len(program.shapes)
        self.inputs = [self.laid_out(program.shape(i), program.layouts[i]) for i in range(count)]
        self.weight = tx.tensor(self.numbers((7, 7)), requires_grad=True)
        self.state = [tx.tensor(self.numbers(program.base)), tx.tensor(self.numbers((3,)))]
        self.count = tx.tensor(2)
        self.ids = tx.tensor(self.rng.integers(-50, 50, 64))
        self.values: list[tx.Tensor] = []

    def numbers(self, shape: tuple[int, ...]) -> np.ndarray:
        found = self.rng.standard_normal(shape)
        found *= 1 + self.moved * self.noise.standard_normal(shape)
        return np.asarray(found).astype(self.program.dtype)

    def laid_out(self, shape: tuple[int, ...], layout: str) -> tx.Tensor:
        """A leaf of that shape, as a view of something else."""
        if layout == "transposed":
            x = tx.tensor(self.numbers(shape[::-1])).T
        elif layout == "reversed" and shape:
            x = tx.tensor(self.numbers(shape)).flip(*range(len(shape)))
        elif layout == "strided" and shape:
            x = tx.tensor(self.numbers((*shape[:-1], 2 * shape[-1])))[..., 1::2]
        elif layout == "broadcast" and shape:
            x = tx.tensor(self.numbers((1, *shape[1:]))).expand(*shape)
        else:
            x = tx.tensor(self.numbers(shape))
        return x.detach().requires_grad_()

    def fixed(self, *shape: int, scale: float = 1.0) -> tx.Tensor:
        """A constant made inside the program."""
        n = prod(shape)
        return tx.tensor((np.sin(np.arange(n) * 1.7 + 0.3) * scale).reshape(shape), self.dtype)

    @property
    def dtype(self) -> Any:
        return self.inputs[0].dtype

    def indices(self, size: int, *shape: int) -> tx.Tensor:
        """Computed indices 0..size-1."""
        return (self.ids[: prod(shape)] % size).reshape(*shape)

    # What the compiled function does -------------------------------------------------------------
    def step(self, *inputs: tx.Tensor) -> dict[str, Any]:
        """The loss, its gradients, the values, an input as it is and a view of another."""
        self.values = list(inputs)
        for step in self.program.steps:
            made = self.made(step)
            if made is not None:
                self.values.append(made)
        loss = self.loss()
        loss.backward()
        first, *_, last = inputs
        grads = [x.grad for x in (*inputs, self.weight)]
        return {
            "loss": loss,
            "values": [v.detach() for v in self.values[len(inputs) :]],
            "same": last,
            "view": first.detach().T,
            "grads": [g * 2 for g in grads[::2] if g is not None],
            "count": self.count,
        }

    def made(self, step: Step) -> tx.Tensor | None:
        x, y = (self.values[-1 - i % len(self.values)] for i in (step.x, step.y))
        return STEPS[step.name](self, x, y, step.k)

    def loss(self) -> tx.Tensor:
        total = (self.weight * self.weight).mean()
        for v in self.values[len(self.program.shapes) :]:
            v = v.to(self.dtype)
            total = total + (v * v).mean() + (v * 0.7).sum() / v.numel()
        return total

    def run(self, compiled: bool) -> list[np.ndarray]:
        """Everything there is to compare, after each of two calls. Every other program holds on to
        what the first call gave, which then must not change in the second."""
        f = tx.compile(self.step) if compiled else self.step
        parameters = (*self.inputs, self.weight)
        tx.manual_seed(self.program.seed)
        found: list[np.ndarray] = []
        held: list[tx.Tensor] = []
        for _ in range(2):
            out = f(*self.inputs)
            assert out["same"] is self.inputs[-1]
            seen = [*leaves(out), *(p.grad for p in parameters if p.grad is not None)]
            seen += [t.detach() for t in (*self.state, self.count)]
            found += map(copied, (*seen, *held))
            held = seen if self.program.seed % 2 else []
            del out, seen
            for p in parameters:
                p.grad = None
        return [*found, np.array(random.get_state().get("cpu", ()))]


def copied(x: tx.Tensor) -> np.ndarray:
    return np.array(x.numpy())


def kept(program: Program) -> Program:
    """The program without the steps that do not fit or whose values grow too large."""
    machine = Machine(program)
    machine.values, steps = list(machine.inputs), []
    tx.manual_seed(program.seed)
    for step in program.steps:
        made = machine.made(step)
        if made is None or made.numel() > MOST or not made.numel() or made.ndim > 5:
            continue
        if not np.abs(np.asarray(made.numpy(), np.float64)).max() < LARGEST:
            continue
        machine.values.append(made)
        steps.append(step)
    return program._replace(steps=tuple(steps))


def require_same(
    found: list[np.ndarray],
    wanted: list[np.ndarray],
    program: Program,
    mode: str,
    precision: str = "fp32",
) -> None:
    """What two runs of a program gave is equal but for roundings."""
    assert [(a.shape, a.dtype) for a in found] == [(a.shape, a.dtype) for a in wanted]
    off = np.array([distance(a, b) for a, b in zip(found, wanted, strict=True)])
    bad = np.flatnonzero(off > allowed(program, precision))
    assume(not bad.size or not doubtful(program, wanted, precision))
    assert not bad.size, (mode, [(i, off[i], found[i], wanted[i]) for i in bad], program)


def exact(program: Program) -> bool:
    return program.dtype == "float64" and not any(s.name == "halves" for s in program.steps)


def allowed(program: Program, precision: str) -> float:
    if precision != "fp32":
        return 0.05
    return 1e-9 if exact(program) else 2e-4


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest number where that is above 1."""
    if a.dtype.kind not in "fV" or not a.size:  # V: bfloat16
        return float((a != b).any())
    if (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    a, b = np.nan_to_num(a.astype("d")), np.nan_to_num(b.astype("d"))
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def doubtful(program: Program, wanted: list[np.ndarray], precision: str) -> bool:
    """Whether eager code gives something else where its inputs are off by a rounding error: a
    comparison of values that are equal but for rounding decides."""
    moved = 4e-3 if precision != "fp32" else 1e-12 if exact(program) else 1e-6
    for noise in range(5):
        other = Machine(program, moved, noise).run(compiled=False)
        off = max(distance(a, b) for a, b in zip(other, wanted, strict=True))
        if off > allowed(program, precision) / 3:
            return True
    return False


# Sizes at which the compiler decides otherwise, made so small that small graphs meet them.
SMALL: dict[Any, dict[str, int]] = {
    limits: {
        "SMALL": 2,
        "TASK_ELEMENTS": 8,
        "CHUNK_ROWS": 3,
        "CHUNKS": 3,
        "TASK_COLUMNS": 3,
    },
    segment: {"ALONE": 0},
}


@contextmanager
def sizes(changes: dict[Any, dict[str, int]]) -> Iterator[None]:
    """The compiler's sizes changed, for a while."""
    with ExitStack() as stack:
        for module, new in changes.items():
            stack.enter_context(mock.patch.multiple(module, **new))
        yield
