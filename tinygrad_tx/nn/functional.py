"""F: the functions that layers are made of, under PyTorch's names.

In: Tensors. Out: Tensors. Called by the layers, by models, and by users directly. Beside optimizers
and recurrent.py, this file and those whose functions it offers too (losses.py, pairs.py,
convolution.py, pooling.py, normalization.py) are the only ones above the Tensor that use op
records: the ops known whole (attention, layer norm, cross-entropy) have no method of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import ops
from ..arguments import explain_functions
from ..autocast import computed_in, product_dtype
from ..context import PRECISION
from ..creation import arange, tensor
from ..drawing import dropped
from ..dtypes import AUTOCAST, bool_, float32, int64
from ..errors import DTypeError, ShapeError, UserError
from ..lazy import lazily
from ..rules import whole
from ..spelling import refuse, spelled
from ..tensor import Tensor

if TYPE_CHECKING:
    from .convolution import conv1d as conv1d
    from .convolution import conv2d as conv2d
    from .convolution import conv_transpose1d as conv_transpose1d
    from .convolution import conv_transpose2d as conv_transpose2d
    from .convolution import fold as fold
    from .convolution import unfold as unfold
    from .losses import binary_cross_entropy as binary_cross_entropy
    from .losses import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
    from .losses import cross_entropy as cross_entropy
    from .losses import gaussian_nll_loss as gaussian_nll_loss
    from .losses import huber_loss as huber_loss
    from .losses import kl_div as kl_div
    from .losses import l1_loss as l1_loss
    from .losses import mse_loss as mse_loss
    from .losses import nll_loss as nll_loss
    from .losses import poisson_nll_loss as poisson_nll_loss
    from .losses import smooth_l1_loss as smooth_l1_loss
    from .normalization import batch_norm as batch_norm
    from .normalization import group_norm as group_norm
    from .pairs import cosine_embedding_loss as cosine_embedding_loss
    from .pairs import cosine_similarity as cosine_similarity
    from .pairs import hinge_embedding_loss as hinge_embedding_loss
    from .pairs import margin_ranking_loss as margin_ranking_loss
    from .pairs import normalize as normalize
    from .pairs import pairwise_distance as pairwise_distance
    from .pairs import soft_margin_loss as soft_margin_loss
    from .pairs import triplet_margin_loss as triplet_margin_loss
    from .pooling import avg_pool1d as avg_pool1d
    from .pooling import avg_pool2d as avg_pool2d
    from .pooling import interpolate as interpolate
    from .pooling import max_pool1d as max_pool1d
    from .pooling import max_pool2d as max_pool2d
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "convolution": "conv1d conv2d conv_transpose1d conv_transpose2d fold unfold",
            "losses": "binary_cross_entropy binary_cross_entropy_with_logits cross_entropy "
            "gaussian_nll_loss huber_loss kl_div l1_loss mse_loss nll_loss poisson_nll_loss "
            "smooth_l1_loss",
            "normalization": "batch_norm group_norm",
            "pairs": "cosine_embedding_loss cosine_similarity hinge_embedding_loss "
            "margin_ranking_loss normalize pairwise_distance soft_margin_loss triplet_margin_loss",
            "pooling": "avg_pool1d avg_pool2d interpolate max_pool1d max_pool2d",
        },
    )

# Activations ---------------------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). inplace: the input becomes the result."""
    return _placed(input, input.relu(), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution; approximate="tanh" is GPT-2's formula
    (Hendrycks and Gimpel, arXiv 1606.08415)."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate must be "none" or "tanh", not {approximate!r}')
    y: Tensor = ops.GELU(input) if approximate == "none" else ops.GELU_TANH(input)
    return y


def gelu_tanh(x: Tensor) -> Tensor:
    """gelu with the tanh approximation."""
    return gelu(x, approximate="tanh")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x). inplace: the input becomes the result."""
    y: Tensor = ops.SILU(input)
    return _placed(input, y, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where it is positive, else negative_slope * x. inplace: the input becomes the result."""
    y: Tensor = ops.LEAKY_RELU(input, slope=float(negative_slope))
    return _placed(input, y, inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where it is positive, else alpha * (exp(x) - 1) (Clevert et al., arXiv 1511.07289).
    inplace: the input becomes the result."""
    y: Tensor = ops.ELU(input, alpha=float(alpha))
    return _placed(input, y, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x is above threshold."""
    y: Tensor = ops.SOFTPLUS(input, beta=float(beta), threshold=float(threshold))
    return y


@spelled
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b), a and b the halves of the input along dim (Dauphin et al., arXiv 1612.08083,
    equation 1)."""
    size = input.shape[input._axis(dim)]
    if size % 2:
        raise ShapeError(f"glu: dimension {dim} of {input.shape} has no halves: {size} is odd")
    if not size:
        return input
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def _placed(x: Tensor, y: Tensor, inplace: bool) -> Tensor:
    return x.assign(y) if inplace else y


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return input.tanh()


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    y: Tensor = ops.LOG_SIGMOID(input)
    return y


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation that a model's configuration names; UserError where there is none such."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown: use one of {', '.join(_ACTIVATIONS)}")
    own = _ACTIVATIONS[name]
    found: Callable[[Tensor], Tensor] = globals().get(own.__name__, own)  # as others import it
    return found


@spelled
def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """exp(x) divided by its sum along dim; NaN where all of x is -inf. Give dim: without it
    PyTorch takes 0 for 0, 1 or 3 dimensions, else 1. dtype: the input is converted first."""
    return input.softmax(_implicit(input) if dim is None else dim, dtype)


@spelled
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """log(softmax(x)), without the overflow. dim, dtype: as for softmax."""
    return input.log_softmax(_implicit(input) if dim is None else dim, dtype)


def _implicit(x: Tensor) -> int:
    return 0 if x.ndim in (0, 1, 3) else 1


# Linear maps, look-ups and shapes --------------------------------------------------------------


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (..., in) @ weight (out, in) transposed, plus bias (out,) -> (..., out)."""
    if weight.ndim != 2 or not input.ndim or input.shape[-1] != weight.shape[1]:
        turned = weight.ndim == 2 and input.ndim > 0 and input.shape[-1] == weight.shape[0]
        hint = "; did you mean weight.T?" if turned else ""
        raise ShapeError(
            f"linear: an input {input.shape} does not fit a weight {weight.shape}: the input's "
            f"last axis must be the weight's second, for weights are (out, in){hint}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: a bias {bias.shape} does not fit a weight {weight.shape}: it must be "
            f"{weight.shape[:1]}"
        )
    y = input @ weight.T
    if bias is not None and PRECISION.get() in AUTOCAST:
        bias = bias.to(product_dtype(bias.dtype))
    return y if bias is None else y + bias


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of weight (V, d) at ids (...), int32 or int64 -> (..., d); IndexError for an id
    outside 0..V-1. padding_idx: this row gets no gradient."""
    refuse("embedding", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    if input.dtype.kind != "i":
        raise DTypeError(
            f"embedding: ids must be int32 or int64, not {input.dtype.name}: use .long()"
        )
    if weight.ndim != 2:
        raise ShapeError(f"embedding: the weight must be (ids, width), not {weight.shape}")
    y: Tensor = ops.TAKE(weight, input, axis=0, wrap=False)
    if padding_idx is None:
        return y
    padding = padding_row("embedding", padding_idx, len(weight))
    return y.where((input != padding).unsqueeze(-1), y.detach())


def padding_row(name: str, padding_idx: int, rows: int) -> int:
    """The row that padding_idx names, perhaps from the end."""
    if not -rows <= padding_idx < rows:
        raise ShapeError(f"{name}: padding_idx={padding_idx} is outside the {rows} rows")
    return padding_idx % rows


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """ids (...) -> int64 (..., num_classes): 1 at each id, 0 elsewhere; IndexError for an id
    outside. num_classes=-1: one more than the largest id, which no traced function knows."""
    if input.dtype.kind != "i":
        raise DTypeError(
            f"one_hot: ids must be int32 or int64, not {input.dtype.name}: use .long()"
        )
    num_classes = whole("one_hot: num_classes", num_classes)
    if num_classes == -1:
        if not input.numel():
            raise ShapeError("one_hot: of no ids no num_classes can be inferred; give it")
        num_classes = int(input.max().item()) + 1
    if num_classes < 1:
        raise ShapeError(f"one_hot: num_classes={num_classes} must be 1 or more, or -1")
    ids = ops.WRAP_INDEX(input, size=num_classes, wrap=False, of="one_hot")
    y: Tensor = (ids.unsqueeze(-1) == arange(num_classes, device=input.device)).to(int64)
    return y


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """input with a border: pad is (left, right) of the last axis, then of the one before, ...;
    a negative width cuts off.

    mode: "constant" (`value`, 0 by default), "reflect" (the other side of the edge, without the
        edge), "replicate" (the edge) or "circular" (the opposite end).
    """
    if mode not in ("constant", *_BORDERS):
        known = ", ".join(("constant", *_BORDERS))
        raise UserError(f"pad: mode={mode!r} is unknown; it is one of {known}")
    pad = [whole("pad: a width", n) for n in pad]
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(
            f"pad: {tuple(pad)} does not fit a Tensor {input.shape}: give a width for the left "
            "and the right of each axis, the last axis first"
        )
    if mode != "constant" and value is not None:
        raise UserError(f'pad: value={value} goes with mode="constant", not with "{mode}"')
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    widths = (*[(0, 0)] * (input.ndim - len(pairs)), *reversed(pairs))
    for axis, (left, right) in enumerate(widths):
        n = input.shape[axis]
        if n + left + right < 0 or (mode != "constant" and not n and left + right > 0):
            raise ShapeError(f"pad: {(left, right)} does not fit axis {axis} of {input.shape}")
        if mode != "constant" and (left or right):
            places = _BORDERS[mode](axis, n, left, right)
            input = input.index_select(axis, tensor(places, dtype=int64, device=input.device))
    if mode != "constant":
        return input
    cut = [(min(left, 0), min(right, 0)) for left, right in widths]
    if any(pair != (0, 0) for pair in cut):
        kept = zip(cut, input.shape, strict=True)
        input = input[tuple(slice(-left, n + right) for (left, right), n in kept)]
    grown = tuple((max(left, 0), max(right, 0)) for left, right in widths)
    y: Tensor = ops.PAD(input, widths=grown, value=0.0 if value is None else value)
    return y


def _reflected(axis: int, n: int, left: int, right: int) -> list[int]:
    if max(left, right) >= n:
        raise ShapeError(f"pad: reflect by {(left, right)} needs a longer axis {axis} than {n}")
    period = max(2 * (n - 1), 1)
    return [min(i % period, period - i % period) for i in range(-left, n + right)]


def _replicated(axis: int, n: int, left: int, right: int) -> list[int]:
    return [min(max(i, 0), n - 1) for i in range(-left, n + right)]


def _circular(axis: int, n: int, left: int, right: int) -> list[int]:
    if min(left, right) < 0:
        raise ShapeError(f"pad: circular by {(left, right)}: cut axis {axis} off first, by x[...]")
    if max(left, right) > n:
        raise ShapeError(f"pad: circular by {(left, right)} goes round axis {axis} of {n} twice")
    return [i % n for i in range(-left, n + right)]


_BORDERS = {"reflect": _reflected, "replicate": _replicated, "circular": _circular}


def write_at(x: Tensor, value: Tensor, position: Tensor, dim: int) -> Tensor:
    """x with value, of x's shape but along dim, written from a 0-d integer position on along dim,
    in x's dtype. IndexError where it leaves x."""
    y: Tensor = ops.UPDATE(x, value.to(x.dtype), position, axis=dim % x.ndim)
    return y


