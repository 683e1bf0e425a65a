"""F, nn and nn.init under PyTorch's arguments: losses with weights and smoothing against NumPy in
float64, borders, padding rows, options of layers. PyTorch is not needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.nn import functional as F  # noqa: N812

NAN = math.nan
LOGITS = np.arange(9.0).reshape(3, 3) * [[1.0, -0.5, 0.3]]
W = np.array([1.0, 2.0, 3.0])


def losses(x: Any, t: Any, weight: Any, ignore: int, smoothing: float) -> tuple[Any, float]:
    """PyTorch's formula: the loss of each row, and what the mean divides by."""
    logp = x - x.max(1, keepdims=True)
    logp = logp - np.log(np.exp(logp).sum(1, keepdims=True))
    w = np.ones(x.shape[1]) if weight is None else weight
    counts = t != ignore
    at = np.where(counts, t, 0)
    hit = -w[at] * logp[np.arange(len(t)), at]
    spread = -(logp * w).sum(1)
    each = (1 - smoothing) * hit + smoothing / x.shape[1] * spread
    return np.where(counts, each, 0), float(np.where(counts, w[at], 0).sum())


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [-100, 2])
def test_cross_entropy(mode: str, smoothing: float, weighted: bool, ignore: int) -> None:
    targets = np.array([0, 2, 1])
    weight = W if weighted else None
    each, total = losses(LOGITS, targets, weight, ignore, smoothing)
    x, t = tx.tensor(LOGITS), tx.tensor(targets)
    w = None if weight is None else tx.tensor(weight)
    for reduction, wanted in (("none", each), ("sum", each.sum()), ("mean", each.sum() / total)):

        def f(x: Any, t: Any, w: Any, how: str = reduction) -> Any:
            return F.cross_entropy(x, t, w, None, ignore, None, how, smoothing)

        got = (f if mode == "eager" else tx.compile(f))(x, t, w)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-10)
    assert tx.gradcheck(lambda x: F.cross_entropy(x, t, w, label_smoothing=smoothing), [x])


def test_cross_entropy_takes_weight_third() -> None:
    x, t = tx.arange(9.0).reshape(3, 3), tx.tensor([0, 2, 1])
    assert F.cross_entropy(x, t, tx.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(1.074, 1e-3)
    spread = F.cross_entropy(x.T.reshape(1, 3, 3), t.reshape(1, 3), tx.tensor([1.0, 2.0, 3.0]))
    assert spread.shape == ()
    ignored = F.cross_entropy(x, tx.tensor([1, 1, 1]), tx.ones(3), ignore_index=1)
    assert math.isnan(ignored.item())


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_probabilities(shape: tuple[int, ...], smoothing: float) -> None:
    rng = np.random.default_rng(3)
    axis = 0 if len(shape) == 1 else 1
    x, p = rng.normal(size=shape), rng.random(shape)
    logp = x - np.log(np.exp(x).sum(axis, keepdims=True))
    soft = p * (1 - smoothing) + smoothing / 3
    w = W.reshape(-1, *[1] * (len(shape) - axis - 1))
    for weight, each in ((None, -(logp * soft).sum(axis)), (W, -(logp * soft * w).sum(axis))):
        for reduction, wanted in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
            got = F.cross_entropy(
                tx.tensor(x),
                tx.tensor(p),
                None if weight is None else tx.tensor(weight),
                reduction=reduction,
                label_smoothing=smoothing,
            )
            np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-10)


def test_mse_loss_with_weights() -> None:
    x, y, w = tx.tensor([1.0, 2.0]), tx.tensor([0.0, 4.0]), tx.tensor([3.0, 1.0])
    assert F.mse_loss(x, y, weight=w).item() == 7 / 4
    assert F.mse_loss(x, y, None, None, "sum", w).item() == 7
    assert F.mse_loss(x, y, weight=w, reduction="none").tolist() == [3, 4]


ROW = tx.tensor([[1.0, 2.0, 3.0]])
BORDERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "constant": (lambda: F.pad(ROW, (1, 1)), [[0, 1, 2, 3, 0]]),
    "constant value": (lambda: F.pad(ROW, (1, 0), "constant", 9), [[9, 1, 2, 3]]),
    "constant cut": (lambda: F.pad(ROW, (-1, 1)), [[2, 3, 0]]),
    "constant cut both": (lambda: F.pad(ROW, (-1, -1)), [[2]]),
    "reflect": (lambda: F.pad(ROW, (2, 1), "reflect"), [[3, 2, 1, 2, 3, 2]]),
    "replicate": (lambda: F.pad(ROW, (2, 1), mode="replicate"), [[1, 1, 1, 2, 3, 3]]),
    "circular": (lambda: F.pad(ROW, (2, 1), "circular"), [[2, 3, 1, 2, 3, 1]]),
    "replicate rows": (
        lambda: F.pad(ROW, (0, 1, 1, 0), "replicate"),
        [[1, 2, 3, 3], [1, 2, 3, 3]],
    ),
    "circular once round": (lambda: F.pad(ROW, (3, 0), "circular"), [[1, 2, 3, 1, 2, 3]]),
}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", BORDERS)
def test_borders(name: str, mode: str) -> None:
    call, wanted = BORDERS[name]
    got = (call if mode == "eager" else tx.compile(call))()
    assert got.tolist() == wanted


