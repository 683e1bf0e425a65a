"""Matrix products: packing b, and a times the packed b.

In: `Pack` and `Matmul` Kernels. Out: functions in an ir.Module; bytes of scratch; `choose`, the
tasks that a product is cut into. Called by writers.py and, through the target, by the compiler.

The names are those of BLIS. Blocks, from the outside in: MC rows that fit the second cache, KC
along k, NC columns, tiles of MR rows (registers) times panels of b, NR columns wide (first cache).
A row block of a is packed once for each block of KC, as tiles. It is not packed but read in place
if it is a single row, or if its rows are contiguous along k and the task has too few columns for
packing to pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

from ....dtypes import ALL
from ...kernels.kinds import Matmul, Pack
from ...kernels.summation import KC
from ...llvm import ir
from ...llvm.ir import Builder, Function, Value, integer
from ...llvm.operands import Words, address
from ..processor import Processor
from . import tile

PARAMS = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
_AT_ONCE = 4  # panels that the micro-kernel of a single row computes at once
_BESIDE = 16  # k packed at a time from a source whose elements of one k are contiguous
_FEW = 8  # panels at most for which rows of a are not packed


def pack(kernel: Pack, module: ir.Module, name: str, target: Processor) -> None:
    """Add the function `name` that runs a task of a Pack."""
    panel = tile.panel(module, target, kernel.dtype, kernel.width, kernel.source, kernel.rounded)
    element, held = ALL[kernel.dtype].memory, ALL[kernel.source].memory
    nr = integer(kernel.width)
    b = module.function(name, PARAMS)
    args, task, _ = b.params
    words, at = Words(b, args), kernel.layout
    b1, K, n, each = words.numbers(at.b1, at.k, at.n, at.panels_per_task)  # noqa: N806
    source, s0, s1, sk, sn = words.numbers(*at.b)
    packed, p0, p1 = words.numbers(*at.packed)
    source, packed = address(b, source), address(b, packed)

    panels = ir.ceil_div(b, n, nr)
    cuts = ir.ceil_div(b, panels, each)
    batch, first = b.binary("sdiv", task, cuts), b.mul(b.binary("srem", task, cuts), each)
    stop = b.smin(panels, b.add(first, each))
    i0, i1 = b.binary("sdiv", batch, b1), b.binary("srem", batch, b1)
    source = b.at(source, b.index(integer(0), (i0, s0), (i1, s1)), held)
    packed = b.at(packed, b.index(integer(0), (i0, p0), (i1, p1)), element)
    with b.loop(integer(0), K, integer(KC)) as block:
        kc = b.smin(b.sub(K, block.i), integer(KC))
        base = b.mul(b.mul(block.i, panels), nr)
        few = _few(b, sn, kc)
        with b.loop(integer(0), kc, few) as k, b.loop(first, stop, integer(1)) as p:
            column = b.mul(p.i, nr)
            to = b.at(packed, b.index(base, (column, kc), (k.i, nr)), element)
            row = b.add(block.i, k.i)
            src = b.at(source, b.index(integer(0), (row, sk), (column, sn)), held)
            w, count = b.smin(b.sub(n, column), nr), b.smin(b.sub(kc, k.i), few)
            panel(b, to=to, source=src, stride=sn, k_stride=sk, w=w, fill=nr, K=count)
    b.end()


def matmul(kernel: Matmul, module: ir.Module, name: str, target: Processor) -> None:
    """Add the function `name` that runs a task of a Matmul."""
    dtype, element = kernel.dtype, ALL[kernel.dtype].memory
    mr, nr = (integer(n) for n in target.tile(dtype))
    panel = tile.panel(module, target, dtype, target.tile(dtype)[0], kernel.left)
    micros = _micros(module, target, dtype)
    b = module.function(name, PARAMS)
    args, task, scratch = b.params
    words, layout = Words(b, args), kernel.layout
    b1, M, N, K = words.numbers(layout.b1, layout.m, layout.n, layout.k)  # noqa: N806
    rows, columns = words.numbers(layout.rows_per_task, layout.columns_per_task)
    A, a0, a1, am, ak = words.numbers(*layout.a)  # noqa: N806
    B, p0, p1 = words.numbers(*layout.b)  # noqa: N806
    C, c0, c1, cm = words.numbers(*layout.c)  # noqa: N806
    zero, one = integer(0), integer(1)

    across, down = ir.ceil_div(b, N, columns), ir.ceil_div(b, M, rows)
    column = b.mul(b.binary("srem", task, across), columns)
    rest = b.binary("sdiv", task, across)
    row, row_stop = ir.share(b, M, down, b.binary("srem", rest, down))
    batch = b.binary("sdiv", rest, down)
    i0, i1 = b.binary("sdiv", batch, b1), b.binary("srem", batch, b1)
    held, made = ALL[kernel.left].memory, ALL[kernel.out].memory
    a = b.at(address(b, A), b.index(zero, (i0, a0), (i1, a1)), held)
    packed = b.at(address(b, B), b.index(zero, (i0, p0), (i1, p1)), element)
    c = b.at(address(b, C), b.index(zero, (i0, c0), (i1, c1)), made)
    column_stop = b.smin(N, b.add(column, columns))
    padded = b.mul(ir.ceil_div(b, N, nr), nr)

    rounds = b.intrinsic("smax", "i64", K, one)  # where there is no k, c is still written
    blocks = ir.ceil_div(b, b.sub(row_stop, row), integer(row_block(target, dtype)))
    mc = ir.ceil_div(b, b.sub(row_stop, row), b.intrinsic("smax", "i64", blocks, one))
    mc = b.mul(ir.ceil_div(b, mc, mr), mr)  # blocks of about as many tiles each
    nc = integer(column_block(target, dtype))

    def block(i: Value, m: Value, column: Value, column_stop: Value, c: Value, cm: Value) -> None:
        """The sums of m rows from i on, for some columns, to c, whose rows are cm apart."""
        with b.loop(zero, rounds, integer(KC)) as k_block:
            kc = b.smin(b.sub(K, k_block.i), integer(KC))
            src = b.at(a, b.index(zero, (i, am), (k_block.i, ak)), held)
            tile_stride = b.add(b.mul(kc, mr), integer(target.lanes(dtype)))  # room behind each
            add = ir.boolean(True) if kernel.accumulate else b.compare("sgt", k_block.i, zero)
            b_rows = b.at(packed, b.mul(k_block.i, padded), element)
            a_src, a_stride, start = scratch, mr, column
            unpacked = ir.boolean(False)
            if kernel.left == dtype:
                single = b.compare("eq", m, one)
                few = b.compare("sle", b.sub(column_stop, column), b.mul(nr, integer(_FEW)))
                in_place = b.binary("and", few, b.compare("eq", ak, one))
                in_place = b.binary("and", in_place, b.compare("ne", m, one))
                with b.when(in_place):
                    b_panel, n = (
                        b.at(b_rows, b.mul(column, kc), element),
                        b.sub(column_stop, column),
                    )
                    edge = b.at(b_panel, b.mul(b.sub(n, b.binary("srem", n, nr)), kc), element)
                    tile.product(module, target, dtype, along_k=True)(
                        b, M=m, N=n, K=kc, A=src, a_stride=am, B=b_panel, b_stride=nr,
                        b_panel_stride=b.mul(kc, nr), edge=edge, C=c, c_stride=cm, add=add,
                    )  # fmt: skip
                unpacked = b.binary("or", in_place, single)
                a_src, a_stride = b.select(single, src, scratch), b.select(single, ak, mr)
                start = b.select(in_place, column_stop, column)
            with b.when(b.binary("xor", unpacked, ir.boolean(True))):
                heights = tile.heights(target, dtype)
                _pack_rows(
                    b, panel, heights, scratch, src, am, ak, m, kc, tile_stride, element, held
                )
            with b.loop(start, column_stop, nc) as j, b.loop(zero, m, mr) as i_tile:
                rows_left = b.smin(b.sub(m, i_tile.i), mr)
                a_tile = b.at(a_src, b.mul(b.binary("sdiv", i_tile.i, mr), tile_stride), element)
                c_row = b.at(c, b.mul(i_tile.i, cm), element)

                def call(micro: Function, at: Value) -> None:
                    b_panel = b.at(b_rows, b.mul(at, kc), element)
                    micro(
                        b, K=kc, A=a_tile, a_stride=a_stride, B=b_panel, b_stride=nr,
                        b_panel_stride=b.mul(kc, nr), C=b.at(c_row, b.sub(at, column), element),
                        c_stride=cm, m=rows_left, n=b.sub(N, at), add=add,
                    )  # fmt: skip

                stop = b.smin(column_stop, b.add(j.i, nc))
                _across_panels(b, micros, rows_left, j.i, stop, target.tile(dtype)[1], call)

    if kernel.out == dtype:
        with b.loop(row, row_stop, mc) as i:
            m = b.smin(b.sub(row_stop, i.i), mc)
            block(i.i, m, column, column_stop, b.at(c, b.index(column, (i.i, cm)), element), cm)
    else:  # sums lie in scratch until they are finished
        to, sums, stride = (
            tile.converted(module, target, dtype, kernel.out),
            scratch,
            b.smin(columns, nc),
        )
        scratch = b.at(sums, b.mul(mc, stride), element)
        with b.loop(column, column_stop, nc) as j, b.loop(row, row_stop, mc) as i:
            m, stop = b.smin(b.sub(row_stop, i.i), mc), b.smin(column_stop, b.add(j.i, nc))
            block(i.i, m, j.i, stop, sums, stride)
            at = b.at(c, b.index(j.i, (i.i, cm)), made)
            to(b, to=at, source=sums, M=m, N=b.sub(stop, j.i), to_stride=cm, stride=stride)
    b.end()


def _micros(module: ir.Module, target: Processor, dtype: str) -> dict[tuple[int, int], Function]:
    """The micro-kernels by their rows and panels. One or two rows alone are too few to hide the
    latency of their chains of additions: for these there are micro-kernels of several panels."""
    shapes = [(1, _AT_ONCE), (2, 2), *((rows, 1) for rows in tile.heights(target, dtype))]
    return {
        (rows, panels): tile.micro(module, target, dtype, rows, along_k=False, panels=panels)
        for rows, panels in shapes
    }


def _across_panels(
    b: Builder,
    micros: dict[tuple[int, int], Function],
    rows: Value,
    start: Value,
    stop: Value,
    nr: int,
    call: Callable[[Function, Value], None],
) -> None:
    """Call the lowest micro-kernel with enough rows for this tile, at each panel of the columns
    from start to stop; one of several panels where its rows are exactly the tile's."""
    for (height, panels), micro in micros.items():
        if panels > 1:
            step = integer(panels * nr)
            whole = b.mul(b.binary("sdiv", b.sub(stop, start), step), step)
            fits = b.compare("eq", rows, integer(height))
            ahead = b.add(start, b.select(fits, whole, integer(0)))
            with b.loop(start, ahead, step) as j:
                call(micro, j.i)
            start = ahead
    with b.loop(start, stop, integer(nr)) as j:
        lower = 0
        for (height, panels), micro in micros.items():
            if panels == 1:
                fits = b.compare("sle", rows, integer(height))
                with b.when(b.binary("and", fits, b.compare("sgt", rows, integer(lower)))):
                    call(micro, j.i)
                lower = height


