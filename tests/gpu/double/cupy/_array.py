"""The double's array, and its elementwise functions: NumPy memory behind CuPy's rules."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinygrad_tx.backends.arrays.dlpack import exported

from ._device import blocks
from .cuda import broken, counts

_SCALARS = (bool, int, float, complex, np.generic)


def new(memory: Any, base: Any = None) -> ndarray:
    """An array over NumPy memory; base: the array that it is a view of."""
    out = object.__new__(ndarray)
    out._a = np.asarray(memory)
    out._base = base if base is None or base._base is None else base._base
    number = next(_numbers)
    _alive[number] = weakref.ref(out, lambda _: _alive.pop(number))
    return out


_numbers = itertools.count()
_alive: dict[int, weakref.ref[ndarray]] = {}


def used_bytes() -> int:
    """The bytes of all arrays that there are, those of a view once, and of alloc()."""
    found = {}
    for known in [*_alive.values()]:
        array = known()
        if array is None:
            continue
        memory = array._a
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        found[id(memory)] = memory.nbytes
    return sum(found.values()) + sum(block.size for block in blocks)


def operand(x: Any) -> Any:
    """What a ufunc takes: an array's memory, or a scalar. A NumPy array is refused."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, _SCALARS):
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def memory(x: Any, what: str = "array") -> np.ndarray[Any, Any]:
    """The memory of an argument that must be an array of this module."""
    if not isinstance(x, ndarray):
        raise TypeError(
            f"Argument '{what}' has incorrect type (expected cupy.ndarray, got {type(x).__name__})"
        )
    return x._a


