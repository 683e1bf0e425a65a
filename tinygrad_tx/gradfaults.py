"""The op at fault where gradients and differences disagree: which of its inputs and elements, and
what kind of mistake its vjp makes, where that can be told.

In: the graph that a function has recorded. Out: a sentence for gradcheck's error; empty where each
op by itself is right. Called by gradcheck.py, when something has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from math import prod
from typing import Any

import numpy as np

from . import backends
from .autograd import gradients
from .context import set_grad_enabled
from .creation import tensor
from .dtypes import float64
from .node import ITEM, Graph, Node, apply, execute, leaf
from .rules import Spec

Array = np.ndarray[Any, Any]
MOST = 1024  # elements of an input that are looked at


def fault(roots: Sequence[Node], rng: np.random.Generator, eps: float) -> str:
    """The first op whose gradient is wrong by itself, in words."""
    for node in Graph(roots):
        if node.op.kind in ("leaf", "loop", "random", "create") or not node.requires_grad:
            continue
        use = _Use(node, rng, eps)
        for i in use.floats:
            wrong = use.wrong(i)
            if wrong:
                return f"op {node.op.name}, input {i}{wrong}"
    return ""


class _Use:
    """One use of an op by itself. Two random cotangents tell a factor from a coincidence."""

    def __init__(self, node: Node, rng: np.random.Generator, eps: float) -> None:
        self.node, self.eps = node, eps
        self.arrays = [src.array for src in node.srcs]
        self.floats = [
            i
            for i, src in enumerate(node.srcs)
            if isinstance(src.spec, Spec) and src.dtype == float64 and src.requires_grad
        ]
        self.outs = [i for i, spec in enumerate(node.specs) if spec.dtype == float64]
        shapes = [node.specs[i].shape for i in self.outs]
        self.drawn = [[rng.standard_normal(shape) for shape in shapes] for _ in range(2)]

    def wrong(self, i: int) -> str:
        """What is wrong with the gradient by input i, in words."""
        shape = self.node.srcs[i].shape
        if not 0 < prod(shape) <= MOST:
            return ""
        found = np.stack([self._analytic(i, g) for g in self.drawn])
        right = np.stack([self._numeric(i, self._host(i), g) for g in self.drawn])
        off = ~np.isclose(found, right, rtol=1e-3, atol=1e-5 + 1e-5 * np.abs(right).max())
        if not off.any():
            return ""
        worst = tuple(int(n) for n in np.argwhere(off)[0])
        return (
            f", element {worst[1:]}: its vjp gives {found[worst]:.6g}, differences give "
            f"{right[worst]:.6g}: {self._kind(i, found, right, off)}"
        )

    def _host(self, i: int) -> Array:
        return np.array(self._home().to_host(self.arrays[i]))

    def _home(self) -> Any:
        return backends.get(self.node.srcs[0].device)

    def _analytic(self, i: int, drawn: list[Array]) -> Array:
        """The gradient by input i of the outputs, weighted by what is drawn."""
        node = self.node
        srcs = [
            leaf(array, src.dtype, src.device, requires_grad=n in self.floats)
            if isinstance(src.spec, Spec)
            else src
            for n, (src, array) in enumerate(zip(node.srcs, self.arrays, strict=True))
        ]
        with set_grad_enabled(True):
            made = apply(node.op, tuple(srcs), node.attrs)
            outs = [made if isinstance(made.spec, Spec) else apply(ITEM, (made,), {"i": n})
                    for n in self.outs]  # fmt: skip
        weights = [
            tensor(g, dtype=float64, device=o.device) for g, o in zip(drawn, outs, strict=True)
        ]
        found = gradients(outs, weights, [srcs[i]])
        grad = found.get(srcs[i])
        return np.zeros(node.srcs[i].shape) if grad is None else np.array(grad.numpy())

    def _numeric(self, i: int, at: Array, drawn: list[Array]) -> Array:
        """The same by central differences, at an array in the place of input i."""
        out = np.zeros(at.shape)
        for place in np.ndindex(at.shape):
            ends = []
            for sign in (1, -1):
                moved = at.copy()
                moved[place] += sign * self.eps
                ends.append(self._value(i, moved, drawn))
            out[place] = (ends[0] - ends[1]) / (2 * self.eps)
        return out

    def _value(self, i: int, at: Array, drawn: list[Array]) -> float:
        node, xp = self.node, self._home()
        arrays = [*self.arrays]
        arrays[i] = xp.from_host(at)
        pairs = zip(arrays, node.srcs, strict=True)
        nodes = [leaf(a, s.dtype, s.device) if isinstance(s.spec, Spec) else s for a, s in pairs]
        spec = node.op.rule(node.op, *nodes, **node.attrs)
        made = execute(node.op, node.srcs[0].device, arrays, node.attrs, spec)
        several = made if isinstance(made, tuple) else (made,)
        picked = [np.asarray(xp.to_host(several[n])) for n in self.outs]
        return float(sum((p * g).sum() for p, g in zip(picked, drawn, strict=True)))

    def _kind(self, i: int, found: Array, right: Array, off: Array) -> str:
        """The kind of mistake, as far as it can be told."""
        for axes in self._stretched(i):
            if _near(found * self._copies(axes), right):
                return f"a mean in place of the sum over the broadcast {_axes(axes)}"
        told = kind(found, right)
        if told:
            return told
        for axes in self._stretched(i):
            if self._misses(i, found, axes):
                return f"a sum over the broadcast {_axes(axes)} is missing"
        return f"{int(off[0].sum())} of {off[0].size} elements are wrong"

    def _stretched(self, i: int) -> Iterator[tuple[int, ...]]:
        """Sets of axes of the result along which input i is broadcast."""
        if len(self.outs) != 1:
            return
        shape, out = self.node.srcs[i].shape, self.node.specs[self.outs[0]].shape
        extra = len(out) - len(shape)
        padded = (*(1,) * extra, *shape)
        if extra < 0 or any(n not in (1, m) for n, m in zip(padded, out, strict=True)):
            return
        axes = [a for a, (n, m) in enumerate(zip(padded, out, strict=True)) if n != m]
        for count in range(1, len(axes) + 1):
            yield from combinations(axes, count)

    def _copies(self, axes: tuple[int, ...]) -> int:
        out = self.node.specs[self.outs[0]].shape
        return prod(out[a] for a in axes)

    def _misses(self, i: int, found: Array, axes: tuple[int, ...]) -> bool:
        """True if a gradient is that of one copy along these axes of the broadcast input i."""
        out = self.node.specs[self.outs[0]].shape
        if prod(out) > MOST:
            return False
        full = np.broadcast_to(self._host(i), out).copy()
        try:
            terms = np.stack([self._numeric(i, full, g) for g in self.drawn])
        except Exception:
            return False
        every = max(self._stretched(i), key=len)
        rest = tuple(a + 1 for a in every if a not in axes)
        summed = terms.sum(axis=rest, keepdims=True)
        for at in (0, -1):
            one = summed.take([at], axis=axes[0] + 1)
            for a in axes[1:]:
                one = one.take([at], axis=a + 1)
            if _near(one.reshape(found.shape), found):
                return True
        return False


def _near(a: Array, b: Array) -> bool:
    return np.allclose(a, b, rtol=1e-4, atol=1e-6)


def kind(found: Array, right: Array) -> str:
    """The kind of mistake that turns one gradient into another everywhere; empty where none does.
    The first axis: draws."""
    if not found.any():
        return "it gives no gradient at all (None, or zero)"
    if _near(found, -right):
        return "the sign is wrong everywhere"
    factor = float((found * right).sum() / max((right * right).sum(), 1e-300))
    if abs(factor) > 1e-6 and _near(found, factor * right):
        return f"a factor: {factor:.4g} times what is right everywhere"
    for order in list(permutations(range(1, right.ndim)))[1:] if right.ndim < 6 else ():
        turned = right.transpose(0, *order)
        if turned.shape == found.shape and _near(found, turned):
            return "it is transposed"
    return ""


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def element(found: Sequence[Array], right: Sequence[Array]) -> str:
    """The input and element of a whole function where two gradients differ most, and how."""
    worst, text = 0.0, ""
    for i, (a, b) in enumerate(zip(found, right, strict=True)):
        gap = np.abs(a - b)
        if gap.size and gap.max() > worst:
            worst = float(gap.max())
            at = tuple(int(n) for n in np.unravel_index(int(gap.argmax()), gap.shape))
            told = kind(a[None], b[None]) if a.size > 1 else ""
            text = f"input {i}, element {at}: the gradient is {a[at]:.6g}, differences give "
            text += f"{b[at]:.6g}{f': {told}' if told else ''}"
    return text
