"""Dropout masks, checked indices and scattered sums for a GPU.

In: a DropoutMask, CheckIndex or ScatterAdd kernel. Out: its code for one thread. Called by
writers.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ..kernels.kinds import CheckIndex, DropoutMask, ScatterAdd
from ..llvm import ir
from ..llvm.elementary import like
from ..llvm.ir import Builder, Value
from ..llvm.philox import LOW, philox32, words32
from ..llvm.scalars import cast, memory, register
from ..reports import SHIFT
from .choice import Choice, limited, require_counted
from .indexing import i32, wide
from .thread import WARP, Thread

THREADS = 256


def _mine(t: Thread) -> Value:
    """The number of the thread among all, an i64."""
    b = t.b
    before = b.mul(wide(b, t.block), ir.integer(THREADS))
    return b.add(before, wide(b, t.thread))


def _threads(t: Thread) -> Value:
    """The number of all threads, an i64."""
    return t.b.mul(wide(t.b, t.blocks), ir.integer(THREADS))


# Dropout masks -----------------------------------------------------------------------------------

_WORDS = 4  # of one Philox counter


def choose_mask(kernel: DropoutMask, words: Sequence[int]) -> Choice:
    counters = -(-words[kernel.layout.elements] // _WORDS)
    return Choice(None, THREADS, limited(-(-counters // THREADS)))


def dropout_mask(kernel: DropoutMask, form: Hashable, t: Thread) -> None:
    """A thread has the four bytes of a counter."""
    b, words, at = t.b, t.words, kernel.layout
    count = words.number(at.elements)
    key, stream = (words32(b, b.load("i64", words.place(n))) for n in (at.key, at.stream))
    mask = words.place(at.mask)
    counters = ir.ceil_div(b, count, ir.integer(_WORDS))
    with b.loop(_mine(t), counters, _threads(t)) as loop:
        number = loop.i if at.first is None else b.add(loop.i, words.number(at.first))
        kept = [_kept(b, x, kernel.threshold) for x in philox32(b, number, stream, key)]
        first = b.mul(loop.i, ir.integer(_WORDS))
        whole = b.compare("sle", b.add(first, ir.integer(_WORDS)), count)
        with b.when(whole):
            together = Value("<4 x i8>", "poison")
            for i, byte in enumerate(kept):
                together = b.emit(
                    "<4 x i8>", f"insertelement <4 x i8> {together.name}, i8 {byte.name}, i64 {i}"
                )
            b.store(together, b.at(mask, first, "i8"))
        for i, byte in enumerate(kept):
            place = b.add(first, ir.integer(i))
            one = b.binary(
                "and", b.compare("slt", place, count), b.compare("eq", whole, like(whole, 0))
            )
            with b.when(one):
                b.store(byte, b.at(mask, place, "i8"))
    t.end()


def _kept(b: Builder, word: Value, threshold: int) -> Value:
    """1 where a word >> 8 reaches the threshold, else 0, as an i8."""
    least = threshold << 8
    if least > LOW:
        return ir.integer(0, "i8")
    return b.convert("zext", b.compare("uge", word, like(word, least)), "i8")


# Indices -----------------------------------------------------------------------------------------


def choose_index(kernel: CheckIndex, words: Sequence[int]) -> Choice:
    return Choice(None, THREADS, limited(-(-words[kernel.layout.elements] // THREADS)))


def check_index(kernel: CheckIndex, form: Hashable, t: Thread) -> None:
    """Any thread that finds an index outside reports the call, by the address of its words: the
    host looks for the first such index there."""
    b, words, at = t.b, t.words, kernel.layout
    count, size, skipped = words.numbers(at.elements, at.size, at.skipped)
    given, stride = words.place(at.given), words.number(at.stride)
    safe, report = words.place(at.safe), words.place(at.report)
    element, zero = memory(kernel.dtype), ir.integer(0)
    with b.loop(_mine(t), count, _threads(t)) as loop:
        x = cast(b, b.load(element, b.at(given, b.mul(loop.i, stride), element)), "int64")
        row = b.select(b.compare("slt", x, zero), b.add(x, size), x) if kernel.wrap else x
        outside = b.compare("uge", row, size)  # negative ones are huge as unsigned numbers
        row = b.select(outside, zero, row)
        if kernel.skip:
            skip = b.compare("eq", x, skipped)
            row = b.select(skip, zero, row)
            outside = b.select(skip, ir.boolean(False), outside)
        b.store(row, b.at(safe, loop.i, "i64"))
        with b.when(outside):
            run = b.load("i64", b.at(report, ir.integer(1), "i64"))
            low = b.binary("and", words.origin(), ir.integer((1 << SHIFT) - 1))
            b.atomic_min(report, b.binary("or", b.binary("shl", run, ir.integer(SHIFT)), low))
    t.end()


# Scattered sums ----------------------------------------------------------------------------------

_GROUPS = 256  # of entries: those of a group are added by the threads of one block


def choose_scatter(kernel: ScatterAdd, words: Sequence[int]) -> Choice:
    at = kernel.layout
    groups = max(1, min(_GROUPS, -(-words[at.rows] // WARP)))
    threads = min(THREADS, -(-words[at.columns] // WARP) * WARP)
    blocks = groups * -(-words[at.columns] // threads)
    require_counted("a sum at places", blocks=blocks)
    return Choice(groups, threads, blocks)


def scatter_add(kernel: ScatterAdd, form: Hashable, t: Thread) -> None:
    """A block has the entries of a group (form: how many there are) and some columns, a thread one
    column. Every warp looks at WARP entries at once, and adds the rows of those that are its own,
    in their order; a sum stays in a register as long as it is the same entry's."""
    assert isinstance(form, int)
    b, words, at = t.b, t.words, kernel.layout
    count, width = words.numbers(at.rows, at.columns)
    entries, value, out = (words.place(x) for x in (at.entries, at.value, at.out))
    value_row, out_row = words.number(at.value_row), words.number(at.out_row)
    element = register(kernel.dtype)
    groups = i32(form)
    tile = b.binary("udiv", t.block, groups)
    group = wide(b, b.sub(t.block, b.mul(tile, groups)))
    column = b.add(b.mul(wide(b, tile), wide(b, t.size)), wide(b, t.thread))
    there = b.compare("slt", column, width)
    column = b.select(there, column, ir.integer(0))  # threads beyond the last column go along
    nothing = Value(element, "")
    begin = [ir.integer(-1), like(nothing, 0)]
    lane = wide(b, t.lane)
    with b.loop(ir.integer(0), count, ir.integer(WARP), begin) as many:
        row = b.add(many.i, lane)
        inside = b.compare("slt", row, count)
        entry = b.load("i64", b.at(entries, b.select(inside, row, ir.integer(0)), "i64"))
        own = b.compare("eq", b.binary("urem", entry, ir.integer(form)), group)
        flags = b.alloca("i32", 4)
        b.store(t.vote(b.binary("and", own, inside)), flags)
        state = [b.alloca("i64", 8), b.alloca(element, 8)]
        for place, x in zip(state, many.carried, strict=True):
            b.store(x, place)
        with b.forever() as leave:
            left = b.load("i32", flags)
            leave(b.compare("eq", left, i32(0)))
            first = b.call("llvm.cttz.i32", "i32", left, ir.boolean(True))
            b.store(b.binary("and", left, b.sub(left, i32(1))), flags)
            at_row = b.add(many.i, wide(b, first))
            to = b.load("i64", b.at(entries, at_row, "i64"))
            last, sum = b.load("i64", state[0]), b.load(element, state[1])
            other = b.compare("ne", to, last)
            with b.when(other):
                _put(b, out, last, out_row, column, there, sum)
                b.store(b.load(element, _at(b, out, to, out_row, column, element)), state[1])
            added = b.load(element, _at(b, value, at_row, value_row, column, element))
            b.store(b.add(b.load(element, state[1]), added), state[1])
            b.store(to, state[0])
        many.next = [b.load("i64", state[0]), b.load(element, state[1])]
    _put(b, out, many.carried[0], out_row, column, there, many.carried[1])
    t.end()


def _at(b: Builder, base: Value, row: Value, step: Value, column: Value, element: str) -> Value:
    return b.at(base, b.add(b.mul(row, step), column), element)


def _put(
    b: Builder, out: Value, row: Value, step: Value, column: Value, there: Value, sum: Value
) -> None:
    """Write a sum to its row, if there is one."""
    some = b.compare("sge", row, ir.integer(0))
    with b.when(b.binary("and", there, some)):
        b.store(sum, _at(b, out, row, step, column, sum.type))
