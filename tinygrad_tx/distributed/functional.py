"""Collectives that give new Tensors, as torch.distributed.nn.functional has them. In: Tensors,
which every rank gives. Out: Tensors.

A gradient is that of the sum of what all ranks compute: the gradient of all_reduce adds up what all
of them send back. Those of copy_to_ranks and reduce_from_ranks are of a loss that all have alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..context import set_grad_enabled
from ..errors import UserError
from ..node import Handle
from ..ops import CONCAT, RESHAPE
from ..ops.collective import (
    ALL_GATHER,
    ALL_REDUCE,
    COPY_TO_RANKS,
    FINISH_REDUCE,
    FROM_RANK,
    REDUCE_FROM_RANKS,
    REDUCE_SCATTER,
    START_ALL_REDUCE,
    TO_RANK,
)
from . import world

if TYPE_CHECKING:
    from ..tensor import Tensor

BUCKET = 4 << 20  # bytes of gradients in one message


def all_reduce(tensor: Tensor, op: str = "sum") -> Tensor:
    """The sum over all ranks of their tensors, of one shape and dtype: "sum", "avg", "product",
    "min" or "max". The first two have a gradient."""
    found: Tensor = ALL_REDUCE(_tensor("all_reduce", tensor), how=op)
    return found


def reduce(tensor: Tensor, dst: int = 0) -> Tensor:
    """The sum over all ranks on rank dst, zeros elsewhere."""
    found: Tensor = TO_RANK(_tensor("reduce", tensor), rank=_rank("reduce: dst", dst))
    return found


def broadcast(tensor: Tensor, src: int = 0) -> Tensor:
    """That of rank src; all give one of its shape and dtype."""
    found: Tensor = FROM_RANK(_tensor("broadcast", tensor), rank=_rank("broadcast: src", src))
    return found


def all_gather(tensor: Tensor) -> tuple[Tensor, ...]:
    """What each rank has, of one shape and dtype."""
    found = stacked(tensor)
    return tuple(found[i] for i in range(world.current().size))


def stacked(tensor: Tensor) -> Tensor:
    """all_gather as one Tensor (size, *shape)."""
    found: Tensor = ALL_GATHER(_tensor("all_gather", tensor), size=world.current().size)
    return found


def reduce_scatter(input_list: Sequence[Tensor], op: str = "sum") -> Tensor:
    """The sum over all ranks of what they have at this rank's place in a list, one for each."""
    rows = [RESHAPE(_tensor("reduce_scatter", x), shape=(1, *x.shape)) for x in input_list]
    return scattered(CONCAT(*rows, axis=0), op)


def scattered(tensor: Tensor, op: str = "sum") -> Tensor:
    """reduce_scatter of a Tensor (size, *shape)."""
    size = world.current().size
    found: Tensor = REDUCE_SCATTER(_tensor("reduce_scatter", tensor), how=op, size=size)
    return found


def copy_to_ranks(tensor: Tensor) -> Tensor:
    """The tensor, which is the same on all ranks; its gradient is the sum of those that all ranks
    find, each in a part of what follows. Begins what ranks compute apart, of one loss."""
    found: Tensor = COPY_TO_RANKS(_tensor("copy_to_ranks", tensor))
    return found


def reduce_from_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks of their tensors, of one shape and dtype; its gradient is passed on as
    it is, for all ranks have the same. Ends what ranks compute apart, of one loss."""
    found: Tensor = REDUCE_FROM_RANKS(_tensor("reduce_from_ranks", tensor))
    return found


def all_reduce_gradients(parameters: Iterable[Tensor], bucket_bytes: int = BUCKET) -> None:
    """The gradients of parameters become their sums over all ranks: for a loop of one's own, after
    backward().

    They go in messages of about bucket_bytes, the last parameters' first, for their gradients come
    first. In a compiled function each goes while the backward pass still runs. All ranks have the
    same parameters, and each either on all of them a gradient or on none.
    """
    if world.current().size == 1:
        return
    with set_grad_enabled(False):
        begun = [(bucket, _started(bucket)) for bucket in buckets(parameters, bucket_bytes)]
        for bucket, ticket in begun:
            grads = [p.grad for p in bucket]
            shapes, dtype = tuple(g.shape for g in grads), grads[0].dtype
            sums = FINISH_REDUCE(ticket, shapes=shapes, dtype=dtype)
            for p, summed in zip(bucket, sums, strict=True):
                p.grad = summed


def _started(bucket: Sequence[Tensor]) -> Tensor:
    found: Tensor = START_ALL_REDUCE(*(p.grad for p in bucket), how="sum")
    return found


def buckets(parameters: Iterable[Any], most: int = BUCKET) -> list[list[Any]]:
    """Runs of the parameters that have a gradient, the last first, whose gradients are of one dtype
    and device, and together hardly larger than so many bytes."""
    having = [p for p in reversed(list(parameters)) if p.grad is not None]
    found: list[list[Any]] = []
    filled, kind = 0, None
    for p in having:
        grad = p.grad
        if filled >= most or kind != (grad.dtype, grad.device) or not found:
            found.append([])
            filled, kind = 0, (grad.dtype, grad.device)
        found[-1].append(p)
        filled += grad.numel() * grad.dtype.itemsize
    return found


def _tensor(name: str, given: Any) -> Any:
    if not isinstance(given, Handle):
        raise TypeError(f"{name}: a Tensor is wanted, not a {type(given).__name__}")
    return given


def _rank(what: str, number: int) -> int:
    size = world.current().size
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < size:
        raise UserError(f"{what} is {number!r}; it must be a rank, from 0 to {size - 1}")
    return number
