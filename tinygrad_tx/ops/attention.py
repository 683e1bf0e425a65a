"""Attention, known whole, with its gradient. The parts of such a record are told in softmax.py.

Keys and values may have fewer heads (axis -3) than queries: with the attribute group, each of their
heads serves so many heads of queries, one after another. It is left out where it is 1.

A mask is bool, (..., T, S), of which True takes part; or of q's dtype, added to the scores; or of
integers, (..., T, 2): bounds, by which query t sees keys from the first number up to before the
second.

With the attribute dropout, each weight is 0 with that probability, and divided by 1 - dropout
otherwise; the last two operands are the key and the stream of KEEP's words. The compiler makes such
an attention, for machines that have kernels for it; users spell it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..dtypes import bool_, int64
from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, broadcast_shape, require_floating
from .create import ARANGE
from .map import AND, GE, WHERE
from .matmul import product
from .random import KEEP
from .reduce import ANY
from .softmax import SOFTMAX, SOFTMAX_GRAD

# mypy sees arrays and Tensors as Any: decompositions run on Tensors, which are two floors up.
X = Any


def _attention_rule(
    op: Op,
    q: Node,
    k: Node,
    v: Node,
    *others: Node,
    scale: float,
    causal: bool,
    group: int = 1,
    dropout: float = 0.0,
    tf32: bool = False,
) -> Spec:
    mask = others[:-2] if dropout else others
    require_floating(op, q, k, v)
    if not q.dtype == k.dtype == v.dtype:
        raise DTypeError(
            f"attention: q, k and v are {q.dtype.name}, {k.dtype.name} and {v.dtype.name}; convert "
            "them with .to(dtype)"
        )
    if min(q.ndim, k.ndim, v.ndim) < 2 or not k.shape[-2]:
        raise ShapeError(
            f"attention: q {q.shape}, k {k.shape} and v {v.shape} must each be (..., length, "
            "width), with at least one key"
        )
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not fit: q and k share the "
            "width, k and v the length"
        )
    wide = [_wide(op, x.shape[:-2], group) for x in (k, v)]
    batch = broadcast_shape("attention (batch axes)", q.shape[:-2], *wide)
    scores = (*batch, q.shape[-2], k.shape[-2])
    for m in mask:
        bounds = m.dtype.kind == "i" and m.shape[-1:] == (2,)
        if m.dtype not in (bool_, q.dtype) and not bounds:
            raise DTypeError(
                f"attention: a mask is bool (True takes part) or {q.dtype.name} (added to the "
                f"scores), not {m.dtype.name}"
            )
        if bounds:
            pairs = (*scores[:-1], 2)
            if broadcast_shape("attention (bounds with queries)", m.shape, pairs) != pairs:
                raise ShapeError(f"attention: bounds {m.shape} do not fit queries, {pairs}")
        elif broadcast_shape("attention (mask with scores)", m.shape, scores) != scores:
            raise ShapeError(f"attention: a mask {m.shape} does not fit scores {scores}")
    return Spec((*batch, q.shape[-2], v.shape[-1]), q.dtype)


def _wide(op: Op, batch: tuple[int, ...], group: int) -> tuple[int, ...]:
    """The batch axes of keys as queries see them."""
    if group == 1:
        return batch
    if not batch:
        raise ShapeError(
            f"{op.name}: with groups of {group}, keys and values have an axis of heads"
        )
    return (*batch[:-1], batch[-1] * group)


def _repeated(xp: X, x: X, group: int) -> X:
    """Keys or values with each head as often as it serves heads of queries."""
    if group == 1:
        return x
    return xp.take(x, xp.arange(x.shape[-3] * group) // group, x.ndim - 3)


def _repeated_plain(x: X, group: int) -> X:
    if group == 1:
        return x
    *batch, heads, length, width = x.shape
    wide = x.unsqueeze(-3).expand(*batch, heads, group, length, width)
    return wide.reshape(*batch, heads * group, length, width)


def _groups(shape: tuple[int, ...], group: int) -> tuple[int, ...]:
    """The shape of gradients of repeated keys, each group's along an axis of its own, -3."""
    *batch, heads, length, width = shape
    return (*batch, heads // group, group, length, width)


def _weights(xp: X, q: X, k: X, mask: X, scale: float, causal: bool) -> X:
    """softmax(scale q k^T + mask) over keys. Where a boolean mask leaves a row no key, the row is
    zero; where an additive one does, or the only score is -inf, it is NaN, as softmax says."""
    s = xp.matmul(q * scale, k.swapaxes(-1, -2))
    if mask is not None and mask.dtype.kind == "i":
        mask = _inside(xp.arange(s.shape[-1]), mask)
    masked = mask is not None and mask.dtype.kind == "b"
    if mask is not None and not masked:
        s = s + mask
    elif masked:
        s = xp.where(mask, s, xp.cast_like(-float("inf"), s))
    if causal:
        s = xp.where(_lower(xp, s.shape), s, xp.cast_like(-float("inf"), s))
    last = (s.ndim - 1,)
    top = xp.max(s, last)
    if masked:
        top = xp.where(top == -float("inf"), xp.cast_like(0, s), top)
    s -= top
    e = xp.exp(s)
    total = xp.sum(e, last)
    if masked:
        total = xp.where(total == 0, xp.cast_like(1, s), total)
    e /= total
    return e


def _inside(places: X, bounds: X) -> X:
    """bounds (..., T, 2) as a mask: True at places (S,) from the first up to before the second."""
    return (places >= bounds[..., :1]) & (places < bounds[..., 1:])


def _lower(xp: X, shape: tuple[int, ...]) -> X:
    """True where key <= query: both counted from the start, as in PyTorch."""
    return xp.arange(shape[-2])[:, None] >= xp.arange(shape[-1])


def _weights_plain(q: X, k: X, mask: X, scale: float, causal: bool, times: Callable[..., X]) -> X:
    s = times(q * scale, k.mT)
    allowed = None
    if mask is not None and mask.dtype.kind == "i":
        keys = ARANGE(start=0, step=1, count=s.shape[-1], dtype=int64, device=q.device)
        mask = _inside(keys, mask)
    if causal:
        places = [
            ARANGE(start=0, step=1, count=n, dtype=int64, device=q.device) for n in s.shape[-2:]
        ]
        allowed = GE(places[0].unsqueeze(-1), places[1])
    if mask is not None and mask.dtype == bool_:
        allowed = mask if allowed is None else AND(mask, allowed)
    elif mask is not None:
        s = s + mask
    if allowed is None:
        return SOFTMAX(s, axis=s.ndim - 1)
    s = WHERE(allowed, s, -float("inf"))
    if mask is not None and mask.dtype != bool_:
        return SOFTMAX(s, axis=s.ndim - 1)
    alive = ANY(allowed, axis=-1, keepdims=True)
    return WHERE(alive, SOFTMAX(WHERE(alive, s, 0), axis=s.ndim - 1), 0)


def split(others: Sequence[X], dropout: float = 0.0, **attrs: Any) -> tuple[X, tuple[X, ...]]:
    """Of what attention reads beside q, k and v: the mask or None; the key and the stream."""
    drawn = tuple(others[-2:]) if dropout else ()
    mask = others[0] if len(others) > len(drawn) else None
    return mask, drawn


def _kept_array(xp: X, weights: X, drawn: tuple[X, ...], dropout: float) -> X:
    if not dropout:
        return weights
    kept = xp.keep(*drawn, dropout, weights.shape)
    return xp.where(kept, weights * (1 / (1 - dropout)), xp.cast_like(0, weights))


def _kept_plain(weights: X, drawn: tuple[X, ...], dropout: float) -> X:
    if not dropout:
        return weights
    return WHERE(KEEP(*drawn, p=dropout, shape=weights.shape), weights * (1 / (1 - dropout)), 0)


def _attention_vjp(g: X, y: X, q: X, k: X, v: X, *others: X, **attrs: Any) -> tuple[X, ...]:
    grads = ATTENTION_GRAD(g, q, k, v, *others, **attrs)
    return (*grads, *(None,) * (3 + len(others) - len(grads)))


def _attention_grad_rule(
    op: Op,
    g: Node,
    q: Node,
    k: Node,
    v: Node,
    *others: Node,
    scale: float,
    causal: bool,
    group: int = 1,
    dropout: float = 0.0,
    tf32: bool = False,
) -> tuple[Spec, ...]:
    mask, _ = split(others, dropout)
    batch = g.shape[:-2]
    shared = batch if group == 1 else (*batch[:-1], batch[-1] // group)
    specs = [Spec((*batch, *q.shape[-2:]), q.dtype)]
    specs += [Spec((*shared, *n.shape[-2:]), n.dtype) for n in (k, v)]
    if mask is not None and mask.dtype.is_floating_point:
        specs.append(Spec((*batch, q.shape[-2], k.shape[-2]), q.dtype))
    return tuple(specs)


def _attention(
    xp: X,
    q: X,
    k: X,
    v: X,
    *others: X,
    scale: float,
    causal: bool,
    group: int = 1,
    dropout: float = 0.0,
    tf32: bool = False,
) -> X:
    mask, drawn = split(others, dropout)
    k, v = (_repeated(xp, x, group) for x in (k, v))
    p = _weights(xp, q, k, mask, scale, causal)
    return xp.matmul(_kept_array(xp, p, drawn, dropout), v)


def _attention_plain(
    q: X,
    k: X,
    v: X,
    *others: X,
    scale: float,
    causal: bool,
    group: int = 1,
    dropout: float = 0.0,
    tf32: bool = False,
) -> X:
    mask, drawn = split(others, dropout)
    times = product(tf32)
    k, v = (_repeated_plain(x, group) for x in (k, v))
    p = _weights_plain(q, k, mask, scale, causal, times)
    return times(_kept_plain(p, drawn, dropout), v)


def _attention_grad(
    xp: X,
    g: X,
    q: X,
    k: X,
    v: X,
    *others: X,
    scale: float,
    causal: bool,
    group: int = 1,
    dropout: float = 0.0,
    tf32: bool = False,
) -> tuple[X, ...]:
    mask, drawn = split(others, dropout)
    k, v = (_repeated(xp, x, group) for x in (k, v))
    p = _weights(xp, q, k, mask, scale, causal)
    dv = xp.matmul(_kept_array(xp, p, drawn, dropout).swapaxes(-1, -2), g)
    ds = _kept_array(xp, xp.matmul(g, v.swapaxes(-1, -2)), drawn, dropout)
    ds -= xp.sum(ds * p, (ds.ndim - 1,))
    ds *= p
    dk = xp.matmul(ds.swapaxes(-1, -2), q * scale)
    if group > 1:
        dk, dv = (
            xp.sum(x.reshape(_groups(x.shape, group)), (x.ndim - 2,)).reshape(
                *x.shape[:-3], x.shape[-3] // group, *x.shape[-2:]
            )
            for x in (dk, dv)
        )
    grads = xp.matmul(ds, k) * scale, dk, dv
    return grads if mask is None or mask.dtype.kind in "bi" else (*grads, ds)


def _attention_grad_plain(
    g: X,
    q: X,
    k: X,
    v: X,
    *others: X,
    scale: float,
    causal: bool,
    group: int = 1,
    dropout: float = 0.0,
    tf32: bool = False,
) -> tuple[X, ...]:
    mask, drawn = split(others, dropout)
    times = product(tf32)
    k, v = (_repeated_plain(x, group) for x in (k, v))
    p = _weights_plain(q, k, mask, scale, causal, times)
    dp = _kept_plain(times(g, v.mT), drawn, dropout)
    ds: X = SOFTMAX_GRAD.decompose(dp, p, axis=-1)  # type: ignore[misc]
    dk, dv = times(ds.mT, q * scale), times(_kept_plain(p, drawn, dropout).mT, g)
    if group > 1:
        dk, dv = (x.reshape(*_groups(x.shape, group)).sum(-3) for x in (dk, dv))
    grads = times(ds, k) * scale, dk, dv
    return grads if mask is None or mask.dtype.kind in "bi" else (*grads, ds)


ATTENTION = Op(  # inputs q, k, v, perhaps a mask, perhaps a key and a stream
    "attention",
    kind="fused",
    rule=_attention_rule,
    forward=_attention,
    decompose=_attention_plain,
    vjp=_attention_vjp,
    autocast="half",
)
ATTENTION_GRAD = Op(
    "attention_grad",
    kind="fused",
    rule=_attention_grad_rule,
    forward=_attention_grad,
    decompose=_attention_grad_plain,
)
