"""Gradients against finite differences, to second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd import gradients
from .context import set_grad_enabled
from .creation import tensor
from .dtypes import float64
from .errors import GradError
from .gradfaults import MOST, element, fault
from .ops import COPY
from .tensor import Tensor

_ALONE = (
    "each op by itself is right: is a part not recorded (detach(), NumPy, no_grad), or the "
    "function not smooth there?"
)


def gradcheck(
    f: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    order: int = 1,
    seed: int = 0,
) -> bool:
    """Compare the gradients of f with central differences along one random direction.

    f: takes the inputs, gives a Tensor or a tuple of them. inputs: float64 Tensors are
    differentiated, others passed on as they are. order=2 checks the gradients of gradients too.
    GradError where they differ, naming both numbers and, where it can be told, the op at fault, its
    input and element, and the kind of mistake (a factor, a sign, a missing sum over a broadcast
    axis, a transposed result); True otherwise.
    Source: one random projection decides, as in Pearlmutter, "Fast exact multiplication" (1994).
    """
    several: list[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if any(not isinstance(x, Tensor) for x in several):
        raise TypeError("gradcheck: inputs must be Tensors: one, or a list of them")
    given: list[Tensor] = several
    if not callable(f):
        raise TypeError(f"gradcheck: f must be a function, not a {type(f).__name__}")
    rng = np.random.default_rng(seed)
    where = [i for i, x in enumerate(given) if x.dtype == float64]
    if not where:
        raise GradError("gradcheck: at least one input must be float64")
    points = [given[i].numpy().copy() for i in where]

    def scalar(arrays: Sequence[Tensor], weights: list[np.ndarray[Any, Any]]) -> Tensor:
        """f's outputs as one number: their sum weighted by fixed random numbers."""
        args = list(given)
        for i, a in zip(where, arrays, strict=True):
            args[i] = a
        out = f(*args)
        outs = [o for o in (out if isinstance(out, tuple) else (out,)) if o.dtype == float64]
        if not weights:
            weights.extend(rng.standard_normal(o.shape) for o in outs)
        total: Any = None
        for o, w in zip(outs, weights, strict=True):
            part = (o * tensor(w, device=o.device)).sum()
            total = part if total is None else total + part
        if total is None:
            raise GradError("gradcheck: the function gave no float64 Tensor")
        return total  # type: ignore[no-any-return]

    weights: list[np.ndarray[Any, Any]] = []
    _check(lambda xs: scalar(xs, weights), points, given, where, rng, eps, atol, rtol, order)
    return True


def _check(
    f: Callable[[Sequence[Tensor]], Tensor],
    points: list[np.ndarray[Any, Any]],
    given: list[Tensor],
    where: list[int],
    rng: np.random.Generator,
    eps: float,
    atol: float,
    rtol: float,
    order: int,
) -> None:
    devices = [given[i].device for i in where]

    def leaves_at(arrays: list[np.ndarray[Any, Any]]) -> list[Tensor]:
        pairs = zip(arrays, devices, strict=True)
        return [tensor(a, device=d, requires_grad=True) for a, d in pairs]

    def slope(arrays: list[np.ndarray[Any, Any]], direction: list[Any]) -> Tensor:
        """d f along direction, recorded so that it can be differentiated again."""
        leaves = [
            tensor(a, device=d, requires_grad=True) for a, d in zip(arrays, devices, strict=True)
        ]
        return directional(leaves, direction)

    def directional(leaves: Sequence[Tensor], direction: list[Any]) -> Tensor:
        with set_grad_enabled(True):
            copies = [COPY(x) for x in leaves]
            value = f(copies)
            found = {}
            if value.requires_grad:
                one = tensor(1.0, dtype=float64, device=value.device)
                nodes = [x.node for x in copies]
                found = gradients([value.node], [one], nodes, create_graph=True)
            total: Any = tensor(0.0, dtype=float64, device=value.device)
            for x, v in zip(copies, direction, strict=True):
                if x.node in found:
                    total = total + (found[x.node] * tensor(v, device=x.device)).sum()
        return total  # type: ignore[no-any-return]

    def plain(arrays: list[np.ndarray[Any, Any]]) -> float:
        with set_grad_enabled(False):
            value = f([tensor(a, device=d) for a, d in zip(arrays, devices, strict=True)])
            return float(value.item())

    def found_by(value: Tensor, leaves: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
        """The gradient of a number by each leaf."""
        grads: Any = {}
        if value.requires_grad:
            one = tensor(1.0, dtype=float64, device=value.device)
            grads = gradients([value.node], [one], [x.node for x in leaves])
        zero = [np.zeros(x.shape) for x in leaves]
        return [
            np.array(grads[x.node].numpy()) if x.node in grads else z
            for x, z in zip(leaves, zero, strict=True)
        ]

    def by_element(
        value: Callable[[list[np.ndarray[Any, Any]]], float], step: float
    ) -> list[np.ndarray[Any, Any]]:
        """Central differences of a number by each element."""
        out = [np.zeros(p.shape) for p in points]
        for i, p in enumerate(points):
            for place in np.ndindex(p.shape):
                ends = []
                for sign in (1, -1):
                    at = [q.copy() for q in points]
                    at[i][place] += sign * step
                    ends.append(value(at))
                out[i][place] = (ends[0] - ends[1]) / (2 * step)
        return out

    def why_first() -> str:
        leaves = leaves_at(points)
        with set_grad_enabled(True):
            value = f(leaves)
        told = fault([value.node], rng, eps)
        if told or sum(p.size for p in points) > MOST:
            return told
        told = element(found_by(value, leaves), by_element(plain, eps))
        return f"{told}; {_ALONE}" if told else ""

    def why_second() -> str:
        leaves = leaves_at(points)
        inner = directional(leaves, first)
        told = fault([inner.node], rng, eps)
        if told or sum(p.size for p in points) > MOST:
            return told
        numeric = by_element(lambda at: float(slope(at, first).item()), step)
        told = element(found_by(inner, leaves), numeric)
        return f"{told}; {_ALONE}" if told else ""

    first, moved = _moved(points, eps, rng)
    numeric = (plain(moved[0]) - plain(moved[1])) / (2 * eps)
    _compare("first", slope(points, first).item(), numeric, atol, rtol, why_first)
    if order < 2:
        return
    leaves = leaves_at(points)
    inner = directional(leaves, first)
    step = eps**0.75  # gradients carry more rounding error than values
    second, moved = _moved(points, step, rng)
    grads = found_by(inner, leaves)
    analytic = sum(float((g * v).sum()) for g, v in zip(grads, second, strict=True))
    numeric = (slope(moved[0], first).item() - slope(moved[1], first).item()) / (2 * step)
    _compare("second", analytic, numeric, atol * 10, rtol * 10, why_second)


def _moved(
    points: list[np.ndarray[Any, Any]], step: float, rng: np.random.Generator
) -> tuple[list[Any], list[list[Any]]]:
    """A random direction, and the points a step ahead and a step back along it. The direction is
    that of the moved points, which are rounded."""
    drawn = [rng.standard_normal(p.shape) for p in points]
    moved = [[p + s * step * v for p, v in zip(points, drawn, strict=True)] for s in (1, -1)]
    return [(a - b) / (2 * step) for a, b in zip(*moved, strict=True)], moved


def _compare(
    which: str, analytic: float, numeric: float, atol: float, rtol: float, why: Callable[[], str]
) -> None:
    if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
        told = why()
        raise GradError(
            f"gradcheck: the {which} derivative is {analytic:.10g}, finite differences give "
            f"{numeric:.10g}{f': {told}' if told else ''}"
        )
