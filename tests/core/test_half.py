"""float16 and bfloat16: conversions to the bit, everything that computes through float32, and both
of them in every way of running a function."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modes import MODES, bits, running

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.nn import functional as F  # noqa: N812

HALVES = (tx.float16, tx.bfloat16)
halves = pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
SMALLEST = 2.0**-24  # of float16's subnormal numbers
modes = pytest.mark.parametrize("mode", MODES)


def tolerance(dtype: tx.DType) -> float:
    return 2 * dtype.eps


def double(x: tx.Tensor) -> np.ndarray:
    return x.numpy().astype(np.float64)


# Conversions -------------------------------------------------------------------------------------


def assert_same_bits(got: tx.Tensor, want: np.ndarray) -> None:
    """NaN with any bits is NaN."""
    array = got.numpy()
    np.testing.assert_array_equal(np.isnan(array), np.isnan(want))
    known = ~np.isnan(want)
    np.testing.assert_array_equal(bits(got)[known], want.view(f"u{want.itemsize}")[known])


@halves
@modes
def test_widening_is_exact(dtype: tx.DType, mode: str) -> None:
    """All 65,536 of them, subnormal numbers, infinities and NaN among them."""
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype.np)
    for wide in (tx.float32, tx.float64):
        got = running(lambda x, wide=wide: x.to(wide), mode)(tx.tensor(every))
        with np.errstate(all="ignore"):
            assert_same_bits(got, every.astype(np.float32).astype(wide.np))


@halves
@modes
def test_narrowing_rounds_to_nearest_even(dtype: tx.DType, mode: str) -> None:
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 1 << 32, 100_003, dtype=np.uint32).view(np.float32)
    each = np.arange(1 << 16, dtype=np.uint16).view(dtype.np).astype(np.float32)
    each = each[np.isfinite(each)]
    up = np.nextafter(each, np.float32(np.inf))
    mid = each + (np.roll(each, -1) - each) / 2  # ties
    for x in (anything, each, up, mid, -up, np.nextafter(mid, np.float32(0))):
        got = running(lambda x: x.to(dtype), mode)(tx.tensor(x))
        with np.errstate(all="ignore"):
            assert_same_bits(got, x.astype(dtype.np))
            assert_same_bits(tx.tensor(x, dtype=dtype), x.astype(dtype.np))


@modes
def test_a_double_is_rounded_to_float16_once(mode: str) -> None:
    """Through float32 a number just beyond a tie would be on the tie, and rounded to even."""
    rng = np.random.default_rng(1)
    each = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    mid = (each[:-1] + each[1:]) / 2
    tiny = rng.choice([-1, 0, 1], mid.shape) * 2.0**-50 * mid
    edges = np.array([65519.999, 65520, 1e300, 2.0**-25, 2.0**-25 + 2.0**-60, 1e-320, np.inf, 0.0])
    x = np.concatenate([mid + tiny, -(mid - tiny), edges, -edges, [np.nan]])
    got = running(lambda x: x.half(), mode)(tx.tensor(x))
    with np.errstate(all="ignore"):
        assert_same_bits(got, x.astype(np.float16))


@halves
@modes
def test_integers_and_bools(dtype: tx.DType, mode: str) -> None:
    numbers = np.array([0, 1, -7, 2049, 2051, 65519, 65520, -70000, 2**24 + 1, 2**40 + 2**31 + 1])
    got = running(lambda x: x.to(dtype), mode)(tx.tensor(numbers))
    with np.errstate(all="ignore"):
        assert_same_bits(got, numbers.astype(np.float32).astype(dtype.np))
    x = tx.tensor([2.9, -2.9, math.nan, math.inf, -math.inf, 0.0, -0.0]).to(dtype)
    whole = running(lambda x: (x.int(), x.long(), x.bool()), mode)(x)
    assert whole[0].tolist() == [2, -2, 0, 2**31 - 1, -(2**31), 0, 0]
    assert whole[1].tolist() == [2, -2, 0, 2**63 - 1, -(2**63), 0, 0]
    assert whole[2].tolist() == [True, True, True, True, True, False, False]
    flags = tx.tensor([True, False])
    assert running(lambda x: x.to(dtype), mode)(flags).tolist() == [1.0, 0.0]


@halves
@modes
def test_a_cast_rounds_inside_a_kernel_too(dtype: tx.DType, mode: str) -> None:
    x = tx.tensor([1 / 3, 1e-3, 1 + 2.0**-12])
    there_and_back = running(lambda x: x.to(dtype).float() - x, mode)(x)
    want = x.numpy().astype(dtype.np).astype(np.float32) - x.numpy()
    assert there_and_back.tolist() == want.tolist()
    product = running(lambda x: (x * x).float(), mode)(x.to(dtype))
    narrow = x.to(dtype).numpy().astype(np.float32)
    assert product.tolist() == (narrow * narrow).astype(dtype.np).astype(np.float32).tolist()


# Through float32 ---------------------------------------------------------------------------------

# Inputs whose squares, sums or exponentials leave float16 (and much of bfloat16's precision).
LARGE = np.array([[300.0, -300.0, 0.0, 200.0], [1e-3, -2e-4, 5e-4, 0.0]])
WIDE: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray], Any]]] = {
    "rms_norm": (
        lambda x: F.rms_norm(x, 4, eps=1e-6),
        lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6),
    ),
    "layer_norm": (
        lambda x: F.layer_norm(x, 4),
        lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
    ),
    "mean": (lambda x: (x * 200).mean(), lambda x: (x * 200).mean()),
    "var": (lambda x: x[1].var(), lambda x: x[1].var(ddof=1)),
    "std": (lambda x: (x * 2).std(), lambda x: (x * 2).std(ddof=1)),  # its square is too large
    "norm": (lambda x: x.norm(), lambda x: np.sqrt((x * x).sum())),
    "softmax": (
        lambda x: x.softmax(-1),
        lambda x: (e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True),
    ),
    "logsumexp": (
        lambda x: (x - 300).logsumexp(-1),
        lambda x: np.log(np.exp(x - 300).sum(-1)),
    ),
    "gelu": (
        lambda x: F.gelu(x),
        lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    ),
    "gelu_tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "silu": (lambda x: F.silu(x), lambda x: x / (1 + np.exp(-x))),
    "sigmoid": (lambda x: (x * 0.1).sigmoid(), lambda x: 1 / (1 + np.exp(-x * 0.1))),
    "erf": (lambda x: x.erf(), np.vectorize(math.erf)),
    "pow": (lambda x: (x.abs() + 1) ** 0.75, lambda x: (np.abs(x) + 1) ** 0.75),
    "mse_loss": (
        lambda x: F.mse_loss(x * 0.1, x * 0, reduction="sum"),
        lambda x: ((x * 0.1) ** 2).sum(),
    ),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: (
            (e := np.exp((s := x @ x.T / 2) - s.max(-1, keepdims=True)))
            / e.sum(-1, keepdims=True)
            @ x
        ),
    ),
    "matmul": (lambda x: x @ x.T * 0.25, lambda x: x @ x.T * 0.25),
}
TOO_LARGE = {"matmul"}  # 220,000 is infinity in float16, and PyTorch's too


@halves
@modes
@pytest.mark.parametrize("name", WIDE)
def test_half_is_widened(name: str, dtype: tx.DType, mode: str) -> None:
    f, reference = WIDE[name]
    x = tx.tensor(LARGE).to(dtype)
    got = running(f, mode)(x)
    assert got.dtype == dtype
    if name in TOO_LARGE and dtype == tx.float16:
        assert got[0, 0].item() == math.inf
        return
    with np.errstate(all="ignore"):
        want = reference(double(x))
    scale = 4 * tolerance(dtype)
    atol = scale * np.abs(want).max() + SMALLEST
    np.testing.assert_allclose(double(got), want, rtol=scale, atol=atol)


@halves
@modes
def test_gradients_are_widened(dtype: tx.DType, mode: str) -> None:
    """As float64's, rounded: squares and sums inside would overflow."""

    def gradient(x: tx.Tensor) -> tx.Tensor:
        losses = [
            F.rms_norm(x, 4, eps=1e-6)[:, :2].sum(),
            F.layer_norm(x, (4,))[:, 0].sum(),
            F.gelu(x * 0.01).sum(),
            F.gelu(x, approximate="tanh").sum(),
            F.silu(x * 0.01).sum(),
            x.softmax(-1)[:, 0].sum(),
            x.norm(),
            x.var(),
            x.logsumexp(-1).sum(),
            F.cross_entropy(x, tx.tensor([0, 1])),
        ]
        grads = []
        for loss in losses:
            x.grad = None
            loss.backward()
            grads.append(x.grad)
        x.grad = None
        return tx.stack(grads)

    x = tx.tensor(LARGE).to(dtype)
    want = double(gradient(x.double().requires_grad_()))
    got = running(gradient, mode)(x.detach().requires_grad_())
    assert got.dtype == dtype and np.isfinite(double(got)).all()
    scale = np.abs(want).max((1, 2), keepdims=True)
    assert (np.abs(double(got) - want) <= 8 * tolerance(dtype) * scale).all()


