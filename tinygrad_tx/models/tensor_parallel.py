"""Tensor parallelism: the ranks of a job share the units of each feed-forward and the words of the
vocabulary, and see all rows of a batch (Shoeybi et al., Megatron-LM, arXiv 1909.08053).

In: a model as one rank makes it. Out: the same with this rank's part of those weights. Called by
the constructors of models whose configuration sets tensor_parallel, and by objective.py. A module
names its own: parallel_units are a product's, whose result the second one takes, and a dropout's
between them; parallel_words are the embeddings, outputs and biases that have a row for each word.

A feed-forward costs one sum over ranks forward, of what its second product gives, and one backward,
of the gradient of what its first one takes. Logits stay where they are made: a loss takes the
maximum and the sums that it needs over ranks. Whoever asks for logits themselves gets all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .. import nn
from ..creation import arange, stack, where
from ..distributed import world
from ..distributed.functional import all_reduce, copy_to_ranks, reduce_from_ranks
from ..drawing import bernoulli_keep
from ..nn import functional as F  # noqa: N812
from ..ops import WRAP_INDEX
from ..partition import Partition, Partitioned, partition_of
from ..tensor import Tensor

_apart: ContextVar[list[Partition] | None] = ContextVar("logits apart", default=None)


class PartitionedParameter(nn.Parameter, Partitioned):
    """A rank's part of a parameter; state_dict() has the whole."""

    __slots__ = ()

    def __init__(self, whole: nn.Parameter, partition: Partition) -> None:
        super().__init__(partition.part(whole), whole.requires_grad)
        self.partition = partition

    def __reduce__(self) -> Any:
        return _restored, (self.partition, super().__reduce__())


def _restored(partition: Partition, made: Any) -> PartitionedParameter:
    """A copy."""
    function, values = made
    found: PartitionedParameter = function(*values)
    found.partition = partition
    return found


def parallelize(model: nn.Module) -> None:
    """Leave a model, as one rank has made it, this rank's part of it. UserError where there are
    more ranks than units of a feed-forward, or words."""
    if world.current().size == 1:
        return
    for module in list(model.modules()):
        if names := getattr(module, "parallel_units", ()):
            first, last = (getattr(module, name) for name in names[:2])
            setattr(module, names[0], ColumnParallelLinear(first, last.in_features))
            setattr(module, names[1], RowParallelLinear(last))
            for name in names[2:]:
                p = getattr(module, name).p
                setattr(module, name, ParallelDropout(p, last.in_features))
        for name in getattr(module, "parallel_words", ()):
            whole = getattr(module, name, None)
            if isinstance(whole, nn.Embedding):
                setattr(module, name, VocabParallelEmbedding(whole))
            elif isinstance(whole, nn.Linear):
                setattr(module, name, VocabParallelLinear(whole))
            elif whole is not None:
                setattr(module, name, PartitionedParameter(whole, _words(whole)))


def _words(weight: Tensor) -> Partition:
    return Partition(weight.shape).check("a vocabulary")


# Feed-forwards -----------------------------------------------------------------------------------


class ColumnParallelLinear(nn.Module):
    """x (..., in), which all ranks have -> this rank's units (..., of each run of `units`)."""

    def __init__(self, whole: nn.Linear, units: int) -> None:
        blocks = whole.out_features // units  # two of a gated one: the gates, and what they let by
        self.in_features, self.out_features = whole.in_features, whole.out_features
        partition = Partition(whole.weight.shape, 0, blocks).check("a feed-forward")
        self.weight = PartitionedParameter(whole.weight, partition)
        self.bias: PartitionedParameter | None = None
        if whole.bias is not None:
            self.bias = PartitionedParameter(whole.bias, Partition(whole.bias.shape, 0, blocks))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(copy_to_ranks(input), self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.in_features}, {self.weight.shape[0]} of {self.out_features}"


class RowParallelLinear(nn.Module):
    """This rank's units (..., some of in) -> y (..., out), which all ranks have."""

    def __init__(self, whole: nn.Linear) -> None:
        self.in_features, self.out_features = whole.in_features, whole.out_features
        self.weight = PartitionedParameter(whole.weight, Partition(whole.weight.shape, 1))
        self.bias = whole.bias

    def forward(self, input: Tensor) -> Tensor:
        y = reduce_from_ranks(F.linear(input, self.weight))
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def describe(self) -> str:
        return f"{self.weight.shape[1]} of {self.in_features}, {self.out_features}"


