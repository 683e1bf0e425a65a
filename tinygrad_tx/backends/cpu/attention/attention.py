"""Attention and its gradients: a task for each (batch, head), the scores in the thread's scratch.
Where heads of keys and values serve several heads of queries each, a task of the gradients is for
one of those, and its sums go over these heads in turn.

In: `Attention` and `AttentionGrad` Kernels. Out: functions in an ir.Module, and bytes of scratch.
Called by writers.py.

Few queries (a decoding step has one) go one by one and read keys and values in place, unpacked:
attention/rows.py. More go block by block, with the micro-kernel of tile.py for the products: K^T
and V^T are packed once per task; other operands are read in place, except for a last panel of fewer
than NR columns. The number of queries alone decides between the two.

Keys that are masked out, or beyond those of the call, get the weight 0, which adds nothing to a
sum: so padding keys changes no bit. Keys that no query of a block sees, because they are later than
its queries or than the last one that a boolean mask allows for all queries, are skipped. So are
those outside of the bounds of all queries of a block.

What is stored in another dtype than it is computed in is converted row by row, on its way to
scratch memory or from it: keys and values a head at a time, queries a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ....dtypes import ALL
from ...kernels.arguments import AttentionArgs, Matrix
from ...kernels.kinds import Attention, AttentionGrad
from ...llvm import ir
from ...llvm.ir import Builder, Module, Value, integer
from ...llvm.operands import Words, address
from ..matmul import tile
from ..processor import Processor
from . import rows as attention_rows

PARAMS = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
_FEW = 2  # queries at most that go one by one
# Queries in a block of the backward pass: enough to amortise the read-modify-write of dk and dv.
# The same on every processor, because dk and dv are sums over blocks.
_QUERIES = 64
# Keys at a time in products of weights, for what these read again to stay in the second cache:
# those that dk and dv are of; and those that outputs and dq are summed over before the next ones
# are added.
_KEYS = 512
_SUMMED = 2048


class _Matrix(NamedTuple):
    """Rows, `stride` apart, each contiguous. edge: a copy of a last panel of fewer than NR columns,
    its rows NR apart."""

    start: Value
    stride: Value
    edge: Value


class _Mask(NamedTuple):
    """A head's part of a mask, its strides along queries, keys and heads, and room for a row of
    it."""

    start: Value
    t_stride: Value
    s_stride: Value
    row: Value
    h_stride: Value


class _Keys(NamedTuple):
    """The keys that a block of queries may see: from `start` on, `width` of them; `panels` is the
    width in whole panels. A start is that of a panel."""

    start: Value
    width: Value
    panels: Value


class _Stored:
    """Operands, which may be stored in another dtype than they are computed with."""

    def __init__(self, kernel: Attention | AttentionGrad, b: Builder, target: Processor) -> None:
        self.b, self.converts = b, kernel.stored != kernel.dtype
        self.element, nr = ALL[kernel.stored].memory, target.tile(kernel.dtype)[1]
        self.panel = tile.panel(b.module, target, kernel.dtype, nr, kernel.stored)
        if self.converts:
            self.widen = tile.converted(b.module, target, kernel.stored, kernel.dtype)
            self.narrow = tile.converted(b.module, target, kernel.dtype, kernel.stored)

    def at(self, start: Value, *terms: tuple[Value, Value]) -> Value:
        return self.b.at(start, self.b.index(integer(0), *terms), self.element)

    def rows(
        self, start: Value, stride: Value, count: Value, d: Value, to: Value
    ) -> tuple[Value, Value]:
        """Rows as they are computed with: where they lie, or copied `to`; and their stride."""
        if not self.converts:
            return start, stride
        self.widen(self.b, to=to, source=start, M=count, N=d, to_stride=d, stride=stride)
        return to, d

    def results(self, start: Value, stride: Value, d: Value, to: Value) -> tuple[Value, Value]:
        """The place where rows of a result are computed, and their stride; `finish` brings them to
        where they are wanted."""
        return (to, d) if self.converts else (start, stride)

    def finish(self, start: Value, stride: Value, count: Value, d: Value, made: Value) -> None:
        if self.converts:
            self.narrow(self.b, to=start, source=made, M=count, N=d, to_stride=stride, stride=d)


class _Writer:
    """One function that is being written, for the kernel `of`, and what its parts share."""

    def __init__(
        self,
        kernel: Attention | AttentionGrad,
        module: Module,
        name: str,
        of: str,
        target: Processor,
        internal: bool = False,
    ) -> None:
        self.kernel, self.target, self.element = kernel, target, ALL[kernel.dtype].memory
        self.mask_held = {"bool": "i8", "bounds": "i64"}.get(kernel.mask, ALL[kernel.stored].memory)
        self.mr, nr = target.tile(kernel.dtype)
        self.nr, self.zero, self.one = integer(nr), integer(0), integer(1)
        self.panel = tile.panel(module, target, kernel.dtype, nr)
        self.by_rows = tile.product(module, target, kernel.dtype, along_k=True)
        self.by_columns = tile.product(module, target, kernel.dtype, along_k=False)
        self.softmax = attention_rows.softmax(kernel, module, of, target)
        masked = kernel.mask in ("bool", "float")
        self.mask_row = attention_rows.mask_row(kernel, module, target) if masked else None
        self.b = module.function(name, PARAMS, internal=internal)
        self.stored = _Stored(kernel, self.b, target)

        b, (args, task, self.free), at = self.b, self.b.params, kernel.layout
        self.words = Words(b, args)
        H, self.T, self.S = self.words.numbers(at.h, at.t, at.s)  # noqa: N806
        self.d_k, self.d_v, self.group = self.words.numbers(at.d_k, at.d_v, at.group)
        shared = b.binary("sdiv", H, self.group)
        if isinstance(kernel, AttentionGrad):
            self.batch, self.shared = b.binary("sdiv", task, shared), b.binary("srem", task, shared)
            self.head = b.mul(self.shared, self.group)  # the first of them
        else:
            self.batch, self.head = b.binary("sdiv", task, H), b.binary("srem", task, H)
            self.shared = b.binary("sdiv", self.head, self.group)
        self.padded = self.round_up(self.S)
        self.apart = b.add(self.padded, self.nr)  # rows of scores: not all in the same cache set
        self.limit = self.S  # keys behind it are known to take no part
        self.unshared = ir.boolean(True)  # each query has a row of the mask of its own

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

    def room(self, *extents: Value) -> Value:
        """The next part of the scratch for what is converted, if something is."""
        return self.reserve(*extents) if self.stored.converts else Value("ptr", "null")

    def operand(self, at: Matrix[int], head: Value) -> tuple[Value, Value]:
        """Of a matrix of the arguments: the start of a head's part; its row stride."""
        place, s_b, s_h, row = self.words.numbers(at.place, at.b0, at.b1, at.row)
        return self.stored.at(address(self.b, place), (self.batch, s_b), (head, s_h)), row

    # Matrices for products -----------------------------------------------------------------------

    def packed_transpose(self, start: Value, stride: Value, d: Value) -> Value:
        """The keys' (S, d) as panels of NR keys: in each, d rows."""
        b, to = self.b, self.reserve(d, self.padded)
        with b.loop(self.zero, self.limit, self.nr) as j:
            w = b.smin(b.sub(self.limit, j.i), self.nr)
            here, src = self.at(to, (j.i, d)), self.stored.at(start, (j.i, stride))
            self.stored.panel(
                b, to=here, source=src, stride=stride, k_stride=self.one, w=w, fill=self.nr, K=d
            )
        return to

    def with_edge(self, start: Value, stride: Value, d: Value, rows: Value, to: Value) -> _Matrix:
        """(rows, d) where it lies; the last panel is copied `to` where it is not whole."""
        b = self.b
        over = b.binary("srem", d, self.nr)
        with b.when(b.compare("sgt", over, self.zero)):
            last = b.at(start, b.sub(d, over), self.element)
            self.panel(
                b, to=to, source=last, stride=self.one, k_stride=stride, w=over, fill=self.nr,
                K=rows,
            )  # fmt: skip
        return _Matrix(start, stride, to)

    def below(self, matrix: _Matrix, row: Value) -> _Matrix:
        """A matrix from a row on."""
        start = self.at(matrix.start, (row, matrix.stride))
        return _Matrix(start, matrix.stride, self.at(matrix.edge, (row, self.nr)))

    def times_packed(
        self, m: Value, n: Value, d: Value, a: Value, a_stride: Value, packed: Value, c: Value
    ) -> None:
        """c (m, n; rows `apart`) = a (m, d) times a packed transpose; n: whole panels."""
        self.by_rows(
            self.b, M=m, N=n, K=d, A=a, a_stride=a_stride, B=packed, b_stride=self.nr,
            b_panel_stride=self.b.mul(d, self.nr), edge=packed, C=c, c_stride=self.apart,
            add=ir.boolean(False),
        )  # fmt: skip

    def times(
        self, m: Value, n: Value, k: Value, a: Value, right: _Matrix, c: Value, c_stride: Value
    ) -> None:
        """c (m, n) = a (m, k; rows `apart`) times `right` (k, n), summed over parts of k."""
        b, most = self.b, integer(_SUMMED)
        # One round even without a key: the sums are zero then.
        with b.loop(self.zero, b.intrinsic("smax", "i64", k, self.one), most) as part:
            here = self.below(right, part.i)
            self.by_rows(
                b, M=m, N=n, K=b.smin(b.sub(k, part.i), most), A=self.at(a, (part.i, self.one)),
                a_stride=self.apart, B=here.start, b_stride=here.stride, b_panel_stride=self.nr,
                edge=here.edge, C=c, c_stride=c_stride, add=b.compare("sgt", part.i, self.zero),
            )  # fmt: skip

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
        """c (m, n) = [c +] the transpose of a (k, m; rows `apart`) times `right` (k, n)."""
        b, most = self.b, integer(_KEYS)
        with b.loop(self.zero, m, most) as part:
            self.by_columns(
                b, M=b.smin(b.sub(m, part.i), most), N=n, K=k, A=self.at(a, (part.i, self.one)),
                a_stride=self.apart, B=right.start, b_stride=right.stride,
                b_panel_stride=self.nr, edge=right.edge, C=self.at(c, (part.i, c_stride)),
                c_stride=c_stride, add=add,
            )  # fmt: skip

    # Weights -------------------------------------------------------------------------------------

    def bounds(self, mask: _Mask, query: Value) -> tuple[Value, Value]:
        """The first key that a query sees, and where they end; those that there are."""
        b = self.b
        row = b.mul(query, mask.t_stride)
        found = [
            b.load("i64", b.at(mask.start, b.add(row, b.mul(mask.s_stride, n)), "i64"))
            for n in (self.zero, self.one)
        ]
        first, end = (b.intrinsic("smax", "i64", b.smin(n, self.limit), self.zero) for n in found)
        if self.kernel.causal:
            end = b.smin(end, b.add(query, self.one))
        return first, end

    def keys_of(self, first: Value, count: Value, mask: _Mask | None) -> _Keys:
        """What `count` queries from `first` on may see together."""
        b = self.b
        if mask is None or self.kernel.mask != "bounds":
            width = self.keys_seen(first, count)
            return _Keys(self.zero, width, self.round_up(width))
        with b.loop(self.zero, count, self.one, [self.limit, self.zero]) as loop:
            begin, end = self.bounds(mask, b.add(first, loop.i))
            least, most = loop.carried
            some = b.compare("slt", begin, end)
            loop.next = [
                b.select(some, b.smin(least, begin), least),
                b.select(some, b.intrinsic("smax", "i64", most, end), most),
            ]
        least, most = loop.carried
        start = b.mul(b.binary("sdiv", b.smin(least, most), self.nr), self.nr)
        width = b.sub(most, start)
        return _Keys(start, width, self.round_up(width))

    def keys_seen(self, first: Value, count: Value) -> Value:
        """The number of keys after which `count` queries from `first` on see none."""
        b = self.b
        return b.smin(self.limit, b.add(first, count)) if self.kernel.causal else self.limit

    def mask(self) -> _Mask | None:
        """The mask of the task's first head of queries."""
        at, b = self.kernel.layout.mask, self.b
        if at is None:
            return None
        bounded = self.kernel.mask == "bounds"  # it needs no room
        place, s_b, s_h, s_t, s_s = self.words.numbers(*at)
        offset = b.index(self.zero, (self.batch, s_b), (self.head, s_h))
        start = b.at(address(b, place), offset, self.mask_held)
        row = Value("ptr", "null") if bounded else self.reserve(self.padded)
        return _Mask(start, s_t, s_s, row, s_h)

    def mask_of(self, mask: _Mask | None, member: Value) -> _Mask | None:
        """That of another head of the group."""
        if mask is None:
            return None
        b = self.b
        start = b.at(mask.start, b.mul(member, mask.h_stride), self.mask_held)
        return mask._replace(start=start)

    def read_mask(self, mask: _Mask, query: Value, count: Value) -> Value:
        """A query's row of the mask, its first `count` numbers; how many keys may take part."""
        b = self.b
        assert self.mask_row is not None
        src = b.at(mask.start, b.mul(query, mask.t_stride), self.mask_held)
        return self.mask_row(b, to=mask.row, source=src, stride=mask.s_stride, N=count)

    def read_shared_mask(self, mask: _Mask) -> None:
        """Once, where it is the same for all queries of the task: keys behind the last that may
        take part are of no interest then."""
        b = self.b
        same = b.compare("eq", mask.t_stride, self.zero)
        if isinstance(self.kernel, AttentionGrad):
            one = b.compare("eq", self.group, self.one)
            alike = b.compare("eq", mask.h_stride, self.zero)
            same = b.binary("and", same, b.binary("or", one, alike))
        same = b.binary("and", same, b.compare("sgt", self.T, self.zero))
        found = self.read_mask(mask, self.zero, b.select(same, self.S, self.zero))
        self.limit = b.select(same, found, self.S)
        self.unshared = b.binary("xor", same, ir.boolean(True))

    def weights(
        self, scores: Value, first: Value, count: Value, keys: _Keys, mask: _Mask | None
    ) -> None:
        """Scores of `count` queries from `first` on become softmax weights of these keys."""
        b = self.b
        with b.loop(self.zero, count, self.one) as i:
            query, row = b.add(first, i.i), self.at(scores, (i.i, self.apart))
            if mask is not None and self.kernel.mask == "bounds":
                begin, end = (b.sub(n, keys.start) for n in self.bounds(mask, query))
                self.softmax_row(row, end, keys.width, None, begin)
            else:
                if mask is not None:
                    with b.when(self.unshared):
                        self.read_mask(mask, query, self.S)
                self.softmax_row(row, self.keys_seen(query, self.one), keys.width, mask)

    def softmax_row(
        self,
        row: Value,
        stop: Value,
        width: Value,
        mask: _Mask | None,
        start: Value | None = None,
    ) -> None:
        kept = mask.row if mask is not None else Value("ptr", "null")
        self.softmax(self.b, row=row, START=start or self.zero, STOP=stop, WIDTH=width, mask=kept)


