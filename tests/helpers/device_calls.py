"""Calls of what is public and no layer: methods and functions of Tensors, F, initial values, random
numbers, for tests that make them on two devices.

What goes out: CALLS, functions of inputs that their parameters name; `inputs` makes these on a
device. torch_ops.py, torch_values.py and convolution_case.py have those that are held to PyTorch;
gpu/test_public.py asks that each public name is somewhere.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from device_case import leaf, numbers, whole

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.nn import functional as F  # noqa: N812

DATA: dict[str, Any] = {
    "x": numbers(3, 5),
    "y": numbers(3, 5, seed=1),
    "z": numbers(2, 3, 4, seed=2),
    "p": np.abs(numbers(3, 5, seed=3)) / 2.5 + 0.05,  # between 0 and 1
    "v": numbers(5, seed=4),
    "w": numbers(4, 5, seed=5),
    "o": numbers(seed=6),
    "n": whole(9, 3, 5) - 4,
    "i": np.array([2, 0, 2]),  # of the first dimension of x
    "j": np.array([[3, 0, 4], [1, 1, 1], [4, 0, 2]]),  # along its second
    "b": whole(2, 3, 5, seed=1) > 0,
    "s": np.array([[np.nan, 1, -np.inf], [np.inf, -0.0, 2]], np.float32),
    "q": numbers(2, 4, 3, 6),
    "k": numbers(2, 4, 5, 6, seed=1),
    "u": numbers(2, 2, 5, 6, seed=2),  # half as many heads
    "m": whole(2, 2, 1, 3, 5, seed=5) > 0,
    "a": np.array([[0, 2], [0, 5], [3, 5]]).reshape(1, 1, 3, 2),  # bounds
}


def inputs(call: Callable[..., Any], device: str) -> dict[str, Any]:
    """The call's, on the device: those of floats ask for gradients; d is its name."""
    names = inspect.signature(call).parameters
    return {name: device if name == "d" else leaf(DATA[name], device) for name in names}


def _filled(f: Callable[..., Any], *args: Any, device: str, **named: Any) -> tx.Tensor:
    return f(tx.zeros(4, 6, device=device), *args, **named)


def _written(x: Any, v: Any, i: Any, b: Any) -> Any:
    """Each way to write into a Tensor, by indices and values of both devices."""
    y = x.detach() * 1
    y[0] = v
    y[1:, ::2] = 2.5
    y[b] = -1.0
    y[i, i] = v[:3]
    y[[0, 2], [1, 3]] = np.array([7.0, 8.0], np.float32)
    y[:, np.array([True, False, True, False, False])] *= 2
    y[..., -1] += x[..., 0]
    z = y.clone()
    z += 1
    z -= x.detach()
    z *= 2
    z /= 3
    z //= 0.37
    z %= 1.3
    z **= 2
    flags = b.clone()
    flags &= x > 0
    flags |= y > 2
    flags ^= b
    return y, z, flags


def _read(x: Any, z: Any, n: Any, i: Any, j: Any, b: Any) -> Any:
    return (
        *(x[0], x[-1, 2], x[1:, ::-2], x[i], x[i, 1:3], x[i, i], x[b], x[[2, 0]], x[None, ..., 1]),
        *(x[n[:, 0].abs() % 3], z[:, i[:2], ::3], z[..., [0, 3]], x[np.array([1, 2])], x[i > 0]),
        *(x[:, j[:1, 0]], x.take_along_dim(j, 1), x.gather(1, j), x.index_select(1, j[0])),
        x.index_add(0, i, x * 2),
    )


