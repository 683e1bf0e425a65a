"""What PyTorch gives for expressions of Tensor functions: values and gradients of first and second
order, recorded.

`python tests/helpers/torch_ops.py`, with PyTorch installed, writes torch_ops.json, which
ops/test_torch_ops.py reads without it. An expression takes the library (PyTorch or this one), its
functional functions, and the inputs that it names.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "torch_ops.json"


def _wave(*shape: int, step: float = 1.7, scale: float = 1.5) -> np.ndarray:
    """Numbers that any NumPy makes the same."""
    return np.round(np.sin(np.arange(np.prod(shape)) * step + 0.3) * scale, 4).reshape(shape)


DATA = {
    "x": _wave(3, 5),
    "y": _wave(3, 5, step=2.3, scale=1.4),
    "v": _wave(5, step=0.9),
    "w": _wave(4, step=2.1),
    "z": _wave(2, 3, 4),
    "t": np.array([[1.0, 2, 2, 0], [3, 3, 1, 0], [0, 2, 2, 2]]),  # ties and zeros
    "s": np.array([[np.nan, 1, 2], [3, np.inf, -np.inf]]),
    "n": np.arange(15).reshape(3, 5) % 7 - 3,
    "m": np.array([[2, 3, -1, 5, -4]]),
    "b": np.arange(15).reshape(3, 5) % 3 == 0,
    "i": np.array([[0, 2, 1, 0, 2], [1, 1, 0, 2, 0]]),  # places along a dimension of 3
    "j": np.array([[3, 0, 3], [1, 1, 1], [4, 0, 2]]),  # along one of 5
    "e": np.zeros((0, 3)),
    "o": np.array(0.75),
}
LEAVES = "xyvwzto"  # whose gradients are taken


def half(lib: Any, *xs: Any) -> Any:
    return [(x / 4).to(lib.float16) for x in xs]


EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "add sub": lambda x, y: (x.add(y, alpha=2), x.sub(y, alpha=0.5), x.mul(y), x.neg()),
    "alpha of integers": lambda n, m: (n.add(m, alpha=3), n.sub(m, alpha=-2)),
    "div": lambda lib, x, y: (
        x.div(y),
        lib.div(x, y, rounding_mode="trunc"),
        x.div(y, rounding_mode="floor"),
        x.div(0.7, rounding_mode="trunc"),
    ),
    "div of integers": lambda n, m: (
        n.div(m),
        n.div(m, rounding_mode="trunc"),
        n.div(m, rounding_mode="floor"),
        n.div(-2, rounding_mode="trunc"),
        n.div(2.5, rounding_mode="trunc"),
    ),
    "comparisons": lambda x, y: (x.eq(y), x.ne(y), x.lt(y), x.le(0), x.gt(y), x.ge(y)),
    "bits": lambda n, m, b: (n & m, n | 6, n ^ m, ~n, n.bitwise_and(m), b & n, b ^ b, ~b),
    "logical": lambda n, m, b, x: (
        n.logical_and(m),
        x.logical_or(b),
        n.logical_xor(b),
        n.logical_not(),
        b.logical_not(),
    ),
    "rounding": lambda lib, x: (
        (x * 3).round(),
        lib.round(x * 2, decimals=1),
        (x * 3).ceil(),
        (x * 30).round(decimals=-1),
        (x * 3).trunc(),
    ),
    "halves": lambda t: ((t + 0.5).round(), (-t - 0.5).round(), (t - 1.5).round()),
    "logarithms": lambda x: ((x * x + 0.1).log2(), (x * x + 0.1).log10()),
    "angles": lambda x, y: ((x * 0.5).tan(), x.atan2(y), x.sinh(), y.cosh()),
    "special": lambda s: (
        s.round(),
        s.ceil(),
        s.trunc(),
        s.log2(),
        s.sinh(),
        s.cosh(),
        s.atan2(s.flip(0)),
    ),
    "clamp by Tensors": lambda x, y, v: (x.clamp(y), x.clamp(max=v), x.clamp(y - 0.5, v + 0.5)),
    "clamp integers": lambda n, m: (n.clamp(m), n.clip(m - 2, m + 1), n.clip(-1, 1)),
    "activations": lambda fn, x: (
        fn.leaky_relu(x),
        fn.leaky_relu(x, 0.3),
        fn.elu(x),
        fn.elu(x, 0.5),
        fn.softplus(x),
        fn.softplus(x, 3, 2.0),
        fn.glu(x[:, :4]),
        fn.glu(x[:2], 0),
    ),
    "activations of zero": lambda fn, t: (fn.leaky_relu(t - 1), fn.elu(t - 1), fn.softplus(t - 1)),
    "activations far out": lambda fn, s: (fn.softplus(s * 50), fn.elu(s), fn.leaky_relu(s)),
    "prod": lambda lib, x, t: (x.prod(), x.prod(1), lib.prod(t, 0, True), t.prod(-1)),
    "prod of integers": lambda lib, n, b, e: (
        n.prod(1),
        b.prod(),
        e.prod(0),
        n.prod(0, dtype=lib.float32),
    ),
    "cumprod": lambda lib, x, t, n: (x.cumprod(1), t.cumprod(0), lib.cumprod(n, -1)),
    "median": lambda lib, x, n: (x.median(), lib.median(n), *x.median(1), *x[:2].median(0, True)),
    "median of NaN": lambda s: (s.median(), s.median(1)[0]),
    "quantile": lambda lib, x, v: (
        x.quantile(0.3),
        x.quantile(0.5, 1),
        lib.quantile(x, 1.0, 0, True),
        x.quantile(v.abs().clip(0, 1).detach(), 1),
        x.quantile(v.abs().clip(0, 1).detach()[:2], 0, True),
        x.quantile(v.abs().clip(0, 1).detach()),
        x.quantile(v.abs().clip(0, 1).detach()[:1], keepdim=True),
    ),
    "quantiles between": lambda x: tuple(
        x.quantile(0.35, 1, interpolation=how)
        for how in ("linear", "lower", "higher", "midpoint", "nearest")
    ),
    "quantile of its share": lambda x, o: x[0].quantile(o),
    "quantile of NaN": lambda s: (s.quantile(0.5, 1), s.quantile(0.0)),
    "isclose": lambda lib, x, s: (
        lib.isclose(x, x + 1e-6),
        s.isclose(s),
        s.isclose(s, equal_nan=True),
        x.isclose(x * 1.01, rtol=0.02),
    ),
    "repeat": lambda lib, x, v: (
        x.repeat(2, 1),
        v.repeat(2, 3),
        lib.tile(x, (2,)),
        v.tile(2, 1),
        x.repeat(0, 2),
    ),
    "repeat_interleave": lambda lib, x, i: (
        x.repeat_interleave(2),
        x.repeat_interleave(3, 0),
        x.repeat_interleave(i[0], 1),
        lib.repeat_interleave(x, i[0], dim=1, output_size=5),
    ),
    "unbind": lambda lib, x: (*x.unbind(), *lib.unbind(x, 1)),
    "roll": lambda lib, x, z: (
        x.roll(1),
        x.roll(-2, 1),
        lib.roll(z, (1, 2), (0, -1)),
        z.roll(7, 1),
    ),
    "meshgrid": lambda lib, v, w: (
        *lib.meshgrid(v, w, indexing="ij"),
        *lib.meshgrid(v, w, indexing="xy"),
    ),
    "linspace": lambda lib: (
        lib.linspace(-1, 2, 7, dtype=lib.float64),
        lib.linspace(3, 4, 1),
        lib.linspace(0, 10, 4, dtype=lib.int64),
        lib.linspace(5, 1, 0),
    ),
    "diagonal": lambda lib, x, z: (
        x.diagonal(),
        x.diagonal(1),
        x.diagonal(-1),
        x.diagonal(9),
        lib.diagonal(z, 0, 0, 2),
        z.diagonal(-1, 2, 1),
    ),
    "trace": lambda lib, x, n: (x.trace(), lib.trace(n)),
    "outer": lambda lib, v, w: (v.outer(w), lib.outer(w, v)),
    "einsum": lambda lib, x, y, z, v, w: (
        lib.einsum("ij,kj->ik", x, y),
        lib.einsum("ij->j", x),
        lib.einsum("ij,ij->", x, y),
        lib.einsum("i,j->ij", v, w),
        lib.einsum("ij", x),
        lib.einsum("ji", x),
        lib.einsum("bij,bkj->bik", z, z),
        lib.einsum("...j,j", z, w),
        lib.einsum("bij,j->bi", z, w),
        lib.einsum("ij,j,jk->ik", x, v, x.T),
        lib.einsum("ii->i", x[:, :3]),
        lib.einsum("ii", x[:, :3]),
        lib.einsum("a...,b...->ab...", z, z[:1]),
        lib.einsum("ij,jk,kl->il", x, x.T, y),
        lib.einsum("ij , ij -> i", x, y[:1]),
    ),
    "einsum of lists": lambda lib, x, y: (
        lib.einsum(x, [0, 1], y, [2, 1], [0, 2]),
        lib.einsum(x, [..., 1], y, [..., 1]),
    ),
    # PyTorch differentiates by a src of index's shape alone.
    "scatter": lambda lib, x, y, i, j: (
        x.scatter(0, i[:1], y[:1]),
        x.scatter(0, i[:1], 2.5),
        lib.scatter(x, 1, j[:, :1], y[:, :1]),
        x.scatter(0, i[:1], y.detach()),
        x.scatter(0, i[:1, :3], value=-1.0),
    ),
    "scatter of reduce": lambda x, i, y: (
        x.scatter(0, i, y.detach(), reduce="add").detach(),
        x.scatter(0, i, 2.0, reduce="multiply").detach(),
    ),
    "scatter_add": lambda lib, x, y, i, j: (
        x.scatter_add(0, i, y[:2]),
        lib.scatter_add(x, 1, j, y[:, 2:]),
        x.scatter_add(-1, j[:2, :2], y.detach()),
    ),
    **{
        f"scatter_reduce {how}": lambda x, y, i, j, how=how: (
            x.scatter_reduce(0, i, y[:2], how),
            x.scatter_reduce(1, j, y[:, 2:], how),
            x.scatter_reduce(0, i, y[:2], how, include_self=False),
            x.detach().scatter_reduce(1, j[:2, :2], y.detach(), how, include_self=False),
        )
        for how in ("sum", "prod", "mean", "amax", "amin")
    },
    **{
        f"scatter_reduce of ties {how}": lambda t, j, how=how: (
            t.scatter_reduce(1, j % 4, t[:, :3], how),
            (t - 9).scatter_reduce(1, j % 4, t[:, 1:], how, include_self=False),
        )
        for how in ("prod", "amax", "amin")
    },
    "scatter_reduce of integers": lambda n, j: tuple(
        n.scatter_reduce(1, j, n * 2, how) for how in ("sum", "prod", "mean", "amax", "amin")
    ),
    "scatter_reduce of NaN": lambda s, i: tuple(
        s.scatter_reduce(0, i[:, :3] % 2, s.flip(1), how) for how in ("amax", "amin")
    ),
    "searchsorted": lambda lib, x, y, v: (
        lib.searchsorted(v.sort()[0], x),
        lib.searchsorted(v.sort()[0], 0.2, right=True),
        lib.searchsorted(x.sort(1)[0], y, side="right"),
        lib.searchsorted(v, x, sorter=v.argsort(), out_int32=True),
    ),
    "bucketize": lambda lib, n, x, m: (
        lib.bucketize(n, m.sort(1)[0][0]),
        lib.bucketize(n, m.sort(1)[0][0], right=True),
        lib.bucketize(x, lib.linspace(-1, 1, 5, dtype=x.dtype)),
    ),
    "nonzero": lambda lib, n, b, o: (
        n.nonzero(),
        lib.nonzero(b),
        *b.nonzero(as_tuple=True),
        o.nonzero(),
    ),
    "unique": lambda lib, n, t: (
        n.unique(),
        *lib.unique(t.detach(), return_inverse=True, return_counts=True),
        *t.detach().T.unique(dim=0, return_counts=True),
    ),
    "dtype": lambda lib, x, n: (
        x.softmax(1, dtype=lib.float32),
        n.sum(dtype=lib.float32),
        n.prod(dtype=lib.int32),
        n.cumprod(0, dtype=lib.float64),
    ),
    "norms": lambda x: (x.norm(1), x.norm(3, 1), x.norm(float("inf"), 0), x.norm(0)),
    "orders": lambda x: (
        x.topk(2, largest=False, sorted=True)[0],
        x.sort(stable=True)[0],
        x.var(unbiased=False),
        x.std(0, unbiased=True),
    ),
    "empty": lambda lib, e: (
        e.cumprod(1),
        e.round(),
        e.repeat(2, 2),
        e.roll(1, 0),
        e.unbind(1)[0],
        lib.einsum("ij,ij->j", e, e),
    ),
    "0-d": lambda lib, o: (
        o.prod(),
        o.cumprod(0),
        o.median(),
        o.median(0)[0],
        o.quantile(0.5),
        o.repeat(2),
        o.roll(1),
        o.atan2(o),
        lib.tile(o, (2,)),
    ),
    "half": lambda lib, x, y, t: tuple(
        f.float()
        for f in (
            lambda a, b, c: (
                a.round(),
                a.tan(),
                a.sinh(),
                a.atan2(b),
                a.clamp(b),
                c.prod(1),
                c.cumprod(1),
                a.scatter_add(1, (a > 0).long(), b),
                a.median(1)[0],
                a.outer(b[0]) if a.ndim == 1 else a.roll(1, 1),
            )
        )(*half(lib, x, y, t))
    ),
}


def results(lib: Any, functional: Any, name: str) -> tuple[list[Any], dict[str, Any]]:
    """What an expression gives, and the inputs that it was given."""
    f = EXPRESSIONS[name]
    wanted = [p.name for p in inspect.signature(f).parameters.values() if p.default is p.empty]
    inputs = {k: lib.tensor(DATA[k]) for k in wanted if k in DATA}
    for k, leaf in inputs.items():
        if k in LEAVES:
            leaf.requires_grad_()
    spaces = {"lib": lib, "fn": functional}
    out = f(**inputs, **{k: spaces[k] for k in wanted if k in spaces})
    return list(out) if isinstance(out, (tuple, list)) else [out], inputs


def gradients(lib: Any, out: Iterable[Any], inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """Of first and second order, by each leaf that is reached: of the sum of the results' squares,
    and of that of the gradients' squares."""
    found, parts = [], [o for o in out if o.requires_grad and o.numel()]
    for order in (1, 2):
        total = sum((p * p).sum() for p in parts) if parts else None
        if total is None or not total.requires_grad:
            break
        leaves = {k: x for k, x in inputs.items() if x.requires_grad}
        got = lib.autograd.grad(total, list(leaves.values()), create_graph=order == 1,
                                allow_unused=True)  # fmt: skip
        found.append({k: g for k, g in zip(leaves, got, strict=True) if g is not None})
        parts = [g for g in found[-1].values() if g.requires_grad]
    return found


