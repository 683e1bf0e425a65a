"""The losses of F, under PyTorch's names: the order and the meaning of their arguments are its.

In: scores and targets. Out: a Tensor, by default the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import ops
from ..arguments import explain_functions
from ..autocast import computed_in
from ..creation import full_like
from ..dtypes import float32, promote
from ..errors import DTypeError, ShapeError, UserError
from ..rules import whole
from ..spelling import refuse
from ..tensor import Tensor


@computed_in("float32")
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target], where smoothing takes its share from the target and spreads it
    over all classes.

    input: logits (N, C), (N, C, d1, ...) or (C,); target: int32 or int64 of that shape without C,
        or probabilities of the classes, of input's shape and dtype.
    weight: (C,), how much each class counts.
    ignore_index: targets of this value count for nothing, in the mean neither.
    reduction: "mean" over the targets that count, each by its weight (NaN where none does), over
        all of them where they are probabilities; "sum", or "none".
    """
    refuse("cross_entropy", size_average=size_average, reduce=reduce)
    if reduction not in ("mean", "sum", "none"):
        raise _unknown("cross_entropy", reduction)
    ignore_index = whole("cross_entropy: ignore_index", ignore_index)
    logits, axis = input, 0 if input.ndim == 1 else 1
    if logits.ndim and target.shape == logits.shape and target.dtype.is_floating_point:
        _check(logits, axis, weight, label_smoothing)
        return _against_probabilities(
            logits, target, axis, weight, ignore_index, reduction, label_smoothing
        )
    wanted = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if not logits.ndim or target.shape != wanted:
        flat = logits.ndim > 2 and target.shape == logits.shape[:-1]
        hint = "; flatten both to (N, C) and (N,), for classes are axis 1" if flat else ""
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} want targets {wanted}, not {target.shape}{hint}"
        )
    _check(logits, axis, weight, label_smoothing)
    if logits.ndim > 2:
        logits = logits.permute(0, *range(2, logits.ndim), 1)
    plain = weight is None
    losses: Tensor = ops.CROSS_ENTROPY(
        logits,
        target,
        ignore_index=ignore_index,
        label_smoothing=float(label_smoothing) if plain else 0.0,
    )
    shares = None
    if weight is not None:
        counts, shares = _shares(weight, target, ignore_index)
        losses = losses * shares
        if label_smoothing:
            spread = (logits.log_softmax(-1) * weight).sum(-1).where(counts, 0)
            eps = label_smoothing / logits.shape[-1]
            losses = losses * (1 - label_smoothing) - spread * eps
    return _over_classes("cross_entropy", losses, target, shares, ignore_index, reduction)


@computed_in("float32")
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[target], for logarithms of probabilities, as log_softmax gives them. Shapes and the
    rest as for cross_entropy, of which it is the second half."""
    refuse("nll_loss", size_average=size_average, reduce=reduce)
    if reduction not in ("mean", "sum", "none"):
        raise _unknown("nll_loss", reduction)
    require_floating("nll_loss", input)
    ignore_index = whole("nll_loss: ignore_index", ignore_index)
    axis = 0 if input.ndim == 1 else 1
    wanted = (*input.shape[:axis], *input.shape[axis + 1 :])
    if not input.ndim or target.shape != wanted or target.dtype.kind != "i":
        raise ShapeError(
            f"nll_loss: an input {input.shape} wants targets {wanted}, int32 or int64, not "
            f"{target.dtype.name} {target.shape}"
        )
    _check_weight("nll_loss", input, axis, weight)
    places: Tensor = ops.WRAP_INDEX(
        target, size=input.shape[axis], wrap=False, skip=ignore_index, of="nll_loss"
    )
    picked: Tensor = ops.TAKE_ALONG(input, places.unsqueeze(axis), axis=axis)
    losses = (-picked.squeeze(axis)).where(target != ignore_index, 0)
    shares = None
    if weight is not None:
        _, shares = _shares(weight, target, ignore_index)
        losses = losses * shares
    return _over_classes("nll_loss", losses, target, shares, ignore_index, reduction)


def _shares(weight: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Which targets count, and how much."""
    counts = target != ignore_index
    shares: Tensor = ops.TAKE(weight, target.where(counts, 0), axis=0)
    return counts, shares.where(counts, 0)


