"""Loops that tests try in every mode: what they carry, read, keep and change.

What goes out: LOOPS, functions without arguments that give a nest of Tensors, and CELLS, of which
loss() makes a loss and gradients() the gradients by LEAVES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import tree
from tinygrad_tx.nn.functional import dropout, layer_norm, scaled_dot_product_attention

_draw = np.random.default_rng(0)


def _normal(*shape: int) -> tx.Tensor:
    return tx.tensor(_draw.normal(size=shape).astype(np.float32))


X, H, MEMORY = _normal(6, 3, 4), _normal(3, 4), _normal(3, 7, 4)
W, XG, HG, TABLE = (_normal(*s).requires_grad_() for s in ((4, 4), (6, 3, 4), (3, 4), (10, 4)))
IDS = tx.tensor(np.arange(18).reshape(6, 3) % 10)
BATCH_FIRST = _normal(3, 6, 4)
COUNT, AVERAGE = tx.tensor(0.0), tx.zeros(3, 4)  # state
STATE = (COUNT, AVERAGE)


def _with_state(c: Any, x: Any) -> Any:
    COUNT.assign(COUNT + 1)
    AVERAGE.assign(AVERAGE * 0.9 + x)
    return c + x * COUNT, c.sum() + AVERAGE.sum()


def _write(c: Any, x: Any) -> Any:
    i, table = c
    table = table + 0
    table[i] = x.sum(1)
    return (i + 1, table), None


def _copies(c: Any, x: Any) -> Any:
    n = c[0] * 0.5 + c[1] * 0.1 + c[2].reshape(3, 4) * 0.3 + x
    return (n, n.clone(), n.reshape(12)), c


def _remembers(c: Any, x: Any) -> Any:
    AVERAGE.assign(AVERAGE * 0.5 + c + x)
    return c * 0.5 + x, AVERAGE * 1


def _in_place(c: Any, x: Any) -> Any:
    c += x
    c[0] = x[1]
    return c, c * 2


def _nest(c: Any, x: Any) -> Any:
    carry = {"a": c["a"] + x["u"], "b": [c["b"][0] * 2], "none": None}
    return carry, {"s": (x["v"], c["a"]), "none": None}


def _half(c: Any, x: Any) -> Any:
    return c * 0.5 + x, c


def _inner(c: Any, x: Any) -> Any:
    return tx.scan(lambda d, b: ((d @ W * 0.1).tanh() + b, d.sum()), c, x)


def _reshaped(c: Any, x: Any) -> Any:
    c = c * 0.5 + x
    return c, (c.reshape(12), c.T)


LOOPS: dict[str, Callable[[], Any]] = {
    "sum": lambda: tx.scan(lambda c, x: (c + x, c), H, X),
    "swapped carries": lambda: tx.scan(lambda c, x: ((c[1], c[0] + x), c[0]), (H, H * 2), X),
    "one value twice": lambda: tx.scan(lambda c, x: ((c[0] + x,) * 2, c[1]), (H, H * 2), X),
    "one value three times": lambda: tx.scan(
        lambda c, x: ((c[0] + x,) * 3, c), (H, H * 2, X[0]), X
    ),
    "copies of one value": lambda: tx.scan(_copies, (H, H * 2, H.reshape(12)), X),
    "state of the carry": lambda: tx.scan(_remembers, H, X),
    "state as the first carry": lambda: tx.scan(_remembers, AVERAGE, X),
    "a carry changed in place": lambda: tx.scan(_in_place, H, X),
    "an invariant y": lambda: tx.scan(lambda c, x: (c + x, (W @ W).detach()), H, X),
    "nothing at all": lambda: (tx.scan(lambda c, _: (None, None), None, None, 3), H + 1),
    "carry and x as they are": lambda: tx.scan(lambda c, x: (c, x), H, X),
    "constants as y": lambda: tx.scan(lambda c, x: (c + 1, (tx.ones(2), W)), H, X),
    "a carry that is made anew": lambda: tx.scan(lambda c, x: (tx.zeros(3, 4), c), H, X),
    "invariant product": lambda: tx.scan(lambda c, x: (x @ (W @ W), c), H, X),
    "length alone": lambda: tx.scan(lambda c, _: (c * 1.5, c.sum()), H, None, length=5),
    "a Python number": lambda: tx.scan(lambda c, _: (c + 1, c), 0, None, 5),
    "no carry": lambda: tx.scan(lambda c, x: (None, x * 2), None, X),
    "reverse": lambda: tx.scan(_half, H, X, reverse=True),
    "one round": lambda: tx.scan(_half, H, X[:1]),
    "no rounds": lambda: tx.scan(_half, H, X[:0]),
    "no rounds without xs": lambda: tx.scan(lambda c, _: (c * 0.5, None), H, None, length=0),
    "dropout": lambda: tx.scan(lambda c, x: (dropout(c + dropout(x, 0.3)), c), H, X),
    "random numbers": lambda: tx.scan(lambda c, x: (c + tx.rand(3, 4), tx.randn(2)), H, X),
    "state": lambda: tx.scan(_with_state, H, X),
    "a write at an index": lambda: tx.scan(_write, (tx.tensor(0), tx.zeros(6, 3)), X),
    "an embedding": lambda: tx.scan(lambda c, i: (c + TABLE[i], TABLE[i].sum()), H, IDS),
    "a nest": lambda: tx.scan(
        _nest, {"a": H, "b": [tx.ones(2)], "none": None}, {"u": X, "v": X.transpose(1, 2)}
    ),
    "flipped xs": lambda: tx.scan(_half, H, X.flip(0)),
    "xs with strides": lambda: tx.scan(_half, H, BATCH_FIRST.transpose(0, 1)),
    "computed xs with strides": lambda: tx.scan(_half, H, (BATCH_FIRST * 2).transpose(0, 1)),
    "one x for all": lambda: tx.scan(_half, H, H.expand(6, 3, 4)),
    "reshaped carry as y": lambda: tx.scan(_reshaped, H, X),
    "flags": lambda: tx.scan(lambda c, x: (c | (x > 1), c), tx.zeros(3, 4) > 1, X),
    "loops inside": lambda: tx.scan(_inner, tx.zeros(4), X),
    "one after the other": lambda: tx.scan(lambda c, x: (c + x, c), H, tx.scan(_half, H, X)[1]),
    "double": lambda: tx.scan(
        lambda c, x: ((c @ W.to(tx.float64)).tanh() + x, c), H.to(tx.float64), X.to(tx.float64)
    ),
    "an invariant value without gradients": lambda: _without_gradients(),
    "choices": lambda: tx.scan(
        lambda c, _: ((TABLE[c] @ W).argmax(-1), c), tx.tensor([1, 2, 3]), None, length=4
    ),
}


@tx.no_grad()
def _without_gradients() -> Any:
    return tx.scan(lambda c, x: ((c @ (W * 2) + x.detach()).tanh(), c * W.detach().sum()), H, XG)


def _attend(c: Any, x: Any) -> Any:
    return scaled_dot_product_attention((c @ W).unsqueeze(1), MEMORY, MEMORY).squeeze(1) + x, c


def _gates(c: Any, x: Any) -> Any:
    gates = c @ W + x
    return gates[:, :2].sigmoid().sum(1, keepdim=True) * c + gates[:, 2:].tanh().sum(), c


def _carries_copies(c: Any, x: Any) -> Any:
    n = ((c[0] * c[1].reshape(3, 4)) @ W + x).tanh()
    return (n, n.flatten()), None


def _accumulates(c: Any, x: Any) -> Any:
    AVERAGE.assign((AVERAGE * 0.5 + c * x).detach())
    return (c @ W + x + AVERAGE).tanh(), c


CELLS: dict[str, tuple[Callable[[Any, Any], Any], Any, Any]] = {
    "tanh": (lambda c, x: ((c @ W + x).tanh(), c), HG, XG),
    "without ys": (lambda c, x: ((c @ W + x).tanh(), None), HG, XG),
    "ys alone count": (lambda c, x: ((c * x).tanh(), c @ W), HG, XG),
    "a weight twice": (lambda c, x: ((c @ W.T + x @ W).tanh(), c), HG, XG),
    "copies carried": (_carries_copies, (HG, HG.detach().reshape(12)), XG),
    "state of the carry": (_accumulates, HG, XG),
    "swap": (lambda c, x: ((c[1], (c[0] @ W + x).tanh()), c[0].sum()), (HG, H), XG),
    "gates": (_gates, HG, XG),
    "dropout": (lambda c, x: (dropout((c @ W + x).tanh(), 0.4), c), HG, XG),
    "cut": (lambda c, x: ((c.detach() @ W + x).tanh(), c), HG, XG),
    "softmax": (lambda c, x: ((c @ W + x).softmax(-1), c.amax()), HG, XG),
    "layer norm": (lambda c, x: (layer_norm(c @ W + x, (4,)), c.mean(0)), HG, XG),
    "an embedding": (lambda c, i: ((c + TABLE[i] @ W).tanh(), c), HG, IDS),
    "a part of a weight": (lambda c, x: ((c * W[0] + x).tanh(), c * W.sum()), HG, XG),
    "batches": (lambda c, x: ((c.unsqueeze(0) @ W + x).tanh().squeeze(0), c), HG, XG),
    "loops inside": (
        lambda c, x: tx.scan(lambda d, b: ((d @ W * 0.3 + b).tanh(), d.sum()), c, tx.stack([x, x])),
        HG,
        XG,
    ),
    "where": (lambda c, x: (tx.where(x > 0, (c @ W).tanh(), c), c), HG, XG),
    "concatenations": (lambda c, x: ((tx.cat([c, x], 1) @ tx.cat([W, W], 0)).tanh(), c), HG, XG),
    "a first carry without gradient": (lambda c, x: ((c @ W + x).tanh(), c), H, XG),
    "attention": (_attend, HG, XG),
}
LEAVES = (W, XG, HG, TABLE)


def tensors(nest: Any) -> Iterator[tx.Tensor]:
    return (x for x in tree.leaves(nest) if isinstance(x, tx.Tensor))


def loss(name: str, **options: Any) -> tx.Tensor:
    """A number that depends on all that the loop of a cell gives."""
    f, init, xs = CELLS[name]
    made = tensors(tx.scan(f, init, xs, **options))
    return sum((x * (i + 1)).sin().sum() for i, x in enumerate(made))  # type: ignore[return-value]


def gradients(loss: tx.Tensor) -> list[tx.Tensor]:
    """By all leaves; zeros where one is not reached."""
    loss.backward()
    found = [loss.detach(), *(tx.zeros(1) if x.grad is None else x.grad for x in LEAVES)]
    for x in LEAVES:
        x.grad = None
    return found


def fresh() -> None:
    """Random numbers and state as they were at first."""
    tx.manual_seed(3)
    for tensor in STATE:
        tensor.assign(tx.zeros_like(tensor))


@contextmanager
def on(device: str) -> Iterator[None]:
    """Inside, all of these Tensors lie on a device, and there new ones are made."""
    before = tx.get_default_device()
    _move(device)
    tx.set_default_device(device)
    try:
        yield
    finally:
        tx.set_default_device(before)
        _move(before)


def _move(device: str) -> None:
    named = [x for x in globals().values() if isinstance(x, tx.Tensor)]
    for x in (*named, *tensors([cell[1:] for cell in CELLS.values()])):
        asks = x.requires_grad
        x._point(x.detach().to(device).node)
        x.requires_grad_(asks)