CALLS: dict[str, Callable[..., Any]] = {
    "reading": _read,
    "writing": _written,
    "logic": lambda b, n, x: (
        *(b.all(), b.any(1), b.all(0, keepdim=True), b.bitwise_not(), n.bitwise_or(3)),
        *(n.bitwise_xor(n), b.bitwise_and(x > 0), tx.logical_not(b), tx.any(b), tx.all(b, 1)),
    ),
    "largest and smallest": lambda x, y, n: (
        *(x.max(), *x.max(1), *x.min(0), x.amax(1), x.amin((0, 1)), x.argmax(), x.argmin(1)),
        *(x.maximum(y), tx.minimum(x, y), n.max(), n.argmax(0), x.maximum(0.3)),
    ),
    "sums": lambda x, n, b: (
        *(x.sum(), x.sum(1), x.mean(0), x.cumsum(1), x.logsumexp(1), n.sum(0), b.sum()),
        *(n.cumsum(0), x.var(1), x.std(), x.norm(), (x * x).mean((0, 1), keepdim=True)),
    ),
    "elementwise": lambda x, p: (
        *(x.exp(), p.log(), p.log1p(), x.expm1(), p.sqrt(), p.rsqrt(), x.sin(), x.cos(), x.tanh()),
        *(x.erf(), x.sigmoid(), x.relu(), x.square(), p.reciprocal(), x.sign(), x.abs(), x.floor()),
    ),
    "arithmetic": lambda x, y, p, n: (
        *(x + y, 2 - x, x * p, x / p, 1 / p, p**y, 2.0**x, x // p, x % p, x.pow(2), -x, n // 2),
        *(x.floor_divide(p), x.remainder(0.7), 7 % (n * n + 1), n * 3 - 1, 2 // (n * n + 1)),
    ),
    "tests of values": lambda s: (
        *(s.isfinite(), s.isinf(), s.isnan(), s == s, s > 0, s != s, s <= 1),
    ),
    "shapes": lambda x, z, o, v: (
        *(x.reshape(5, 3), x.view(15), z.transpose(0, 2), z.permute(2, 0, 1), x.T, z.mT),
        *(o.expand(2), z.flatten(1), x.unsqueeze(1), x.unsqueeze(0).squeeze(0), *x.chunk(2, 1)),
        *(*x.split(2), v.broadcast_to((3, 5)), v.expand(2, 5), x.contiguous(), x.clone()),
        *(*x.split([1, 4], 1), list(x.size()), x.dim(), x.numel(), x.ndim, list(x.shape)),
        tx.split(x, 2)[0],
    ),
    "dtypes": lambda x, n, b: (
        *(x.double(), x.half(), x.bfloat16(), x.int(), x.long(), x.bool(), n.float(), b.int()),
        *(x.to(tx.float64), x.to(n), n.to(tx.bool_), b.to(tx.float16), x.half().float() * 2),
    ),
    "where": lambda x, y, b, o: (
        *(x.where(b, y), tx.where(b, x, 0.5), x.masked_fill(b, -1.0), x.where(x > y, o)),
        *(tx.where(b, 1, 2), tx.where(b, o, y)),
    ),
    "joined": lambda x, y, v: (tx.cat([x, y], 1), tx.stack([x, y]), tx.cat([v, v]), tx.cat([x])),
    "products": lambda x, w, v, z, n: (
        *(x @ w.T, x.matmul(v), v @ v, tx.matmul(z, w[:, :3]), v @ x.T, n @ n.T, z @ z.mT),
    ),
    "triangles": lambda d, x, n: (
        *(tx.tril(x), tx.triu(x, 1), tx.tril(n, -1), tx.eye(3, 4, device=d)),
    ),
    "made": lambda d, x, n: (
        *(tx.zeros(2, 3, device=d), tx.ones(2, device=d), tx.empty(2, device=d), x.wrap(x.node)),
        *(tx.full((2,), 1.5, device=d), tx.arange(5, device=d), tx.arange(0.5, 2, 0.25, device=d)),
        *(tx.linspace(0, 1, 5, device=d), tx.zeros_like(x), tx.ones_like(n), tx.full_like(x, 3)),
        *(tx.empty_like(x), tx.tensor([[1, 2.5]], device=d), tx.tensor(x)),
        tx.full((2,), x[0, 0], device=d),
    ),
    "random": lambda d, p, x: (
        *(tx.rand(5, 13, device=d), tx.randint(0, 1000, (97,), device=d), tx.randperm(9, device=d)),
        *(tx.randn(50, device=d), tx.rand_like(x), tx.randn_like(x), tx.randint_like(x, 7)),
        *(p.bernoulli(), tx.bernoulli(x, 0.3), p.multinomial(3), tx.multinomial(p[0], 9, True)),
    ),
    "orders": lambda x, n: (
        *(*x.sort(1), *n.sort(0, descending=True), *x.topk(2), x.argsort(0), *n.median(1)),
        *(n.unique(), n.nonzero()),
    ),
    "values": lambda x, n, o: (
        *(x.numpy(), x.tolist(), o.item(), float(o), int(n[0, 0]), bool(o > 9), f"{o:.3f}"),
        *(x.allclose(x * 1.0), 2 in n, len(x), [row.tolist() for row in n], np.asarray(n)),
    ),
    "assigned": lambda x, y, n: (
        *(tx.zeros_like(x).assign(y.detach()), tx.zeros_like(x).assign(n), x.detach().assign(2.0)),
    ),
    "gradients": lambda x, y: (
        tx.grad(lambda t: (t * y.detach()).exp().sum())(x.detach()),
        *tx.value_and_grad(lambda t: (t.sin() * t).sum())(x.detach()),
        *tx.autograd.grad((x * y * y).sum(), [x, y]),
        tx.gradcheck(lambda t: t.tanh(), x.detach().double()),
    ),
    "copied": lambda x, n, b: [
        (again, again.requires_grad)
        for t in (x, n, b, x.detach().bfloat16())
        for again in (copy.deepcopy(t), pickle.loads(pickle.dumps(t)))
    ],
    "hooks": lambda x: _hooked(x),
    "F.activation": lambda x: [F.activation(f)(x) for f in ("relu", "gelu", "gelu_tanh", "silu")],
    "F.activations": lambda x: (
        *(F.relu(x), F.gelu(x), F.gelu_tanh(x), F.silu(x), F.sigmoid(x), F.tanh(x)),
        *(F.logsigmoid(x), F.leaky_relu(x), F.elu(x), F.softplus(x), F.glu(x[:, :4])),
        *(F.softmax(x, 1), F.log_softmax(x, 0), F.relu(x.detach() * 1, inplace=True)),
    ),
    "F.linear": lambda x, w, v: (F.linear(x, w), F.linear(x, w, v[:4])),
    "F.embedding": lambda x, i: (F.embedding(i, x), F.embedding(i, x, padding_idx=-1)),
    "F.one_hot": lambda i: (F.one_hot(i), F.one_hot(i, 4)),
    "F.pad": lambda x, z, o: (
        *(F.pad(x, (1, 2)), F.pad(x, (1, -1, 0, 2), value=1.5), F.pad(x, (1, 1), value=o.detach())),
        *(F.pad(z, (2, 1), how) for how in ("reflect", "replicate", "circular")),
    ),
    "F.write_at": lambda x, y, i: F.write_at(x, y[:, :2], i[0], 1),
    "F.normalised": lambda x, v: (
        *(F.layer_norm(x, (5,)), F.layer_norm(x, (5,), v, v), F.layer_norm(x, (3, 5))),
        *(F.rms_norm(x, (5,)), F.rms_norm(x, (5,), v, 1e-3), F.normalize(x)),
    ),
    "F.dropout": lambda x, z: (F.dropout(x, 0.25), F.dropout(z, 0.9), F.dropout(x, 1.0)),
    "F.cross_entropy": lambda x, i, v, p: (
        *(F.cross_entropy(x, i), F.cross_entropy(x, i, v.abs().detach(), ignore_index=2)),
        *(F.cross_entropy(x, i, label_smoothing=0.2, reduction="none"), F.cross_entropy(x, p)),
        F.cross_entropy(x, i, ignore_index=i[0]),
    ),
    "F.scaled_dot_product_attention": lambda q, k, u, m, a: (
        *(F.scaled_dot_product_attention(q, k, k), F.scaled_dot_product_attention(q, k, k, m)),
        F.scaled_dot_product_attention(q, k, k, k[:, :1, :3, :5], is_causal=True, scale=0.3),
        F.scaled_dot_product_attention(q, u, u, m, enable_gqa=True),
        F.scaled_dot_product_attention(q, u, u, enable_gqa=True, bounds=a),
        F.scaled_dot_product_attention(q, k, k, is_causal=True, bounds=a),
        F.scaled_dot_product_attention(q, k, k, m, 0.3),
        F.scaled_dot_product_attention(q, u, u, None, 0.3, True, enable_gqa=True),
    ),
    "F.attention_weights": lambda q, k, u, m, a: (
        *(F.attention_weights(q, k, m, True), F.attention_weights(q, u, a, group=2)),
        F.attention_weights(q, k, k[:, :1, :3, :5], scale=0.2),
    ),
    "init": lambda d: (
        *(_filled(nn.init.constant_, 2.5, device=d), _filled(nn.init.zeros_, device=d)),
        *(_filled(nn.init.ones_, device=d), _filled(nn.init.uniform_, -1, 2, device=d)),
        *(_filled(nn.init.normal_, 1.0, 0.5, device=d), _filled(nn.init.eye_, device=d)),
        *(_filled(nn.init.xavier_uniform_, device=d), _filled(nn.init.xavier_normal_, device=d)),
        *(_filled(nn.init.kaiming_uniform_, device=d), _filled(nn.init.kaiming_normal_, device=d)),
        *(_filled(nn.init.trunc_normal_, device=d), _filled(nn.init.orthogonal_, device=d)),
        nn.init.calculate_gain("relu"),
    ),
}  # fmt: skip


def _hooked(x: Any) -> Any:
    """A hook that replaces the gradient, and one that is taken away."""
    y = x * 2
    y.register_hook(lambda g: g * 3)
    y.register_hook(lambda g: g * 100).remove()
    y.sum().backward()
    grad, x.grad = x.grad, None
    return grad
