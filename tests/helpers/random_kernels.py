"""Random row programs whose results are known to a tolerance, for tests of native code.

A value is *exact* where its arguments are multiples of 1/2^bits and so small that every order of
computing gives the same bits. What jumps (comparisons, floor, argmax, casts to integers, ...) takes
exact values only; for all others an error bound is carried along. So a difference beyond the bound
is somebody's mistake, however the program was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from kernel_case import Array, Program, operand

from tinygrad_tx.backends.kernels.instructions import REDUCTIONS
from tinygrad_tx.backends.kernels.kinds import ColumnReduce, RowProgram, per_row

Draw = Callable[[Any], Any]
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
DTYPES = ("float32", "float64", "int64", "bool")
TABLE_ROWS = 6
LARGEST = 2.0**20  # of an exact value, counted in its smallest steps

ANY_UNARY = ("neg", "abs", "copy")
SMOOTH = {"tanh": 1.0, "sin": 1.0, "cos": 1.0, "erf": 1.2, "exp": 0.0, "expm1": 0.0}  # slopes
JUMPY = ("floor", "sign", "sqrt", "log", "log1p", "isnan", "isinf", "isfinite")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGIC = ("and", "or", "xor")


@dataclass(frozen=True)
class Known:
    """What is known of an instruction's value."""

    dtype: str
    bound: float  # of its absolute value, where it is finite
    error: float = 0.0
    bits: int = 0  # an exact value is a multiple of 2^-bits
    finite: bool = True
    index: bool = False  # fit for gather

    @property
    def exact(self) -> bool:
        return self.error == 0

    @property
    def is_float(self) -> bool:
        return self.dtype in EPS


@dataclass
class Case:
    """A kernel and how its operands lie in memory."""

    kernel: RowProgram | ColumnReduce
    domain: tuple[int, ...]
    cut: list[int]  # rows per task (and columns per task)
    layouts: list[Layout]  # of inputs and outputs
    tolerances: list[float]  # of outputs
    alias: list[int]  # for each output the input whose memory it is, or -1
    seed: int


@dataclass(frozen=True)
class Layout:
    """shape: extents in memory, 1 where it is broadcast, in the order of the domain's axes; order:
    of the axes in memory; turned: axes that run backwards; step: of the last axis in memory."""

    dtype: str
    column: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    turned: tuple[bool, ...]
    step: int
    index: bool = False

    def array(self, domain: tuple[int, ...], rng: np.random.Generator) -> Array:
        extents = [self.shape[axis] for axis in self.order]
        extents[-1] *= self.step
        base = values(self.dtype, tuple(extents), self.index, rng)[..., :: self.step]
        view = base.transpose(np.argsort(self.order))
        turns = tuple(slice(None, None, -1 if turned else 1) for turned in self.turned)
        return np.broadcast_to(view[turns], domain) if domain != self.shape else view[turns]


def values(dtype: str, shape: tuple[int, ...], index: bool, rng: np.random.Generator) -> Array:
    if index:
        return rng.integers(0, TABLE_ROWS, shape)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "int64":
        return rng.integers(-4, 5, shape)
    return (rng.integers(-6, 7, shape) / 2).astype(dtype)


