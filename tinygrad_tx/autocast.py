"""Automatic mixed precision: tx.autocast, as PyTorch's.

In: the name of a precision. Out: a context, in which ops take their operands in the floating dtype
that their records name (`Op.autocast`; node.py casts), and functions of F in the one that stands
above them (`computed_in`). Parameters stay float32, and so do their gradients, for a cast is an op
like any other. Gradients are taken outside of it, in the dtypes of what they are gradients of.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from . import backends
from .arguments import shown
from .context import PRECISION, as_given
from .dtypes import AUTOCAST, DType, float32
from .errors import UserError
from .mistakes import near
from .node import Handle
from .node import autocast as operand

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16")
F = TypeVar("F", bound=Callable[..., Any])
_NAMES = {dtype: name for name, dtype in AUTOCAST.items()}
_OPEN: ContextVar[tuple[Token[str], ...]] = ContextVar("open autocasts", default=())


class autocast(ContextDecorator):  # noqa: N801 - a function to its users, as in PyTorch
    """Mixed precision: `with tx.autocast("bf16"):`, or above a function.

    precision: "bf16" or "fp16" (or tx.bfloat16, tx.float16): products (matmul, linear maps,
        convolutions, attention) take float32 operands in that dtype and give it, with sums in
        float32; powers, exponentials, logarithms, sums, softmax, norms and losses are computed in
        float32 and give that; other ops take operands as they are, of two floats the wider. "fp32":
        none of it. "tf32": products of float32 may be computed with operands of 19 bits.
    enabled: False means "fp32".

    float64 and integers are let alone. Contexts nest, and each thread has its own. A compiled
    function is traced once for each precision that it is called under. UserError for a precision
    that there is not, and from a product where tf32 is not to be had.
    """

    def __init__(self, precision: str | DType, enabled: bool = True) -> None:
        self._precision = named(precision) if enabled else "fp32"

    def __enter__(self) -> autocast:
        _OPEN.set((*_OPEN.get(), PRECISION.set(self._precision)))
        return self

    def __exit__(self, *error: Any) -> None:
        *before, token = _OPEN.get()
        _OPEN.set(tuple(before))
        PRECISION.reset(token)


def named(precision: Any) -> Precision:
    """A precision by its name; UserError if it is none."""
    if isinstance(precision, DType):
        precision = _NAMES.get(precision, precision)
    if precision not in PRECISIONS:
        known = near(precision, PRECISIONS) if isinstance(precision, str) else ""
        hint = known or f"; there are {', '.join(PRECISIONS)}"
        raise UserError(f"autocast: no precision {shown(precision)}{hint}")
    return cast(Precision, precision)


def product_dtype(dtype: DType) -> DType:
    """The dtype in which products take what has this one: for what is kept for them."""
    return AUTOCAST.get(PRECISION.get(), dtype) if dtype is float32 or dtype.is_half else dtype


def require_precision(precision: str, device: str) -> None:
    """UserError where a device cannot compute in a precision: for who rather knows before."""
    if precision == "tf32" and not backends.has_tf32(device):
        raise UserError(
            f"precision tf32: products on {device} are not computed in it; choose fp32, bf16 or "
            "fp16"
        )


def computed_in(wanted: Literal["half", "float32"]) -> Callable[[F], F]:
    """A function of several ops that is one op to autocast: all of its floating Tensors are cast as
    those of an op of that `autocast`, and what it does with them is not looked at again."""

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            if PRECISION.get() not in AUTOCAST:
                return function(*args, **named)

            def given(x: Any) -> Any:
                if not isinstance(x, Handle):
                    return x
                node = operand(function.__name__, wanted, x.node)
                return x if node is x.node else Handle.wrap(node)

            args, named = tuple(map(given, args)), {k: given(v) for k, v in named.items()}
            with as_given():
                return function(*args, **named)

        return cast(F, call)

    return decorate
