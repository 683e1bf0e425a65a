"""Random functions to scan: what they compute, carry, give, capture and read.

What goes out: Loop, made from a seed, which tests run eagerly and compiled.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.nn.functional import dropout, layer_norm


class Loop:
    """A call of tx.scan, and what its loss is differentiated by."""

    def __init__(self, seed: int) -> None:
        draw, normal = random.Random(seed), np.random.default_rng(seed).normal
        b, d, self.length = draw.choice([1, 2, 5]), draw.choice([1, 3, 8]), draw.choice([1, 2, 5])

        def tensor(*shape: int, asks: float = 1.0) -> tx.Tensor:
            made = tx.tensor(normal(size=shape).astype(np.float32) * 0.5)
            return made.requires_grad_(draw.random() < asks)

        self.seed, self.d = seed, d
        self.weight, self.bias, self.other = tensor(d, d), tensor(d), tensor(b, d)
        self.carry = tuple(tensor(b, d, asks=0.7) for _ in range(draw.choice([1, 1, 2, 3])))
        rows = [tensor(self.length, b, d, asks=0.7) for _ in range(draw.choice([0, 1, 2]))]
        self.xs, self.lay = tuple(rows), draw.choice([_as_it_is, _flipped, _batch_first, _made])
        steps = [_STEPS[name] for name in draw.choices(list(_STEPS), k=draw.randint(2, 9))]
        self.steps = [(step, draw.random(), draw.random()) for step in steps]
        self.outs = [(draw.random(), draw.random() < 0.5) for _ in self.carry]
        self.ys = [draw.random() for _ in range(draw.choice([0, 1, 2, 3]))]
        self.options = {"reverse": draw.random() < 0.3, "checkpoint": draw.random() < 0.3}
        every = (self.weight, self.bias, self.other, *self.carry, *self.xs)
        self.leaves = [t for t in every if t.requires_grad]

    def cell(self, carry: Any, xs: Any) -> Any:
        values = [*carry, *(xs or ())]
        for step, one, other in self.steps:
            values.append(step(self, *(values[int(at * len(values))] for at in (one, other))))

        def chosen(at: float) -> tx.Tensor:
            return values[int(at * len(values))]

        outs = [(chosen(at) * 0.5).tanh() if made else chosen(at) for at, made in self.outs]
        return tuple(outs), tuple(map(chosen, self.ys))

    def run(self) -> list[tx.Tensor]:
        """The loss, all that the loop gives, and the gradients (zeros where there is none)."""
        xs = tuple(map(self.lay, self.xs)) or None
        carry, ys = tx.scan(self.cell, self.carry, xs, length=self.length, **self.options)
        made = (*carry, *ys)
        loss = sum((x * (i + 1)).sin().sum() for i, x in enumerate(made))
        if loss.requires_grad:
            loss.backward()
        found = [tx.zeros_like(t) if t.grad is None else t.grad for t in self.leaves]
        for t in self.leaves:
            t.grad = None
        return [loss.detach(), *(x.detach() for x in made), *found]


def _as_it_is(x: tx.Tensor) -> tx.Tensor:
    return x


def _flipped(x: tx.Tensor) -> tx.Tensor:
    return x.flip(0)


def _batch_first(x: tx.Tensor) -> tx.Tensor:
    return (x.transpose(0, 1) * 1.5).transpose(0, 1)


def _made(x: tx.Tensor) -> tx.Tensor:
    return (x * 2).tanh()


_STEPS: dict[str, Callable[[Loop, tx.Tensor, tx.Tensor], tx.Tensor]] = {
    "add": lambda f, u, v: u + v,
    "mul": lambda f, u, v: u * v * 0.5,
    "product": lambda f, u, v: u @ f.weight,
    "transposed product": lambda f, u, v: v @ f.weight.T,
    "tanh": lambda f, u, v: u.tanh(),
    "sigmoid": lambda f, u, v: (u * 2).sigmoid(),
    "relu": lambda f, u, v: u.relu(),
    "halves": lambda f, u, v: tx.cat([u[:, f.d // 2 :], v[:, : f.d // 2]], 1),
    "softmax": lambda f, u, v: u.softmax(-1),
    "centred": lambda f, u, v: u - u.mean(1, keepdim=True),
    "constants": lambda f, u, v: u * f.bias + f.other * (f.bias * f.bias),
    "where": lambda f, u, v: tx.where(u > v, u, v * 0.3),
    "inner": lambda f, u, v: (u.T @ v @ f.weight).sum(0, keepdim=True).expand(*u.shape) * 0.1,
    "maximum": lambda f, u, v: tx.maximum(u, v),
    "dropout": lambda f, u, v: dropout(u, 0.3),
    "cut": lambda f, u, v: u.detach() * 0.5 + v,
    "layer norm": lambda f, u, v: layer_norm(u + v, (f.d,), f.bias),
    "flip": lambda f, u, v: u.flip(1),
}
