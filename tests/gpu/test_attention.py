"""Attention and its gradients as a GPU computes them, run by the simulator: against NumPy in
float64 and the interpreter, with every mask; what is not read, and what changes no bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from attention_case import Array, AttentionCase, documents, outputs, place, some
from simulator import guarded
from simulator.machine import Machine, code

from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.gpu import writers
from tinygrad_tx.backends.kernels import interpreter
from tinygrad_tx.backends.kernels.kinds import (
    Attention,
    AttentionKeyGrad,
    AttentionQueryGrad,
    Kernel,
)
from tinygrad_tx.dtypes import ALL

TOLERANCE = {"float32": 2e-5, "float64": 1e-13, "float16": 2e-3, "bfloat16": 2e-2, "tf32": 2e-3}

KEY, STREAM = np.array(-3), np.array(1 << 40)


class Case(AttentionCase):
    """On the simulator, with each operand between pages without access. seed: of the order of
    threads; None: by the interpreter. tf32: as of the kernels, and dropout, whose numbers are drawn
    by `drawn`."""

    seed: int | None = 0
    tf32 = False
    dropout = 0.0

    def __init__(self, *sizes: Any, **more: Any) -> None:
        super().__init__(*sizes, **more)
        self.q, self.k, self.v, self.g = map(guarded.moved, (self.q, self.k, self.v, self.g))
        self.mask = None if self.mask is None else guarded.moved(self.mask)

    def _run(self, kernel: Kernel, args: Sequence[int]) -> None:
        if self.seed is None:
            interpreter.run(kernel, args, Processor("plain", 16))
            return
        words = np.array(args, np.int64)
        chosen = writers.choose(kernel, args)
        made = code(kernel, chosen.form, chosen.threads)
        Machine(self.seed).launch(made, chosen.blocks, words.ctypes.data)

    @property
    def _computed(self) -> str:
        return "float32" if ALL[self.dtype].is_half else self.dtype

    def _rows(self) -> Array:
        b, h, t, *_ = self.sizes
        return guarded.empty((b, h, t), self._computed)

    @property
    def _masks(self) -> list[Array]:
        return [] if self.mask is None else [self.mask]

    @property
    def _drawn(self) -> list[int]:
        """The places of the key and of the stream's number."""
        return [KEY.ctypes.data, STREAM.ctypes.data] if self.dropout else []

    def run(self) -> tuple[Array, Array]:
        """The output, and the statistics."""
        b, h, t, _, _, d_v, _ = self.sizes
        (out,) = map(guarded.moved, outputs(self.dtype, (b, h, t, d_v)))
        form = self._computed, self.scale, self.kind, self.causal
        kernel = Attention(*form, self.dtype, True, self.dropout, self.tf32)
        statistics = self._rows()
        operands = place(self.q, self.k, self.v, out, *self._masks)
        self._run(kernel, [*self.sizes, *operands, statistics.ctypes.data, *self._drawn])
        return out, statistics

    def run_grads(self) -> list[Array]:
        """By q, k, v and, where a mask is added, by that of each head."""
        out, statistics = self.run()
        delta = self._rows()
        made = outputs(self.dtype, *(x.shape for x in (self.q, self.k, self.v)))
        dq, dk, dv = map(guarded.moved, made)
        added = []
        if self.added:
            b, h, t, s, *_ = self.sizes
            added.append(guarded.empty((b, h, t, s), ALL[self.dtype].np))
        form = self._computed, self.scale, self.kind, self.causal
        rows = statistics.ctypes.data, delta.ctypes.data
        operands = place(self.q, self.k, self.v, out, self.g, dq)
        args = [*self.sizes, *operands, *rows, *place(*self._masks, *added)]
        more = self.dtype, self.dropout, self.tf32
        self._run(AttentionQueryGrad(*form, self.added, *more), [*args, *self._drawn])
        operands = place(self.q, self.k, self.v, self.g, dk, dv)
        args = [*self.sizes, *operands, *rows, *place(*self._masks)]
        self._run(AttentionKeyGrad(*form, *more), [*args, *self._drawn])
        return [dq, dk, dv, *added]

    def every(self) -> list[Array]:
        """All that the kernels write."""
        return [*self.run(), *self.run_grads()]

    def by_interpreter(self) -> list[Array]:
        self.seed = None
        found = self.every()
        self.seed = 0
        return found

    def check(self) -> None:
        """Against float64 and the interpreter; operands stay as they are."""
        before = [x.copy() for x in (self.q, self.k, self.v, self.g, *self._masks)]
        found = self.every()
        for x, y in zip((self.q, self.k, self.v, self.g, *self._masks), before, strict=True):
            np.testing.assert_array_equal(x, y)
        tolerance = TOLERANCE["tf32" if self.tf32 else self.dtype]
        for got, want in zip(found, self.by_interpreter(), strict=True):
            close(got, want, tolerance)
        if self.dropout:
            return  # the interpreter's test holds it to differences
        wanted = [self.reference(), *self.reference_grads()]
        for got, want in zip([found[0], *found[2:]], wanted, strict=True):
            close(got, want, tolerance)


