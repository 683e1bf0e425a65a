"""Kernels in NumPy: the oracle of native code, and what runs a plan where llvmlite is missing.

In: a Kernel, and the argument list of a call as kinds.py lays it out. Out: nothing; the memory
that the arguments point to is written as all tasks of the call would write it. Called by the
executor and by the tests. Operands are NumPy views of raw memory; a whole kernel is computed before
anything is written, so that outputs may be the memory of inputs. Sums have a fixed order, but not
the one of native code: results agree to rounding, and bit for bit where nothing is rounded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...dtypes import ALL
from ..arrays import numpy_random
from ..cpu.processor import Processor
from . import interpreter_math
from .kinds import (
    REDUCTIONS,
    Attention,
    AttentionGrad,
    Columns,
    Index,
    Input,
    Instr,
    Keep,
    Kernel,
    Matmul,
    Pack,
    Rows,
    ScatterAdd,
)
from .summation import KC

Array = NDArray[Any]
Shape = tuple[int, ...]


def run(kernel: Kernel, args: Sequence[int], target: Processor) -> None:
    """All tasks of a call. target: says how packed matrices are laid out."""
    with np.errstate(all="ignore"):
        match kernel:
            case Rows():
                _rows(kernel, args)
            case Columns():
                _columns(kernel, args)
            case Pack():
                _pack(kernel, args)
            case Matmul():
                _matmul(kernel, args, target)
            case Attention():
                _attention(kernel, args)
            case AttentionGrad():
                _attention_grad(kernel, args)
            case Keep():
                _keep(kernel, args)
            case Index():
                _index(kernel, args)
            case ScatterAdd():
                _scatter_add(kernel, args)
            case _:
                raise TypeError(f"the interpreter runs no {type(kernel).__name__}")


# Memory ------------------------------------------------------------------------------------------


def view(address: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """The memory at an address as an array. Strides count elements, and may be 0 or negative."""
    size, element = ALL[dtype].itemsize, ALL[dtype].np
    if 0 in shape:
        return np.empty(shape, element)
    ends = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    first, last = sum(min(end, 0) for end in ends), sum(max(end, 0) for end in ends)
    memory = (ctypes.c_char * ((last - first + 1) * size)).from_address(address + first * size)
    steps = [stride * size for stride in strides]
    return np.ndarray(shape, element, memoryview(memory), -first * size, steps)


class _Place(NamedTuple):
    """Where an operand of a row program lies."""

    address: int
    dtype: str
    strides: Shape  # along the outer axes
    column: int  # the stride along columns

    def view(self, domain: Shape) -> Array:
        return view(self.address, self.dtype, domain, (*self.strides, self.column))


class _Reader:
    """Takes an argument list apart, from the front."""

    def __init__(self, args: Sequence[int]) -> None:
        self._rest = iter(args)

    def take(self, count: int) -> Shape:
        return tuple(int(next(self._rest)) for _ in range(count))

    def one(self) -> int:
        return int(next(self._rest))

    def place(self, dtype: str, outer: int) -> _Place:
        return _Place(self.one(), dtype, self.take(outer), self.one())

    def array(self, dtype: str, *shape: int) -> Array:
        """An operand given by its address and one stride for each axis."""
        return view(self.one(), dtype, shape, self.take(len(shape)))


# Row programs ------------------------------------------------------------------------------------

Fold = Callable[[Instr, Array], Array]  # a reduction of what has the whole domain's shape


def _rows(kernel: Rows, args: Sequence[int]) -> None:
    reader = _Reader(args)
    domain = reader.take(kernel.outer + 1)
    reader.one()  # rows per task
    inputs = [reader.place(i.dtype, kernel.outer) for i in kernel.inputs]
    results = _evaluate(
        kernel,
        domain,
        inputs,
        lambda instr, x: interpreter_math.reduce_columns(instr.op, instr.dtype, x),
    )
    for output, result in zip(kernel.outputs, results, strict=True):
        place = reader.place(result.dtype.name, kernel.outer)
        if output.at >= 0:
            position = int(view(inputs[output.at].address, "int64", (), ()))
            moved = position * reader.one() * result.dtype.itemsize
            place = place._replace(address=place.address + moved)
        place.view(_extents(domain, output.column))[...] = result


def _columns(kernel: Columns, args: Sequence[int]) -> None:
    reader = _Reader(args)
    domain = reader.take(kernel.outer + 1)
    rows, columns = prod(domain[:-1]), domain[-1]
    rows_each, _ = reader.take(2)
    starts = range(0, rows, rows_each)

    def fold(instr: Instr, x: Array) -> Array:
        matrix = x.reshape(rows, columns)
        chunks = [
            interpreter_math.reduce_rows(instr.op, instr.dtype, matrix[i : i + rows_each])
            for i in starts
        ]
        return np.reshape(chunks, (len(starts), columns)).astype(instr.dtype, copy=False)

    inputs = [reader.place(i.dtype, kernel.outer) for i in kernel.inputs]
    for result in _evaluate(kernel, domain, inputs, fold):
        reader.array(result.dtype.name, len(starts), columns)[...] = result


def _extents(domain: Shape, column: str) -> Shape:
    """The domain, as an operand with one value for a row has it where column is "same"."""
    return (*domain[:-1], 1) if column == "same" else domain


def _evaluate(
    kernel: Rows | Columns, domain: Shape, places: Sequence[_Place], fold: Fold
) -> list[Array]:
    """The values of the outputs, none of them a view of an operand."""
    last_use = {a: i for i, instr in enumerate(kernel.instrs) for a in instr.args}
    last_use.update((output.instr, len(kernel.instrs)) for output in kernel.outputs)
    values: dict[int, Array] = {}
    for i, instr in enumerate(kernel.instrs):
        args = [values[a] for a in instr.args]
        if instr.op in REDUCTIONS:
            values[i] = fold(instr, np.broadcast_to(args[0], domain))
        elif instr.op == "load":
            extents = _extents(domain, kernel.inputs[instr.value].column)
            values[i] = places[instr.value].view(extents)
        elif instr.op == "gather":
            values[i] = _gather(kernel.inputs[instr.value], places[instr.value], args[0], domain)
        elif instr.op == "const":
            values[i] = np.full((1,) * len(domain), instr.value, ALL[instr.dtype].np)
        elif instr.op == "col":
            values[i] = np.arange(domain[-1]).reshape((1,) * (len(domain) - 1) + (-1,))
        elif instr.op == "row":
            values[i] = np.arange(prod(domain[:-1])).reshape(*domain[:-1], 1)
        else:
            values[i] = interpreter_math.apply(instr.op, instr.dtype, *args)
        for a in {i, *instr.args}:
            if last_use.get(a, i) <= i:
                del values[a]
    return [values[output.instr].copy() for output in kernel.outputs]


def _gather(input: Input, place: _Place, rows: Array, domain: Shape) -> Array:
    """The input's values in the given rows, which are int64 (outer..., 1 or columns)."""
    columns = _extents(domain, input.column)[-1]
    if not rows.size or not columns:
        return np.empty(np.broadcast_shapes(rows.shape, (columns,)), ALL[place.dtype].np)
    low, high = int(rows.min()), int(rows.max())
    step = place.strides[0]
    start = place.address + low * step * ALL[place.dtype].itemsize
    table = view(start, place.dtype, (high - low + 1, columns), (step, place.column))
    return np.asarray(table[rows - low, np.arange(columns)])