def _pack_rows(
    b: Builder,
    panel: Function,
    heights: Sequence[int],
    to: Value,
    source: Value,
    stride: Value,
    k_stride: Value,
    m: Value,
    kc: Value,
    tile_stride: Value,
    element: str,
    held: str,
) -> None:
    """Pack the rows of one block of a, tile by tile."""
    mr = heights[-1]
    few = _few(b, stride, kc)
    with b.loop(integer(0), kc, few) as k, b.loop(integer(0), m, integer(mr)) as i:
        tile_start = b.mul(b.binary("sdiv", i.i, integer(mr)), tile_stride)
        here = b.at(to, b.index(tile_start, (k.i, integer(mr))), element)
        src = b.at(source, b.index(integer(0), (i.i, stride), (k.i, k_stride)), held)
        w = fill = b.smin(b.sub(m, i.i), integer(mr))
        for lower, rows in pairwise(heights):  # the rows that the micro-kernel will read
            fill = b.select(b.compare("sgt", w, integer(lower)), integer(rows), fill)
        count = b.smin(b.sub(kc, k.i), few)
        panel(b, to=here, source=src, stride=stride, k_stride=k_stride, w=w, fill=fill, K=count)


def _few(b: Builder, stride: Value, kc: Value) -> Value:
    """The number of k that panels take at a time: few where the elements of one k are contiguous,
    so that a panel finds in the cache the lines that its neighbours have brought."""
    return b.select(b.compare("eq", stride, integer(1)), b.smin(kc, integer(_BESIDE)), kc)


