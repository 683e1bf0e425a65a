"""fuse: the nodes of a lowered graph become calls of kernels, in an order in which they can run.

In: Ends. Out: a Fusion: units in order (groups, still open for more outputs, and finished calls),
the view in which each end's value lies, and a reason for each fusion that was refused. A stage of
pipeline.py.

Nodes are taken in topological order, small values first. A map or a reduction joins the group that
made its latest operand where the domain is the same and every other operand was ready before it;
else it begins a group. A value is stored only when a later unit asks for it, and where it is cheap
(a few maps of stored values) it is computed again instead. Movement is strides. What no kernel can
do is called as it is (Opaque).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ... import backends, ops
from ...backends.kernels.kinds import Opaque
from ...backends.target import Target
from ...node import CONST, INPUT, ITEM, REBOUND, Graph, Node, Spec, execute
from ..schedule.layout import Shape
from ..schedule.records import Buffer, Call, Ends, Fusion, View, whole
from . import emit as calls
from .group import Group, Member, copying, filling, fresh
from .order import REDUCTIONS, SMALL, VIEWS, ordered
from .reductions import reduce
from .symbolic import NoValue, Program

CHEAP = 4  # map instructions that are rather repeated than stored
CHAIN = 16  # the same for one reader: it computes them instead, not once more
LONGEST = 512  # instructions: a group that has more takes no other map
FOLDED = 1 << 22  # elements of a value that depends on nothing: computed with the plan
_COSTLY = frozenset(["exp", "log", "log1p", "expm1", "tanh", "sin", "cos", "erf", "pow", "sqrt"])


def fuse(graph: Ends, target: Target) -> Fusion:
    """The stage of pipeline.py."""
    final = dict(zip(graph.ends, graph.roots, strict=True))
    fuser = Fuser(graph.roots, {s: final[end] for s, end in graph.states.items()}, target)
    fuser.run()
    for source in graph.states:  # one that nobody reads can be written over as well
        if source not in fuser.inputs:
            fuser.inputs[source] = Buffer("input", source.dtype.name, prod(source.shape), source)
    return Fusion(
        graph,
        tuple(fuser.units),
        {end: fuser.materialise(root) for end, root in final.items()},
        fuser.inputs,
        fuser.constants,
        tuple(fuser.refusals),
    )


class Fuser:
    """One graph on its way to kernels."""

    def __init__(self, roots: Sequence[Node], states: dict[Node, Node], target: Target) -> None:
        """states: for an INPUT whose Tensor changes, the node that it ends as."""
        self.roots, self.states, self.target = roots, states, target
        self.graph, self.ends = Graph(roots), set(roots)
        self.users = self.graph.users()
        self.units: list[Group | Call] = []
        self.unit_of: dict[Node, int] = {}  # of values that a unit makes
        self.places: dict[Node, View] = {}
        self.folded: dict[Node, Any] = {}
        self.inputs: dict[Node, Buffer] = {}
        self.constants: dict[Buffer, Any] = {}
        self.packed: dict[Any, View] = {}  # by fuse/emit.py, for shared operands
        self.refusals: list[str] = []
        self.refused: dict[Any, str] = {}
        self.deferred: set[Node] = set()  # cheap maps that nobody has asked to be stored
        self.readers: dict[Node, int] = {}  # the last group that reads a value element by element
        self.columns: list[int] = []  # groups along rows that may take more

    def tiles(self, m: int, n: int, k: int, batch: int, node: Node) -> tuple[int, int, int]:
        """Rows and columns per task of a product, and panels per task of its packing. Where maps
        read it, a task has whole rows: then they can ride on it."""
        rides = self.target.takes_epilogues(m, _name(node)) and all(
            user.op.kind in ("map", "reduce") for user in self._readers(node)
        )
        return self.target.cut(m, n, k, batch, _name(node), full_rows=rides)

    def _readers(self, node: Node) -> list[Node]:
        """What reads a value, also through reshapes."""
        found: list[Node] = []
        left = self.users[node][::-1]
        while left:
            user = left.pop()
            if user.op in (ops.RESHAPE, REBOUND):
                left += self.users[user][::-1]
            else:
                found.append(user)
        return found

    def run(self) -> None:
        for node in ordered(self.graph, self.users):
            self._place(node)
        for root in self.roots:
            self.materialise(root)

    # One node -----------------------------------------------------------------------------------
    def _place(self, node: Node) -> None:
        if node.op is INPUT:
            spec = node.spec
            self.inputs[node] = Buffer("input", spec[1].name, prod(spec[0]), node)  # type: ignore
            self.places[node] = whole(self.inputs[node], node.shape)
        elif self._fold(node) or node.op in VIEWS or node.op is ops.FULL:
            return
        elif not self._native(node):
            self._opaque(node, "it is empty")
        elif node.op.kind == "map" and isinstance(node.spec, Spec):
            why = self._refuses(node)
            if why or not self._map(node):
                self._opaque(node, f"its forward has no scalar expression{': ' * bool(why)}{why}")
        elif node.op in REDUCTIONS:
            if not reduce(self, node):
                self._opaque(node, "these axes lie apart")
        else:
            made = calls.CALLS.get(node.op)
            if made is None or not made(self, node):
                self._opaque(node, "no kernel does this")

    def _refuses(self, node: Node) -> str:
        """Why a map's forward makes no sense for single elements, if so; asked once for each use.
        A user who wrote a forward as a map is told."""
        dtypes = tuple(map(_name, node.srcs))
        key = node.op, dtypes, repr(node.attrs)
        if key not in self.refused:
            promised = None if node.op.ours else _name(node)
            why = Program.refuses(node.op.forward, dtypes, dict(node.attrs), promised)
            self.refused[key] = why
            if why and not node.op.ours:
                warnings.warn(
                    f"the map op {node.op.name} is called as it is and not compiled: {why}; write "
                    "its forward with arithmetic and xp functions of single elements, or make it "
                    "an op of another kind",
                    stacklevel=2,
                )
        return self.refused[key]

    def _native(self, node: Node) -> bool:
        specs = [node.spec] if isinstance(node.spec, Spec) else list(node.spec)
        for src in node.srcs:
            specs += [src.spec] if isinstance(src.spec, Spec) else list(src.spec)
        return all(prod(s.shape) > 0 for s in specs)

    def _fold(self, node: Node) -> bool:
        """Compute now what depends on nothing."""
        if node.array is not None:
            self.folded[node] = node.array
        elif node.op is CONST:
            xp = backends.get(node.device)
            self.folded[node] = xp.scalar(node.attrs["value"], node.dtype)
        elif (
            node.op.kind in ("random", "leaf", "opaque")
            or node.op in (ops.FULL, ITEM, REBOUND)
            or not isinstance(node.spec, Spec)
            or prod(node.shape) > FOLDED
        ):
            return False
        elif all(src in self.folded for src in node.srcs):
            arrays = [self.folded[src] for src in node.srcs]
            self.folded[node] = execute(node.op, node.device, arrays, node.attrs, node.spec)
        else:
            return False
        return True

    def refuse(self, node: Node, why: str) -> None:
        where = "  ".join(x for x in (node.scope, node.line) if x)
        self.refusals.append(f"{node.op.name} {list(node.shape)}: {why}  {where}".rstrip())

    def _opaque(self, node: Node, why: str) -> None:
        where = "  ".join(x for x in (node.scope, node.line) if x)
        self.refusals.append(f"{node.op.name}: called as it is: {why}  {where}".rstrip())
        reads = [self.materialise(src) for src in node.srcs]
        specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
        writes = [fresh(s.dtype.name, s.shape, node) for s in specs]
        self.emit(Call(Opaque(node.op.name), [], reads, writes, [node]))
        self.made(node, *writes)

    def emit(self, call: Call | Group) -> None:
        self.units.append(call)

    def made(self, node: Node, *views: View) -> None:
        """The newest unit makes this value; one view for each output of its op."""
        self.unit_of[node] = len(self.units) - 1
        if isinstance(node.spec, Spec):
            self.places[node] = views[0]
            return
        for user in self.users[node]:
            self.unit_of[user] = len(self.units) - 1
            self.places[user] = views[user.attrs["i"]]

    # Where values are ---------------------------------------------------------------------------
    def ready(self, node: Node) -> int:
        """The last unit that must have run before this value is there; -1: it is from the start."""
        latest, left = -1, [node]
        while left:
            node = left.pop()
            unit = self.unit_of.get(node)
            if unit is not None:
                latest = max(latest, unit)
            elif node not in self.folded and node.op not in (INPUT, ops.FULL):
                left += node.srcs
        return latest

    def materialise(self, node: Node) -> View:
        """Where a value lies; a group is asked to store it where it does not yet."""
        found = self.places.get(node)
        if found is not None:
            return found
        moved = []  # by which movements it is made of what lies somewhere
        while node not in self.places and not self._is_made(node):
            moved.append(node)
            node = node.srcs[0]
        found = self.places.get(node)
        if found is None:
            found = self.places[node] = self._made_view(node)
        for node in reversed(moved):
            there = _moved(node, found)
            found = self.places[node] = self._dense(node, found) if there is None else there
        return found

    def _is_made(self, node: Node) -> bool:
        """Whether a value is computed, and no other's seen in another way."""
        computed = node in self.folded or node in self.deferred or node in self.unit_of
        return computed or node.op is ops.FULL

    def _made_view(self, node: Node) -> View:
        if node in self.folded:
            return self._constant(node, self.folded[node])
        if node.op is ops.FULL:
            attrs = node.attrs
            value = np.full(attrs["shape"], attrs["value"], node.dtype.np)
            if value.size <= SMALL:
                return self._constant(node, value)
            target = fresh(node.dtype.name, node.shape, node)
            self.emit(filling(target, attrs["value"]))
            self.unit_of[node] = len(self.units) - 1
            return target
        if node in self.deferred:
            self.deferred.remove(node)
            begun = self._begin(node)
            assert begun, "a deferred map has a scalar expression"
        group = self.units[self.unit_of[node]]
        assert isinstance(group, Group)
        target = fresh(node.dtype.name, node.shape, node)
        group.store(group.members[node], target)
        return target

    def _dense(self, node: Node, src: View) -> View:
        """A copy in row-major order, which every reshape can look at."""
        target = fresh(src.dtype, src.shape, node)
        self.emit(copying(src, target))
        self.unit_of[node] = len(self.units) - 1
        return whole(target.buffer, node.shape)

    def _constant(self, node: Node, array: Any) -> View:
        value = np.ascontiguousarray(array)
        buffer = Buffer("constant", value.dtype.name, value.size, node)
        self.constants[buffer] = value
        return whole(buffer, node.shape)

    # Groups -------------------------------------------------------------------------------------
    def _map(self, node: Node) -> bool:
        size = prod(node.shape)
        unit = max((self.ready(src) for src in node.srcs), default=-1)
        group = self.units[unit] if unit >= 0 else None
        if isinstance(group, Group) and group.kind == "rows":
            level = group.level(size)
            waits = size == 1 and group.columns > 1 and not self._own(group, node)
            if level and not waits and self._try(group, unit, node, level):
                return True
        alone = len(self.users[node]) == 1 and size > 1
        waits = (size > SMALL or alone) and node not in self.ends  # those are stored anyway
        if waits and self._cost(node) <= CHEAP:
            self.deferred.add(node)
            return True
        return self._beside(node, unit) or self._begin(node)

    def _beside(self, node: Node, unit: int) -> bool:
        """Join the group that reads the same large value, where all else was ready before it."""
        below = [value for src in node.srcs for value in self.stored_below(src)]
        number, group = self.reader(below, unit, prod(node.shape))
        return group is not None and self._try(group, number, node, "element")

    def reader(self, values: list[Node], unit: int, size: int) -> tuple[int, Group | None]:
        """The newest row program that reads one of these values, if it comes after `unit` and has
        so many elements."""
        number = max((self.readers.get(value, -1) for value in values), default=-1)
        group = self.units[number] if number > unit else None
        if isinstance(group, Group) and group.kind == "rows" and group.level(size) == "element":
            return number, group
        return number, None

    def stored_below(self, node: Node) -> list[Node]:
        """A value, or those that it is made of where it is made only when it is read."""
        if node not in self.deferred:
            return [node]
        return [found for src in node.srcs for found in self.stored_below(src)]

    def _own(self, group: Group, node: Node) -> bool:
        """Whether a number is made of a group's values alone: else it would have the group wait."""
        return all(self.ready(src) < 0 or _inside(group, src) for src in node.srcs)

    def _begin(self, node: Node) -> bool:
        """A map in a group of its own."""
        fitting = [n for n in node.shape if n != 1]
        group = Group("rows", tuple(fitting[:-1]), fitting[-1] if fitting else 1)
        for every in (False, True):  # at first what is cheap stays unstored
            for src in node.srcs:
                if src not in self.folded and (every or not self.cheap(src)):
                    self.materialise(src)
            group = Group("rows", group.outer, group.columns)
            self.emit(group)
            if self._try(group, len(self.units) - 1, node, "element"):
                return True
        return False

    def _try(self, group: Group, unit: int, node: Node, level: str) -> bool:
        """Let a map join; False, and the group is as it was, where it cannot."""
        if len(group.program.instrs) > LONGEST:
            return False
        mark = group.mark()
        inputs = []
        for src in node.srcs:
            number = self._operand(group, unit, src, node.shape, level)
            if number is None:
                group.back(mark)
                return False
            inputs.append(number)
        try:
            result = group.program.map(node.op.forward, inputs, node.dtype.name, dict(node.attrs))
        except NoValue:
            group.back(mark)
            return False
        self.take(group, unit, node, Member(result, level))
        return True

    def join(self, group: Group, node: Node, member: Member) -> None:
        """The newest unit, a group, takes a value that is no map."""
        group.reduces = True  # its rows and columns have a meaning
        self.take(group, len(self.units) - 1, node, member)

    def stored(self, node: Node, target: View) -> int:
        """Have the group that makes a value write it to `target`, where nobody else has asked for
        it yet and strides allow it; the group's number, or -1."""
        while node.op in (ops.RESHAPE, REBOUND) and node not in self.places:
            node = node.srcs[0]
        place = target.reshape(node.shape)
        if node in self.places or node not in self.unit_of or place is None:
            return -1
        unit = self.unit_of[node]
        group = self.units[unit]
        assert isinstance(group, Group)
        member = group.members[node]
        columns = group.columns if member.level == "element" else 1
        if target.reshape((*group.outer, columns)) is None:
            return -1
        group.store(member, place)
        self.places[node] = place
        return unit

    def dense(self, node: Node) -> View:
        """A value in row-major order: copied."""
        self.places[node] = self._dense(node, self.materialise(node))
        return self.places[node]

    def take(self, group: Group, unit: int, node: Node, member: Member) -> None:
        """Unit number `unit`, a group, makes this value from now on."""
        self.known(group, unit)
        group.members[node] = member
        group.nodes.append(node)
        self.unit_of[node] = unit

    def known(self, group: Group, unit: int) -> None:
        """Others may join where a group reads what they read."""
        self.readers.update(dict.fromkeys(group.reading, unit))
        group.reading.clear()

    def operand(self, group: Group, unit: int, src: Node, shape: Shape, level: str) -> int | None:
        """The instruction for src, stretched to `shape`, inside a group; None, and the group is as
        it was, where there is no way without storing something first."""
        mark = group.mark()
        number = self._operand(group, unit, src, shape, level)
        if number is None:
            group.back(mark)
        return number

    def _operand(self, group: Group, unit: int, src: Node, shape: Shape, level: str) -> int | None:
        """operand(), but what has been read on the way to None stays read."""
        while True:
            if src in self.folded and src.op is not ops.ARANGE and prod(src.shape) == 1:
                value = np.asarray(self.folded[src]).reshape(()).item()
                return group.program.const(value, _name(src))
            if src.op is ops.FULL:
                return group.program.const(src.attrs["value"], _name(src))
            inside = _inside(group, src)
            if inside is not None:
                return self._stretched(group, inside, src.shape, shape, level)
            if self._counts_columns(group, src, level):
                number = group.program.add("col", (), "int64")
                return group.program.cast(number, _name(src))
            if self.ready(src) >= unit:
                return None
            if src in self.places or not self.cheap(src):
                break
            if src.op not in (ops.RESHAPE, REBOUND) or src.shape != shape:
                return self._again(group, unit, src, shape, level)
            src = src.srcs[0]
            shape = src.shape
        view = self.materialise(src)
        if self.ready(src) >= unit:  # it had to be copied first
            return None
        if level == "element" and src.shape == shape:
            group.reading.append(src)
        return group.load(view.broadcast(shape), level)

    def _stretched(
        self, group: Group, inside: Member, old: Shape, shape: Shape, level: str
    ) -> int | None:
        if prod(old) == prod(shape):
            return inside.instr
        if inside.level == "row" and level == "element" and _per_row(group, old, shape):
            return inside.instr
        return None

    def _counts_columns(self, group: Group, src: Node, level: str) -> bool:
        attrs = src.attrs
        return (
            src.op is ops.ARANGE
            and level == "element"
            and attrs["start"] == 0
            and attrs["step"] == 1
            and attrs["count"] == group.columns > 64
        )

    def cheap(self, node: Node) -> bool:
        """Whether a group rather computes it again than asks for it to be stored."""
        return self._cost(node) <= CHEAP

    def _cost(self, node: Node) -> int:
        """Map instructions that computing a value once more takes, from values that lie somewhere;
        more than CHEAP where it reads too much."""
        found = self._work(node, prod(node.shape))
        if found is None:
            return CHEAP + 1
        work, reads = found
        if len(self.users[node]) < 2:
            return min(work, CHEAP) if work <= CHAIN and reads <= 2 else CHEAP + 1
        return work if reads <= 1 else CHEAP + 1

    def _work(self, node: Node, size: int, depth: int = 0) -> tuple[int, int] | None:
        """(map instructions, operands as large as `size` that they read); None: too much."""
        while node.op in (ops.RESHAPE, REBOUND):
            node = node.srcs[0]
        if node.op in (ops.FULL, CONST) or (node in self.folded and node.op is ops.ARANGE):
            return 0, 0
        full = int(2 * prod(node.shape) > size)
        if node in self.places or node in self.folded or node.op is INPUT:
            return 0, full
        if node.op in VIEWS:
            src = node.srcs[0]
            return (0, full) if src in self.places or src.op is INPUT or not full else None
        if self._little(node):
            return 0, 0
        costly = node.op.name in _COSTLY and len(self.users[node]) > 1
        if node.op.kind != "map" or costly or depth > CHAIN:
            return None
        work, reads = 1, 0
        for src in node.srcs:
            found = self._work(src, size, depth + 1)
            if found is None:
                return None
            work, reads = work + found[0], reads + found[1]
        return work, reads

    def _little(self, node: Node) -> bool:
        """Whether it is in a group that stores it for next to nothing."""
        if node not in self.unit_of:
            return False
        group = self.units[self.unit_of[node]]
        if not isinstance(group, Group) or node not in group.members:
            return False
        return prod(node.shape) <= SMALL or group.members[node].level == "row"

    def _again(self, group: Group, unit: int, node: Node, shape: Shape, level: str) -> int | None:
        """A cheap value computed once more; one that lies somewhere is read."""
        if node.op.kind != "map" or self._little(node):
            view = self.materialise(node)
            return None if self.ready(node) >= unit else group.load(view.broadcast(shape), level)
        inputs = []
        for src in node.srcs:
            number = self._operand(group, unit, src, shape, level)
            if number is None:
                return None
            inputs.append(number)
        if node not in group.nodes:
            group.nodes.append(node)
        return group.program.map(node.op.forward, inputs, _name(node), dict(node.attrs))


