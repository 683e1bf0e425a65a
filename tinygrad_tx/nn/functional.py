"""F: the functions that layers are made of, under PyTorch's names.

In: Tensors. Out: Tensors. Called by the layers, by models, and by users directly. Beside
the optimizers, this is the one file above the Tensor that uses op records: the ops known whole
(attention, layer norm, cross-entropy) have no method of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .. import ops
from ..creation import arange, bernoulli_keep
from ..dtypes import bool_, float32, int64
from ..errors import DTypeError, ShapeError, UserError
from ..tensor import Tensor

# Activations ---------------------------------------------------------------------------------


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.relu()


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution; approximate="tanh" is GPT-2's formula
    (Hendrycks and Gimpel, arXiv 1606.08415)."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate must be "none" or "tanh", not {approximate!r}')
    y: Tensor = ops.GELU(x) if approximate == "none" else ops.GELU_TANH(x)
    return y


def gelu_tanh(x: Tensor) -> Tensor:
    """gelu with the tanh approximation."""
    return gelu(x, approximate="tanh")


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    y: Tensor = ops.SILU(x)
    return y


def tanh(x: Tensor) -> Tensor:
    return x.tanh()


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return x.sigmoid()


_ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation that a model's configuration names; UserError where there is none such."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown: use one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) divided by its sum along dim; NaN where all of x is -inf."""
    return x.softmax(dim)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)), without the overflow."""
    return x.log_softmax(dim)


# Linear maps, look-ups and shapes --------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) @ weight (out, in) transposed, plus bias (out,) -> (..., out)."""
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        turned = weight.ndim == 2 and x.ndim > 0 and x.shape[-1] == weight.shape[0]
        hint = "; did you mean weight.T?" if turned else ""
        raise ShapeError(
            f"linear: an input {x.shape} does not fit a weight {weight.shape}: the input's last "
            f"axis must be the weight's second, for weights are (out, in){hint}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: a bias {bias.shape} does not fit a weight {weight.shape}: it must be "
            f"{weight.shape[:1]}"
        )
    y = x @ weight.T
    return y if bias is None else y + bias


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """The rows of weight (V, d) at ids (...), int32 or int64 -> (..., d); IndexError for an id
    outside 0..V-1."""
    if ids.dtype.kind != "i":
        raise DTypeError(
            f"embedding: ids must be int32 or int64, not {ids.dtype.name}: use .long()"
        )
    if weight.ndim != 2:
        raise ShapeError(f"embedding: the weight must be (ids, width), not {weight.shape}")
    y: Tensor = ops.TAKE(weight, ids, axis=0, wrap=False)
    return y


def one_hot(ids: Tensor, num_classes: int) -> Tensor:
    """ids (...) -> int64 (..., num_classes): 1 at each id, 0 elsewhere; an id outside has no 1."""
    if ids.dtype.kind != "i":
        raise DTypeError(f"one_hot: ids must be int32 or int64, not {ids.dtype.name}: use .long()")
    return (ids.unsqueeze(-1) == arange(num_classes, device=ids.device)).to(int64)


