"""What each op means, in plain NumPy and float64: the references of op_table.py.

Written for being read, independently of the package; where NumPy has the function, the table names
that instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from philox import reference as philox_words

Array = Any

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def binary_cross_entropy(x: Array, t: Array) -> Array:
    return -(t * np.log(x) + (1 - t) * np.log1p(-x))


def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * (np.exp(x) - 1))


def softplus(x: Array, beta: float, threshold: float) -> Array:
    return np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta)


def clip(x: Array, low: float | None, high: float | None) -> Array:
    return np.clip(x, low, high)


# Reductions --------------------------------------------------------------------------------------


def reducer(f: Callable[..., Array]) -> Callable[..., Array]:
    """A NumPy reduction called as an op is: no axis means all of them, also of a 0-d array."""

    def run(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return f(x, axis=axis if np.ndim(x) else None, keepdims=keepdims)

    return run


def keeping(f: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, axis: f(x, axis=axis, keepdims=True)


@reducer
def logsumexp(x: Array, axis: Any, keepdims: bool) -> Array:
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return out if keepdims else out.reshape(np.sum(x, axis=axis).shape)


# Movement ----------------------------------------------------------------------------------------


def _places(ranges: Any) -> Any:
    return np.ix_(*(np.array(range(*r), dtype=int) for r in ranges))


def sliced(x: Array, ranges: Any) -> Array:
    return x[_places(ranges)]


def slice_write(x: Array, value: Array, ranges: Any) -> Array:
    out = x.copy()
    out[_places(ranges)] = value
    return out


def pad(x: Array, widths: Any, value: float) -> Array:
    return np.pad(x, widths, constant_values=value) if widths else x


def concat(*xs: Array, axis: int) -> Array:
    return np.concatenate(xs, axis)


# Gather and scatter ------------------------------------------------------------------------------


def _at(index: Array, axis: int) -> tuple[Any, ...]:
    return (slice(None),) * axis + (index,)


def index_add(x: Array, index: Array, value: Array, axis: int) -> Array:
    out = x.copy()
    np.add.at(out, _at(index, axis), value)
    return out


def index_put(x: Array, index: Array, value: Array, axis: int) -> Array:
    out = x.copy()
    for i, place in enumerate(index):
        out[_at(place, axis)] = value[_at(i, axis)]
    return out


def index_max(
    x: Array, index: Array, value: Array, axis: int, least: bool, include_self: bool
) -> Array:
    out, best = x.copy(), min if least else max
    for place in range(len(x)):
        found = list(value[index % len(x) == place])
        out[place] = best([*found, *([x[place]] if include_self or not found else [])])
    return out


def searchsorted(row: Array, x: Array, right: bool) -> Array:
    before = row[..., None, :] <= x[..., None] if right else row[..., None, :] < x[..., None]
    return before.sum(-1).reshape(np.shape(x))


def scatter_add(index: Array, value: Array, shape: tuple[int, ...], axis: int) -> Array:
    out = np.zeros(shape, value.dtype)
    for at in np.ndindex(index.shape):
        out[(*at[:axis], index[at], *at[axis + 1 :])] += value[at]
    return out


def update(x: Array, value: Array, position: Array, axis: int) -> Array:
    start = int(position) % x.shape[axis]
    out = x.copy()
    out[_at(slice(start, start + value.shape[axis]), axis)] = value
    return out


def argsort(x: Array, axis: int, descending: bool) -> Array:
    """Stable; NaN counts as the largest."""

    def order(row: Array) -> Array:
        rank = [(math.isnan(v), 0.0 if math.isnan(v) else v) for v in row.tolist()]
        # reverse=True leaves equal entries in their order too
        return np.array(sorted(range(len(rank)), key=rank.__getitem__, reverse=descending), int)

    return np.apply_along_axis(order, axis, x) if x.size else np.zeros(x.shape, int)


def argtopk(x: Array, k: int, axis: int) -> Array:
    return argsort(x, axis, descending=True)[_at(slice(0, k), axis)]


# Creation and random numbers ---------------------------------------------------------------------


def full(shape: tuple[int, ...], value: float, dtype: Any, device: str) -> Array:
    return np.full(shape, value, dtype.np)


def arange(start: float, step: float, count: int, dtype: Any, device: str) -> Array:
    return np.array([start + i * step for i in range(count)], dtype.np)


def words(key: Array, stream: Array, shape: tuple[int, ...]) -> Array:
    n = math.prod(shape)
    return np.array(philox_words(int(key), int(stream), range(n)), np.uint64).reshape(shape)


def uniform(key: Array, stream: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return (words(key, stream, shape) >> np.uint64(8)) * 2.0**-24


def normal(key: Array, stream: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    n = math.prod(shape)
    u = uniform(key, stream, (n + n % 2,), dtype).reshape(-1, 2)
    radius = np.sqrt(-2 * np.log(u[:, 0] + 2.0**-24))
    turn = 2 * math.pi * u[:, 1]
    pairs = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    return pairs.ravel()[:n].reshape(shape)


def randint(
    key: Array, stream: Array, low: int, high: int, shape: tuple[int, ...], dtype: Any
) -> Array:
    scaled = words(key, stream, shape) * np.uint64(high - low) >> np.uint64(32)
    return scaled.astype(np.int64) + low


def keep(key: Array, stream: Array, p: float, shape: tuple[int, ...]) -> Array:
    return uniform(key, stream, shape, None) >= p


# Fused -------------------------------------------------------------------------------------------


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def softmax_grad(g: Array, y: Array, axis: int) -> Array:
    """The Jacobian of softmax, diag(y) - y y^T, times g."""
    g, y = np.moveaxis(g, axis, -1), np.moveaxis(y, axis, -1)
    jacobian = y[..., :, None] * np.eye(y.shape[-1]) - y[..., :, None] * y[..., None, :]
    return np.moveaxis((jacobian @ g[..., None])[..., 0], -1, axis)


def log_softmax_grad(g: Array, y: Array, axis: int) -> Array:
    """The transposed Jacobian of log-softmax, I - exp(y) 1^T, times g."""
    g, y = np.moveaxis(g, axis, -1), np.moveaxis(y, axis, -1)
    jacobian = np.eye(y.shape[-1]) - np.exp(y)[..., :, None] * np.ones(y.shape[-1])
    return np.moveaxis((jacobian @ g[..., None])[..., 0], -1, axis)


def layer_norm(x: Array, weight: Any = None, bias: Any = None, *, eps: float) -> Array:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_norm_grad(g: Array, x: Array, weight: Any = None, *, eps: float) -> Any:
    """dx by the Jacobian of one row; with a weight, those of weight and bias too."""
    n = x.shape[-1]
    centre = np.eye(n) - 1 / n
    sigma = np.sqrt(x.var(-1, keepdims=True) + eps)
    y = (x - x.mean(-1, keepdims=True)) / sigma
    jacobian = (centre - y[..., :, None] * y[..., None, :] / n) / sigma[..., None]
    gw = g if weight is None else g * weight
    dx = (gw[..., None, :] @ jacobian)[..., 0, :]
    if weight is None:
        return (dx,)
    rows = tuple(range(x.ndim - 1))
    return dx, (g * y).sum(rows), g.sum(rows)


def _goal(x: Array, t: Array, ignore_index: int, label_smoothing: float) -> Array:
    """What the probabilities should be, and nothing for ignored rows."""
    classes = x.shape[-1]
    goal = (t[..., None] == np.arange(classes)) * (1 - label_smoothing) + label_smoothing / classes
    return goal * (t != ignore_index)[..., None]


def cross_entropy(x: Array, t: Array, ignore_index: int, label_smoothing: float) -> Array:
    return -(_goal(x, t, ignore_index, label_smoothing) * log_softmax(x, -1)).sum(-1)


def cross_entropy_grad(
    g: Array, x: Array, t: Array, ignore_index: int, label_smoothing: float
) -> Array:
    counts = (t != ignore_index)[..., None]
    return g[..., None] * (softmax(x, -1) * counts - _goal(x, t, ignore_index, label_smoothing))


def _weights(q: Array, k: Array, mask: Any, scale: float, causal: bool) -> Array:
    s = q @ k.swapaxes(-1, -2) * scale
    alive = np.ones(s.shape[-2:], bool)
    if causal:
        alive = np.tril(alive)
    if mask is not None and mask.dtype.kind == "i":
        places = np.arange(s.shape[-1])
        mask = (places >= mask[..., :1]) & (places < mask[..., 1:])
    boolean = mask is not None and mask.dtype == bool
    if boolean:
        alive = alive & mask
    elif mask is not None:
        s = s + mask
    s = np.where(alive, s, -np.inf)
    with np.errstate(invalid="ignore"):
        p = softmax(s, -1)
    return np.where(alive.any(-1, keepdims=True), p, 0) if boolean else p


def attention(
    q: Array, k: Array, v: Array, mask: Any = None, *, scale: float, causal: bool, group: int = 1
) -> Array:
    k, v = (x.repeat(group, x.ndim - 3) if group > 1 else x for x in (k, v))
    return _weights(q, k, mask, scale, causal) @ v


def attention_grad(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Any = None,
    *,
    scale: float,
    causal: bool,
    group: int = 1,
) -> Any:
    k, v = (x.repeat(group, x.ndim - 3) if group > 1 else x for x in (k, v))
    p = _weights(q, k, mask, scale, causal)
    ds = softmax_grad(g @ v.swapaxes(-1, -2), np.broadcast_to(p, (*g.shape[:-1], k.shape[-2])), -1)
    dk, dv = ds.swapaxes(-1, -2) @ q * scale, p.swapaxes(-1, -2) @ g
    if group > 1:
        *batch, heads, _, _ = dk.shape
        dk, dv = (x.reshape(*batch, heads // group, group, *x.shape[-2:]).sum(-3) for x in (dk, dv))
    grads = ds @ k * scale, dk, dv
    return grads if mask is None or mask.dtype.kind in "bi" else (*grads, ds)