def close(got: Array, want: Array, tolerance: float) -> None:
    """To the tolerance of the largest number, as sums round."""
    got, want = got.astype("d"), want.astype("d")
    largest = np.abs(want[np.isfinite(want)]).max(initial=1)
    np.testing.assert_allclose(got, want, tolerance, tolerance * largest, equal_nan=True)


SIZES = [
    (2, 2, 5, 7, 6, 3),
    (1, 2, 70, 130, 33, 32),
]
MORE_SIZES = [
    (1, 1, 1, 1, 1, 1),
    (2, 3, 1, 75, 16, 20),
    (1, 1, 130, 100, 40, 50),
    (1, 2, 64, 64, 64, 64),
    (1, 1, 17, 65, 128, 128),
    (1, 1, 63, 129, 256, 256),
    (1, 1, 3, 37, 70, 130),
    (1, 1, 35, 700, 12, 20),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_sizes(sizes: tuple[int, ...], causal: bool) -> None:
    Case(*sizes, "float32", causal=causal).check()  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", [*SIZES, *MORE_SIZES])
def test_more_sizes(sizes: tuple[int, ...], causal: bool, dtype: str) -> None:
    Case(*sizes, dtype, causal=causal).check()  # type: ignore[arg-type]


def masks(shape: str, t: int, s: int, dtype: str) -> list[Array]:
    """A boolean one, one that is added, and that one with its axes turned in memory."""
    extents = {"t": t, "s": s}
    mask = some(tuple(extents.get(n) or int(n) for n in shape.split()))
    added = np.random.default_rng(1).standard_normal(mask.shape).astype(dtype)
    return [mask, added, np.ascontiguousarray(added.swapaxes(-1, -2)).swapaxes(-1, -2)]


@pytest.mark.parametrize(("shape", "causal"), [("2 1 1 s", False), ("t s", True)])
def test_masks(shape: str, causal: bool) -> None:
    for mask in masks(shape, 20, 70, "float32"):
        Case(2, 3, 20, 70, 12, 9, "float32", mask, causal).check()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", [2, 70])
@pytest.mark.parametrize("shape", ["2 3 t s", "2 1 1 s", "t s", "1 3 t 1", "2 1 t s"])
def test_more_masks(shape: str, t: int, causal: bool, dtype: str) -> None:
    for mask in masks(shape, t, 130, dtype):
        Case(2, 3, t, 130, 12, 9, dtype, mask, causal).check()
        if shape in ("2 1 1 s", "t s"):
            Case(2, 6, t, 130, 12, 9, dtype, mask, causal, group=3).check()


@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys(causal: bool) -> None:
    Case(2, 6, 20, 70, 12, 9, "float32", None, causal, group=3).check()
    Case(2, 4, 20, 70, 12, 9, "float32", some((2, 4, 20, 70)), causal, group=2).check()


@pytest.mark.parametrize(
    ("t", "group", "causal", "dtype"),
    [
        (20, 1, False, "float32"),
        (75, 3, True, "float32"),
        *(
            pytest.param(t, group, causal, dtype, marks=pytest.mark.slow)
            for t, group in ((1, 1), (2, 3), (200, 1))
            for causal in (False, True)
            for dtype in ("float32", "float64")
        ),
    ],
)
def test_bounds(t: int, group: int, causal: bool, dtype: str) -> None:
    """Documents side by side, rows of single queries among them; then any bounds at all."""
    Case(2, 3, t, t, 12, 9, dtype, documents(2, t), causal, group).check()
    rng = np.random.default_rng(t)
    any_at_all = rng.integers(-3, 100, (2, 1, t, 2))  # also empty, and beyond the keys
    case = Case(2, 3, t, 80, 12, 9, dtype, any_at_all, causal, group)
    case.check()
    empty = np.maximum(any_at_all[..., 0], 0) >= np.minimum(any_at_all[..., 1], 80)
    out, statistics = case.run()
    empty = np.broadcast_to(empty, (2, 3, t))
    assert (out[empty] == 0).all() and np.isposinf(statistics[empty]).all()


@pytest.mark.parametrize("keys", [70, 72])
@pytest.mark.parametrize("queries", [20, 70])
def test_dropout(queries: int, keys: int) -> None:
    """Of the same words as a DropoutMask's, wherever counters begin."""
    case = Case(2, 2, queries, keys, 12, 9, "float32")
    case.dropout = 0.3
    case.check()


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.1, 1.0])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "tf32"])
@pytest.mark.parametrize("keys", [129, 132])
def test_dropout_everywhere(keys: int, dtype: str, dropout: float) -> None:
    for mask, width in ((None, 32), (some((150, keys)), 64), (documents(2, 150), 12)):
        case = on_tensor_cores(dtype, 2, 2, 150, keys, width, width, mask=mask, group=2)
        case.dropout, case.scale = dropout, 0.125
        case.check()


