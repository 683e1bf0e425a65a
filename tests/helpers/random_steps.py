"""What a random program may do to its values: one small function for each kind of step.

A step takes the machine that runs the program (random_graphs.py), two earlier values and a number
that chooses among axes, shapes and variants; it gives a new value, or None where the operands do
not fit. It looks at shapes only, and compares with odd numbers, so that no two values are nearly
equal by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import drawing
from tinygrad_tx.nn import functional as F  # noqa: N812

if TYPE_CHECKING:
    from random_graphs import Machine

# Help --------------------------------------------------------------------------------------------


def like(y: tx.Tensor, shape: tuple[int, ...], dtype: Any) -> tx.Tensor:
    """y made to broadcast to a shape: by means over what does not fit."""
    y = y.to(dtype)
    while y.ndim > len(shape):
        y = y.mean(0)
    off = [i - y.ndim for i in range(y.ndim) if y.shape[i] not in (1, shape[i - y.ndim])]
    return y.mean(tuple(off), keepdim=True) if off else y


def axes(k: int, ndim: int) -> tuple[int, ...]:
    """Some of the axes, at least one, by the bits of k."""
    found = tuple(i - ndim if k >> 5 & 1 else i for i in range(ndim) if k >> i & 1)
    return found or (k % ndim,)


def permuted(k: int, ndim: int) -> list[int]:
    left = list(range(ndim))
    return [left.pop(k // (i + 1) % len(left)) for i in range(ndim)]


def ranges(k: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Slices of every axis, some backwards, none empty."""
    found = []
    for i, n in enumerate(shape):
        how = (k >> 2 * i) % 6
        if n == 1 or how == 0:
            found.append(slice(None))
        else:
            found.append(
                [
                    slice(1, None),
                    slice(None, None, 2),
                    slice(None, None, -1),
                    slice(None, -1),
                    slice(-1, None, -2),
                ][how - 1]
            )
    return tuple(found)


def reshape(x: tx.Tensor, k: int) -> tuple[int, ...]:
    """Another shape of as many elements."""
    size, shape = x.numel(), []
    for i in range(k % 3):
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        shape.append(divisors[k // (i + 2) % len(divisors)])
        size //= shape[-1]
    return (*shape, size)


def rows(x: tx.Tensor) -> tx.Tensor:
    """As a matrix."""
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)


# Steps -------------------------------------------------------------------------------------------
# (machine, x, y, k) -> the new value, or None where it does not fit.

How = Callable[["Machine", Any, Any, int], Any]
STEPS: dict[str, How] = {}

UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": lambda x: (x * 0.3).exp(),
    "expm1": lambda x: (x * 0.3).expm1(),
    "log": lambda x: (x * x + 0.5).log(),
    "log1p": lambda x: (x * x).log1p(),
    "sqrt": lambda x: (x * x + 0.3).sqrt(),
    "rsqrt": lambda x: (x * x + 0.3).rsqrt(),
    "reciprocal": lambda x: (x.abs() + 0.4).reciprocal(),
    "tanh": lambda x: x.tanh(),
    "sin_cos": lambda x: x.sin() * x.cos(),
    "erf": lambda x: x.erf(),
    "sigmoid": lambda x: x.sigmoid(),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": F.gelu_tanh,
    "relu": lambda x: (x - 0.123).relu(),
    "abs": lambda x: (x + 0.0717).abs(),
    "neg": lambda x: -x,
    "square": lambda x: x.square(),
    "cube": lambda x: (x * 0.5) ** 3,
    "clip": lambda x: x.clip(-0.77, 1.31),
    "clip_low": lambda x: x.clip(min=-0.31),
    "floor": lambda x: (x * 1.7).floor(),
    "sign": lambda x: (x - 0.0317).sign() * x,
    "scalars": lambda x: 1.5 - 2 * x / 3,
    "remainder": lambda x: x % 1.3171,
    "floor_divide": lambda x: x // 0.7171,
    "finite": lambda x: tx.where(x.isfinite() & ~x.isnan() & ~x.isinf(), x, 0),
    "twice": lambda x: x + x,
    "nothing": lambda x: (x + 0) * 1,
    "halves": lambda x: x.float().to(x.dtype),
    "detach": lambda x: x.detach() * x,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y * 0.5,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y * y + 1),
    "power": lambda x, y: (x * x + 1) ** y.tanh(),
    "where": lambda x, y: tx.where(x > 0.0311, x, y * 2),
    "masked": lambda x, y: ((x > y) ^ (y < 0.1713)).to(x.dtype) * x,
    "logic": lambda x, y: tx.where(~(x > y) | (x >= 1.1317) & (y != 0.5), y, x * 0.5),
    "maximum": lambda x, y: x.maximum(y + 0.0173),
    "minimum": lambda x, y: tx.minimum(x * 1.0371, y),
    "residual": lambda x, y: F.layer_norm(x + y, x.shape[-1:], eps=0.1) if x.ndim else x,
}


