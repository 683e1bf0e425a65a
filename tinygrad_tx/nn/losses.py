"""The losses of F, under PyTorch's names: the order and the meaning of their arguments are its.

In: scores and targets. Out: a Tensor, by default the mean.
"""

from __future__ import annotations

from .. import ops
from ..arguments import explain_functions
from ..dtypes import float32, promote
from ..errors import DTypeError, ShapeError, UserError
from ..rules import whole
from ..spelling import refuse
from ..tensor import Tensor


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
    if weight is not None:
        counts = target != ignore_index
        shares: Tensor = ops.TAKE(weight, target.where(counts, 0), axis=0)
        shares = shares.where(counts, 0)
        losses = losses * shares
        if label_smoothing:
            spread = (logits.log_softmax(-1) * weight).sum(-1).where(counts, 0)
            eps = label_smoothing / logits.shape[-1]
            losses = losses * (1 - label_smoothing) - spread * eps
    if reduction != "mean":
        return _reduce("cross_entropy", losses, reduction)
    dtype = losses.dtype
    if dtype.is_half:  # 16 bits hold no large sum
        losses = losses.to(float32)
    if weight is None:
        return (losses.sum() / (target != ignore_index).sum()).to(dtype)
    return (losses.sum() / shares.to(losses.dtype).sum()).to(dtype)


def _check(logits: Tensor, axis: int, weight: Tensor | None, label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing {label_smoothing} must be in [0, 1]")
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise DTypeError(
            f"cross_entropy: weight={weight!r} must be a Tensor with a number for each class; to "
            "leave targets out write ignore_index="
        )
    if weight.shape != (logits.shape[axis],):
        raise ShapeError(
            f"cross_entropy: weight {weight.shape} must be {(logits.shape[axis],)}, one for each "
            "class"
        )
    if weight.dtype != logits.dtype:
        raise DTypeError(
            f"cross_entropy: weight is {weight.dtype.name}, input {logits.dtype.name}; convert one "
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
    return _reduce("cross_entropy", -terms.sum(axis), reduction)


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
    for other in (target, weight):
        if other is not None and other.shape != input.shape:
            raise ShapeError(
                f"mse_loss: {input.shape} and {other.shape} differ; reshape or expand one of them"
            )
    common = promote(input.dtype, target.dtype)
    if common.is_half:  # its squares are too large or too small for 16 bits
        weight = None if weight is None else weight.to(float32)
        wide = input.to(float32), target.to(float32)
        return mse_loss(*wide, reduction=reduction, weight=weight).to(common)
    losses = (input - target).square()
    if weight is None:
        return _reduce("mse_loss", losses, reduction)
    losses = losses * weight
    if reduction == "mean":
        return losses.sum() / weight.sum()
    return _reduce("mse_loss", losses, reduction)


def _reduce(name: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise _unknown(name, reduction)


def _unknown(name: str, reduction: str) -> ValueError:
    return ValueError(f'{name}: reduction must be "mean", "sum" or "none", not {reduction!r}')


explain_functions(globals())
