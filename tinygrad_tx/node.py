"""Node, Graph and the functions that make Nodes: the one record behind autograd tape and compiler
graph.

An `Op` (op.py) says what an operation is; a `Node` is one use of it. `apply` makes Nodes: with an
array where code runs eagerly, without one while a function is traced: the current trace alone
(context.py) decides.
Tensors (floor 3) are mutable handles on Nodes; everything here knows them only as `Handle`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from sys import _getframe
from types import FrameType
from typing import Any, ClassVar
from weakref import ref

import numpy as np

from . import backends, finite
from .arguments import shown
from .backends import Array, Backend
from .context import GRAD, GRADIENT_OF, LINE, PRECISION, SCOPE, TRACE, Trace
from .dtypes import AUTOCAST, DType, as_dtype, float32, require_fit, result_type, weak_dtype
from .errors import DeviceError, DTypeError, OpError, TraceError, UserError
from .half import computing
from .mistakes import explain
from .op import OPS, Attrs
from .op import Op as Op
from .places import PASSED, Place, here, said
from .rules import Spec as Spec
from .rules import as_promised, axes, promised

_OPS_SHOWN = 6  # in the repr of a Graph


class Node:
    """One use of an op: immutable, but that backward() releases what it no longer needs.

    array: the value (a tuple for several outputs); None while traced.
    requires_grad: True if a gradient may be asked for; only then an eager node keeps its srcs.
    owner: the Tensor in whose `.grad` a leaf's gradient is accumulated.
    trace: the trace the node belongs to; None for eager nodes.
    scope: path of the module in whose call it was made, a context.Call; at: the user's line that
    made it; None: to be looked for now.
    place: where in the program it was made, as a number that grows; one made in place of another
    (by a rewrite) takes that one's. gradient_of: the place of the node whose gradient it helps to
    compute; None outside of a backward pass.
    """

    __slots__ = (
        "__weakref__",
        "array",
        "at",
        "attrs",
        "device",
        "gradient_of",
        "op",
        "owner",
        "place",
        "requires_grad",
        "scope",
        "spec",
        "srcs",
        "trace",
    )

    def __init__(
        self,
        op: Op,
        srcs: tuple[Node, ...],
        attrs: Attrs,
        spec: Spec | tuple[Spec, ...],
        device: str,
        *,
        array: Any = None,
        requires_grad: bool = False,
        trace: Trace | None = None,
        at: Place | None = None,
    ) -> None:
        if at is None:  # as here() does, which would be one more call for each op
            at = ""
            frame: FrameType | None = _getframe(1)
            while frame is not None:
                if not PASSED[frame.f_code.co_filename]:
                    at = frame.f_code, frame.f_lasti
                    break
                frame = frame.f_back
        self.op, self.srcs, self.attrs, self.spec, self.device = op, srcs, attrs, spec, device
        self.array, self.requires_grad, self.trace, self.at = array, requires_grad, trace, at
        self.owner: ref[Any] | None = None
        self.scope, self.gradient_of = SCOPE.get(), GRADIENT_OF.get()
        self.place = next(_PLACES)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec[0]  # type: ignore[return-value]

    @property
    def dtype(self) -> DType:
        return self.spec[1]  # type: ignore[return-value]

    @property
    def ndim(self) -> int:
        return len(self.spec[0])

    @property
    def line(self) -> str:
        """ "file:line" of the user's code that made it; empty where nobody knows."""
        return said(self.at)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (self.spec,) if isinstance(self.spec, Spec) else self.spec

    @property
    def is_leaf(self) -> bool:
        return self.op.kind == "leaf"

    @property
    def has_values(self) -> bool:
        """True if its values can be looked at: those of traced nodes, and of a device of shapes
        alone, cannot."""
        return self.array is not None and backends.get(self.device).computes

    def with_srcs(self, srcs: tuple[Node, ...]) -> Node:
        """The same use of the op on other sources, in the same place of the program."""
        new = Node(
            self.op,
            srcs,
            self.attrs,
            self.spec,
            self.device,
            requires_grad=self.requires_grad,
            trace=self.trace,
            at=self.at,
        )
        new.owner = self.owner
        return new.put_at(self)

    def put_at(self, other: Node) -> Node:
        """Take the place in the program of a node that this one helps to replace."""
        self.scope, self.at, self.place = other.scope, other.at, other.place
        self.gradient_of = other.gradient_of
        return self

    def tell_as(self, other: Node) -> None:
        """Take module, line and role of a node that is made one with this; the place stays, for
        plans are ordered by it."""
        self.scope, self.at, self.gradient_of = other.scope, other.at, other.gradient_of

    def release(self) -> None:
        """Forget the inputs of an eager node, so that their memory can be reused."""
        self.op, self.srcs, self.attrs = RELEASED, (), {}

    def __repr__(self) -> str:
        return f"Node({self.op.name}, {self.spec}, {self.device})"


