"""What tensor cores and asynchronous copies do, as functions of a simulated thread's module.

In: a Module. Out: functions in it, each written once, on what the threads of a warp have put into
their slots. Called by thread.py. The layouts are those of the PTX ISA's "Matrix Fragments for
mma.m16n8k16", "... mma.m16n8k8" and of ldmatrix.
"""

from __future__ import annotations

from tinygrad_tx.backends.gpu.thread import WARP
from tinygrad_tx.backends.llvm import half, ir
from tinygrad_tx.backends.llvm.elementary import like
from tinygrad_tx.backends.llvm.ir import Builder, Function, Module, Value

WIDTH = 32  # 32-bit words of a thread's slot
QUEUE = 256  # copies of a thread that are under way
ENTRY = 4  # i64 of each: to, from, valid bytes and size, number of its group
STATE, GROUPS = 3, 2  # i64 before them: copies begun, copies made, groups ended
QUEUE_WORDS = STATE + ENTRY * QUEUE


def i32(value: int) -> Value:
    return ir.integer(value, "i32")


def elements(b: Builder, kind: str, word: Value) -> list[Value]:
    """The floats in a register of a fragment."""
    if kind == "tf32":
        return [b.convert("bitcast", word, "float")]
    low = b.convert("trunc", word, "i16")
    high = b.convert("trunc", b.binary("lshr", word, i32(16)), "i16")
    return [half.widened(b, x, kind) for x in (low, high)]


