"""Loops: a function over many rounds as one node, SCAN, and its gradient, which is another one.

In: a function that is called while another one is traced (scan.py, checkpoint.py). Out: Tensors,
the outputs of a SCAN node, whose attribute is the function's Round. A plan runs it as a loop;
everywhere else its forward does, op by op.

The gradient (gradient.py) runs the other way round. It reads what it needs of the forward
rounds from arrays of one entry a round: `keep` names the values that a SCAN gives so, beside its
own outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import backends, tree
from ..arguments import shown
from ..context import Trace, current_trace, grad_enabled, tracing
from ..creation import tensor
from ..dtypes import float32
from ..errors import DTypeError, ShapeError
from ..node import ITEM, REBOUND, Graph, Node, Op, apply, constant
from ..rules import Spec
from ..tensor import Tensor
from .gradient import gradient
from .round import Recorder, Round, apart, hoisted, substituted, varying

# The op ---------------------------------------------------------------------------------------
# Sources: the round's constants, the first carry, the xs. Outputs: the last carry; for each y and
# each value kept, its array of all rounds. reverse: from the last entry to the first. again: the
# gradient computes a round anew from its carry rather than have it kept.


def _rule(
    op: Op, *nodes: Node, round: Round, length: int, keep: tuple[Node, ...], **attrs: Any
) -> tuple[Spec, ...]:
    n = len(round.carry)
    carry = [Spec(out.shape, out.dtype) for out in round.outs[:n]]
    rows = [Spec((length, *out.shape), out.dtype) for out in (*round.outs[n:], *keep)]
    return (*carry, *rows)


def _forward(
    xp: Any, *arrays: Any, round: Round, length: int, reverse: bool, again: bool, keep: Any
) -> tuple[Any, ...]:
    procedure, n, m = round.procedure(keep), len(round.carry), len(round.consts)
    consts, carry, xs = arrays[:m], list(arrays[m : m + n]), arrays[m + n :]
    outs = (*round.outs[n:], *keep)
    homes = [backends.get(out.device) for out in outs]
    rows = [
        home.full((length, *out.shape), 0, out.dtype) for home, out in zip(homes, outs, strict=True)
    ]
    for i in range(length)[:: -1 if reverse else 1]:
        made = procedure.run([*consts, *carry, *(x[i] for x in xs)])
        carry = made[:n]
        for home, row, value in zip(homes, rows, made[n:], strict=True):
            if home.computes:
                row[i] = value
    return (*carry, *rows)


def _vjp(g: Any, y: Any, *xs: Any, **attrs: Any) -> list[Any]:
    return gradient(use, g, y, xs, **attrs)


SCAN: Op = Op("scan", kind="loop", rule=_rule, forward=_forward, vjp=_vjp)


def use(xs: Sequence[Tensor], round: Round, keep: tuple[Node, ...] = (), **attrs: Any) -> Any:
    """The outputs of a use of SCAN, each on its own device: the counter of random streams is on the
    host, whatever draws from it."""
    node = apply(SCAN, tuple([x.node for x in xs]), {"round": round, "keep": keep, **attrs})
    outs = enumerate((*round.outs, *keep))
    return [Tensor(apply(ITEM, (node,), _item(i, out.device, node.device))) for i, out in outs]


def _item(i: int, device: str, usual: str) -> dict[str, Any]:
    return {"i": i} if device == usual else {"i": i, "target": device}


# Recording ------------------------------------------------------------------------------------


def record(
    f: Callable[[Any, Any], Any], init: Any, xs: Any, length: int, *, reverse: bool, again: bool
) -> tuple[Any, Any]:
    """scan() as a SCAN node: the last carry and the stacked ys."""
    firsts = [x.node for x in tree.leaves(init) if x is not None]
    rows = [x.node for x in tree.leaves(xs) if x is not None]
    y_tree, device = None, device_of((init, xs))

    def call(carry: list[Tensor], entries: list[Tensor]) -> tuple[list[Node], list[Node]]:
        nonlocal y_tree
        made = f(_filled_in(init, carry), _filled_in(xs, entries))
        out, y_tree = checked(made, init, device)
        ys = [x.node for x in tree.leaves(y_tree) if x is not None]
        return [x.node for x in tree.leaves(out) if x is not None], ys

    carry, ys = _recorded(f, call, firsts, rows, length, reverse=reverse, again=again)
    return _filled_in(init, carry), _filled_in(y_tree, ys)


def record_call(f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """checkpoint() as a SCAN node of one round."""
    results: Any = None

    def call(carry: list[Tensor], entries: list[Tensor]) -> tuple[list[Node], list[Node]]:
        nonlocal results
        results = f(*args, **kwargs)
        return [], [x.node for x in tree.leaves(results) if isinstance(x, Tensor)]

    _, ys = _recorded(f, call, [], [], 1, reverse=False, again=True)
    rest = iter(ys)
    return tree.map_leaves(lambda x: next(rest).squeeze(0) if isinstance(x, Tensor) else x, results)


def _recorded(
    f: Any,
    call: Callable[[list[Tensor], list[Tensor]], tuple[list[Node], list[Node]]],
    firsts: list[Node],
    rows: list[Node],
    length: int,
    *,
    reverse: bool,
    again: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Trace a function once, and use it `length` times. firsts: the first carry; rows: what each
    round gets an entry of; call: gives the nodes of carry and ys. The function's Tensors from
    outside that it changes are carried as well."""
    parent = current_trace()
    rec, carry, xs, last, ys = _traced(parent, call, firsts, rows)
    if not (last or ys or any(c.changed for c in rec.captured.values())):
        return [], []
    changed = [c for c in rec.captured.values() if c.changed]
    carry += [c.placeholder for c in changed]
    consts = {c.placeholder: c.outer for c in rec.captured.values() if not c.changed}
    ends = (*last, *(c.node for c in changed), *ys)
    outs = rec.differentiate(substituted(ends, rec.results))
    if (firsts or rows) and length:
        # An opaque op may do anything, in each round.
        opaque = (n for n in Graph(outs) if n.op.kind == "opaque")
        outs, more = hoisted(outs, consts, varying(outs, (*carry, *xs, *opaque)), rec)
        read = set(Graph(outs))
        consts = {p: outer for p, outer in (consts | more).items() if p in read}
    if not (consts or carry or xs):  # a node has sources: they say its device
        nothing = constant(0.0, float32, outs[0].device)
        consts[rec.input(Spec((), float32), nothing.device, requires_grad=False)] = nothing
    name = getattr(f, "__name__", type(f).__name__)
    outs = apart(outs, len(carry), rec)
    traced = Round(name, rec, tuple(consts), tuple(carry), tuple(xs), outs)
    srcs = (*consts.values(), *firsts, *(c.outer for c in changed), *rows)
    with tracing(parent):
        given = [Tensor(n) for n in srcs]
        made = use(given, traced, length=length, reverse=reverse, again=again)
    n = len(firsts)
    for c, now in zip(changed, made[n:], strict=False):
        c.tensor._point(now.node)
    return made[:n], made[n + len(changed) :]


