"""Epilogue fusion: a row program runs on the rows that a product has just made, task by task.

In: a Fusion. Out: a Schedule of launches in order. A group becomes a kernel call here, for the
product that it follows decides how its rows are cut into tasks. A stage of pipeline.py.
"""

from __future__ import annotations

from ...backends.kernels.kinds import Matmul
from ...backends.target import Target
from ..fuse.body import Body
from .records import Buffer, Call, Fusion, Launch, Schedule, View


def fuse_epilogues(fusion: Fusion, target: Target) -> Schedule:
    """Each unit as a launch; a product moves to the row program that reads it next."""
    units = _hoisted([u for u in fusion.units if isinstance(u, Call) or u.stores])
    readers = _readers(units)
    epilogues: dict[int, list[int]] = {}
    for i, unit in enumerate(units):
        if isinstance(unit, Call) and isinstance(unit.kernel, Matmul):
            first = min(readers.get(unit.writes[0].buffer, [-1]))
            if first > i and _is_epilogue(unit, units[first]):
                epilogues.setdefault(first, []).append(i)
    moved = {i for group in epilogues.values() for i in group}
    launches = []
    for i, unit in enumerate(units):
        if i in moved:
            continue
        products = [units[j] for j in epilogues.get(i, [])]
        rows = {p.args[5] for p in products if isinstance(p, Call)}
        if len(rows) > 1:  # they cut their rows differently: only the last one is ridden on
            for product in products[:-1]:
                assert isinstance(product, Call)
                launches.append(Launch([product]))
            products = products[-1:]
        calls = [p for p in products if isinstance(p, Call)]
        if isinstance(unit, Body):
            per_task = calls[0].args[5] if calls else 0
            assert isinstance(per_task, int)
            calls.append(unit.call(per_task))
        else:
            calls.append(unit)
        launches.append(Launch(calls))
    return Schedule(fusion, tuple(launches), fusion.places)


def _hoisted(units: list[Body | Call]) -> list[Body | Call]:
    """The units, a row program that can ride on a product brought before others that read that, if
    all else that it reads is made earlier."""
    readers = _readers(units)
    writers: dict[Buffer, list[int]] = {}
    for i, unit in enumerate(units):
        for view in unit.writes if isinstance(unit, Call) else [s.view for s in unit.stores]:
            writers.setdefault(view.buffer, []).append(i)
    place = {i: (i, 1) for i in range(len(units))}
    for i, unit in enumerate(units):
        if not (isinstance(unit, Call) and isinstance(unit.kernel, Matmul)):
            continue
        found = readers.get(unit.writes[0].buffer, [])
        epilogue = next((r for r in found if r > i and _is_epilogue(unit, units[r])), -1)
        if epilogue < 0 or found[0] in (epilogue, i) or place[epilogue] != (epilogue, 1):
            continue
        made = [
            w for v in _reads(units[epilogue]) for w in writers.get(v.buffer, []) if w < epilogue
        ]
        if max(made, default=-1) < found[0]:
            place[epilogue] = (found[0], 0)
    return [units[i] for i in sorted(place, key=lambda i: place[i])]


def _readers(units: list[Body | Call]) -> dict[Buffer, list[int]]:
    """The numbers of the units that read each buffer, in their order."""
    readers: dict[Buffer, list[int]] = {}
    for i, unit in enumerate(units):
        for buffer in {v.buffer for v in _reads(unit)}:
            readers.setdefault(buffer, []).append(i)
    return readers


def _reads(unit: Body | Call) -> list[View]:
    return unit.reads if isinstance(unit, Call) else [load.view for load in unit.loads]


def _is_epilogue(product: Call, group: Body | Call) -> bool:
    """Whether a row program can take the product's rows task by task."""
    if not isinstance(group, Body) or group.kind != "rows":
        return False
    b0, b1, m, n, *_ = product.args
    columns = product.args[6]
    assert isinstance(n, int) and isinstance(columns, int)
    if (b0, b1) != (1, 1) or columns < n or (group.rows, group.columns) != (m, n):
        return False
    out = product.writes[0]
    for load in group.loads:
        if load.view.buffer is out.buffer:
            flat = load.view.reshape((group.rows * group.columns,))
            if load.gathers or flat is None or flat.strides != (1,) or flat.offset != out.offset:
                return False
    return True
