"""Attention and its gradients: a task for each (batch, head), the scores in the thread's scratch.

In: `Attention` and `AttentionGrad` Kernels, whose docstrings in kernel.py say how a call's
arguments lie. Out: functions in an ir.Module, and bytes of scratch. Called by render.py.

Queries go block by block. Products are the micro-kernel's of tile.py: K^T and V^T are packed once a
task, everything else is read where it lies, but a last panel of fewer than NR columns. Keys that a
mask takes out, or that the call does not have, get the weight 0, which adds nothing to a sum: so
padding keys changes no bit, and keys that no query of a block sees are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..kernel import Attention, AttentionGrad
from . import ir, tile
from .ir import Builder, Module, Value, integer, vector
from .math_ir import exp, like
from .operands import address, argument
from .target import Target
from .tile import ELEMENT

PARAMS = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
_LEAST = {"float32": -87.0, "float64": -708.0}  # exp of it is still a normal number


class _Matrix(NamedTuple):
    """Rows, `stride` apart, each contiguous. edge: where the last panel is not whole, a copy of it
    whose rows are NR apart."""

    start: Value
    stride: Value
    edge: Value


class _Mask(NamedTuple):
    """A task's part of a mask, its strides along queries and keys, and room for a row of it."""

    start: Value
    t_stride: Value
    s_stride: Value
    row: Value


