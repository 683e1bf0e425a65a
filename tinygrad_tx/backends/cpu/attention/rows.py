"""Rows of scores: one query's over all keys. Called by attention.py.

In: a kernel, a module, a target. Out: internal functions in that module, each added once:

- `dots`: a query times all keys; `mix`: weights times all values. Both read their operands in
  place, so few queries are computed without packing.
- `mask_row`: a row of a mask, as numbers, and the number of keys that may take part.
- `softmax`: scores become weights; `slope`: the same for gradients.

Element j of a row belongs to slot j % SLOTS in every sum, on every processor: slots are the lanes
of one vector or of several. Masked keys have the weight 0, and sums begin with 0: so masked keys
after the others change no bit, and need not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ....dtypes import ALL
from ...kernels.kinds import Attention, AttentionGrad
from ...llvm import ir
from ...llvm.elementary import exp, like
from ...llvm.ir import Builder, Function, Module, Value, integer, vector
from ...llvm.scalars import cast
from ..matmul import tile
from ..processor import Processor

_LEAST = {"float32": -87.0, "float64": -708.0}  # exp of it is still a normal number
_SLOTS = {"float32": 16, "float64": 8}  # the lanes of a register of the widest kind
_AT_ONCE = 8  # vectors of sums that fit into any processor's registers beside their operands
_VECTORS = 4  # of values that are summed at a time


def _function(module: Module, name: str, params: Sequence[str], returns: str = "void") -> Builder:
    """A new internal function. Capitals and words that end in `stride` are numbers, the other
    parameters pointers."""
    typed = [("i64" if p.isupper() or p.endswith("stride") else "ptr", p) for p in params]
    return module.function(name, typed, returns, internal=True, attributes="noinline nounwind")


# Products of one row -----------------------------------------------------------------------------


def dots(module: Module, target: Processor, dtype: str) -> Function:
    """row[j] = q . (row j of keys), both of width D, for j < N; the last vector written holds
    arbitrary values behind that.

    Keys go by as many as a vector has lanes: each has its own sum, whose lanes are then added,
    halves first, for all keys of the group together.
    """
    name = f"dots_{dtype}"
    if found := module.find(name):
        return found
    b = _function(module, name, ["row", "q", "keys", "stride", "D", "N"])
    row, q, keys, stride, D, N = b.params  # noqa: N806
    lanes, element = target.lanes(dtype), ALL[dtype].memory
    step, parts = integer(lanes), _SLOTS[dtype] // lanes
    several = lanes if parts == 1 else max(1, _AT_ONCE // parts)  # keys at a time

    def group(start: Value, bases: Sequence[Value], reach: Sequence[Value]) -> None:
        sums: list[Value] = []
        for first in range(0, lanes, several):
            keys = range(first, first + several)
            sums += _group_sums(b, target, dtype, q, keys, bases, reach, D)
        b.store(_add_lanes(b, sums), b.at(row, start, element))

    reach = [b.mul(stride, integer(i)) for i in range(tile.REACH)]
    whole = b.sub(N, b.binary("srem", N, step))
    with b.loop(integer(0), whole, step) as loop:
        start = b.at(keys, b.mul(loop.i, stride), element)
        group(loop.i, tile.row_bases(b, start, stride, lanes, element), reach)
    with b.when(b.compare("slt", whole, N)):  # the last group repeats the last key
        start = b.at(keys, b.mul(whole, stride), element)
        last = b.sub(b.sub(N, whole), integer(1))
        places = [b.mul(b.smin(integer(i), last), stride) for i in range(lanes)]
        group(whole, [b.at(start, place, element) for place in places], [integer(0)])
    b.end()
    return b.function


def _group_sums(
    b: Builder,
    target: Processor,
    dtype: str,
    q: Value,
    keys: range,
    bases: Sequence[Value],
    reach: Sequence[Value],
    D: Value,  # noqa: N803
) -> list[Value]:
    """For each of the keys its products with q, added up lane by lane. Key i is at
    bases[i // n] + reach[i % n], where n = len(reach)."""
    lanes, element = target.lanes(dtype), ALL[dtype].memory
    type, slots = vector(lanes, element), _SLOTS[dtype]
    whole = b.sub(D, b.binary("srem", D, integer(slots)))
    parts = slots // lanes
    sums = [tile.zero(type)] * (len(keys) * parts)
    used = sorted({i // len(reach) for i in keys})
    for start, stop in ((integer(0), whole), (whole, D)):
        with b.loop(start, stop, integer(slots), sums) as loop:
            for part in range(parts):
                first = b.add(loop.i, integer(part * lanes))
                mask = tile.prefix_mask(b, b.sub(D, first), lanes) if stop is D else None
                x = _read(b, type, b.at(q, first, element), mask)
                here = {base: b.at(bases[base], first, element) for base in used}
                for i, sum in zip(keys, loop.carried[part::parts], strict=True):
                    at = b.at(here[i // len(reach)], reach[i % len(reach)], element)
                    y = _read(b, type, at, mask)
                    loop.next.append(tile.multiply_add(b, target, x, y, sum))
            # As they were: the parts of a key side by side.
            loop.next = [x for i in range(len(keys)) for x in loop.next[i :: len(keys)]]
        sums = loop.carried
    return [_together(b, sums[i : i + parts]) for i in range(0, len(sums), parts)]


def _together(b: Builder, parts: Sequence[Value]) -> Value:
    """Vectors added to one: those opposite each other first, as halves of a wider one would be. So
    it does not matter if each has moved on by as many places."""
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [b.add(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]


def _add_lanes(b: Builder, sums: Sequence[Value]) -> Value:
    """One vector: in lane i all lanes of the i-th vector added, halves first, of as many vectors as
    lanes. While the parts are 16 bytes or more they are laid end to end; then every 16 bytes are a
    small vector of their own, so that shuffles stay within them, which is quick."""
    lanes, group = sums[0].lanes, 16 // ir.width(sums[0].element)
    sums = [sums[group * i + j] for j in range(group) for i in range(lanes // group)]
    half = lanes // 2
    while half:
        unit = lanes if 2 * half > group else group
        sides = []
        for side in (0, 1):
            mine = [i for i in range(lanes) if i // half % 2 == side]
            units = [[i for i in mine if i // unit == u] for u in range(lanes // unit)]
            sides.append([i + other for own in units for other in (0, lanes) for i in own])
        sums = [
            b.add(b.shuffle(x, y, sides[0]), b.shuffle(x, y, sides[1]))
            for x, y in zip(sums[::2], sums[1::2], strict=True)
        ]
        half //= 2
    return sums[0]


def mix(module: Module, target: Processor, dtype: str) -> Function:
    """out[i] = the sum of row[j] times values[j][i] over j < N, for i < D. Even and odd j have a
    sum each, for one chain of additions alone would be slow."""
    name = f"mix_{dtype}"
    if found := module.find(name):
        return found
    b = _function(module, name, ["out", "row", "values", "stride", "D", "N"])
    out, row, values, stride, D, N = b.params  # noqa: N806
    lanes, element = target.lanes(dtype), ALL[dtype].memory
    type, step = vector(lanes, element), integer(_VECTORS * lanes)
    one, two = integer(1), integer(2)
    pairs = b.sub(N, b.binary("srem", N, two))
    whole = b.sub(D, b.binary("srem", D, step))
    for start, stop in ((integer(0), whole), (whole, D)):
        with b.loop(start, stop, step) as column:
            left = b.sub(D, column.i)
            masks = [
                tile.prefix_mask(b, left, lanes, i * lanes) if stop is D else None
                for i in range(_VECTORS)
            ]

            def add(j: Value, at: Value, sums: Sequence[Value]) -> Iterator[Value]:
                weight = b.splat(b.load(element, b.at(row, j, element)), lanes)
                for i, (sum, mask) in enumerate(zip(sums, masks, strict=True)):  # noqa: B023
                    y = _read(b, type, b.at(at, integer(i * lanes), element), mask)
                    yield tile.multiply_add(b, target, weight, y, sum)

            zeros = [tile.zero(type)] * _VECTORS
            top = b.at(values, column.i, element)
            with b.loop(integer(0), pairs, two, [*zeros, *zeros, top]) as loop:
                even, odd, at = loop.carried[:_VECTORS], loop.carried[_VECTORS:-1], loop.carried[-1]
                below = b.at(at, stride, element)
                loop.next = [*add(loop.i, at, even), *add(b.add(loop.i, one), below, odd)]
                loop.next.append(b.at(below, stride, element))
            even, odd, at = loop.carried[:_VECTORS], loop.carried[_VECTORS:-1], loop.carried[-1]
            with b.loop(pairs, N, one, even) as loop:
                loop.next = list(add(loop.i, at, loop.carried))
            for i, (x, y, mask) in enumerate(zip(loop.carried, odd, masks, strict=True)):
                at = b.at(out, b.add(column.i, integer(i * lanes)), element)
                if mask is None:
                    b.store(b.add(x, y), at)
                else:
                    b.masked_store(b.add(x, y), at, mask)
    b.end()
    return b.function


def _read(b: Builder, type: str, at: Value, mask: Value | None) -> Value:
    return b.load(type, at) if mask is None else b.masked_load(type, at, mask, tile.zero(type))


# Weights -----------------------------------------------------------------------------------------


def softmax(
    kernel: Attention | AttentionGrad, module: Module, of: str, target: Processor
) -> Function:
    """Makes a row of scores into weights, in place: of WIDTH keys, those from START on and before
    STOP take part, as `mask` (a row that mask_row wrote) says. For the kernel `of` alone: its scale
    and kind of mask are in the code, and START only where it may be other than 0."""
    name = f"{of}_softmax"
    if found := module.find(name):
        return found
    bounded = kernel.mask == "bounds"
    b = _function(module, name, ["row", "START", "STOP", "WIDTH", "mask"])
    row, start, stop, width, mask = b.params
    lanes, element = target.lanes(kernel.dtype), ALL[kernel.dtype].memory
    type, zero, step = vector(lanes, element), integer(0), integer(lanes)
    none = like(Value(type, ""), -float("inf"))

    with b.loop(zero, width, step, [none]) as loop:
        at = b.at(row, loop.i, element)
        s = b.mul(b.load(type, at), like(none, kernel.scale))
        if kernel.mask in ("bool", "float"):
            extra = b.load(type, b.at(mask, loop.i, element))
            additive = kernel.mask == "float"
            s = (
                b.add(s, extra)
                if additive
                else b.select(b.compare("une", extra, tile.zero(type)), s, none)
            )
        s = b.select(tile.prefix_mask(b, b.sub(stop, loop.i), lanes), s, none)
        if bounded:
            s = b.select(tile.prefix_mask(b, b.sub(start, loop.i), lanes), none, s)
        b.store(s, at)
        top = loop.carried[0]
        loop.next = [b.select(b.compare("ogt", s, top), s, top)]
    top = _across(b, loop.carried[0], lambda x, y: b.select(b.compare("ogt", x, y), x, y))
    if kernel.mask in ("bool", "bounds"):  # a row without a key: every exp is 0
        dead = b.compare("oeq", top, like(top, -float("inf")))
        top = b.select(dead, like(top, 0), top)
    tops = b.splat(top, lanes)
    nothing = [tile.zero(type)] * (_SLOTS[kernel.dtype] // lanes)
    with b.loop(zero, width, step, nothing) as loop:
        at = b.at(row, loop.i, element)
        x = b.sub(b.load(type, at), tops)
        # Weights below the smallest normal number become 0: subnormal ones would be slow to make.
        least = like(x, _LEAST[kernel.dtype])
        tiny = b.compare("olt", x, least)
        e = b.select(tiny, like(x, 0), exp(b, b.select(tiny, least, x)))
        b.store(e, at)
        first, *others = loop.carried
        loop.next = [*others, b.add(first, e)]
    total = _across(b, _together(b, loop.carried), b.add)
    if kernel.mask in ("bool", "bounds"):
        empty = b.compare("oeq", total, like(total, 0))
        total = b.select(empty, like(total, 1), total)
    shares = b.splat(b.binary("fdiv", like(total, 1), total), lanes)
    with b.loop(zero, width, step) as loop:
        at = b.at(row, loop.i, element)
        b.store(b.mul(b.load(type, at), shares), at)
    b.end()
    return b.function


def slope(kernel: AttentionGrad, module: Module, of: str, target: Processor) -> Function:
    """Makes a row of g V^T into scale * p * (it - its mean under p), in place, for WIDTH keys. For
    the kernel `of` alone."""
    name = f"{of}_slope"
    if found := module.find(name):
        return found
    b = _function(module, name, ["row", "p", "WIDTH"])
    row, weights, width = b.params
    lanes, element = target.lanes(kernel.dtype), ALL[kernel.dtype].memory
    type, zero, step = vector(lanes, element), integer(0), integer(lanes)
    nothing = [tile.zero(type)] * (_SLOTS[kernel.dtype] // lanes)
    with b.loop(zero, width, step, nothing) as loop:
        x = b.load(type, b.at(row, loop.i, element))
        p = b.load(type, b.at(weights, loop.i, element))
        first, *others = loop.carried
        loop.next = [*others, tile.multiply_add(b, target, x, p, first)]
    mean = b.splat(_across(b, _together(b, loop.carried), b.add), lanes)
    with b.loop(zero, width, step) as loop:
        at = b.at(row, loop.i, element)
        p = b.load(type, b.at(weights, loop.i, element))
        slope = b.mul(b.sub(b.load(type, at), mean), p)
        b.store(b.mul(slope, like(slope, kernel.scale)), at)
    b.end()
    return b.function


def unscaled(kernel: AttentionGrad, module: Module, of: str, target: Processor) -> Function:
    """Copies the first WIDTH numbers of a row that slope() wrote, divided by the scale, and zeros
    up to N. For the kernel `of` alone."""
    name = f"{of}_unscaled"
    if found := module.find(name):
        return found
    b = _function(module, name, ["to", "row", "WIDTH", "N"])
    to, row, width, N = b.params  # noqa: N806
    lanes, element = target.lanes(kernel.dtype), ALL[kernel.dtype].memory
    type = vector(lanes, element)
    with b.loop(integer(0), N, integer(lanes)) as loop:
        inside = tile.prefix_mask(b, b.sub(width, loop.i), lanes)
        x = b.masked_load(type, b.at(row, loop.i, element), inside, tile.zero(type))
        y = cast(b, b.mul(x, like(x, 1 / kernel.scale)), kernel.stored, kernel.dtype)
        kept = tile.prefix_mask(b, b.sub(N, loop.i), lanes)
        b.masked_store(y, b.at(to, loop.i, y.element), kept)
    b.end()
    return b.function


def mask_row(kernel: Attention | AttentionGrad, module: Module, target: Processor) -> Function:
    """Copies N numbers of a row of a mask: a float one's values, a boolean one's as 1.0 and 0.0.
    Returns (i64) how many keys may take part: behind them a boolean mask lets none through."""
    name = f"mask_{kernel.mask}_{kernel.dtype}_{kernel.stored}"
    if found := module.find(name):
        return found
    b = _function(module, name, ["to", "source", "stride", "N"], "i64")
    to, source, stride, N = b.params  # noqa: N806
    lanes, element = target.lanes(kernel.dtype), ALL[kernel.dtype].memory
    boolean = kernel.mask == "bool"
    stored = "i8" if boolean else ALL[kernel.stored].memory

    def copy(i: Value, at: Value, count: int, last: Value) -> Value:
        """Copies `count` numbers from the i-th on. Where the last kept one ends; else `last`."""
        x = b.load(vector(count, stored), at)
        if not boolean:
            b.store(cast(b, x, kernel.dtype, kernel.stored), b.at(to, i, element))
            return b.add(i, integer(count))
        kept = b.compare("ne", x, like(x, 0))
        b.store(b.convert("uitofp", kept, element), b.at(to, i, element))
        bits = b.emit(f"i{count}", f"bitcast {kept.type} {kept.name} to i{count}")
        bits = b.convert("zext", bits, "i64")
        above = b.call("llvm.ctlz.i64", "i64", bits, ir.boolean(False))
        some = b.compare("ne", bits, integer(0))
        return b.select(some, b.add(i, b.sub(integer(64), above)), last)

    whole = b.sub(N, b.binary("srem", N, integer(lanes)))
    done = b.select(b.compare("eq", stride, integer(1)), whole, integer(0))
    with b.loop(integer(0), done, integer(lanes), [integer(0)]) as loop:
        loop.next = [copy(loop.i, b.at(source, loop.i, stored), lanes, loop.carried[0])]
    with b.loop(done, N, integer(1), loop.carried) as loop:
        at = b.at(source, b.mul(loop.i, stride), stored)
        loop.next = [copy(loop.i, at, 1, loop.carried[0])]
    b.end(loop.carried[0])
    return b.function


def _across(b: Builder, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """All lanes combined: halves first, down to one."""
    while x.lanes > 2:
        half = x.lanes // 2
        x = combine(b.shuffle(x, x, range(half)), b.shuffle(x, x, range(half, 2 * half)))
    return combine(b.lane(x, 0), b.lane(x, 1))
