"""The rows of the op table on a GPU, compared with the CPU: `pytest -m gpu`.

Skipped, with the reason, where CuPy, the driver or a device is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from op_case import LAYOUTS, OpCase, arrays, assert_close, call, expected, laid_out, tensors
from op_table import CASES

import tinygrad_tx as tx
from tinygrad_tx import backends, ops
from tinygrad_tx.autograd import gradients

pytestmark = pytest.mark.gpu
NAMES = sorted({c.name for c in CASES})


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def rows(name: str) -> list[OpCase]:
    return [c for c in CASES if c.name == name]


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str, request: pytest.FixtureRequest) -> None:
    quick = request.config.getoption("--gpu-quick")
    for case in rows(name):
        for dtype in ["float32"] if quick and "float32" in case.dtypes else case.dtypes:
            given = arrays(case, dtype)
            for layout in ("plain", *(() if quick else LAYOUTS)):
                inputs = tensors(case, dtype, "cuda", layout)
                got = call(case, inputs, "cuda")
                for one, want in zip(got, expected(case, given), strict=True):
                    assert one.device == "cuda"
                    assert_close(case, one.numpy(), want, dtype)
                for x, before in zip(inputs, given, strict=True):  # no op writes into its inputs
                    assert x.numpy().tobytes() == before.tobytes()


@pytest.mark.parametrize("name", sorted({c.name for c in CASES if c.grad}))
def test_gradients_are_those_of_the_cpu(name: str) -> None:
    rng = np.random.default_rng(0)
    for case in (c for c in rows(name) if c.grad):
        cotangents = [rng.standard_normal(w.shape) for w in expected(case, arrays(case, "float64"))]
        found = []
        for device in ("cpu", "cuda"):
            inputs = tensors(case, "float64", device)
            leaves = [x.requires_grad_() for x in inputs if x.dtype.is_floating_point]
            out = call(case, inputs, device)
            weights = [tx.tensor(c, device=device) for c in cotangents]
            grads = gradients([o.node for o in out], weights)
            found.append([grads[x.node].numpy() for x in leaves])
        for cpu, cuda in zip(*found, strict=True):
            np.testing.assert_allclose(cuda, cpu, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted({c.name for c in CASES if c.bad}))
def test_errors(name: str) -> None:
    for case in rows(name):
        for bad in case.bad:
            inputs = [laid_out(np.asarray(a), "cuda", "plain") for a in bad.inputs]
            with pytest.raises(bad.error, match=bad.message):
                out = case.op(*inputs, **(case.attrs if bad.attrs is None else bad.attrs))
                (out[0] if isinstance(out, tuple) else out).numpy()  # an index waits for a wait


@pytest.mark.parametrize(
    "op",
    [
        *(ops.ADD, ops.SUB, ops.MUL, ops.DIV, ops.POW, ops.FLOOR_DIV, ops.REMAINDER, ops.ATAN2),
        *(ops.MAXIMUM, ops.MINIMUM, ops.EQ, ops.NE, ops.LT, ops.LE, ops.GT, ops.GE),
    ],
    ids=lambda op: op.name,
)
def test_a_constant_on_either_side(op: tx.Op) -> None:
    """A constant is NumPy's on a GPU, too, also where a gradient compares it."""
    found: list[list[list[float]]] = []
    for device in ("cpu", "cuda"):
        values = []
        for left in (True, False):
            x = tx.tensor([0.5, 2.0, 3.5], device=device, requires_grad=True)
            y = op(2.0, x) if left else op(x, 2.0)
            values.append(y.tolist())
            if y.requires_grad:
                y.sum().backward()
                values.append(x.grad.tolist())
        found.append(values)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


MANY = 200_000
PLACES = np.zeros(MANY, np.int64)
LONG: dict[str, Callable[[tx.Tensor], tx.Tensor]] = {
    "sum": lambda x: x.sum(),
    "sum of squares": lambda x: (x * x).sum() * 10,
    "first axis": lambda x: x.reshape(-1, 4).sum(0).sum(),
    "outer axes": lambda x: x.reshape(-1, 2, 5).sum((0, 2)).sum(),
    "cumsum": lambda x: x.cumsum(0)[-1],
    "index_add": lambda x: (x[:2] * 0).index_add(0, tx.tensor(PLACES, device="cuda"), x)[0],
}


@pytest.mark.parametrize("name", LONG)
def test_an_error_does_not_grow_with_the_number_of_summands(name: str) -> None:
    """As ops/test_long_sums.py has it of the CPU."""
    x = tx.tensor(np.full(MANY, 0.1, np.float32), device="cuda")
    assert LONG[name](x).item() == pytest.approx(MANY * 0.1, rel=2e-6)


@pytest.mark.parametrize("dtype", [tx.float16, tx.bfloat16], ids=lambda d: d.name)
def test_long_sums_of_halves_are_rounded_once(dtype: tx.DType) -> None:
    x = tx.full((MANY,), 2.0**-10, device="cuda").to(dtype)
    want = tx.tensor(MANY * 2.0**-10).to(dtype).item()
    assert x.sum().item() == x.reshape(-1, 2).sum(0).sum().item() == want