# Tensor cores ------------------------------------------------------------------------------------


def on_tensor_cores(dtype: str, *sizes: int, **how: Any) -> Case:
    """dtype: "tf32" as well."""
    case = Case(*sizes, "float32" if dtype == "tf32" else dtype, **how)  # type: ignore[arg-type]
    case.tf32 = dtype == "tf32"
    return case


def uses_tensor_cores(case: Case) -> bool:
    args = [*case.sizes, *place(case.q, case.k, case.v, case.q)]
    kernel = Attention(case._computed, case.scale, "none", False, case.dtype, tf32=case.tf32)
    return writers.choose(kernel, args).form.layout is not None


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "dtype", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16", "tf32"]
)
def test_on_tensor_cores(dtype: str) -> None:
    """Against the interpreter and float64; statistics are of float32."""
    case = on_tensor_cores(dtype, 1, 2, 70, 130, 32, 32, causal=dtype != "tf32")
    assert uses_tensor_cores(case)
    case.check()
    assert case.run()[1].dtype == np.float32
    found = case.every()
    case.seed = 7
    for got, want in zip(case.every(), found, strict=True):
        np.testing.assert_array_equal(got, want)


WIDE = [(32, 64), (64, 64), (40, 56), (128, 128), (100, 30), (130, 20)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "tf32"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("widths", WIDE)
def test_widths_on_tensor_cores(widths: tuple[int, int], causal: bool, dtype: str) -> None:
    case = on_tensor_cores(dtype, 1, 2, 150, 130, *widths, causal=causal, group=2)
    case.scale = 0.125
    assert uses_tensor_cores(case) == (max(widths) <= 128)
    case.check()


@pytest.mark.parametrize("width", [24, 20, 18, 17])
def test_rows_on_tensor_cores_of_any_alignment(width: int) -> None:
    """Copied by 16, 8 and 4 bytes, and element by element."""
    case = on_tensor_cores("bfloat16", 1, 3, 20, 40, width, width)
    out, statistics = case.run()
    for got, want in zip((out, statistics), case.by_interpreter(), strict=False):
        close(got, want, TOLERANCE["bfloat16"])


@pytest.mark.slow
@pytest.mark.parametrize("width", [24, 20, 18, 17])
@pytest.mark.parametrize("dtype", ["float16", "tf32"])
def test_gradients_of_rows_of_any_alignment(width: int, dtype: str) -> None:
    on_tensor_cores(dtype, 2, 3, 70, 40, width, width, causal=True).check()
    on_tensor_cores(dtype, 2, 3, 70, 40, width, width + 1).check()


def test_masks_on_tensor_cores() -> None:
    added = masks("t s", 70, 130, "float32")[1].astype(ALL["bfloat16"].np)
    on_tensor_cores("bfloat16", 2, 2, 70, 130, 32, 32, mask=added, causal=True).check()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 32), ("bfloat16", 64), ("tf32", 32)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("number", range(5))