# Matrix products ---------------------------------------------------------------------------------


def _pack(kernel: Pack, args: Sequence[int]) -> None:
    reader = _Reader(args)
    b0, b1, k, n, _ = reader.take(5)
    matrix = reader.array(kernel.dtype, b0, b1, k, n)
    address, strides = reader.one(), reader.take(2)
    padded = np.zeros((b0, b1, k, -(-n // kernel.width) * kernel.width), kernel.dtype)
    padded[..., :n] = matrix
    for start, block in _packed_blocks(address, strides, kernel.dtype, kernel.width, padded.shape):
        rows = padded[:, :, start : start + block.shape[2]]
        block[...] = rows.reshape(block.shape)


def _packed_blocks(
    address: int, strides: Shape, dtype: str, width: int, shape: Shape
) -> Iterator[tuple[int, Array]]:
    """The blocks of packed matrices (B0, B1, K, N), N a multiple of width: for each the row where
    it starts, and its memory seen as (B0, B1, rows, panels, width)."""
    b0, b1, k, n = shape
    for start in range(0, k, KC):
        rows = min(KC, k - start)
        begin = address + start * n * ALL[dtype].itemsize
        extents = b0, b1, rows, n // width, width
        yield start, view(begin, dtype, extents, (*strides, width, rows * width, 1))


def _matmul(kernel: Matmul, args: Sequence[int], target: Processor) -> None:
    reader = _Reader(args)
    b0, b1, m, n, k, _, _ = reader.take(7)
    a = reader.array(kernel.dtype, b0, b1, m, k)
    address, strides = reader.one(), reader.take(2)
    c = view(reader.one(), kernel.dtype, (b0, b1, m, n), (*reader.take(3), 1))
    width = target.tile(kernel.dtype)[1]
    # A matrix that a whole batch axis shares is unpacked once.
    batch = [n if stride else 1 for n, stride in zip((b0, b1), strides, strict=True)]
    packed = (*batch, k, -(-n // width) * width)
    total = c.copy() if kernel.accumulate else np.zeros(c.shape, c.dtype)
    for start, block in _packed_blocks(address, strides, kernel.dtype, width, packed):
        stop = start + block.shape[2]
        total += a[..., start:stop] @ block.reshape(*batch, stop - start, packed[-1])[..., :n]
    c[...] = total


# Attention ---------------------------------------------------------------------------------------


def _attention(kernel: Attention, args: Sequence[int]) -> None:
    reader = _Reader(args)
    b, h, t, s, d_k, d_v = reader.take(6)
    q = reader.array(kernel.dtype, b, h, t, d_k)
    k = reader.array(kernel.dtype, b, h, s, d_k)
    v = reader.array(kernel.dtype, b, h, s, d_v)
    out = reader.array(kernel.dtype, b, h, t, d_v)
    out[...] = _weights(kernel, q, k, _mask(kernel, reader, (b, h, t, s))) @ v


def _attention_grad(kernel: AttentionGrad, args: Sequence[int]) -> None:
    reader = _Reader(args)
    b, h, t, s, d_k, d_v = reader.take(6)
    q = reader.array(kernel.dtype, b, h, t, d_k)
    k = reader.array(kernel.dtype, b, h, s, d_k)
    v = reader.array(kernel.dtype, b, h, s, d_v)
    g = reader.array(kernel.dtype, b, h, t, d_v)
    dq = reader.array(kernel.dtype, b, h, t, d_k)
    dk = reader.array(kernel.dtype, b, h, s, d_k)
    dv = reader.array(kernel.dtype, b, h, s, d_v)
    p = _weights(kernel, q, k, _mask(kernel, reader, (b, h, t, s)))
    dp = g @ v.swapaxes(-1, -2)
    ds = p * (dp - np.sum(dp * p, axis=-1, keepdims=True))
    grads = ds @ k * kernel.scale, ds.swapaxes(-1, -2) @ (q * kernel.scale), p.swapaxes(-1, -2) @ g
    for place, grad in zip((dq, dk, dv), grads, strict=True):
        place[...] = grad


def _mask(kernel: Attention | AttentionGrad, reader: _Reader, shape: Shape) -> Array | None:
    if kernel.mask == "none":
        return None
    return reader.array("bool" if kernel.mask == "bool" else kernel.dtype, *shape)


def _weights(kernel: Attention | AttentionGrad, q: Array, k: Array, mask: Array | None) -> Array:
    """softmax(scale q k^T + mask) over keys. A row that a boolean mask leaves no key is zero; other
    rows of -inf are NaN, as softmax says."""
    scores = (q * kernel.scale) @ k.swapaxes(-1, -2)
    if mask is not None:
        additive = kernel.mask == "float"
        scores = scores + mask if additive else np.where(mask, scores, -np.inf)
    if kernel.causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
    top = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    empty = (top == -np.inf) & (kernel.mask == "bool")
    e = np.exp(scores - np.where(empty, 0, top))
    return np.asarray(e / np.where(empty, 1, np.sum(e, axis=-1, keepdims=True)))


# Moves -------------------------------------------------------------------------------------------


def _keep(kernel: Keep, args: Sequence[int]) -> None:
    count, _, key, stream, mask = args
    seed, number = (int(view(address, "int64", (), ())) for address in (key, stream))
    p = kernel.threshold * numpy_random.UNIT
    view(mask, "bool", (count,), (1,))[...] = numpy_random.bernoulli_keep(seed, number, p, (count,))


def _index(kernel: Index, args: Sequence[int]) -> None:
    count, _, size, skipped, address, stride, out, report = args
    given = view(address, kernel.dtype, (count,), (stride,)).astype(np.int64)
    index = np.where((given < 0) & kernel.wrap, given + size, given)
    if kernel.skip:
        index[given == skipped] = 0
    outside = (index < 0) | (index >= size)
    if kernel.skip:
        outside &= given != skipped
    if outside.any():
        view(report, "int64", (2,), (1,))[...] = 1, given[outside.argmax()]
    view(out, "int64", (count,), (1,))[...] = np.where(outside, 0, index)


def _scatter_add(kernel: ScatterAdd, args: Sequence[int]) -> None:
    count, columns, _, indices, value, value_stride, out, out_stride = args
    index = view(indices, "int64", (count,), (1,))
    added = view(value, kernel.dtype, (count, columns), (value_stride, 1))
    if count:
        rows = int(index.max()) + 1
        np.add.at(view(out, kernel.dtype, (rows, columns), (out_stride, 1)), index, added)