@halves
@modes
def test_cross_entropy_of_many_rows(dtype: tx.DType, mode: str) -> None:
    """The sum of the losses would be infinite in float16."""
    logits = tx.zeros(20000, 64, dtype=dtype)
    targets = tx.zeros(20000, dtype=tx.int64)
    loss = running(F.cross_entropy, mode)(logits, targets)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(math.log(64), rel=dtype.eps)


@halves
@modes
def test_an_op_of_the_users_own(dtype: tx.DType, mode: str) -> None:
    """A map's forward and vjp see float32, and results have the rule's dtype."""
    seen: list[str] = []

    def forward(xp: Any, x: Any) -> Any:
        seen.append(str(x.dtype))
        return x * x / (1 + x * x)

    op = tx.Op(
        "test_half_ratio",
        kind="map",
        forward=forward,
        vjp=lambda g, y, x: (g * 2 * x / (1 + x * x) / (1 + x * x),),
    )
    x = tx.tensor([300.0, -2.0, 0.5]).to(dtype).requires_grad_()
    y = running(lambda x: op(x), mode)(x)
    assert y.dtype == dtype and set(seen) == {"float32"}
    want = double(x) ** 2 / (1 + double(x) ** 2)
    np.testing.assert_allclose(double(y), want, rtol=dtype.eps)
    op(x).sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype
    want = 2 * double(x) / (1 + double(x) ** 2) ** 2
    np.testing.assert_allclose(double(x.grad), want, rtol=dtype.eps, atol=SMALLEST)