def product(module: Module, each: int) -> Function:
    """`void @mma(slots, lane, c)`: to the four sums at c the products of a's and b's elements, of
    which there are `each` in a register; they begin the slots of a warp. Sums are made as of
    float32, product by product, upwards along k; each product is exact, as on a GPU, whose own
    order is not told."""
    name = f"mma.{each}"
    if found := module.find(name):
        return found
    b = module.function(name, [("ptr", "slots"), ("i32", "lane"), ("ptr", "c")], internal=True)
    slots, lane, c = b.params
    group, place = b.binary("lshr", lane, i32(2)), b.binary("and", lane, i32(3))
    sums = [b.load("float", b.at(c, ir.integer(i), "float")) for i in range(4)]
    column = b.mul(place, i32(2))
    for piece in range(2):
        with b.loop(i32(0), i32(4), i32(1), sums) as loop:
            mine = slot(b, slots, b.add(b.mul(group, i32(4)), loop.i))
            theirs = [
                slot(b, slots, b.add(b.mul(b.add(column, i32(e)), i32(4)), loop.i))
                for e in range(2)
            ]
            loop.next = list(loop.carried)
            for k in range(each):
                down = [_float(b, mine, each * (h + 2 * piece) + k) for h in range(2)]
                across = [_float(b, x, each * (4 + piece) + k) for x in theirs]
                for i in range(4):
                    by = b.mul(down[i // 2], across[i % 2])
                    loop.next[i] = b.add(loop.next[i], by)
        sums = loop.carried
    for i, sum in enumerate(sums):
        b.store(sum, b.at(c, ir.integer(i), "float"))
    b.end()
    return b.function


def matrices(module: Module, transposed: bool) -> Function:
    """`void @load_matrices(slots, lane, out)`: the four i32 of a thread; the address of a row
    begins each slot of the warp."""
    name = "load_matrices" + ".trans" * transposed
    if found := module.find(name):
        return found
    b = module.function(name, [("ptr", "slots"), ("i32", "lane"), ("ptr", "out")], internal=True)
    slots, lane, out = b.params
    group, place = b.binary("lshr", lane, i32(2)), b.binary("and", lane, i32(3))
    for j in range(4):
        first = i32(8 * j)
        if transposed:
            rows = [
                _row(b, slots, b.add(b.add(b.mul(place, i32(2)), first), i32(e))) for e in (0, 1)
            ]
            low, high = (
                b.convert("zext", b.load("i16", b.at(row, group, "i16")), "i32") for row in rows
            )
            found = b.binary("or", low, b.binary("shl", high, i32(16)))
        else:
            found = b.load("i32", b.at(_row(b, slots, b.add(group, first)), place, "i32"))
        b.store(found, b.at(out, ir.integer(j), "i32"))
    b.end()
    return b.function


def begin_copy(module: Module) -> Function:
    """`void @begin_copy(queue, to, from, valid, size, fault)`: what lies at `to` is NaN at
    once. fault: an i32 that is set where an address has not the alignment of the size, or where
    too many copies are under way."""
    name = "begin_copy"
    if found := module.find(name):
        return found
    params = [("ptr", "queue"), ("ptr", "to"), ("ptr", "from"), ("i32", "valid"), ("i32", "size")]
    b = module.function(name, [*params, ("ptr", "fault")], internal=True)
    queue, to, source, valid, size, fault = b.params
    size = b.convert("zext", size, "i64")
    begun, made, groups = (b.load("i64", b.at(queue, ir.integer(i), "i64")) for i in range(STATE))
    places = [b.emit("i64", f"ptrtoint ptr {p.name} to i64") for p in (to, source)]
    low = b.binary("and", b.binary("or", *places), b.sub(size, ir.integer(1)))
    wrong = b.compare("ne", low, ir.integer(0))
    full = b.compare("sge", b.sub(begun, made), ir.integer(QUEUE))
    with b.when(b.binary("or", wrong, full)):
        b.store(i32(1), fault)
    _fill(b, to, -1, size)
    sizes = b.binary("or", b.convert("zext", valid, "i64"), b.binary("shl", size, ir.integer(32)))
    entry = _entry(b, queue, begun)
    for i, x in enumerate((*places, sizes, groups)):
        b.store(x, b.at(entry, ir.integer(i), "i64"))
    b.store(b.add(begun, ir.integer(1)), queue)
    b.end()
    return b.function


def end_copies(module: Module) -> Function:
    """`void @end_copies(queue, pending)`: the copies of all groups but the last ones happen now."""
    name = "end_copies"
    if found := module.find(name):
        return found
    b = module.function(name, [("ptr", "queue"), ("i64", "pending")], internal=True)
    queue, pending = b.params
    begun, made, groups = (b.at(queue, ir.integer(i), "i64") for i in range(STATE))
    limit = b.sub(b.load("i64", groups), pending)
    with b.forever() as leave:
        number = b.load("i64", made)
        leave(b.compare("sge", number, b.load("i64", begun)))
        entry = _entry(b, queue, number)
        to, source, sizes, group = (
            b.load("i64", b.at(entry, ir.integer(i), "i64")) for i in range(ENTRY)
        )
        leave(b.compare("sge", group, limit))
        valid = b.binary("and", sizes, ir.integer(0xFFFFFFFF))
        size = b.binary("lshr", sizes, ir.integer(32))
        target, begin = (b.emit("ptr", f"inttoptr i64 {x.name} to ptr") for x in (to, source))
        _fill(b, target, 0, size)
        b.call("llvm.memcpy.p0.p0.i64", "void", target, begin, valid, ir.boolean(False))
        b.store(b.add(number, ir.integer(1)), made)
    b.end()
    return b.function


def require_no_copies(b: Builder, queue: Value, fault: Value) -> None:
    """The fault is set where a thread ends before its copies do."""
    begun, made = (b.load("i64", b.at(queue, ir.integer(i), "i64")) for i in range(2))
    with b.when(b.compare("ne", begun, made)):
        b.store(i32(1), fault)


def tf32(b: Builder, x: Value) -> Value:
    bits = b.convert("bitcast", x, "i32")
    near = b.binary("and", b.add(bits, i32(0x1000)), i32(-0x2000))
    nan = b.compare("uno", x, x)
    return b.select(nan, like(near, 0x7FFFFFFF), near)


def slot(b: Builder, slots: Value, thread: Value) -> Value:
    return b.at(slots, b.mul(thread, i32(WIDTH)), "i32")


def first_of_warp(b: Builder, thread: Value) -> Value:
    return b.binary("and", thread, i32(-WARP))


def _float(b: Builder, place: Value, i: int) -> Value:
    return b.load("float", b.at(place, ir.integer(i), "float"))


def _row(b: Builder, slots: Value, thread: Value) -> Value:
    number = b.load("i64", slot(b, slots, thread), 4)
    return b.emit("ptr", f"inttoptr i64 {number.name} to ptr")


def _entry(b: Builder, queue: Value, number: Value) -> Value:
    at = b.mul(b.binary("urem", number, ir.integer(QUEUE)), ir.integer(ENTRY))
    return b.at(queue, b.add(at, ir.integer(STATE)), "i64")


def _fill(b: Builder, to: Value, byte: int, size: Value) -> None:
    b.call("llvm.memset.p0.i64", "void", to, ir.integer(byte, "i8"), size, ir.boolean(False))
