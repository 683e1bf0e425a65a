"""What a row of the op table is, how it is brought to life, and the sample inputs of the rows.

op_table.py holds the rows; ops/test_ops.py and gpu/test_ops.py run them through what is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.dtypes import as_dtype
from tinygrad_tx.op import OPS, Op

FLOATS = ("float64", "float32", "float16", "bfloat16")
INTS = ("int64", "int32")
RTOL = {"float64": 1e-12, "float32": 3e-6, "float16": 5e-3, "bfloat16": 4e-2}
LAYOUTS = ("transposed", "strided", "reversed")


class Bad(NamedTuple):
    """A call that must raise `error` with a message that matches `message`."""

    inputs: tuple[Any, ...]
    error: type[Exception]
    message: str
    attrs: dict[str, Any] | None = None  # None: those of the row


@dataclass(frozen=True)
class OpCase:
    """One row: an op with sample inputs.

    inputs: NumPy arrays; floating ones are tried in each of `dtypes`, or integer ones where there
    is no floating one. reference: (*arrays, **attrs) -> the result or a tuple of them, in float64.
    result: "same" as the inputs, or a dtype. grad: differentiable, to second order.
    scale: how much larger than 1 rounding errors may be.
    """

    name: str
    inputs: tuple[Any, ...]
    reference: Callable[..., Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    dtypes: tuple[str, ...] = FLOATS
    result: str = "same"
    grad: bool = True
    scale: float = 1.0
    bad: tuple[Bad, ...] = ()

    @property
    def op(self) -> Op:
        return OPS[self.name]

    @property
    def id(self) -> str:
        shapes = "x".join(str(list(np.shape(a))).replace(" ", "") for a in self.inputs)
        return f"{self.name}-{self.label or shapes}"


def arrays(case: OpCase, dtype: str) -> list[np.ndarray]:
    """The row's inputs rounded to a dtype."""
    kind = "f" if dtype in FLOATS else "i"
    found = [np.asarray(a) for a in case.inputs]
    element = as_dtype(dtype).np
    return [a.astype(element) if a.dtype.kind == kind else a for a in found]


def tensors(
    case: OpCase, dtype: str, device: str = "cpu", layout: str = "plain"
) -> list[tx.Tensor]:
    return [laid_out(a, device, layout) for a in arrays(case, dtype)]


def laid_out(array: np.ndarray, device: str, layout: str) -> tx.Tensor:
    """The array as a Tensor whose memory is in another order than row-major without gaps."""
    if layout == "plain" or not array.ndim:
        return tx.tensor(array, device=device)
    if layout == "transposed":
        return tx.tensor(array.T, device=device).T
    if layout == "strided":
        return tx.tensor(np.repeat(array, 2, axis=-1), device=device)[..., ::2]
    return tx.tensor(np.flip(array), device=device).flip(*range(array.ndim))


def call(case: OpCase, inputs: list[tx.Tensor], device: str = "cpu") -> tuple[tx.Tensor, ...]:
    """The op's results as a tuple."""
    attrs = {**case.attrs, "device": device} if "device" in case.attrs else case.attrs
    out = case.op(*inputs, **attrs)
    return out if isinstance(out, tuple) else (out,)


def expected(case: OpCase, given: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The reference's results, computed in float64."""
    wide = [a.astype(np.float64) if a.dtype.kind in "fV" else a for a in given]  # V: bfloat16
    with np.errstate(all="ignore"):
        out = case.reference(*wide, **case.attrs)
    return tuple(map(np.asarray, out if isinstance(out, tuple) else (out,)))


def assert_close(case: OpCase, got: np.ndarray, want: np.ndarray, dtype: str) -> None:
    if got.dtype.kind not in "fV":
        np.testing.assert_array_equal(got, want, strict=False)
        return
    with np.errstate(all="ignore"):
        want = want.astype(got.dtype).astype(np.float64)
    tolerance = RTOL[dtype] * case.scale
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=tolerance, atol=tolerance)


# Sample inputs -----------------------------------------------------------------------------------

_rng = np.random.default_rng(20170612)


def normal(*shape: int) -> np.ndarray:
    return _rng.standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return _rng.uniform(0.3, 3.0, shape)


def share(*shape: int) -> np.ndarray:
    return _rng.uniform(0.2, 0.8, shape)


def apart(*shape: int) -> np.ndarray:
    """Distinct numbers, none near an integer or another one: no kinks, no ties."""
    n = math.prod(shape)
    return (_rng.permutation(n) - n // 2 + 0.37).reshape(shape) * 0.71


def ints(low: int, high: int, *shape: int) -> np.ndarray:
    return _rng.integers(low, high, shape)


def bools(*shape: int) -> np.ndarray:
    return _rng.random(shape) < 0.6


def small(*shape: int) -> np.ndarray:
    return ints(-4, 5, *shape)


def nonzero(*shape: int) -> np.ndarray:
    return ints(1, 5, *shape) * _rng.choice([-1, 1], shape)


def ratio(*shape: int) -> np.ndarray:
    """Divisors that no sample of apart() is near a multiple of."""
    return _rng.choice([-2.9, 1.3, 2.1], shape) + 0.001


SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 1e-7, -700.0, 700.0, np.inf, -np.inf, np.nan])


# Sample Tensors ----------------------------------------------------------------------------------


def double(*shape: int, seed: int = 0) -> tx.Tensor:
    return tx.tensor(np.random.default_rng(seed).standard_normal(shape))


def leaf(*values: float) -> tx.Tensor:
    return tx.tensor(values[0] if len(values) == 1 else list(values), requires_grad=True)
