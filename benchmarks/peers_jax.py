"""JAX's side of training: the same models as functions of a dict of weights, the whole step jitted
with its state donated. Called by worker.py. Sizes in the comments: B rows, S and T positions,
D = width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .works import (
    CLIP,
    LABEL_SMOOTHING,
    PAD,
    Array,
    Batch,
    GPTWork,
    TransformerWork,
    Work,
    weights,
)

Weights = dict[str, jax.Array]
Drop = Callable[[jax.Array], jax.Array]


# The Transformer -------------------------------------------------------------------------------


def transformer_loss(
    work: TransformerWork, dropout: float, w: Weights, key: jax.Array, batch: tuple[jax.Array, ...]
) -> jax.Array:
    src, tgt_in, tgt_out = batch
    drop = dropping(dropout, key)
    mask = (src != PAD)[:, None, None, :]
    memory = embed(work, w, src, drop)
    for i in range(work.layers):
        memory = encoder_layer(work, w, f"encoder.layers.{i}", memory, mask, drop)
    x = embed(work, w, tgt_in, drop)
    for i in range(work.layers):
        x = decoder_layer(work, w, f"decoder.layers.{i}", x, memory, mask, drop)
    scores = jax.nn.log_softmax(x @ w["embedding.weight"].T)  # (B, T, V)
    chosen = jnp.take_along_axis(scores, tgt_out[..., None], -1)[..., 0]
    losses = -(1 - LABEL_SMOOTHING) * chosen - LABEL_SMOOTHING * scores.mean(-1)
    counts = tgt_out != PAD
    return jnp.where(counts, losses, 0).sum() / counts.sum()


def dropping(p: float, key: jax.Array) -> Drop:
    """Dropout that draws from another key at each call."""
    if not p:
        return lambda x: x
    calls = iter(range(1 << 16))

    def drop(x: jax.Array) -> jax.Array:
        kept = jax.random.bernoulli(jax.random.fold_in(key, next(calls)), 1 - p, x.shape)
        return jnp.where(kept, x / (1 - p), 0)

    return drop


def embed(work: TransformerWork, w: Weights, ids: jax.Array, drop: Drop) -> jax.Array:
    x = w["embedding.weight"][ids] * math.sqrt(work.width)
    return drop(x + sinusoids(ids.shape[1], work.width))


def encoder_layer(
    work: TransformerWork, w: Weights, name: str, x: jax.Array, mask: jax.Array, drop: Drop
) -> jax.Array:
    attended = attention(work, w, f"{name}.self_attn", x, x, mask)
    x = layer_norm(w, f"{name}.norm1", x + drop(attended))
    return layer_norm(w, f"{name}.norm2", x + drop(feed_forward(w, f"{name}.ffn", x)))


def decoder_layer(
    work: TransformerWork,
    w: Weights,
    name: str,
    x: jax.Array,
    memory: jax.Array,
    mask: jax.Array,
    drop: Drop,
) -> jax.Array:
    attended = attention(work, w, f"{name}.self_attn", x, x, causal(x.shape[1]))
    x = layer_norm(w, f"{name}.norm1", x + drop(attended))
    attended = attention(work, w, f"{name}.cross_attn", x, memory, mask)
    x = layer_norm(w, f"{name}.norm2", x + drop(attended))
    return layer_norm(w, f"{name}.norm3", x + drop(feed_forward(w, f"{name}.ffn", x)))


def attention(
    work: TransformerWork, w: Weights, name: str, x: jax.Array, memory: jax.Array, mask: jax.Array
) -> jax.Array:
    q = x @ w[f"{name}.q_proj.weight"].T
    k = memory @ w[f"{name}.k_proj.weight"].T
    v = memory @ w[f"{name}.v_proj.weight"].T
    return attend(work.heads, q, k, v, mask) @ w[f"{name}.out_proj.weight"].T


def feed_forward(w: Weights, name: str, x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ w[f"{name}.linear1.weight"].T + w[f"{name}.linear1.bias"])
    return hidden @ w[f"{name}.linear2.weight"].T + w[f"{name}.linear2.bias"]


def sinusoids(length: int, width: int) -> Array:
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, width, 2) * -math.log(10000) / width)
    table: Array = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, width)
    return table.astype(np.float32)


# The GPT ---------------------------------------------------------------------------------------


def gpt_loss(
    work: GPTWork, dropout: float, w: Weights, key: jax.Array, batch: tuple[jax.Array, ...]
) -> jax.Array:
    assert not dropout, "the works with a GPT have no dropout"
    ids, targets = batch
    x = w["wte.weight"][ids] + w["wpe.weight"][: ids.shape[1]]
    for i in range(work.layers):
        name = f"h.{i}"
        qkv = layer_norm(w, f"{name}.ln_1", x) @ w[f"{name}.attn.c_attn.weight"].T
        q, k, v = jnp.split(qkv, 3, -1)
        y = attend(work.heads, q, k, v, causal(ids.shape[1]))
        x = x + y @ w[f"{name}.attn.c_proj.weight"].T
        hidden = layer_norm(w, f"{name}.ln_2", x) @ w[f"{name}.mlp.c_fc.weight"].T
        hidden = jax.nn.gelu(hidden, approximate=False)
        x = x + hidden @ w[f"{name}.mlp.c_proj.weight"].T
    scores = jax.nn.log_softmax(layer_norm(w, "ln_f", x) @ w["wte.weight"].T)
    return -jnp.take_along_axis(scores, targets[..., None], -1).mean()


# What both use ---------------------------------------------------------------------------------


def attend(
    heads: int, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | Array
) -> jax.Array:
    """Projected q (B, T, D), k and v (B, S, D) -> (B, T, D)."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
    chances = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
    y = jnp.einsum("bhts,bshd->bthd", chances, v)
    return y.reshape(*y.shape[:2], -1)


