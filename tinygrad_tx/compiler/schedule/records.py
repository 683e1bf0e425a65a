"""The records that stages hand on: buffers, strided views of them, calls of kernels, launches, and
the frozen values that pipeline.py takes from stage to stage: Ends -> Fusion -> Schedule -> Plan.

Strides and offsets count elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...backends.kernels.arguments import Args, Place
from ...backends.kernels.kinds import Kernel, Opaque, RowProgram
from ...dtypes import ALL
from ...node import Graph, Node
from .layout import Shape, dense, reshaped, same_places

if TYPE_CHECKING:
    from ..fuse.body import Body
    from ..fuse.decisions import Decision


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory that a plan knows. kind, where its content comes from: "value" (kernels write it),
    "input" (a Tensor from outside), "constant" (made with the plan) or "report" (of a check). What
    becomes of it is its role in the Plan."""

    kind: str
    dtype: str
    size: int  # elements
    node: Node | None = None  # the value that it was made for
    parts: bool = False  # several units write it, each a part that no other one touches

    @property
    def bytes(self) -> int:
        return self.size * itemsize(self.dtype)

    def __str__(self) -> str:
        return f"{self.kind}:{ALL[self.dtype].short}[{self.size}]"


def itemsize(dtype: str) -> int:
    """Bytes of an element in memory."""
    return ALL[dtype].itemsize


@dataclass(frozen=True, eq=False)
class View:
    """Elements of a buffer at offset + sum(index * stride)."""

    buffer: Buffer
    shape: Shape
    strides: Shape
    offset: int = 0

    @property
    def dtype(self) -> str:
        return self.buffer.dtype

    @property
    def place(self) -> Place[Buffer]:
        """The place of its first element."""
        return Place(self.buffer, self.offset)

    @property
    def contiguous(self) -> bool:
        return same_places(self.shape, self.strides, dense(self.shape))

    def same(self, other: View) -> bool:
        """True if both name the same elements in the same order."""
        return (
            self.buffer is other.buffer
            and self.offset == other.offset
            and self.shape == other.shape
            and same_places(self.shape, self.strides, other.strides)
        )

    # Movement -----------------------------------------------------------------------------------
    def reshape(self, shape: Shape) -> View | None:
        if shape == self.shape:
            return self
        strides = reshaped(self.shape, self.strides, shape)
        return None if strides is None else View(self.buffer, shape, strides, self.offset)

    def permute(self, order: Sequence[int]) -> View:
        shape, strides = (tuple(x[i] for i in order) for x in (self.shape, self.strides))
        return View(self.buffer, shape, strides, self.offset)

    def broadcast(self, shape: Shape) -> View:
        if shape == self.shape:
            return self
        extra = len(shape) - len(self.shape)
        strides = (0,) * extra + tuple(
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(self.shape, shape[extra:], self.strides, strict=True)
        )
        return View(self.buffer, shape, strides, self.offset)

    def slice(self, ranges: Sequence[tuple[int, int, int]]) -> View:
        shape = tuple(len(range(*r)) for r in ranges)
        strides = tuple(s * r[2] for s, r in zip(self.strides, ranges, strict=True))
        offset = sum(s * r[0] for s, r, n in zip(self.strides, ranges, shape, strict=True) if n)
        return View(self.buffer, shape, strides, self.offset + offset)

    def flip(self, axes: Sequence[int]) -> View:
        last = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        strides = tuple(-s if i in axes else s for i, s in enumerate(self.strides))
        return View(self.buffer, self.shape, strides, self.offset + sum(last[i] for i in axes))

    def windows(self, axis: int, size: int, step: int, dilation: int) -> View:
        """Runs of an axis, which may overlap; their elements in a new last axis."""
        n, stride = (self.shape[axis] - dilation * (size - 1) - 1) // step + 1, self.strides[axis]
        shape = (*self.shape[:axis], n, *self.shape[axis + 1 :], size)
        strides = (*self.strides[:axis], stride * step, *self.strides[axis + 1 :])
        return View(self.buffer, shape, (*strides, stride * dilation), self.offset)


def whole(buffer: Buffer, shape: Shape) -> View:
    return View(buffer, shape, dense(shape))


class Binding(NamedTuple):
    """The place of a loop's buffer in one outside: `offset` bytes behind its beginning in the first
    round, `step` bytes further in each other one."""

    buffer: Buffer
    offset: int
    step: int = 0


@dataclass(frozen=True, eq=False)
class Loop:
    """A plan that runs `rounds` times. bindings: the places of its buffers; constants, reports and
    packed weights are buffers outside as they are."""

    plan: Plan
    rounds: int
    bindings: Mapping[Buffer, Binding]


@dataclass(frozen=True, eq=False)
class Call:
    """A Kernel with its arguments.

    reads, writes: the views that it touches. nodes: those that it computes, for explain(). loop: of
    a kernel of that kind, what it runs.
    """

    kernel: Kernel
    args: Args[Place[Buffer]]
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    nodes: tuple[Node, ...] = ()
    loop: Loop | None = None

    @property
    def ops(self) -> str:
        """The names of the ops that it computes."""
        return " ".join(dict.fromkeys(node.op.name for node in self.nodes)) or "copy"

    @property
    def gathered(self) -> set[int]:
        """The numbers of the reads that are of rows which other values name: their views do not
        say which."""
        instrs = self.kernel.instrs if isinstance(self.kernel, RowProgram) else ()
        return {instr.value for instr in instrs if instr.op == "gather"}


