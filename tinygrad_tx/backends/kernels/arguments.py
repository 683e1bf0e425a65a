"""Arguments of a call of each kind of Kernel, by name.

In: whole numbers, and places: where an operand lies. Out: a value for Call.args; its words, which
are the values of its fields in their order, flat. A program runs on words (64-bit integers, places
become addresses), and whoever reads words takes them by name from the kernel's `layout`: an
example of its arguments that has the number of each word in the word's place. So the order of the
fields below is the order of the words, and nobody counts them.

Extents and strides count elements. A place is a Place while a kernel has not run; in words, an
address; in a layout, the number of a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar, get_origin, get_type_hints

A = TypeVar("A")
B = TypeVar("B")  # a buffer of the compiler's
P = TypeVar("P")  # a place


class Place(NamedTuple, Generic[B]):
    """An element of a buffer: offset elements behind its first one."""

    buffer: B
    offset: int

    def ahead(self, elements: int) -> Place[B]:
        return self._replace(offset=self.offset + elements)


# Operands ----------------------------------------------------------------------------------------


class RowOperand(NamedTuple, Generic[P]):
    """An input or output of a row program, an input of a reduction along rows. outer: strides along
    the outer axes; of a gathered input, the first is that of its rows and the others are not used.
    at: of an Output with `at`, the stride that the position is multiplied with."""

    place: P
    outer: tuple[int, ...]
    column: int
    at: int | None = None


class Chunks(NamedTuple, Generic[P]):
    """The output of a reduction along rows: a row for each chunk."""

    place: P
    chunk: int
    column: int


class Matrix(NamedTuple, Generic[P]):
    """A matrix for each of b0 x b1 (or batch and head), with the strides of all four axes."""

    place: P
    b0: int
    b1: int
    row: int
    column: int


class Packed(NamedTuple, Generic[P]):
    """The packed matrices of b0 x b1."""

    place: P
    b0: int
    b1: int


class Product(NamedTuple, Generic[P]):
    """A Matrix whose columns lie side by side."""

    place: P
    b0: int
    b1: int
    row: int


# Arguments ---------------------------------------------------------------------------------------


class RowProgramArgs(NamedTuple, Generic[P]):
    """Of RowProgram. outer: the extent of each outer axis."""

    outer: tuple[int, ...]
    columns: int
    rows_per_task: int
    inputs: tuple[RowOperand[P], ...]
    outputs: tuple[RowOperand[P], ...]


class ColumnReduceArgs(NamedTuple, Generic[P]):
    """Of ColumnReduce. outer: the extent of each outer axis."""

    outer: tuple[int, ...]
    columns: int
    rows_per_task: int
    columns_per_task: int
    inputs: tuple[RowOperand[P], ...]
    outputs: tuple[Chunks[P], ...]


class PackArgs(NamedTuple, Generic[P]):
    """Of Pack, whose b is (b0, b1, k, n)."""

    b0: int
    b1: int
    k: int
    n: int
    panels_per_task: int
    b: Matrix[P]
    packed: Packed[P]


class MatmulArgs(NamedTuple, Generic[P]):
    """Of Matmul: a is (b0, b1, m, k), c (b0, b1, m, n). columns_per_task: whole panels."""

    b0: int
    b1: int
    m: int
    n: int
    k: int
    rows_per_task: int
    columns_per_task: int
    a: Matrix[P]
    b: Packed[P]
    c: Product[P]


class GemmArgs(NamedTuple, Generic[P]):
    """Of Gemm: a is (b0, b1, m, k), b (b0, b1, k, n), c (b0, b1, m, n)."""

    b0: int
    b1: int
    m: int
    n: int
    k: int
    a: Matrix[P]
    b: Matrix[P]
    c: Product[P]


class GemmEpilogueArgs(NamedTuple, Generic[P]):
    """Of GemmEpilogue."""

    product: GemmArgs[P]
    program: RowProgramArgs[P]


class AttentionArgs(NamedTuple, Generic[P]):
    """Of Attention: b x h heads, t queries, s keys; each head of keys and values serves `group`
    heads of queries. The column stride of all but the mask is 1; any stride of the mask (b, h, t,
    s), of bounds (b, h, t, 2), may be 0. statistics: (b, h, t), side by side. key, stream: of
    dropout's words, an int64 each."""

    b: int
    h: int
    t: int
    s: int
    d_k: int
    d_v: int
    group: int
    q: Matrix[P]
    k: Matrix[P]
    v: Matrix[P]
    out: Matrix[P]
    mask: Matrix[P] | None = None
    statistics: P | None = None
    key: P | None = None
    stream: P | None = None


class AttentionGradArgs(NamedTuple, Generic[P]):
    """Of AttentionGrad: as of Attention. g: the gradient of out. dmask: that of an added mask,
    (b, h, t, s), where it is wanted."""

    b: int
    h: int
    t: int
    s: int
    d_k: int
    d_v: int
    group: int
    q: Matrix[P]
    k: Matrix[P]
    v: Matrix[P]
    g: Matrix[P]
    dq: Matrix[P]
    dk: Matrix[P]
    dv: Matrix[P]
    mask: Matrix[P] | None = None
    dmask: Matrix[P] | None = None


class AttentionQueryGradArgs(NamedTuple, Generic[P]):
    """Of AttentionQueryGrad: as of AttentionGrad, with what Attention wrote. delta: (b, h, t), side
    by side, as the statistics are."""

    b: int
    h: int
    t: int
    s: int
    d_k: int
    d_v: int
    group: int
    q: Matrix[P]
    k: Matrix[P]
    v: Matrix[P]
    out: Matrix[P]
    g: Matrix[P]
    dq: Matrix[P]
    statistics: P
    delta: P
    mask: Matrix[P] | None = None
    dmask: Matrix[P] | None = None
    key: P | None = None
    stream: P | None = None


