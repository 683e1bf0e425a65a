"""panels: a projection with its loss, forward and backward, some rows at a time.

In: launches in order. Out: launches in order, where a large product that a row program turns at
once into a gradient (logits into their gradient), which only products read, is cut by rows: each
panel goes through all of them before the next one begins. So of logits and gradient there is one
panel in memory. The bits are those of the whole: a panel has whole blocks of rows, which is how
a product over rows adds them up anyway. Called by schedule/plan.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...backends.kernels.kinds import Matmul, Rows
from ...backends.target import Target
from .records import Buffer, Call, Launch, Schedule, View

PANEL_BYTES = 16 << 20


@dataclass(eq=False)
class _Loss:
    """Numbers of the launches that share panels, and what lies in one: M rows of `columns`."""

    first: int  # product and row program: makes the gradient
    by_rows: int  # gradient @ weight
    by_columns: int  # gradient.T @ input, summed over rows
    rows: int
    columns: int
    height: int  # rows of a panel
    inside: tuple[Buffer, Buffer]  # logits, gradient


def chunk_losses(schedule: Schedule, target: Target) -> Schedule:
    """Every such loss cut into panels."""
    launches, i = list(schedule.launches), 0
    while i < len(launches):
        found = _found(launches, i, target.block) if _large(launches[i]) else None
        if found is not None:
            launches = _cut(launches, found) or launches
        i += 1
    same = tuple(launches) == schedule.launches
    return schedule if same else replace(schedule, launches=tuple(launches))


def _large(launch: Launch) -> bool:
    """Whether it begins with a product that is larger than a panel: asked of all launches."""
    call = launch.calls[0]
    return isinstance(call.kernel, Matmul) and call.writes[0].buffer.bytes > PANEL_BYTES


def _found(launches: list[Launch], i: int, block: int) -> _Loss | None:
    calls = launches[i].calls
    if [type(c.kernel) for c in calls] != [Matmul, Rows]:
        return None
    product, program = calls
    b0, b1, m, n, *_ = (x for x in product.args[:7] if isinstance(x, int))
    logits = product.writes[0].buffer
    whole = [v.buffer for v in program.writes if v.buffer.size == m * n]
    readers = [
        [j for j, launch in enumerate(launches) if any(v.buffer is b for v in launch.reads)]
        for b in (logits, *whole)
    ]
    if (b0, b1) != (1, 1) or len(whole) != 1 or readers[0] != [i]:
        return None
    inside = (logits, whole[0])
    height = _height(n, logits, block)
    if any(b.kind != "arena" for b in inside) or height >= m:
        return None
    found: dict[str, int] = {}
    for j in readers[1]:
        head = launches[j].calls[0]
        if not isinstance(head.kernel, Matmul) or head.reads[0].buffer is not whole[0]:
            return None
        if any(v.buffer is whole[0] for c in launches[j].calls[1:] for v in c.reads):
            return None
        m_, _, k_ = head.args[2:5]
        _, _, along_m, along_k = head.args[8:12]
        if (m_, along_m, along_k) == (m, n, 1):
            found["by_rows"] = j
        elif (k_, along_m, along_k) == (m, 1, n):
            found["by_columns"] = j
    if len(found) != 2 or len(readers[1]) != 2:
        return None
    by_rows = launches[found["by_rows"]]
    if not all(map(_sliceable, calls)) or not all(map(_sliceable, by_rows.calls)):
        return None
    return _Loss(i, found["by_rows"], found["by_columns"], m, n, height, inside)


def _height(columns: int, buffer: Buffer, block: int) -> int:
    """Rows of a panel: whole blocks, as many as fit."""
    row = columns * (buffer.bytes // buffer.size)
    return max(1, PANEL_BYTES // row // block) * block


def _sliceable(call: Call) -> bool:
    """Whether a call can be done for some of its rows."""
    if isinstance(call.kernel, Matmul):
        return call.args[:2] == [1, 1]
    if not isinstance(call.kernel, Rows) or call.kernel.outer != 1:
        return False
    plain = all(i.op not in ("row", "gather") for i in call.kernel.instrs)
    return plain and all(o.at < 0 for o in call.kernel.outputs)


def _cut(launches: list[Launch], loss: _Loss) -> list[Launch] | None:
    """The launches with the panels in the place of the last of the three; what reads the results
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
    return [*before, *_panels(launches, loss), *after, *launches[end + 1 :]]


def _panels(launches: list[Launch], loss: _Loss) -> list[Launch]:
    height = loss.height
    made: list[Launch] = []
    before: tuple[Buffer, ...] = ()
    for start in range(0, loss.rows, height):
        count = min(height, loss.rows - start)
        size = count * loss.columns
        panels = {b: Buffer("arena", b.dtype, size, b.node) for b in loss.inside}
        for j in (loss.first, loss.by_rows):
            calls = [_sliced(c, start, count, panels) for c in launches[j].calls]
            made.append(Launch(calls, before if j == loss.first else ()))
        before = tuple(panels.values())
        head, *rest = launches[loss.by_columns].calls
        summed = _summed(head, start, count, panels)
        made.append(Launch([summed, *rest] if start + count == loss.rows else [summed]))
    return made


def _sliced(call: Call, start: int, count: int, panels: dict[Buffer, Buffer]) -> Call:
    """A call for rows start .. start + count."""
    args = list(call.args)
    if isinstance(call.kernel, Matmul):  # addresses of a and c with their strides along m
        args[2] = count
        for at, stride in ((7, 10), (15, 18)):
            _shift(args, at, start, stride, panels)
    else:
        args[0] = count
        width = 3  # address, stride along rows, stride along columns
        for at in range(3, len(args), width):
            _shift(args, at, start, at + 1, panels)
    return _with(call, args, count, panels)


def _summed(call: Call, start: int, count: int, panels: dict[Buffer, Buffer]) -> Call:
    """A product over rows, for some of them: added to what the panels before have made."""
    args = list(call.args)
    args[4] = count
    _shift(args, 7, start, 11, panels)
    address, n = args[12], args[3]
    assert isinstance(address, tuple) and isinstance(n, int)
    packed = call.reads[1].buffer
    args[12] = (packed, address[1] + packed.size // _whole(call) * start)
    made = _with(call, args, count, panels)
    if start:
        made.kernel = Matmul(packed.dtype, accumulate=True)
        made.reads = [*made.reads, *made.writes]
    return made


def _whole(call: Call) -> int:
    rows = call.args[4]
    assert isinstance(rows, int)
    return rows


def _shift(
    args: list[int | tuple[Buffer, int]],
    at: int,
    start: int,
    stride: int,
    panels: dict[Buffer, Buffer],
) -> None:
    """Move an address on by some rows; within a panel it begins anew."""
    address, step = args[at], args[stride]
    assert isinstance(address, tuple) and isinstance(step, int)
    buffer, offset = address
    args[at] = (panels[buffer], 0) if buffer in panels else (buffer, offset + start * step)


def _with(
    call: Call,
    args: list[int | tuple[Buffer, int]],
    count: int,
    panels: dict[Buffer, Buffer],
) -> Call:
    def moved(view: View) -> View:
        if view.buffer not in panels:
            return view
        width = view.shape[-1]
        return View(panels[view.buffer], (count, width), (width, 1))

    reads, writes = [moved(v) for v in call.reads], [moved(v) for v in call.writes]
    return Call(call.kernel, args, reads, writes, call.nodes)