def test_more_masks_on_tensor_cores(number: int, causal: bool, dtype: str, width: int) -> None:
    stored = ALL["float32" if dtype == "tf32" else dtype].np
    some_keys, added, turned = masks("t s", 150, 130, "float32")
    mask = (
        some_keys,
        masks("2 1 1 s", 150, 130, "float32")[0],
        added.astype(stored),
        turned.astype(stored),
        np.random.default_rng(1).integers(-3, 160, (2, 1, 150, 2)),
    )[number]
    case = on_tensor_cores(dtype, 2, 2, 150, 130, width, width, mask=mask, causal=causal, group=2)
    case.scale = 0.125
    case.check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bool", "float", "bounds"])
def test_padding_on_tensor_cores_changes_no_bit(kind: str) -> None:
    padded(kind, "bfloat16")


def test_rows_without_a_key() -> None:
    """A boolean mask makes them zero, an added one NaN, as everywhere."""
    mask = some((1, 1, 20, 70))
    mask[:, :, [0, 7, 19]] = False
    case = Case(2, 3, 20, 70, 12, 9, "float32", mask)
    case.check()
    assert (case.run()[0][:, :, 7] == 0).all() and (case.run_grads()[0][:, :, 7] == 0).all()
    added = np.where(mask, 0, -np.inf).astype("float32")
    case = Case(2, 3, 20, 70, 12, 9, "float32", added)
    for got, want in zip(case.every(), case.by_interpreter(), strict=True):
        close(got, want, 2e-5)
    out = case.run()[0]
    assert np.isnan(out[:, :, [0, 7, 19]]).all() and np.isfinite(out[:, :, 1:7]).all()


def test_not_a_number_and_infinity_in_an_added_mask() -> None:
    added = np.zeros((20, 70), "float32")
    added[3, 5], added[4, 69], added[5, :64], added[6, 1:] = np.nan, np.nan, -np.inf, -np.inf
    added[8, 2] = np.inf
    case = Case(1, 2, 20, 70, 12, 9, "float32", added)
    out, statistics = case.run()
    for got, want in zip((out, statistics), case.by_interpreter(), strict=False):
        close(got, want, 2e-5)
    wrong = np.isnan(out).any((0, 1, 3))
    np.testing.assert_array_equal(np.flatnonzero(wrong), [3, 4, 8])


def test_the_order_of_threads_and_what_is_beside_change_no_bit() -> None:
    for mask in (None, some((3, 1, 20, 70)), documents(3, 20) * 3):
        case = Case(3, 2, 20, 70, 12, 9, "float32", mask, causal=mask is None)
        found = case.every()
        case.seed = 5
        for got, want in zip(case.every(), found, strict=True):
            np.testing.assert_array_equal(got, want)
        alone = Case(
            1, 2, 20, 70, 12, 9, "float32", None if mask is None else mask[1:2], mask is None
        )
        for name in ("q", "k", "v", "g"):
            setattr(alone, name, getattr(case, name)[1:2])
        for got, want in zip(alone.every(), found, strict=True):
            np.testing.assert_array_equal(got, want[1:2])


def test_how_many_queries_there_are_changes_no_bit_of_theirs() -> None:
    """Tiles of 16 and of 64 queries compute each one alike."""
    many = Case(1, 2, 70, 70, 12, 9, "float32")
    few = Case(1, 2, 9, 70, 12, 9, "float32")
    few.q, few.g, few.k, few.v = many.q[:, :, :9], many.g[:, :, :9], many.k, many.v
    for got, want in zip(
        [*few.run(), few.run_grads()[0]], [*many.run(), many.run_grads()[0]], strict=True
    ):
        np.testing.assert_array_equal(got, want[:, :, :9])


