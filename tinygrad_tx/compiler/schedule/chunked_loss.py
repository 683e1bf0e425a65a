"""Chunks a large projection and its loss by rows.

In and out: a Schedule. Pattern: logits = x @ W, a row program logits -> dlogits, and two products
(dx and dW) that alone read dlogits. Each chunk of rows goes through all four before the next one,
so that one chunk of logits and dlogits is in memory. The bits are those of the whole: a chunk is a
multiple of the block of rows in which dW accumulates. A stage of pipeline.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ...backends.kernels.arguments import Args, MatmulArgs, Place, RowOperand, RowProgramArgs
from ...backends.kernels.kinds import Matmul, RowProgram
from ...backends.target import Target
from ..fuse.body import copying
from .records import Buffer, Call, Launch, Schedule, View, whole

CHUNK_BYTES = 16 << 20


@dataclass(eq=False)
class _Loss:
    """Numbers of the launches that share chunks, and what lies in one: M rows of `columns`."""

    first: int  # product and row program: makes the gradient
    by_rows: int  # gradient @ weight
    by_columns: int  # gradient.T @ input, summed over rows
    rows: int
    columns: int
    height: int  # rows of a chunk
    inside: tuple[Buffer, Buffer]  # logits, gradient


def chunk_losses(schedule: Schedule, target: Target) -> Schedule:
    """Every such loss cut into chunks."""
    launches, i = list(schedule.launches), 0
    while i < len(launches):
        found = _found(launches, i, target.block, schedule.results) if _large(launches[i]) else None
        if found is not None:
            launches = _cut(*_unrounded(launches, found)) or launches
        i += 1
    same = tuple(launches) == schedule.launches
    return schedule if same else replace(schedule, launches=tuple(launches))


def _large(launch: Launch) -> bool:
    """True if a launch begins with a product larger than a chunk: a quick test, made of every
    launch."""
    call = launch.calls[0]
    return isinstance(call.kernel, Matmul) and call.writes[0].buffer.bytes > CHUNK_BYTES


def _found(launches: list[Launch], i: int, block: int, results: frozenset[Buffer]) -> _Loss | None:
    if len(launches[i].calls) != 2:
        return None
    product, program = launches[i].calls
    if not isinstance(product.args, MatmulArgs) or not (
        _sliceable(product) and _sliceable(program)
    ):
        return None
    m, n = product.args.m, product.args.n
    logits = product.writes[0].buffer
    whole = [v.buffer for v in program.writes if v.buffer.size == m * n]
    readers = [
        [j for j, launch in enumerate(launches) if any(v.buffer is b for v in launch.reads)]
        for b in (logits, *whole)
    ]
    if len(whole) != 1 or readers[0] != [i]:
        return None
    inside = (logits, whole[0])
    height = _height(n, logits, block)
    if any(b.kind != "value" or b in results for b in inside) or height >= m:
        return None
    found: dict[str, int] = {}
    for j in readers[1]:
        head = launches[j].calls[0]
        if not isinstance(head.args, MatmulArgs) or head.reads[0].buffer is not whole[0]:
            return None
        if any(v.buffer is whole[0] for c in launches[j].calls[1:] for v in c.reads):
            return None
        gradient = head.args.a
        if (head.args.m, gradient.row, gradient.column) == (m, n, 1):
            found["by_rows"] = j
        elif (head.args.k, gradient.row, gradient.column) == (m, 1, n):
            found["by_columns"] = j
    if len(found) != 2 or len(readers[1]) != 2:
        return None
    by_rows = launches[found["by_rows"]]
    if not all(map(_sliceable, by_rows.calls)):
        return None
    return _Loss(i, found["by_rows"], found["by_columns"], m, n, height, inside)


def _height(columns: int, buffer: Buffer, block: int) -> int:
    """Rows of a chunk: whole blocks, as many as fit."""
    row = columns * (buffer.bytes // buffer.size)
    return max(1, CHUNK_BYTES // row // block) * block


def _sliceable(call: Call) -> bool:
    """True if a call can be done for some of its rows."""
    if isinstance(call.args, MatmulArgs):
        return (call.args.b0, call.args.b1) == (1, 1)
    if not isinstance(call.kernel, RowProgram) or call.kernel.outer != 1:
        return False
    plain = all(i.op not in ("row", "gather") for i in call.kernel.instrs)
    return plain and all(o.at < 0 for o in call.kernel.outputs)


def _unrounded(launches: list[Launch], loss: _Loss) -> tuple[list[Launch], _Loss]:
    """The same with the product over rows, which chunks add up, in the dtype of its sums; where it
    was in another one, a launch of its own rounds it."""
    i = loss.by_columns
    head, *rest = launches[i].calls
    assert isinstance(head.kernel, Matmul) and isinstance(head.args, MatmulArgs)
    if head.kernel.out == head.kernel.dtype:
        return launches, loss
    (out,) = head.writes
    sums = whole(Buffer("value", head.kernel.dtype, prod(out.shape), out.buffer.node), out.shape)
    kernel = replace(head.kernel, out=head.kernel.dtype)
    args = head.args._replace(c=head.args.c._replace(place=sums.place, row=sums.strides[-2]))
    made = replace(head, kernel=kernel, args=args, writes=(sums,))
    apart = [Launch((call,)) for call in (made, copying(sums, out, *head.nodes), *rest)]
    more = len(apart) - 1 if loss.by_rows > i else 0
    return [*launches[:i], *apart, *launches[i + 1 :]], replace(loss, by_rows=loss.by_rows + more)


def _cut(launches: list[Launch], loss: _Loss) -> list[Launch] | None:
    """The launches with the chunks in the place of the last of the three; what reads the results
    of those that move goes behind it. None where one of the three has to wait for another."""
    end = max(loss.by_rows, loss.by_columns)
    three = {loss.first, loss.by_rows, loss.by_columns}
    late = {v.buffer for j in three for v in launches[j].writes}
    before, after = launches[: loss.first], list[Launch]()
    for j in range(loss.first + 1, end):
        if j in three:
            continue
        waits = any(v.buffer in late for v in launches[j].reads)
        (after if waits else before).append(launches[j])
        if waits:
            late |= {v.buffer for v in launches[j].writes}
    own = set(loss.inside)
    needed = {v.buffer for j in three for v in launches[j].reads} - own
    made = {v.buffer for launch in after for v in launch.writes}
    crossed = {v.buffer for v in launches[loss.by_rows].reads} & {
        v.buffer for v in launches[loss.by_columns].writes
    }
    if needed & made or crossed:
        return None
    return [*before, *_chunks(launches, loss), *after, *launches[end + 1 :]]


def _chunks(launches: list[Launch], loss: _Loss) -> list[Launch]:
    height = loss.height
    made: list[Launch] = []
    before: tuple[Buffer, ...] = ()
    for start in range(0, loss.rows, height):
        count = min(height, loss.rows - start)
        size = count * loss.columns
        chunks = {b: Buffer("value", b.dtype, size, b.node) for b in loss.inside}
        for j in (loss.first, loss.by_rows):
            calls = [_sliced(c, start, count, chunks) for c in launches[j].calls]
            made.append(Launch(tuple(calls), before if j == loss.first else ()))
        before = tuple(chunks.values())
        head, *rest = launches[loss.by_columns].calls
        summed = _summed(head, start, count, chunks)
        made.append(Launch((summed, *rest) if start + count == loss.rows else (summed,)))
    return made


def _sliced(call: Call, start: int, count: int, chunks: dict[Buffer, Buffer]) -> Call:
    """A call for rows start .. start + count."""

    def rows(operand: RowOperand[Place[Buffer]]) -> RowOperand[Place[Buffer]]:
        return operand._replace(place=_ahead(operand.place, start * operand.outer[0], chunks))

    args = call.args
    if isinstance(args, MatmulArgs):
        a = args.a._replace(place=_ahead(args.a.place, start * args.a.row, chunks))
        c = args.c._replace(place=_ahead(args.c.place, start * args.c.row, chunks))
        args = args._replace(m=count, a=a, c=c)
    elif isinstance(args, RowProgramArgs):
        inputs, outputs = tuple(map(rows, args.inputs)), tuple(map(rows, args.outputs))
        args = args._replace(outer=(count,), inputs=inputs, outputs=outputs)
    return _with(call, args, count, chunks)


def _summed(call: Call, start: int, count: int, chunks: dict[Buffer, Buffer]) -> Call:
    """A product over rows, for some of them: added to the sum of the chunks before."""
    args = call.args
    if isinstance(args, MatmulArgs):
        a = args.a._replace(place=_ahead(args.a.place, start * args.a.column, chunks))
        row = args.b.place.buffer.size // args.k  # of packed b
        b = args.b._replace(place=args.b.place.ahead(start * row))
        args = args._replace(k=count, a=a, b=b)
    made = _with(call, args, count, chunks)
    if not start:
        return made
    assert isinstance(call.kernel, Matmul)
    kernel = replace(call.kernel, accumulate=True)
    return replace(made, kernel=kernel, reads=(*made.reads, *made.writes))


def _ahead(place: Place[Buffer], elements: int, chunks: dict[Buffer, Buffer]) -> Place[Buffer]:
    """A place so many elements on; within a chunk it begins anew."""
    chunk = chunks.get(place.buffer)
    return place.ahead(elements) if chunk is None else Place(chunk, 0)


def _with(call: Call, args: Args[Place[Buffer]], count: int, chunks: dict[Buffer, Buffer]) -> Call:
    def moved(view: View) -> View:
        if view.buffer not in chunks:
            return view
        width = view.shape[-1]
        return View(chunks[view.buffer], (count, width), (width, 1))

    return replace(
        call, args=args, reads=tuple(map(moved, call.reads)), writes=tuple(map(moved, call.writes))
    )