# Everything else ---------------------------------------------------------------------------------

MOVES: dict[str, Callable[[tx.Tensor], Any]] = {
    "T": lambda x: x.T,
    "flip": lambda x: x.flip(0, 1),
    "slice": lambda x: x[1:, ::-2],
    "there and back": lambda x: x.float().to(x.dtype),
    "reshape": lambda x: x.reshape(-1)[1:13].reshape(3, 4),
    "expand": lambda x: x[:1].expand(4, 7),
    "cat": lambda x: tx.cat([x, x * 1], 1),
    "pad": lambda x: F.pad(x, (1, 2)),
    "where": lambda x: x.where(x > 0, -0.0),
    "mask": lambda x: x.masked_fill(x < 0, -math.inf),
    "index": lambda x: x[tx.tensor([2, -1, 0])],
    "gather": lambda x: x.gather(1, tx.tensor([[0], [3], [-1]])),
    "sort": lambda x: x.sort(1).values,
    "argsort": lambda x: x.argsort(0),
    "topk": lambda x: x.topk(3, 1).values,
    "max": lambda x: x.max(1).values,
    "amin": lambda x: x.amin(0),
    "argmax": lambda x: x.argmax(1),
    "clip": lambda x: x.clip(-1, 0.5),
    "compare": lambda x: (x > 0.5) & (x != x.T.reshape(3, 7)),
    "relu": lambda x: x.relu(),
    "full": lambda x: tx.full((2,), 0.1, dtype=x.dtype),
    "arange": lambda x: tx.arange(0, 3, 0.5, dtype=x.dtype),
    "0-d": lambda x: x[0, 0] * 1,
    "empty": lambda x: x[:0] * 2,
    "cumsum": lambda x: x.sign().cumsum(1),
    "index_add": lambda x: x.sign().index_add(0, tx.tensor([0, 0, 2]), x.sign()),
}