class Graph:
    """The nodes that `roots` depend on, each after its inputs. `follow(node)` says whether a
    node's inputs belong to it."""

    def __init__(self, roots: Iterable[Node], follow: Callable[[Node], bool] | None = None) -> None:
        self.roots = tuple(roots)
        seen, done = set[Node](), dict[Node, None]()
        stack = [*self.roots[::-1]]
        while stack:
            node = stack[-1]
            if node in seen:  # for the second time: its inputs are done
                done.setdefault(stack.pop())
                continue
            seen.add(node)
            if node.srcs and (follow is None or follow(node)):
                stack += [src for src in node.srcs[::-1] if src not in seen]
        self.nodes = [*done]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        counts = Counter(node.op.name for node in self.nodes).most_common()
        some = [f"{n} {name}" for name, n in counts[:_OPS_SHOWN]]
        more = ["..."] if len(counts) > _OPS_SHOWN else []
        ends = ", ".join(f"{x.short}{list(n)}" for root in self.roots[:3] for n, x in root.specs)
        ends += ", ..." if len(self.roots) > 3 else ""
        return f"Graph({len(self)} nodes: {', '.join(some + more)}; results: {ends or 'none'})"

    def users(self) -> dict[Node, list[Node]]:
        """The nodes that read each node."""
        found: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for src in node.srcs:
                if src in found:
                    found[src].append(node)
        return found


_PLACES = count()


def now() -> int:
    """The place in the program at which it stands: that of a node made next is larger."""
    return next(_PLACES)


class Handle:
    """The part of a Tensor that apply() knows: it has a node, and `wrap` makes a Tensor of a
    node."""

    __slots__ = ()
    wrap: ClassVar[Callable[[Node], Any]]

    @property
    def node(self) -> Node:
        """The node it stands for."""
        raise NotImplementedError


# Making nodes ------------------------------------------------------------------------------


def apply(op: Op, srcs: tuple[Node, ...], attrs: Attrs) -> Node:
    """One use of op: computed now, or recorded where a trace is current.

    Raises what the op's rule raises (ShapeError, DTypeError), DeviceError for mixed devices, and
    OpError where the op's record is wrong.
    """
    asks = lost = False
    if srcs:
        device = srcs[0].device
        for src in srcs:
            if src.device != device and op.kind != "loop":
                raise DeviceError(
                    f"{op.name}: one input is on {device}, another on {src.device}; "
                    f'move one with .to("{device}")'
                )
            if src.requires_grad:
                asks = True
            elif src.op is LOST:
                lost = True
    else:
        if "device" not in attrs:
            raise OpError(f'{op.name}: without inputs it needs device=, such as device="cpu"')
        device = attrs["device"]
    try:
        spec = op.rule(op, *srcs, **attrs)
    except Exception as error:
        explain(error, op.name, "rule", op.rule, (op, *srcs), attrs)
        raise
    if not op.ours:
        promised(op, spec)
    lands = attrs.get("target", device) if attrs else device
    needs_grad = asks and GRAD.get() and (type(spec) is not Spec or spec[1].kind == "f")
    trace = TRACE.get()
    if trace is not None:
        for name, value in attrs.items():  # a plan would keep a Tensor's value of now
            inside = not op.ours and type(value) in (tuple, list)
            if isinstance(value, Handle) or (inside and any(isinstance(x, Handle) for x in value)):
                raise TraceError(
                    f"{op.name}: {name}= is a Tensor, whose value a traced function does not know: "
                    "pass a Python number, or what it is computed from as an input of the op"
                )
        at = LINE.get() or here()
        return Node(op, srcs, attrs, spec, lands, requires_grad=needs_grad, trace=trace, at=at)
    for value in attrs.values():
        if isinstance(value, Handle) or (not op.ours and type(value) in (tuple, list)):
            attrs = {name: _number(value) for name, value in attrs.items()}
            break
    arrays = []
    for src in srcs:
        if src.array is None:
            raise TraceError(
                "a Tensor made inside a compiled function is used after its trace; "
                "return it from the function instead"
            )
        arrays.append(src.array)
    array = execute(op, device, arrays, attrs, spec)
    if finite.asked() == finite.NAN:
        of = GRADIENT_OF.get()
        finite.check(op, srcs, arrays, attrs, array, SCOPE.get(), here(), of, {})
    if needs_grad:
        return Node(op, srcs, attrs, spec, lands, array=array, requires_grad=True)
    if lost and GRAD.get():
        return data(spec, lands, array, lost=True)
    return Node(LEAF, (), {}, spec, lands, array=array)


