"""Functions that make Tensors, and those that join several: tx.tensor, tx.zeros, tx.cat, ..."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil
from typing import Any

import numpy as np

from . import backends, ops
from .arguments import explain_functions, shown
from .backends import get
from .context import guarded
from .dtypes import (
    DType,
    as_dtype,
    bool_,
    float32,
    float64,
    int64,
    outside,
    promote,
    weak_dtype,
)
from .errors import DeviceError, DTypeError, ShapeError, UserError
from .node import leaf
from .rules import whole
from .spelling import refuse, spelled
from .tensor import Tensor


class _Defaults:
    """The defaults of creation."""

    device = "cpu"


_DEFAULTS = _Defaults()


def set_default_device(device: str) -> None:
    """Make "cpu", "cuda" or "meta" the device of new Tensors; DeviceError where it is not
    available."""
    get(device)
    _DEFAULTS.device = device


def get_default_device() -> str:
    """The device on which Tensors are made where none is named."""
    device: str = guarded(_DEFAULTS, "device")
    return device


def _device(device: str | None) -> str:
    return get_default_device() if device is None else backends.canonical(device)


def tensor(
    data: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A Tensor holding a copy of data: a number, nested lists, a NumPy array or a Tensor.

    Without dtype, Python floats become float32 and integers int64; NumPy arrays keep theirs.
    RangeError for a number that an integer dtype does not hold: too large, infinite or NaN.
    """
    refuse("tensor", pin_memory=pin_memory)
    if isinstance(data, Tensor):
        out = data.detach().to(data.device if device is None else _device(device))
        out = Tensor(out.to(data.dtype if dtype is None else as_dtype(dtype)).node)
    else:
        found: set[DType] = set()
        if isinstance(data, (list, tuple)):
            data = _plain(data, found)
        elif type(data) in _PYTHON:
            found.add(weak_dtype(data))
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"tensor: nested lists of unequal length: {error}") from None
        if dtype is not None:
            wanted = as_dtype(dtype)
        elif found or isinstance(data, list):
            wanted = reduce(promote, found, bool_) if found else float32
        else:
            wanted = as_dtype(array.dtype)
        on = _device(device)
        out = Tensor(leaf(get(on).from_host(outside(array, wanted)), wanted, on))
    return out.requires_grad_() if requires_grad else out


_PYTHON = frozenset([bool, int, float])


def _plain(data: Sequence[Any], found: set[DType]) -> list[Any]:
    """Nested lists with any Tensors inside as Python numbers; the dtypes of all that is inside are
    added to found."""
    kinds = set(map(type, data))
    found.update(weak_dtype(kind()) for kind in kinds & _PYTHON)
    if kinds <= _PYTHON:
        return list(data)
    out = []
    for item in data:
        if isinstance(item, (list, tuple)):
            out.append(_plain(item, found))
            continue
        if isinstance(item, (Tensor, np.ndarray, np.generic)):
            found.add(as_dtype(item.dtype))
        out.append(item.tolist() if isinstance(item, Tensor) else item)
    return out


