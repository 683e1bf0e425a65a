"""Functions of F about pairs of vectors: how alike they are, and losses that are made of it, under
PyTorch's names.

In: two Tensors of vectors, or three, and targets that say which belong together. Out: a Tensor, of
a loss by default the mean.
"""

from __future__ import annotations

from .. import ops
from ..arguments import explain_functions
from ..autocast import computed_in
from ..errors import ShapeError
from ..rules import broadcast_shape
from ..spelling import refuse, spelled
from ..tensor import Tensor
from .losses import reduced, require_floating


@spelled
@computed_in("float32")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (|x1| |x2|) along dim, each norm at least eps; they broadcast."""
    for x in (x1, x2):
        require_floating("cosine_similarity", x)
    shape = broadcast_shape("cosine_similarity", x1.shape, x2.shape)
    x1, x2 = x1.broadcast_to(shape), x2.broadcast_to(shape)  # a repeated vector is longer
    return (_unit(x1, dim, eps) * _unit(x2, dim, eps)).sum(dim)


def _unit(x: Tensor, dim: int, eps: float) -> Tensor:
    """x by its norm, which counts as eps where it is smaller, in the derivative as it is."""
    norm = x.norm(2, dim, keepdim=True)
    return x / (norm + (norm.detach().clip(min=eps) - norm.detach()))


@spelled
@computed_in("float32")
def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    """input divided by its norm of order p along dim, which is at least eps."""
    refuse("normalize", out=out)
    require_floating("normalize", input)
    return input / input.norm(p, dim, keepdim=True).clip(min=eps)


@spelled
@computed_in("float32")
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The norm of order p of x1 - x2 + eps along the last axis; they broadcast."""
    return (x1 - x2 + eps).norm(p, -1, keepdim)


@computed_in("float32")
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where target is 1, max(cos - margin, 0) where it is -1: inputs (N, d) and targets
    (N,), or one pair (d,) and a target ()."""
    refuse("cosine_embedding_loss", size_average=size_average, reduce=reduce)
    if input1.ndim not in (1, 2) or target.shape != input1.shape[:-1]:
        raise ShapeError(
            f"cosine_embedding_loss: inputs (N, d) want targets (N,), not {input1.shape} and "
            f"{target.shape}"
        )
    a, b = ((x * x).sum(-1) + 1e-12 for x in (input1, input2))
    cos = (input1 * input2).sum(-1) / (a * b).sqrt()
    apart = (cos - margin).clip(min=0).where(target == -1, 0)
    return reduced("cosine_embedding_loss", (1 - cos).where(target == 1, 0) + apart, reduction)


@computed_in("float32")
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(margin - target (input1 - input2), 0): target 1 where input1 should be the larger, else
    -1."""
    refuse("margin_ranking_loss", size_average=size_average, reduce=reduce)
    losses = (-target * (input1 - input2) + margin).clip(min=0)
    return reduced("margin_ranking_loss", losses, reduction)


@computed_in("float32")
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """input, a distance, where target is 1; max(margin - input, 0) where it is -1."""
    refuse("hinge_embedding_loss", size_average=size_average, reduce=reduce)
    apart = (margin - input).clip(min=0).where(target != 1, 0)
    return reduced("hinge_embedding_loss", apart + input.where(target != -1, 0), reduction)


@computed_in("float32")
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target input)), for targets 1 and -1."""
    refuse("soft_margin_loss", size_average=size_average, reduce=reduce)
    losses: Tensor = -ops.LOG_SIGMOID(target * input)
    return reduced("soft_margin_loss", losses, reduction)


@computed_in("float32")
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(d(anchor, positive) - d(anchor, negative) + margin, 0), with d = pairwise_distance.
    swap: d(positive, negative) counts where it is the smaller."""
    refuse("triplet_margin_loss", size_average=size_average, reduce=reduce)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    losses = (pairwise_distance(anchor, positive, p, eps) - far + margin).clip(min=0)
    return reduced("triplet_margin_loss", losses, reduction)


explain_functions(globals())
