"""Units of ops that are neither maps nor reductions: a table of when and how a node becomes some.

decide.py asks `fits`, fuse.py calls `emit`. A kind of kernel for an op is an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .... import ops
from ....loops.record import SCAN
from ....node import Node, Op
from ..values import Values
from . import attention, loop, matmul, small, writes


class Emitter(NamedTuple):
    """kernel: its name. fits: True of a node that can become one. emit: adds its calls."""

    kernel: str
    fits: Callable[[Values, Node], bool]
    emit: Callable[[Values, Node], None]


def _always(values: Values, node: Node) -> bool:
    return True


KERNELS: dict[Op, Emitter] = {
    ops.MATMUL: Emitter("matmul", matmul.fits, matmul.emit),
    ops.ATTENTION: Emitter("attention", attention.fits, attention.emit),
    ops.ATTENTION_GRAD: Emitter("attentiongrad", attention.fits, attention.emit_grad),
    ops.KEEP: Emitter("keep", _always, small.emit_mask),
    ops.WRAP_INDEX: Emitter("index", _always, small.check_index),
    ops.TAKE: Emitter("gather", small.gathers_rows, small.begin_gather),
    ops.INDEX_ADD: Emitter("scatteradd", small.adds_rows, small.scatter_add),
    ops.UPDATE: Emitter("update", writes.updates_at_an_index, writes.update),
    ops.SLICE_WRITE: Emitter("slice write", _always, writes.slice_write),
    ops.PAD: Emitter("pad", _always, writes.pad),
    ops.CONCAT: Emitter("concat", _always, writes.concat),
    SCAN: Emitter("loop", loop.fits, loop.emit),
}