# Normalisation and dropout ---------------------------------------------------------------------


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose sizes
    normalized_shape gives; var is the biased variance (Ba et al., arXiv 1607.06450)."""
    x = input
    shape = _normalized("layer_norm", x, normalized_shape, weight, bias)
    rows = x.reshape(*x.shape[: x.ndim - len(shape)], math.prod(shape))
    affine = [] if weight is None else [p.reshape(-1) for p in (weight, bias) if p is not None]
    y: Tensor = ops.LAYER_NORM(rows, *affine, eps=eps)
    y = y.reshape(x.shape)
    return y if weight is not None or bias is None else y + bias


@computed_in("float32")
def rms_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes; eps is by default the distance from 1
    to the next number of the dtype that is computed with, which is float32 for half precision
    (Zhang and Sennrich, arXiv 1910.07467)."""
    x = input
    shape = _normalized("rms_norm", x, normalized_shape, weight)
    if x.dtype.is_half:  # its squares are too large or too small for 16 bits
        weight = None if weight is None else weight.to(float32)
        return rms_norm(x.to(float32), shape, weight, eps).to(x.dtype)
    if eps is None:
        eps = x.dtype.eps
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    y = x * ((x * x).mean(dims, keepdim=True) + eps).rsqrt()
    return y if weight is None else (y * weight).to(x.dtype)


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


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zeros with probability p and x / (1 - p) elsewhere; otherwise x. inplace: the
    input becomes the result."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p = {p} must be between 0 and 1")
    if not training or p == 0:
        return input
    return _placed(input, dropped(input, p), inplace)