def _number(value: Any) -> Any:
    """An attribute as forwards and vjps take it: a 0-d Tensor is the number that it holds, which no
    array of a GPU could be multiplied by."""
    if isinstance(value, Handle) and not value.node.shape and value.node.array is not None:
        return backends.get(value.node.device).to_host(value.node.array).item()
    if type(value) in (tuple, list):
        return type(value)(map(_number, value))
    return value


def execute(
    op: Op, device: str, arrays: Sequence[Array], attrs: Attrs, spec: Spec | tuple[Spec, ...]
) -> Any:
    """Run an op's forward on the device of its inputs and hold it to its rule."""
    xp = backends.get(device)
    lands = backends.get(attrs["target"]) if "target" in attrs else xp
    if not lands.computes and op.kind != "loop":
        return outline(lands, spec)
    try:
        with xp.no_warnings():
            out = computing(op, arrays, spec)(xp, *arrays, **attrs)
    except Exception as error:
        explain(error, op.name, "forward", op.forward, (xp, *arrays), attrs)
        raise
    if op.kind == "loop":  # outputs may lie on several devices
        return out
    if type(spec) is Spec:
        array = lands.asarray(out)
        if array.shape == spec[0] and array.dtype == spec[1].np:
            return array
    return as_promised(op, lands, out, spec)


def outline(xp: Backend, spec: Spec | tuple[Spec, ...]) -> Any:
    """Arrays in the place of a result, on a device of shapes alone."""
    if isinstance(spec, Spec):
        return xp.full(spec.shape, 0, spec.dtype)
    return tuple(xp.full(one.shape, 0, one.dtype) for one in spec)


def data(spec: Spec | tuple[Spec, ...], device: str, array: Any, *, lost: bool) -> Node:
    """A node for a computed value without history. lost: where eager code would have recorded
    one."""
    floats = lost and (type(spec) is not Spec or spec[1].kind == "f")
    return Node(LOST if floats else LEAF, (), {}, spec, device, array=array)


def leaf(array: Array, dtype: DType, device: str, *, requires_grad: bool = False) -> Node:
    """A node for data. Inside a trace it is a constant of the traced function."""
    spec = Spec(tuple(array.shape), dtype)
    return Node(
        LEAF, (), {}, spec, device, array=array, requires_grad=requires_grad, trace=TRACE.get()
    )


def rebound(node: Node, *, requires_grad: bool) -> Node:
    """The same data as a leaf of its own: history ends here."""
    if node.trace is None:
        return leaf(node.array, node.dtype, node.device, requires_grad=requires_grad)
    return Node(
        REBOUND,
        (node,),
        {},
        node.spec,
        node.device,
        requires_grad=requires_grad,
        trace=node.trace,
        at=LINE.get() or None,
    )


def constant(value: Any, dtype: DType, device: str) -> Node:
    """A scalar as a 0-d node, known to the compiler by its value."""
    trace = TRACE.get()
    if trace is None:
        # 0.0 and -0.0 are one key, but not one number.
        known = _scalar_leaf if value else _scalar_leaf.__wrapped__
        return known(value, dtype, device, SCOPE.get())
    attrs = {"value": value, "dtype": dtype, "device": device}
    return Node(CONST, (), attrs, Spec((), dtype), device, trace=trace, at=LINE.get())


