"""Kernels in NumPy: the oracle of native code, and its substitute where llvmlite is missing.

In: a Kernel, and the words of a call's arguments. Out: nothing; the memory that they point to is
written as all tasks of the call would write it. Called by cpu/target.py and by the tests. Operands
are NumPy views of raw memory; a whole kernel is computed before anything is written, so that an
output may alias an input. Sums have a fixed order, but not the one of native code: results agree to
rounding, and bit for bit where nothing is rounded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...dtypes import ALL
from ..arrays import numpy_random
from . import interpreter_math
from .arguments import (
    AttentionKeyGradArgs,
    AttentionQueryGradArgs,
    GemmArgs,
    Matrix,
    Packed,
    RowOperand,
    RowProgramArgs,
    read,
)
from .instructions import REDUCTIONS, Instr
from .kinds import (
    Attention,
    AttentionGrad,
    AttentionKeyGrad,
    AttentionQueryGrad,
    CheckIndex,
    ColumnReduce,
    DropoutMask,
    Gemm,
    GemmEpilogue,
    Input,
    Kernel,
    Matmul,
    Pack,
    RowProgram,
    ScatterAdd,
    Weighted,
    dropout_factor,
)
from .summation import KC

Array = NDArray[Any]
Shape = tuple[int, ...]


class Tiles(Protocol):
    """A machine, as far as the interpreter asks it."""

    def tile(self, dtype: str) -> tuple[int, int]:
        """Rows and columns of the product's register tile; a packed panel has as many columns."""


def inside(kernel: Kernel, words: Sequence[int], machine: Tiles | None = None) -> bool:
    """All tasks of a call, as run(); False where it was a check of indices, and one was outside."""
    run(kernel, words, machine)
    if not isinstance(kernel, CheckIndex):
        return True
    return not ctypes.c_int64.from_address(words[kernel.layout.report]).value


def run(kernel: Kernel, words: Sequence[int], machine: Tiles | None = None) -> None:
    """All tasks of a call. machine: says how packed matrices are laid out, where there are any."""
    with np.errstate(all="ignore"):
        match kernel:
            case RowProgram():
                _row_program(kernel, read(kernel.layout, words))
            case ColumnReduce():
                _column_reduce(kernel, words)
            case Pack():
                _pack(kernel, words)
            case Matmul():
                assert machine is not None
                _matmul(kernel, words, machine)
            case Gemm():
                _gemm(kernel, read(kernel.layout, words))
            case GemmEpilogue():
                _gemm_epilogue(kernel, words)
            case Attention():
                _attention(kernel, words)
            case AttentionGrad():
                _attention_grad(kernel, words)
            case AttentionQueryGrad():
                _attention_query_grad(kernel, words)
            case AttentionKeyGrad():
                _attention_key_grad(kernel, words)
            case DropoutMask():
                _dropout_mask(kernel, words)
            case CheckIndex():
                _check_index(kernel, words)
            case ScatterAdd():
                _scatter_add(kernel, words)
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


def _along(operand: RowOperand[int], dtype: str, domain: Shape) -> Array:
    """An operand of a row program."""
    return view(operand.place, dtype, domain, (*operand.outer, operand.column))


def _matrix(operand: Matrix[int], dtype: str, *shape: int) -> Array:
    return view(operand.place, dtype, shape, operand[1:])


# Row programs ------------------------------------------------------------------------------------

Fold = Callable[[Instr, Array], Array]  # a reduction of what has the whole domain's shape


def _row_program(kernel: RowProgram, args: RowProgramArgs[int]) -> None:
    domain = *args.outer, args.columns
    results = _evaluate(
        kernel,
        domain,
        args.inputs,
        lambda instr, x: interpreter_math.reduce_columns(instr.op, instr.dtype, x),
    )
    for output, operand, result in zip(kernel.outputs, args.outputs, results, strict=True):
        if operand.at is not None:
            position = int(view(args.inputs[output.at].place, "int64", (), ()))
            moved = position * operand.at * result.dtype.itemsize
            operand = operand._replace(place=operand.place + moved)
        _along(operand, result.dtype.name, _extents(domain, output.column))[...] = result


