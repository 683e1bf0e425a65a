"""Calls of convolution, pooling, interpolation and normalization, held to PyTorch's results and its
gradients of first and second order.

`python tests/helpers/convolution_case.py`, with PyTorch installed, writes convolution_values.json:
of each result its shape and three projections. nn/test_convolution.py reads it and needs no
PyTorch; where it is installed, whole results are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = Any
FILE = Path(__file__).parent / "convolution_values.json"

# name: the call, on a module of functions (f: F, or PyTorch's) and Tensors; the shapes of those.
CASES: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "conv1d": (lambda f, x, w, b: f.conv1d(x, w, b), ((2, 3, 7), (4, 3, 3), (4,))),
    "conv1d, all": (lambda f, x, w, b: f.conv1d(x, w, b, 2, 3, 2, 2), ((2, 4, 8), (6, 2, 3), (6,))),
    "conv1d, same": (lambda f, x, w: f.conv1d(x, w, padding="same"), ((2, 3, 6), (2, 3, 4))),
    "conv1d, one": (lambda f, x, w: f.conv1d(x, w, padding="valid"), ((3, 5), (2, 3, 1))),
    "conv1d, dilated": (lambda f, x, w: f.conv1d(x, w, dilation=2), ((2, 16, 7), (3, 16, 3))),
    "conv2d": (
        lambda f, x, w, b: f.conv2d(x, w, b, padding=1),
        ((2, 16, 5, 4), (3, 16, 3, 3), (3,)),
    ),
    "conv2d, all": (
        lambda f, x, w, b: f.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
        ((2, 4, 6, 5), (4, 2, 3, 2), (4,)),
    ),
    "conv2d, groups": (
        lambda f, x, w: f.conv2d(x, w, None, 2, (1, 2), 1, 2),
        ((2, 32, 4, 5), (4, 16, 3, 2)),
    ),
    "conv2d, depthwise": (lambda f, x, w: f.conv2d(x, w, groups=3), ((3, 5, 6), (3, 1, 2, 3))),
    "conv2d, lines": (lambda f, x, w: f.conv2d(x, w), ((2, 1, 4, 9), (3, 1, 2, 9))),
    "conv_transpose1d": (
        lambda f, x, w, b: f.conv_transpose1d(x, w, b, 2, 1, 1),
        ((2, 4, 5), (4, 3, 3), (3,)),
    ),
    "conv_transpose1d, all": (
        lambda f, x, w: f.conv_transpose1d(x, w, None, 1, 3, 1, 2, 2),
        ((2, 4, 6), (4, 2, 3)),
    ),
    "conv_transpose2d": (
        lambda f, x, w, b: f.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2),
        ((2, 4, 3, 2), (4, 2, 3, 2), (4,)),
    ),
    "conv_transpose2d, one": (
        lambda f, x, w: f.conv_transpose2d(x, w, padding=1, dilation=2),
        ((3, 4, 3), (3, 2, 2, 3)),
    ),
    "unfold": (lambda f, x: f.unfold(x, (2, 3), (1, 2), (1, 0), (2, 1)), ((2, 2, 5, 6),)),
    "max_pool1d": (lambda f, x: f.max_pool1d(x, 3, 2, 1, 2, True), ((2, 2, 8),)),
    "max_pool2d": (lambda f, x: f.max_pool2d(x, (2, 3), padding=(1, 0)), ((2, 2, 5, 7),)),
    "max_pool2d, over": (lambda f, x: f.max_pool2d(x, 3, (1, 2)), ((2, 5, 7),)),
    "avg_pool1d": (lambda f, x: f.avg_pool1d(x, 3, 2, 1, True, False), ((3, 8),)),
    "avg_pool2d": (lambda f, x: f.avg_pool2d(x, (3, 2), 2, (1, 0), True), ((2, 2, 6, 5),)),
    "avg_pool2d, by": (lambda f, x: f.avg_pool2d(x, 2, divisor_override=3), ((1, 2, 4, 4),)),
    "nearest": (lambda f, x: f.interpolate(x, scale_factor=2), ((1, 2, 3, 2),)),
    "nearest, odd": (lambda f, x: f.interpolate(x, (5, 4), mode="nearest-exact"), ((1, 2, 3, 7),)),
    "linear": (lambda f, x: f.interpolate(x, scale_factor=1.6, mode="linear"), ((2, 2, 5),)),
    "bilinear": (lambda f, x: f.interpolate(x, (3, 7), mode="bilinear"), ((1, 2, 5, 4),)),
    "bilinear, corners": (
        lambda f, x: f.interpolate(x, None, (2, 0.7), "bilinear", True, True),
        ((1, 2, 3, 5),),
    ),
    "batch_norm": (
        lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True, 0.1, 1e-2),
        ((3, 2, 5), (2,), (2,)),
    ),
    "batch_norm, 4": (lambda f, x: f.batch_norm(x, None, None, training=True), ((2, 3, 2, 3),)),
    "batch_norm, running": (
        lambda f, x, w, b: f.batch_norm(x, b.detach(), 1 + (w * w).detach(), w, b),
        ((4, 3), (3,), (3,)),
    ),
    "group_norm": (lambda f, x, w, b: f.group_norm(x, 2, w, b), ((2, 4, 3, 2), (4,), (4,))),
    "fold": (lambda f, x: f.fold(x, (5, 6), (2, 3), (1, 2), (1, 0), (2, 1)), ((2, 12, 6),)),
}


def inputs(name: str) -> list[Array]:
    """The same numbers everywhere."""
    shapes = CASES[name][1]
    return [np.sin(np.arange(np.prod(s)) * (1.7 + i) + i).reshape(s) for i, s in enumerate(shapes)]


def projections(result: Array) -> list[Any]:
    """The shape of a result, and three numbers that change with each of its elements."""
    flat = np.asarray(result, np.float64).ravel()
    at = np.arange(flat.size)
    return [list(np.shape(result)), *(float(flat @ np.cos(at * a + 0.3)) for a in (0.7, 1.9, 3.1))]


def by_torch(name: str) -> list[Array]:
    """What PyTorch gives: the result, the gradients of the sum of its cubes, and the gradients of
    the sum of their squares."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    xs = [torch.tensor(a, requires_grad=True) for a in inputs(name)]
    y = CASES[name][0](F, *xs)
    first = torch.autograd.grad((y**3).sum(), xs, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), xs)
    return [t.detach().numpy() for t in (y, *first, *second)]


def by_us(name: str, *, compiled: bool = False, device: str = "cpu") -> list[Array]:
    """The same by this library."""
    import tinygrad_tx as tx
    from tinygrad_tx.nn import functional as F  # noqa: N812

    f, shapes = CASES[name]
    every = tuple(range(len(shapes)))
    first = tx.grad(lambda *xs: (f(F, *xs) ** 3).sum(), argnums=every)
    second = tx.grad(lambda *xs: sum((g**2).sum() for g in first(*xs)), argnums=every)

    def run(*xs: Any) -> Any:
        return f(F, *xs), *first(*xs), *second(*xs)

    run = tx.compile(run) if compiled else run
    found = run(*(tx.tensor(a, device=device) for a in inputs(name)))
    assert {t.device for t in found} == {device}
    return [t.numpy() for t in found]


if __name__ == "__main__":
    found = {name: [projections(r) for r in by_torch(name)] for name in CASES}
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
