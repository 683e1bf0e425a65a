"""Dropout masks, checked indices and scattered sums as native code.

In: a DropoutMask, CheckIndex or ScatterAdd kernel. Out: its function. Called by writers.py. None of
them needs scratch memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels.kinds import CheckIndex, DropoutMask, ScatterAdd
from ..llvm import ir
from ..llvm.elementary import like
from ..llvm.ir import Builder, Value
from ..llvm.operands import Words, address
from ..llvm.philox import LOW, halves, philox, round_keys
from ..llvm.scalars import cast, memory, register
from .processor import Processor
from .rows.operands import load_vector, store_vector, tail

_PARAMS = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
_ONE = ir.integer(1)


# Dropout masks -----------------------------------------------------------------------------------

_BLOCKS = 8  # Philox counters in one vector: each makes four words
_VECTORS = 2  # at once
_STEP = 4 * _BLOCKS * _VECTORS


def dropout_mask(kernel: DropoutMask, module: ir.Module, name: str, target: Processor) -> None:
    """Add the function of a dropout mask to the module."""
    b = module.function(name, _PARAMS)
    args, task, _ = b.params
    words, at = Words(b, args), kernel.layout
    count, each = words.numbers(at.elements, at.per_task)
    key, stream, mask = words.numbers(at.key, at.stream, at.mask)
    keys = round_keys(b, b.load("i64", address(b, key)), _BLOCKS)
    number = halves(b, b.load("i64", address(b, stream)))
    start = b.mul(task, each)
    stop = b.smin(b.add(start, each), count)
    spare, mask = b.alloca(f"<{_STEP} x i8>"), address(b, mask)
    with b.loop(start, stop, ir.integer(_STEP)) as loop:
        # The last bytes of the mask, where they are fewer than a step, go to `spare` first.
        left = b.sub(stop, loop.i)
        short = b.compare("slt", left, ir.integer(_STEP))
        place = b.at(mask, loop.i, "i8")
        to = b.select(short, spare, place)
        block = b.binary("lshr", loop.i, ir.integer(2))
        if at.first is not None:
            block = b.add(block, words.number(at.first))
        for v in range(_VECTORS):
            first = b.add(block, ir.integer(v * _BLOCKS))
            kept = _kept(b, philox(b, first, number, keys, _BLOCKS), kernel.threshold)
            b.store(kept, b.at(to, ir.integer(v * 4 * _BLOCKS), "i8"))
        with b.when(short):
            b.call("llvm.memcpy.p0.p0.i64", "void", place, spare, left, ir.boolean(False))
    b.end()


def _kept(b: Builder, words: Sequence[Value], threshold: int) -> Value:
    """Bytes 0 and 1, those of a block side by side: whether word >> 8 reaches the threshold."""
    least = threshold << 8
    bytes_of = []
    for low, high in (words[:2], words[2:]):
        pair = b.binary("shl", high, like(high, 32))
        pair = b.binary("or", pair, b.binary("and", low, like(low, LOW)))
        type = ir.vector(2 * _BLOCKS, "i32")
        pair = b.emit(type, f"bitcast {pair.type} {pair.name} to {type}")
        enough = b.compare("uge", pair, like(pair, least)) if least <= LOW else None
        flags = b.convert("zext", enough, "i8") if enough else Value(f"<{2 * _BLOCKS} x i8>", "")
        bytes_of.append(flags if enough else like(flags, 0))
    # Two bytes of the one and two of the other in turn.
    order = [n + 2 * k + i for k in range(_BLOCKS) for n in (0, 2 * _BLOCKS) for i in (0, 1)]
    return b.shuffle(bytes_of[0], bytes_of[1], order)


# Indices -----------------------------------------------------------------------------------------


def check_index(kernel: CheckIndex, module: ir.Module, name: str, target: Processor) -> None:
    """Add the function that makes indices safe to the module."""
    b = module.function(name, _PARAMS)
    args, task, _ = b.params
    words, at = Words(b, args), kernel.layout
    count, each, size, skipped = words.numbers(at.elements, at.per_task, at.size, at.skipped)
    given, stride = words.place(at.given), words.number(at.stride)
    safe, report = words.place(at.safe), words.place(at.report)
    start = b.mul(task, each)
    stop = b.smin(b.add(start, each), count)
    element = memory(kernel.dtype)
    zero = ir.integer(0)
    with b.loop(start, stop, _ONE, [ir.boolean(False), zero]) as loop:
        found, first = loop.carried
        x = cast(b, b.load(element, b.at(given, b.mul(loop.i, stride), element)), "int64")
        row = x
        if kernel.wrap:
            row = b.select(b.compare("slt", x, zero), b.add(x, size), x)
        outside = b.compare("uge", row, size)  # negative ones are huge as unsigned numbers
        row = b.select(outside, zero, row)
        if kernel.skip:
            skip = b.compare("eq", x, skipped)
            row = b.select(skip, zero, row)
            outside = b.select(skip, ir.boolean(False), outside)
        b.store(row, b.at(safe, loop.i, "i64"))
        loop.next = [b.binary("or", found, outside), b.select(found, first, x)]
    found, first = loop.carried
    with b.when(found):
        b.store(_ONE, report)
        b.store(first, b.at(report, _ONE, "i64"))
    b.end()


# Scattered sums ----------------------------------------------------------------------------------


def scatter_add(kernel: ScatterAdd, module: ir.Module, name: str, target: Processor) -> None:
    """Add the function that adds rows to rows of a table to the module."""
    b = module.function(name, _PARAMS)
    args, task, _ = b.params
    words, at = Words(b, args), kernel.layout
    count, width, each = words.numbers(at.rows, at.columns, at.columns_per_task)
    entries = words.place(at.entries)
    value, value_stride = words.place(at.value), words.number(at.value_row)
    out, out_stride = words.place(at.out), words.number(at.out_row)
    element, lanes = register(kernel.dtype), target.lanes(kernel.dtype)
    start = b.mul(task, each)
    stop = b.smin(b.add(start, each), width)
    whole = b.binary("and", b.sub(stop, start), ir.integer(-lanes))
    middle = b.add(start, whole)
    with b.loop(ir.integer(0), count, _ONE) as loop:
        row = b.load("i64", b.at(entries, loop.i, "i64"))
        source = b.at(value, b.mul(loop.i, value_stride), element)
        goal = b.at(out, b.mul(row, out_stride), element)

        def add(first: Value, last: bool) -> None:
            end = tail(b, stop, first, lanes) if last else None
            x, place = b.at(source, first, element), b.at(goal, first, element)
            added = load_vector(b, target, element, lanes, x, end)
            before = load_vector(b, target, element, lanes, place, end)
            store_vector(b, target, b.add(before, added), place, end)

        with b.loop(start, middle, ir.integer(lanes)) as vectors:
            add(vectors.i, False)
        with b.when(b.compare("slt", middle, stop)):
            add(middle, True)
    b.end()
