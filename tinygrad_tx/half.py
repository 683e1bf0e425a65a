"""Half precision: values stored in 16 bits go through the ops that compute as float32.

In: an op and its inputs. Out: the function that computes its result. Called wherever forwards are
(node.execute, the compiler's replay and opaque calls); autograd widens for vjps in the same way.
Squares, sums and exponentials inside an op would overflow 16 bits; results are rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .dtypes import float32

if TYPE_CHECKING:  # node.py imports this file
    from .op import Op
    from .rules import Spec

WIDENED = frozenset(["map", "reduce", "fused"])  # the kinds of ops that compute


def computing(op: Op, inputs: Iterable[Any], spec: Spec | tuple[Spec, ...]) -> Callable[..., Any]:
    """The op's forward for such inputs (arrays, or nodes): float16 and bfloat16 are widened before
    it, and results rounded to the dtypes of `spec` after it. That of a user's op gets arrays that
    it cannot write to, the widened ones too, so that no dtype lets pass what another refuses."""
    forward = op.forward if op.ours else partial(_guarded, op)
    if op.kind in WIDENED:
        for x in inputs:
            if x.dtype.itemsize == 2:
                return partial(_widened, forward, spec)
    return forward


def _guarded(op: Op, xp: Any, *arrays: Any, **attrs: Any) -> Any:
    return op.forward(xp, *map(xp.frozen, arrays), **attrs)


def _widened(forward: Callable[..., Any], spec: Any, xp: Any, *arrays: Any, **attrs: Any) -> Any:
    wide = [xp.cast(a, float32) if a.dtype.itemsize == 2 else a for a in arrays]
    out = forward(xp, *wide, **attrs)
    if type(spec) is not tuple:  # one Spec, which is a named tuple
        return out if isinstance(out, tuple) else _rounded(xp, out, spec)
    if not isinstance(out, (tuple, list)) or len(out) != len(spec):
        return out  # for as_promised to refuse
    return tuple(_rounded(xp, o, s) for o, s in zip(out, spec, strict=True))


def _rounded(xp: Any, out: Any, spec: Spec) -> Any:
    return xp.cast(xp.asarray(out), spec.dtype) if spec.dtype.is_half else out