@lru_cache(maxsize=1024, typed=True)
def _scalar_leaf(value: Any, dtype: DType, device: str, scope: str) -> Node:
    """A scalar's node outside of traces; one for all its uses in a module."""
    array = backends.get(device).scalar(value, dtype)
    return Node(LEAF, (), {}, Spec((), dtype), device, array=array, at="")


def cast(node: Node, dtype: DType) -> Node:
    """node in another dtype; itself where nothing changes."""
    if node.dtype == dtype:
        return node
    if node.op is CONST:
        return constant(node.attrs["value"], dtype, node.device)
    return apply(CAST, (node,), {"dtype": dtype})


def autocast(name: str, wanted: str, node: Node) -> Node:
    """An operand of an op called `name` as tx.autocast has it: wanted is the op's `autocast`.

    UserError where products are to be in tf32 on a device that has none."""
    precision = PRECISION.get()
    if precision == "tf32" and wanted == "half" and not backends.has_tf32(node.device):
        raise UserError(
            f"{name}: products on {node.device} are not computed in tf32; choose fp32, bf16 or fp16"
        )
    half = AUTOCAST.get(precision)
    dtype = node.dtype
    if half is None or wanted == "given" or not (dtype is float32 or dtype.is_half):
        return node
    goal = half if wanted == "half" else float32
    if dtype is not goal and node.op.name == "permute":  # `x @ weight.T`, as a product knows it
        return apply(node.op, (cast(node.srcs[0], goal),), node.attrs)
    return cast(node, goal)


# Calling an op: what it is given becomes nodes, and its node a Tensor --------------------------


def _use(op: Op, *inputs: Any, **attrs: Any) -> Any:
    """Use the op on Tensors (arrays and scalars are converted). Reductions take `axis` (an
    int, a tuple or None for all) and `keepdims`, or PyTorch's `dim` and `keepdim`."""
    nodes = _as_operands(op, inputs)
    if op.kind == "reduce":
        for theirs, ours in (("dim", "axis"), ("keepdim", "keepdims")):
            if theirs in attrs:
                if ours in attrs:
                    raise TypeError(f"{op.name}: {ours} and {theirs} are one argument")
                attrs[ours] = attrs.pop(theirs)
        keepdims = attrs.pop("keepdims", False)
        if not isinstance(keepdims, (bool, np.bool_)):
            raise DTypeError(f"{op.name}: keepdims must be a bool, not {shown(keepdims)}")
        attrs["axis"] = axes(op.name, attrs.get("axis"), len(nodes[0].shape))
        node = apply(op, nodes, attrs)
        return Handle.wrap(node if keepdims else _squeezed(node, attrs["axis"]))
    tf32 = op.autocast == "half" and op.ours and PRECISION.get() == "tf32"
    if tf32 and nodes[0].dtype is float32:
        attrs["tf32"] = True
    node = apply(op, nodes, attrs)
    if type(node.spec) is Spec:
        return Handle.wrap(node)
    if node.op.kind == "leaf":  # computed, and nothing is recorded: each output is data
        parts, lost = zip(node.specs, node.array, strict=True), node.op is LOST
        made = (data(spec, node.device, array, lost=lost) for spec, array in parts)
        return tuple(Handle.wrap(part) for part in made)
    return tuple(Handle.wrap(apply(ITEM, (node,), {"i": i})) for i in range(len(node.spec)))


Op.__call__ = _use  # a record knows no Nodes


def _squeezed(node: Node, axis: tuple[int, ...]) -> Node:
    """A reduction's result without the axes that it went over."""
    if not axis:
        return node
    shape = tuple(n for i, n in enumerate(node.shape) if i not in axis)
    if node.op.kind != "leaf":
        return apply(OPS["reshape"], (node,), {"shape": shape})
    array = node.array.reshape(shape)  # computed, and nothing is recorded
    return Node(node.op, (), {}, Spec(shape, node.dtype), node.device, array=array, at=node.at)


