"""NumPy's side of single kernels: its OpenBLAS, and the plain spellings. Called by worker.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .works import Array


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    found: Array = e
    return found


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    found: Array = centred / np.sqrt(variance + np.float32(1e-5)) * weight + bias
    return found


def attention(q: Array, k: Array, v: Array) -> Array:
    scale = np.float32(1 / math.sqrt(q.shape[-1]))
    found: Array = softmax(q @ k.swapaxes(-1, -2) * scale) @ v
    return found


def attention_grad(q: Array, k: Array, v: Array, g: Array) -> Array:
    """Gradients of causal attention by q, k and v, side by side; a head at a time."""
    scale, found = np.float32(1 / math.sqrt(q.shape[-1])), [np.empty_like(x) for x in (q, k, v)]
    later = np.triu(np.ones((q.shape[-2], k.shape[-2]), bool), 1)
    for at in np.ndindex(q.shape[:-2]):
        scores = q[at] @ k[at].T * scale
        scores[later] = -np.inf
        p = softmax(scores)
        ds = g[at] @ v[at].T
        ds = p * (ds - (ds * p).sum(-1, keepdims=True)) * scale
        for place, grad in zip(found, (ds @ k[at], ds.T @ q[at], p.T @ g[at]), strict=True):
            place[at] = grad
    return np.concatenate(found, -1)


_KERNELS: dict[str, Callable[..., Array]] = {
    "gemm": lambda a, b: a @ b,
    "gemm_bt": lambda a, b: a @ b.T,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "attention": attention,
    "attention_grad": attention_grad,
}


def kernel(name: str, *arrays: Array) -> Callable[[], Array]:
    """A function of one op, on these inputs."""
    return lambda: _KERNELS[name](*arrays)
