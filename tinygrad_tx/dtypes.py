"""The element types and the rules of promotion. Used by every floor above; knows only NumPy dtypes.

Promotion follows PyTorch: the category decides first (bool < int < float), then the width; a
Python or NumPy scalar is weak, and so is a 0-d Tensor against one that has dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from .arguments import shown
from .errors import DTypeError, RangeError

Scalar = bool | int | float | np.generic


@dataclass(frozen=True, eq=False)
class DType:
    """One element type: `name`, `kind` ("b" bool, "i" integer, "f" floating) and `itemsize`
    in bytes. There is one object for each.

    short: the name in tables. eps: of floats, the distance from 1 to the next one. register,
    memory: LLVM's types of a value and of an element in memory; numbers of 16 bits are bits there
    until a cast widens them, for no kernel computes with them.
    """

    name: str
    kind: str
    itemsize: int
    short: str
    eps: float
    register: str
    memory: str

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)

    def __repr__(self) -> str:
        return f"tx.{self.name}_" if self.kind == "b" else f"tx.{self.name}"

    @cached_property
    def np(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return _numpy_dtype(self.name)

    def scalar(self, value: Any) -> Any:
        """A number as a NumPy scalar; infinite if it is too large, without a warning."""
        if self.kind == "f" and abs(value) > 65504:
            with np.errstate(over="ignore"):
                return self.np.type(value)
        return self.np.type(value)

    @property
    def is_half(self) -> bool:
        """True if it is stored in 16 bits, and computed with in float32."""
        return self.kind == "f" and self.itemsize == 2

    @property
    def is_floating_point(self) -> bool:
        """True of floats."""
        return self.kind == "f"


# The one table of element types: everything that asks how one is stored reads it.
float64 = DType("float64", "f", 8, "f64", 2.0**-52, "double", "double")
"""64 bits, of which 53 are the number's."""
float32 = DType("float32", "f", 4, "f32", 2.0**-23, "float", "float")
"""32 bits, of which 24 are the number's: what Tensors are made of Python floats."""
float16 = DType("float16", "f", 2, "f16", 2.0**-10, "i16", "i16")
"""16 bits, of which 11 are the number's; up to 65504."""
bfloat16 = DType("bfloat16", "f", 2, "bf16", 2.0**-7, "i16", "i16")
"""16 bits, of which 8 are the number's; the range of float32."""
int64 = DType("int64", "i", 8, "i64", 0, "i64", "i64")
"""Whole numbers of 64 bits: what Tensors are made of Python ints."""
int32 = DType("int32", "i", 4, "i32", 0, "i32", "i32")
"""Whole numbers of 32 bits."""
bool_ = DType("bool", "b", 1, "bool", 0, "i1", "i8")
"""True or False."""

AUTOCAST = {"bf16": bfloat16, "fp16": float16}  # the precisions of 16 bits, by tx.autocast's names
ALL = {d.name: d for d in (float64, float32, float16, bfloat16, int64, int32, bool_)}
_CATEGORY = {"b": 0, "i": 1, "f": 2}
_PYTHON = {bool: bool_, int: int64, float: float32}
_BY_NUMPY = {np.dtype(name): d for name, d in ALL.items() if name != "bfloat16"}


@cache
def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def as_dtype(value: Any) -> DType:
    """The DType meant by a DType, a name, a NumPy dtype or a Python type; DTypeError if none."""
    if isinstance(value, DType):
        return value
    if isinstance(value, np.dtype) and value in _BY_NUMPY:
        return _BY_NUMPY[value]
    if isinstance(value, type) and value in _PYTHON:
        return _PYTHON[value]
    try:
        name = value if isinstance(value, str) else np.dtype(value).name
    except (TypeError, ValueError):  # NumPy asks a Tensor for its dtype, and an array for its truth
        name = repr(value) if "\n" not in repr(value) else shown(value)
    if value is None:  # NumPy takes it for float64
        name = "None"
    found = ALL.get(name.removeprefix("tx.").removesuffix("_"))
    if found is None:
        near = "int32 or int64" if "int" in name else "one of " + ", ".join(ALL)
        raise DTypeError(f"no tensor dtype {name}: convert to {near} first")
    return found


def promote(a: DType, b: DType) -> DType:
    """The dtype that both a and b convert to: higher category first, then the wider one."""
    if a == b:
        return a
    if a.kind != b.kind:
        return a if _CATEGORY[a.kind] > _CATEGORY[b.kind] else b
    if a.itemsize == b.itemsize:  # float16 with bfloat16: neither holds the other
        return float32
    return a if a.itemsize > b.itemsize else b


def weak_dtype(scalar: Any) -> DType:
    """The dtype of a Python or NumPy scalar where nothing else decides: bool, int64 or float32."""
    if isinstance(scalar, (bool, np.bool_)):
        return bool_
    if isinstance(scalar, (int, np.integer)):
        return int64
    if isinstance(scalar, (float, np.floating)):
        return float32
    raise DTypeError(f"{type(scalar).__name__} is no number: wrap data in tx.tensor(...)")


def result_type(tensors: list[tuple[DType, int]], scalars: list[DType]) -> DType:
    """The common dtype of Tensors, given as (dtype, ndim), and of weak scalars' dtypes.

    Groups are heard in turn: Tensors with dimensions, 0-d Tensors, scalars; a later group counts
    only where its category is higher.
    """
    groups = (
        [d for d, ndim in tensors if ndim],
        [d for d, ndim in tensors if not ndim],
        scalars,
    )
    result: DType | None = None
    for group in groups:
        for dtype in group[1:]:
            group[0] = promote(group[0], dtype)
        if group and (result is None or _CATEGORY[group[0].kind] > _CATEGORY[result.kind]):
            result = group[0]
    if result is None:
        raise DTypeError("no operand has a dtype")
    return result


def outside(data: Any, dtype: DType) -> np.ndarray[Any, Any]:
    """Data from outside (numbers, nested lists, arrays) as an array of dtype. DTypeError for what
    is no number, RangeError for one that an integer dtype cannot hold: too large, infinite, NaN."""
    array = np.asarray(data)
    if array.dtype.kind == "O" and all(isinstance(x, (bool, int, float)) for x in array.flat):
        for x in array.flat if dtype.kind == "i" else ():  # integers beyond int64
            require_fit(x, dtype)
    elif array.dtype.kind not in "biuf" and array.dtype.name not in ALL:
        raise DTypeError(f"data of dtype {array.dtype} are no numbers: convert them first")
    elif dtype.kind == "i" and array.size and array.dtype.kind != "b":
        _require_all_fit(array, dtype)
    with np.errstate(all="ignore"):  # a float too large for a float dtype is infinite
        return array.astype(dtype.np)


def _require_all_fit(array: np.ndarray[Any, Any], dtype: DType) -> None:
    if array.dtype.kind in "iu":
        if not np.can_cast(array.dtype, dtype.np):
            require_fit(int(array.min()), dtype)
            require_fit(int(array.max()), dtype)
        return
    end = 2.0 ** (8 * dtype.itemsize - 1)
    whole = np.trunc(array.astype(np.float64))
    wrong = ~((whole >= -end) & (whole < end))  # NaN, too
    if wrong.any():
        require_fit(float(array[wrong].flat[0]), dtype)


def require_fit(value: float, dtype: DType) -> None:
    """RangeError where a Python number is none that an integer dtype holds."""
    high = 2 ** (8 * dtype.itemsize - 1) - 1
    low = -high - 1
    if not low <= value <= high:
        raise RangeError(
            f"{value} does not fit {dtype.name}, which holds {low} to {high}: use a larger or a "
            "floating dtype"
        )
