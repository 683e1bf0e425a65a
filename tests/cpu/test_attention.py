"""Attention and its gradients against NumPy in float64: masks, strides, odd sizes, padding."""

from __future__ import annotations

from copy import copy

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from attention_case import Array, AttentionCase, documents, outputs, place, some
from native_case import run, targets

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu import jit
from tinygrad_tx.backends.cpu.attention import attention
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels.kinds import Attention, AttentionGrad
from tinygrad_tx.backends.llvm import ir
from tinygrad_tx.dtypes import ALL

each_target = pytest.mark.parametrize("target", targets(), ids=lambda t: t.name)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


class Case(AttentionCase):
    """On this processor. stored: the dtype of operands in memory."""

    stored = ""

    def stored_in(self, half: tx.DType) -> Case:
        """The same numbers, in 16 bits; here they are rounded to those."""
        other = copy(self)
        names = ("q", "k", "v", "g", *(("mask",) if self.added else ()))
        for name in names:
            setattr(other, name, getattr(self, name).astype(half.np))
            setattr(self, name, getattr(other, name).astype(self.dtype))
        other.stored = half.name
        return other

    def run(self, target: Processor) -> Array:
        b, h, t, _, _, d_v, _ = self.sizes
        (out,) = outputs(self.stored or self.dtype, (b, h, t, d_v))
        kernel = Attention(self.dtype, self.scale, self.kind, self.causal, self.stored)
        masks = [] if self.mask is None else [self.mask]
        run(kernel, [*self.sizes, *place(self.q, self.k, self.v, out, *masks)], target)
        return out

    def run_grads(self, target: Processor) -> list[Array]:
        """By q, k, v and, where a mask is added, by that of each head."""
        grads = outputs(self.stored or self.dtype, *(x.shape for x in (self.q, self.k, self.v)))
        how = (self.scale, self.kind, self.causal, self.added)
        kernel = AttentionGrad(self.dtype, *how, self.stored)
        masks = [] if self.mask is None else [self.mask]
        if self.added:
            b, h, t, s = self.sizes[:4]
            masks.append(np.full((b, h, t, s), np.nan, ALL[self.stored or self.dtype].np))
        operands = place(self.q, self.k, self.v, self.g, *grads, *masks)
        run(kernel, [*self.sizes, *operands], target)
        return [*grads, *masks[1:]]

    def check(self, target: Processor) -> None:
        tolerance = 2e-5 if self.dtype == "float32" else 1e-13
        for got, want in zip(
            [self.run(target), *self.run_grads(target)],
            [self.reference(), *self.reference_grads()],
            strict=True,
        ):
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.one_in(3)
@each_target
@each_dtype
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1, 1, 1, 1),
        (2, 2, 5, 7, 6, 3),
        (1, 2, 33, 70, 64, 32),
        (1, 1, 130, 100, 40, 50),
        (2, 3, 1, 75, 16, 20),
        (1, 2, 1, 64, 64, 64),
        (1, 1, 3, 37, 70, 130),
        (2, 1, 2, 16, 33, 5),
        (1, 1, 70, 2100, 12, 20),  # sums over keys in two parts
    ],
)
def test_sizes(target: Processor, dtype: str, sizes: tuple[int, ...], causal: bool) -> None:
    Case(*sizes, dtype, causal=causal).check(target)  # type: ignore[arg-type]


@pytest.mark.one_in(4)
@each_target
@each_dtype
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", [2, 20])
@pytest.mark.parametrize("shape", ["2 3 t s", "2 1 1 s", "t s", "1 3 t 1", "2 1 t s"])
def test_masks(target: Processor, dtype: str, shape: str, t: int, causal: bool) -> None:
    extents = {"t": t, "s": 37}
    mask = some(tuple(extents.get(n) or int(n) for n in shape.split()))
    Case(2, 3, t, 37, 12, 9, dtype, mask, causal).check(target)
    mask = np.random.default_rng(1).standard_normal(mask.shape).astype(dtype)
    Case(2, 3, t, 37, 12, 9, dtype, mask, causal).check(target)
    turned = np.ascontiguousarray(mask.swapaxes(-1, -2)).swapaxes(-1, -2)
    Case(2, 3, t, 37, 12, 9, dtype, turned, causal).check(target)


@each_target
@each_dtype
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", [1, 70])
@pytest.mark.parametrize("shape", ["", "2 6 t s", "2 1 1 s", "t s"])
def test_heads_that_share_keys(
    target: Processor, dtype: str, shape: str, t: int, causal: bool
) -> None:
    extents = {"t": t, "s": 37}
    mask = some(tuple(extents.get(n) or int(n) for n in shape.split())) if shape else None
    Case(2, 6, t, 37, 12, 9, dtype, mask, causal, group=3).check(target)
    if mask is not None:
        mask = np.random.default_rng(1).standard_normal(mask.shape).astype(dtype)
        Case(2, 6, t, 37, 12, 9, dtype, mask, causal, group=2).check(target)


