"""Functions that draw random Tensors: tx.rand, tx.randn, tx.randperm, tx.multinomial, ...

Each call takes the next stream of the source of random numbers (random.py; multinomial and randperm
take two), eager or compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from . import ops, random
from .arguments import explain_functions
from .creation import _device, _like, _shape
from .dtypes import as_dtype, float32, float64, int64, require_fit
from .errors import DTypeError, ShapeError, UserError
from .op import Op
from .rules import whole
from .spelling import refuse, spelled
from .tensor import Tensor


@spelled
def rand(
    *size: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    generator: None = None,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Uniform in [0, 1), in steps of 2^-24; float32 by default."""
    refuse("rand", generator=generator, out=out, layout=layout, pin_memory=pin_memory)
    return _floats("rand", ops.UNIFORM, size, dtype, device, requires_grad)


@spelled
def randn(
    *size: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    generator: None = None,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Normal with mean 0 and standard deviation 1; float32 by default."""
    refuse("randn", generator=generator, out=out, layout=layout, pin_memory=pin_memory)
    return _floats("randn", ops.NORMAL, size, dtype, device, requires_grad)


def _floats(
    name: str, op: Op, size: tuple[Any, ...], dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    shape, wanted = _shape(name, size), float32 if dtype is None else as_dtype(dtype)
    if not wanted.is_floating_point:
        raise DTypeError(f"random numbers of dtype {wanted.name}: use randint for integers")
    y = _drawn(op, device, shape=shape, dtype=wanted)
    return y.requires_grad_() if requires_grad else y


def randint(
    low: int = 0,
    high: int | Sequence[int] | None = None,
    size: Any = None,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    *,
    generator: None = None,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """Integers in [low, high), int64 by default; randint(high, size) counts from 0."""
    refuse("randint", generator=generator, out=out, layout=layout, pin_memory=pin_memory)
    if isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise ShapeError("randint: size is missing, as in randint(low, high, (2, 3))")
    low, high = whole("randint: low", low), whole("randint: high", high)
    if high <= low:
        raise ShapeError(f"randint: the range [{low}, {high}) is empty")
    shape, wanted = _shape("randint", (size,)), as_dtype(int64 if dtype is None else dtype)
    if wanted.kind == "i":
        require_fit(low, wanted)
        require_fit(high - 1, wanted)
    drawn = wanted if wanted.kind == "i" else int64
    y = _drawn(ops.RANDINT, device, low=low, high=high, shape=shape, dtype=drawn).to(wanted)
    return y.requires_grad_() if requires_grad else y


def dropped(x: Tensor, p: float, axis: int = 0) -> Tensor:
    """Zeros with probability p and x / (1 - p) elsewhere. axis: that of a batch's rows, for ranks
    that share it (random.drawing_for)."""
    scale = 1 / (1 - p) if p < 1 else 0.0
    y: Tensor = (x * scale).where(bernoulli_keep(x.shape, p, x.device, axis), 0)
    return y


def bernoulli_keep(
    shape: Sequence[int], p: float, device: str | None = None, axis: int = 0
) -> Tensor:
    """Booleans that are False with probability p: the mask of dropout. axis: as of dropped."""
    rows = random.rows_here() if axis else None
    if rows is None:
        return _drawn(ops.KEEP, device, p=float(p), shape=tuple(shape))
    with random.drawing_for(None):  # rows lie apart: all are drawn, and these taken
        whole = (*shape[:axis], rows.whole, *shape[axis + 1 :])
        kept = _drawn(ops.KEEP, device, p=float(p), shape=whole)
    return kept[(slice(None),) * axis + (slice(rows.first, rows.first + rows.count),)]


def _drawn(op: Op, device: str | None, **attrs: Any) -> Tensor:
    """The result of a random op on a device, from the next stream."""
    there = _device(device)
    key, stream = random.generator(there).next()
    if there != key.device:
        attrs["target"] = there
    rows, shape = random.rows_here(), attrs["shape"]
    if rows and rows.first and shape and not shape[0] % rows.count:
        attrs["first"] = rows.first * (prod(shape) // rows.count)
    out: Tensor = op(key, stream, **attrs)
    return out


def rand_like(
    input: Tensor,
    *,
    generator: None = None,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """rand() of input's shape, dtype and device where nothing else is said."""
    refuse("rand_like", generator=generator, layout=layout, memory_format=memory_format)
    dtype, device = _like(input, dtype, device)
    return _floats("rand_like", ops.UNIFORM, input.shape, dtype, device, requires_grad)


def randn_like(
    input: Tensor,
    *,
    generator: None = None,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """randn() of input's shape, dtype and device where nothing else is said."""
    refuse("randn_like", generator=generator, layout=layout, memory_format=memory_format)
    dtype, device = _like(input, dtype, device)
    return _floats("randn_like", ops.NORMAL, input.shape, dtype, device, requires_grad)


def randint_like(
    input: Tensor,
    low: int = 0,
    high: int | None = None,
    *,
    generator: None = None,
    dtype: Any = None,
    layout: None = None,
    device: str | None = None,
    requires_grad: bool = False,
    memory_format: None = None,
) -> Tensor:
    """randint(low, high) of input's shape, dtype and device where nothing else is said;
    randint_like(x, high) counts from 0."""
    refuse("randint_like", generator=generator, layout=layout, memory_format=memory_format)
    dtype, device = _like(input, dtype, device)
    return randint(low, high, input.shape, dtype, device, requires_grad)


def randperm(
    n: int,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    *,
    generator: None = None,
    out: None = None,
    layout: None = None,
    pin_memory: bool = False,
) -> Tensor:
    """0 to n - 1 in a random order, int64 by default."""
    refuse("randperm", generator=generator, out=out, layout=layout, pin_memory=pin_memory)
    order = _fine(_shape("randperm", (n,)), device).argsort()
    y = order.to(int64 if dtype is None else as_dtype(dtype))
    return y.requires_grad_() if requires_grad else y


def bernoulli(
    input: Tensor, p: Tensor | float | None = None, *, generator: None = None, out: None = None
) -> Tensor:
    """1 with the probability that each element of input is (or p, where it is given), else 0."""
    refuse("bernoulli", generator=generator, out=out)
    if p is None and not input.dtype.is_floating_point:
        raise DTypeError(f"bernoulli needs a floating dtype, not {input.dtype.name}: use .float()")
    chance: Any = input.detach() if p is None else p
    fair = (chance >= 0) & (chance <= 1) if isinstance(chance, Tensor) else 0 <= chance <= 1
    if not (not fair.node.has_values or bool(fair.all()) if isinstance(fair, Tensor) else fair):
        raise UserError("bernoulli: a probability must be between 0 and 1")
    drawn: Tensor = rand(input.shape, device=input.device) < chance
    return drawn.to(input.dtype)


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: None = None,
    out: None = None,
) -> Tensor:
    """Indices drawn with probabilities in proportion to a row of input, or to each of several rows:
    (num_samples,) or (rows, num_samples). Without replacement none comes twice.

    With replacement, or for one sample, by inversion of the cumulated weights; else the largest
    weights divided by an exponential number each (Efraimidis and Spirakis, 2006).
    """
    refuse("multinomial", generator=generator, out=out)
    if input.ndim not in (1, 2) or not input.dtype.is_floating_point:
        raise ShapeError(
            f"multinomial: weights must be one or two dimensions of floats, not "
            f"{input.dtype.name} {input.shape}"
        )
    count, weights = whole("multinomial: num_samples", num_samples), input.detach().to(float64)
    if count < 1 or (not replacement and count > weights.shape[-1]):
        raise ShapeError(
            f"multinomial: {count} samples of {weights.shape[-1]} weights; without replacement "
            "there are at most as many, and at least one"
        )
    _require_weights(weights, 1 if replacement else count)
    rows = weights.shape[:-1]
    if replacement or count == 1:
        reached = weights.cumsum(-1)
        shares = _fine((*rows, count), input.device) * reached[..., -1:]
        y: Tensor = ops.SEARCHSORTED(reached, shares, right=True)
        return y
    waits = -(_fine(weights.shape, input.device) + 2.0**-49).log()  # exponential, and never 0
    _, y = (weights / waits).topk(count)
    return y


def _require_weights(weights: Tensor, count: int) -> None:
    """UserError where eager code sees weights that nothing can be drawn with."""
    if not weights.node.has_values or not weights.numel():
        return
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise UserError("multinomial: a weight is negative, infinite or NaN")
    if bool(((weights > 0).sum(-1) < count).any()):
        raise UserError(f"multinomial: {count} samples need as many weights that are not 0")


def _fine(shape: tuple[int, ...], device: str | None) -> Tensor:
    """Uniform in [0, 1) in steps of 2^-48, of two streams: so fine that ties do not matter."""
    coarse, rest = (rand(shape, dtype=float64, device=device) for _ in range(2))
    return coarse + rest * 2.0**-24


explain_functions(globals())