def attention(kernel: Attention, module: Module, name: str, target: Processor) -> None:
    """Add the function `name` that runs a task of an Attention."""
    ways = f"{name}_few", f"{name}_many"
    for way, write in zip(ways, (_one_by_one, _by_blocks), strict=True):
        write(_Writer(kernel, module, way, name, target, internal=True), kernel.layout)
    b = module.function(name, PARAMS)
    few = b.compare("sle", Words(b, b.params[0]).number(kernel.layout.t), integer(_FEW))
    chosen = b.select(few, *(Value("ptr", f"@{way}") for way in ways))
    b.do(f"call void {chosen.name}({', '.join(f'{p.type} {p.name}' for p in b.params)})")
    b.end()


def _one_by_one(w: _Writer, at: AttentionArgs[int]) -> None:
    """Each query on its own: three functions of attention/rows.py."""
    b, dtype = w.b, w.kernel.dtype
    dots = attention_rows.dots(b.module, w.target, dtype)
    mix = attention_rows.mix(b.module, w.target, dtype)
    (q, q_stride), (out, out_stride) = (w.operand(x, w.head) for x in (at.q, at.out))
    (k, k_stride), (v, v_stride) = (w.operand(x, w.shared) for x in (at.k, at.v))
    row = w.reserve(w.padded)
    mask = w.mask()
    k, k_stride = w.stored.rows(k, k_stride, w.S, w.d_k, w.room(w.S, w.d_k))
    v, v_stride = w.stored.rows(v, v_stride, w.S, w.d_v, w.room(w.S, w.d_v))
    first_key, first_value, q_room, room = k, v, w.room(w.d_k), w.room(w.d_v)
    with b.loop(w.zero, w.T, w.one) as query:
        if mask is not None and w.kernel.mask == "bounds":
            begin, end = w.bounds(mask, query.i)
            width = b.intrinsic("smax", "i64", b.sub(end, begin), w.zero)
            k, v = w.at(first_key, (begin, k_stride)), w.at(first_value, (begin, v_stride))
        else:
            width = w.keys_seen(query.i, w.one)
            if mask is not None:
                width = w.read_mask(mask, query.i, width)
        mine, _ = w.stored.rows(w.stored.at(q, (query.i, q_stride)), q_stride, w.one, w.d_k, q_room)
        wanted = w.stored.at(out, (query.i, out_stride))
        result, _ = w.stored.results(wanted, out_stride, w.d_v, room)
        dots(b, row=row, q=mine, keys=k, stride=k_stride, D=w.d_k, N=width)
        w.softmax_row(row, width, width, None if w.kernel.mask == "bounds" else mask)
        mix(b, out=result, row=row, values=v, stride=v_stride, D=w.d_v, N=width)
        w.stored.finish(wanted, out_stride, w.one, w.d_v, result)
    b.end()


