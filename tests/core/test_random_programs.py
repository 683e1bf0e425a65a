"""Random programs on Tensors: equal NumPy's result, and have the right gradients.

A program starts from three arrays and applies steps, each to values made before it. A step is a
pair of functions, one on Tensors and one on arrays; one that does not fit its operands' shapes is
left out on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import op_reference as ref
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygrad_tx as tx
from tinygrad_tx import ops
from tinygrad_tx.errors import GradError
from tinygrad_tx.nn import functional as F  # noqa: N812

Binary = Callable[[Any, Any], Any]


class Step(NamedTuple):
    """The same on Tensors and on arrays. fits: whether the operands' shapes allow it."""

    tensors: Binary
    arrays: Binary
    fits: Callable[[tuple[int, ...], tuple[int, ...]], bool] = lambda a, b: True


def _both(f: Binary, fits: Any = lambda a, b: True) -> Step:
    return Step(f, f, fits)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    tail = list(zip(a[::-1], b[::-1], strict=False))
    return all(n == m or 1 in (n, m) for n, m in tail) and len(a) + len(b) < 7


def _has_axis(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) > 0


def _matrix(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) == 2 and a[1] == b[1]


def _written(x: Any, y: Any) -> Any:
    out = x * 1.0
    out[..., ::-2] = y.sum() * 0.1
    out += x
    return out


def _layer_norm(x: np.ndarray) -> np.ndarray:
    return ref.layer_norm(x, eps=0.1)


STEPS: dict[str, Step] = {
    "add": _both(lambda x, y: x + y, _broadcast),
    "sub": _both(lambda x, y: x - y * 0.5, _broadcast),
    "mul": _both(lambda x, y: x * y, _broadcast),
    "div": _both(lambda x, y: x / (y * y + 1), _broadcast),
    "power": Step(lambda x, y: (x * x + 1) ** y.tanh(), lambda x, y: (x * x + 1) ** np.tanh(y),
                  _broadcast),
    "scalars": _both(lambda x, y: 1.5 - 2 * x / 3),
    "square": _both(lambda x, y: x**2),
    "exp": Step(lambda x, y: (x * 0.3).exp(), lambda x, y: np.exp(x * 0.3)),
    "log": Step(lambda x, y: (x * x + 0.5).log(), lambda x, y: np.log(x * x + 0.5)),
    "tanh": Step(lambda x, y: x.tanh(), lambda x, y: np.tanh(x)),
    "sin": Step(lambda x, y: x.sin(), lambda x, y: np.sin(x)),
    "sigmoid": Step(lambda x, y: x.sigmoid(), lambda x, y: ref.sigmoid(x)),
    "gelu": Step(lambda x, y: F.gelu(x), lambda x, y: x * (1 + ref.erf(x / 2**0.5)) / 2),
    "silu": Step(lambda x, y: F.silu(x), lambda x, y: x * ref.sigmoid(x)),
    "relu": Step(lambda x, y: (x - 0.123).relu(), lambda x, y: np.maximum(x - 0.123, 0)),
    "abs": Step(lambda x, y: (x + 0.0717).abs(), lambda x, y: np.abs(x + 0.0717)),
    "clip": Step(lambda x, y: x.clip(-0.77, 1.31), lambda x, y: np.clip(x, -0.77, 1.31)),
    "where": Step(lambda x, y: tx.where(x > 0.031, x, y * 2),
                  lambda x, y: np.where(x > 0.031, x, y * 2), _broadcast),
    "maximum": Step(lambda x, y: x.maximum(y + 0.0173), lambda x, y: np.maximum(x, y + 0.0173),
                    _broadcast),
    "sum": Step(lambda x, y: x.sum(-1, keepdim=True), lambda x, y: x.sum(-1, keepdims=True),
                _has_axis),
    "mean": Step(lambda x, y: x.mean(0), lambda x, y: x.mean(0), _has_axis),
    "var": Step(lambda x, y: x.var(0, correction=0), lambda x, y: x.var(0), _has_axis),
    "max": Step(lambda x, y: x.amax(-1), lambda x, y: x.max(-1), _has_axis),
    "cumsum": Step(lambda x, y: x.cumsum(0), lambda x, y: np.cumsum(x, 0), _has_axis),
    "softmax": Step(lambda x, y: x.softmax(-1), lambda x, y: ref.softmax(x, -1), _has_axis),
    "log_softmax": Step(lambda x, y: x.log_softmax(0), lambda x, y: ref.log_softmax(x, 0),
                        _has_axis),
    "logsumexp": Step(lambda x, y: x.logsumexp(0, keepdim=True),
                      lambda x, y: ref.logsumexp(x, 0, True), _has_axis),
    "layer_norm": Step(lambda x, y: F.layer_norm(x, x.shape[-1:], eps=0.1),
                       lambda x, y: _layer_norm(x), _has_axis),
    "attention": Step(lambda x, y: ops.ATTENTION(x, y, y, scale=0.5, causal=True),
                      lambda x, y: ref.attention(x, y, y, scale=0.5, causal=True), _matrix),
    "sort": Step(lambda x, y: x.sort(-1).values, lambda x, y: np.sort(x, -1), _has_axis),
    "matmul": _both(lambda x, y: x @ y.T, _matrix),
    "transpose": _both(lambda x, y: x.T),
    "flatten": _both(lambda x, y: x.reshape(-1)),
    "unsqueeze": _both(lambda x, y: x[None], lambda a, b: len(a) < 3),
    "reverse": _both(lambda x, y: x[::-1], _has_axis),
    "odd": _both(lambda x, y: x[..., 1::2], lambda a, b: len(a) > 0 and a[-1] > 1),
    "gather": _both(lambda x, y: x[[0, -1, 0]], _has_axis),
    "write": _both(_written, _has_axis),
    "join": Step(lambda x, y: tx.cat([x, y * 2]), lambda x, y: np.concatenate([x, y * 2]),
                 lambda a, b: len(a) == len(b) > 0 and a[1:] == b[1:] and a[0] + b[0] < 9),
    "stack": Step(lambda x, y: tx.stack([x, x * x], -1), lambda x, y: np.stack([x, x * x], -1),
                  lambda a, b: len(a) < 3),
}  # fmt: skip

