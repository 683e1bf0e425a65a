"""Cross-entropy, known whole, with its gradient (the parts of such a record: see softmax.py), and
binary cross-entropy."""

from __future__ import annotations

from typing import Any

from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, require_floating
from .create import ARANGE
from .gather import TAKE_ALONG, WRAP_INDEX
from .map import CLIP, EXP, LOG, LOG1P, WHERE
from .reduce import MAX, SUM
from .softmax import LOG_SOFTMAX, SOFTMAX

# mypy sees arrays and Tensors as Any: decompositions run on Tensors, which are two floors up.
X = Any


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
    grad: X = SOFTMAX.forward(xp, x, x.ndim - 1)
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


def _hits(x: X, t: X, ignore_index: int) -> tuple[X, X]:
    """A mask of the targets that count (rows, 1), and one of the columns that are the target (rows,
    classes)."""
    n = x.shape[-1]
    safe = WRAP_INDEX(t, size=n, wrap=False, skip=ignore_index, of="cross_entropy")
    safe = safe.unsqueeze(-1)
    columns = ARANGE(start=0, step=1, count=n, dtype=safe.dtype, device=x.device)
    return (t != ignore_index).unsqueeze(-1), safe == columns


def _shifted(x: X) -> tuple[X, X]:
    shifted = x - MAX(x, axis=-1, keepdims=True)
    return shifted, SUM(EXP(shifted), axis=-1, keepdims=True)


def _cross_entropy_kernels(x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, hit = _hits(x, t, ignore_index)
    shifted, total = _shifted(x)
    picked = SUM(WHERE(hit, shifted, 0), axis=-1, keepdims=True)
    loss = LOG(total) - picked * (1 - label_smoothing)
    if label_smoothing:
        every = SUM(shifted, axis=-1, keepdims=True)
        loss = loss - every * (label_smoothing / x.shape[-1])
    return WHERE(counts, loss, 0).squeeze(-1)


def _cross_entropy_grad_kernels(g: X, x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, hit = _hits(x, t, ignore_index)
    shifted, total = _shifted(x)
    wanted = hit.to(x.dtype) * (1 - label_smoothing)
    if label_smoothing:
        wanted = wanted + label_smoothing / x.shape[-1]
    grad = EXP(shifted) * (1 / total) - wanted
    return grad * WHERE(counts, g.unsqueeze(-1), 0)


CROSS_ENTROPY = Op(  # one loss for each row; F.cross_entropy takes the mean or the sum
    "cross_entropy",
    kind="fused",
    rule=_cross_entropy_rule,
    forward=_cross_entropy,
    decompose=_cross_entropy_plain,
    kernel_form=_cross_entropy_kernels,
    vjp=lambda g, y, x, t, **attrs: (CROSS_ENTROPY_GRAD(g, x, t, **attrs), None),
    autocast="float32",
)
CROSS_ENTROPY_GRAD: Op = Op(
    "cross_entropy_grad",
    kind="fused",
    rule=lambda op, g, x, t, **attrs: x.spec,
    forward=_cross_entropy_grad,
    decompose=_cross_entropy_grad_plain,
    kernel_form=_cross_entropy_grad_kernels,
)


def _binary_vjp(g: X, y: X, x: X, t: X) -> tuple[X, X]:
    # Of probabilities 0 and 1 the logarithms have no derivative, but the loss is flat there.
    return (
        lambda: g * (x - t) / CLIP(x * (1 - x), low=1e-12, high=None),
        lambda: g * (LOG1P(-x) - LOG(x)),
    )


BINARY_CROSS_ENTROPY = Op(
    "binary_cross_entropy",
    kind="map",
    forward=lambda xp, x, t: (
        (t - 1) * xp.maximum(xp.log1p(-x), -100) - t * xp.maximum(xp.log(x), -100)
    ),
    vjp=_binary_vjp,
    autocast="float32",
)