def _by_blocks(w: _Writer, at: AttentionArgs[int]) -> None:
    """MR queries at a time: one tile's height, so that the scores take little room."""
    b, block_rows = w.b, integer(w.mr)
    (q, q_stride), (out, out_stride) = (w.operand(x, w.head) for x in (at.q, at.out))
    (k, k_stride), (v, v_stride) = (w.operand(x, w.shared) for x in (at.k, at.v))
    mask = w.mask()
    if mask is not None and w.kernel.mask != "bounds":
        w.read_shared_mask(mask)
    keys = w.packed_transpose(k, k_stride, w.d_k)
    scores = w.reserve(block_rows, w.apart)
    v, v_stride = w.stored.rows(v, v_stride, w.limit, w.d_v, w.room(w.S, w.d_v))
    values = w.with_edge(v, v_stride, w.d_v, w.limit, w.reserve(w.S, w.nr))
    q_room, room = w.room(block_rows, w.d_k), w.room(block_rows, w.d_v)
    with b.loop(w.zero, w.T, block_rows) as block:
        m = b.smin(b.sub(w.T, block.i), block_rows)
        seen = w.keys_of(block.i, m, mask)
        mine, own_stride = w.stored.at(q, (block.i, q_stride)), q_stride
        mine, own_stride = w.stored.rows(mine, own_stride, m, w.d_k, q_room)
        part, below = w.at(keys, (seen.start, w.d_k)), w.below(values, seen.start)
        w.times_packed(m, seen.panels, w.d_k, mine, own_stride, part, scores)
        w.weights(scores, block.i, m, seen, mask)
        wanted = w.stored.at(out, (block.i, out_stride))
        result, stride = w.stored.results(wanted, out_stride, w.d_v, room)
        w.times(m, w.d_v, seen.width, scores, below, result, stride)
        w.stored.finish(wanted, out_stride, m, w.d_v, result)
    b.end()