SHAPES = ((3, 4), (3, 4), (4,))
Program = list[tuple[str, int, int]]
programs = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20), st.integers(0, 20)),
    min_size=4,
    max_size=14,
)


def run(program: Program, inputs: list[Any], arrays: bool) -> Any:
    """The sum of what the program makes; the values it made stay small on the way."""
    values = list(inputs)
    for name, i, j in program:
        step, x, y = STEPS[name], values[-1 - i % len(values)], values[-1 - j % len(values)]
        if step.fits(tuple(x.shape), tuple(y.shape)):
            made = (step.arrays if arrays else step.tensors)(x, y)
            values.append(np.tanh(made) * 2 if arrays else made.tanh() * 2)
    return sum((v * v).mean() for v in values)


def test_every_step_is_the_same_on_arrays() -> None:
    rng = np.random.default_rng(0)
    used = set()
    for name, step in STEPS.items():
        for a in (*SHAPES, (), (2, 3, 4), (1,)):
            for b in SHAPES:
                x, y = rng.standard_normal(a), rng.standard_normal(b)
                if step.fits(a, b):
                    used.add(name)
                    got = step.tensors(tx.tensor(x), tx.tensor(y)).numpy()
                    np.testing.assert_allclose(got, step.arrays(x, y), rtol=1e-12, atol=1e-13)
    assert used == STEPS.keys()


@given(programs, st.integers(0, 1000))
@settings(derandomize=True, deadline=None, database=None, max_examples=25,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
def test_programs(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) for shape in SHAPES]

    def f(*inputs: tx.Tensor) -> tx.Tensor:
        return run(program, list(inputs), arrays=False)

    np.testing.assert_allclose(f(*map(tx.tensor, arrays)).item(), run(program, arrays, arrays=True))
    assert any(right(f, [a + moved for a in arrays]) for moved in (0, 0.0137))


def right(f: Callable[..., tx.Tensor], arrays: list[np.ndarray]) -> bool:
    """Whether the derivatives at a point are right. Where a comparison turns within the step of the
    finite differences these mean nothing; then it will not do so at another point."""
    try:
        return tx.gradcheck(f, [tx.tensor(a) for a in arrays], order=2)
    except GradError:
        return False