def pad(x: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """x with a border of `value`: pad is (left, right) of the last axis, then of the one before."""
    if len(pad) % 2 or len(pad) > 2 * x.ndim or any(n < 0 for n in pad):
        raise ShapeError(
            f"pad: {tuple(pad)} does not fit a Tensor {x.shape}: give a width >= 0 for the left "
            "and the right of each axis, the last axis first"
        )
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    widths = (*[(0, 0)] * (x.ndim - len(pairs)), *reversed(pairs))
    y: Tensor = ops.PAD(x, widths=widths, value=value)
    return y


def write_at(x: Tensor, value: Tensor, position: Tensor, dim: int) -> Tensor:
    """x with value, of x's shape but along dim, written from a 0-d integer position on along dim.
    IndexError where it leaves x."""
    y: Tensor = ops.UPDATE(x, value, position, axis=dim % x.ndim)
    return y


# Normalisation and dropout ---------------------------------------------------------------------


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose sizes
    normalized_shape gives; var is the biased variance (Ba et al., arXiv 1607.06450)."""
    shape = _normalized("layer_norm", x, normalized_shape, weight, bias)
    rows = x.reshape(*x.shape[: x.ndim - len(shape)], -1)
    affine = [] if weight is None else [p.reshape(-1) for p in (weight, bias) if p is not None]
    y: Tensor = ops.LAYER_NORM(rows, *affine, eps=eps)
    y = y.reshape(x.shape)
    return y if weight is not None or bias is None else y + bias


def rms_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes; eps is by default the distance from 1
    to the next number of the dtype that is computed with, which is float32 for half precision
    (Zhang and Sennrich, arXiv 1910.07467)."""
    shape = _normalized("rms_norm", x, normalized_shape, weight)
    if x.dtype.is_half:  # its squares are too large or too small for 16 bits
        weight = None if weight is None else weight.to(float32)
        return rms_norm(x.to(float32), shape, weight, eps).to(x.dtype)
    if eps is None:
        eps = x.dtype.eps
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    y = x * ((x * x).mean(dims, keepdim=True) + eps).rsqrt()
    return y if weight is None else y * weight


def _normalized(
    name: str, x: Tensor, normalized_shape: int | Sequence[int], *affine: Tensor | None
) -> tuple[int, ...]:
    shape = sizes(normalized_shape)
    if not shape or x.shape[max(x.ndim - len(shape), 0) :] != shape:
        raise ShapeError(
            f"{name}: normalized_shape {shape} must be the last axes of the input {x.shape}"
        )
    for p in affine:
        if p is not None and p.shape != shape:
            raise ShapeError(f"{name}: weight and bias must be {shape}, not {p.shape}")
    return shape


def sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A shape that may be given as one number."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, zeros with probability p and x / (1 - p) elsewhere; otherwise x."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p = {p} must be between 0 and 1")
    if not training or p == 0:
        return x
    scale = 1 / (1 - p) if p < 1 else 0.0
    return (x * scale).where(bernoulli_keep(x.shape, p, x.device), 0)


# Losses ----------------------------------------------------------------------------------------


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """-log softmax(logits)[target], where smoothing takes its share from the target and spreads it
    over all classes.

    logits: (N, C), (N, C, d1, ...) or (C,); targets: int32 or int64 of that shape without C.
    ignore_index: targets of this value count for nothing, in the mean neither.
    reduction: "mean" over the targets that count (NaN where none does), "sum", or "none".
    """
    axis = 0 if logits.ndim == 1 else 1
    wanted = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if not logits.ndim or targets.shape != wanted:
        flat = logits.ndim > 2 and targets.shape == logits.shape[:-1]
        hint = "; flatten both to (N, C) and (N,), for classes are axis 1" if flat else ""
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} want targets {wanted}, not {targets.shape}{hint}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing {label_smoothing} must be in [0, 1]")
    if logits.ndim > 2:
        logits = logits.permute(0, *range(2, logits.ndim), 1)
    losses: Tensor = ops.CROSS_ENTROPY(
        logits, targets, ignore_index=ignore_index, label_smoothing=float(label_smoothing)
    )
    if reduction == "mean":
        if losses.dtype.is_half:  # 16 bits hold no large sum
            return (losses.to(float32).sum() / (targets != ignore_index).sum()).to(losses.dtype)
        return losses.sum() / (targets != ignore_index).sum()
    return _reduce("cross_entropy", losses, reduction)


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x - target)^2; both of one shape. reduction: "mean", "sum" or "none"."""
    if x.shape != target.shape:
        raise ShapeError(
            f"mse_loss: {x.shape} and {target.shape} differ; reshape or expand one of them"
        )
    if x.dtype.is_half:  # its squares are too large or too small for 16 bits
        return mse_loss(x.to(float32), target.to(float32), reduction).to(x.dtype)
    return _reduce("mse_loss", (x - target).square(), reduction)


def _reduce(name: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", not {reduction!r}')


# Attention -------------------------------------------------------------------------------------


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """softmax(q k^T / sqrt(d_k) + mask) v: equation 1 of arXiv 1706.03762.

    q: (..., T, d_k); k: (..., S, d_k); v: (..., S, d_v); the result is (..., T, d_v).
    attn_mask: broadcasts to (..., T, S): bool, True takes part; or of q's dtype, added to the
        scores. A row to which a boolean mask leaves no key is zero.
    dropout_p: the share of weights that are dropped (always: pass 0.0 when not training).
    is_causal: query t sees keys up to t; may be joined with a mask.
    """
    if dropout_p > 0:
        weights = attention_weights(q, k, attn_mask, is_causal)
        return dropout(weights, dropout_p) @ v
    mask = () if attn_mask is None else (attn_mask,)
    y: Tensor = ops.ATTENTION(q, k, v, *mask, scale=_scale(q), causal=is_causal)
    return y


def attention_weights(
    q: Tensor, k: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """What scaled_dot_product_attention multiplies v by: (..., T, S), rows that add up to 1."""
    scores = (q * _scale(q)) @ k.mT
    allowed: Tensor | None = None
    if is_causal:
        queries, keys = (arange(n, device=q.device) for n in scores.shape[-2:])
        allowed = keys <= queries.unsqueeze(-1)
    if attn_mask is not None and attn_mask.dtype == bool_:
        allowed = attn_mask if allowed is None else allowed & attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask
    if allowed is None:
        return scores.softmax(-1)
    scores = scores.where(allowed, -math.inf)
    if attn_mask is None or attn_mask.dtype != bool_:
        return scores.softmax(-1)
    # A row without a key is zero: softmax would make it NaN, and its gradient too.
    alive = allowed.any(-1, keepdim=True)
    return scores.where(alive, 0).softmax(-1).where(alive, 0)


def _scale(q: Tensor) -> float:
    return 1 / math.sqrt(q.shape[-1])
