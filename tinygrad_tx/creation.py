"""Functions that make Tensors, and those that join several: tx.tensor, tx.zeros, tx.cat, ..."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil
from typing import Any

import numpy as np

from . import backends, ops, random
from .backends import get
from .dtypes import DType, as_dtype, float32, int64, promote
from .errors import DTypeError, ShapeError
from .node import Op, guarded, leaf
from .tensor import Tensor


class _Defaults:
    """What creation uses where nothing is said."""

    device = "cpu"


_DEFAULTS = _Defaults()


def set_default_device(device: str) -> None:
    """Make "cpu" or "cuda" the device of new Tensors; DeviceError where it is not available."""
    get(device)
    _DEFAULTS.device = device


def get_default_device() -> str:
    device: str = guarded(_DEFAULTS, "device")
    return device


def _device(device: str | None) -> str:
    return get_default_device() if device is None else backends.canonical(device)


def tensor(
    data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor holding a copy of data: a number, nested lists, a NumPy array or a Tensor.

    Without dtype, Python floats become float32 and integers int64; NumPy arrays keep theirs.
    """
    if isinstance(data, Tensor):
        out = data.detach().to(_device(device) if device else data.device)
        out = Tensor(out.to(as_dtype(dtype) if dtype else data.dtype).node)
    else:
        if isinstance(data, (list, tuple)):
            data = _plain(data)
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"tensor: nested lists of unequal length: {error}") from None
        typed = isinstance(data, (np.ndarray, np.generic))
        if dtype is not None:
            wanted = as_dtype(dtype)
        elif typed or array.dtype.kind != "f":
            wanted = as_dtype(array.dtype)
        else:
            wanted = float32
        on = _device(device)
        out = Tensor(leaf(get(on).from_host(array.astype(wanted.np)), wanted, on))
    return out.requires_grad_() if requires_grad else out


def _plain(data: Any) -> Any:
    """Nested lists with any Tensors inside as Python numbers."""
    if isinstance(data, Tensor):
        return data.tolist()
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    return data