def plain(x: Any) -> Any:
    """A Tensor as JSON has it: shape, dtype, values (NaN and infinities as text)."""
    values = np.asarray(x.tolist(), np.float64).reshape(-1)
    shown = [repr(v) if not np.isfinite(v) else float(f"{v:.10g}") for v in values.tolist()]
    dtype = str(x.dtype).rpartition(".")[2].removesuffix("_")
    return [list(x.shape), dtype, shown]


def close(got: Any, want: Any, what: str) -> None:
    """A Tensor is the recorded one; what: the expression's name, and what of it after a colon."""
    shape, dtype, values = plain(got)
    assert (shape, dtype) == (want[0], want[1]), what
    half = {"float16": 2e-3, "float32": 3e-6}.get(dtype, 1e-8)
    a, b = (np.array([float(v) for v in x]) for x in (values, want[2]))
    tolerance = {"half": 2e-2, "dtype": 1e-5}.get(what.partition(":")[0], half)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what)


def record() -> dict[str, Any]:
    import torch

    found = {}
    for name in EXPRESSIONS:
        out, inputs = results(torch, torch.nn.functional, name)
        orders = gradients(torch, out, inputs)
        found[name] = {
            "out": [plain(o) for o in out],
            "gradients": [{k: plain(g) for k, g in order.items()} for order in orders],
        }
    return found


def text(found: dict[str, Any]) -> str:
    rows = (f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in found.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(record()), encoding="utf-8")