@pytest.mark.one_in(2)
@each_target
@pytest.mark.parametrize(
    ("half", "kind", "causal"),
    [
        (tx.bfloat16, "none", True),
        (tx.bfloat16, "bool", False),
        (tx.bfloat16, "bounds", False),
        (tx.bfloat16, "float", True),
        (tx.float16, "float", False),
    ],
)
def test_operands_in_16_bits(target: Processor, half: tx.DType, kind: str, causal: bool) -> None:
    """The bits of float32's results, rounded once."""
    for *sizes, group in [
        (1, 1, 1, 1, 1, 1, 1),
        (2, 6, 1, 37, 12, 9, 3),
        (2, 6, 2, 70, 33, 40, 1),
        (2, 6, 75, 75, 20, 33, 2),
        (1, 2, 20, 130, 64, 64, 1),
    ]:
        b, _, t, s, *_ = sizes
        mask: Array | None = None
        if kind == "bool":
            mask = some((b, 1, t, s))
        elif kind == "float":
            mask = np.random.default_rng(1).standard_normal((1, 1, t, s)).astype("float32")
        elif kind == "bounds":
            mask = np.random.default_rng(2).integers(-3, s + 9, (b, 1, t, 2))
        case = Case(*sizes, "float32", mask, causal, group)  # type: ignore[arg-type]
        stored = case.stored_in(half)
        found = [stored.run(target), *stored.run_grads(target)]
        wanted = [case.run(target), *case.run_grads(target)]
        for got, want in zip(found, wanted, strict=True):
            assert got.dtype == half.np
            np.testing.assert_array_equal(got.astype("d"), want.astype(half.np).astype("d"))


@pytest.mark.one_in(2)
@each_target
@each_dtype
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("t", "group"), [(1, 1), (2, 3), (20, 1), (75, 3), (200, 1)])
def test_bounds(target: Processor, dtype: str, t: int, group: int, causal: bool) -> None:
    """Documents side by side, rows of single queries among them; then any bounds at all."""
    Case(2, 3, t, t, 12, 9, dtype, documents(2, t), causal, group).check(target)
    rng = np.random.default_rng(t)
    any_at_all = rng.integers(-3, 60, (2, 1, t, 2))  # also empty, and beyond the keys
    case = Case(2, 3, t, 40, 12, 9, dtype, any_at_all, causal, group)
    case.check(target)
    empty = np.maximum(any_at_all[..., 0], 0) >= np.minimum(any_at_all[..., 1], 40)
    assert (case.run(target)[np.broadcast_to(empty, (2, 3, t))] == 0).all()


@each_target
@each_dtype
def test_keys_out_of_bounds_are_not_read(target: Processor, dtype: str) -> None:
    """Of blocks and panels that no query's bounds reach."""
    half = 4 * target.tile(dtype)[0]  # whole blocks of queries
    bounds = np.zeros((1, 1, 2 * half, 2), np.int64)
    bounds[:, :, :half], bounds[:, :, half:] = (0, 32), (256, 300)
    case = Case(1, 2, 2 * half, 400, 12, 9, dtype, bounds)
    case.k[:, :, 64:192] = case.v[:, :, 64:192] = np.nan
    out = case.run(target)
    case.k[:, :, 64:192] = case.v[:, :, 64:192] = 0
    np.testing.assert_array_equal(out, case.run(target))


@each_target
@each_dtype
def test_rows_without_a_key(target: Processor, dtype: str) -> None:
    """A boolean mask makes them zero, an additive one NaN."""
    mask = some((1, 1, 20, 37))
    mask[:, :, [0, 7, 19]] = False
    case = Case(2, 3, 20, 37, 12, 9, dtype, mask)
    case.check(target)
    assert (case.run(target)[:, :, 7] == 0).all()
    assert (case.run_grads(target)[0][:, :, 7] == 0).all()
    added = np.where(mask, 0, -np.inf).astype(dtype)
    out = Case(2, 3, 20, 37, 12, 9, dtype, added).run(target)
    assert np.isnan(out[:, :, [0, 7, 19]]).all() and np.isfinite(out[:, :, 1:7]).all()
    # With causal as well: query 2 sees keys 0 to 2, and none is left of these.
    mask[:, :, 2, :3] = False
    case = Case(2, 3, 20, 37, 12, 9, dtype, mask, causal=True)
    case.check(target)
    assert (case.run(target)[:, :, 2] == 0).all()