def matmul_scratch(kernel: Matmul, args: Sequence[int], target: Processor) -> int:
    """Bytes of scratch that a thread needs for a call of a Matmul: one packed block of a, and where
    c has another dtype than the sums, a block of these."""
    at = kernel.layout
    m, k, rows, columns = args[at.m], args[at.k], args[at.rows_per_task], args[at.columns_per_task]
    mc = min(m, rows, row_block(target, kernel.dtype))
    mr = target.tile(kernel.dtype)[0]
    elements = -(-mc // mr) * (mr * min(k, KC) + target.lanes(kernel.dtype))
    if kernel.out != kernel.dtype:
        elements += -(-mc // mr) * mr * min(columns, column_block(target, kernel.dtype))
    return elements * ir.width(ALL[kernel.dtype].memory)


def row_block(target: Processor, dtype: str) -> int:
    """MC, the most rows of a that are packed at a time: with KC columns they take a quarter MiB."""
    mr = target.tile(dtype)[0]
    return -(-(256 if dtype == "float32" else 128) // mr) * mr


def column_block(target: Processor, dtype: str) -> int:
    """NC, columns whose panels of KC rows stay in the second cache while all tiles use them."""
    nr = target.tile(dtype)[1]
    return (512 if dtype == "float32" else 256) // nr * nr


# Cutting into tasks ------------------------------------------------------------------------------

_START = 1_000  # cycles to start a task
_LEAST = 8_000  # cycles of work that a task has at least
_STREAM = 8  # bytes/cycle of b per core, where b is read once (memory-bound)
_OVERLAP = 20  # bytes of b per cycle of stall, where its loads overlap with computing
_CHAIN = 4  # cycles of latency of a multiply-add


@cache
def choose(
    m: int, n: int, k: int, batch: int, dtype: str, target: Processor, full_rows: bool = False
) -> tuple[int, int, int]:
    """Rows and columns per task of a product's Matmul, and panels per task of its Pack.

    By shape alone: the cut with the least estimated time on 1, 2, 4 and 8 threads, each relative to
    an even share. full_rows: a task has all columns of its rows. For the compiler's planner.
    """
    mr, nr = target.tile(dtype)
    panels = max(1, -(-n // nr))
    vectors, line = nr // target.lanes(dtype), nr * (8 if dtype == "float64" else 4)
    heights = tile.heights(target, dtype)

    def work(rows: int, across: int) -> float:
        """Cycles of a task of so many rows and panels, the greater of two estimates. Computing: two
        vector multiply-adds per cycle, half a cycle to pack an element of a, the stalls of reading
        b; and reading b alone."""
        whole, rest = divmod(rows, mr)
        panel = whole * max(_CHAIN, vectors * mr / 2) + line / _OVERLAP
        if rest:
            panel += max(_CHAIN, vectors * next(h for h in heights if h >= rest) / 2)
        return max(k * (across * panel + rows / 2), k * across * line / _STREAM)

    def cost(rows: int, across: int) -> float:
        task = _START + work(rows, across)
        tasks = batch * -(-m // rows) * -(-panels // across)
        return sum(threads * -(-tasks // threads) * task for threads in (1, 2, 4, 8))

    downs = {-(-m // cuts) for cuts in range(1, min(-(-m // mr), 64) + 1)} or {1}
    acrosses = {-(-panels // cuts) for cuts in range(1, 1 if full_rows else min(panels, 16) + 1)}
    if m == 1:  # the micro-kernel of a single row
        acrosses = {-(-across // _AT_ONCE) * _AT_ONCE for across in acrosses}
    cuts = [(d, a) for d in downs for a in acrosses | {panels} if work(d, a) > _LEAST]
    rows, across = min(sorted(cuts, reverse=True), default=(m, panels), key=lambda c: cost(*c))
    each = max(-(-panels // 8), int(2 * _LEAST / (max(k, 1) * nr)))
    return max(1, rows), across * nr, min(panels, each)