@dataclass(frozen=True, eq=False)
class Launch:
    """Calls whose tasks run one after the other: a product and the row program on its rows.

    waits: buffers that others must have read before it runs, so that its own can take their place.
    """

    calls: tuple[Call, ...]
    waits: tuple[Buffer, ...] = ()

    @property
    def reads(self) -> list[View]:
        return [v for call in self.calls for v in call.reads]

    @property
    def writes(self) -> list[View]:
        return [v for call in self.calls for v in call.writes]

    @property
    def opaque(self) -> bool:
        return isinstance(self.calls[0].kernel, Opaque)

    @property
    def loop(self) -> Loop | None:
        return self.calls[0].loop


Steps = tuple["list[list[Launch]] | Launch", ...]  # waves of native launches, and opaque calls


@dataclass(frozen=True, eq=False)
class Ends:
    """A recorded call as a graph. ends: the nodes whose values outlive it, as they were recorded;
    roots: the node that each has become. states: for each INPUT that changes, the end that it
    becomes. shown: the roots that users are shown, before ops are lowered. moving: of a loop's
    round, the INPUTs that are others in each round; its states end each round where they lay; None
    of a call. rounds: the plan of each SCAN's round, or the reason why there is none."""

    ends: tuple[Node, ...]
    states: Mapping[Node, Node]
    roots: tuple[Node, ...]
    shown: tuple[Node, ...] = ()
    moving: frozenset[Node] | None = None
    rounds: Mapping[Node, Plan | str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        results: Sequence[Node],
        states: Mapping[Node, Node],
        moving: frozenset[Node] | None = None,
    ) -> Ends:
        ends = tuple(dict.fromkeys((*results, *states.values())))
        return cls(ends, states, ends, moving=moving)


class Refusal(NamedTuple):
    """The reason for which a node did not join a kernel, or for which no kernel computes it."""

    node: Node
    reason: str


@dataclass(frozen=True, eq=False)
class Fusion:
    """The kernels there are. units: in an order in which they can run; a Body is still open for an
    epilogue's cut into tasks. places: the view of each end's value. decisions: of each node, in the
    order in which they were made. unit_of: the unit that makes a value. in_place: inputs whose new
    value is written over the old one by the very op that changes it."""

    graph: Ends
    units: tuple[Body | Call, ...]
    places: Mapping[Node, View]
    inputs: Mapping[Node, Buffer]
    constants: Mapping[Buffer, np.ndarray[Any, Any]]
    refusals: tuple[Refusal, ...]
    decisions: Mapping[Node, Decision]
    unit_of: Mapping[Node, int]
    in_place: frozenset[Buffer]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order of the launches, and the results that are written in place. prepacked: packings of
    inputs that do not change, made once. aliases: results written over an input, and that input."""

    fusion: Fusion
    launches: tuple[Launch, ...]
    places: Mapping[Node, View]
    prepacked: tuple[Call, ...] = ()
    aliases: Mapping[Buffer, Buffer] = field(default_factory=dict)
    steps: Steps = ()

    @property
    def results(self) -> frozenset[Buffer]:
        """The buffers that kernels write and the run hands out."""
        return frozenset(v.buffer for v in self.places.values() if v.buffer.kind == "value")


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a run needs but code and addresses. roles: of each buffer, "arena" (lives for a
    while during a run), "result" (made anew at each run), "state" (an input that is written over,
    or what is written over it), "prepacked" (the plan's own, from run to run), "input", "constant"
    or "report". numbers: of each buffer, its place in the table of addresses. offsets: of arena
    buffers, in bytes. places: of results and of new state: whole dense buffers. seconds: the time
    that each stage took."""

    steps: Steps
    roles: Mapping[Buffer, str]
    numbers: Mapping[Buffer, int]
    offsets: Mapping[Buffer, int]
    arena_bytes: int
    constants: Mapping[Buffer, np.ndarray[Any, Any]]
    inputs: Mapping[Node, Buffer]
    places: Mapping[Node, View]
    refusals: tuple[Refusal, ...]
    graph: Graph
    aliases: Mapping[Buffer, Buffer]
    prepacked: tuple[Call, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def results(self) -> list[Buffer]:
        """What each run makes anew, in the order in which it is handed out."""
        return [buffer for buffer, role in self.roles.items() if role == "result"]

    def waves(self) -> list[list[Launch]]:
        return waves_of(self.steps)

    def launches(self) -> list[Launch]:
        return [launch for wave in self.waves() for launch in wave]

    def calls(self) -> list[Call]:
        """All calls of kernels, those of loops once."""
        return [
            inner
            for launch in self.launches()
            for call in launch.calls
            for inner in (call.loop.plan.calls() if call.loop else [call])
        ]


def waves_of(steps: Steps) -> list[list[Launch]]:
    """The waves of all steps; an opaque call is one of its own."""
    return [w for step in steps for w in ([[step]] if isinstance(step, Launch) else step)]
