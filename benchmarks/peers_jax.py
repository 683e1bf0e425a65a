"""JAX's side of training: the same models as functions of a dict of weights, the whole step jitted
with its state donated. Called by worker.py and gpu_jax.py. Sizes in the comments: B rows, S and T
positions, D = width.

Activations have the dtype of the weights, which may have 16 bits; norms, softmax and losses are
computed in float32.
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
    scores = log_softmax(x @ w["embedding.weight"].T)  # (B, T, V)
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
        return jnp.where(kept, x / (1 - p), 0).astype(x.dtype)

    return drop


def embed(work: TransformerWork, w: Weights, ids: jax.Array, drop: Drop) -> jax.Array:
    x = w["embedding.weight"][ids] * math.sqrt(work.width)
    return drop(x + sinusoids(ids.shape[1], work.width).astype(x.dtype))


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
    attended = attention(work, w, f"{name}.self_attn", x, x, None)
    x = layer_norm(w, f"{name}.norm1", x + drop(attended))
    attended = attention(work, w, f"{name}.cross_attn", x, memory, mask)
    x = layer_norm(w, f"{name}.norm2", x + drop(attended))
    return layer_norm(w, f"{name}.norm3", x + drop(feed_forward(w, f"{name}.ffn", x)))


def attention(
    work: TransformerWork,
    w: Weights,
    name: str,
    x: jax.Array,
    memory: jax.Array,
    mask: jax.Array | None,
) -> jax.Array:
    """mask: over the keys; None: causal."""
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
        qkv = linear(w, f"{name}.attn.c_attn", layer_norm(w, f"{name}.ln_1", x))
        y = attend(work.heads, *jnp.split(qkv, 3, -1), None)
        x = x + linear(w, f"{name}.attn.c_proj", y)
        hidden = linear(w, f"{name}.mlp.c_fc", layer_norm(w, f"{name}.ln_2", x))
        hidden = jax.nn.gelu(hidden, approximate=work.activation == "gelu_tanh")
        x = x + linear(w, f"{name}.mlp.c_proj", hidden)
    scores = log_softmax(layer_norm(w, "ln_f", x) @ w["wte.weight"].T)
    return -jnp.take_along_axis(scores, targets[..., None], -1).mean()


def linear(w: Weights, name: str, x: jax.Array) -> jax.Array:
    y = x @ w[f"{name}.weight"].T
    bias = w.get(f"{name}.bias")
    return y if bias is None else y + bias


# What both use ---------------------------------------------------------------------------------


def attend(
    heads: int, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """Projected q (B, T, D), k and v (B, S, D) -> (B, T, D). mask: over the keys; None: causal. On
    a GPU, in 16 bits, it is cuDNN's."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    if jax.default_backend() == "gpu" and q.dtype != jnp.float32:
        full = None if mask is None else jnp.broadcast_to(mask, (len(q), 1, q.shape[1], k.shape[1]))
        y = jax.nn.dot_product_attention(
            q, k, v, mask=full, is_causal=mask is None, implementation="cudnn"
        )
        return y.reshape(*y.shape[:2], -1)
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
    kept = causal(q.shape[1]) if mask is None else mask
    chances = jax.nn.softmax(jnp.where(kept, scores.astype(jnp.float32), -jnp.inf))
    y = jnp.einsum("bhts,bshd->bthd", chances.astype(v.dtype), v)
    return y.reshape(*y.shape[:2], -1)


def log_softmax(logits: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits.astype(jnp.float32))


def causal(length: int) -> Array:
    return np.tril(np.ones((length, length), np.bool_))


def layer_norm(w: Weights, name: str, x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]
    bias = w.get(f"{name}.bias")
    return (y if bias is None else y + bias).astype(x.dtype)


# A step of training ----------------------------------------------------------------------------


State = tuple[Weights, Weights, Weights, jax.Array]
Step = Callable[[State, tuple[jax.Array, ...]], tuple[State, jax.Array]]


def begin(work: Work, dropout: float, dtype: Any = jnp.float32) -> tuple[State, Step]:
    """The first state, with the shared weights, and the step: (state, batch) -> state, loss. dtype:
    what the loss is computed in; weights and moments are float32 in any case."""
    w = {name: jnp.asarray(x) for name, x in weights(work).items()}
    if isinstance(work, TransformerWork):
        of_work: Callable[..., jax.Array] = partial(transformer_loss, work, dropout)
        decay = 0.0
    else:
        of_work, decay = partial(gpt_loss, work, dropout), work.weight_decay

    def loss(w: Weights, key: jax.Array, batch: tuple[jax.Array, ...]) -> jax.Array:
        return of_work({name: x.astype(dtype) for name, x in w.items()}, key, batch)

    first, second = ({name: jnp.zeros_like(x) for name, x in w.items()} for _ in range(2))
    state = (w, first, second, jnp.zeros((), jnp.int32))
    return state, jax.jit(partial(step, work, decay, loss), donate_argnums=0)


class Training:
    """Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: Work, dropout: float, shared: bool) -> None:
        """JAX has no models and so no weights of its own: they are the shared ones in any case."""
        self._state, self._step = begin(work, dropout)

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
    state: State,
    batch: tuple[jax.Array, ...],
) -> tuple[State, jax.Array]:
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
