"""Several processes, on one machine or many, that compute together: tx.distributed.

    tx.distributed.init_process_group()        # under mpiexec or srun; alone otherwise
    tx.distributed.all_reduce(x)

docs/distributed.md tells how programs are started. engine.py says what carries arrays, mpi.py,
nccl.py and local.py are what does; communicator.py adds them up; the ops are in ops/collective.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from . import functional, local
    from .api import (
        ReduceOp,
        all_gather,
        all_gather_into_tensor,
        all_reduce,
        barrier,
        broadcast,
        broadcast_object_list,
        destroy_process_group,
        get_rank,
        get_world_size,
        init_process_group,
        is_initialized,
        reduce,
        reduce_scatter,
        reduce_scatter_tensor,
    )
    from .functional import all_reduce_gradients

__all__ = [
    "ReduceOp", "all_gather", "all_gather_into_tensor", "all_reduce", "all_reduce_gradients",
    "barrier", "broadcast", "broadcast_object_list", "destroy_process_group", "functional",
    "get_rank", "get_world_size", "init_process_group", "is_initialized", "local", "reduce",
    "reduce_scatter", "reduce_scatter_tensor",
]  # fmt: skip


_FILES = {
    "api": "ReduceOp all_gather all_gather_into_tensor all_reduce barrier broadcast "
    "broadcast_object_list destroy_process_group get_rank get_world_size init_process_group "
    "is_initialized reduce reduce_scatter reduce_scatter_tensor",
    "functional": "all_reduce_gradients",
    "local": "",
}

__getattr__, __dir__ = lazily(__name__, _FILES)