@each_target
@each_dtype
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("t", [1, 21])
def test_padding_changes_no_bit(target: Processor, dtype: str, kind: str, t: int) -> None:
    """Masked keys behind the others, and queries without a gradient behind many others."""
    s = 30
    short = Case(
        2, 2, t, s, 16, 24, dtype, np.ones(s, bool) if kind == "bool" else np.zeros(s, dtype)
    )
    for more in (1, 40):
        mask = np.arange(s + more) < s
        added = np.where(mask, 0, -np.inf).astype(dtype)
        queries = t if t == 1 else t + more
        long = Case(2, 2, queries, s + more, 16, 24, dtype, mask if kind == "bool" else added)
        for name, n in (("q", t), ("k", s), ("v", s), ("g", t)):
            getattr(long, name)[:, :, :n] = getattr(short, name)
        long.g[:, :, t:] = 0
        np.testing.assert_array_equal(long.run(target)[:, :, :t], short.run(target))
        both = (case.run_grads(target)[:3] for case in (long, short))
        for got, want in zip(*both, strict=True):
            np.testing.assert_array_equal(got[:, :, : want.shape[2]], want)
            assert (got[:, :, want.shape[2] :] == 0).all()


@each_target
@each_dtype
def test_causal_is_the_mask_of_its_triangle(target: Processor, dtype: str) -> None:
    """Skipping what lies above the diagonal changes no bit; nor do the queries of a block."""
    t = 75
    causal = Case(1, 2, t, t, 16, 24, dtype, causal=True)
    masked = Case(1, 2, t, t, 16, 24, dtype, np.tri(t, dtype=bool))
    np.testing.assert_array_equal(causal.run(target), masked.run(target))
    for got, want in zip(causal.run_grads(target), masked.run_grads(target), strict=True):
        np.testing.assert_array_equal(got, want)


@each_target
@each_dtype
@pytest.mark.parametrize("t", [1, 2, 20])
def test_keys_that_a_boolean_mask_hides_at_the_end_are_not_read(
    target: Processor, dtype: str, t: int
) -> None:
    """Whatever they hold; the same bits as without them. A mask may differ between batches."""
    seen = np.array([1, 16, 17, 36, 0])
    case = Case(5, 2, t, 40, 12, 9, dtype, np.arange(40) < seen[:, None, None, None])
    for b, n in enumerate(seen):
        case.k[b, :, n:] = case.v[b, :, n:] = np.nan
    out, grads = case.run(target), case.run_grads(target)
    assert (out[4] == 0).all() and all((x[4] == 0).all() for x in grads)
    for b, n in enumerate(seen[:4]):
        short = Case(1, 2, t, n, 12, 9, dtype)
        short.q, short.g = case.q[b : b + 1], case.g[b : b + 1]
        short.k, short.v = case.k[b : b + 1, :, :n], case.v[b : b + 1, :, :n]
        np.testing.assert_array_equal(out[b], short.run(target)[0])
        for got, want in zip(grads, short.run_grads(target), strict=True):
            np.testing.assert_array_equal(got[b, :, : want.shape[2]], want[0])
            assert (got[b, :, want.shape[2] :] == 0).all()


@each_target
@each_dtype
def test_few_queries_are_as_many_alone(target: Processor, dtype: str) -> None:
    """The bits of a query depend on neither its batch nor the few beside it."""
    case = Case(3, 2, 2, 50, 20, 40, dtype, some((3, 1, 2, 50)))
    out = case.run(target)
    for b in range(3):
        for i in range(2):
            alone = Case(1, 2, 1, 50, 20, 40, dtype, case.mask[b : b + 1, :, i : i + 1])
            alone.q, alone.k, alone.v = (
                case.q[b : b + 1, :, i : i + 1],
                case.k[b : b + 1],
                case.v[b : b + 1],
            )
            np.testing.assert_array_equal(alone.run(target)[0], out[b, :, i : i + 1])


@each_target
def test_operands_may_be_shared_by_batches(target: Processor) -> None:
    case = Case(3, 2, 10, 12, 8, 8, "float32")
    case.q = np.broadcast_to(case.q[:1], case.q.shape)
    case.v = np.broadcast_to(case.v[:, :1], case.v.shape)
    case.check(target)


@each_target
def test_not_a_number_stays_in_its_row(target: Processor) -> None:
    case = Case(1, 1, 20, 12, 8, 8, "float32")
    case.q[0, 0, 3, 2] = np.nan
    out = case.run(target)[0, 0]
    assert np.isnan(out[3]).all() and np.isfinite(np.delete(out, 3, 0)).all()


@each_target
def test_without_a_query_the_gradients_are_zero(target: Processor) -> None:
    _, dk, dv = Case(1, 2, 0, 12, 8, 8, "float32").run_grads(target)
    assert (dk == 0).all() and (dv == 0).all()


@pytest.mark.one_in(2)
@each_dtype
@pytest.mark.parametrize("name", ["avx512", "avx2", "neon", "plain"])
def test_code_for_every_kind_of_processor(name: str, dtype: str) -> None:
    target, module = jit.named_target(name), ir.Module()
    attention.attention(Attention(dtype, 0.25, "float", True), module, "forward", target)
    attention.attention_grad(AttentionGrad(dtype, 0.25, "bool", False), module, "grad", target)
    added = AttentionGrad(dtype, 0.25, "float", True, dmask=True)
    attention.attention_grad(added, module, "added", target)
    text = jit.assembly(module.text(), target)
    assert "forward:" in text and "grad:" in text
