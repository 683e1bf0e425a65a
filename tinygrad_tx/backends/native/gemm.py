"""Matrix products: packing b, and a times the packed b.

In: `Pack` and `Matmul` Kernels, whose docstrings in kernel.py say how a call's arguments lie. Out:
functions in an ir.Module; bytes of scratch; `choose`, the tasks that a product is cut into. Called by
the renderer of kernels and by the compiler's planner.

Blocks, from the outside in: row blocks that fit the second cache, blocks of KC along k, panels of b
(first cache), tiles of MR rows (registers). A row block of a is packed once for each block of KC.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kernel import Matmul, Pack
from . import ir, tile
from .ir import Builder, Value, integer
from .target import KC, Target

PARAMS = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]


def pack(kernel: Pack, module: ir.Module, name: str, target: Target) -> None:
    """Add the function `name` that runs a task of a Pack."""
    panel = tile.panel(module, target, kernel.dtype, kernel.width)
    element, nr = tile.ELEMENT[kernel.dtype], integer(kernel.width)
    b = module.function(name, PARAMS)
    args, task, _ = b.params
    _, b1, K, n, each, source, s0, s1, sk, sn, packed, p0, p1 = _arguments(b, args, 13)  # noqa: N806
    source, packed = _pointer(b, source), _pointer(b, packed)

    panels = ceil_div(b, n, nr)
    cuts = ceil_div(b, panels, each)
    batch, first = b.binary("sdiv", task, cuts), b.mul(b.binary("srem", task, cuts), each)
    stop = b.smin(panels, b.add(first, each))
    i0, i1 = b.binary("sdiv", batch, b1), b.binary("srem", batch, b1)
    source = b.at(source, b.index(integer(0), (i0, s0), (i1, s1)), element)
    packed = b.at(packed, b.index(integer(0), (i0, p0), (i1, p1)), element)
    with b.loop(integer(0), K, integer(KC)) as block:
        kc = b.smin(b.sub(K, block.i), integer(KC))
        base = b.mul(b.mul(block.i, panels), nr)
        with b.loop(first, stop, integer(1)) as p:
            column = b.mul(p.i, nr)
            to = b.at(packed, b.index(base, (column, kc)), element)
            there = b.at(source, b.index(integer(0), (block.i, sk), (column, sn)), element)
            w = b.smin(b.sub(n, column), nr)
            b.call(panel, "void", to, there, sn, sk, w, nr, kc)
    b.end()


def pack_scratch(kernel: Pack, args: Sequence[int], target: Target) -> int:
    """Bytes of scratch that a thread needs for a call of a Pack: none."""
    return 0


def matmul(kernel: Matmul, module: ir.Module, name: str, target: Target) -> None:
    """Add the function `name` that runs a task of a Matmul."""
    dtype, element = kernel.dtype, tile.ELEMENT[kernel.dtype]
    mr, nr = target.tile(dtype)
    panel = tile.panel(module, target, dtype, mr)
    micros = {
        rows: tile.micro(module, target, dtype, rows, along_k=False)
        for rows in tile.heights(target, dtype)
    }
    b = module.function(name, PARAMS)
    args, task, scratch = b.params
    values = _arguments(b, args, 19)
    _, b1, M, N, K, rows, columns = values[:7]  # noqa: N806
    A, a0, a1, am, ak, B, p0, p1, C, c0, c1, cm = values[7:]  # noqa: N806
    zero, one = integer(0), integer(1)

    across, down = ceil_div(b, N, columns), ceil_div(b, M, rows)
    column = b.mul(b.binary("srem", task, across), columns)
    rest = b.binary("sdiv", task, across)
    row = b.mul(b.binary("srem", rest, down), rows)
    batch = b.binary("sdiv", rest, down)
    i0, i1 = b.binary("sdiv", batch, b1), b.binary("srem", batch, b1)
    a = b.at(_pointer(b, A), b.index(zero, (i0, a0), (i1, a1)), element)
    packed = b.at(_pointer(b, B), b.index(zero, (i0, p0), (i1, p1)), element)
    c = b.at(_pointer(b, C), b.index(zero, (i0, c0), (i1, c1)), element)
    row_stop, column_stop = b.smin(M, b.add(row, rows)), b.smin(N, b.add(column, columns))
    padded = b.mul(ceil_div(b, N, integer(nr)), integer(nr))

    height = row_block(target, dtype)
    with b.loop(row, row_stop, integer(height)) as top, b.loop(zero, K, integer(KC)) as block:
        m = b.smin(b.sub(row_stop, top.i), integer(height))
        kc = b.smin(b.sub(K, block.i), integer(KC))
        there = b.at(a, b.index(zero, (top.i, am), (block.i, ak)), element)
        single = b.compare("eq", m, one)
        with b.when(b.compare("sgt", m, one)), b.loop(zero, m, integer(mr)) as i:
            to = b.at(scratch, b.mul(i.i, kc), element)
            w = b.smin(b.sub(m, i.i), integer(mr))
            b.call(panel, "void", to, b.at(there, b.mul(i.i, am), element), am, ak, w,
                   integer(mr), kc)
        # One row is read where it lies.
        left, left_stride = b.select(single, there, scratch), b.select(single, ak, integer(mr))
        add = ir.boolean(True) if kernel.accumulate else b.compare("sgt", block.i, zero)
        feet = b.at(packed, b.mul(block.i, padded), element)
        with b.loop(column, column_stop, integer(nr)) as j:
            foot = b.at(feet, b.mul(j.i, kc), element)
            n = b.sub(N, j.i)
            with b.loop(zero, m, integer(mr)) as i:
                w = b.smin(b.sub(m, i.i), integer(mr))
                at = b.at(c, b.index(j.i, (b.add(top.i, i.i), cm)), element)
                given = (kc, b.at(left, b.mul(i.i, kc), element), left_stride, foot, integer(nr),
                         zero, at, cm, w, n, add)
                lower = 0
                for r, function in micros.items():
                    fits = b.compare("sle", w, integer(r))
                    with b.when(b.binary("and", fits, b.compare("sgt", w, integer(lower)))):
                        b.call(function, "void", *given)
                    lower = r
    b.end()


def matmul_scratch(kernel: Matmul, args: Sequence[int], target: Target) -> int:
    """Bytes of scratch that a thread needs for a call of a Matmul: one packed block of a."""
    m, k, rows = args[2], args[4], args[5]
    high = min(m, rows, row_block(target, kernel.dtype))
    mr = target.tile(kernel.dtype)[0]
    elements = -(-high // mr) * mr * min(k, KC) + target.lanes(kernel.dtype)
    return elements * ir.width(tile.ELEMENT[kernel.dtype])


def row_block(target: Target, dtype: str) -> int:
    """Rows of a that are packed at a time: with KC columns they take a quarter MiB."""
    mr = target.tile(dtype)[0]
    return (256 if dtype == "float32" else 128) // mr * mr


# Small parts -------------------------------------------------------------------------------------


def _arguments(b: Builder, args: Value, count: int) -> list[Value]:
    return [b.load("i64", b.at(args, integer(i), "i64")) for i in range(count)]


def _pointer(b: Builder, address: Value) -> Value:
    return b.emit("ptr", f"inttoptr i64 {address.name} to ptr")


def ceil_div(b: Builder, x: Value, y: Value) -> Value:
    return b.binary("sdiv", b.add(x, b.sub(y, integer(1))), y)