def causal(length: int) -> Array:
    return np.tril(np.ones((length, length), np.bool_))


def layer_norm(w: Weights, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]
    bias = w.get(f"{name}.bias")
    return y if bias is None else y + bias


# A step of training ----------------------------------------------------------------------------


class Training:
    """Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: Work, dropout: float, shared: bool) -> None:
        """JAX has no models and so no weights of its own: they are the shared ones in any case."""
        w = {name: jnp.asarray(x) for name, x in weights(work).items()}
        if isinstance(work, TransformerWork):
            loss: Callable[..., jax.Array] = partial(transformer_loss, work, dropout)
            decay = 0.0
        else:
            loss, decay = partial(gpt_loss, work, dropout), work.weight_decay
        zeros = {name: jnp.zeros_like(x) for name, x in w.items()}
        moments = (zeros, {name: jnp.zeros_like(x) for name, x in w.items()})
        self._state = (w, *moments, jnp.zeros((), jnp.int32))
        self._step = jax.jit(partial(step, work, decay, loss), donate_argnums=0)

    def __call__(self, batch: Batch) -> float:
        self._state, loss = self._step(self._state, tuple(x.astype(np.int32) for x in batch))
        jax.block_until_ready(self._state)
        return float(loss)

    def stats(self) -> dict[str, Any]:
        return {}


def step(
    work: Work,
    decay: float,
    loss: Callable[..., jax.Array],
    state: tuple[Weights, Weights, Weights, jax.Array],
    batch: tuple[jax.Array, ...],
) -> tuple[tuple[Weights, Weights, Weights, jax.Array], jax.Array]:
    """Gradient, clipping, Adam or (with decay) AdamW."""
    w, first, second, count = state
    found, grads = jax.value_and_grad(loss)(w, jax.random.fold_in(jax.random.key(0), count), batch)
    norm = jnp.sqrt(sum((g * g).sum() for g in grads.values()))
    scale = jnp.minimum(1.0, CLIP / (norm + 1e-6))
    count = count + 1
    beta1, beta2 = work.betas
    new_w, new_first, new_second = {}, {}, {}
    for name, p in w.items():
        g = grads[name] * scale
        m = beta1 * first[name] + (1 - beta1) * g
        v = beta2 * second[name] + (1 - beta2) * g * g
        root = jnp.sqrt(v / (1 - beta2**count)) + work.eps
        new_w[name] = p * (1 - work.lr * decay) - work.lr * (m / (1 - beta1**count)) / root
        new_first[name], new_second[name] = m, v
    return (new_w, new_first, new_second, count), found
