"""The same expressions on Tensors and on PyTorch's: values, dtypes, gradients.

PyTorch is no dependency: without it these tests are skipped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.nn import functional as F  # noqa: N812

torch = pytest.importorskip("torch")

# lib is tinygrad_tx or torch; x has two axes, v one, n integers, b booleans, t ties and NaN.
EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "max": lambda lib, x, **_: x.max(),
    "max dim": lambda lib, x, **_: x.max(1),
    "max dim of ties": lambda lib, t, **_: t[:2].max(1, keepdim=True),
    "min dim": lambda lib, x, **_: x.min(dim=0, keepdim=True),
    "amax": lambda lib, x, **_: x.amax((0, 1)),
    "amin": lambda lib, x, **_: x.amin(-1, keepdim=True),
    "max of two": lambda lib, x, v, **_: x.max(v) + lib.maximum(x, -x) + x.min(v),
    "argmax": lambda lib, x, **_: x.argmax(),
    "argmax dim": lambda lib, x, **_: (x.argmax(0), x.argmin(1, keepdim=True)),
    "argmax keepdim": lambda lib, x, **_: x.argmax(keepdim=True),
    "topk": lambda lib, x, **_: x.topk(3),
    "topk dim": lambda lib, x, **_: x.topk(2, dim=0),
    "topk all": lambda lib, x, **_: x.topk(5, 1),
    "topk none": lambda lib, x, **_: x.topk(0),
    "sort": lambda lib, x, **_: x.sort(),
    "sort descending": lambda lib, x, **_: x.sort(dim=0, descending=True),
    "sort NaN": lambda lib, t, **_: t.sort(1).values,
    "sort NaN descending": lambda lib, t, **_: t.sort(1, descending=True).values,
    "argsort": lambda lib, x, **_: x.argsort(1, descending=True),
    "var": lambda lib, x, **_: x.var(),
    "var dim": lambda lib, x, **_: x.var(1, correction=0, keepdim=True),
    "var of one": lambda lib, x, **_: x[:1].var(0),
    "var of too few": lambda lib, x, **_: x[:2].var(0, correction=2).detach(),
    "std": lambda lib, x, **_: x.std((0, 1)) + x.std(0, correction=0),
    "mean": lambda lib, x, **_: x.mean() + x.mean(0) + x.mean((0, 1), keepdim=True),
    "mean of nothing": lambda lib, x, **_: x[:0].mean(0),
    "sum of integers": lambda lib, n, b, **_: (n.sum(), b.sum(0), n.int().sum(1)),
    "norm": lambda lib, x, **_: x.norm() + x.norm(dim=1).sum(),
    "cumsum": lambda lib, x, n, **_: (x.cumsum(0), n.cumsum(dim=-1)),
    "logsumexp": lambda lib, x, **_: x.logsumexp(1) + x.logsumexp((0, 1)),
    "softmax": lambda lib, x, **_: (x.softmax(0), x.log_softmax(-1)),
    "any all": lambda lib, b, n, **_: (b.any(), b.all(1), n.any(0), n.all(1, keepdim=True)),
    "split": lambda lib, x, **_: x.split(2, dim=1),
    "split sizes": lambda lib, x, **_: x.split([1, 4], 1),
    "chunk": lambda lib, x, **_: x.chunk(3, dim=1),
    "chunk many": lambda lib, v, **_: v.chunk(4),
    "flip": lambda lib, x, **_: x.flip(0, 1),
    "flip one": lambda lib, x, **_: x.flip((-1,)),
    "squeeze": lambda lib, x, **_: (x[:, :1].squeeze(), x.squeeze(0), x[:1].squeeze((0, 1))),
    "unsqueeze": lambda lib, x, **_: (x.unsqueeze(-1), x.unsqueeze(1)),
    "flatten": lambda lib, x, **_: (x.flatten(), x[None].flatten(1), x[:0, :, None].flatten(1)),
    "reshape": lambda lib, x, **_: x.T[:4].reshape(-1, 2),
    "expand": lambda lib, x, v, **_: (v.expand(2, -1), x[:, :1].expand(-1, 3)),
    "transpose": lambda lib, x, **_: (x.transpose(0, -1), x.T, x.mT, x.permute(1, 0)),
    "clamp": lambda lib, x, **_: (x.clamp(-0.5, 0.5), x.clip(max=0), x.clamp(min=0.1)),
    "masked_fill": lambda lib, x, b, **_: x.masked_fill(b, -1.5),
    "where": lambda lib, x, b, v, **_: (lib.where(b, x, v), x.where(b, v), lib.where(b, x, 0.5)),
    "gather": lambda lib, x, n, **_: x.gather(1, n.remainder(5) if lib is torch else n % 5),
    "take_along_dim": lambda lib, x, **_: x.take_along_dim(x.argsort(1), 1),
    "index_select": lambda lib, x, i, **_: x.index_select(1, i),
    "index_add": lambda lib, x, i, **_: x.index_add(0, i, x[:, [1, 2, 0, 0, 4]] * 2),
    "triangles": lambda lib, x, b, **_: (lib.tril(x), lib.triu(x, 1), lib.tril(b, -1)),
    "eye arange full": lambda lib, **_: (lib.eye(3), lib.arange(1, 2, 0.3), lib.full((2,), 3)),
    "cat": lambda lib, x, n, **_: lib.cat([x, n], dim=1),
    "stack": lambda lib, x, **_: lib.stack([x, x * 2], dim=-1),
    "matmul": lambda lib, x, v, **_: (x @ v, v @ x.T, v @ v, x @ x.mT, lib.matmul(x[None], x.T)),
    "remainder": lambda lib, x, n, **_: (x % 0.7, n % 3, -x % -0.7, n // 2, (x // 0.7).detach()),
    "powers": lambda lib, x, n, **_: (x**2, x**3, (x * x) ** 0.5, 2**x, n**2, (x * x) ** x),
    "true division": lambda lib, n, b, **_: (n / 2, n / n.abs().maximum(n * 0 + 1), 1 / (b + 1)),
    "rounding": lambda lib, x, **_: (x.floor(), x.sign(), x.int(), x.long(), x.bool()),
    "exponentials": lambda lib, x, **_: (x.exp(), x.expm1(), (x * x).log1p(), (x * x).rsqrt()),
    "curves": lambda lib, x, **_: (x.tanh(), x.sigmoid(), x.erf(), x.sin() + x.cos(), x.relu()),
    "special": lambda lib, t, **_: (t.isnan(), t.isfinite(), t.isinf(), t.abs(), t.relu()),
    "read": lambda lib, x, i, **_: (x[1], x[:, 2:4], x[..., -1], x[None, 1:, ::2], x[i[:3], i[:3]]),
    "read masks": lambda lib, x, b, **_: (x[b], x[b[:, 0]], x[b.any(1), 1]),
    "places": lambda lib, z, i, j, **_: (z[i, :, j], z[:, i, j], z[0, :, i], z[i[1], :, j]),
    "places of None": lambda lib, z, i, j, **_: (z[i, None, j], z[None, i, :, j], z[:, None, i, j]),
    "places of 0-d": lambda lib, z, i, **_: (z[i[0], :, i[1]], z[i[0], i[1]], z[:, i[0], :, None]),
}

DATA = {
    "x": np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32),
    "v": np.random.default_rng(1).standard_normal(5).astype(np.float32),
    "z": np.random.default_rng(2).standard_normal((5, 6, 5)).astype(np.float32),
    "n": np.random.default_rng(3).integers(-9, 9, (5, 5)),
    "b": np.random.default_rng(4).random((5, 5)) < 0.5,
    "t": np.array([[1, 2, 2], [3, 3, 1], [np.nan, 1, np.inf], [0, np.nan, -np.inf]], np.float32),
    "i": np.array([3, 0, 4, 0, 1]),
    "j": np.array([1, 1, 2, 4, 0]),
}


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_same_as_torch(name: str) -> None:
    ours = {k: tx.tensor(v) for k, v in DATA.items()}
    theirs = {k: torch.tensor(v) for k, v in DATA.items()}
    for leaves in (ours, theirs):
        for k in ("x", "v", "z"):
            leaves[k].requires_grad_()
    got, want = EXPRESSIONS[name](tx, **ours), EXPRESSIONS[name](torch, **theirs)
    got, want = (list(r) if isinstance(r, (tuple, list)) else [r] for r in (got, want))
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == tuple(b.shape) and a.dtype.name == str(b.dtype).removeprefix("torch.")
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=2e-6, atol=2e-6)
    parts = [(a, b) for a, b in zip(got, want, strict=True) if b.requires_grad]
    assert all(a.requires_grad for a, _ in parts)
    if not parts:
        return
    sum((a * a).sum() for a, _ in parts).backward()
    sum((b * b).sum() for _, b in parts).backward()
    for k in ("x", "v", "z"):
        a, b = ours[k].grad, theirs[k].grad
        if a is not None or b is not None:  # a Tensor that f floors away has a gradient of zeros
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-5)


DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "bool")


@pytest.mark.parametrize("left", DTYPES)
def test_promotion_is_that_of_torch(left: str) -> None:
    """With and without dimensions, and with Python scalars, on either side."""
    pytest.importorskip("ml_dtypes")

    def make(lib: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        name = "bool_" if lib is tx and dtype == "bool" else dtype
        return lib.ones(shape, dtype=getattr(lib, name))

    operators = (operator.add, operator.mul, operator.truediv, operator.ge)
    for shape in ((2,), ()):
        ours, theirs = (make(lib, left, shape) for lib in (tx, torch))
        pairs = [(s, s) for s in (True, 3, 2.5)]
        pairs += [
            (make(tx, right, other), make(torch, right, other))
            for right in DTYPES
            for other in ((2,), ())
        ]
        for a, b in pairs:
            for f in operators:
                for got, want in ((f(ours, a), f(theirs, b)), (f(a, ours), f(b, theirs))):
                    assert f"torch.{got.dtype.name}" == str(want.dtype), (left, shape, a, f)


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "additive"])
def test_attention_is_that_of_torch(kind: str) -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((2, 3, n, 4)) for n in (5, 6, 6)]
    mask = {"bool": rng.random((5, 6)) < 0.6, "additive": rng.standard_normal((5, 6))}.get(kind)
    if kind == "bool":
        mask[1] = False  # a row without a key
    grads, outs = [], []
    for lib, f in ((tx, F), (torch, torch.nn.functional)):
        leaves = [lib.tensor(a).requires_grad_() for a in arrays]
        m = None if mask is None else lib.tensor(mask)
        out = f.scaled_dot_product_attention(*leaves, attn_mask=m, is_causal=kind == "causal")
        (out * out).sum().backward()
        outs.append(out.detach().numpy())
        grads.append([x.grad.numpy() for x in leaves])
    np.testing.assert_allclose(*outs, rtol=1e-9, atol=1e-12)
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_that_of_torch(reduction: str, smoothing: float) -> None:
    rng = np.random.default_rng(6)
    logits, targets = rng.standard_normal((7, 5)), rng.integers(0, 5, 7)
    targets[[1, 4]] = -100
    found = []
    for lib, f in ((tx, F), (torch, torch.nn.functional)):
        x = lib.tensor(logits).requires_grad_()
        loss = f.cross_entropy(
            x, lib.tensor(targets), label_smoothing=smoothing, reduction=reduction
        )
        (loss * loss).sum().backward()
        found.append((loss.detach().numpy(), x.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