def test_gradients_of_borders() -> None:
    for how in ("reflect", "replicate", "circular"):
        x = tx.randn(2, 4, dtype=tx.float64)
        assert tx.gradcheck(lambda x, how=how: (F.pad(x, (2, 1, 1, 0), how) ** 2).sum(), [x])


def test_one_hot_infers_the_classes() -> None:
    ids = tx.tensor([0, 2])
    assert F.one_hot(ids, num_classes=-1).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert F.one_hot(ids).shape == (2, 3)
    for f in (F.one_hot, tx.compile(F.one_hot)):
        with pytest.raises(IndexError, match="index 2 is outside the 2 entries"):
            f(ids, 2).numpy()
    with pytest.raises(IndexError):
        F.one_hot(tx.tensor([-1, 2])).numpy()


def test_softmax_without_dim_takes_pytorchs() -> None:
    x = tx.randn(2, 3, 4)
    for f in (F.softmax, F.log_softmax):
        np.testing.assert_array_equal(f(x).numpy(), f(x, 0).numpy())
        np.testing.assert_array_equal(f(x[0]).numpy(), f(x[0], 1).numpy())
        np.testing.assert_array_equal(f(x[0, 0]).numpy(), f(x[0, 0], 0).numpy())
        assert f(tx.tensor([1, 2]), 0, dtype=tx.float64).dtype == tx.float64
        np.testing.assert_array_equal(f(x, axis=1).numpy(), f(x, 1).numpy())


def test_norms_of_no_rows() -> None:
    w, b = tx.ones(4), tx.zeros(4)
    for f in (
        lambda x: F.layer_norm(x, (4,)),
        lambda x: F.layer_norm(x, (4,), w, b),
        lambda x: F.rms_norm(x, (4,), w),
        lambda x: x.softmax(-1),
        nn.LayerNorm(4),
        nn.Linear(4, 4),
    ):
        for shape in ((0, 4), (2, 0, 4)):
            assert f(tx.zeros(shape)).shape == shape
            assert tx.compile(f)(tx.zeros(shape)).shape == shape
    x = tx.zeros(0, 4, requires_grad=True)
    F.layer_norm(x, (4,), w, b).sum().backward()
    assert x.grad is not None and x.grad.shape == (0, 4)
    assert F.layer_norm(tx.zeros(0, 2, 4), (2, 4)).shape == (0, 2, 4)


def test_in_place() -> None:
    for f in (lambda x: F.relu(x, True), nn.ReLU(inplace=True)):
        x = tx.tensor([-1.0, 2.0])
        assert f(x) is x and x.tolist() == [0, 2]
    x = tx.ones(1000)
    y = F.dropout(x, 0.5, True, True)
    assert y is x and set(x.tolist()) == {0.0, 2.0}
    y = nn.Dropout(0.5, inplace=True)(x)
    assert y is x and set(x.tolist()) == {0.0, 4.0}
    x = tx.tensor([1.0])
    F.silu(x, inplace=True)
    assert x.item() == pytest.approx(1 / (1 + math.exp(-1)))


def test_padding_row_of_an_embedding() -> None:
    layer = nn.Embedding(4, 3, -1)
    assert layer.padding_idx == 3 and layer.weight[3].tolist() == [0, 0, 0]
    layer(tx.tensor([[0, 3], [3, 3]])).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    weight = tx.randn(4, 3)
    frozen = nn.Embedding(4, 3, _weight=weight, _freeze=True)
    assert frozen.weight.tolist() == weight.tolist() and not frozen.weight.requires_grad


def test_options_of_layers() -> None:
    assert dict(nn.LayerNorm(4, 1e-5, False).named_parameters()) == {}
    assert set(dict(nn.LayerNorm(4, 1e-5, True, False).named_parameters())) == {"weight"}
    assert dict(nn.RMSNorm((2, 4), None, False).named_parameters()) == {}
    assert nn.RMSNorm((2, 4))(tx.ones(3, 2, 4)).shape == (3, 2, 4)
    for layer in (
        nn.Linear(2, 3, True, "cpu", tx.float64),
        nn.Embedding(2, 3, dtype=tx.float64),
        nn.LayerNorm(3, dtype=tx.float64),
        nn.RMSNorm(3, dtype=tx.float64),
    ):
        assert all(p.dtype == tx.float64 for p in layer.parameters())


