"""lift/attention: softmax(scale * q k^T + mask) v, as written by hand -> attention(q, k, v, mask).

A rule of rewrite/lift/idioms.py. What masks mean: `where(allowed, scores, -inf)` makes NaN of a row
without a key, where a boolean mask gives zero. So it is a boolean mask as it stands only with the
guard of F.attention_weights, which makes such rows zero, and where it compares positions, for then
the first key is always allowed. Otherwise the rows without a key are made NaN afterwards; the
gradient by v, which would be NaN too, is that of the other rows. Where the mask is a large negative
number, -1e9 say, not -inf, such rows are the mean of all of v.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isclose, nan, prod

from .... import ops
from ....backends import planned_for
from ....node import CONST, MOVE, Node
from ..engine import about, use
from ..simplify import number


@dataclass(frozen=True)
class Scores:
    """scale * q kt, plus `added`, and `masked` where one of `allowed` is False."""

    q: Node
    kt: Node
    scale: float = 1.0
    added: Node | None = None
    allowed: tuple[Node, ...] = ()
    masked: float = -inf
    tf32: bool = False


_FAR = -1e8  # exp of what is masked by less is 0, beside any score that is not


@about(ops.MATMUL)
def attention(node: Node) -> Node | None:
    """matmul(softmax(scale * q k^T + mask), v) -> attention(q, k, v, mask). Dropout of the softmax
    becomes attention's where the device has kernels for that."""
    weights, v = node.srcs
    weights, drawn, dropped = _dropped(weights)
    match weights:
        case Node(op=ops.SOFTMAX, srcs=(s,), attrs={"axis": axis}) if axis == s.ndim - 1:
            scores, guarded = _scores(s, 4), False
        case Node(op=ops.WHERE):
            scores, guarded = _guarded(weights), True
        case _:
            return None
    tf32 = "tf32" in node.attrs
    if scores is None or scores.tf32 != tf32 or not scores.masked <= _FAR:
        return None
    if not all(c.ndim for c in scores.allowed):
        return None
    causal, rest = _split(scores.allowed, weights.shape[-2:], node)
    alive = None if rest is None or guarded else _alive(scores.allowed, node)
    if drawn and alive is not None:
        return None  # a row without a key has weights, which dropout thins out
    mask = rest if scores.added is None else scores.added
    if scores.added is not None and alive is not None and rest is not None:
        mask = _added(scores.added, rest, alive, node)
    order = (*range(scores.kt.ndim - 2), scores.kt.ndim - 1, scores.kt.ndim - 2)
    k = use(ops.PERMUTE, (scores.kt,), {"order": order}, like=node)
    srcs = (scores.q, k, v) if mask is None else (scores.q, k, v, mask)
    attrs = {"scale": scores.scale, "causal": causal, **dropped, **node.attrs}
    y = use(ops.ATTENTION, (*srcs, *drawn), attrs, like=node)
    if alive is None:
        return y
    other = _scalar(nan, node) if scores.masked == -inf else _mean(v, node)
    return use(ops.WHERE, (alive, y, other), {}, like=node)


def _dropped(weights: Node) -> tuple[Node, tuple[Node, ...], dict[str, float]]:
    """The weights before dropout, the key and the stream of its words, and attention's attributes
    for it; the weights themselves where there is none, or no kernel for it."""
    match weights:
        case Node(op=ops.WHERE, srcs=(Node(op=ops.KEEP) as keep, x, zero)) if number(zero) == 0:
            inner, factor = _scaled(x)
            p, target = keep.attrs["p"], planned_for(weights.device)
            if (
                target is not None
                and target.keeps_statistics
                and keep.shape == weights.shape == inner.shape
                and 0 < p < 1
                and not keep.attrs.get("first")
                and isclose(factor, 1 / (1 - p), rel_tol=1e-2 if x.dtype.is_half else 1e-6)
            ):
                drawn = tuple([_there(src, weights) for src in keep.srcs])
                return inner, drawn, {"dropout": p}
    return weights, (), {}


def _there(node: Node, like: Node) -> Node:
    """A value of the host on like's device: random streams are counted there."""
    if node.device == like.device:
        return node
    return use(MOVE, (node,), {"target": like.device}, like=like)


def _scores(node: Node, depth: int) -> Scores | None:
    """The Scores that a softmax is of, down to the matmul; `depth` bounds the search."""
    match node:
        case Node(op=ops.MATMUL, srcs=(q, kt)):
            q, by_q = _scaled(q)
            kt, by_kt = _scaled(kt)
            if kt.op is ops.PERMUTE:
                k, by_k = _scaled(kt.srcs[0])
                kt, by_kt = use(ops.PERMUTE, (k,), kt.attrs, like=kt), by_kt * by_k
            return Scores(q, kt, by_q * by_kt, tf32="tf32" in node.attrs)
        case Node(op=ops.WHERE, srcs=(condition, x, other)):
            masked, allowed = number(other), condition
            if masked is None:
                x, masked = other, number(x)
                allowed = use(ops.NOT, (condition,), {}, like=node)
            inner = _scores(x, depth - 1) if depth and x.shape == node.shape else None
            if inner is None or masked is None or (inner.allowed and inner.masked != masked):
                return None
            return replace(inner, allowed=(*inner.allowed, allowed), masked=masked)
        case Node(op=ops.ADD, srcs=srcs):
            for x, mask in (srcs, srcs[::-1]):
                inner = _scores(x, depth - 1) if depth and x.shape == node.shape else None
                if inner and inner.masked == -inf:
                    if inner.added is not None:
                        mask = use(ops.ADD, (inner.added, mask), {}, like=node)
                    return replace(inner, added=mask)
    x, factor = _scaled(node)
    inner = _scores(x, depth - 1) if depth and x is not node else None
    if inner is None or inner.added is not None or (inner.allowed and factor <= 0):
        return None
    return replace(inner, scale=inner.scale * factor, masked=inner.masked * abs(factor))