@halves
@pytest.mark.parametrize("name", MOVES)
def test_exact_functions_are_equal_in_every_mode(name: str, dtype: tx.DType) -> None:
    x = tx.tensor(np.random.default_rng(5).standard_normal((3, 7))).to(dtype)
    want = MOVES[name](x)
    for mode in MODES[1:]:
        step = running(MOVES[name], mode)
        for _ in range(2):
            got = step(x)
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_array_equal(bits(got), bits(want))


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda p: tx.optim.SGD(p, 0.5),
    "momentum": lambda p: tx.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: tx.optim.Adam(p, 1e-2),
    "adamw": lambda p: tx.optim.AdamW(p, 1e-2),
}


@pytest.mark.one_in(4)
@halves
@modes
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training(name: str, dtype: tx.DType, mode: str) -> None:
    """Embedding, norm, attention, dropout, loss, clipping and optimizers on parameters of 16 bits:
    losses as float32's to the dtype's precision."""
    wide, narrow = (_losses(d, name, mode) for d in (tx.float32, dtype))
    assert narrow[-1] < narrow[0] - 0.2
    np.testing.assert_allclose(narrow, wide, rtol=20 * dtype.eps)


@cache
def _losses(dtype: tx.DType, optimizer_name: str, mode: str) -> list[float]:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Embedding(11, 16)
            self.norm = nn.LayerNorm(16)
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 11)

        def forward(self, ids: tx.Tensor) -> tx.Tensor:
            x = self.table(ids)
            x = x + F.scaled_dot_product_attention(x, x, x, is_causal=True)
            return self.down(F.gelu(self.up(self.norm(x))))

    tx.manual_seed(3)
    model = Net().to(dtype)
    optimizer = OPTIMIZERS[optimizer_name](list(model.parameters()))
    ids = tx.tensor(np.random.default_rng(2).integers(0, 11, (4, 9)))

    def step(ids: tx.Tensor) -> tx.Tensor:
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 11), ids[:, 1:].reshape(-1))
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = running(step, mode)
    found = [run(ids).item() for _ in range(8)]
    assert all(p.dtype == dtype for p in model.parameters())
    return found


@halves
@modes
def test_an_optimizer_remembers_in_float32(dtype: tx.DType, mode: str) -> None:
    """The square of a gradient of 1e-4 is 0 in float16, and so is eps; Adam's first step is lr."""
    p = tx.tensor([1.0, -1.0]).to(dtype).requires_grad_()
    optimizer = tx.optim.Adam([p], lr=0.25)

    def step(scale: tx.Tensor) -> None:
        (p * scale).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    running(step, mode)(tx.tensor([1e-4, -1e-4]).to(dtype))
    assert p.tolist() == [0.75, -0.75] and p.dtype == dtype
    assert all(m.dtype == tx.float32 for m in optimizer.moments[0].values())
    state = optimizer.state_dict()
    again = tx.optim.Adam([p], lr=0.25)
    again.load_state_dict(state)
    assert again.state_dict()["exp_avg_sq.0"].tolist() == state["exp_avg_sq.0"].tolist()


@halves
def test_the_ways_in_and_out(dtype: tx.DType, tmp_path: Path) -> None:
    x = tx.tensor([[1.5, -2.25], [math.inf, 0.0]]).to(dtype)
    assert repr(x[0]) == f"tensor([ 1.5000, -2.2500], dtype=tx.{dtype.name})"
    assert x.tolist() == [[1.5, -2.25], [math.inf, 0.0]] and x[0, 1].item() == -2.25
    tx.save({"x": x}, tmp_path / "x.safetensors")
    again = tx.load(tmp_path / "x.safetensors")["x"]
    assert again.dtype == dtype and again.tolist() == x.tolist()
    copy = tx.tensor(x.numpy())
    assert copy.dtype == dtype and copy.tolist() == x.tolist()
    x[0] = 7
    x += 1
    assert x[0].tolist() == [8, 8]
    tx.manual_seed(0)
    drawn = tx.rand(1000, dtype=dtype)
    assert drawn.dtype == dtype and drawn.min().item() >= 0 and drawn.max().item() < 1
    assert abs(tx.randn(1000, dtype=dtype).float().mean().item()) < 0.2