def full(
    size: int | Sequence[int],
    fill_value: float,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of fill_value everywhere."""
    wanted = as_dtype(dtype) if dtype is not None else as_dtype(type(fill_value))
    shape = _shape((size,))
    out: Tensor = ops.FULL(shape=shape, value=fill_value, dtype=wanted, device=_device(device))
    return out.requires_grad_() if requires_grad else out


def zeros(
    *size: Any, dtype: Any = float32, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor of zeros; sizes one by one or as one sequence."""
    return full(_shape(size), 0.0, dtype, device, requires_grad)


def ones(
    *size: Any, dtype: Any = float32, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    return full(_shape(size), 1.0, dtype, device, requires_grad)


def empty(
    *size: Any, dtype: Any = float32, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor whose values do not matter (they are zeros: nothing is left to chance)."""
    return zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)


def zeros_like(x: Tensor, dtype: Any = None) -> Tensor:
    return full(x.shape, 0, dtype or x.dtype, x.device)


def ones_like(x: Tensor, dtype: Any = None) -> Tensor:
    return full(x.shape, 1, dtype or x.dtype, x.device)


def full_like(x: Tensor, fill_value: float, dtype: Any = None) -> Tensor:
    return full(x.shape, fill_value, dtype or x.dtype, x.device)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """start, start + step, ... below end; arange(n) counts from 0. int64, or float32 of floats."""
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ShapeError("arange: the step must not be 0")
    numbers = (start, end, step)
    natural = float32 if any(isinstance(n, (float, np.floating)) for n in numbers) else int64
    wanted = as_dtype(dtype) if dtype is not None else natural
    count = max(0, ceil((end - start) / step))
    out: Tensor = ops.ARANGE(
        start=start, step=step, count=count, dtype=wanted, device=_device(device)
    )
    return out


def eye(n: int, m: int | None = None, dtype: Any = float32, device: str | None = None) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix."""
    rows, columns = arange(n, device=device), arange(n if m is None else m, device=device)
    return (rows.unsqueeze(-1) == columns).to(as_dtype(dtype))


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """x with zeros above the diagonal of its last two axes."""
    return x.where(_below(x, diagonal), False)  # False: a zero that any dtype outranks


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """x with zeros below the diagonal of its last two axes."""
    return x.where(~_below(x, diagonal - 1), False)


def _below(x: Tensor, diagonal: int) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"tril and triu need a matrix, not {x.shape}")
    rows, columns = (arange(n, device=x.device) for n in x.shape[-2:])
    return columns <= rows.unsqueeze(-1) + diagonal


def rand(*size: Any, dtype: Any = float32, device: str | None = None) -> Tensor:
    """Uniform in [0, 1), in steps of 2^-24."""
    shape, wanted = _shape(size), _float(dtype)
    return _drawn(ops.UNIFORM, device, shape=shape, dtype=wanted)


def randn(*size: Any, dtype: Any = float32, device: str | None = None) -> Tensor:
    """Normal with mean 0 and standard deviation 1."""
    shape, wanted = _shape(size), _float(dtype)
    return _drawn(ops.NORMAL, device, shape=shape, dtype=wanted)


def randint(
    low: int,
    high: int | Sequence[int],
    size: Any = None,
    dtype: Any = int64,
    device: str | None = None,
) -> Tensor:
    """Integers in [low, high); randint(high, size) counts from 0."""
    if size is None:
        low, high, size = 0, low, high
    low, high = int(low), int(high)  # type: ignore[arg-type]
    if high <= low:
        raise ShapeError(f"randint: the range [{low}, {high}) is empty")
    shape, wanted = _shape((size,)), as_dtype(dtype)
    return _drawn(ops.RANDINT, device, low=low, high=high, shape=shape, dtype=wanted)


def bernoulli_keep(shape: Sequence[int], p: float, device: str | None = None) -> Tensor:
    """Booleans that are False with probability p: the mask of dropout."""
    return _drawn(ops.KEEP, device, p=float(p), shape=tuple(shape))


def _drawn(op: Op, device: str | None, **attrs: Any) -> Tensor:
    """What a random op makes on a device of the next stream."""
    there = _device(device)
    key, stream = random.generator(there).next()
    if there != key.device:
        attrs["target"] = there
    out: Tensor = op(key, stream, **attrs)
    return out


def from_dlpack(external: Any) -> Tensor:
    """A Tensor over the memory of any object with __dlpack__ (no copy): do not change it after."""
    kind = external.__dlpack_device__()[0]
    device = "cuda" if int(kind) == 2 else "cpu"
    array = get(device).from_dlpack(external)
    return Tensor(leaf(array, as_dtype(array.dtype), device))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joined along an axis; dtypes are promoted."""
    if not tensors:
        raise ShapeError("cat: there is nothing to join")
    common = reduce(promote, (t.dtype for t in tensors))
    axis = tensors[0]._axis(dim)
    out: Tensor = ops.CONCAT(*(t.to(common) for t in tensors), axis=axis)
    return out


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joined along a new axis; all shapes must be equal."""
    if not tensors:
        raise ShapeError("stack: there is nothing to join")
    for t in tensors[1:]:
        if t.shape != tensors[0].shape:
            raise ShapeError(f"stack: shapes {tensors[0].shape} and {t.shape} differ")
    return cat([t.unsqueeze(dim) for t in tensors], dim)


def where(condition: Tensor, x: Any, other: Any) -> Tensor:
    """x where condition is True, other elsewhere."""
    out: Tensor = ops.WHERE(condition, x, other)
    return out


def maximum(a: Any, b: Any) -> Tensor:
    out: Tensor = ops.MAXIMUM(a, b)
    return out


def minimum(a: Any, b: Any) -> Tensor:
    out: Tensor = ops.MINIMUM(a, b)
    return out


def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    return x.split(split_size, dim)


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    shape = tuple(int(n) for n in size)
    if any(n < 0 for n in shape):
        raise ShapeError(f"shape {shape} has a negative size")
    return shape


def _float(dtype: Any) -> DType:
    found = as_dtype(dtype)
    if not found.is_floating_point:
        raise DTypeError(f"random numbers of dtype {found.name}: use randint for integers")
    return found


__all__ = [
    "arange", "bernoulli_keep", "cat", "empty", "eye", "from_dlpack", "full", "full_like",
    "get_default_device", "maximum", "minimum", "ones", "ones_like", "rand", "randint", "randn",
    "set_default_device", "split", "stack", "tensor", "tril", "triu", "where", "zeros",
    "zeros_like",
]  # fmt: skip
