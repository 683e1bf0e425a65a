"""Epilogue fusion: a row program runs on the rows that a product has just made, task by task.

In: a Fusion. Out: a Schedule of launches in order. A group becomes a kernel call here, for the
product that it follows decides how its rows are cut into tasks. A stage of pipeline.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

from ...backends.kernels.arguments import GemmArgs, MatmulArgs
from ...backends.kernels.kinds import Matmul
from ...backends.target import Target
from ..fuse.body import Body
from .gemm_epilogue import fused, is_elementwise
from .records import Buffer, Call, Fusion, Launch, Schedule, View


def fuse_epilogues(fusion: Fusion, target: Target) -> Schedule:
    """Each unit as a launch; a product moves to the row program that reads it next."""
    units = _hoisted([u for u in fusion.units if isinstance(u, Call) or u.stores], target)
    readers = _readers(units)
    epilogues: dict[int, list[int]] = {}
    for i, unit in enumerate(units):
        if _is_product(unit):
            first = min(readers.get(unit.writes[0].buffer, [-1]))
            if first > i and _is_epilogue(unit, units[first], target):
                epilogues.setdefault(first, []).append(i)
    kept = {view.buffer for view in fusion.places.values()}
    moved = {i for group in epilogues.values() for i in group}
    launches = []
    for i, unit in enumerate(units):
        if i in moved:
            continue
        products = [p for j in epilogues.get(i, []) if isinstance(p := units[j], Call)]
        if products and isinstance(unit, Body) and isinstance(products[-1].args, GemmArgs):
            launches += [Launch((product,)) for product in products[:-1]]
            out = products[-1].writes[0].buffer
            keeps = len(readers[out]) > 1 or out in kept
            launches.append(Launch((fused(products[-1], unit, keeps),)))
            continue
        calls = [_by_rows(product, target) for product in products]
        cuts = [c.args.rows_per_task for c in calls if isinstance(c.args, MatmulArgs)]
        if len(set(cuts)) > 1:  # they cut their rows differently: only the last one is ridden on
            launches += [Launch((product,)) for product in products[:-1]]
            calls, cuts = calls[-1:], cuts[-1:]
        calls.append(unit.call(cuts[0] if cuts else 0) if isinstance(unit, Body) else unit)
        launches.append(Launch(tuple(calls)))
    return Schedule(fusion, tuple(launches), fusion.places)


def _hoisted(units: list[Body | Call], target: Target) -> list[Body | Call]:
    """The units, a row program that can ride on a product brought before others that read that, if
    all else that it reads is made earlier."""
    readers = _readers(units)
    writers: dict[Buffer, list[int]] = {}
    for i, unit in enumerate(units):
        for view in unit.writes if isinstance(unit, Call) else [s.view for s in unit.stores]:
            writers.setdefault(view.buffer, []).append(i)
    place = {i: (i, 1) for i in range(len(units))}
    for i, unit in enumerate(units):
        if not _is_product(unit):
            continue
        found = readers.get(unit.writes[0].buffer, [])
        epilogue = next((r for r in found if r > i and _is_epilogue(unit, units[r], target)), -1)
        if epilogue < 0 or found[0] in (epilogue, i) or place[epilogue] != (epilogue, 1):
            continue
        made = [
            w for v in _reads(units[epilogue]) for w in writers.get(v.buffer, []) if w < epilogue
        ]
        if max(made, default=-1) < found[0]:
            place[epilogue] = (found[0], 0)
    return [units[i] for i in sorted(place, key=lambda i: place[i])]


def _is_product(unit: Body | Call) -> TypeGuard[Call]:
    return isinstance(unit, Call) and isinstance(unit.args, (MatmulArgs, GemmArgs))


def _readers(units: list[Body | Call]) -> dict[Buffer, list[int]]:
    """The numbers of the units that read each buffer, in their order."""
    readers: dict[Buffer, list[int]] = {}
    for i, unit in enumerate(units):
        for buffer in {v.buffer for v in _reads(unit)}:
            readers.setdefault(buffer, []).append(i)
    return readers


def _reads(unit: Body | Call) -> Sequence[View]:
    return unit.reads if isinstance(unit, Call) else [load.view for load in unit.loads]


def _by_rows(product: Call, target: Target) -> Call:
    """A product whose tasks have all columns of their rows, as an epilogue reads them."""
    args = product.args
    assert isinstance(args, MatmulArgs) and isinstance(product.kernel, Matmul)
    cut = target.cut(args.m, args.n, args.k, 1, product.kernel.dtype, full_rows=True)
    args = args._replace(rows_per_task=cut.rows, columns_per_task=cut.columns)
    return replace(product, args=args)


def _is_epilogue(product: Call, group: Body | Call, target: Target) -> bool:
    """True if a row program can take the product's rows task by task: each of its rows reads of
    the product the same row alone."""
    args, out = product.args, product.writes[0]
    if isinstance(args, GemmArgs):
        return isinstance(group, Body) and is_elementwise(product, group)
    if not isinstance(group, Body) or group.kind != "rows" or not isinstance(args, MatmulArgs):
        return False
    assert isinstance(product.kernel, Matmul)
    fits = (args.b0, args.b1) == (1, 1) and group.rows == args.m
    if not fits or not target.takes_epilogues(args.m, product.kernel.dtype):
        return False
    for load in group.loads:
        if load.view.buffer is out.buffer:
            rows = load.view.reshape((group.rows, group.columns))
            if load.gathers or rows is None or rows.strides[0] != args.n:
                return False
            first = rows.offset - out.offset
            if first < 0 or first + (group.columns - 1) * rows.strides[1] >= args.n:
                return False
    return True
