"""Random ops: Philox 4x32-10 words of one stream (Salmon et al. 2011, "Parallel random numbers").

Inputs are the key (the seed) and the stream number, both 0-d int64 Tensors: state, so that a
compiled step advances them. Element i, row-major, is made of word i % 4 of counter i // 4. `target`
is the device of the result, where it is not that of the inputs. `first` is the place in the stream
of the first element, where that is not 0: of a part of the rows of a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
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


def _forward(name: str, *given: str) -> Callable[..., Any]:
    """The forward that draws by the function of a backend with that name. given: the attributes
    that it takes, in their order."""

    def forward(
        xp: Any,
        key: Any,
        stream: Any,
        *,
        shape: tuple[int, ...],
        target: str | None = None,
        first: int = 0,
        **attrs: Any,
    ) -> Any:
        draw = getattr(xp if target is None else backends.get(target), name)
        if not first:
            attrs["shape"] = shape
            return draw(key, stream, *(attrs[name] for name in given))
        lead = first % 4  # numbers of a counter that belong to what comes before
        attrs["shape"] = (lead + prod(shape),)
        found = draw(key, stream, *(attrs[name] for name in given), first=first - lead)
        return found[lead:].reshape(shape)

    return forward


UNIFORM = Op("uniform", kind="random", rule=_shaped, forward=_forward("uniform", "shape", "dtype"))
NORMAL = Op("normal", kind="random", rule=_shaped, forward=_forward("normal", "shape", "dtype"))
RANDINT = Op(
    "randint",
    kind="random",
    rule=_shaped,
    forward=_forward("randint", "low", "high", "shape", "dtype"),
)
# The mask of dropout: uniform >= p, without the uniforms.
KEEP = Op("keep", kind="random", rule=_shaped, forward=_forward("keep", "p", "shape"))