def full(
    size: int | Sequence[int],
    fill_value: float,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    *,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """A Tensor of fill_value everywhere, by default of its dtype: bool, int64 or float32."""
    refuse("full", out=out, layout=layout, pin_memory=pin_memory)
    shape = _shape("full", (size,))
    if isinstance(fill_value, Tensor):  # whose value a traced function does not know
        if fill_value.numel() != 1:
            raise ShapeError(f"full: fill_value must be one number, not {fill_value.shape}")
        one = fill_value.detach().reshape(()).to(_device(device))
        filled = one.to(one.dtype if dtype is None else as_dtype(dtype)).expand(shape)
        return filled.requires_grad_() if requires_grad else filled
    wanted = as_dtype(dtype) if dtype is not None else weak_dtype(fill_value)
    y: Tensor = ops.FULL(shape=shape, value=fill_value, dtype=wanted, device=_device(device))
    return y.requires_grad_() if requires_grad else y


@spelled
def zeros(
    *size: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """A Tensor of zeros, float32 by default; sizes one by one or as one sequence."""
    refuse("zeros", out=out, layout=layout, pin_memory=pin_memory)
    return _filled("zeros", size, 0.0, dtype, device, requires_grad)


@spelled
def ones(
    *size: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Ones of a shape, given as ints or as one tuple."""
    refuse("ones", out=out, layout=layout, pin_memory=pin_memory)
    return _filled("ones", size, 1.0, dtype, device, requires_grad)


@spelled
def empty(
    *size: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
    memory_format: None = None,
) -> Tensor:
    """A Tensor whose values do not matter (they are zeros: nothing is left to chance)."""
    refuse("empty", out=out, layout=layout, pin_memory=pin_memory, memory_format=memory_format)
    return _filled("empty", size, 0.0, dtype, device, requires_grad)


def _filled(
    name: str, size: tuple[Any, ...], value: float, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    dtype = float32 if dtype is None else dtype
    return full(_shape(name, size), value, dtype, device, requires_grad)


def zeros_like(
    input: Tensor,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """Zeros of input's shape, dtype and device where nothing else is said."""
    refuse("zeros_like", layout=layout, memory_format=memory_format)
    return full(input.shape, 0, *_like(input, dtype, device), requires_grad)


def ones_like(
    input: Tensor,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """Ones of the shape, dtype and device of input, unless others are given."""
    refuse("ones_like", layout=layout, memory_format=memory_format)
    return full(input.shape, 1, *_like(input, dtype, device), requires_grad)


def full_like(
    input: Tensor,
    fill_value: float,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """fill_value everywhere, in the shape, dtype and device of input, unless others are given."""
    refuse("full_like", layout=layout, memory_format=memory_format)
    return full(input.shape, fill_value, *_like(input, dtype, device), requires_grad)


def _like(input: Tensor, dtype: Any, device: str | None) -> tuple[Any, str]:
    return (
        input.dtype if dtype is None else dtype,
        input.device if device is None else device,
    )


def empty_like(
    input: Tensor,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """As zeros_like(): see empty()."""
    refuse("empty_like", layout=layout, memory_format=memory_format)
    return full(input.shape, 0, *_like(input, dtype, device), requires_grad)


def arange(
    start: float = 0,
    end: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    *,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """start, start + step, ... below end; arange(n) counts from 0. int64, or float32 of floats."""
    refuse("arange", out=out, layout=layout, pin_memory=pin_memory)
    if end is None:
        start, end = 0, start
    start, end, step = (n.item() if isinstance(n, Tensor) else n for n in (start, end, step))
    if step == 0:
        raise ShapeError("arange: the step must not be 0")
    numbers = (start, end, step)
    natural = float32 if any(isinstance(n, (float, np.floating)) for n in numbers) else int64
    wanted = as_dtype(dtype) if dtype is not None else natural
    if wanted.kind == "i":
        if step != int(step):
            raise DTypeError(f"arange: step={step} of {wanted.name}: use a floating dtype")
        start, step = int(start), int(step)
    count = max(0, ceil((end - start) / step))
    y: Tensor = ops.ARANGE(
        start=start, step=step, count=count, dtype=wanted, device=_device(device)
    )
    return y.requires_grad_() if requires_grad else y


def linspace(
    start: Tensor | float,
    end: Tensor | float,
    steps: int,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    *,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """steps numbers from start to end, both included, at equal distances; float32 by default."""
    refuse("linspace", out=out, layout=layout, pin_memory=pin_memory)
    count = whole("linspace: steps", steps)
    if count < 0:
        raise ShapeError(f"linspace: steps={count} must not be negative")
    start, end = (n.item() if isinstance(n, Tensor) else n for n in (start, end))
    gap = (end - start) / max(count - 1, 1)
    places = arange(count, dtype=float64, device=device)
    forth, back = places * gap + start, (places - (count - 1)) * gap + end  # both ends are exact
    y = forth.where(2 * places < count, back).to(float32 if dtype is None else as_dtype(dtype))
    return y.requires_grad_() if requires_grad else y


def eye(
    n: int,
    m: int | None = None,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    *,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix, float32 by default."""
    refuse("eye", out=out, layout=layout, pin_memory=pin_memory)
    shape = _shape("eye", (n, n if m is None else m))
    rows, columns = (arange(size, device=device) for size in shape)
    y = (rows.unsqueeze(-1) == columns).to(float32 if dtype is None else as_dtype(dtype))
    return y.requires_grad_() if requires_grad else y


def tril(input: Tensor, diagonal: int = 0, *, out: None = None) -> Tensor:
    """input with zeros above the diagonal of its last two axes."""
    refuse("tril", out=out)
    return input.where(_below(input, diagonal), False)  # False: a zero that any dtype outranks


def triu(input: Tensor, diagonal: int = 0, *, out: None = None) -> Tensor:
    """input with zeros below the diagonal of its last two axes."""
    refuse("triu", out=out)
    return input.where(~_below(input, diagonal - 1), False)


def _below(x: Tensor, diagonal: int) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"tril and triu need a matrix, not {x.shape}")
    rows, columns = (arange(n, device=x.device) for n in x.shape[-2:])
    return columns <= rows.unsqueeze(-1) + whole("diagonal", diagonal)


def from_dlpack(ext_tensor: Any, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """A Tensor over the memory of any object with __dlpack__, which must not be changed after.

    copy=True: over memory of its own. device: moved there, which copy=False forbids.
    """
    if not hasattr(ext_tensor, "__dlpack_device__"):
        given = type(ext_tensor).__name__
        raise TypeError(f"from_dlpack: ext_tensor must have __dlpack__, which a {given} has not")
    kind = ext_tensor.__dlpack_device__()[0]
    on = "cuda" if int(kind) == 2 else "cpu"
    wanted = on if device is None else backends.canonical(device)
    if copy is False and wanted != on:
        raise DeviceError(f"from_dlpack: data on {on} are on {wanted} only as a copy")
    array = get(on).from_dlpack(ext_tensor)
    y = Tensor(leaf(array.copy() if copy else array, as_dtype(array.dtype), on))
    return y.to(wanted)


@spelled
def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: None = None) -> Tensor:
    """Joined along an axis; dtypes are promoted. An empty 1-d Tensor fits any other."""
    refuse("cat", out=out)
    members = _members("cat", tensors)
    common = reduce(promote, (t.dtype for t in members))
    # PyTorch lets an empty list stand beside Tensors of any dimensions.
    members = [t for t in members if t.shape != (0,)] or members
    axis = members[0]._axis(dim)
    y: Tensor = ops.CONCAT(*(t.to(common) for t in members), axis=axis)
    return y


@spelled
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: None = None) -> Tensor:
    """Joined along a new axis; all shapes must be equal."""
    refuse("stack", out=out)
    members = _members("stack", tensors)
    for t in members[1:]:
        if t.shape != members[0].shape:
            raise ShapeError(f"stack: shapes {members[0].shape} and {t.shape} differ")
    return cat([t.unsqueeze(dim) for t in members], dim)


def _members(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(tensors, (tuple, list)):
        raise DTypeError(f"{name}: tensors must be a list or tuple, not {type(tensors).__name__}")
    if not tensors:
        raise ShapeError(f"{name}: there is nothing to join")
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise DTypeError(f"{name}: element {i} must be a Tensor, not {type(t).__name__}")
    return list(tensors)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Each row spread over a grid of all of them: one dimension for each, in their order ("ij", the
    default), or with indexing="xy" the first two exchanged."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    members = _members("meshgrid", list(given))
    if indexing not in (None, "ij", "xy"):
        raise UserError(f'meshgrid: indexing must be "ij" or "xy", not {shown(indexing)}')
    for t in members:
        if t.ndim > 1:
            raise ShapeError(f"meshgrid: a Tensor {t.shape} must be a row")
        if t.dtype != members[0].dtype:
            raise DTypeError(
                f"meshgrid: {members[0].dtype.name} with {t.dtype.name}; use .to(dtype)"
            )
    n, shape = len(members), tuple(t.numel() for t in members)
    grids = (t.reshape((1,) * i + (-1,) + (1,) * (n - 1 - i)).expand(shape)
             for i, t in enumerate(members))  # fmt: skip
    return tuple(g.transpose(0, 1) if indexing == "xy" and n > 1 else g for g in grids)


def where(condition: Tensor, input: Any, other: Any, *, out: None = None) -> Tensor:
    """input where condition is True, other elsewhere."""
    refuse("where", out=out)
    y: Tensor = ops.WHERE(condition, input, other)
    return y


def maximum(input: Any, other: Any, *, out: None = None) -> Tensor:
    """The larger of the two, element by element; NaN wins."""
    refuse("maximum", out=out)
    y: Tensor = ops.MAXIMUM(input, other)
    return y


def minimum(input: Any, other: Any, *, out: None = None) -> Tensor:
    """The smaller of the two, element by element; NaN wins."""
    refuse("minimum", out=out)
    y: Tensor = ops.MINIMUM(input, other)
    return y


@spelled
def split(
    tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Pieces of that size along dim (the last may be smaller), or of the given sizes."""
    return tensor.split(split_size_or_sections, dim)


def _shape(name: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    shape = tuple(n if type(n) is int else whole(f"{name}: a size", n) for n in size)
    if any(n < 0 for n in shape):
        raise ShapeError(f"{name}: the shape {shape} has a negative size")
    return shape


__all__ = [
    "arange", "cat", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like",
    "get_default_device", "linspace", "maximum", "meshgrid", "minimum", "ones", "ones_like",
    "set_default_device", "split", "stack", "tensor", "tril", "triu", "where", "zeros",
    "zeros_like",
]  # fmt: skip


explain_functions(globals())