@halves
def test_dlpack(dtype: tx.DType) -> None:
    """There and back, also bfloat16, which NumPy has not."""
    x = tx.tensor([[1.5, -2.25, 3.0], [math.inf, 0.0, 1e-3]]).to(dtype)
    back = tx.from_dlpack(x)
    assert back.dtype == dtype and bits(back).tolist() == bits(x).tolist()
    torch = pytest.importorskip("torch")
    there = torch.from_dlpack(x)
    assert there.dtype == getattr(torch, dtype.name) and there.tolist() == x.tolist()
    back = tx.from_dlpack(there.T)
    assert back.dtype == dtype and back.tolist() == x.T.tolist()


@pytest.mark.filterwarnings("error")
@modes
@pytest.mark.parametrize("dtype", [*HALVES, tx.float32], ids=lambda d: d.name)
def test_numbers_that_are_too_large_are_infinite(dtype: tx.DType, mode: str) -> None:
    large = 1e5 if dtype == tx.float16 else 1e39
    x = tx.ones(1, dtype=dtype)
    fill = lambda x: tx.full((1,), large, dtype=dtype) * x  # noqa: E731
    assert running(lambda x: x + large, mode)(x).tolist() == [math.inf]
    assert running(lambda x: x.clip(max=large), mode)(x).tolist() == [1.0]
    assert running(fill, mode)(x).tolist() == [math.inf]


@halves
def test_an_average_moves_in_small_steps(dtype: tx.DType) -> None:
    """1 + 0.001 is 1 in bfloat16, and 1.001 to 1.002 the same in float16."""
    p = tx.ones(3, dtype=dtype)
    ema = tx.optim.EMA([p], decay=0.999)
    p.assign(tx.full((3,), 2.0, dtype=dtype))
    for _ in range(1000):
        ema.update()
    want = 2 - 0.999**1000
    assert ema.averages[0].tolist() == pytest.approx([want] * 3, rel=1e-4)
    with ema.swapped():
        assert p.dtype == dtype and p.tolist() == pytest.approx([want] * 3, rel=dtype.eps)
    assert p.tolist() == [2.0] * 3
    assert ema.averages[0].tolist() == pytest.approx([want] * 3, rel=1e-4)


def test_the_two_halves_together_are_float32() -> None:
    a, b = tx.ones(3, dtype=tx.float16), tx.ones(3, dtype=tx.bfloat16)
    for mode in MODES:
        out = running(lambda a, b: a + b, mode)(a, b)
        assert out.dtype == tx.float32 and out.tolist() == [2, 2, 2]


@halves
def test_decoding(dtype: tx.DType) -> None:
    """The same tokens as in float32, where the logits are far apart."""
    tx.manual_seed(1)
    config = tx.models.GPTConfig(13, n_layer=1, n_head=2, n_embd=16, block_size=16)
    model = tx.models.GPT(config)
    model.eval()
    prompt = tx.tensor([[1, 2, 3]])
    wide = model(prompt)
    narrow = model.to(dtype)(prompt)
    assert narrow.dtype == dtype
    np.testing.assert_allclose(double(narrow), double(wide), atol=0.1)
    out = tx.decoding.generate(model, prompt, max_new_tokens=4)
    assert len(out) == 1


STEPS = {
    "eq": lambda y: y == y.amax(-1, True),
    "gt": lambda y: y > 1.125,
    "isinf": lambda y: (y * 1e5).isinf(),
    "floor": lambda y: (y * 16).floor(),
    "sign": lambda y: (y - 1.1).sign(),
    "//": lambda y: y // 0.1,
    "%": lambda y: y % 0.25,
    "argmax": lambda y: y.argmax(-1),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", STEPS)
def test_functions_with_steps_read_rounded_values(name: str, dtype: tx.DType) -> None:
    """They decide as in eager code, though a chain of ops is not rounded in between."""
    tx.manual_seed(0)
    x = (1 + tx.rand(64, 33) / 16).to(dtype)
    f = lambda x: STEPS[name](x * 1.1)  # noqa: E731
    assert (tx.compile(f)(x) == f(x)).all()