def attention_scratch(kernel: Attention, args: Sequence[int], target: Processor) -> int:
    """Bytes of scratch that a thread needs for a call of an Attention."""
    at = kernel.layout
    t, s, d_k = args[at.t], args[at.s], args[at.d_k]
    mr, nr = target.tile(kernel.dtype)
    padded = -(-s // nr) * nr
    elements = 2 * padded if t <= _FEW else padded * (d_k + 1) + (padded + nr) * mr + s * nr
    if kernel.stored != kernel.dtype:
        d_v, few = args[at.d_v], t <= _FEW
        elements += s * (d_k + d_v) + d_k + d_v if few else s * d_v + mr * (d_k + d_v)
    return elements * ir.width(ALL[kernel.dtype].memory)


def attention_grad(kernel: AttentionGrad, module: Module, name: str, target: Processor) -> None:
    """Add the function `name` that runs a task of an AttentionGrad."""
    w, at = _Writer(kernel, module, name, name, target), kernel.layout
    b, block_rows = w.b, integer(_QUERIES)
    slope, unscaled = attention_rows.slope(kernel, module, name, target), None
    if kernel.dmask:
        unscaled = attention_rows.unscaled(kernel, module, name, target)
    (k, k_stride), (v, v_stride) = (w.operand(x, w.shared) for x in (at.k, at.v))
    (dk, dk_stride), (dv, dv_stride) = (w.operand(x, w.shared) for x in (at.dk, at.dv))
    all_dk, all_dv = (dk, dk_stride, w.S, w.d_k), (dv, dv_stride, w.S, w.d_v)
    mask = w.mask()
    if mask is not None and w.kernel.mask != "bounds":
        w.read_shared_mask(mask)
    keys_packed = w.packed_transpose(k, k_stride, w.d_k)
    values_packed = w.packed_transpose(v, v_stride, w.d_v)
    p, ds = w.reserve(block_rows, w.apart), w.reserve(block_rows, w.apart)
    q_edge, g_edge = w.reserve(block_rows, w.nr), w.reserve(block_rows, w.nr)
    k, k_stride = w.stored.rows(k, k_stride, w.limit, w.d_k, w.room(w.S, w.d_k))
    keys = w.with_edge(k, k_stride, w.d_k, w.limit, w.reserve(w.S, w.nr))
    dk, dk_stride = w.stored.results(dk, dk_stride, w.d_k, w.room(w.S, w.d_k))
    dv, dv_stride = w.stored.results(dv, dv_stride, w.d_v, w.room(w.S, w.d_v))
    q_room, dq_room = w.room(block_rows, w.d_k), w.room(block_rows, w.d_k)
    g_room = w.room(block_rows, w.d_v)

    # The first block of the first head writes dk and dv of the keys that it sees; those of the
    # others begin as zero. Later ones add. One round even without a query.
    bounded = kernel.mask == "bounds"  # no block is known to see the first keys
    seen = w.zero if bounded else w.keys_seen(w.zero, b.smin(w.T, block_rows))
    unseen = b.sub(w.S, seen)
    for grad, stride, d in ((dk, dk_stride, w.d_k), (dv, dv_stride, w.d_v)):
        rest = w.at(grad, (seen, stride))
        w.transpose_times(unseen, d, w.zero, p, keys, rest, stride, ir.boolean(False))
    with b.loop(w.zero, w.group, w.one) as member:
        head, own = b.add(w.head, member.i), w.mask_of(mask, member.i)
        (q, q_stride), (g, g_stride) = (w.operand(x, head) for x in (at.q, at.g))
        dq, dq_stride = w.operand(at.dq, head)
        added = b.compare("sgt", member.i, w.zero)
        if at.dmask is not None:
            scores, scores_stride = w.operand(at.dmask, head)
        with b.loop(w.zero, b.intrinsic("smax", "i64", w.T, w.one), block_rows) as block:
            m = b.smin(b.sub(w.T, block.i), block_rows)
            later = b.binary("or", added, b.compare("sgt", block.i, w.zero))
            if bounded:
                later = ir.boolean(True)
            near = w.keys_of(block.i, m, own)
            q_block, g_block = (
                w.stored.at(x, (block.i, stride)) for x, stride in ((q, q_stride), (g, g_stride))
            )
            q_block, q_apart = w.stored.rows(q_block, q_stride, m, w.d_k, q_room)
            g_block, g_apart = w.stored.rows(g_block, g_stride, m, w.d_v, g_room)
            some_keys, some_values = (
                w.at(packed, (near.start, d))
                for packed, d in ((keys_packed, w.d_k), (values_packed, w.d_v))
            )
            w.times_packed(m, near.panels, w.d_k, q_block, q_apart, some_keys, p)
            w.weights(p, block.i, m, near, own)
            w.times_packed(m, near.panels, w.d_v, g_block, g_apart, some_values, ds)
            with b.loop(w.zero, m, w.one) as i:
                row, own_p = (w.at(x, (i.i, w.apart)) for x in (ds, p))
                slope(b, row=row, p=own_p, WIDTH=near.width)
                if unscaled is not None:
                    to = w.stored.at(scores, (b.add(block.i, i.i), scores_stride))
                    unscaled(b, to=to, row=row, WIDTH=near.width, N=w.S)
            wanted = w.stored.at(dq, (block.i, dq_stride))
            mine, apart = w.stored.results(wanted, dq_stride, w.d_k, dq_room)
            w.times(m, w.d_k, near.width, ds, w.below(keys, near.start), mine, apart)
            w.stored.finish(wanted, dq_stride, m, w.d_k, mine)
            queries = w.with_edge(q_block, q_apart, w.d_k, m, q_edge)
            to_k = w.at(dk, (near.start, dk_stride))
            w.transpose_times(near.width, w.d_k, m, ds, queries, to_k, dk_stride, later)
            arriving = w.with_edge(g_block, g_apart, w.d_v, m, g_edge)
            to_v = w.at(dv, (near.start, dv_stride))
            w.transpose_times(near.width, w.d_v, m, p, arriving, to_v, dv_stride, later)
    w.stored.finish(*all_dk, dk)
    w.stored.finish(*all_dv, dv)
    b.end()


def attention_grad_scratch(kernel: AttentionGrad, args: Sequence[int], target: Processor) -> int:
    """Bytes of scratch that a thread needs for a call of an AttentionGrad."""
    at = kernel.layout
    s, d_k, d_v = args[at.s], args[at.d_k], args[at.d_v]
    nr, rows = target.tile(kernel.dtype)[1], _QUERIES
    padded = -(-s // nr) * nr
    elements = padded * (d_k + d_v + 1) + (padded + nr) * 2 * rows + (2 * rows + s) * nr
    if kernel.stored != kernel.dtype:
        elements += s * (2 * d_k + d_v) + rows * (2 * d_k + d_v)
    return elements * ir.width(ALL[kernel.dtype].memory)
