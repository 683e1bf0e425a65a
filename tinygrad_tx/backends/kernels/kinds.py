"""Kernels: the parts of a plan, as plain values.

A Kernel says what is computed, not where its operands lie: it is frozen and hashable, and its hash
is the key under which machine code is kept. Extents, strides and addresses are arguments of a
*call* (arguments.py), flat 64-bit integers which the kernel's `layout` numbers by name. So a new
batch shape needs no new code.

Three things read Kernels: `cpu/` renders them as LLVM IR, `interpreter.py` runs them in NumPy (the
oracle, and the fallback where llvmlite is missing), `describe.py` prints them. `compiler/` makes
them. The work of a call is cut into tasks by shape alone, never by the number of threads: task i of
a call may run on any thread at any time, writes what no other task writes, and computes the same
bits wherever it runs.

Dtypes are named as in dtypes.py: "float32", "float64", "int32", "int64", "bool" (one byte, 0 or
1), and "float16" and "bfloat16", which are loaded, copied, cast and stored but not computed with.
Strides are counted in elements, addresses in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal, TypeVar

from ...dtypes import ALL
from .arguments import (
    AttentionArgs,
    AttentionGradArgs,
    AttentionKeyGradArgs,
    AttentionQueryGradArgs,
    CheckIndexArgs,
    ColumnReduceArgs,
    DropoutMaskArgs,
    GemmArgs,
    GemmEpilogueArgs,
    MatmulArgs,
    PackArgs,
    RowProgramArgs,
    ScatterAddArgs,
    attention_layout,
    column_layout,
    epilogue_layout,
    layout_of,
    row_layout,
)
from .instructions import REDUCTIONS, Instr

A = TypeVar("A")
# Operands of row programs ------------------------------------------------------------------------


ColumnStride = Literal["same", "unit", "any"]
"""The stride of an operand along its row: "same" is 0 (broadcast: one value for the whole row),
"unit" is 1 (contiguous), "any" is another one (strided), an argument of the call."""


@dataclass(frozen=True)
class Input:
    """An operand that a program reads."""

    dtype: str
    column: ColumnStride


@dataclass(frozen=True)
class Output:
    """An operand that the value of instruction `instr` is written to; "same" stores one value for
    each row. at: number of a 0-d int64 input that is added to the position along one axis (a
    cache's write), or -1."""

    instr: int
    column: ColumnStride
    at: int = -1


# Kinds of Kernel ---------------------------------------------------------------------------------


class Kernel:
    """The common name of all kinds. Each is a frozen dataclass. layout (arguments.py): the names of
    the words of a call's arguments. word: the kind, as explain() and TX_DEBUG print it."""

    word: ClassVar[str]

    def tasks(self, words: Sequence[int]) -> int:
        """The number of tasks of a call with these arguments."""
        raise NotImplementedError


@dataclass(frozen=True)
class RowProgram(Kernel):
    """`instrs` are computed for each row of a domain (outer axes..., columns).

    An instruction is row-invariant where it depends on no column (a reduction's result, "row", a
    load whose column is "same", and functions of those), and per element otherwise. A reduction
    goes over the columns of its row in a fixed tree, the same on every processor: element j is
    added to slot j % S (summation.py says how many slots), sums of floats block by block,
    and the slots are combined in a fixed order (so trailing columns that add nothing change
    nothing). An output may alias an input read with the same strides: each element is loaded
    before it is stored, and all reductions of a row finish before the row's first store.

    A "gather" input is read at its argument's row. The n = ceil(rows / rows_per_task) tasks share
    the rows evenly: task t has those from t * rows // n on.
    """

    word: ClassVar[str] = "rows"
    outer: int
    inputs: tuple[Input, ...]
    instrs: tuple[Instr, ...]
    outputs: tuple[Output, ...]

    def tasks(self, words: Sequence[int]) -> int:
        at = self.layout
        return -(-prod(words[i] for i in at.outer) // words[at.rows_per_task])

    @property
    def layout(self) -> RowProgramArgs[int]:
        return row_layout(self.outer, len(self.inputs), tuple(o.at >= 0 for o in self.outputs))


@dataclass(frozen=True)
class ColumnReduce(Kernel):
    """Reductions along the rows of a domain (outer axes..., columns): outputs name instructions
    "sum", "max" or "min" whose results are one for each column. No other instruction depends on
    them.

    With C = ceil(columns / columns_per_task), task t reduces chunk t // C (its rows from
    (t // C) * rows_per_task on) for column block t % C, and writes one row of the output. Rows are
    added in order, in one chain for each column and block of rows.
    """

    word: ClassVar[str] = "columns"
    outer: int
    inputs: tuple[Input, ...]
    instrs: tuple[Instr, ...]
    outputs: tuple[Output, ...]

    def tasks(self, words: Sequence[int]) -> int:
        at = self.layout
        chunks = -(-prod(words[i] for i in at.outer) // words[at.rows_per_task])
        return chunks * -(-words[at.columns] // words[at.columns_per_task])

    @property
    def layout(self) -> ColumnReduceArgs[int]:
        return column_layout(self.outer, len(self.inputs), len(self.outputs))


@dataclass(frozen=True)
class Pack(Kernel):
    """Lay a matrix b (..., K, N) out for Matmul: blocks of KC rows, in them panels of NR columns,
    in them rows; the last panel is filled with zeros. The packed size is K * ceil(N / NR) * NR.

    Task t: with P = ceil(ceil(N / NR) / panels_per_task), batch t // P (row-major over B0, B1),
    panels from (t % P) * panels_per_task. width: NR, the columns of a panel, as the target has
    them.

    dtype: of the packed numbers. source: of those in b, by default the same. rounded: what b's
    numbers are rounded to on the way, by default nothing.
    """

    word: ClassVar[str] = "pack"
    dtype: str
    width: int
    source: str = ""
    rounded: str = ""
    layout: ClassVar[PackArgs[int]] = layout_of(PackArgs)

    def tasks(self, words: Sequence[int]) -> int:
        at = self.layout
        panels = -(-words[at.n] // self.width)
        return words[at.b0] * words[at.b1] * -(-panels // words[at.panels_per_task])

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.dtype)


@dataclass(frozen=True)
class Matmul(Kernel):
    """c (..., M, N) = a (..., M, K) times a packed b. Each element's products are added in one
    upward chain for each block of KC, the blocks' sums in order: the same for every M, N and task.

    dtype: of the sums, and of the packed b. left, out: of a and c in memory, by default the same; c
    is rounded once, from the finished sum. accumulate: c, which has the dtype of the sums, is added
    to (its old value first) instead of written.
    Task t: with Nt = ceil(N / columns_per_task) and Mt = ceil(M / rows_per_task): column block
    t % Nt, row block r = (t // Nt) % Mt, batch t // (Nt * Mt). Row blocks are even, as those of
    RowProgram: r begins at r * M // Mt.
    """

    word: ClassVar[str] = "matmul"
    dtype: str
    accumulate: bool = False
    left: str = ""
    out: str = ""
    layout: ClassVar[MatmulArgs[int]] = layout_of(MatmulArgs)

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", self.left or self.dtype)
        object.__setattr__(self, "out", self.out or self.dtype)
        assert not self.accumulate or self.out == self.dtype, "sums are not rounded on the way"

    def tasks(self, words: Sequence[int]) -> int:
        at = self.layout
        down = -(-words[at.m] // words[at.rows_per_task])
        across = -(-words[at.n] // words[at.columns_per_task])
        return words[at.b0] * words[at.b1] * down * across


@dataclass(frozen=True)
class Gemm(Kernel):
    """c (..., M, N) = a (..., M, K) times b (..., K, N), as they lie: for machines that bring both
    together themselves. Each element's sum is that of Matmul, where `exact`; else it is one of
    float32 in an order of the machine's own, the same for every M, N and batch.

    dtype: of a and b. c: the dtype of c, where it is another one; it is added to with accumulate.
    tf32: a and b, of float32, are rounded to 10 bits of mantissa first, as tensor cores take them.
    """

    word: ClassVar[str] = "gemm"
    dtype: str
    accumulate: bool = False
    c: str = ""
    tf32: bool = False
    layout: ClassVar[GemmArgs[int]] = layout_of(GemmArgs)

    @property
    def out(self) -> str:
        """The dtype of c."""
        return self.c or self.dtype

    @property
    def sums(self) -> str:
        """The dtype in which products are added."""
        return "float32" if ALL[self.dtype].is_half else self.dtype

    @property
    def exact(self) -> bool:
        """True if the order of the sums is told."""
        return not (self.tf32 or ALL[self.dtype].is_half)

    def tasks(self, words: Sequence[int]) -> int:
        return words[self.layout.b0] * words[self.layout.b1]


@dataclass(frozen=True)
class GemmEpilogue(Kernel):
    """A Gemm, and a row program without reductions that is computed of its c while it is written.
    The program's rows are those of c, counted over b0, b1 and m, whatever its outer axes are; its
    columns are c's.

    c: the number of the program's input that is c, which is loaded once, column by column. keep:
    True if c is written as well; where it is not, there need be no memory for it.
    """

    word: ClassVar[str] = "gemm+"
    product: Gemm
    program: RowProgram
    c: int
    keep: bool = False

    def __post_init__(self) -> None:
        instrs = self.program.instrs
        if any(instr.op in REDUCTIONS for instr in instrs):
            raise ValueError("an epilogue reduces nothing: a call of its own does")
        reads = [x.op for x in instrs if x.op in ("load", "gather") and x.value == self.c]
        if reads != ["load"] or self.program.inputs[self.c].column != "unit":
            raise ValueError(f"input {self.c} is no c: it is to be loaded once, column by column")

    def tasks(self, words: Sequence[int]) -> int:
        return self.product.tasks(words)

    @property
    def layout(self) -> GemmEpilogueArgs[int]:
        of = self.program
        return epilogue_layout(of.outer, len(of.inputs), tuple(o.at >= 0 for o in of.outputs))


@dataclass(frozen=True)
class Scored(Kernel):
    """What the kinds of attention share: weights, softmax(scale q k^T + mask) over the keys.

    mask: "none", "bool" (True takes part), "float" (added) or "bounds" (int64: the first key that a
    query sees, and where they end). The weights of a row without a key are zero, but with "float".
    causal: key <= query only, both counted from the start.
    dtype: in which it is computed. stored, of each kind: that of all operands but a boolean mask,
    bounds, statistics and delta; by default the same.
    """

    dtype: str
    scale: float
    mask: str
    causal: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", getattr(self, "stored", "") or self.dtype)

    def _layout(
        self, kind: type[A], *, dmask: bool = False, statistics: bool = False, drops: bool = False
    ) -> A:
        return attention_layout(
            kind, mask=self.mask, dmask=dmask, statistics=statistics, drops=drops
        )


@dataclass(frozen=True)
class Attention(Scored):
    """out = softmax(scale q k^T + mask) v, one task for each (batch, head).

    statistics: also written, for gradients: for each query the logarithm of the sum of the
    exponentials of its scores, of `dtype`; infinite for a row without a key.
    dropout: each weight is 0 with this probability and divided by 1 - dropout otherwise, by the
    words that a DropoutMask of shape (b, h, t, s) would be made of. tf32: what is multiplied, of
    float32, may be rounded to 10 bits of mantissa first, as tensor cores take it.
    """

    word: ClassVar[str] = "attention"
    stored: str = ""
    statistics: bool = False
    dropout: float = 0.0
    tf32: bool = False

    def tasks(self, words: Sequence[int]) -> int:
        return words[self.layout.b] * words[self.layout.h]

    @property
    def layout(self) -> AttentionArgs[int]:
        return self._layout(AttentionArgs, statistics=self.statistics, drops=self.dropout > 0)


@dataclass(frozen=True)
class AttentionGrad(Scored):
    """Gradients of Attention by q, k and v; the probabilities are computed again. Every head of dk
    and dv is written by one task, with those of dq that it serves.

    dmask: it also gives the gradient of an added mask, of each head: that of the scores.
    stored: of all operands and gradients but bool masks and bounds, by default dtype.
    """

    word: ClassVar[str] = "attentiongrad"
    dmask: bool = False
    stored: str = ""

    def tasks(self, words: Sequence[int]) -> int:
        at = self.layout
        return words[at.b] * (words[at.h] // words[at.group])

    @property
    def layout(self) -> AttentionGradArgs[int]:
        return self._layout(AttentionGradArgs, dmask=self.dmask)


@dataclass(frozen=True)
class AttentionQueryGrad(Scored):
    """The gradient of Attention by q, for machines that keep its statistics; and delta, for each
    query the sum of g * out, which AttentionKeyGrad reads. dmask, dropout: as above."""

    word: ClassVar[str] = "attentionquerygrad"
    dmask: bool = False
    stored: str = ""
    dropout: float = 0.0
    tf32: bool = False

    def tasks(self, words: Sequence[int]) -> int:
        return words[self.layout.b] * words[self.layout.h]

    @property
    def layout(self) -> AttentionQueryGradArgs[int]:
        return self._layout(AttentionQueryGradArgs, dmask=self.dmask, drops=self.dropout > 0)


@dataclass(frozen=True)
class AttentionKeyGrad(Scored):
    """The gradients of Attention by k and v, after AttentionQueryGrad has written delta."""

    word: ClassVar[str] = "attentionkeygrad"
    stored: str = ""
    dropout: float = 0.0
    tf32: bool = False

    def tasks(self, words: Sequence[int]) -> int:
        at = self.layout
        return words[at.b] * (words[at.h] // words[at.group])

    @property
    def layout(self) -> AttentionKeyGradArgs[int]:
        return self._layout(AttentionKeyGradArgs, drops=self.dropout > 0)


def dropout_factor(dropout: float) -> float:
    """What dropout multiplies the weights with that it keeps."""
    return 1 / (1 - dropout) if dropout < 1 else 0.0


Weighted = Attention | AttentionGrad | AttentionQueryGrad | AttentionKeyGrad


_MASK: DropoutMaskArgs[int] = layout_of(DropoutMaskArgs)
_MASK_OF_PART: DropoutMaskArgs[int] = layout_of(DropoutMaskArgs, first=0)


@dataclass(frozen=True)
class DropoutMask(Kernel):
    """A dropout mask: byte i is 1 where Philox word i of a stream is at least p.

    threshold: ceil(p * 2^24); kept where (word >> 8) >= threshold. Element i is word i % 4 of
    counter i // 4. part: True if counters begin at another number than 0.
    """

    word: ClassVar[str] = "keep"
    threshold: int
    part: bool = False

    @property
    def layout(self) -> DropoutMaskArgs[int]:
        return _MASK_OF_PART if self.part else _MASK

    def tasks(self, words: Sequence[int]) -> int:
        return -(-words[self.layout.elements] // words[self.layout.per_task])


@dataclass(frozen=True)
class CheckIndex(Kernel):
    """Indices made safe: int64, in 0..size-1, and a report where one was not.

    wrap: negative ones count from the end. skip: indices equal to the argument `skipped` are let
    through as 0.
    """

    word: ClassVar[str] = "index"
    dtype: str
    wrap: bool
    skip: bool = False
    layout: ClassVar[CheckIndexArgs[int]] = layout_of(CheckIndexArgs)

    def tasks(self, words: Sequence[int]) -> int:
        return -(-words[self.layout.elements] // words[self.layout.per_task])


@dataclass(frozen=True)
class ScatterAdd(Kernel):
    """out[entries[i], :] += value[i, :] for i = 0, 1, ... in order; all are known to be inside.

    Task t has the columns from t * columns_per_task on.
    """

    word: ClassVar[str] = "scatteradd"
    dtype: str
    layout: ClassVar[ScatterAddArgs[int]] = layout_of(ScatterAddArgs)

    def tasks(self, words: Sequence[int]) -> int:
        return -(-words[self.layout.columns] // words[self.layout.columns_per_task])


@dataclass(frozen=True)
class Opaque(Kernel):
    """A call of an op's forward on arrays: Python between two native segments. name: of the op;
    its attributes stay with the call."""

    word: ClassVar[str] = "opaque"
    name: str

    def tasks(self, words: Sequence[int]) -> int:
        return 1


@dataclass(frozen=True)
class Loop(Kernel):
    """A plan that runs again and again, on operands that move from round to round. name: of the
    function that it is made of; the plan stays with the call. Targets know it as target.Loop."""

    word: ClassVar[str] = "loop"
    name: str

    def tasks(self, words: Sequence[int]) -> int:
        return 1


# For both readers of a program -------------------------------------------------------------------


def per_row(inputs: Sequence[Input], instrs: Sequence[Instr]) -> list[bool]:
    """For each instruction, True if it is row-invariant: one value for a whole row."""
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
