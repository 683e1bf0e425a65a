"""Random ops: Philox 4x32-10 words of one stream (Salmon et al. 2011, "Parallel random numbers").

Inputs are the key (the seed) and the stream number, both 0-d int64 Tensors: state, so that a
compiled step advances them. Element i, row-major, is made of word i % 4 of counter i // 4.
`target` is the device of the result, where it is not that of the inputs.
"""

from __future__ import annotations

from typing import Any

from .. import backends
from ..dtypes import DType, bool_
from ..errors import ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec


def _shaped(
    op: Op, key: Node, stream: Node, *, shape: tuple[int, ...], dtype: DType = bool_, **attrs: Any
) -> Spec:
    if any(n < 0 for n in shape):
        raise ShapeError(f"{op.name}: shape {shape} has a negative size")
    return Spec(shape, dtype)


def _there(xp: Any, target: str | None) -> Any:
    return xp if target is None else backends.get(target)


UNIFORM = Op(
    "uniform",
    kind="random",
    rule=_shaped,
    forward=lambda xp, key, stream, shape, dtype, target=None: _there(xp, target).uniform(
        key, stream, shape, dtype
    ),
)
NORMAL = Op(
    "normal",
    kind="random",
    rule=_shaped,
    forward=lambda xp, key, stream, shape, dtype, target=None: _there(xp, target).normal(
        key, stream, shape, dtype
    ),
)
RANDINT = Op(
    "randint",
    kind="random",
    rule=_shaped,
    forward=lambda xp, key, stream, low, high, shape, dtype, target=None: _there(
        xp, target
    ).randint(key, stream, low, high, shape, dtype),
)
KEEP = Op(  # the mask of dropout: uniform >= p, without the uniforms
    "keep",
    kind="random",
    rule=_shaped,
    forward=lambda xp, key, stream, p, shape, target=None: _there(xp, target).keep(
        key, stream, p, shape
    ),
)