# Attention -------------------------------------------------------------------------------------


@computed_in("half")
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    bounds: Tensor | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v: equation 1 of arXiv 1706.03762.

    query: (..., T, d_k); key: (..., S, d_k); value: (..., S, d_v); the result is (..., T, d_v).
    attn_mask: broadcasts to (..., T, S): bool, True takes part; or of query's dtype, added to the
        scores. A row to which a boolean mask leaves no key is zero.
    dropout_p: the share of weights that are dropped (always: pass 0.0 when not training).
    is_causal: query t sees keys up to t; may be joined with a mask.
    scale: 1 / sqrt(d_k) by default.
    enable_gqa: key and value have fewer heads (axis -3), each for as many heads of query in turn.
    bounds: int, broadcasts to (..., T, 2): query t sees keys from the first number up to before the
        second; may be joined with is_causal, and is instead of a mask. Keys outside are not even
        looked at, so texts that lie side by side cost what each of them does.
    """
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"attention: dropout_p = {dropout_p} must be between 0 and 1")
    if attn_mask is not None and attn_mask.dtype == int64:
        raise DTypeError(
            "attention: attn_mask is bool (True takes part) or of query's dtype, not int64"
        )
    if bounds is not None:
        if attn_mask is not None:
            raise ValueError("attention: attn_mask and bounds exclude each other: give one")
        if bounds.dtype.is_floating_point or bounds.dtype == bool_:
            raise DTypeError(f"attention: bounds must be integers, not {bounds.dtype.name}")
        attn_mask = bounds.to(int64)
    group = 1
    if enable_gqa:
        groups = [_group(query, x) for x in (key, value)]
        if dropout_p == 0 and groups[0] == groups[1]:
            group = groups[0]
        else:
            key, value = (_repeated(x, n) for x, n in zip((key, value), groups, strict=True))
    scale = _scale(query) if scale is None else float(scale)
    if dropout_p > 0:
        weights = attention_weights(query, key, attn_mask, is_causal, scale)
        return dropout(weights, dropout_p) @ value
    mask = () if attn_mask is None else (attn_mask,)
    grouped = {"group": group} if group > 1 else {}
    y: Tensor = ops.ATTENTION(query, key, value, *mask, scale=scale, causal=is_causal, **grouped)
    return y


def _group(query: Tensor, x: Tensor) -> int:
    """How many heads of query each head of keys or values (..., heads, S, d) serves."""
    if query.ndim < 3 or x.ndim < 3 or not x.shape[-3] or query.shape[-3] % x.shape[-3]:
        raise ShapeError(
            f"attention: enable_gqa wants heads (axis -3) of query {query.shape} that are a "
            f"multiple of those of {x.shape}"
        )
    return query.shape[-3] // x.shape[-3]


def _repeated(x: Tensor, times: int) -> Tensor:
    """Each head of keys or values (..., heads, S, d) so many times, side by side."""
    *batch, heads, length, width = x.shape
    wide = x.unsqueeze(-3).expand(*batch, heads, times, length, width)
    return wide.reshape(*batch, heads * times, length, width)


def attention_weights(
    q: Tensor,
    k: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    group: int = 1,
) -> Tensor:
    """The weights that scaled_dot_product_attention multiplies v by: (..., T, S), rows that add up
    to 1. group: heads of q for each head of k."""
    k = k if group == 1 else _repeated(k, group)
    scores = (q * (_scale(q) if scale is None else scale)) @ k.mT
    if attn_mask is not None and attn_mask.dtype == int64:
        places = arange(scores.shape[-1], device=q.device)
        attn_mask = (places >= attn_mask[..., :1]) & (places < attn_mask[..., 1:])
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
    return 1 / math.sqrt(q.shape[-1] or 1)  # without features, all scores are 0


explain_functions(globals())