Nodes = list[Node]


def _traced(
    parent: Trace | None,
    call: Callable[[list[Tensor], list[Tensor]], tuple[Nodes, Nodes]],
    firsts: Nodes,
    rows: Nodes,
) -> tuple[Recorder, Nodes, Nodes, Nodes, Nodes]:
    """The function as nodes: the Recorder, carry and xs as it is given them, carry and ys as it
    gives them. It is called once; once more only where a gradient begins to flow through a Tensor
    from outside that it changes."""
    asks: dict[int, bool] = {}
    while True:
        rec, records = Recorder(parent, asks), grad_enabled()
        carry = [
            rec.input(Spec(n.shape, n.dtype), n.device, records and n.dtype.is_floating_point)
            for n in firsts
        ]
        xs = [rec.input(Spec(n.shape[1:], n.dtype), n.device, n.requires_grad) for n in rows]
        with tracing(rec):
            given = [Tensor(rec.result(n)) for n in carry]
            last, ys = call(given, [Tensor(n) for n in xs])
            rec.check_gradients()
        _settle(carry, [n.requires_grad for n in firsts], last, ys, rec)
        more = {
            id(c.tensor): True
            for c in rec.captured.values()
            if c.node.requires_grad and not c.placeholder.requires_grad
        }
        if not more:
            for c in rec.captured.values():  # its hooks are called outside, once for all rounds
                c.placeholder.owner = None
            return rec, carry, xs, last, ys
        asks |= more


def _settle(carry: Nodes, asks: list[bool], last: Nodes, ys: Nodes, rec: Recorder) -> None:
    """Take the wish for a gradient back from nodes that have none: a carry was traced as if it had
    one, before it was known what it becomes. asks: of the first carry."""
    graph = Graph((*last, *ys, *(c.node for c in rec.captured.values())))
    while True:
        found = dict(zip(carry, asks, strict=True))
        for node in graph:
            if node not in found:
                ends = not node.srcs or node.op is REBOUND
                found[node] = node.requires_grad and (ends or any(found[s] for s in node.srcs))
        now = [ask or found[n] for ask, n in zip(asks, last, strict=True)]
        if now == asks:
            break
        asks = now
    for node, requires_grad in found.items():
        node.requires_grad = requires_grad


def device_of(nest: Any) -> str | None:
    """Where numbers beside the Tensors of a nest belong; None, the default, where it has none."""
    return next((x.device for x in tree.leaves(nest) if isinstance(x, Tensor)), None)


def checked(given: Any, init: Any, device: str | None) -> tuple[Any, Any]:
    """What f has given: a carry like `init`, and y, whose numbers become Tensors on the device."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(f"scan: f must give (carry, y), not {shown(given)}")
    carry, y = given
    if structure(carry) != structure(init):
        raise ShapeError(
            f"scan: f must give a carry as init is, {structure(init)}, not {structure(carry)}"
        )
    pairs = list(zip(tree.leaves(init), tree.leaves(carry), strict=True))
    for old, new in pairs:
        if old is not None and (old.shape, old.dtype) != (new.shape, new.dtype):
            raise (ShapeError if old.shape != new.shape else DTypeError)(
                f"scan: the carry was {old.dtype.name} {old.shape} and becomes {new.dtype.name} "
                f"{new.shape}: it must keep its shape and dtype"
            )
    return carry, tree.map_leaves(lambda value: _as_tensor(value, device), y)


def _as_tensor(value: Any, device: str | None) -> Any:
    return value if value is None or isinstance(value, Tensor) else tensor(value, device=device)


def structure(nest: Any) -> str:
    """A nest's structure in words: "(Tensor, {h: Tensor})"."""
    if isinstance(nest, dict):
        return "{" + ", ".join(f"{k}: {structure(v)}" for k, v in nest.items()) + "}"
    if isinstance(nest, (tuple, list)):
        inner = ", ".join(map(structure, nest))
        if type(nest) not in (tuple, list):
            return f"{type(nest).__name__}({inner})"
        return f"[{inner}]" if isinstance(nest, list) else f"({inner})"
    return "None" if nest is None else "Tensor" if isinstance(nest, Tensor) else repr(nest)


def _filled_in(nest: Any, values: Sequence[Any]) -> Any:
    """A nest with other Tensors in the places of its own."""
    rest = iter(values)
    return tree.map_leaves(lambda x: None if x is None else next(rest), nest)