def test_attention_takes_a_scale_and_fewer_keys() -> None:
    q, k, v = tx.randn(2, 4, 5, 8), tx.randn(2, 2, 6, 8), tx.randn(2, 2, 6, 8)
    wide = [tx.stack([x, x], 2).reshape(2, 4, 6, 8) for x in (k, v)]
    got = F.scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True)
    weights = (q @ wide[0].mT * 0.3).softmax(-1)
    np.testing.assert_allclose(got.numpy(), (weights @ wide[1]).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="enable_gqa"):
        F.scaled_dot_product_attention(q[:, :3], k, v, enable_gqa=True)


def test_initial_values() -> None:
    x = tx.zeros(300, 200)
    for call, bound in (
        (lambda: nn.init.kaiming_uniform_(x, 5**0.5), math.sqrt(1 / 200)),
        (lambda: nn.init.kaiming_uniform_(x, 0, "fan_out", "relu"), math.sqrt(6 / 300)),
        (lambda: nn.init.kaiming_uniform_(x, nonlinearity="linear"), math.sqrt(3 / 200)),
        (lambda: nn.init.uniform_(x, a=-2.0, b=2.0), 2.0),
    ):
        call()
        assert float(x.abs().max()) == pytest.approx(bound, rel=1e-2)
    nn.init.kaiming_normal_(x, mode="fan_out", nonlinearity="tanh")
    assert float(x.std()) == pytest.approx(5 / 3 / math.sqrt(300), rel=0.02)
    assert nn.init.constant_(x, val=3.0)[0, 0].item() == 3


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "size_average": (
        lambda: F.cross_entropy(ROW, tx.tensor([0]), size_average=True),
        "cross_entropy: size_average=True.*reduction",
    ),
    "reduce": (lambda: F.mse_loss(ROW, ROW, reduce=True), "mse_loss: reduce=True"),
    "weight": (lambda: F.cross_entropy(ROW, tx.tensor([0]), -100), "weight=-100 must be a Tensor"),
    "weight shape": (
        lambda: F.cross_entropy(ROW, tx.tensor([0]), tx.ones(2)),
        r"weight \(2,\) must be \(3,\)",
    ),
    "probabilities": (lambda: F.cross_entropy(ROW, ROW, ignore_index=0), "ignore_index is for"),
    "max_norm": (lambda: nn.Embedding(3, 2, max_norm=1.0), "Embedding: max_norm=1.0"),
    "sparse": (
        lambda: F.embedding(tx.tensor([0]), ROW.T, sparse=True),
        "embedding: sparse=True",
    ),
    "padding_idx": (lambda: nn.Embedding(3, 2, 3), "padding_idx=3 is outside the 3 rows"),
    "pad mode": (lambda: F.pad(ROW, (1, 1), "mirror"), "mode='mirror' is unknown.*reflect"),
    "pad reflect": (lambda: F.pad(ROW, (3, 0), "reflect"), "reflect.*needs a longer axis"),
    "pad circular": (lambda: F.pad(ROW, (4, 0), "circular"), "circular"),
    "pad circular cut": (lambda: F.pad(ROW, (-1, 1), "circular"), "cut axis 1 off first"),
    "pad value": (lambda: F.pad(ROW, (1, 0), "reflect", 1.0), 'value=1.0 goes with mode="const'),
    "kaiming mode": (lambda: nn.init.kaiming_uniform_(ROW, mode="fan"), "mode='fan' must be"),
    "kaiming name": (
        lambda: nn.init.kaiming_normal_(ROW, nonlinearity="gelu"),
        "nonlinearity='gelu' is unknown",
    ),
    "generator": (lambda: nn.init.normal_(ROW, generator=3), "normal_: generator=3"),
    "one_hot": (lambda: F.one_hot(tx.tensor([0]), 0), "num_classes=0 must be 1 or more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# Tensors, modules and optimizers ------------------------------------------------------------------


@pytest.mark.cpu
def test_to_takes_what_pytorchs_takes() -> None:
    x = tx.ones(2)
    assert x.to(tx.float64).dtype == x.to("cpu", tx.float64).dtype == tx.float64
    assert x.to(dtype=tx.int32, device="cpu").dtype == x.to(tx.tensor([1], dtype=tx.int32)).dtype
    assert x.to(tx.float32) is x and x.to("cpu", non_blocking=True) is x
    for copy in (x.to(tx.float32, copy=True), x.to("cpu", tx.float32, False, True)):
        assert copy is not x and copy.tolist() == [1, 1]
    assert x.to(tx.float64, True).dtype == tx.float64
    with pytest.raises(TypeError):
        x.to()
    m = nn.Linear(2, 2).to("cpu", tx.float64)
    assert m.weight.dtype == tx.float64 and m.to(tx.ones(1)).weight.dtype == tx.float32
    assert m.to(dtype=tx.float16).bias.dtype == tx.float16
    with pytest.raises(ValueError, match="clone: memory_format='x' is not supported"):
        x.clone(memory_format="x")


def test_backward_takes_retain_graph_second_and_inputs() -> None:
    x, w = (tx.tensor([2.0], requires_grad=True) for _ in range(2))
    y = (x * w).sum()
    y.backward(None, True)
    assert not x.grad.requires_grad  # type: ignore[union-attr]
    y.backward(inputs=[w])
    assert x.grad.tolist() == [2] and w.grad.tolist() == [4]  # type: ignore[union-attr]


def test_in_place_operators_change_the_same_tensor() -> None:
    def run(x: Any, b: Any) -> None:
        x //= 2.0
        x %= 3.0
        x **= 2
        b &= tx.tensor([True, True, False])
        b |= tx.tensor([False, False, True])
        b ^= tx.tensor([True, False, False])

    for f in (run, tx.compile(run)):
        x, b = tx.tensor([3.0, 5.0, 9.0]), tx.tensor([True, False, True])
        f(x, b)
        assert x.tolist() == [1, 4, 1] and b.tolist() == [False, False, True]
    i = tx.tensor([3])
    with pytest.raises(TypeError, match="write x = x"):
        i **= 2.0


def test_modules_take_prefixes() -> None:
    m = nn.Sequential(nn.Linear(1, 1))
    assert [n for n, _ in m.named_parameters("net")] == ["net.0.weight", "net.0.bias"]
    assert list(m.parameters(recurse=False)) == [] and len(list(m[0].parameters(False))) == 2
    assert list(m.state_dict(prefix="net.")) == ["net.0.weight", "net.0.bias"]
    assert m.state_dict(keep_vars=True)["0.weight"] is m[0].weight
    m(tx.ones(1, 1)).sum().backward()
    m.zero_grad(set_to_none=False)
    assert m[0].weight.grad.tolist() == [[0]]
    m.zero_grad()
    assert m[0].weight.grad is None
    with pytest.raises(ValueError, match="load_state_dict: assign=True is not supported"):
        m.load_state_dict(m.state_dict(), assign=True)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_maximize_goes_up(name: str) -> None:
    kind = getattr(tx.optim, name)
    p, q = (tx.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    up = kind([p], lr=0.1, maximize=True, foreach=True, fused=False)
    down = kind([q], lr=0.1)
    for _ in range(3):
        p.grad, q.grad = tx.tensor([0.5, 2.0]), tx.tensor([-0.5, -2.0])
        up.step()
        down.step()
    assert p.tolist() == q.tolist() and p.tolist()[0] > 1


def test_arguments_of_optimizers() -> None:
    p = tx.tensor([1.0], requires_grad=True)
    o = tx.optim.SGD([p], 0.1, 0.9, 0, 0.5)  # dampening comes before weight_decay
    group = o.param_groups[0]
    assert (group["dampening"], group["weight_decay"], group["nesterov"]) == (0, 0.5, False)
    p, q = (tx.tensor([1.0], requires_grad=True) for _ in range(2))
    a = tx.optim.Adam([p], 0.1, weight_decay=0.5, decoupled_weight_decay=True)
    b = tx.optim.AdamW([q], 0.1, weight_decay=0.5)

    def closure() -> Any:
        a.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert a.step(closure).item() == 1
    (q * q).sum().backward()
    assert b.step() is None and p.tolist() == q.tolist()
    with pytest.raises(ValueError, match="SGD: differentiable=True is not supported"):
        tx.optim.SGD([p], differentiable=True)


def test_clip_grad_norm_takes_orders() -> None:
    for order, norm in ((1, 7.0), (2, 5.0), (math.inf, 4.0), (2.0, 5.0)):
        p, q = (tx.zeros(1, requires_grad=True) for _ in range(2))
        p.grad, q.grad = tx.tensor([3.0]), tx.tensor([-4.0])
        got = tx.optim.clip_grad_norm_([p, q], 1.0, order, foreach=False)
        assert got.item() == pytest.approx(norm)
        assert p.grad.item() == pytest.approx(3 / norm, rel=1e-5)
        assert q.grad.item() == pytest.approx(-4 / norm, rel=1e-5)
    p.grad = tx.tensor([NAN])
    with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
        tx.optim.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