def _unary(f: Callable[[Any], Any]) -> How:
    return lambda m, x, y, k: f(x.to(m.dtype))


def _binary(f: Callable[[Any, Any], Any]) -> How:
    return lambda m, x, y, k: f(x.to(m.dtype), like(y, x.shape, m.dtype))


STEPS.update({name: _unary(f) for name, f in UNARY.items()})
STEPS.update({name: _binary(f) for name, f in BINARY.items()})


def _step(f: How) -> How:
    STEPS[f.__name__.lstrip("_")] = f
    return f


def _reduction(name: str) -> None:
    def reduce(m: Machine, x: Any, y: Any, k: int) -> Any:
        if not x.ndim:
            return getattr(x.to(m.dtype), name)()
        return getattr(x.to(m.dtype) + 0.0, name)(dim=axes(k, x.ndim), keepdim=bool(k >> 4 & 1))

    STEPS[name] = reduce


for _name in ("sum", "mean", "amax", "amin", "norm", "logsumexp"):
    _reduction(_name)


@_step
def _var(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.to(m.dtype).var(axes(k, x.ndim) if x.ndim else None, correction=0)


@_step
def _any_all(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    some = (x > 0.4171).any(axes(k, x.ndim), keepdim=True)
    every = (x > -0.8171).all(axes(k >> 1, x.ndim), keepdim=True)
    return tx.where(some & ~every, x.to(m.dtype), 0.25)


@_step
def _argmax(m: Machine, x: Any, y: Any, k: int) -> Any:
    return (x.argmax if k & 1 else x.argmin)(k // 2 % x.ndim, keepdim=bool(k & 8)) if x.ndim else x


@_step
def _max_values(m: Machine, x: Any, y: Any, k: int) -> Any:
    return (x.max if k & 1 else x.min)(dim=k // 2 % x.ndim).values if x.ndim else None


# Movement


@_step
def _reshape(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.reshape(reshape(x, k))


@_step
def _permute(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.permute(*permuted(k, x.ndim)) if x.ndim else None


@_step
def _slice(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x[ranges(k, x.shape)] if x.ndim else x[None]


@_step
def _flip(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.flip(*axes(k, x.ndim)) if x.ndim else None


@_step
def _pad(m: Machine, x: Any, y: Any, k: int) -> Any:
    widths = [k & 1, k >> 1 & 1, k >> 2 & 1, 0][: 2 * min(x.ndim, 2)]
    return F.pad(x.to(m.dtype), widths, value=k % 3)


@_step
def _pad_whole(m: Machine, x: Any, y: Any, k: int) -> Any:
    return F.pad(x.to(m.dtype), [1, k % 3] * x.ndim) if x.ndim else None


@_step
def _cat(m: Machine, x: Any, y: Any, k: int) -> Any:
    other = like(y, x.shape, m.dtype).expand(*x.shape)
    return tx.cat([x.to(m.dtype), other * 2, other][: 2 + k % 2], k % x.ndim) if x.ndim else None


@_step
def _stack(m: Machine, x: Any, y: Any, k: int) -> Any:
    x = x.to(m.dtype)
    return tx.stack([x, like(y, x.shape, m.dtype).expand(*x.shape), x * x], k % (x.ndim + 1))


@_step
def _other_width(m: Machine, x: Any, y: Any, k: int) -> Any:
    """Half of the rows in twice the width, as many bytes, for what is no map."""
    if x.ndim < 2 or not x.shape[0] // 2 or m.dtype is not tx.float32:
        return None
    part = (x.to(m.dtype) * 0.5)[: x.shape[0] // 2].double()
    return (part @ part.mT).to(m.dtype) * 0.3


@_step
def _split(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim or x.shape[k % x.ndim] % 2:
        return None
    a, b = x.to(m.dtype).chunk(2, k % x.ndim)
    return a * b.sigmoid() + b


@_step
def _broadcast(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.expand(1 + k % 3, *x.shape)


@_step
def _squeeze(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.squeeze() if k & 1 else x.unsqueeze(k // 2 % (x.ndim + 1))


@_step
def _heads(m: Machine, x: Any, y: Any, k: int) -> Any:
    """Cut the last axis, and put what was cut before the one before it."""
    if x.ndim < 2 or x.shape[-1] % 2:
        return None
    return x.reshape(*x.shape[:-1], 2, -1).transpose(-3, -2)


@_step
def _tril(m: Machine, x: Any, y: Any, k: int) -> Any:
    return (tx.tril if k & 1 else tx.triu)(x.to(m.dtype), k % 3 - 1) if x.ndim > 1 else None


# Products and what is fused with them


@_step
def _matmul(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    x = x.to(m.dtype)
    if y.numel() % x.shape[-1] == 0 and not k & 4:
        return x @ y.to(m.dtype).reshape(-1, x.shape[-1]).T * 0.3
    return x @ (x * like(y, x.shape, m.dtype)).mT * 0.3 if x.ndim > 1 else None


@_step
def _product_left(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.to(m.dtype).mT @ like(y, x.shape, m.dtype).expand(*x.shape) if x.ndim > 1 else None


@_step
def _linear(m: Machine, x: Any, y: Any, k: int) -> Any:
    """Times the captured weight, with a bias and an activation."""
    if not x.ndim or x.shape[-1] > 7:
        return None
    n = 1 + k % 7
    out = F.linear(x.to(m.dtype), m.weight[:n, : x.shape[-1]], m.weight[0, :n])
    return [out, out.relu(), F.gelu(out), out.tanh()][k % 4]


@_step
def _linear_residual(m: Machine, x: Any, y: Any, k: int) -> Any:
    """A sublayer of a Transformer: product, dropout, residual, layer norm."""
    if not x.ndim or x.shape[-1] > 7:
        return None
    d = x.shape[-1]
    x = x.to(m.dtype)
    h = F.dropout(F.linear(x, m.weight[:d, :d], m.weight[1, :d]), 0.25, training=bool(k & 1))
    return F.layer_norm(x + h, (d,), m.weight[2, :d], m.weight[3, :d], eps=0.1)


@_step
def _softmax(m: Machine, x: Any, y: Any, k: int) -> Any:
    x = x.to(m.dtype)
    return (x.log_softmax if k & 1 else x.softmax)(k // 2 % x.ndim) if x.ndim else None


@_step
def _softmax_by_hand(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    x = x.to(m.dtype)
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@_step
def _layer_norm(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    x = x.to(m.dtype)
    weight = m.fixed(x.shape[-1]) if k & 1 else None
    if k & 2:
        return F.rms_norm(x, x.shape[-1:], weight, eps=0.1)
    return F.layer_norm(x, x.shape[-1:], weight, weight, eps=0.1)


@_step
def _layer_norm_by_hand(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    x = x.to(m.dtype)
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred * centred).mean(-1, keepdim=True) + 0.1).sqrt()


@_step
def _cross_entropy(m: Machine, x: Any, y: Any, k: int) -> Any:
    """Where classes are the last axis; target 0 may count for nothing."""
    x = rows(x.to(m.dtype))
    n, classes = x.shape
    if n > m.ids.shape[0]:
        return None
    skip = 0 if k & 1 else -100
    how = "none" if k & 2 else "sum"
    loss = F.cross_entropy(
        x,
        m.indices(classes, n),
        ignore_index=skip,
        reduction=how,
        label_smoothing=0.1 * (k >> 2 & 1),
    )
    return loss * 0.2


@_step
def _attention(m: Machine, x: Any, y: Any, k: int) -> Any:
    if x.ndim < 2 or x.ndim > 4:
        return None
    x = x.to(m.dtype)
    keys = x * like(y, x.shape, m.dtype) + 0.5
    keys = keys[..., 1:, :] if k & 64 and x.shape[-2] > 1 else keys
    t, s = x.shape[-2], keys.shape[-2]
    mask = None
    if k & 3 == 1:  # whole rows may be masked
        mask = m.fixed(t, s) > 0.2171
    elif k & 3 == 2:
        mask = like(y, (t, s), m.dtype).expand(t, s)
    elif k & 3 == 3 and x.ndim > 2:  # padding: a number of keys for each batch entry
        lengths = m.indices(s + 1, *(x.shape[0], *(1,) * (x.ndim - 1)))
        mask = tx.arange(s) < lengths
    return F.scaled_dot_product_attention(
        x, keys, keys * 0.5, mask, 0.25 if k & 48 == 48 else 0.0, bool(k & 4)
    )


@_step
def _attention_by_hand(m: Machine, x: Any, y: Any, k: int) -> Any:
    if x.ndim < 2:
        return None
    x = x.to(m.dtype)
    scores = x @ (x * like(y, x.shape, m.dtype)).mT * 0.4
    t = x.shape[-2]
    if k & 1:
        scores = tx.where(tx.arange(t) <= tx.arange(t).unsqueeze(-1), scores, -np.inf)
    if k & 2:
        scores = scores.masked_fill(m.fixed(t, t) > 0.2171, -1e9)
    return scores.softmax(-1) @ x


# Gathers and writes


@_step
def _take(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    axis = k % x.ndim
    return x.index_select(axis, m.indices(x.shape[axis], 1 + k % 5))


@_step
def _embedding(m: Machine, x: Any, y: Any, k: int) -> Any:
    x = rows(x.to(m.dtype))
    return F.embedding(m.indices(x.shape[0], 2, 1 + k % 3), x)


@_step
def _pick(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x[[0, -1, 0]] if x.ndim else None


@_step
def _pick_two(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x[m.indices(x.shape[0], 3), :, [0, -1, 0]] if x.ndim > 2 else None


@_step
def _along(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim or x.ndim > 3 or x.numel() > m.ids.shape[0]:
        return None
    axis = k % x.ndim
    return x.gather(axis, m.indices(x.shape[axis], *x.shape))


@_step
def _index_add(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    axis = k % x.ndim
    count = 1 + k % 4
    part = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    value = like(y, part, m.dtype).expand(*part)
    return x.to(m.dtype).index_add(axis, m.indices(x.shape[axis], count), value)


@_step
def _one_hot(m: Machine, x: Any, y: Any, k: int) -> Any:
    if not x.ndim:
        return None
    return F.one_hot(m.indices(x.shape[-1], 1), x.shape[-1]).to(m.dtype) * x.to(m.dtype)


@_step
def _write(m: Machine, x: Any, y: Any, k: int) -> Any:
    """Into slices of a value of the program."""
    if not x.ndim:
        return None
    out = x.to(m.dtype) * 1.0
    where = ranges(k, x.shape)
    piece = out[where].shape
    out[where] = like(y, piece, m.dtype).expand(*piece) if k & 1 else 0.25
    out += x.to(m.dtype)
    return out


@_step
def _write_at(m: Machine, x: Any, y: Any, k: int) -> Any:
    """At positions that the program computes."""
    if not x.ndim:
        return None
    out = x.to(m.dtype) + 0.0
    if k & 1:
        out[m.indices(x.shape[0], 1)[0]] = like(y, x.shape[1:], m.dtype)
    else:
        piece = (2, *x.shape[1:])
        first = m.indices(x.shape[0], 1)
        if x.shape[0] < 2:
            return None
        both = tx.cat([first, (first + 1) % x.shape[0]])
        out[both] = like(y, piece, m.dtype).expand(*piece)
    return out


@_step
def _write_mask(m: Machine, x: Any, y: Any, k: int) -> Any:
    out = x.to(m.dtype) + 0.0
    out[out > 0.3317] = 0.5
    return out


# Random numbers and what is called as it is


@_step
def _dropout(m: Machine, x: Any, y: Any, k: int) -> Any:
    return F.dropout(x.to(m.dtype), [0.1, 0.25, 0.5][k % 3])


@_step
def _keep(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.to(m.dtype).where(drawing.bernoulli_keep(x.shape, 0.3), like(y, x.shape, m.dtype))


@_step
def _rand(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.to(m.dtype) * tx.rand(*x.shape, dtype=m.dtype)


@_step
def _cumsum(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.to(m.dtype).cumsum(k % x.ndim) * 0.5 if x.ndim else None


@_step
def _sort(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.sort(k % x.ndim, descending=bool(k & 8)).values if x.ndim else None


@_step
def _topk(m: Machine, x: Any, y: Any, k: int) -> Any:
    return x.topk(1 + k % x.shape[-1], -1).values if x.ndim else None


# Gradients inside, and state


@_step
def _slope(m: Machine, x: Any, y: Any, k: int) -> Any:
    """A gradient that is differentiated again."""
    other = like(y, x.shape, m.dtype)
    inner = [
        lambda v: (v * other).tanh().sum(),
        lambda v: (v.softmax(-1) * other).sum() if x.ndim else v * v,
        lambda v: (F.layer_norm(v, v.shape[-1:], eps=0.1) ** 2 * other).sum() if x.ndim else v * v,
        lambda v: (v @ v.mT).square().mean() if x.ndim > 1 else (v * v * v).sum(),
    ][k % 4]
    return tx.grad(inner)(x.to(m.dtype))


@_step
def _state_read(m: Machine, x: Any, y: Any, k: int) -> Any:
    return m.state[k % 2] * 0.5


@_step
def _state_assign(m: Machine, x: Any, y: Any, k: int) -> Any:
    """Read, write anew, and go on with what was read."""
    state = m.state[k % 2]
    before = state * 1.5
    state.assign(0.5 * state + like(x, state.shape, m.dtype).detach() * 0.25)
    return before if k & 4 else before + state


@_step
def _state_add(m: Machine, x: Any, y: Any, k: int) -> Any:
    state = m.state[k % 2]
    state *= 0.75
    state += like(x, state.shape, m.dtype).detach().expand(*state.shape) * 0.1
    m.count += 1
    return like(x, state.shape, m.dtype) * state


@_step
def _state_swap(m: Machine, x: Any, y: Any, k: int) -> Any:
    """A state's new value is a view of its old one, or of the input."""
    state = m.state[0]
    state.assign(state.flip(0) if k & 1 and state.ndim else state * 1)
    return state.T


@_step
def _state_write(m: Machine, x: Any, y: Any, k: int) -> Any:
    """A cache: a part of it is written, where the program says."""
    state = m.state[1]
    state[m.count % 3 if k & 1 else k % 3] = like(x, (), m.dtype).detach()
    if k & 2:
        state[::2] = state[::2] * 0.5
    return state + 0.0