def _column_reduce(kernel: ColumnReduce, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    domain = *args.outer, args.columns
    rows, columns, rows_each = prod(args.outer), args.columns, args.rows_per_task
    starts = range(0, rows, rows_each)

    def fold(instr: Instr, x: Array) -> Array:
        matrix = x.reshape(rows, columns)
        chunks = [
            interpreter_math.reduce_rows(instr.op, instr.dtype, matrix[i : i + rows_each])
            for i in starts
        ]
        return np.reshape(chunks, (len(starts), columns)).astype(instr.dtype, copy=False)

    results = _evaluate(kernel, domain, args.inputs, fold)
    for (place, *strides), result in zip(args.outputs, results, strict=True):
        view(place, result.dtype.name, result.shape, strides)[...] = result


def _extents(domain: Shape, column: str) -> Shape:
    """The extents of an operand over the domain: one column where its column stride is "same"."""
    return (*domain[:-1], 1) if column == "same" else domain


def _evaluate(
    kernel: RowProgram | ColumnReduce,
    domain: Shape,
    operands: Sequence[RowOperand[int]],
    fold: Fold,
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
            given = kernel.inputs[instr.value]
            extents = _extents(domain, given.column)
            values[i] = _along(operands[instr.value], given.dtype, extents)
        elif instr.op == "gather":
            values[i] = _gather(kernel.inputs[instr.value], operands[instr.value], args[0], domain)
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


def _gather(input: Input, operand: RowOperand[int], rows: Array, domain: Shape) -> Array:
    """The input's values in the given rows, which are int64 (outer..., 1 or columns)."""
    columns, dtype = _extents(domain, input.column)[-1], ALL[input.dtype]
    if not rows.size or not columns:
        return np.empty(np.broadcast_shapes(rows.shape, (columns,)), dtype.np)
    low, high = int(rows.min()), int(rows.max())
    step = operand.outer[0]
    start = operand.place + low * step * dtype.itemsize
    table = view(start, input.dtype, (high - low + 1, columns), (step, operand.column))
    return np.asarray(table[rows - low, np.arange(columns)])


# Matrix products ---------------------------------------------------------------------------------


def _pack(kernel: Pack, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    b0, b1, k, n = args.b0, args.b1, args.k, args.n
    matrix = _matrix(args.b, kernel.source, b0, b1, k, n)
    if kernel.rounded:
        matrix = matrix.astype(ALL[kernel.rounded].np)
    padded = np.zeros((b0, b1, k, -(-n // kernel.width) * kernel.width), kernel.dtype)
    padded[..., :n] = matrix
    for start, block in _packed_blocks(args.packed, kernel.dtype, kernel.width, padded.shape):
        rows = padded[:, :, start : start + block.shape[2]]
        block[...] = rows.reshape(block.shape)


def _packed_blocks(
    packed: Packed[int], dtype: str, width: int, shape: Shape
) -> Iterator[tuple[int, Array]]:
    """The blocks of packed matrices (B0, B1, K, N), N a multiple of width: for each the row where
    it starts, and its memory seen as (B0, B1, rows, panels, width)."""
    b0, b1, k, n = shape
    for start in range(0, k, KC):
        rows = min(KC, k - start)
        begin = packed.place + start * n * ALL[dtype].itemsize
        extents = b0, b1, rows, n // width, width
        strides = packed.b0, packed.b1, width, rows * width, 1
        yield start, view(begin, dtype, extents, strides)


def _matmul(kernel: Matmul, words: Sequence[int], machine: Tiles) -> None:
    args = read(kernel.layout, words)
    b0, b1, m, n, k = args.b0, args.b1, args.m, args.n, args.k
    a = _matrix(args.a, kernel.left, b0, b1, m, k).astype(kernel.dtype, copy=False)
    c = _matrix(Matrix(*args.c, column=1), kernel.out, b0, b1, m, n)
    width = machine.tile(kernel.dtype)[1]
    # A matrix that a whole batch axis shares is unpacked once.
    batch = [b0 if args.b.b0 else 1, b1 if args.b.b1 else 1]
    packed = (*batch, k, -(-n // width) * width)
    total = c.copy() if kernel.accumulate else np.zeros(c.shape, kernel.dtype)
    for start, block in _packed_blocks(args.b, kernel.dtype, width, packed):
        stop = start + block.shape[2]
        total += a[..., start:stop] @ block.reshape(*batch, stop - start, packed[-1])[..., :n]
    c[...] = total


def _gemm(kernel: Gemm, args: GemmArgs[int]) -> None:
    b0, b1, m, n, k = args.b0, args.b1, args.m, args.n, args.k
    a = _matrix(args.a, kernel.dtype, b0, b1, m, k).astype(kernel.sums)
    b = _matrix(args.b, kernel.dtype, b0, b1, k, n).astype(kernel.sums)
    if kernel.tf32:
        a, b = interpreter_math.tf32(a), interpreter_math.tf32(b)
    c = _matrix(Matrix(*args.c, column=1), kernel.out, b0, b1, m, n)
    total = np.array(c if kernel.accumulate else np.zeros_like(c), kernel.sums)
    for start in range(0, k, KC):
        total += a[..., start : start + KC] @ b[..., start : start + KC, :]
    c[...] = total


def _gemm_epilogue(kernel: GemmEpilogue, words: Sequence[int]) -> None:
    """c lies in memory of its own where it is not kept, with the same strides."""
    args = read(kernel.layout, words)
    product, inputs = args.product, list(args.program.inputs)
    if not kernel.keep:
        c, dtype = product.c, kernel.product.out
        ends = (product.b0 - 1) * c.b0, (product.b1 - 1) * c.b1, (product.m - 1) * c.row, product.n
        memory = np.zeros(sum(ends), ALL[dtype].np)
        if kernel.product.accumulate:
            memory[...] = view(c.place, dtype, memory.shape, (1,))
        product = product._replace(c=c._replace(place=memory.ctypes.data))
    _gemm(kernel.product, product)
    inputs[kernel.c] = inputs[kernel.c]._replace(place=product.c.place)
    _row_program(kernel.program, args.program._replace(inputs=tuple(inputs)))


# Attention ---------------------------------------------------------------------------------------


def _attention(kernel: Attention, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    q, k, v = _operands(kernel, args)
    queries = args.b, args.h, args.t
    scores, top = _scores(kernel, q, k, _mask(kernel, args.mask, *queries, args.s))
    e = np.exp(scores - top)
    total = np.sum(e, axis=-1, keepdims=True)
    empty = (total == 0) & (kernel.mask in ("bool", "bounds"))
    weights = _dropped(kernel, args, e / np.where(empty, 1, total))
    if args.statistics is not None:
        found = np.where(empty, np.inf, top + np.log(total))
        _statistics(kernel, args.statistics, queries)[...] = found[..., 0]
    _matrix(args.out, kernel.stored, *queries, args.d_v)[...] = _times(kernel, weights, v)


def _attention_grad(kernel: AttentionGrad, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    q, k, v = _operands(kernel, args)
    queries = args.b, args.h, args.t
    g = _matrix(args.g, kernel.stored, *queries, args.d_v).astype(kernel.dtype)
    scores, top = _scores(kernel, q, k, _mask(kernel, args.mask, *queries, args.s))
    e = np.exp(scores - top)
    total = np.sum(e, axis=-1, keepdims=True)
    p = e / np.where((total == 0) & (kernel.mask in ("bool", "bounds")), 1, total)
    dp = g @ v.swapaxes(-1, -2)
    ds = p * (dp - np.sum(dp * p, axis=-1, keepdims=True))
    if args.dmask is not None:
        _matrix(args.dmask, kernel.stored, *queries, args.s)[...] = ds
    _matrix(args.dq, kernel.stored, *queries, args.d_k)[...] = ds @ k * kernel.scale
    _add_heads(kernel, args, args.dk, ds.swapaxes(-1, -2) @ (q * kernel.scale))
    _add_heads(kernel, args, args.dv, p.swapaxes(-1, -2) @ g)


def _attention_query_grad(kernel: AttentionQueryGrad, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    queries = args.b, args.h, args.t
    g, out = (
        _matrix(x, kernel.stored, *queries, args.d_v).astype(kernel.dtype)
        for x in (args.g, args.out)
    )
    delta = np.sum(g * out, axis=-1)
    _, k, _ = _operands(kernel, args)
    _, ds = _slopes(kernel, args, delta)
    _statistics(kernel, args.delta, queries)[...] = delta
    if args.dmask is not None:
        _matrix(args.dmask, kernel.stored, *queries, args.s)[...] = ds
    dq = _times(kernel, ds, k) * kernel.scale
    _matrix(args.dq, kernel.stored, *queries, args.d_k)[...] = dq


def _attention_key_grad(kernel: AttentionKeyGrad, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    queries = args.b, args.h, args.t
    q = _operands(kernel, args)[0]
    g = _matrix(args.g, kernel.stored, *queries, args.d_v).astype(kernel.dtype)
    weights, ds = _slopes(kernel, args, _statistics(kernel, args.delta, queries))
    dk = _times(kernel, ds.swapaxes(-1, -2), q) * q.dtype.type(kernel.scale)
    _add_heads(kernel, args, args.dk, dk)
    _add_heads(kernel, args, args.dv, _times(kernel, weights.swapaxes(-1, -2), g))


def _slopes(
    kernel: AttentionQueryGrad | AttentionKeyGrad,
    args: AttentionQueryGradArgs[int] | AttentionKeyGradArgs[int],
    delta: Array,
) -> tuple[Array, Array]:
    """The weights, with dropout, and the gradient by the scores."""
    q, k, v = _operands(kernel, args)
    queries = args.b, args.h, args.t
    g = _matrix(args.g, kernel.stored, *queries, args.d_v).astype(kernel.dtype)
    scores, _ = _scores(kernel, q, k, _mask(kernel, args.mask, *queries, args.s))
    p = np.exp(scores - _statistics(kernel, args.statistics, queries)[..., None])
    slopes = _dropped(kernel, args, _times(kernel, g, v.swapaxes(-1, -2)))
    return _dropped(kernel, args, p), p * (slopes - delta[..., None])


def _operands(kernel: Weighted, args: Any) -> tuple[Array, Array, Array]:
    """q, k and v in the dtype of sums; heads of keys and values as often as they serve."""
    keys = args.b, args.h // args.group, args.s
    q = _matrix(args.q, kernel.stored, args.b, args.h, args.t, args.d_k).astype(kernel.dtype)
    k = _matrix(args.k, kernel.stored, *keys, args.d_k).astype(kernel.dtype)
    v = _matrix(args.v, kernel.stored, *keys, args.d_v).astype(kernel.dtype)
    return q, k.repeat(args.group, 1), v.repeat(args.group, 1)


def _times(kernel: Weighted, a: Array, b: Array) -> Array:
    """The product of two matrices, rounded as the kernel says."""
    if not isinstance(kernel, AttentionGrad) and kernel.tf32:
        a, b = interpreter_math.tf32(a), interpreter_math.tf32(b)
    return np.asarray(a @ b)


def _add_heads(kernel: Weighted, args: Any, place: Matrix[int], grads: Array) -> None:
    """Write gradients of keys or values, those of the heads that share one added up."""
    heads, (s, d) = args.h // args.group, grads.shape[2:]
    total = grads.reshape(args.b, heads, args.group, s, d).sum(2)
    _matrix(place, kernel.stored, args.b, heads, s, d)[...] = total


def _statistics(kernel: Weighted, place: int, shape: Shape) -> Array:
    _, h, t = shape
    return view(place, kernel.dtype, shape, (h * t, t, 1))


def _mask(kernel: Weighted, mask: Matrix[int] | None, *shape: int) -> Array | None:
    if mask is None:
        return None
    if kernel.mask == "bounds":
        bounds, places = _matrix(mask, "int64", *shape[:-1], 2), np.arange(shape[-1])
        return np.asarray((places >= bounds[..., :1]) & (places < bounds[..., 1:]))
    return _matrix(mask, "bool" if kernel.mask == "bool" else kernel.stored, *shape)


def _scores(kernel: Weighted, q: Array, k: Array, mask: Array | None) -> tuple[Array, Array]:
    """scale q k^T + mask, -inf where a key takes no part, and each row's largest. A row that a
    boolean mask leaves no key has the largest 0, so that its exponentials are zero; those of other
    rows of -inf are NaN, as softmax says."""
    scores = _times(kernel, q, k.swapaxes(-1, -2)) * q.dtype.type(kernel.scale)
    if mask is not None:
        added = kernel.mask == "float"
        scores = scores + mask.astype(q.dtype) if added else np.where(mask, scores, -np.inf)
    if kernel.causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
    top = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    empty = (top == -np.inf) & (kernel.mask in ("bool", "bounds"))
    return scores, np.where(empty, 0, top).astype(q.dtype)


def _dropped(kernel: Any, args: Any, x: Array) -> Array:
    """x, of each weight, as dropout leaves it."""
    if not kernel.dropout:
        return x
    seed, number = (int(view(place, "int64", (), ())) for place in (args.key, args.stream))
    kept = numpy_random.bernoulli_keep(seed, number, kernel.dropout, x.shape)
    factor = x.dtype.type(dropout_factor(kernel.dropout))
    return np.asarray(np.where(kept, x * factor, x.dtype.type(0)))


# Moves -------------------------------------------------------------------------------------------


def _dropout_mask(kernel: DropoutMask, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    seed, number = (int(view(place, "int64", (), ())) for place in (args.key, args.stream))
    p, shape = kernel.threshold * numpy_random.UNIT, (args.elements,)
    kept = numpy_random.bernoulli_keep(seed, number, p, shape, 4 * (args.first or 0))
    view(args.mask, "bool", shape, (1,))[...] = kept


def _check_index(kernel: CheckIndex, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    given = view(args.given, kernel.dtype, (args.elements,), (args.stride,)).astype(np.int64)
    index = np.where((given < 0) & kernel.wrap, given + args.size, given)
    if kernel.skip:
        index[given == args.skipped] = 0
    outside = (index < 0) | (index >= args.size)
    if kernel.skip:
        outside &= given != args.skipped
    if outside.any():
        view(args.report, "int64", (2,), (1,))[...] = 1, given[outside.argmax()]
    view(args.safe, "int64", (args.elements,), (1,))[...] = np.where(outside, 0, index)


def _scatter_add(kernel: ScatterAdd, words: Sequence[int]) -> None:
    args = read(kernel.layout, words)
    entries = view(args.entries, "int64", (args.rows,), (1,))
    added = view(args.value, kernel.dtype, (args.rows, args.columns), (args.value_row, 1))
    if args.rows:
        shape = int(entries.max()) + 1, args.columns
        np.add.at(view(args.out, kernel.dtype, shape, (args.out_row, 1)), entries, added)