def _over_classes(
    name: str,
    losses: Tensor,
    target: Tensor,
    shares: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """The mean counts what the targets count."""
    if reduction != "mean":
        return reduced(name, losses, reduction)
    dtype = losses.dtype
    if dtype.is_half:  # 16 bits hold no large sum
        losses = losses.to(float32)
    if shares is None:
        return (losses.sum() / (target != ignore_index).sum()).to(dtype)
    return (losses.sum() / shares.to(losses.dtype).sum()).to(dtype)


def _check(logits: Tensor, axis: int, weight: Tensor | None, label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing {label_smoothing} must be in [0, 1]")
    _check_weight("cross_entropy", logits, axis, weight)


def _check_weight(name: str, logits: Tensor, axis: int, weight: Tensor | None) -> None:
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise DTypeError(
            f"{name}: weight={weight!r} must be a Tensor with a number for each class; to "
            "leave targets out write ignore_index="
        )
    if weight.shape != (logits.shape[axis],):
        raise ShapeError(
            f"{name}: weight {weight.shape} must be {(logits.shape[axis],)}, one for each class"
        )
    if weight.dtype != logits.dtype:
        raise DTypeError(
            f"{name}: weight is {weight.dtype.name}, input {logits.dtype.name}; convert one "
            "with .to(dtype)"
        )


def _against_probabilities(
    logits: Tensor,
    target: Tensor,
    axis: int,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    if ignore_index >= 0:
        raise UserError("cross_entropy: ignore_index is for targets that are numbers of classes")
    if target.dtype != logits.dtype:
        raise DTypeError(
            f"cross_entropy: input is {logits.dtype.name}, target {target.dtype.name}; convert one "
            "with .to(dtype)"
        )
    if target.dtype.is_half:
        wide = [None if x is None else x.to(float32) for x in (logits, target, weight)]
        assert wide[0] is not None and wide[1] is not None
        loss = _against_probabilities(
            wide[0], wide[1], axis, wide[2], ignore_index, reduction, label_smoothing
        )
        return loss.to(logits.dtype)
    n = logits.shape[axis]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / n
    terms = logits.log_softmax(axis) * target
    if weight is not None:
        terms = terms * weight.reshape(-1, *(1,) * (logits.ndim - axis - 1))
    return reduced("cross_entropy", -terms.sum(axis), reduction)


@computed_in("float32")
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target)^2; both of one shape, as is weight, by which each is multiplied.
    reduction: "mean" (by the sum of the weights, where there are any), "sum" or "none"."""
    refuse("mse_loss", size_average=size_average, reduce=reduce)
    return _of_differences("mse_loss", lambda d: d.square(), input, target, weight, reduction)


@computed_in("float32")
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target|; the rest as for mse_loss."""
    refuse("l1_loss", size_average=size_average, reduce=reduce)
    return _of_differences("l1_loss", lambda d: d.abs(), input, target, weight, reduction)


@computed_in("float32")
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = input - target (Girshick,
    arXiv 1504.08083); the rest as for mse_loss."""
    refuse("smooth_l1_loss", size_average=size_average, reduce=reduce)
    if beta < 0:
        raise UserError(f"smooth_l1_loss: beta = {beta} must be 0 or more")
    if beta == 0:
        return _of_differences("smooth_l1_loss", lambda d: d.abs(), input, target, None, reduction)

    def each(d: Tensor) -> Tensor:
        size = d.abs()
        return (d * d * (0.5 / beta)).where(size < beta, size - 0.5 * beta)

    return _of_differences("smooth_l1_loss", each, input, target, None, reduction)


@computed_in("float32")
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), with d = input - target, all of one
    shape. weight: each loss is multiplied by it; the mean is over all, whatever their weights."""
    if delta <= 0:
        raise UserError(f"huber_loss: delta = {delta} must be positive")

    def each(d: Tensor) -> Tensor:
        size = d.abs()
        return (d * d * 0.5).where(size <= delta, (size - 0.5 * delta) * delta)

    losses = _of_differences("huber_loss", each, input, target, weight, "none")
    return reduced("huber_loss", losses, reduction)


def _of_differences(
    name: str,
    each: Callable[[Tensor], Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    for other in (target, weight):
        if other is not None and other.shape != input.shape:
            raise ShapeError(
                f"{name}: {input.shape} and {other.shape} differ; reshape or expand one of them"
            )
    common = promote(input.dtype, target.dtype)
    if common.is_half:  # its squares are too large or too small for 16 bits
        weight = None if weight is None else weight.to(float32)
        wide = input.to(float32), target.to(float32)
        return _of_differences(name, each, *wide, weight, reduction).to(common)
    losses = each(input - target)
    if weight is None:
        return reduced(name, losses, reduction)
    losses = losses * weight
    if reduction == "mean":
        return losses.sum() / weight.sum()
    return reduced(name, losses, reduction)


# Of probabilities ------------------------------------------------------------------------------


@computed_in("float32")
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(target log input + (1 - target) log(1 - input)), each logarithm at least -100; of
    probabilities of one shape, 0 to 1 (else NaN). Of scores: binary_cross_entropy_with_logits,
    which is exact where input rounds to 0 or 1.

    weight: broadcasts to input; each loss is multiplied by it. reduction: "mean" (over all,
    whatever their weights), "sum" or "none".
    """
    refuse("binary_cross_entropy", size_average=size_average, reduce=reduce)
    return _binary("binary_cross_entropy", _cross_entropies, input, target, weight, reduction)


@computed_in("float32")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow. pos_weight: broadcasts to input,
    by how much more a target of 1 counts."""
    refuse("binary_cross_entropy_with_logits", size_average=size_average, reduce=reduce)

    def each(x: Tensor, t: Tensor) -> Tensor:
        log_p: Tensor = ops.LOG_SIGMOID(x)
        if pos_weight is not None:
            log_p = log_p * ((pos_weight.to(x.dtype) - 1) * t + 1)
        return (1 - t) * x - log_p

    name = "binary_cross_entropy_with_logits"
    return _binary(name, each, input, target, weight, reduction)


def _cross_entropies(x: Tensor, t: Tensor) -> Tensor:
    y: Tensor = ops.BINARY_CROSS_ENTROPY(x, t)
    return y


def _binary(
    name: str,
    each: Callable[[Tensor, Tensor], Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    require_floating(name, input)
    if target.shape != input.shape:
        raise ShapeError(
            f"{name}: input {input.shape} and target {target.shape} differ; reshape or expand one"
        )
    if target.dtype.kind != "f":
        kind = target.dtype.name
        raise DTypeError(f"{name}: target must be floating, not {kind}: use .float()")
    common = promote(input.dtype, target.dtype)
    if common.is_half:
        weight = None if weight is None else weight.to(float32)
        wide = input.to(float32), target.to(float32)
        return _binary(name, each, *wide, weight, reduction).to(common)
    losses = each(input, target)
    return reduced(name, losses if weight is None else losses * weight, reduction)


@computed_in("float32")
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target (log target - input), 0 where target is 0: the Kullback-Leibler divergence from
    exp(input), which is given as logarithms, to target; they broadcast. log_target: target is given
    as logarithms, too. reduction: "batchmean" (the sum divided by the size of axis 0: the
    divergence of a row), "mean" (over all elements), "sum" or "none"."""
    refuse("kl_div", size_average=size_average, reduce=reduce)
    common = promote(input.dtype, target.dtype)
    if common.is_half:
        wide = input.to(float32), target.to(float32)
        return kl_div(*wide, reduction=reduction, log_target=log_target).to(common)
    if log_target:
        losses = target.exp() * (target - input)
    else:
        losses = target * (target.where(target != 0, 1).log() - input)
    if reduction != "batchmean":
        return reduced("kl_div", losses, reduction, '"batchmean", ')
    return losses.sum() / (input.shape[0] if input.ndim else 1)


@computed_in("float32")
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: None = None,
    eps: float = 1e-8,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input: of counts under a Poisson distribution whose rate is
    exp(input), or input (log_input=False), where the logarithm is of input + eps. full: with
    Stirling's approximation of log(target!), for targets above 1."""
    refuse("poisson_nll_loss", size_average=size_average, reduce=reduce)
    losses = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        safe = target.where(target > 1, 1).to(losses.dtype)
        stirling = safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log()
        losses = losses + stirling.where(target > 1, 0)
    return reduced("poisson_nll_loss", losses, reduction)


@computed_in("float32")
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log var + (input - target)^2 / var) / 2, with var at least eps (a bound without influence on
    the gradient). var: a number or a Tensor, for each element, or for each row: input's shape
    without the last axis, or with 1 in the place of one. full: plus log(2 pi) / 2."""
    if not isinstance(var, Tensor):
        var = full_like(input, var)
    if var.shape == input.shape[:-1] and input.ndim:
        var = var.unsqueeze(-1)
    one = [n for n, m in zip(var.shape, input.shape, strict=False) if n != m]
    if var.ndim != input.ndim or one not in ([], [1]):
        raise ShapeError(
            f"gaussian_nll_loss: var {var.shape} must be {input.shape}, or that without its last "
            "axis, or with 1 in the place of one"
        )
    var = var + (var.detach().clip(min=eps) - var.detach())
    losses = 0.5 * (var.log() + (input - target).square() / var)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduced("gaussian_nll_loss", losses, reduction)


def reduced(name: str, losses: Tensor, reduction: str, also: str = "") -> Tensor:
    """The losses as reduction, an argument of the function `name`, says."""
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise _unknown(name, reduction, also)


def _unknown(name: str, reduction: str, also: str = "") -> ValueError:
    return ValueError(f'{name}: reduction must be {also}"mean", "sum" or "none", not {reduction!r}')


def require_floating(name: str, x: Tensor) -> None:
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name} needs a floating dtype, not {x.dtype.name}: use .float()")


explain_functions(globals())