class _Writer:
    """One function that is being written, and what its parts share."""

    def __init__(
        self, kernel: Attention | AttentionGrad, module: Module, name: str, target: Target
    ) -> None:
        self.kernel, self.element = kernel, ELEMENT[kernel.dtype]
        self.stored = "i8" if kernel.mask == "bool" else self.element
        self.mr, nr = target.tile(kernel.dtype)
        self.nr, self.zero, self.one = integer(nr), integer(0), integer(1)
        self.panel = tile.panel(module, target, kernel.dtype, nr)
        self.by_rows = _product(module, target, kernel.dtype, along_k=True)
        self.by_columns = _product(module, target, kernel.dtype, along_k=False)
        self.softmax = _softmax(kernel, module, name, target)
        self.mask_row = "" if kernel.mask == "none" else _mask_row(kernel, module, target)
        self.b = module.function(name, PARAMS)
        self._next = 6

        b, (args, task, scratch) = self.b, self.b.params
        self.args, self.free = args, scratch
        _, H, self.T, self.S, self.d_k, self.d_v = (self.argument(i) for i in range(6))  # noqa: N806
        self.batch, self.head = b.binary("sdiv", task, H), b.binary("srem", task, H)
        self.padded = self.round_up(self.S)

    def argument(self, i: int) -> Value:
        return argument(self.b, self.args, i)

    def round_up(self, n: Value) -> Value:
        """To whole panels."""
        b = self.b
        more = b.add(n, b.sub(self.nr, self.one))
        return b.mul(b.binary("sdiv", more, self.nr), self.nr)

    def at(self, start: Value, *terms: tuple[Value, Value]) -> Value:
        return self.b.at(start, self.b.index(self.zero, *terms), self.element)

    def reserve(self, *extents: Value) -> Value:
        """The next part of the scratch, of so many elements (their product)."""
        size, found = extents[0], self.free
        for extent in extents[1:]:
            size = self.b.mul(size, extent)
        self.free = self.b.at(found, size, self.element)
        return found

    def operand(self) -> tuple[Value, Value]:
        """Of the next matrix of the arguments: the start of this task's part; its row stride."""
        i, b = self._next, self.b
        self._next += 5
        place, s_b, s_h, stride = (self.argument(i + j) for j in range(4))
        return self.at(address(b, place), (self.batch, s_b), (self.head, s_h)), stride

    # Matrices for products -----------------------------------------------------------------------

    def packed_transpose(self, start: Value, stride: Value, d: Value) -> Value:
        """The keys' (S, d) as panels of NR keys: in each, d rows."""
        b, to = self.b, self.reserve(d, self.padded)
        with b.loop(self.zero, self.S, self.nr) as j:
            w = b.smin(b.sub(self.S, j.i), self.nr)
            here, there = self.at(to, (j.i, d)), self.at(start, (j.i, stride))
            b.call(self.panel, "void", here, there, stride, self.one, w, self.nr, d)
        return to

    def with_edge(self, start: Value, stride: Value, d: Value, rows: Value, to: Value) -> _Matrix:
        """(rows, d) where it lies; the last panel is copied `to` where it is not whole."""
        b = self.b
        over = b.binary("srem", d, self.nr)
        with b.when(b.compare("sgt", over, self.zero)):
            last = b.at(start, b.sub(d, over), self.element)
            b.call(self.panel, "void", to, last, self.one, stride, over, self.nr, rows)
        return _Matrix(start, stride, to)

    def times_packed(
        self, m: Value, n: Value, d: Value, a: Value, a_stride: Value, packed: Value, c: Value
    ) -> None:
        """c (m, n; rows `padded` apart) = a (m, d) times a packed transpose; n: whole panels."""
        given = m, n, d, a, a_stride, packed, self.nr, self.b.mul(d, self.nr), packed, c
        self.b.call(self.by_rows, "void", *given, self.padded, ir.boolean(False))

    def times(
        self, m: Value, n: Value, k: Value, a: Value, right: _Matrix, c: Value, c_stride: Value
    ) -> None:
        """c (m, n) = a (m, k; rows `padded` apart) times `right` (k, n)."""
        given = m, n, k, a, self.padded, right.start, right.stride, self.nr, right.edge, c
        self.b.call(self.by_rows, "void", *given, c_stride, ir.boolean(False))

    def transpose_times(
        self,
        m: Value,
        n: Value,
        k: Value,
        a: Value,
        right: _Matrix,
        c: Value,
        c_stride: Value,
        add: Value,
    ) -> None:
        """c (m, n) = [c +] the transpose of a (k, m; rows `padded` apart) times `right` (k, n)."""
        given = m, n, k, a, self.padded, right.start, right.stride, self.nr, right.edge, c
        self.b.call(self.by_columns, "void", *given, c_stride, add)

    # Weights -------------------------------------------------------------------------------------

    def keys_seen(self, first: Value, count: Value) -> Value:
        """How many keys the queries from `first` on see, without the mask."""
        return self.b.smin(self.S, self.b.add(first, count)) if self.kernel.causal else self.S

    def mask(self) -> _Mask | None:
        """The mask, which the arguments end with."""
        if self.kernel.mask == "none":
            return None
        i, b = self._next, self.b
        place, s_b, s_h, s_t, s_s = (self.argument(i + j) for j in range(5))
        offset = b.index(self.zero, (self.batch, s_b), (self.head, s_h))
        start = b.at(address(b, place), offset, self.stored)
        return _Mask(start, s_t, s_s, self.reserve(self.padded))

    def weights(
        self, scores: Value, first: Value, count: Value, width: Value, mask: _Mask | None
    ) -> None:
        """Scores of `count` queries from `first` on become softmax weights of `width` keys."""
        b = self.b
        with b.loop(self.zero, count, self.one) as i:
            query, row = b.add(first, i.i), self.at(scores, (i.i, self.padded))
            if mask is not None:  # read once where it is the same for all queries
                anew = b.compare("ne", mask.t_stride, self.zero)
                with b.when(b.binary("or", anew, b.compare("eq", query, self.zero))):
                    there = b.at(mask.start, b.mul(query, mask.t_stride), self.stored)
                    b.call(self.mask_row, "void", mask.row, there, mask.s_stride, self.S)
            kept = mask.row if mask is not None else Value("ptr", "null")
            b.call(self.softmax, "void", row, self.keys_seen(query, self.one), width, kept)


def attention(kernel: Attention, module: Module, name: str, target: Target) -> None:
    """Add the function `name` that runs a task of an Attention."""
    w = _Writer(kernel, module, name, target)
    b = w.b
    q, q_stride = w.operand()
    k, k_stride = w.operand()
    v, v_stride = w.operand()
    out, out_stride = w.operand()
    keys = w.packed_transpose(k, k_stride, w.d_k)
    scores = w.reserve(integer(w.mr), w.padded)
    mask = w.mask()
    values = w.with_edge(v, v_stride, w.d_v, w.S, w.reserve(w.S, w.nr))
    with b.loop(w.zero, w.T, integer(w.mr)) as block:
        m = b.smin(b.sub(w.T, block.i), integer(w.mr))
        width = w.keys_seen(block.i, m)
        mine = w.at(q, (block.i, q_stride))
        w.times_packed(m, w.round_up(width), w.d_k, mine, q_stride, keys, scores)
        w.weights(scores, block.i, m, width, mask)
        w.times(m, w.d_v, width, scores, values, w.at(out, (block.i, out_stride)), out_stride)
    b.end()


