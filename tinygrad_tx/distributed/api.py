"""tx.distributed: what programs call. In: Tensors, which every rank gives. Out: Tensors.

The names are torch.distributed's, and mean what they mean there: all_reduce, broadcast and the
others write into Tensors that they are given; those of functional.py give new ones. Both are
recorded for gradients, and work in tx.compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ShapeError, UserError
from ..node import Handle
from . import functional, launcher, world

if TYPE_CHECKING:
    from ..tensor import Tensor


class ReduceOp:
    """How values of several ranks become one. AVG: of floats."""

    SUM, AVG, PRODUCT, MIN, MAX = "sum", "avg", "product", "min", "max"


def init_process_group(backend: str | None = None) -> None:
    """Become a rank of the job that a launcher (mpiexec, srun) has started this process for;
    without one this process is the only rank. backend: "mpi" or None; ranks are found from the
    environment. UserError where mpi4py is missing, or is not the launcher's."""
    if backend not in (None, "mpi"):
        raise UserError(f'init_process_group: backend is {backend!r}; it must be "mpi", or None')
    launcher.enter()


def destroy_process_group() -> None:
    """Be alone again."""
    world.leave()


def is_initialized() -> bool:
    """True if there are other ranks."""
    return world.current().size > 1


def get_rank() -> int:
    """The number of this process among the ranks, from 0."""
    return world.current().rank


def get_world_size() -> int:
    """How many ranks there are; 1 where no launcher has started any."""
    return world.current().size


def barrier() -> None:
    """Return when all ranks have come here. A traced function waits while it is traced, not when it
    runs."""
    world.current().barrier()


def all_reduce(tensor: Tensor, op: str = ReduceOp.SUM) -> None:
    """tensor becomes the sum over all ranks of theirs, which are of one shape and dtype; or what
    ReduceOp has instead. DTypeError for booleans, and for the mean of integers."""
    tensor.assign(functional.all_reduce(tensor, op))


def reduce(tensor: Tensor, dst: int = 0) -> None:
    """On rank dst tensor becomes the sum over all ranks; elsewhere zeros."""
    tensor.assign(functional.reduce(tensor, dst))


def broadcast(tensor: Tensor, src: int = 0) -> None:
    """tensor becomes that of rank src, on all of them."""
    tensor.assign(functional.broadcast(tensor, src))


def all_gather(tensor_list: Sequence[Tensor], tensor: Tensor) -> None:
    """Each of tensor_list becomes what the rank of that number has."""
    _require_each("all_gather: tensor_list", tensor_list)
    for one, found in zip(tensor_list, functional.all_gather(tensor), strict=True):
        one.assign(found)


def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor) -> None:
    """output_tensor becomes what all ranks have, one after the other along its first axis: of
    (size, *shape), or of (size * n, ...) where each has (n, ...)."""
    found = functional.stacked(input_tensor)
    output_tensor.assign(found.reshape(output_tensor.shape))


def reduce_scatter(output: Tensor, input_list: Sequence[Tensor], op: str = ReduceOp.SUM) -> None:
    """output becomes the sum over all ranks of what they have at this rank's place in
    input_list."""
    _require_each("reduce_scatter: input_list", input_list)
    output.assign(functional.reduce_scatter(input_list, op))


def reduce_scatter_tensor(output: Tensor, input: Tensor, op: str = ReduceOp.SUM) -> None:
    """As reduce_scatter, of an input (size, *shape), or of (size * n, ...) for an output (n,
    ...)."""
    output.assign(functional.scattered(input.reshape(get_world_size(), *output.shape), op))


def broadcast_object_list(object_list: list[Any], src: int = 0) -> None:
    """The objects of object_list become those of rank src; they can be pickled."""
    object_list[:] = world.current().share(object_list, src)


def _require_each(what: str, given: Sequence[Any]) -> None:
    size = get_world_size()
    if len(given) != size or not all(isinstance(x, Handle) for x in given):
        raise ShapeError(f"{what} must be {size} Tensors, one for each rank")