class Writer:
    """Draws instructions into a Program, and knows the bounds of each."""

    def __init__(self, draw: Draw, domain: tuple[int, ...], folds: bool) -> None:
        self.draw, self.domain, self.folds = draw, domain, folds
        self.program = Program()
        self.known: list[Known] = []

    def pick(self, choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def such(self, test: Callable[[Known], bool]) -> int | None:
        """An instruction whose value passes the test, the latest ones tried first."""
        found = [i for i, known in enumerate(self.known) if test(known)]
        return self.pick(found[::-1][:6]) if found else None

    def put(self, op: str, known: Known, *args: int, value: Any = None) -> int:
        """Add an instruction; an exact float that needs too many bits is exact no longer."""
        number = self.program.do(op, known.dtype, *args, value=value)
        if known.is_float and known.exact and known.bound * 2.0**known.bits > LARGEST:
            known = replace(known, error=known.bound * EPS[known.dtype])
        self.known.append(known)
        return number

    def load(self) -> None:
        dtype, column = self.pick(DTYPES), self.pick(("unit", "unit", "any", "same"))
        index = dtype == "int64" and self.draw(st.booleans())
        self.program.load(dtype, column)
        bound = {"int64": TABLE_ROWS, "bool": 1}.get(dtype, 3)
        self.known.append(Known(dtype, bound, bits=1, index=index))

    def step(self) -> None:
        kinds = [self.unary, self.binary, self.integer, self.logic, self.choose, self.cast]
        kinds += [self.place, self.load, self.gather, self.unary, self.binary]
        if self.folds:
            kinds += [self.fold, self.fold]
        self.pick(kinds)()

    def unary(self) -> None:
        op = self.pick((*ANY_UNARY, *SMOOTH, *JUMPY))
        limit = 8 if op in ("exp", "expm1") else 1000
        a = self.such(lambda k: k.is_float and k.bound <= limit and (k.exact or op not in JUMPY))
        if a is None:
            return
        x = self.known[a]
        eps = EPS[x.dtype]
        if op in ANY_UNARY:
            self.put(op, replace(x, index=False), a)
        elif op.startswith("is"):
            self.put(op, Known("bool", 1), a)
        elif op in ("floor", "sign"):
            self.put(op, replace(x, bound=x.bound + 1, bits=0), a)
        elif op in JUMPY:  # square roots and logarithms
            bound = max(10.0, x.bound)
            self.put(op, Known(x.dtype, bound, bound * eps, finite=False), a)
        else:
            slope = SMOOTH[op] or math.exp(x.bound)
            bound = SMOOTH[op] or slope + 1
            self.put(
                op, Known(x.dtype, bound, slope * x.error + 4 * eps * bound, finite=x.finite), a
            )

    def binary(self) -> None:
        op = self.pick(("add", "sub", "mul", "maximum", "minimum", "div", "remainder"))
        a = self.such(lambda k: k.is_float and k.bound < 1e4)
        if a is None:
            return
        x = self.known[a]
        b = self.such(lambda k: k.dtype == x.dtype and k.bound < 1e4)
        assert b is not None
        y, eps = self.known[b], EPS[x.dtype]
        finite, exact = x.finite and y.finite, x.exact and y.exact
        error, bits = x.error + y.error, max(x.bits, y.bits)
        if op == "div":  # by a number of at least a half
            half = self.put("const", Known(x.dtype, 0.5, bits=1), value=0.5)
            size = self.put("abs", y, b)
            b = self.put("add", Known(x.dtype, y.bound + 0.5, y.error + eps * y.bound), size, half)
            slope = 2 + 4 * x.bound
            grown = slope * (error + eps * (y.bound + 1)) + 2 * eps * x.bound
            self.put("div", Known(x.dtype, 2 * x.bound, grown, finite=finite), a, b)
        elif op == "remainder":
            if exact:
                op = self.pick(("remainder", "floor_divide"))
                steps = x.bound * 2.0**y.bits + 1 if op == "floor_divide" else y.bound
                bits = 0 if op == "floor_divide" else bits
                self.put(op, Known(x.dtype, steps, bits=bits, finite=False), a, b)
        elif op == "mul":
            bound = x.bound * y.bound
            grown = x.bound * y.error + y.bound * x.error + (not exact) * eps * bound
            self.put(op, Known(x.dtype, bound, grown, x.bits + y.bits, finite), a, b)
        elif op in ("add", "sub"):
            bound = x.bound + y.bound
            self.put(
                op, Known(x.dtype, bound, error + (not exact) * eps * bound, bits, finite), a, b
            )
        else:
            self.put(op, Known(x.dtype, max(x.bound, y.bound), error, bits, finite), a, b)

    def integer(self) -> None:
        a = self.such(lambda k: k.dtype == "int64" and k.bound < 1000)
        b = self.such(lambda k: k.dtype == "int64" and k.bound < 1000)
        if a is None or b is None:
            return
        x, y = self.known[a], self.known[b]
        op = self.pick(("add", "sub", "mul", "floor_divide", "remainder", "minimum", "neg", "sign"))
        bound = x.bound * y.bound if op == "mul" else x.bound + y.bound + 1
        args = (a,) if op in ("neg", "sign") else (a, b)
        self.put(op, Known("int64", bound), *args)

    def logic(self) -> None:
        a = self.such(lambda k: k.exact)
        if a is None:
            return
        x = self.known[a]
        b = self.such(lambda k: k.exact and k.dtype == x.dtype)
        assert b is not None
        if x.dtype == "bool" and self.draw(st.booleans()):
            self.put("not", Known("bool", 1), a)
        else:
            self.put(self.pick(LOGIC if x.dtype == "bool" else COMPARISONS), Known("bool", 1), a, b)

    def choose(self) -> None:
        condition = self.such(lambda k: k.dtype == "bool")
        a = self.such(lambda k: True)
        if condition is None or a is None:
            return
        x = self.known[a]
        b = self.such(lambda k: k.dtype == x.dtype)
        assert b is not None
        y = self.known[b]
        known = Known(
            x.dtype,
            max(x.bound, y.bound),
            max(x.error, y.error),
            max(x.bits, y.bits),
            x.finite and y.finite,
        )
        self.put("where", known, condition, a, b)

    def cast(self) -> None:
        dtype = self.pick(DTYPES)
        a = self.such(lambda k: k.bound < 1e5 and (dtype in EPS or (k.exact and k.finite)))
        if a is None:
            return
        x = self.known[a]
        error = 0.0 if x.exact else x.error + x.bound * EPS["float32"]
        self.put("cast", Known(dtype, x.bound, error, x.bits, x.finite), a)

    def place(self) -> None:
        op = self.pick(("col", "row", "const"))
        if op == "const":
            dtype = self.pick(DTYPES)
            value = {"bool": True, "int64": -3}.get(dtype, 1.5)
            self.put("const", Known(dtype, 3, bits=1), value=value)
        else:
            self.put(op, Known("int64", 1000))

    def gather(self) -> None:
        a = self.such(lambda k: k.index)
        if a is None or len(self.domain) < 2:
            return
        dtype = self.pick(DTYPES)
        self.program.gather(dtype, a, self.pick(("unit", "any", "same")))
        self.known.append(Known(dtype, {"int64": 4, "bool": 1}.get(dtype, 3), bits=1))

    def fold(self) -> None:
        op = self.pick(REDUCTIONS)
        a = self.such(
            lambda k: (
                (k.dtype == "bool") if op in ("any", "all") else k.exact or op in ("sum", "max")
            )
        )
        if a is not None:
            self.put(op, self.folded(op, self.known[a], self.domain[-1]), a)

    def folded(self, op: str, x: Known, count: int) -> Known:
        if op in ("any", "all"):
            return Known("bool", 1)
        if op.startswith("arg"):
            return Known("int64", count)
        if op in ("max", "min"):
            return replace(x, index=False)
        if not x.is_float:
            return Known("int64", x.bound * count)
        error = 0.0 if x.exact else (x.error + EPS[x.dtype] * x.bound * count) * count
        known = Known(x.dtype, x.bound * count, error, x.bits, x.finite)
        if known.exact and known.bound * 2.0**known.bits > LARGEST:
            return replace(known, error=EPS[x.dtype] * known.bound * count)
        return known


@st.composite
def cases(draw: Draw, columns_kind: bool) -> Case:
    """RowProgram, or ColumnReduce where `columns_kind`."""
    outer = draw(st.integers(0, 3))
    domain = tuple(draw(st.integers(1, 4)) for _ in range(outer))
    domain = (*domain, draw(st.sampled_from((1, 2, 5, 16, 33, 70, 129))))
    writer = Writer(draw, domain, not columns_kind)
    for _ in range(draw(st.integers(1, 3))):
        writer.load()
    for _ in range(draw(st.integers(2, 12))):
        writer.step()
    program, known = writer.program, writer.known
    rows = math.prod(domain[:-1])
    if columns_kind:
        elements = range(len(known))
        for _ in range(draw(st.integers(1, 2))):
            a, op = writer.pick(elements), writer.pick(("sum", "max", "min"))
            folded = writer.put(op, writer.folded(op, known[a], rows), a)
            program.store(folded, writer.pick(("unit", "any")))
        cut = [draw(st.integers(1, rows + 2)), draw(st.integers(1, domain[-1] + 3))]
        kernel: RowProgram | ColumnReduce = program.columns(outer)
    else:
        once = per_row(program.inputs, program.instrs)
        for number in {
            len(known) - 1,
            writer.pick(range(len(known))),
            writer.pick(range(len(known))),
        }:
            program.store(number, "same" if once[number] else writer.pick(("unit", "any")))
        cut = [draw(st.integers(1, rows + 2))]
        kernel = program.rows(outer)

    gathered = {i.value for i in kernel.instrs if i.op == "gather"}
    indices = {
        i.value for i, k in zip(kernel.instrs, known, strict=True) if i.op == "load" and k.index
    }
    layouts = []
    for number, input in enumerate(kernel.inputs):
        extents = (TABLE_ROWS, *(1,) * (outer - 1), domain[-1]) if number in gathered else domain
        layouts.append(layout(draw, input.dtype, input.column, extents, True, number in indices))
    alias: list[int] = []
    for output in kernel.outputs:
        dtype = known[output.instr].dtype
        extents = (-(-rows // cut[0]), domain[-1]) if columns_kind else domain
        mine = layout(draw, dtype, output.column, extents, False, False)
        # As schedule/memory.py has it: not a row's value where nothing is reduced.
        whole = output.column == "same" and not any(i.op in REDUCTIONS for i in kernel.instrs)
        taken = [
            n
            for n, (input, place) in enumerate(zip(kernel.inputs, layouts, strict=False))
            if (input.dtype, input.column) == (dtype, output.column)
            and place.shape == mine.shape
            and n not in gathered
            and n not in alias
            and not columns_kind
            and not whole
        ]
        alias.append(draw(st.sampled_from((-1, *taken))))
        layouts.append(mine)
    tolerances = [known[output.instr].error * 4 for output in kernel.outputs]
    return Case(kernel, domain, cut, layouts, tolerances, alias, draw(st.integers(0, 9999)))


def layout(
    draw: Draw, dtype: str, column: str, extents: tuple[int, ...], broadcast: bool, index: bool
) -> Layout:
    """A way for an operand to lie in memory; its column stride is as `column` says."""
    outer = len(extents) - 1
    shape = [1 if broadcast and draw(st.integers(0, 4)) == 0 else n for n in extents[:-1]]
    turned = [draw(st.integers(0, 3)) == 0 for _ in range(outer)]
    order = draw(st.permutations(range(outer)))
    if column == "any":
        order = draw(st.permutations(range(outer + 1)))
        turned.append(draw(st.booleans()))
        step = draw(st.integers(1, 2))
    else:
        order, step = [*order, outer], 1
        turned.append(False)
    shape.append(1 if column == "same" else extents[-1])
    return Layout(dtype, column, tuple(shape), tuple(order), tuple(turned), step, index)


def arrays(case: Case) -> list[Array]:
    """Fresh memory for all operands, the same each time. Outputs have the domain's shape too."""
    rng = np.random.default_rng(case.seed)
    kernel, inputs = case.kernel, len(case.kernel.inputs)
    gathered = {i.value for i in kernel.instrs if i.op == "gather"}
    found: list[Array] = []
    for number, place in enumerate(case.layouts):
        extents = case.domain
        if number in gathered:
            extents = (TABLE_ROWS, *(1,) * (len(extents) - 2), extents[-1])
        if number >= inputs and isinstance(kernel, ColumnReduce):
            extents = place.shape
        source = case.alias[number - inputs] if number >= inputs else -1
        found.append(found[source] if source >= 0 else place.array(extents, rng))
    return found


def arguments(case: Case, memory: list[Array]) -> list[int]:
    args = [*case.domain, *case.cut]
    for array in memory:
        args += operand(array)
    return args
