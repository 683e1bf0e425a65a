"""The register tile: the micro-kernel below matrix products and attention, and what feeds it.

In: a module and a target. Out: internal functions in that module, each added once, which gemm.py
and attention/ call:

- `micro`: a block of C (a few rows times NR columns) = [C +] A B, with A read by broadcasts and B
  by whole vectors. Each element is one chain of fused multiply-adds upward in k that starts from 0;
  the finished sum is then written, or added to what C holds. Which variant computes it, and how
  wide or high the block is, changes no bit.
- `product`: all tiles of a product whose A is not packed.
- `panel`: copies a strided matrix into the layout [k][width] that `micro` reads, zeros behind.
- `converted`: copies rows in another dtype. `micro` computes in one; what is stored in 16 bits
  changes its dtype on the way through scratch memory, here and in `panel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ....dtypes import ALL
from ...llvm import fma, ir
from ...llvm.ir import Builder, Function, Module, Value, integer, vector
from ...llvm.scalars import cast
from ..processor import Processor
from ..rows.operands import load_vector, store_vector, tail


def heights(target: Processor, dtype: str) -> list[int]:
    """Rows of the variants of the micro-kernel: powers of two below MR, and MR itself."""
    most = target.tile(dtype)[0]
    return [*(1 << i for i in range(most.bit_length()) if 1 << i < most), most]


def multiply_add(b: Builder, target: Processor, x: Value, y: Value, z: Value) -> Value:
    """x * y + z with one rounding, on every processor."""
    if target.name != "plain" or not target.triple.startswith("x86_64"):
        return b.fma(x, y, z)
    return fma.single(b, x, y, z) if x.element == "float" else fma.double(b, x, y, z)


def prefix_mask(b: Builder, count: Value, lanes: int, start: int = 0) -> Value:
    """A mask of lanes: True in lane i if start + i < count."""
    left = b.convert("trunc", b.sub(count, integer(start)), "i32")
    return b.compare("slt", b.iota(lanes, "i32"), b.splat(left, lanes))


def zero(type: str) -> Value:
    return Value(type, "zeroinitializer" if type.startswith("<") else "0.0")


# The micro-kernel --------------------------------------------------------------------------------

MICRO = [
    ("i64", "K"),
    ("ptr", "A"),
    ("i64", "a_stride"),
    ("ptr", "B"),
    ("i64", "b_stride"),
    ("i64", "b_panel_stride"),
    ("ptr", "C"),
    ("i64", "c_stride"),
    ("i64", "m"),
    ("i64", "n"),
    ("i1", "add"),
]


def micro(
    module: Module, target: Processor, dtype: str, rows: int, *, along_k: bool, panels: int = 1
) -> Function:
    """A function that computes m <= rows times n <= panels * NR elements of C.

    Its parameters are MICRO. along_k: A is contiguous along k and a_stride leads from row to row;
    otherwise A is contiguous along its rows' index and a_stride leads from k to k. At least `rows`
    rows of A are read. B has NR columns readable at each k, b_stride apart; b_panel_stride leads
    from a panel to the next (unused for one panel).
    """
    name = f"tile_{dtype}_{rows}x{panels}_{'row' if along_k else 'column'}"
    if found := module.find(name):
        return found
    b = module.function(name, MICRO, internal=True, attributes="noinline nounwind")
    K, A, a_stride, B, b_stride, b_panel_stride, C, c_stride, m, n, add = b.params  # noqa: N806
    lanes, element = target.lanes(dtype), ALL[dtype].memory
    type, nr = vector(lanes, element), target.tile(dtype)[1]
    per_panel = nr // lanes
    width = panels * per_panel

    bases = row_bases(b, A, a_stride, rows, element) if along_k else [A]
    starts = [b.at(B, b.mul(b_panel_stride, integer(p)), element) for p in range(panels)]
    carried = [zero(type)] * (rows * width) + bases + starts
    with b.loop(integer(0), K, integer(1), carried) as loop:
        sums = loop.carried[: rows * width]
        a_rows = loop.carried[rows * width : len(carried) - panels]
        b_rows = loop.carried[len(carried) - panels :]  # of each panel
        vectors = [
            b.load(type, b.at(b_row, integer(j * lanes), element))
            for b_row in b_rows
            for j in range(per_panel)
        ]
        following = []
        for i, x in enumerate(_broadcasts(b, target, dtype, rows, a_rows, a_stride, along_k)):
            for j, y in enumerate(vectors):
                following.append(multiply_add(b, target, x, y, sums[i * width + j]))
        step = integer(1) if along_k else a_stride
        loop.next = [
            *following,
            *(b.at(a_row, step, element) for a_row in a_rows),
            *(b.at(b_row, b_stride, element) for b_row in b_rows),
        ]
    _store(b, loop.carried[: rows * width], width, C, c_stride, m, n, add)
    return b.function


REACH = 5  # rows that x86 can address from one pointer: 0, s, 2 s, 3 s (an own register), 4 s


def row_bases(b: Builder, start: Value, stride: Value, rows: int, element: str) -> list[Value]:
    """Pointers to every fifth row: the others are reached from them without one of their own."""
    return [b.at(start, b.mul(stride, integer(i)), element) for i in range(0, rows, REACH)]


def _broadcasts(
    b: Builder,
    target: Processor,
    dtype: str,
    rows: int,
    a_rows: Sequence[Value],
    stride: Value,
    along_k: bool,
) -> Iterator[Value]:
    """One vector for each row: its element of A at this k in all lanes. Made when it is asked for,
    close to its use, and kept there: brought forward, the loads would push sums out of their
    registers."""
    lanes, element = target.lanes(dtype), ALL[dtype].memory
    reach = [b.mul(stride, integer(i)) for i in range(REACH)] if along_k else []
    by_lane = target.name == "neon" and not along_k and rows % lanes == 0
    several = zero(element)
    for i in range(rows):
        if i and not by_lane:
            b.do('call void asm sideeffect "", "~{memory}"()')  # the loads below stay below
        if by_lane:  # a multiply-add takes one lane of a register there: no broadcasts
            if i % lanes == 0:
                several = b.load(vector(lanes, element), b.at(a_rows[0], integer(i), element))
            yield b.splat(b.lane(several, i % lanes), lanes)
        elif along_k:
            at = b.at(a_rows[i // REACH], reach[i % REACH], element)
            yield b.splat(b.load(element, at), lanes)
        else:
            yield b.splat(b.load(element, b.at(a_rows[0], integer(i), element)), lanes)


def _store(
    b: Builder,
    sums: Sequence[Value],
    width: int,
    C: Value,  # noqa: N803
    stride: Value,
    m: Value,
    n: Value,
    add: Value,
) -> None:
    """Write or add the tile to C: whole, or by way of the stack where it overhangs an edge."""
    type, lanes, element = sums[0].type, sums[0].lanes, sums[0].element
    rows = len(sums) // width
    whole = b.binary(
        "and",
        b.compare("sge", m, integer(rows)),
        b.compare("sge", n, integer(width * lanes)),
    )
    edge = b.binary("xor", whole, ir.boolean(True))
    fresh = b.binary("xor", add, ir.boolean(True))
    for wanted, adds in ((fresh, False), (add, True)):
        with b.when(b.binary("and", whole, wanted)):
            row = C
            for i in range(rows):
                for j in range(width):
                    at = b.at(row, integer(j * lanes), element)
                    value = sums[i * width + j]
                    b.store(b.add(b.load(type, at), value) if adds else value, at)
                row = b.at(row, stride, element)
    with b.when(edge):
        kept = b.alloca(f"[{len(sums) * lanes} x {element}]")
        for i, value in enumerate(sums):
            b.store(value, b.at(kept, integer(i * lanes), element))
        masks = [prefix_mask(b, n, lanes, j * lanes) for j in range(width)]
        with b.loop(integer(0), m, integer(1)) as loop:
            row = b.at(C, b.mul(loop.i, stride), element)
            mine = b.at(kept, b.mul(loop.i, integer(width * lanes)), element)
            for j in range(width):
                at = b.at(row, integer(j * lanes), element)
                value = b.load(type, b.at(mine, integer(j * lanes), element))
                old = b.masked_load(type, at, masks[j], zero(type))
                b.masked_store(b.select(add, b.add(old, value), value), at, masks[j])
    b.end()


# All tiles ---------------------------------------------------------------------------------------


def product(module: Module, target: Processor, dtype: str, *, along_k: bool) -> Function:
    """A function: C (M, N) = [C +] A B, over all tiles. A is not packed: it is read as micro reads
    it, exactly M rows. Panels of B are b_panel_stride apart, their rows b_stride; a last panel of
    fewer than NR columns is read at `edge`, its rows NR apart."""
    name = f"product_{dtype}_{'row' if along_k else 'column'}"
    if found := module.find(name):
        return found
    variants = heights(target, dtype)
    micros = {r: micro(module, target, dtype, r, along_k=along_k) for r in variants}
    params = [
        *(("i64", n) for n in ("M", "N", "K")),
        ("ptr", "A"),
        ("i64", "a_stride"),
        ("ptr", "B"),
        ("i64", "b_stride"),
        ("i64", "b_panel_stride"),
        ("ptr", "edge"),
        ("ptr", "C"),
        ("i64", "c_stride"),
        ("i1", "add"),
    ]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    M, N, K, A, a_stride, B, b_stride, b_panel_stride, edge, C, c_stride, add = b.params  # noqa: N806
    element, nr, zero = ALL[dtype].memory, integer(target.tile(dtype)[1]), integer(0)
    panels = b.binary("sdiv", N, nr)
    whole = b.mul(panels, nr)
    over = b.sub(N, whole)

    def all_rows(b_panel: Value, stride: Value, column: Value, n: Value) -> None:
        """All rows, for a panel that stays in the first cache meanwhile."""
        start = zero
        for r in reversed(variants):  # exactly M rows: none is read beyond the last
            rows = integer(r)
            stop = b.add(start, b.mul(b.binary("sdiv", b.sub(M, start), rows), rows))
            with b.loop(start, stop, rows) as i:
                a = b.at(A, b.mul(i.i, a_stride) if along_k else i.i, element)
                c = b.at(C, b.index(column, (i.i, c_stride)), element)
                micros[r](
                    b, K=K, A=a, a_stride=a_stride, B=b_panel, b_stride=stride, b_panel_stride=zero,
                    C=c, c_stride=c_stride, m=rows, n=n, add=add,
                )  # fmt: skip
            start = stop

    with b.loop(zero, panels, integer(1)) as p:
        all_rows(b.at(B, b.mul(p.i, b_panel_stride), element), b_stride, b.mul(p.i, nr), nr)
    with b.when(b.compare("sgt", over, zero)):
        all_rows(edge, nr, whole, over)
    b.end()
    return b.function


# Packing -----------------------------------------------------------------------------------------

PANEL = [
    ("ptr noalias", "to"),
    ("ptr noalias", "source"),
    ("i64", "stride"),
    ("i64", "k_stride"),
    ("i64", "w"),
    ("i64", "fill"),
    ("i64", "K"),
]


_FEW = 4  # rows at most for which element-by-element copying beats transposing


def panel(
    module: Module, target: Processor, dtype: str, width: int, stored: str = "", rounded: str = ""
) -> Function:
    """A function: to[k * width + x] = source[x * stride + k * k_stride] for x < w and
    k < K, zero for w <= x < fill.

    stored: the dtype of the source, `dtype` by default. rounded: one that numbers are rounded to
    on the way. Its parameters are PANEL. Whole vectors are written where that is quick: up to one
    vector's elements behind to[K * width] are then overwritten with anything, so panels are packed
    in order and the last has that room behind it (none is needed where lanes divide the width).
    """
    stored = stored or dtype
    name = "_".join(("panel", dtype, str(width), *(stored,) * (stored != dtype), rounded))
    name = name.rstrip("_")
    if found := module.find(name):
        return found
    b = module.function(name, PANEL, internal=True, attributes="noinline nounwind")
    to, source, stride, k_stride, w, fill, K = b.params  # noqa: N806
    lanes, element, held = target.lanes(dtype), ALL[dtype].memory, ALL[stored].memory
    one = integer(1)

    def read(x: Value) -> Value:
        """A number, or a vector of them, as it comes from the source."""
        if rounded:
            x = cast(b, cast(b, x, rounded, stored), dtype, rounded)
        return cast(b, x, dtype, stored)

    # Loads under a mask are as quick as others, where there are some.
    masks = target.name == "avx512" or (target.name == "avx2" and ir.width(held) >= 4)
    rows = b.compare("eq", stride, one)
    if not masks:
        rows = b.binary("and", rows, b.compare("eq", w, integer(width)))
    turned = b.binary("and", b.compare("eq", k_stride, one), b.compare("sgt", w, integer(_FEW)))
    turned = b.binary("and", turned, b.binary("xor", rows, ir.boolean(True)))
    blocks = b.mul(b.binary("sdiv", K, integer(lanes)), integer(lanes))
    with b.when(rows):
        count = w if masks else integer(width)
        _copy_rows(b, to, source, k_stride, width, count, K, lanes, element, held, read)
    with b.when(turned):
        _turn_blocks(b, to, source, stride, w, width, blocks, lanes, element, held, read)
    # The remainder, element by element.
    done = b.select(rows, K, b.select(turned, blocks, integer(0)))
    with b.loop(done, K, one) as k:
        here = b.at(to, b.mul(k.i, integer(width)), element)
        src = b.at(source, b.mul(k.i, k_stride), held)
        with b.loop(integer(0), w, one) as x:
            value = b.load(held, b.at(src, b.mul(x.i, stride), held))
            b.store(read(value), b.at(here, x.i, element))
    with b.loop(integer(0), b.select(rows, integer(0), K), one) as k:
        here = b.at(to, b.mul(k.i, integer(width)), element)
        with b.loop(w, fill, one) as x:
            b.store(zero(element), b.at(here, x.i, element))
    b.end()
    return b.function


def _copy_rows(
    b: Builder,
    to: Value,
    source: Value,
    k_stride: Value,
    width: int,
    w: Value,
    K: Value,  # noqa: N803
    lanes: int,
    element: str,
    held: str,
    read: Callable[[Value], Value],
) -> None:
    """A source that is contiguous along its width: vector by vector, with overlapping stores, zeros
    from w on."""
    type = vector(lanes, held)
    with b.loop(integer(0), K, integer(1), [to, source]) as loop:
        here, src = loop.carried
        for start in range(0, width, lanes):
            mask = prefix_mask(b, w, lanes, start)
            value = b.masked_load(type, b.at(src, integer(start), held), mask, zero(type))
            b.store(read(value), b.at(here, integer(start), element))
        loop.next = [b.at(here, integer(width), element), b.at(src, k_stride, held)]


def _turn_blocks(
    b: Builder,
    to: Value,
    source: Value,
    stride: Value,
    w: Value,
    width: int,
    stop: Value,
    lanes: int,
    element: str,
    held: str,
    read: Callable[[Value], Value],
) -> None:
    """A source that is contiguous along k: transposed in registers, lanes x lanes at a time. Rows
    from w on repeat the last one."""
    last = b.sub(w, integer(1))
    # Groups from the right: what a store writes beyond its group, the next one's overwrites.
    for start in reversed(range(0, width, lanes)):
        places = [b.smin(integer(start + r), last) for r in range(lanes)]
        rows = [b.at(source, b.mul(p, stride), held) for p in places]
        with b.loop(integer(0), stop, integer(lanes)) as loop:
            here = b.at(to, b.mul(loop.i, integer(width)), element)
            block = [b.at(row, loop.i, held) for row in rows]
            for k, column in enumerate(_columns(b, block, lanes, element, held, read)):
                b.store(column, b.at(here, integer(k * width + start), element))


def _columns(
    b: Builder,
    rows: Sequence[Value],
    lanes: int,
    element: str,
    held: str,
    read: Callable[[Value], Value],
) -> Iterator[Value]:
    """The columns of a square block, whose rows the pointers lead to.

    Loads of 16 bytes bring every group-th row's elements together in one vector; what is left is to
    transpose within groups of 16 bytes, where shuffles are cheap.
    """
    group = 16 // ir.width(element)
    for k in range(0, lanes, group):
        mixed = []
        for j in range(group):
            parts = [b.at(rows[r], integer(k), held) for r in range(j, lanes, group)]
            mixed.append(read(_join(b, [b.load(vector(group, held), at) for at in parts])))
        yield from _transpose_groups(b, mixed, group)


def _join(b: Builder, parts: list[Value]) -> Value:
    """Vectors end to end in one."""
    while len(parts) > 1:
        both = range(2 * parts[0].lanes)
        parts = [b.shuffle(x, y, both) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _transpose_groups(b: Builder, rows: Sequence[Value], group: int) -> list[Value]:
    """Transpose each 16-byte group of some rows on its own."""
    lanes = rows[0].lanes

    def pick(x: Value, y: Value, of: Sequence[tuple[int, int]]) -> Value:
        """In each group the elements (0: of x, 1: of y; place)."""
        starts = range(0, lanes, group)
        return b.shuffle(x, y, [s + place + lanes * side for s in starts for side, place in of])

    if group == 2:
        return [pick(rows[0], rows[1], [(0, i), (1, i)]) for i in range(2)]
    low = [(0, 0), (1, 0), (0, 1), (1, 1)]
    high = [(0, 2), (1, 2), (0, 3), (1, 3)]
    first = [pick(rows[i], rows[i + 1], half) for i in (0, 2) for half in (low, high)]
    front, back = [(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 2), (0, 3), (1, 2), (1, 3)]
    return [pick(first[i], first[i + 2], half) for i in (0, 1) for half in (front, back)]


# Rows in another dtype ---------------------------------------------------------------------------


def converted(module: Module, target: Processor, source: str, goal: str) -> Function:
    """A function: copies M rows of N numbers, contiguous ones `stride` apart, to others `to_stride`
    apart, from one floating dtype to another."""
    name = f"converted_{source}_{goal}"
    if found := module.find(name):
        return found
    numbers = [("i64", n) for n in ("M", "N", "to_stride", "stride")]
    params = [("ptr noalias", "to"), ("ptr noalias", "source"), *numbers]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    to, start, M, N, to_stride, stride = b.params  # noqa: N806
    wide = source if ALL[source].itemsize > ALL[goal].itemsize else goal
    lanes = target.lanes(wide)
    whole = b.sub(N, b.binary("srem", N, integer(lanes)))
    with b.loop(integer(0), M, integer(1)) as row:
        src = b.at(start, b.mul(row.i, stride), ALL[source].memory)
        here = b.at(to, b.mul(row.i, to_stride), ALL[goal].memory)

        def copy(first: Value, last: bool) -> None:
            end = tail(b, N, first, lanes) if last else None
            at = b.at(src, first, ALL[source].memory)
            x = load_vector(b, target, ALL[source].memory, lanes, at, end)
            x = cast(b, x, goal, source)
            store_vector(b, target, x, b.at(here, first, ALL[goal].memory), end)

        with b.loop(integer(0), whole, integer(lanes)) as column:
            copy(column.i, False)
        with b.when(b.compare("slt", whole, N)):
            copy(whole, True)
    b.end()
    return b.function
