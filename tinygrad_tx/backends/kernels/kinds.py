"""Kernels: what a plan is made of, as plain values.

A Kernel says what is computed, not where its operands lie: it is frozen and hashable, and its hash
is the key under which machine code is kept. Extents, strides and addresses are arguments of a
*call*, a flat list of 64-bit integers whose layout stands with each kind below. So a new batch
shape needs no new code.

Two things read Kernels: `cpu/` renders them as LLVM IR, `interpreter.py` runs them in NumPy (the
oracle, and the fallback where llvmlite is missing). `compiler/` makes them. The work of a call is
cut into tasks by shape alone, never by the number of threads: task i of a call may run on any
thread at any time, writes what no other task writes, and computes the same bits wherever it runs.

Dtypes are named as in dtypes.py: "float32", "float64", "int32", "int64", "bool" (one byte, 0 or
1), and "float16" and "bfloat16", which are loaded, copied, cast and stored but not computed with.
Strides are counted in elements, addresses in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

# Scalar expressions ------------------------------------------------------------------------------

REDUCTIONS = ("sum", "max", "min", "any", "all", "argmax", "argmin")


@dataclass(frozen=True)
class Instr:
    """One scalar operation. args: numbers of earlier instructions of the same program.

    op: "load" (value: number of the input), "gather" (value: number of the input; its argument is
    the row that is read), "const" (value: a Python number), "col" and "row" (int64: the column, the
    row counted over all outer axes), "cast" (as Backend.cast; value: a note of the compiler's, or
    None); a name from REDUCTIONS; or a scalar function:
    add sub mul div neg abs sign floor sqrt exp log log1p expm1 tanh sin cos erf pow floor_divide
    remainder minimum maximum (NaN wins, as in NumPy) eq ne lt le gt ge and or xor not where isnan
    isinf isfinite copy. dtype: of the result. Arguments of arithmetic have the result's dtype,
    those of a comparison one common dtype.
    """

    op: str
    args: tuple[int, ...]
    dtype: str
    value: Any = None


@dataclass(frozen=True)
class Input:
    """column: "same" (one value for a whole row: its column stride is 0), "unit" (stride 1) or
    "any"."""

    dtype: str
    column: str


@dataclass(frozen=True)
class Output:
    """Where the value of instruction `instr` goes. column: as for an Input; "same" where the value
    is one for a row. at: number of a 0-d int64 input that is added to the position along one axis
    (a cache's write), or -1."""

    instr: int
    column: str
    at: int = -1


# Kinds of Kernel ---------------------------------------------------------------------------------


class Kernel:
    """The common name of all kinds. Each is a frozen dataclass."""

    def tasks(self, args: Sequence[int]) -> int:
        """How many tasks a call with these arguments has."""
        raise NotImplementedError


@dataclass(frozen=True)
class Rows(Kernel):
    """A row program: `instrs` are computed for each row of a domain (outer axes..., columns).

    An instruction is per row where it depends on no column (a reduction's result, "row", a load
    whose column is "same", and what is made of those), per element otherwise. A reduction goes over
    the columns of its row in a fixed tree, the same on every processor: element j is added to slot
    j % S (target.py says how many slots there are), sums of floats block by block, and the slots
    are combined in a fixed order (so trailing columns that add nothing change nothing). Outputs may
    be the very memory of an input that is read at the same place: an element is read before it is
    written, and a row's reductions are done before any output of that row is written where that
    matters.

    Arguments of a call: extent of each of the `outer` axes; number of columns; rows per task; then
    for each input and each output: address, stride along each outer axis, stride along columns, and
    for an output with `at` the stride that the position is multiplied with. A "gather" input
    is read at its argument's row times its first outer stride; its other outer strides are unused.
    The n = ceil(rows / rows_per_task) tasks share the rows evenly: task t has those from
    t * rows // n on.
    """

    outer: int
    inputs: tuple[Input, ...]
    instrs: tuple[Instr, ...]
    outputs: tuple[Output, ...]

    def tasks(self, args: Sequence[int]) -> int:
        rows, per_task = prod(args[: self.outer]), args[self.outer + 1]
        return -(-rows // per_task)


@dataclass(frozen=True)
class Columns(Kernel):
    """Reductions along the rows of a domain (outer axes..., columns): outputs name instructions
    "sum", "max" or "min" whose results are one for each column. No other instruction depends on
    them.

    Arguments: extent of each outer axis; number of columns; rows per task; columns per task; for
    each input: address, outer strides, column stride; for each output: address, stride along
    chunks, stride along columns. With C = ceil(columns / columns_per_task), task t reduces chunk
    t // C (its rows from (t // C) * rows_per_task on) for column block t % C, and writes one row
    of the output. Rows are added in order, in one chain for each column and block of rows.
    """

    outer: int
    inputs: tuple[Input, ...]
    instrs: tuple[Instr, ...]
    outputs: tuple[Output, ...]

    def tasks(self, args: Sequence[int]) -> int:
        columns, rows_each, columns_each = args[self.outer : self.outer + 3]
        return -(-prod(args[: self.outer]) // rows_each) * -(-columns // columns_each)


@dataclass(frozen=True)
class Pack(Kernel):
    """Lay a matrix b (..., K, N) out for Matmul: blocks of KC rows, in them panels of NR columns,
    in them rows; the last panel is filled with zeros. The packed size is K * ceil(N / NR) * NR.

    Arguments: batch extents B0, B1; K; N; panels per task; address of b; strides b0, b1, k, n;
    address of the packed; its strides b0, b1. Task t: with P = ceil(ceil(N / NR) /
    panels_per_task), batch t // P (row-major over B0, B1), panels from (t % P) * panels_per_task.
    width: NR, the columns of a panel, as the target has them.
    """

    dtype: str
    width: int

    def tasks(self, args: Sequence[int]) -> int:
        b0, b1, _, n, each = args[:5]
        panels = -(-n // self.width)
        return b0 * b1 * -(-panels // each)


@dataclass(frozen=True)
class Matmul(Kernel):
    """c (..., M, N) = a (..., M, K) times a packed b. Each element's products are added in one
    upward chain for each block of KC, the blocks' sums in order: the same for every M, N and task.

    accumulate: c is added to (its old value first) instead of written.
    Arguments: batch extents B0, B1; M; N; K; rows per task; columns per task (a multiple of NR);
    address of a; strides b0, b1, m, k; address of the packed b; strides b0, b1; address of c;
    strides b0, b1, m (its column stride is 1). Task t: with Nt = ceil(N / columns_per_task) and
    Mt = ceil(M / rows_per_task): column block t % Nt, row block r = (t // Nt) % Mt, batch
    t // (Nt * Mt). Row blocks are even, as those of Rows: r begins at r * M // Mt.
    """

    dtype: str
    accumulate: bool = False

    def tasks(self, args: Sequence[int]) -> int:
        b0, b1, m, n, _, rows, columns = args[:7]
        return b0 * b1 * -(-m // rows) * -(-n // columns)


@dataclass(frozen=True)
class Attention(Kernel):
    """out = softmax(scale q k^T + mask) v, one task for each (batch, head).

    mask: "none", "bool" (True takes part; a row without a key is zero) or "float" (added).
    causal: key <= query only, both counted from the start.
    Arguments: B, H, T, S, d_k, d_v; then address and strides (b, h, length, width) of q, k, v and
    out, whose width strides are 1; for a mask: address, strides b, h, t, s (any of them may be 0).
    """

    dtype: str
    scale: float
    mask: str
    causal: bool

    def tasks(self, args: Sequence[int]) -> int:
        return args[0] * args[1]


@dataclass(frozen=True)
class AttentionGrad(Kernel):
    """Gradients of Attention by q, k and v; the probabilities are computed again.

    Arguments: as Attention up to v, then address and strides of g (the gradient of out), dq, dk and
    dv (width strides 1), then the mask's. Every (b, h) of dq, dk, dv is written by one task.
    """

    dtype: str
    scale: float
    mask: str
    causal: bool

    def tasks(self, args: Sequence[int]) -> int:
        return args[0] * args[1]


@dataclass(frozen=True)
class Keep(Kernel):
    """A dropout mask: byte i is 1 where Philox word i of a stream is at least p.

    threshold: ceil(p * 2^24); kept where (word >> 8) >= threshold. Element i is word i % 4 of
    counter i // 4. Arguments: count; elements per task (a multiple of 64); address of the key and
    of the stream number (int64 each); address of the mask.
    """

    threshold: int

    def tasks(self, args: Sequence[int]) -> int:
        return -(-args[0] // args[1])


@dataclass(frozen=True)
class Index(Kernel):
    """Indices made safe: int64, in 0..size-1, and a report where one was not.

    wrap: negative ones count from the end. skip: indices equal to the argument `skipped` are let
    through as 0. Arguments: count; elements per task; size; skipped; address of the indices, their
    stride; address of the int64 result; address of the report: two int64, which a task that finds
    an index outside sets to (1, that index), and leaves alone otherwise.
    """

    dtype: str
    wrap: bool
    skip: bool = False

    def tasks(self, args: Sequence[int]) -> int:
        return -(-args[0] // args[1])


@dataclass(frozen=True)
class ScatterAdd(Kernel):
    """out[index[i], :] += value[i, :] for i = 0, 1, ... in order; indices are known to be inside.

    Arguments: count; columns; columns per task; address of the int64 indices; address of value, its
    row stride (column stride 1); address of out, its row stride (column stride 1). Task t has
    the columns from t * columns_per_task on.
    """

    dtype: str

    def tasks(self, args: Sequence[int]) -> int:
        return -(-args[1] // args[2])


@dataclass(frozen=True)
class Opaque(Kernel):
    """A call of an op's forward on arrays: Python between two native segments. name: of the op;
    its attributes stay with the call."""

    name: str

    def tasks(self, args: Sequence[int]) -> int:
        return 1


# What both readers of a program need -------------------------------------------------------------


def per_row(inputs: Sequence[Input], instrs: Sequence[Instr]) -> list[bool]:
    """For each instruction whether it has one value for a whole row."""
    found: list[bool] = []
    for instr in instrs:
        if instr.op == "col":
            found.append(False)
        elif instr.op in ("row", "const") or instr.op in REDUCTIONS:
            found.append(True)
        elif instr.op in ("load", "gather"):
            same = inputs[instr.value].column == "same"
            found.append(same and all(found[a] for a in instr.args))
        else:
            found.append(all(found[a] for a in instr.args))
    return found