def _name(node: Node) -> str:
    return node.dtype.name


def _inside(group: Group, node: Node) -> Member | None:
    """A value of the group, seen through what keeps elements in their row-major places."""
    while True:
        found = group.members.get(node)
        if found is not None:
            return found
        if node.op not in (ops.RESHAPE, REBOUND) and not (
            node.op is ops.BROADCAST and prod(node.shape) == prod(node.srcs[0].shape)
        ):
            break
        node = node.srcs[0]
    if node.op is ops.BROADCAST:
        inner = _inside(group, node.srcs[0])
        if (
            inner is not None
            and inner.level == "row"
            and _per_row(group, node.srcs[0].shape, node.shape)
        ):
            return Member(inner.instr, "element")
    return None


def _per_row(group: Group, old: Shape, shape: Shape) -> bool:
    """Whether stretching `old` to `shape` repeats one value for each row along its columns."""
    padded = (1,) * (len(shape) - len(old)) + old
    lead = next((i for i, (a, b) in enumerate(zip(padded, shape, strict=True)) if a != b), 0)
    return (
        prod(padded[:lead]) == group.rows
        and all(n == 1 for n in padded[lead:])
        and prod(shape[lead:]) == group.columns
    )


def _moved(node: Node, src: View) -> View | None:
    """The view that a movement op makes; None where strides cannot say it."""
    op, attrs = node.op, node.attrs
    if op in (ops.RESHAPE, ops.BROADCAST):
        how = src.reshape if op is ops.RESHAPE else src.broadcast
        return how(attrs["shape"])
    if op is ops.PERMUTE:
        return src.permute(attrs["order"])
    if op is ops.SLICE:
        return src.slice(attrs["ranges"])
    if op is ops.FLIP:
        return src.flip(attrs["axis"])
    return src  # REBOUND