def attention_scratch(kernel: Attention, args: Sequence[int], target: Target) -> int:
    """Bytes of scratch that a thread needs for a call of an Attention."""
    s, d_k = args[3:5]
    mr, nr = target.tile(kernel.dtype)
    padded = -(-s // nr) * nr
    return (padded * (d_k + mr + 1) + s * nr) * ir.width(ELEMENT[kernel.dtype])


def attention_grad(kernel: AttentionGrad, module: Module, name: str, target: Target) -> None:
    """Add the function `name` that runs a task of an AttentionGrad."""
    w = _Writer(kernel, module, name, target)
    b, high = w.b, integer(_query_block(target, kernel.dtype))
    slope = _slope(kernel, module, name, target)
    (q, q_stride), (k, k_stride), (v, v_stride), (g, g_stride) = (w.operand() for _ in range(4))
    (dq, dq_stride), (dk, dk_stride), (dv, dv_stride) = (w.operand() for _ in range(3))
    keys_packed = w.packed_transpose(k, k_stride, w.d_k)
    values_packed = w.packed_transpose(v, v_stride, w.d_v)
    p, ds = w.reserve(high, w.padded), w.reserve(high, w.padded)
    q_edge, g_edge = w.reserve(high, w.nr), w.reserve(high, w.nr)
    mask = w.mask()
    keys = w.with_edge(k, k_stride, w.d_k, w.S, w.reserve(w.S, w.nr))

    # The first block writes dk and dv of the keys that it sees, and those of the others are zero;
    # what follows adds. One round even without a query.
    seen = w.keys_seen(w.zero, b.smin(w.T, high))
    unseen = b.sub(w.S, seen)
    for grad, stride, d in ((dk, dk_stride, w.d_k), (dv, dv_stride, w.d_v)):
        rest = w.at(grad, (seen, stride))
        w.transpose_times(unseen, d, w.zero, p, keys, rest, stride, ir.boolean(False))
    with b.loop(w.zero, b.intrinsic("smax", "i64", w.T, w.one), high) as block:
        m = b.smin(b.sub(w.T, block.i), high)
        later = b.compare("sgt", block.i, w.zero)
        width = w.keys_seen(block.i, m)
        whole = w.round_up(width)
        q_block, g_block = w.at(q, (block.i, q_stride)), w.at(g, (block.i, g_stride))
        w.times_packed(m, whole, w.d_k, q_block, q_stride, keys_packed, p)
        w.weights(p, block.i, m, width, mask)
        w.times_packed(m, whole, w.d_v, g_block, g_stride, values_packed, ds)
        with b.loop(w.zero, m, w.one) as i:
            b.call(slope, "void", w.at(ds, (i.i, w.padded)), w.at(p, (i.i, w.padded)), width)
        w.times(m, w.d_k, width, ds, keys, w.at(dq, (block.i, dq_stride)), dq_stride)
        queries = w.with_edge(q_block, q_stride, w.d_k, m, q_edge)
        w.transpose_times(width, w.d_k, m, ds, queries, dk, dk_stride, later)
        arriving = w.with_edge(g_block, g_stride, w.d_v, m, g_edge)
        w.transpose_times(width, w.d_v, m, p, arriving, dv, dv_stride, later)
    b.end()


def attention_grad_scratch(kernel: AttentionGrad, args: Sequence[int], target: Target) -> int:
    """Bytes of scratch that a thread needs for a call of an AttentionGrad."""
    s, d_k, d_v = args[3:6]
    nr, high = target.tile(kernel.dtype)[1], _query_block(target, kernel.dtype)
    padded = -(-s // nr) * nr
    elements = padded * (d_k + d_v + 2 * high + 1) + (2 * high + s) * nr
    return elements * ir.width(ELEMENT[kernel.dtype])


def _query_block(target: Target, dtype: str) -> int:
    """Queries in a block of the backward pass: enough to make little of adding to dk and dv."""
    mr = target.tile(dtype)[0]
    return 64 // mr * mr


# Internal functions ------------------------------------------------------------------------------


def _product(module: Module, target: Target, dtype: str, *, along_k: bool) -> str:
    """The name of a function: C (M, N) = [C +] A B, over all tiles. A is read as tile.micro reads
    it. Panels of B are b_panel apart, their rows b_stride; where the last is not whole it lies at
    `edge`, its rows NR apart."""
    name = f"product_{dtype}_{'row' if along_k else 'column'}"
    if any(f.name == name for f in module.functions):
        return name
    heights = tile.heights(target, dtype)
    micros = {r: tile.micro(module, target, dtype, r, along_k=along_k) for r in heights}
    params = [
        *(("i64", n) for n in ("M", "N", "K")),
        ("ptr", "A"),
        ("i64", "a_stride"),
        ("ptr", "B"),
        ("i64", "b_stride"),
        ("i64", "b_panel"),
        ("ptr", "edge"),
        ("ptr", "C"),
        ("i64", "c_stride"),
        ("i1", "add"),
    ]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    M, N, K, A, a_stride, B, b_stride, b_panel, edge, C, c_stride, add = b.params  # noqa: N806
    element, nr, zero = ELEMENT[dtype], integer(target.tile(dtype)[1]), integer(0)
    panels = b.binary("sdiv", N, nr)
    whole = b.mul(panels, nr)
    over = b.sub(N, whole)
    start = zero
    for r in reversed(heights):  # exactly M rows: none is read beyond the last
        rows = integer(r)
        stop = b.add(start, b.mul(b.binary("sdiv", b.sub(M, start), rows), rows))
        with b.loop(start, stop, rows) as i:
            a = b.at(A, b.mul(i.i, a_stride) if along_k else i.i, element)
            c = b.at(C, b.mul(i.i, c_stride), element)
            with b.loop(zero, panels, integer(1)) as p:
                foot = b.at(B, b.mul(p.i, b_panel), element)
                at = b.at(c, b.mul(p.i, nr), element)
                given = K, a, a_stride, foot, b_stride, zero, at, c_stride, rows, nr, add
                b.call(micros[r], "void", *given)
            with b.when(b.compare("sgt", over, zero)):
                at = b.at(c, whole, element)
                given = K, a, a_stride, edge, nr, zero, at, c_stride, rows, over, add
                b.call(micros[r], "void", *given)
        start = stop
    b.end()
    return name


def _softmax(kernel: Attention | AttentionGrad, module: Module, of: str, target: Target) -> str:
    """The name of a function that makes a row of scores into weights, in place: of `width` keys,
    the first `stop` of which take part as `mask` (a row that _mask_row wrote) says."""
    name = f"{of}_softmax"
    params = [("ptr", "row"), ("i64", "stop"), ("i64", "width"), ("ptr", "mask")]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    row, stop, width, mask = b.params
    lanes, element = target.lanes(kernel.dtype), ELEMENT[kernel.dtype]
    type, zero, step = vector(lanes, element), integer(0), integer(lanes)
    none = like(Value(type, ""), -float("inf"))

    with b.loop(zero, width, step, [none]) as loop:
        at = b.at(row, loop.i, element)
        s = b.mul(b.load(type, at), like(none, kernel.scale))
        if kernel.mask != "none":
            extra = b.load(type, b.at(mask, loop.i, element))
            additive = kernel.mask == "float"
            s = (
                b.add(s, extra)
                if additive
                else b.select(b.compare("une", extra, tile.zero(type)), s, none)
            )
        s = b.select(tile.prefix_mask(b, b.sub(stop, loop.i), lanes), s, none)
        b.store(s, at)
        top = loop.carried[0]
        loop.next = [b.select(b.compare("ogt", s, top), s, top)]
    top = _across(b, loop.carried[0], lambda x, y: b.select(b.compare("ogt", x, y), x, y))
    if kernel.mask != "float":  # a row without a key: every exp is 0
        dead = b.compare("oeq", top, like(top, -float("inf")))
        top = b.select(dead, like(top, 0), top)
    tops = b.splat(top, lanes)
    with b.loop(zero, width, step, [tile.zero(type)]) as loop:
        at = b.at(row, loop.i, element)
        x = b.sub(b.load(type, at), tops)
        # Weights below the smallest normal number become 0: subnormal ones would be slow to make.
        least = like(x, _LEAST[kernel.dtype])
        tiny = b.compare("olt", x, least)
        e = b.select(tiny, like(x, 0), exp(b, b.select(tiny, least, x)))
        b.store(e, at)
        loop.next = [b.add(loop.carried[0], e)]
    total = _across(b, loop.carried[0], b.add)
    if kernel.mask != "float":
        empty = b.compare("oeq", total, like(total, 0))
        total = b.select(empty, like(total, 1), total)
    shares = b.splat(b.binary("fdiv", like(total, 1), total), lanes)
    with b.loop(zero, width, step) as loop:
        at = b.at(row, loop.i, element)
        b.store(b.mul(b.load(type, at), shares), at)
    b.end()
    return name


def _slope(kernel: AttentionGrad, module: Module, of: str, target: Target) -> str:
    """The name of a function that makes a row of g V^T into scale * p * (it - its mean under p), in
    place, for `width` keys."""
    name = f"{of}_slope"
    params = [("ptr", "row"), ("ptr", "p"), ("i64", "width")]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    row, weights, width = b.params
    lanes, element = target.lanes(kernel.dtype), ELEMENT[kernel.dtype]
    type, zero, step = vector(lanes, element), integer(0), integer(lanes)
    with b.loop(zero, width, step, [tile.zero(type)]) as loop:
        x = b.load(type, b.at(row, loop.i, element))
        p = b.load(type, b.at(weights, loop.i, element))
        loop.next = [tile.multiply_add(b, target, x, p, loop.carried[0])]
    mean = b.splat(_across(b, loop.carried[0], b.add), lanes)
    with b.loop(zero, width, step) as loop:
        at = b.at(row, loop.i, element)
        p = b.load(type, b.at(weights, loop.i, element))
        slope = b.mul(b.sub(b.load(type, at), mean), p)
        b.store(b.mul(slope, like(slope, kernel.scale)), at)
    b.end()
    return name


def _mask_row(kernel: Attention | AttentionGrad, module: Module, target: Target) -> str:
    """The name of a function that copies a row of a mask: a float one's values, a boolean one's as
    1.0 and 0.0."""
    name = f"mask_{kernel.mask}_{kernel.dtype}"
    if any(f.name == name for f in module.functions):
        return name
    params = [("ptr", "to"), ("ptr", "source"), ("i64", "stride"), ("i64", "S")]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    to, source, stride, S = b.params  # noqa: N806
    lanes, element = target.lanes(kernel.dtype), ELEMENT[kernel.dtype]
    boolean = kernel.mask == "bool"
    stored = "i8" if boolean else element

    def copy(i: Value, at: Value, count: int) -> None:
        x = b.load(vector(count, stored), at)
        if boolean:
            x = b.convert("uitofp", b.compare("ne", x, like(x, 0)), element)
        b.store(x, b.at(to, i, element))

    whole = b.mul(b.binary("sdiv", S, integer(lanes)), integer(lanes))
    done = b.select(b.compare("eq", stride, integer(1)), whole, integer(0))
    with b.loop(integer(0), done, integer(lanes)) as loop:
        copy(loop.i, b.at(source, loop.i, stored), lanes)
    with b.loop(done, S, integer(1)) as loop:
        copy(loop.i, b.at(source, b.mul(loop.i, stride), stored), 1)
    b.end()
    return name


def _across(b: Builder, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """All lanes combined: halves first, down to one."""
    while x.lanes > 2:
        half = x.lanes // 2
        x = combine(b.shuffle(x, x, range(half)), b.shuffle(x, x, range(half, 2 * half)))
    return combine(b.lane(x, 0), b.lane(x, 1))