def quiet(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A GPU does not warn."""
    with np.errstate(all="ignore"):
        return f(*args, **kwargs)


class ndarray:  # noqa: N801 - CuPy's name
    """CuPy's array: never converted to NumPy's by itself, results of 0 dimensions among them."""

    __array_priority__ = 100
    _a: np.ndarray[Any, Any]
    _base: ndarray | None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None
    ) -> None:
        """Over memory that alloc() has given, or an address in it."""
        found = np.dtype(dtype)
        ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
        low = sum(min(end, 0) for end in ends)
        size = sum(max(end, 0) for end in ends) - low + found.itemsize
        block = (ctypes.c_char * size).from_address(memptr.ptr + low)
        self._a = np.ndarray(shape, found, memoryview(block), -low, strides)
        self._base = None

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    strides = property(lambda self: self._a.strides)
    base = property(lambda self: self._base)
    T = property(lambda self: new(self._a.T, self))
    data = property(lambda self: SimpleNamespace(ptr=self._a.ctypes.data))

    @property
    def flags(self) -> Any:
        found = self._a.flags
        return SimpleNamespace(
            c_contiguous=found.c_contiguous,
            f_contiguous=found.f_contiguous,
            owndata=self._base is None,
        )

    # To the host ---------------------------------------------------------------------------------
    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        counts["to_host"] += 1
        counts["waits"] += blocking
        if out is None:
            return self._a.copy(order="C")
        out[...] = self._a
        return out

    def set(self, arr: np.ndarray[Any, Any], stream: Any = None) -> None:
        """From the host, without a wait."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype or self.shape != arr.shape:
            raise TypeError(f"{arr.dtype} {arr.shape} array cannot be set to {self.dtype}")
        counts["to_device"] += 1
        self._a[...] = arr

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.item() if self.size else self.get())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        found: int = self.get().__index__()
        return found

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        return "double of cupy " + repr(self._a)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Any:
        if self.dtype.name == "bfloat16":  # which NumPy does not hand out
            return exported(self._a, max_version=max_version)
        return self._a.__dlpack__(max_version=max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    # A ufunc of NumPy with such an array calls the one of this module ----------------------------
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = UFUNCS.get(ufunc.__name__)
        if method != "__call__" or function is None:
            return NotImplemented
        return function(*inputs, **kwargs)

    # Elements ------------------------------------------------------------------------------------
    def __getitem__(self, index: Any) -> ndarray:
        if any(_is_mask(i) for i in (index if isinstance(index, tuple) else (index,))):
            counts["waits"] += 1  # for the number of entries
        out = self._a[_wrapped(index, self.shape)]
        shares = isinstance(out, np.ndarray) and out.base is not None
        return new(out, self if shares else None)

    def __setitem__(self, index: Any, value: Any) -> None:
        raw = np.asarray(value if isinstance(value, (list, tuple)) else operand(value))
        index = _wrapped(index, self.shape)
        many = any(
            isinstance(i, np.ndarray) and i.dtype.kind in "iu" and i.ndim
            for i in (index if isinstance(index, tuple) else (index,))
        )
        if not many:
            self._a[index] = quiet(raw.astype, self.dtype, copy=False)
            return
        # Which of several writes to one place is the last is open: here they go backwards.
        places = np.arange(self.size).reshape(self.shape)[index]
        flat = np.ravel(self._a, order="C")
        written = np.broadcast_to(raw, places.shape).ravel()[::-1]
        flat[places.ravel()[::-1]] = quiet(written.astype, self.dtype)
        self._a[...] = flat.reshape(self.shape)

    # Methods -------------------------------------------------------------------------------------
    def astype(
        self,
        dtype: Any,
        order: str = "K",
        casting: Any = None,
        subok: Any = None,
        copy: bool = True,
    ) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        return new(quiet(self._a.astype, dtype))

    def copy(self, order: str = "C") -> ndarray:
        return new(self._a.copy(order="C"))

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        return new(self._a.view() if dtype is None else self._a.view(dtype), self)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        out = self._a.reshape(*shape)
        return new(out, self if np.shares_memory(out, self._a) else None)

    def ravel(self, order: str = "C") -> ndarray:
        return self.reshape(-1)

    def transpose(self, *axes: Any) -> ndarray:
        return new(self._a.transpose(*axes), self)

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return new(self._a.swapaxes(axis1, axis2), self)

    def fill(self, value: Any) -> None:
        self._a.fill(value)

    def sum(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> ndarray:
        return new(quiet(self._a.sum, axis=axis, dtype=dtype, keepdims=keepdims))

    def prod(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> ndarray:
        return new(quiet(self._a.prod, axis=axis, dtype=dtype, keepdims=keepdims))

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return new(quiet(self._a.max, axis=axis, keepdims=keepdims))

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return new(quiet(self._a.min, axis=axis, keepdims=keepdims))

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return new(self._a.any(axis=axis, keepdims=keepdims))

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return new(self._a.all(axis=axis, keepdims=keepdims))

    def argmax(
        self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False
    ) -> ndarray:
        return new(self._a.argmax(axis=axis, keepdims=keepdims))

    def argmin(
        self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False
    ) -> ndarray:
        return new(self._a.argmin(axis=axis, keepdims=keepdims))


def _is_mask(item: Any) -> bool:
    return getattr(item, "dtype", None) == np.dtype(bool) and getattr(item, "ndim", 0) > 0


def _wrapped(index: Any, shape: tuple[int, ...]) -> Any:
    """An index for NumPy. Entries outside wrap around, as they do without an error in CuPy."""
    items = list(index) if isinstance(index, tuple) else [index]
    taken = [0 if i is None or i is Ellipsis else i.ndim if _is_mask(i) else 1 for i in items]
    axis = 0
    for k, item in enumerate(items):
        if item is Ellipsis:
            axis += len(shape) - sum(taken)
            continue
        found = item._a if isinstance(item, ndarray) else item
        if isinstance(found, np.ndarray) and found.dtype.kind in "iu":
            if shape[axis] == 0 and found.size:
                raise IndexError("an index into an empty axis")
            found = found % shape[axis] if found.size else found.astype(np.int64)
        items[k] = found
        axis += taken[k]
    return tuple(items) if isinstance(index, tuple) else items[0]


# Ufuncs -------------------------------------------------------------------------------------------


def _power(x: Any, p: Any) -> Any:
    """Floats: as pow in C. Integers to negative powers: 0, but for 1 and -1."""
    common = np.result_type(x, p)
    if common.kind not in "iu":
        rooted = (p == 0.5) & ((x == 0) | (x == -np.inf))  # NumPy takes the square root
        return np.where(rooted, np.abs(x), np.power(x, p)).astype(common)
    x, p = np.asarray(x), np.asarray(p)
    inverse = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (p % 2), 0))
    return np.where(p < 0, inverse, np.power(x, np.where(p < 0, 0, p))).astype(common)


def _floor_divide(x: Any, y: Any) -> Any:
    """Integers: 0 where y is 0. Floats: floor of the rounded quotient."""
    common = np.result_type(x, y)
    if common.kind not in "iu":
        return np.floor(np.true_divide(x, y)).astype(common)
    y = np.asarray(y)
    safe = np.where(y == 0, 1, y).astype(y.dtype)
    return np.where(y == 0, 0, np.floor_divide(x, safe)).astype(common)


def _remainder(x: Any, y: Any) -> Any:
    """Integers: 0 where y is 0. Floats: x - floor(x / y) * y, each step rounded."""
    common = np.result_type(x, y)
    if common.kind not in "iu":
        return (x - _floor_divide(x, y) * y).astype(common)
    y = np.asarray(y)
    safe = np.where(y == 0, 1, y).astype(y.dtype)
    return np.where(y == 0, 0, np.remainder(x, safe)).astype(common)


def _ufunc(name: str, f: Callable[..., Any]) -> Callable[..., ndarray]:
    def call(*args: Any, out: Any = None, casting: str = "same_kind", dtype: Any = None) -> ndarray:
        broken("nvrtc")
        result = quiet(f, *[operand(a) for a in args])
        if out is None:
            return new(result)
        memory(out)[...] = result
        return out

    call.__name__ = name
    return call


_SAME = (
    *("exp", "log", "log1p", "expm1", "sqrt", "tanh", "sin", "cos", "abs", "absolute", "sign"),
    *("log2", "log10", "tan", "arctan2", "sinh", "cosh", "ceil", "trunc", "rint"),
    *("floor", "minimum", "maximum", "add", "subtract", "multiply", "true_divide", "divide"),
    *("negative", "logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isfinite"),
    *("isinf", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "fmod"),
    *("copysign", "signbit", "bitwise_and", "bitwise_or", "bitwise_xor", "invert"),
)
_OTHER = {"power": _power, "floor_divide": _floor_divide, "remainder": _remainder}
UFUNCS = {name: _ufunc(name, getattr(np, name)) for name in _SAME}
UFUNCS |= {name: _ufunc(name, f) for name, f in _OTHER.items()}


def _binary(f: Callable[..., ndarray], *, swap: bool = False) -> Callable[..., ndarray]:
    return (lambda self, other: f(other, self)) if swap else (lambda self, other: f(self, other))


def _into(f: Callable[..., ndarray]) -> Callable[..., ndarray]:
    def method(self: ndarray, other: Any) -> ndarray:
        result = f(self, other)._a
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"output (typecode '{result.dtype.char}') could not be coerced to "
                f"provided output parameter (typecode '{self.dtype.char}')"
            )
        self._a[...] = result
        return self

    return method


for _short, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}.items():
    setattr(ndarray, f"__{_short}__", _binary(UFUNCS[_name]))
    setattr(ndarray, f"__r{_short}__", _binary(UFUNCS[_name], swap=True))
    setattr(ndarray, f"__i{_short}__", _into(UFUNCS[_name]))
for _short, _name in {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}.items():
    setattr(ndarray, f"__{_short}__", _binary(UFUNCS[_name]))
for _short, _name in {"neg": "negative", "invert": "invert", "abs": "absolute"}.items():
    setattr(ndarray, f"__{_short}__", UFUNCS[_name])
ndarray.__hash__ = None  # type: ignore[assignment]
