"""tx.autocast: the dtype of each result as PyTorch documents it, gradients, nesting, threads, and
what a compiled function makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from modes import MODES, running

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import UserError
from tinygrad_tx.nn import functional as F  # noqa: N812

Call = Callable[[tx.Tensor], Any]
HALVES = {"bf16": tx.bfloat16, "fp16": tx.float16}
halves = pytest.mark.parametrize("precision", HALVES)
modes = pytest.mark.parametrize("mode", MODES)


def filled(*shape: int, seed: int = 0, dtype: tx.DType = tx.float32) -> tx.Tensor:
    """Numbers between 0.25 and 0.75, in the domain of every function here."""
    rng = np.random.default_rng(seed)
    return tx.tensor(rng.uniform(0.25, 0.75, shape), dtype=dtype)


W = filled(6, 6, seed=1)
IDS = tx.tensor([0, 1, 2, 3])
KERNEL = filled(3, 4, 3, seed=2)
EACH = filled(6, seed=3)

# PyTorch 2.13, "Automatic Mixed Precision package", CUDA Ops: which of its ops run in float16 (or
# bfloat16) and which in float32, whatever they are given; those of both that there are here.
HALF: dict[str, Call] = {
    "matmul": lambda x: x @ W,
    "mv": lambda x: x @ EACH,
    "bmm": lambda x: x.unsqueeze(0) @ W.unsqueeze(0),
    "linear": lambda x: F.linear(x, W),
    "linear with a bias": lambda x: F.linear(x, W, EACH),
    "einsum": lambda x: tx.einsum("ij,jk->ik", x, W),
    "conv1d": lambda x: F.conv1d(x.unsqueeze(0), KERNEL, EACH[:3]),
    "conv2d": lambda x: F.conv2d(x.reshape(1, 4, 2, 3), filled(2, 4, 1, 2)),
    "conv_transpose1d": lambda x: F.conv_transpose1d(x.unsqueeze(0), filled(4, 2, 3), EACH[:2]),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, W[:4], W[:4]),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(x, x, x, W[:4, :4]),
    "attention with dropout": lambda x: F.scaled_dot_product_attention(x, x, x, None, 0.5),
}
FLOAT32: dict[str, Call] = {
    "pow": lambda x: x**1.5,
    "rpow": lambda x: 2.0**x,
    "rtruediv": lambda x: 1 / x,
    "reciprocal": lambda x: x.reciprocal(),
    "rsqrt": lambda x: x.rsqrt(),
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: x.log(),
    "log2": lambda x: x.log2(),
    "log10": lambda x: x.log10(),
    "log1p": lambda x: x.log1p(),
    "cosh": lambda x: x.cosh(),
    "sinh": lambda x: x.sinh(),
    "tan": lambda x: x.tan(),
    "sum": lambda x: x.sum(1),
    "prod": lambda x: x.prod(1),
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(1),
    "norm": lambda x: x.norm(),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "softplus": lambda x: F.softplus(x),
    "layer_norm": lambda x: F.layer_norm(x, 6, EACH, EACH),
    "group_norm": lambda x: F.group_norm(x, 3, EACH, EACH),
    "normalize": lambda x: F.normalize(x),
    "cosine_similarity": lambda x: F.cosine_similarity(x, W[:4]),
    "cross_entropy": lambda x: F.cross_entropy(x, IDS),
    "cross_entropy with weights": lambda x: F.cross_entropy(x, IDS, weight=EACH),
    "nll_loss": lambda x: F.nll_loss(x, IDS),
    "mse_loss": lambda x: F.mse_loss(x, W[:4]),
    "l1_loss": lambda x: F.l1_loss(x, W[:4]),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x, W[:4]),
    "kl_div": lambda x: F.kl_div(x, W[:4]),
    "poisson_nll_loss": lambda x: F.poisson_nll_loss(x, W[:4]),
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, W[:4]),
    "soft_margin_loss": lambda x: F.soft_margin_loss(x, W[:4]),
    "margin_ranking_loss": lambda x: F.margin_ranking_loss(x, W[:4], W[:4]),
    "hinge_embedding_loss": lambda x: F.hinge_embedding_loss(x, W[:4].sign()),
    "triplet_margin_loss": lambda x: F.triplet_margin_loss(x, W[:4], -W[:4]),
    "cosine_embedding_loss": lambda x: F.cosine_embedding_loss(x, W[:4], EACH[:4].sign()),
}
# And what it does not name: an op keeps the dtype of what it is given.
GIVEN: dict[str, Call] = {
    "add": lambda x: x + 1,
    "mul": lambda x: x * x,
    "square": lambda x: x**2,
    "relu": lambda x: x.relu(),
    "gelu": lambda x: F.gelu(x),
    "silu": lambda x: F.silu(x),
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "max": lambda x: x.amax(1),
    "mean": lambda x: x.mean(1),
    "var": lambda x: x.var(1),
    "dropout": lambda x: F.dropout(x, 0.5),
    "batch_norm": lambda x: F.batch_norm(x, None, None, EACH, EACH, training=True),
    "transpose": lambda x: x.T,
    "index": lambda x: x[1:],
    "where": lambda x: x.where(x > 0, 0.0),
    "max_pool1d": lambda x: F.max_pool1d(x.unsqueeze(0), 2),
}


@halves
@pytest.mark.parametrize("name", HALF)
def test_products_give_the_half_type(name: str, precision: str) -> None:
    for dtype in (tx.float32, *HALVES.values()):
        x = filled(4, 6, dtype=dtype)
        with tx.autocast(precision):
            y = HALF[name](x)
        assert y.dtype == HALVES[precision]
        assert HALF[name](x.float()).dtype == tx.float32
        want = HALF[name](x.float()).numpy()
        if "dropout" not in name:
            np.testing.assert_allclose(y.float().numpy(), want, rtol=0.05, atol=0.02)


@halves
@pytest.mark.parametrize("name", FLOAT32)
def test_what_needs_float32_is_given_it(name: str, precision: str) -> None:
    for dtype in (tx.float32, HALVES[precision]):
        x = filled(4, 6, dtype=dtype)
        with tx.autocast(precision):
            y = FLOAT32[name](x)
        assert y.dtype == tx.float32
        np.testing.assert_array_equal(y.numpy(), FLOAT32[name](x.float()).numpy())


@halves
@pytest.mark.parametrize("name", GIVEN)
def test_other_ops_keep_what_they_are_given(name: str, precision: str) -> None:
    for dtype in (tx.float32, HALVES[precision]):
        x = filled(4, 6, dtype=dtype)
        with tx.autocast(precision):
            assert GIVEN[name](x).dtype == dtype


@halves
def test_of_two_floats_the_wider_counts(precision: str) -> None:
    half, wide = filled(4, 6, dtype=HALVES[precision]), filled(4, 6)
    with tx.autocast(precision):
        for y in (half + wide, wide * half, half.maximum(wide), tx.cat([half, wide])):
            assert y.dtype == tx.float32
        x = wide.clone()
        x[1:3] = half[1:3]
        assert x.dtype == tx.float32


@halves
def test_other_dtypes_are_let_alone(precision: str) -> None:
    x, ids = filled(4, 6, dtype=tx.float64), tx.arange(6).reshape(2, 3)
    with tx.autocast(precision):
        assert (x @ x.T).dtype == tx.float64
        assert x.exp().dtype == x.softmax(1).dtype == F.mse_loss(x, x).dtype == tx.float64
        assert (ids @ ids.T).dtype == tx.int64
        assert ids.sum().dtype == tx.int64


def test_products_agree_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x, w, b = filled(4, 6), W, EACH
    theirs = [torch.from_numpy(t.numpy().copy()) for t in (x, w, b)]
    with tx.autocast("bf16"), torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = [
            (F.linear(x, w, b), torch.nn.functional.linear(*theirs)),
            (x @ w, theirs[0] @ theirs[1]),
            (
                F.conv1d(x.unsqueeze(0), KERNEL),
                torch.conv1d(theirs[0][None], torch.from_numpy(KERNEL.numpy().copy())),
            ),
            (F.gelu(F.linear(x, w)) + x,
             torch.nn.functional.gelu(torch.nn.functional.linear(*theirs[:2])) + theirs[0]),
            (F.mse_loss(x @ w, x), torch.nn.functional.mse_loss(theirs[0] @ theirs[1], theirs[0])),
        ]  # fmt: skip
    for ours, other in pairs:
        assert ours.dtype.name == str(other.dtype).removeprefix("torch.")
        np.testing.assert_allclose(
            ours.float().numpy(), other.float().numpy(), rtol=2**-7, atol=2**-7
        )


# Gradients ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """Something of everything: convolution, norm, attention, linear maps, a loss."""

    def __init__(self) -> None:
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.norm, self.attn = nn.LayerNorm(8), nn.MultiHeadAttention(8, 2)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: tx.Tensor, ids: tx.Tensor) -> tx.Tensor:
        x = self.conv(x).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attn(y, y, y, is_causal=True)
        logits = self.down(F.gelu(self.up(x)))
        return F.cross_entropy(logits.reshape(-1, 5), ids.reshape(-1))


@halves
@modes
def test_parameters_have_float32_gradients(precision: str, mode: str) -> None:
    tx.manual_seed(0)
    net, x, ids = Net(), filled(2, 6, 7), tx.tensor([[0, 1, 2, 3, 4, 0, 1]] * 2)

    def gradients(x: tx.Tensor, ids: tx.Tensor) -> list[tx.Tensor]:
        with tx.autocast(precision):
            loss = net(x, ids)
        assert loss.dtype == tx.float32
        return [loss, *tx.autograd.grad(loss, list(net.parameters()))]

    def plain(x: tx.Tensor, ids: tx.Tensor) -> list[tx.Tensor]:
        loss = net(x, ids)
        return [loss, *tx.autograd.grad(loss, list(net.parameters()))]

    for got, want in zip(running(gradients, mode)(x, ids), plain(x, ids), strict=True):
        assert got.dtype == tx.float32
        largest = want.abs().max().item()
        np.testing.assert_allclose(got.numpy(), want.numpy(), atol=0.04 * largest + 1e-6)


@halves
def test_backward_inside_and_outside_are_one(precision: str) -> None:
    found = []
    for inside in (False, True):
        tx.manual_seed(0)
        net, x, ids = Net(), filled(2, 6, 7), tx.tensor([[0, 1, 2, 3, 4, 0, 1]] * 2)
        with ExitStack() as stack:
            stack.enter_context(tx.autocast(precision))
            loss = net(x, ids)
            if not inside:
                stack.close()
            loss.backward()
        found.append([p.grad.numpy() for p in net.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@halves
@modes
def test_second_order(precision: str, mode: str) -> None:
    x, w = filled(5, 6), filled(6, 3, seed=4)

    def penalty(w: tx.Tensor) -> tx.Tensor:
        def loss(w: tx.Tensor) -> tx.Tensor:
            with tx.autocast(precision):
                return F.mse_loss((x @ w).tanh() @ W[:3, :3], x[:, :3])

        return (tx.grad(loss)(w) ** 2).sum()

    def exact(w: tx.Tensor) -> tx.Tensor:
        def loss(w: tx.Tensor) -> tx.Tensor:
            return F.mse_loss((x @ w).tanh() @ W[:3, :3], x[:, :3])

        return (tx.grad(loss)(w) ** 2).sum()

    got, want = running(tx.grad(penalty), mode)(w), tx.grad(exact)(w)
    assert got.dtype == tx.float32
    assert (got - want).abs().max().item() <= 0.05 * want.abs().max().item()


@halves
def test_a_checkpointed_call_is_made_again_in_the_same_precision(precision: str) -> None:
    grads = []
    for wrap in (lambda f: f, tx.checkpoint):
        w = filled(6, 6, seed=5).requires_grad_()
        with tx.autocast(precision):
            y = wrap(lambda x, w=w: ((x @ w).tanh() @ w).exp())(filled(4, 6))
        y.sum().backward()
        assert w.grad is not None
        grads.append(w.grad.numpy())
    np.testing.assert_array_equal(*grads)


@halves
def test_recurrent_layers_keep_their_state_in_float32(precision: str) -> None:
    for layer in (nn.RNN(4, 5), nn.LSTM(4, 5), nn.GRU(4, 5)):

        def run(x: tx.Tensor, layer: nn.Module = layer) -> Any:
            with tx.autocast(precision):
                y, _ = layer(x)
            return y, tx.autograd.grad(y.sum(), list(layer.parameters()))

        x = filled(3, 2, 4)
        want = layer(x)[0]
        for f in (run, tx.compile(run)):
            y, grads = f(x)
            assert y.dtype == tx.float32
            assert all(g.dtype == tx.float32 for g in grads)
            np.testing.assert_allclose(y.numpy(), want.numpy(), atol=0.02)


# Contexts ----------------------------------------------------------------------------------------


def test_nesting_and_ends() -> None:
    x = filled(4, 4)

    def dtype() -> tx.DType:
        return (x @ x).dtype

    context = tx.autocast("bf16")
    for _ in range(2):  # one object, again and again
        with context:
            assert dtype() == tx.bfloat16
            with tx.autocast("fp16"):
                assert dtype() == tx.float16
                with tx.autocast("fp16", enabled=False):
                    assert dtype() == tx.float32
                with context:
                    assert dtype() == tx.bfloat16
            assert dtype() == tx.bfloat16
        assert dtype() == tx.float32
    with pytest.raises(ZeroDivisionError), context:
        raise ZeroDivisionError
    assert dtype() == tx.float32
    assert tx.autocast(tx.float16)(dtype)() == tx.float16


def test_a_decorated_function_may_call_itself() -> None:
    x = filled(4, 4)

    @tx.autocast("bf16")
    def power(n: int) -> tx.Tensor:
        return x if n == 1 else power(n - 1) @ x

    assert power(3).dtype == tx.bfloat16
    assert (x @ x).dtype == tx.float32


def test_each_thread_has_its_own() -> None:
    x, seen = filled(4, 4), dict[str, tx.DType]()
    inside, done = threading.Event(), threading.Event()

    @tx.autocast("bf16")
    def work() -> None:
        seen["thread"] = (x @ x).dtype
        inside.set()
        done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    seen["main"] = (x @ x).dtype
    done.set()
    thread.join()
    assert seen == {"thread": tx.bfloat16, "main": tx.float32}


@pytest.mark.parametrize("wrong", ["bf61", "cuda", 3, None, tx.float64])
def test_unknown_precisions(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"^autocast: no precision .*fp16") as caught:
        tx.autocast(wrong)
    assert "\n" not in str(caught.value)


def test_tf32_is_refused_where_there_is_none() -> None:
    x = filled(4, 4)
    with tx.autocast("tf32"):
        assert (x + x).exp().dtype == tx.float32
        for product in (lambda: x @ x, lambda: F.linear(x, x), lambda: tx.compile(F.linear)(x, x)):
            with pytest.raises(UserError, match=r"products on cpu are not computed in tf32"):
                product()


# Ops of one's own --------------------------------------------------------------------------------


def test_an_op_of_ones_own_says_what_it_takes() -> None:
    def made(name: str, **said: Any) -> tx.Op:
        return tx.Op(f"autocast_{name}", kind="map", forward=lambda xp, x: x * 2, **said)

    half, wide = filled(3, dtype=tx.bfloat16), filled(3)
    with tx.autocast("bf16"):
        silent, f32, f16 = made("a"), made("b", autocast="float32"), made("c", autocast="half")
        given = made("d", autocast="given")
        assert [op(half).dtype for op in (silent, f32, f16, given)] == [
            tx.float32, tx.float32, tx.bfloat16, tx.bfloat16,
        ]  # fmt: skip
        assert [op(wide).dtype for op in (silent, f16, given)] == [
            tx.float32, tx.bfloat16, tx.float32,
        ]  # fmt: skip
    with pytest.raises(ValueError, match="no autocast='halves'"):
        made("e", autocast="halves")


def test_a_constant_is_not_rounded_on_its_way_to_float32() -> None:
    x = tx.tensor([3.0], dtype=tx.bfloat16)
    with tx.autocast("bf16"):
        assert (x**0.1).item() == np.float32(3.0) ** np.float32(0.1)


# Compiled ----------------------------------------------------------------------------------------


def test_a_compiled_function_is_traced_for_each_precision() -> None:
    f = tx.compile(lambda x: (x @ x).exp())
    x = filled(4, 4)
    eager: dict[str, np.ndarray] = {}
    for _ in range(2):
        for precision in ("fp32", "bf16", "fp16"):
            with tx.autocast(precision):
                y = f(x)
            with tx.autocast(precision):
                eager[precision] = (x @ x).exp().numpy()
            np.testing.assert_allclose(y.numpy(), eager[precision], rtol=1e-6)
    assert f.stats()["retraces"] == 2
    assert f.stats()["cache_hits"] == 3


def test_the_reason_of_a_retrace_names_autocast(caplog: pytest.LogCaptureFixture) -> None:
    f = tx.compile(lambda x: x @ x)
    x = filled(4, 4)
    with caplog.at_level("INFO", "tinygrad_tx.compiler"):
        f(x)
        with tx.autocast("bf16"):
            f(x)
    assert "autocast was fp32, is bf16" in caplog.text


@modes
def test_a_function_that_sets_it_itself(mode: str) -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        with tx.autocast("bf16"):
            y = x @ x
        assert y.dtype == tx.bfloat16
        return y @ y.float()

    x = filled(4, 4)
    with pytest.raises(tx.errors.DTypeError):
        running(f, mode)(x)
    g = tx.autocast("bf16")(f)
    assert running(g, mode)(x).dtype == tx.bfloat16


@halves
def test_a_loop_in_a_compiled_function(precision: str) -> None:
    def f(x: tx.Tensor, w: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            return tx.scan(lambda h, _: ((h @ w).tanh().float(), None), x, length=4)[0]

    x, w = filled(3, 6), filled(6, 6, seed=7)
    np.testing.assert_allclose(tx.compile(f)(x, w).numpy(), f(x, w).numpy(), atol=0.01)
    eager, planned = (tx.grad(g, 1) for g in (lambda x, w: f(x, w).sum(),) * 2)
    got, want = tx.compile(planned)(x, w), eager(x, w)
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=0.05)