class AttentionKeyGradArgs(NamedTuple, Generic[P]):
    """Of AttentionKeyGrad: delta is what AttentionQueryGrad wrote."""

    b: int
    h: int
    t: int
    s: int
    d_k: int
    d_v: int
    group: int
    q: Matrix[P]
    k: Matrix[P]
    v: Matrix[P]
    g: Matrix[P]
    dk: Matrix[P]
    dv: Matrix[P]
    statistics: P
    delta: P
    mask: Matrix[P] | None = None
    key: P | None = None
    stream: P | None = None


class DropoutMaskArgs(NamedTuple, Generic[P]):
    """Of DropoutMask. per_task: a multiple of 64. key, stream: an int64 each. first: the number of
    the counter of the first four elements."""

    elements: int
    per_task: int
    key: P
    stream: P
    mask: P
    first: int | None = None


class CheckIndexArgs(NamedTuple, Generic[P]):
    """Of CheckIndex. safe: the int64 result. report: two int64, which a task that finds an index
    outside sets to (1, that index), and leaves alone otherwise."""

    elements: int
    per_task: int
    size: int
    skipped: int
    given: P
    stride: int
    safe: P
    report: P


class ScatterAddArgs(NamedTuple, Generic[P]):
    """Of ScatterAdd. rows: of value, each with its entry, an int64. Columns lie side by side."""

    rows: int
    columns: int
    columns_per_task: int
    entries: P
    value: P
    value_row: int
    out: P
    out_row: int


Args = (
    RowProgramArgs[P]
    | ColumnReduceArgs[P]
    | PackArgs[P]
    | MatmulArgs[P]
    | GemmArgs[P]
    | GemmEpilogueArgs[P]
    | AttentionArgs[P]
    | AttentionGradArgs[P]
    | AttentionQueryGradArgs[P]
    | AttentionKeyGradArgs[P]
    | DropoutMaskArgs[P]
    | CheckIndexArgs[P]
    | ScatterAddArgs[P]
    | tuple[()]  # of Opaque
)

# Words -------------------------------------------------------------------------------------------


def words(args: Args[Place[B]]) -> list[int | Place[B]]:
    """The words of some arguments."""
    found: list[int | Place[B]] = []
    _collect(args, found)
    return found


def read(layout: A, words: Iterable[int]) -> A:
    """The arguments that have these words."""
    made: A = _filled(layout, iter(words))
    return made


def layout_of(kind: type[A], **parts: Any) -> A:
    """The layout of arguments. parts: examples of the fields whose words differ from kernel to
    kernel; of those that have a default, where there are words of theirs."""
    return read(example(kind, **parts), count())


@cache
def row_layout(outer: int, inputs: int, at: tuple[bool, ...]) -> RowProgramArgs[int]:
    """Of RowProgram. at: for each output, True if it has an `at`."""
    axes = (0,) * outer
    read = (example(RowOperand, outer=axes),) * inputs
    written = (example(RowOperand, outer=axes, at=0 if moves else None) for moves in at)
    return layout_of(RowProgramArgs, outer=axes, inputs=read, outputs=tuple(written))


@cache
def epilogue_layout(outer: int, inputs: int, at: tuple[bool, ...]) -> GemmEpilogueArgs[int]:
    """Of GemmEpilogue, whose program has the layout that row_layout() gives for these."""
    return layout_of(GemmEpilogueArgs, program=row_layout(outer, inputs, at))


@cache
def column_layout(outer: int, inputs: int, outputs: int) -> ColumnReduceArgs[int]:
    """Of ColumnReduce."""
    axes = (0,) * outer
    read, written = example(RowOperand, outer=axes), example(Chunks)
    return layout_of(
        ColumnReduceArgs, outer=axes, inputs=(read,) * inputs, outputs=(written,) * outputs
    )


def attention_layout(kind: type[A], *, mask: str, dmask: bool, statistics: bool, drops: bool) -> A:
    """Of the kinds of attention, with the operands that not every one of them has."""
    of: Any = kind
    made: A = _attention_layout(of, mask != "none", dmask, statistics, drops)
    return made


@cache
def _attention_layout(kind: Any, mask: bool, dmask: bool, statistics: bool, drops: bool) -> Any:
    matrices = {"mask": mask, "dmask": dmask}
    places = {"statistics": statistics, "key": drops, "stream": drops}
    parts: dict[str, Any] = {name: example(Matrix) for name, there in matrices.items() if there}
    return layout_of(kind, **parts, **{name: 0 for name, there in places.items() if there})


def example(kind: type[A], **parts: Any) -> A:
    """Arguments, or an operand, all of whose words are 0. parts: as of layout_of."""
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        of = get_origin(hint) or hint
        if name not in parts and name not in kind._field_defaults:  # type: ignore[attr-defined]
            fields[name] = example(of) if hasattr(of, "_fields") else 0
    return kind(**fields, **parts)


def word_count(kernel: Any) -> int:
    """The number of words of a call of a kernel."""
    return sum(1 for _ in _leaves(kernel.layout))


def _leaves(layout: Any) -> Iterator[int]:
    for item in layout if isinstance(layout, tuple) else (layout,):
        if isinstance(item, tuple):
            yield from _leaves(item)
        elif item is not None:
            yield item


def _collect(args: Any, found: list[Any]) -> None:
    for item in args:
        if isinstance(item, tuple) and not isinstance(item, Place):
            _collect(item, found)
        elif item is not None:
            found.append(item)


def _filled(like: Any, rest: Iterator[int]) -> Any:
    if not isinstance(like, tuple):
        return None if like is None else next(rest)
    return getattr(like, "_make", tuple)([_filled(item, rest) for item in like])