class ParallelDropout(nn.Module):
    """Dropout of this rank's units: its part of the mask that all `units` would have."""

    def __init__(self, p: float, units: int) -> None:
        self.p, self.units = p, units

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        whole = (*input.shape[:-1], self.units)
        kept = Partition(whole, len(whole) - 1).part(bernoulli_keep(whole, self.p, input.device))
        y: Tensor = (input * (1 / (1 - self.p))).where(kept, 0)
        return y

    def describe(self) -> str:
        return f"p={self.p}"


# The vocabulary ----------------------------------------------------------------------------------


class VocabParallelEmbedding(nn.Module):
    """ids (...) -> (..., embedding_dim), which all ranks have, of whom each has some rows."""

    def __init__(self, whole: nn.Embedding) -> None:
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim
        self.padding_idx = whole.padding_idx
        self.weight = PartitionedParameter(whole.weight, _words(whole.weight))

    def forward(self, input: Tensor) -> Tensor:
        part = self.weight.partition
        ids: Tensor = WRAP_INDEX(input, size=self.num_embeddings, wrap=False, of="embedding")
        mine = (ids >= part.first) & (ids < part.first + part.count)
        rows = F.embedding((ids - part.first).where(mine, 0), self.weight)
        y = reduce_from_ranks(rows.where(mine.unsqueeze(-1), 0))
        if self.padding_idx is None:
            return y
        return y.where((input != self.padding_idx).unsqueeze(-1), y.detach())

    def describe(self) -> str:
        return f"{self.weight.shape[0]} of {self.num_embeddings}, {self.embedding_dim}"


class VocabParallelLinear(nn.Module):
    """x (..., D) -> logits (..., V), of whose matrix each rank has some rows."""

    def __init__(self, whole: nn.Linear) -> None:
        self.in_features, self.out_features = whole.in_features, whole.out_features
        self.weight = PartitionedParameter(whole.weight, _words(whole.weight))

    def forward(self, input: Tensor) -> Tensor:
        return logits(input, self)

    def describe(self) -> str:
        return f"{self.in_features}, {self.weight.shape[0]} of {self.out_features}"


def logits(x: Tensor, words: Any, bias: Tensor | None = None) -> Tensor:
    """x (..., D) -> logits (..., V) by the matrix of `words`, a module with a weight (V, D), and a
    number for each word. Where ranks share the words, all have them; inside logits_apart() each has
    those of its own words."""
    part = partition_of(words.weight)
    if part is None:
        return F.linear(x, words.weight, bias)
    y = F.linear(copy_to_ranks(x), words.weight)
    if bias is not None:
        y = y + columns(bias, y).to(y.dtype)
    if (known := _apart.get()) is not None:
        known.append(part)
        return y
    after = part.length - part.first - part.count
    return reduce_from_ranks(F.pad(y, (part.first, after)))


def columns(bias: Tensor, y: Tensor) -> Tensor:
    """What belongs to logits y of a number for each word, where they may be this rank's alone."""
    return bias if bias.shape[0] == y.shape[-1] else Partition(bias.shape).part(bias)


@contextmanager
def logits_apart() -> Iterator[list[Partition]]:
    """Inside, logits are those of this rank's words; gives how words are shared, if they are."""
    found: list[Partition] = []
    token = _apart.set(found)
    try:
        yield found
    finally:
        _apart.reset(token)


def cross_entropy(
    x: Tensor, targets: Tensor, words: Partition, ignored: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """F.cross_entropy of logits x (N, those of this rank's words), without a reduction; and the
    same without label smoothing. Of all logits there is on no rank more than its part."""
    first, total = words.first, words.length
    places: Tensor = WRAP_INDEX(targets, size=total, wrap=False, skip=ignored, of="cross_entropy")
    own = arange(x.shape[-1], dtype=places.dtype, device=x.device)
    hit = (places - first).unsqueeze(-1) == own
    shifted = x - all_reduce(x.detach().amax(-1, keepdim=True), "max")
    sums = [shifted.exp().sum(-1), shifted.where(hit, 0).sum(-1)]
    if label_smoothing:
        sums.append(shifted.sum(-1))
    found = reduce_from_ranks(stack(sums))
    log_total, counts = found[0].log(), targets != ignored
    plain = loss = log_total - found[1]
    if label_smoothing:
        spread = log_total - found[2] / total
        loss = plain * (1 - label_smoothing) + spread * label_smoothing
    return where(counts, loss, 0), where(counts, plain, 0)
