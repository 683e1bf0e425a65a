"""Ops that are known whole: each with a plain decomposition, which is its oracle in the tests.

Forwards are written for speed in a few array operations; `decompose` says the same by simpler ops
on Tensors. A `*_grad` op has no vjp of its own: autograd differentiates its decomposition.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import bool_, int64
from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, broadcast_shape, reduced, require_floating
from .create import ARANGE
from .gather import TAKE_ALONG
from .map import AND, EXP, GE, ISFINITE, LOG, RSQRT, WHERE
from .matmul import MATMUL
from .reduce import ANY, MAX, SUM

# mypy sees arrays and Tensors as Any: decompositions run on Tensors, which are two floors up.
X = Any


def _same(op: Op, *nodes: Node, axis: int) -> Spec:
    require_floating(op, *nodes)
    if nodes[-1].shape[axis] == 0:
        raise ShapeError(f"{op.name}: axis {axis} of {nodes[-1].shape} is empty")
    return nodes[-1].spec  # type: ignore[return-value]


# softmax -----------------------------------------------------------------------------------------


def _exps(xp: X, x: X, axis: int) -> tuple[X, X]:
    e = xp.exp(x - xp.max(x, (axis,)))
    return e, xp.sum(e, (axis,))


def _softmax(xp: X, x: X, axis: int) -> X:
    e, total = _exps(xp, x, axis)
    return e / total


def _softmax_plain(x: X, axis: int) -> X:
    e = EXP(x - MAX(x, axis=axis, keepdims=True).detach())
    return e / SUM(e, axis=axis, keepdims=True)


def _softmax_grad_plain(g: X, y: X, axis: int) -> X:
    return y * (g - SUM(g * y, axis=axis, keepdims=True))


SOFTMAX = Op(
    "softmax",
    kind="fused",
    rule=_same,
    forward=_softmax,
    decompose=_softmax_plain,
    vjp=lambda g, y, x, axis: (SOFTMAX_GRAD(g, y, axis=axis),),
)
SOFTMAX_GRAD: Op = Op(
    "softmax_grad",
    kind="fused",
    rule=_same,
    forward=lambda xp, g, y, axis: y * (g - xp.sum(g * y, (axis,))),
    decompose=_softmax_grad_plain,
)


def _log_softmax(xp: X, x: X, axis: int) -> X:
    shifted = x - xp.max(x, (axis,))
    return shifted - xp.log(xp.sum(xp.exp(shifted), (axis,)))


def _log_softmax_plain(x: X, axis: int) -> X:
    shifted = x - MAX(x, axis=axis, keepdims=True).detach()
    return shifted - LOG(SUM(EXP(shifted), axis=axis, keepdims=True))


def _log_softmax_grad_plain(g: X, y: X, axis: int) -> X:
    return g - EXP(y) * SUM(g, axis=axis, keepdims=True)


LOG_SOFTMAX = Op(
    "log_softmax",
    kind="fused",
    rule=_same,
    forward=_log_softmax,
    decompose=_log_softmax_plain,
    vjp=lambda g, y, x, axis: (LOG_SOFTMAX_GRAD(g, y, axis=axis),),
)
LOG_SOFTMAX_GRAD: Op = Op(
    "log_softmax_grad",
    kind="fused",
    rule=_same,
    forward=lambda xp, g, y, axis: g - xp.exp(y) * xp.sum(g, (axis,)),
    decompose=_log_softmax_grad_plain,
)


def _logsumexp(xp: X, x: X, axis: tuple[int, ...]) -> X:
    m = xp.max(x, axis)
    m = xp.where(xp.isfinite(m), m, 0)  # a row of -inf has the sum 0, not NaN
    return xp.log(xp.sum(xp.exp(x - m), axis)) + m


def _logsumexp_plain(x: X, axis: tuple[int, ...]) -> X:
    m = MAX(x, axis=axis, keepdims=True).detach()
    m = WHERE(ISFINITE(m), m, 0)
    return LOG(SUM(EXP(x - m), axis=axis, keepdims=True)) + m


def _logsumexp_rule(op: Op, x: Node, *, axis: tuple[int, ...]) -> Spec:
    require_floating(op, x)
    if any(x.shape[a] == 0 for a in axis):
        raise ShapeError(f"logsumexp: a reduced axis of {x.shape} is empty")
    return Spec(reduced(x.shape, axis), x.dtype)


LOGSUMEXP = Op(
    "logsumexp",
    kind="reduce",
    rule=_logsumexp_rule,
    forward=_logsumexp,
    decompose=_logsumexp_plain,
    # A row of -inf has the gradient 0, one with inf or NaN what exp(x - y) says.
    vjp=lambda g, y, x, axis: (g * EXP(x - WHERE(y == -float("inf"), 0, y)),),
)

# layer norm --------------------------------------------------------------------------------------


def _normalised(xp: X, x: X, eps: float) -> tuple[X, X]:
    """(x - mean) / sqrt(var + eps) over the last axis, and the factor 1 / sqrt(...)."""
    last, n = (x.ndim - 1,), x.shape[-1]
    centred = x - xp.sum(x, last) / n
    factor = 1 / xp.sqrt(xp.sum(centred * centred, last) / n + eps)
    return centred * factor, factor


def _normalised_plain(x: X, eps: float) -> tuple[X, X]:
    n = x.shape[-1]
    centred = x - SUM(x, axis=-1, keepdims=True) / n
    factor = RSQRT(SUM(centred * centred, axis=-1, keepdims=True) / n + eps)
    return centred * factor, factor


def _affine(y: X, weight: X, bias: X) -> X:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _layer_norm_rule(op: Op, x: Node, *affine: Node, eps: float) -> Spec:
    require_floating(op, x)
    if not x.ndim:
        raise ShapeError("layer_norm: a 0-d Tensor has no last axis to normalise; use .reshape(1)")
    for p in affine:
        if p.shape != x.shape[-1:] or p.dtype != x.dtype:
            raise ShapeError(
                f"layer_norm: weight and bias must be {x.dtype.name} {x.shape[-1:]} for an input "
                f"{x.shape}, not {p.dtype.name} {p.shape}"
            )
    return x.spec  # type: ignore[return-value]


def _layer_norm_vjp(g: X, y: X, x: X, *affine: X, eps: float) -> tuple[X, ...]:
    if not affine:
        return (LAYER_NORM_GRAD(g, x, eps=eps)[0],)
    return LAYER_NORM_GRAD(g, x, affine[0], eps=eps)[: 1 + len(affine)]  # type: ignore[no-any-return]


def _layer_norm_grad_rule(op: Op, g: Node, x: Node, *weight: Node, eps: float) -> tuple[Spec, ...]:
    per_column = Spec(x.shape[-1:], x.dtype)
    return (Spec(x.shape, x.dtype), *(per_column for w in weight for _ in range(2)))


def _layer_norm_grad(xp: X, g: X, x: X, weight: X = None, *, eps: float) -> tuple[X, ...]:
    y, factor = _normalised(xp, x, eps)
    last, rows, n = (x.ndim - 1,), tuple(range(x.ndim - 1)), x.shape[-1]
    gw = g if weight is None else g * weight
    dx = factor * (gw - xp.sum(gw, last) / n - y * (xp.sum(gw * y, last) / n))
    if weight is None:
        return (dx,)
    columns = x.shape[-1:]
    return dx, xp.sum(g * y, rows).reshape(columns), xp.sum(g, rows).reshape(columns)


def _layer_norm_grad_plain(g: X, x: X, weight: X = None, *, eps: float) -> tuple[X, ...]:
    y, factor = _normalised_plain(x, eps)
    n = x.shape[-1]
    gw = g if weight is None else g * weight
    mean = SUM(gw, axis=-1, keepdims=True) / n
    slope = SUM(gw * y, axis=-1, keepdims=True) / n
    dx = factor * (gw - mean - y * slope)
    if weight is None:
        return (dx,)
    rows = tuple(range(x.ndim - 1))
    return dx, SUM(g * y, axis=rows), SUM(g, axis=rows)


LAYER_NORM = Op(
    "layer_norm",
    kind="fused",
    rule=_layer_norm_rule,
    forward=lambda xp, x, weight=None, bias=None, *, eps: _affine(
        _normalised(xp, x, eps)[0], weight, bias
    ),
    decompose=lambda x, weight=None, bias=None, *, eps: _affine(
        _normalised_plain(x, eps)[0], weight, bias
    ),
    vjp=_layer_norm_vjp,
)
LAYER_NORM_GRAD = Op(
    "layer_norm_grad",
    kind="fused",
    rule=_layer_norm_grad_rule,
    forward=_layer_norm_grad,
    decompose=_layer_norm_grad_plain,
)

# cross-entropy -----------------------------------------------------------------------------------


def _cross_entropy_rule(op: Op, logits: Node, targets: Node, **attrs: Any) -> Spec:
    require_floating(op, logits)
    if targets.dtype.kind != "i":
        raise DTypeError(f"cross_entropy: targets must be int32 or int64, not {targets.dtype.name}")
    if not logits.ndim or not logits.shape[-1] or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} want targets {logits.shape[:-1]}, "
            f"not {targets.shape}"
        )
    return Spec(targets.shape, logits.dtype)


def _targets(xp: X, targets: X, classes: int, ignore_index: int) -> tuple[X, X]:
    """A mask of the targets that count, and all targets as places to read (0 where they do not
    count)."""
    counts = targets != ignore_index
    places = xp.checked(xp.where(counts, targets, 0), classes, wrap=False, of="cross_entropy")
    return counts, places[..., None]


def _cross_entropy(xp: X, x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, places = _targets(xp, t, x.shape[-1], ignore_index)
    shifted = x - xp.max(x, (x.ndim - 1,))
    log_total = xp.log(xp.sum(xp.exp(shifted), (x.ndim - 1,)))
    loss = log_total - (1 - label_smoothing) * xp.take_along_axis(shifted, places, -1)
    if label_smoothing:
        loss = loss - label_smoothing / x.shape[-1] * xp.sum(shifted, (x.ndim - 1,))
    return xp.where(counts, loss[..., 0], xp.cast_like(0, x))


def _cross_entropy_plain(x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts = t != ignore_index
    logp = LOG_SOFTMAX(x, axis=x.ndim - 1)
    picked = TAKE_ALONG(logp, WHERE(counts, t, 0).unsqueeze(-1), axis=x.ndim - 1).squeeze(-1)
    loss = picked * (label_smoothing - 1)
    if label_smoothing:
        loss = loss - SUM(logp, axis=-1) * (label_smoothing / x.shape[-1])
    return WHERE(counts, loss, 0)


def _cross_entropy_grad(xp: X, g: X, x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, places = _targets(xp, t, x.shape[-1], ignore_index)
    grad = _softmax(xp, x, x.ndim - 1)
    if label_smoothing:
        grad -= label_smoothing / x.shape[-1]
    hit = xp.take_along_axis(grad, places, -1) - (1 - label_smoothing)
    xp.put_along_axis(grad, places, hit, -1)
    grad *= xp.where(counts, g, xp.cast_like(0, g))[..., None]
    return grad


def _cross_entropy_grad_plain(g: X, x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, n = t != ignore_index, x.shape[-1]
    classes = ARANGE(start=0, step=1, count=n, dtype=t.dtype, device=x.device)
    wanted = (t.unsqueeze(-1) == classes).to(x.dtype) * (1 - label_smoothing)
    grad = SOFTMAX(x, axis=x.ndim - 1) - (wanted + label_smoothing / n)
    return grad * WHERE(counts, g, 0).unsqueeze(-1)


CROSS_ENTROPY = Op(  # one loss for each row; F.cross_entropy takes the mean or the sum
    "cross_entropy",
    kind="fused",
    rule=_cross_entropy_rule,
    forward=_cross_entropy,
    decompose=_cross_entropy_plain,
    vjp=lambda g, y, x, t, **attrs: (CROSS_ENTROPY_GRAD(g, x, t, **attrs), None),
)
CROSS_ENTROPY_GRAD: Op = Op(
    "cross_entropy_grad",
    kind="fused",
    rule=lambda op, g, x, t, **attrs: x.spec,
    forward=_cross_entropy_grad,
    decompose=_cross_entropy_grad_plain,
)

# attention ---------------------------------------------------------------------------------------


def _attention_rule(
    op: Op, q: Node, k: Node, v: Node, *mask: Node, scale: float, causal: bool
) -> Spec:
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
    batch = broadcast_shape("attention (batch axes)", q.shape[:-2], k.shape[:-2], v.shape[:-2])
    scores = (*batch, q.shape[-2], k.shape[-2])
    for m in mask:
        if m.dtype != bool_ and m.dtype != q.dtype:
            raise DTypeError(
                f"attention: a mask is bool (True takes part) or {q.dtype.name} (added to the "
                f"scores), not {m.dtype.name}"
            )
        if broadcast_shape("attention (mask with scores)", m.shape, scores) != scores:
            raise ShapeError(f"attention: a mask {m.shape} does not fit scores {scores}")
    return Spec((*batch, q.shape[-2], v.shape[-1]), q.dtype)


def _weights(xp: X, q: X, k: X, mask: X, scale: float, causal: bool) -> X:
    """softmax(scale q k^T + mask) over keys. Where a boolean mask leaves a row no key, the row is
    zero; where an additive one does, or the only score is -inf, it is NaN, as softmax says."""
    s = xp.matmul(q * scale, k.swapaxes(-1, -2))
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


def _lower(xp: X, shape: tuple[int, ...]) -> X:
    """True where key <= query: both counted from the start, as in PyTorch."""
    return xp.arange(shape[-2])[:, None] >= xp.arange(shape[-1])


def _weights_plain(q: X, k: X, mask: X, scale: float, causal: bool) -> X:
    s = MATMUL(q * scale, k.mT)
    allowed = None
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


def _attention_vjp(
    g: X, y: X, q: X, k: X, v: X, *mask: X, scale: float, causal: bool
) -> tuple[X, ...]:
    grads = ATTENTION_GRAD(g, q, k, v, *mask, scale=scale, causal=causal)
    return grads if len(grads) == 3 + len(mask) else (*grads, None)


def _attention_grad_rule(
    op: Op, g: Node, q: Node, k: Node, v: Node, *mask: Node, scale: float, causal: bool
) -> tuple[Spec, ...]:
    batch = g.shape[:-2]
    specs = [Spec((*batch, *n.shape[-2:]), n.dtype) for n in (q, k, v)]
    if mask and mask[0].dtype != bool_:
        specs.append(Spec((*batch, q.shape[-2], k.shape[-2]), q.dtype))
    return tuple(specs)


def _attention_grad(
    xp: X, g: X, q: X, k: X, v: X, mask: X = None, *, scale: float, causal: bool
) -> tuple[X, ...]:
    p = _weights(xp, q, k, mask, scale, causal)
    dv = xp.matmul(p.swapaxes(-1, -2), g)
    ds = xp.matmul(g, v.swapaxes(-1, -2))
    ds -= xp.sum(ds * p, (ds.ndim - 1,))
    ds *= p
    grads = xp.matmul(ds, k) * scale, xp.matmul(ds.swapaxes(-1, -2), q * scale), dv
    return grads if mask is None or mask.dtype.kind == "b" else (*grads, ds)


def _attention_grad_plain(
    g: X, q: X, k: X, v: X, mask: X = None, *, scale: float, causal: bool
) -> tuple[X, ...]:
    p = _weights_plain(q, k, mask, scale, causal)
    ds = _softmax_grad_plain(MATMUL(g, v.mT), p, axis=-1)
    grads = MATMUL(ds, k) * scale, MATMUL(ds.mT, q * scale), MATMUL(p.mT, g)
    return grads if mask is None or mask.dtype == bool_ else (*grads, ds)


ATTENTION = Op(  # inputs q, k, v and perhaps a mask
    "attention",
    kind="fused",
    rule=_attention_rule,
    forward=lambda xp, q, k, v, mask=None, *, scale, causal: xp.matmul(
        _weights(xp, q, k, mask, scale, causal), v
    ),
    decompose=lambda q, k, v, mask=None, *, scale, causal: MATMUL(
        _weights_plain(q, k, mask, scale, causal), v
    ),
    vjp=_attention_vjp,
)
ATTENTION_GRAD = Op(
    "attention_grad",
    kind="fused",
    rule=_attention_grad_rule,
    forward=_attention_grad,
    decompose=_attention_grad_plain,
)