def _scaled(node: Node) -> tuple[Node, float]:
    """(x, factor) where node is x times, or divided by, a number."""
    match node:
        case Node(op=ops.MUL, srcs=(x, c) | (c, x)) if x.shape == node.shape and number(c):
            return x, number(c)
        case Node(op=ops.DIV, srcs=(x, c)) if x.shape == node.shape and number(c):
            return x, 1 / number(c)
    return node, 1.0


def _guarded(node: Node) -> Scores | None:
    """Scores of where(alive, softmax(where(alive, where(allowed, s, -inf), 0)), 0), where alive
    says that any key of a row is allowed."""
    match node:
        case Node(
            op=ops.WHERE,
            srcs=(
                Node(op=ops.ANY, srcs=(allowed,)) as alive,
                Node(
                    op=ops.SOFTMAX,
                    srcs=(Node(op=ops.WHERE, srcs=(again, s, filler)),),
                    attrs={"axis": axis},
                ),
                zero,
            ),
        ) if again is alive and axis == node.ndim - 1 and s.shape == node.shape:
            pass
        case _:
            return None
    whole_rows = alive.attrs["axis"] == (allowed.ndim - 1,)
    if not whole_rows or number(zero) != 0 or number(filler) is None:
        return None
    scores = _scores(s, 2)
    if scores is None or scores.added is not None or scores.allowed != (allowed,):
        return None
    return scores


def _split(
    allowed: tuple[Node, ...], shape: tuple[int, ...], like: Node
) -> tuple[bool, Node | None]:
    """(True if `allowed` keeps each query from later keys, its other conditions as one mask)."""
    parts = [part for condition in allowed for part in _parts(condition, True)]
    rest = [part for part in parts if not _is_causal(*part, shape)]
    if len(rest) == len(parts) and len(allowed) == 1:
        return False, allowed[0]
    mask: Node | None = None
    for condition, wanted in rest:
        part = condition if wanted else use(ops.NOT, (condition,), {}, like=like)
        mask = part if mask is None else use(ops.AND, (mask, part), {}, like=like)
    return len(rest) < len(parts), mask


def _parts(condition: Node, wanted: bool) -> list[tuple[Node, bool]]:
    """Conditions, and what each must be for `condition` to be as wanted; all of them together."""
    found: list[tuple[Node, bool]] = []
    left = [(condition, wanted)]
    while left:
        condition, wanted = left.pop()
        match condition:
            case Node(op=ops.NOT, srcs=(x,)):
                left.append((x, not wanted))
            case Node(op=op, srcs=(a, b)) if op is (ops.AND if wanted else ops.OR):
                left += [(b, wanted), (a, wanted)]
            case _:
                found.append((condition, wanted))
    return found


def _is_causal(condition: Node, wanted: bool, shape: tuple[int, ...]) -> bool:
    """True if the condition, being as wanted, says that key <= query."""
    match condition:
        case Node(op=op, srcs=(keys, queries)) if op is (ops.LE if wanted else ops.GT):
            pass
        case Node(op=op, srcs=(queries, keys)) if op is (ops.GE if wanted else ops.LT):
            pass
        case _:
            return False
    n_queries, n_keys = shape
    return _positions(queries, (n_queries, 1)) and _positions(keys, (1, n_keys))


def _positions(node: Node, shape: tuple[int, int]) -> bool:
    """True if node counts from 0 along one of the last two axes and has size 1 along the others."""
    n = prod(shape)
    if prod(node.shape) != n or (1, 1, *node.shape)[-2:] != shape:
        return False
    x = node.srcs[0] if node.op is ops.RESHAPE else node
    return x.op is ops.ARANGE and (x.attrs["start"], x.attrs["step"]) == (0, 1)


def _alive(allowed: tuple[Node, ...], like: Node) -> Node:
    """The rows with at least one allowed key, as booleans."""
    every = allowed[0]
    for condition in allowed[1:]:
        every = use(ops.AND, (every, condition), {}, like=like)
    return use(ops.ANY, (every,), {"axis": (every.ndim - 1,)}, like=like)


def _added(added: Node, allowed: Node, alive: Node, like: Node) -> Node:
    """A mask that adds -inf where something is not allowed, except in rows without a key: those
    are overwritten, and -inf there would make NaN of other rows' gradients."""
    kept = use(ops.OR, (allowed, use(ops.NOT, (alive,), {}, like=like)), {}, like=like)
    return use(ops.WHERE, (kept, added, _scalar(-inf, like)), {}, like=like)


def _mean(v: Node, like: Node) -> Node:
    """The mean of all values: what equal weights give."""
    total = use(ops.SUM, (v,), {"axis": (v.ndim - 2,)}, like=like)
    return use(ops.DIV, (total, _scalar(float(v.shape[-2]), like)), {}, like=like)


def _scalar(value: float, like: Node) -> Node:
    return use(CONST, (), {"value": value, "dtype": like.dtype, "device": like.device}, like=like)