def padded(kind: str, dtype: str) -> None:
    """Masked keys behind the others, and queries without a gradient behind many others, change no
    bit of these."""
    t, s, more = 20, 30, 60

    def mask(keys: int) -> Array:
        inside = np.arange(keys) < s
        if kind == "bounds":
            return np.array([0, s])
        return inside if kind == "bool" else np.where(inside, 0, -np.inf).astype(ALL[dtype].np)

    short, long = (Case(2, 2, t + n, s + n, 16, 24, dtype, mask(s + n)) for n in (0, more))
    for name, n in (("q", t), ("k", s), ("v", s), ("g", t)):
        getattr(long, name)[:, :, :n] = getattr(short, name)
    long.g[:, :, t:] = 0
    for got, want in zip(long.run(), short.run(), strict=True):
        np.testing.assert_array_equal(got[:, :, :t], want)
    for got, want in zip(long.run_grads()[:3], short.run_grads()[:3], strict=True):
        np.testing.assert_array_equal(got[:, :, : want.shape[2]], want)
        assert (got[:, :, want.shape[2] :] == 0).all()


@pytest.mark.parametrize("kind", ["bool", "float", "bounds"])
def test_padding_changes_no_bit(kind: str) -> None:
    padded(kind, "float32")


def test_causal_is_the_mask_of_its_triangle() -> None:
    """Skipping what lies above the diagonal changes no bit."""
    causal = Case(1, 2, 75, 75, 16, 24, "float32", causal=True)
    masked = Case(1, 2, 75, 75, 16, 24, "float32", np.tri(75, dtype=bool))
    for got, want in zip(causal.every(), masked.every(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_tiles_that_nobody_sees_are_not_read() -> None:
    """Of keys, and for gradients by keys, of queries."""
    bounds = np.zeros((1, 1, 128, 2), np.int64)
    bounds[:, :, :64], bounds[:, :, 64:] = (0, 64), (192, 256)
    inside = (np.arange(256) >= bounds[..., :1]) & (np.arange(256) < bounds[..., 1:])
    for mask in (bounds, inside):
        case = Case(1, 2, 128, 256, 12, 9, "float32", mask)
        case.k[:, :, 64:192] = case.v[:, :, 64:192] = np.nan
        found = case.every()
        assert all(np.isfinite(x).all() for x in found)
        case.k[:, :, 64:192] = case.v[:, :, 64:192] = 0
        for got, want in zip(found, case.every(), strict=True):
            np.testing.assert_array_equal(got, want)
    case = Case(1, 1, 64, 128, 12, 9, "float32", causal=True)
    case.k[:, :, 64:] = np.nan
    assert np.isfinite(case.run()[0]).all()


def test_operands_may_be_shared_by_batches_and_lie_anywhere() -> None:
    case = Case(3, 2, 10, 12, 8, 8, "float32")
    case.q = np.broadcast_to(case.q[:1], case.q.shape)
    case.v = np.broadcast_to(case.v[:, :1], case.v.shape)
    case.check()
    together = np.random.default_rng(3).standard_normal((3, 10, 3 * 16 + 1)).astype("float32")
    q, k, v = (
        together[..., 1 + i * 16 :][..., :16].reshape(3, 10, 2, 8).transpose(0, 2, 1, 3)
        for i in range(3)
    )
    case = Case(3, 2, 10, 10, 8, 8, "float32", causal=True)
    case.q, case.k, case.v = q, k, v
    case.check()


def test_without_a_query_the_gradients_are_zero() -> None:
    _, dk, dv = Case(1, 2, 0, 12, 8, 8, "float32").run_grads()
    assert (dk == 0).all() and (dv == 0).all()


def test_heads_that_are_too_wide_are_refused() -> None:
    case = Case(1, 1, 4, 4, 257, 8, "float32")
    with pytest.raises(ValueError, match="256 columns, not 257"):
        case.run()
