"""Recorded graphs for the tests of rewriting: made from a function, evaluated, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.compiler.capture.trace import Traced, trace
from tinygrad_tx.compiler.rewrite.cse import cse
from tinygrad_tx.compiler.rewrite.lift.idioms import lift
from tinygrad_tx.compiler.rewrite.simplify import simplify
from tinygrad_tx.node import CONST, INPUT, Graph, Node, execute

Roots = tuple[Node, ...]
PASSES = (lift, simplify, cse)  # the stages that keep ops as users know them


def tensors(arrays: Sequence[np.ndarray]) -> list[tx.Tensor]:
    """As Tensors; the floating ones require a gradient."""
    return [tx.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]


def recorded(f: Callable[..., Any], args: Sequence[tx.Tensor]) -> tuple[Roots, Traced]:
    """The nodes of f's result, or results, and the recording that they are from."""
    traced = trace(f, tuple(args), {})
    results = traced.results if isinstance(traced.results, tuple) else (traced.results,)
    return tuple(t._node for t in results), traced


def evaluated(roots: Roots, traced: Traced, args: Sequence[tx.Tensor]) -> list[np.ndarray]:
    """The values of roots, computed node by node."""
    values: dict[Node, Any] = {}
    for found in traced.inputs:
        tensor = found.source.find(list(args))
        assert tensor is not None
        values[found.placeholder] = tensor._node.array
    for node in Graph(roots):
        if node in values:
            continue
        assert node.op is not INPUT, "an input has lost its identity"
        if node.array is not None:
            values[node] = node.array
        elif node.op is CONST:
            values[node] = backends.get(node.device).scalar(node.attrs["value"], node.dtype)
        else:
            reads = [values[src] for src in node.srcs]
            values[node] = execute(node.op, node.device, reads, node.attrs, node.spec)
    return [np.asarray(values[root]) for root in roots]


def names(roots: Roots) -> list[str]:
    """The names of the ops that are left, data and numbers aside."""
    kept = [n for n in Graph(roots) if not n.is_leaf and n.op.kind != "create"]
    return [n.op.name for n in kept]


def through(passes: Sequence[Callable[[Roots], Roots]], roots: Roots) -> Roots:
    for each in passes:
        roots = each(roots)
    return roots


def checked(f: Callable[..., Any], *arrays: np.ndarray, heals: bool = False) -> tuple[Roots, Roots]:
    """f's value and the gradients of its floating arguments, recorded, lifted and rewritten, are
    those of eager code. Gives the roots of f alone, and those of value and gradients after all
    passes. heals: an eager gradient that is NaN may be something else."""
    eager = tensors(arrays)
    y = f(*eager)
    weight = tx.tensor(np.random.default_rng(5).standard_normal(y.shape).astype(y.dtype.np))
    (y * weight).sum().backward()
    wanted = [y.numpy(), *(t.grad.numpy() for t in eager if t.grad is not None)]

    def step(*xs: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = f(*xs)
        (y * weight).sum().backward()
        return (y, *(x.grad for x in xs if x.grad is not None))

    args = tensors(arrays)
    roots, traced = recorded(step, args)
    rewritten = through(PASSES, roots)
    for found in (evaluated(roots, traced, args), evaluated(rewritten, traced, args)):
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9, atol=1e-12)
        for a, b in zip(found[1:], wanted[1:], strict=True):
            b = np.where(np.isnan(b), a, b) if heals else b
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    return recorded(f, args)[0], rewritten