def _as_operands(op: Op, inputs: tuple[Any, ...]) -> tuple[Node, ...]:
    """Tensors, arrays and scalars as nodes on one device; a map op's brought to one dtype."""
    casts = op.autocast != "given" and PRECISION.get() != "fp32"
    ready = None if casts else _alike(op, inputs)
    if ready is not None:
        return ready
    nodes: list[Node | None] = [i.node if isinstance(i, Handle) else None for i in inputs]
    device = next((n.device for n in nodes if n is not None), None)
    if device is None:
        if not inputs and op.kind == "create":  # its attrs name the device
            return ()
        raise DTypeError(f"{op.name}: at least one input must be a Tensor")
    for i, value in enumerate(inputs):
        if isinstance(value, np.ndarray):
            dtype = as_dtype(value.dtype)
            nodes[i] = leaf(backends.get(device).from_host(value), dtype, device)
    if casts:
        nodes = [n if n is None else autocast(op.name, op.autocast, n) for n in nodes]
    at = range(len(inputs))
    if op.kind == "map":
        at = range(len(inputs)) if op.promote is None else op.promote  # type: ignore[assignment]
        tensors = [(n.dtype, n.ndim) for n in (nodes[i] for i in at) if n is not None]
        scalars = [weak_dtype(inputs[i]) for i in at if nodes[i] is None]
        common = result_type(tensors, scalars)
    for i, value in enumerate(inputs):
        node = nodes[i]
        if node is None:
            weak = common if op.kind == "map" and i in at else weak_dtype(value)
            value = value.item() if isinstance(value, np.generic) else value
            if weak.kind == "i":
                require_fit(value, weak)
            nodes[i] = constant(value, weak, device)
        elif op.kind == "map" and i in at:
            nodes[i] = cast(node, common)
    return tuple(n for n in nodes if n is not None)


def _alike(op: Op, inputs: tuple[Any, ...]) -> tuple[Node, ...] | None:
    """The commonest case: Tensors, of one dtype where op is a map; and, where that is a floating
    one, Python numbers. None where it is another."""
    together, first, numbers = op.kind == "map", None, False
    found: list[Any] = []
    for value in inputs:
        if isinstance(value, Handle):
            node = value.node
            if first is None:
                first = node
            elif together and node.spec[1] is not first.spec[1]:
                return None
            found.append(node)
        elif together and op.promote is None and type(value) in (float, int, bool):
            numbers = True
            found.append(value)
        else:
            return None
    if first is None:
        return None
    if numbers:
        if first.dtype.kind != "f":
            return None
        for i, value in enumerate(found):
            if type(value) is not Node:
                found[i] = constant(value, first.dtype, first.device)
    return tuple(found)


# Structural ops: data, constants, one output of several, a change of dtype ---------------------


def _no_forward(xp: Any, *arrays: Array, **attrs: Any) -> Array:
    raise TraceError("data has no forward")


def _fixed_rule(op: Op, *nodes: Node, **attrs: Any) -> Spec:
    raise TraceError(f"{op.name} is made by the engine, not called")


LEAF = Op("leaf", kind="leaf", forward=_no_forward, rule=_fixed_rule)
INPUT = Op("input", kind="leaf", forward=_no_forward, rule=_fixed_rule)
REBOUND = Op("rebound", kind="leaf", forward=lambda xp, x: x, rule=_fixed_rule)
# A leaf that eager code would have recorded: what a compiled function gives of Tensors that require
# a gradient, and floats computed from it.
LOST = Op("lost", kind="leaf", forward=_no_forward, rule=_fixed_rule)
RELEASED = Op("released", kind="released", forward=_no_forward, rule=_fixed_rule)
CONST = Op(
    "const",
    kind="create",
    forward=lambda xp, value, dtype, device: xp.scalar(value, dtype),
    rule=lambda op, value, dtype, device: Spec((), dtype),
)
ITEM = Op(  # target: its device, where that is not the node's
    "item",
    kind="move",
    forward=lambda xp, x, i, target=None: x[i],
    rule=lambda op, x, i, target=None: x.spec[i],
    vjp=lambda g, y, x, i, target=None: (g,),  # autograd puts g into the i-th place
)
MOVE = Op(  # to another device, through the host
    "move",
    kind="transfer",
    forward=lambda xp, x, target: backends.get(target).from_host(xp.to_host(x)),
    rule=lambda op, x, target: x.spec,
    vjp=lambda g, y, x, target: (g.to(x.device),),
)
CAST = Op(
    "cast",
    kind="map",
    forward=lambda xp, x, dtype: xp.cast(x, dtype),
    rule=lambda op, x, dtype: Spec(x.shape, dtype),
    vjp=lambda g, y, x, dtype: (g.to(x.dtype) if x.dtype.is_floating_point else None,),
)
