"""Module, the layers, and the initial values."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.context import part
from tinygrad_tx.errors import DTypeError, ShapeError, UserError
from tinygrad_tx.node import Graph


class Tied(nn.Module):
    """Two names for one matrix, a list, and a sequence."""

    def __init__(self) -> None:
        self.first = nn.Linear(4, 4, bias=False)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.last = nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight
        self.tail = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        y: tx.Tensor = self.tail(self.last(x))
        return y


NAMES = ["first.weight", *(f"layers.{i}.{p}" for i in range(2) for p in ("weight", "bias"))]


def test_parameters_are_found_once_and_in_order() -> None:
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert list(model.state_dict()) == NAMES
    assert len(list(model.parameters())) == 5
    assert [name for name, _ in model.named_modules()] == [
        "", "first", "layers", "layers.0", "layers.1", "last", "tail", "tail.0", "tail.1",
    ]  # fmt: skip
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    assert [type(m).__name__ for m in model.children()] == [
        "Linear", "ModuleList", "Linear", "Sequential",
    ]  # fmt: skip


def test_repr_is_a_tree() -> None:
    assert repr(Tied()) == (
        "Tied(\n"
        "  (first): Linear(4, 4, bias=False)\n"
        "  (layers): ModuleList(\n"
        "    (0-1): 2 x Linear(4, 4, bias=True)\n"
        "  )\n"
        "  (last): Linear(4, 4, bias=False)\n"
        "  (tail): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.5)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.MultiHeadAttention(4, 2)).startswith(
        "MultiHeadAttention(\n  n_heads=2, dropout=0.0\n  (q_proj): Linear"
    )


def test_nodes_know_their_module_path() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.inner = Tied()

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            y: tx.Tensor = self.inner(x)
            return y * 2

    model = Outer()
    out = model(tx.ones(1, 4))
    scopes = {n.scope for n in Graph([out.node]) if n.requires_grad and not n.is_leaf}
    assert out.node.scope == "Outer"
    paths = ("first", "last", "layers.0", "layers.1", "tail.0", "tail.1")
    assert scopes == {"Outer", *(f"Outer.inner.{path}" for path in paths)}
    assert model.inner.layers[1](tx.ones(4)).node.scope == "Outer.inner.layers.1"


def test_nodes_know_the_call_they_were_made_in() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 2, bias=False)

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            with part("mask"):
                seen = x.exp() * 1.0
            return self.layer(self.layer(seen))

        @nn.scoped
        def again(self, x: tx.Tensor) -> tx.Tensor:
            return self.own(x)

        @nn.scoped
        def own(self, x: tx.Tensor) -> tx.Tensor:
            return x * 2

    model = Twice()
    second = model(tx.ones(1, 2, requires_grad=True)).node
    first = second.srcs[0]
    assert first.scope == second.scope == "Twice.layer" and first.scope is not second.scope
    assert first.scope.module() is model.layer and first.scope.kind is nn.Linear
    assert first.scope.outer is second.scope.outer and first.scope.outer.module() is model
    mask = first.srcs[0].scope
    assert mask == "Twice.mask" and mask.module() is None and mask.outer is first.scope.outer
    assert model.again(tx.ones(1, requires_grad=True)).node.scope.outer == ""  # one call
    kept, _ = second, model.__dict__.clear()
    del model
    gc.collect()
    assert kept.scope.outer.module() is None  # nodes do not keep a model alive


def test_state_dict_goes_round() -> None:
    tx.manual_seed(0)
    model, other = Tied().eval(), Tied().eval()
    x = tx.randn(3, 4)
    assert not np.allclose(model(x).numpy(), other(x).numpy())
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model(x).numpy(), other(x).numpy())


def test_state_dict_is_a_snapshot() -> None:
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    before = state["weight"].numpy().copy()
    with tx.no_grad():
        layer.weight.assign(layer.weight + 1)
    np.testing.assert_array_equal(state["weight"].numpy(), before)
    assert not state["weight"].requires_grad


def test_loading_takes_arrays_and_casts() -> None:
    layer = nn.Linear(2, 2)
    weight = layer.weight
    layer.load_state_dict({"weight": np.eye(2), "bias": tx.tensor([1, 2])})
    assert layer.weight is weight and weight.requires_grad and weight.dtype == tx.float32
    np.testing.assert_array_equal(weight.numpy(), np.eye(2))
    layer(tx.ones(2)).sum().backward()
    assert weight.grad is not None


def test_loading_names_all_that_is_wrong_and_loads_nothing() -> None:
    model = Tied()
    state: dict[str, Any] = model.state_dict()
    before = {k: v.numpy().copy() for k, v in state.items()}
    state = {k: v * 0 for k, v in state.items()}
    del state["first.weight"], state["layers.0.bias"]
    state["layers.1.weight"] = np.zeros((4, 5))
    state["lm_head.weight"] = np.zeros(1)
    with pytest.raises(UserError) as error:
        model.load_state_dict(state)
    text = str(error.value)
    assert "\n" not in text
    assert "missing: first.weight, layers.0.bias" in text
    assert "unexpected: lm_head.weight" in text
    assert "layers.1.weight is (4, 5), wanted (4, 4)" in text
    with pytest.raises(UserError, match="another shape") as error:
        model.load_state_dict(state, strict=False)
    assert "missing" not in str(error.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    del state["layers.1.weight"]
    model.load_state_dict(state, strict=False)
    assert not model.layers[0].weight.numpy().any()


def test_train_eval_and_zero_grad() -> None:
    model = Tied()
    assert model.training and model.tail[1].training
    x = tx.ones(200, 4)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert model.eval() is model
    assert not model.training and not model.tail[1].training
    np.testing.assert_array_equal(model(x).numpy(), model(x).numpy())
    assert model.train().tail[1].training


def test_mode_is_a_guard_of_a_trace() -> None:
    layer = nn.Dropout(0.5)
    step = tx.compile(lambda x: layer(x))
    x = tx.ones(1000)
    assert step(x).numpy().max() == 2
    layer.eval()
    np.testing.assert_array_equal(step(x).numpy(), x.numpy())
    assert step.stats()["retraces"] == 1


@pytest.mark.cpu
def test_to_changes_parameters_in_place() -> None:
    layer = nn.Linear(3, 2)
    weight = layer.weight
    layer(tx.ones(3)).sum().backward()
    layer.to(tx.float64)
    assert layer.weight is weight and weight.dtype == tx.float64 and weight.requires_grad
    assert weight.grad is not None and weight.grad.dtype == tx.float64
    layer.zero_grad()
    layer(tx.ones(3, dtype=tx.float64)).sum().backward()
    assert weight.grad is not None
    np.testing.assert_array_equal(weight.grad.numpy(), np.ones((2, 3)))
    layer.to("cpu").to("float32")
    assert layer(tx.ones(3)).dtype == tx.float32
    with pytest.raises(DTypeError, match="int64"):
        layer.to(tx.int64)
    with pytest.raises(DTypeError, match="gpu"):
        layer.to("gpu")
    for other in ("int32", bool, int, np.int64):
        with pytest.raises(DTypeError, match="floating dtype"):
            layer.to(other)
    with pytest.raises(DTypeError, match="gpu"):
        layer.to(tx.float64, "gpu")
    assert layer.weight.dtype == tx.float32  # all of it, or nothing


def test_loading_says_what_it_passed_over() -> None:
    layer = nn.Linear(2, 1)
    done = layer.load_state_dict({"weight": tx.ones(1, 2), "x": tx.ones(1)}, strict=False)
    assert (done.missing_keys, done.unexpected_keys) == (["bias"], ["x"])
    assert layer.load_state_dict(layer.state_dict()) == ([], [])


def test_training_may_be_set() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[0].training = False
    assert [m.training for m in model.modules()] == [True, False, True]
    for mode in ("x", 1, None):
        with pytest.raises(ValueError, match=f"training is True or False, not {mode!r}"):
            model.train(mode)
    assert model.training


def test_freezing() -> None:
    model = Tied().requires_grad_(False)
    assert not model(tx.ones(1, 4)).requires_grad
    model.layers[0].requires_grad_()
    model(tx.ones(1, 4)).sum().backward()
    assert model.layers[0].weight.grad is not None and model.first.weight.grad is None


def test_a_model_can_be_freed() -> None:
    model = Tied()
    model(tx.ones(1, 4)).sum().backward()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_module_list() -> None:
    layers = nn.ModuleList([nn.ReLU()])
    layers.append(nn.GELU())
    assert len(layers) == 2 and isinstance(layers[-1], nn.GELU) and len(layers[:1]) == 1


# Layers -------------------------------------------------------------------------------------------


def test_layers_compute_what_they_say() -> None:
    tx.manual_seed(1)
    x = tx.randn(2, 3, 8)
    a = x.numpy()
    linear = nn.Linear(8, 5)
    assert linear.bias is not None
    wanted = a @ linear.weight.numpy().T + linear.bias.numpy()
    np.testing.assert_allclose(linear(x).numpy(), wanted, rtol=1e-5, atol=1e-6)
    centred = a - a.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(nn.LayerNorm(8)(x).numpy(), wanted, rtol=1e-4, atol=1e-6)
    wanted = a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(nn.RMSNorm(8, eps=1e-6)(x).numpy(), wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(nn.ReLU()(x).numpy(), np.maximum(a, 0))
    tanh = 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
    np.testing.assert_allclose(nn.GELU("tanh")(x).numpy(), tanh, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(nn.GELU()(x).numpy(), tanh, atol=1e-3)
    embedding = nn.Embedding(5, 3)
    np.testing.assert_array_equal(
        embedding(tx.tensor([4, 0])).numpy(), embedding.weight.numpy()[[4, 0]]
    )
    assert nn.LayerNorm(8, bias=False).bias is None and nn.Linear(8, 5, bias=False).bias is None
    assert nn.LayerNorm((3, 8))(x).shape == (2, 3, 8)


def reference_attention(
    layer: nn.MultiHeadAttention, q: Any, k: Any, v: Any, mask: Any = None
) -> np.ndarray[Any, Any]:
    """Head by head, with the scale sqrt(d_k)."""
    wq, wk, wv, wo = (
        p.weight.numpy() for p in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)
    )
    heads, d_k = [], wq.shape[0] // layer.n_heads
    for h in range(layer.n_heads):
        part = slice(h * d_k, (h + 1) * d_k)
        scores = (q @ wq[part].T) @ (k @ wk[part].T).swapaxes(1, 2) / np.sqrt(d_k)
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(e / e.sum(-1, keepdims=True) @ (v @ wv[part].T))
    result: np.ndarray[Any, Any] = np.concatenate(heads, -1) @ wo.T
    return result


def test_multi_head_attention() -> None:
    tx.manual_seed(2)
    layer = nn.MultiHeadAttention(12, 3).to(tx.float64)
    q, k, v = (tx.randn(2, n, 12, dtype=tx.float64) for n in (4, 5, 5))
    mask = np.random.default_rng(0).random((2, 1, 4, 5)) < 0.7
    mask[..., 0] = True
    wanted = reference_attention(layer, *(x.numpy() for x in (q, k, v)), mask[:, 0])
    np.testing.assert_allclose(layer(q, k, v, tx.tensor(mask)).numpy(), wanted, rtol=1e-9)
    wanted = reference_attention(layer, *[q.numpy()] * 3, np.tril(np.ones((4, 4), bool)))
    np.testing.assert_allclose(layer(q, q, q, is_causal=True).numpy(), wanted, rtol=1e-9)
    assert set(layer.state_dict()) == {f"{p}_proj.weight" for p in ("q", "k", "v", "out")}
    assert len(nn.MultiHeadAttention(12, 3, bias=True).state_dict()) == 8


def test_attention_step_by_step_is_causal_attention() -> None:
    tx.manual_seed(2)
    layer = nn.MultiHeadAttention(8, 2)
    x = tx.randn(3, 5, 8)
    whole = layer(x, x, x, is_causal=True).numpy()
    cache = layer.empty_cache(3, 7)
    for t in range(5):
        one = layer.step(x[:, t : t + 1], cache, tx.tensor(t))
        np.testing.assert_allclose(one.numpy()[:, 0], whole[:, t], rtol=1e-4, atol=1e-6)
    assert one.node.scope == "MultiHeadAttention.out_proj"


def test_attention_dropout_only_in_training() -> None:
    layer = nn.MultiHeadAttention(8, 2, dropout=0.5)
    x = tx.randn(1, 4, 8)
    assert not np.allclose(layer(x, x, x).numpy(), layer(x, x, x).numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x, x, x).numpy(), layer(x, x, x).numpy())


@pytest.mark.parametrize("make", ["linear", "embedding", "layer_norm", "rms_norm"])
def test_layers_as_torch(make: str) -> None:
    """The same names, and loaded with the same values, the same results."""
    torch = pytest.importorskip("torch")
    theirs = {
        "linear": lambda: torch.nn.Linear(6, 4),
        "embedding": lambda: torch.nn.Embedding(7, 6),
        "layer_norm": lambda: torch.nn.LayerNorm(6),
        "rms_norm": lambda: torch.nn.RMSNorm(6),
    }[make]()
    ours = {
        "linear": lambda: nn.Linear(6, 4),
        "embedding": lambda: nn.Embedding(7, 6),
        "layer_norm": lambda: nn.LayerNorm(6),
        "rms_norm": lambda: nn.RMSNorm(6),
    }[make]()
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.arange(6)[None] if make == "embedding" else np.random.randn(3, 6).astype(np.float32)
    wanted = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(tx.tensor(x)).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_layer_errors() -> None:
    with pytest.raises(ShapeError, match="multiple of n_heads"):
        nn.MultiHeadAttention(10, 3)
    x = tx.ones(4, 8)
    with pytest.raises(ShapeError, match=r"\(batch, length, d_model\), not \(4, 8\)"):
        nn.MultiHeadAttention(8, 2)(x, x, x)
    with pytest.raises(ValueError, match="p = 2"):
        nn.Dropout(2)
    with pytest.raises(ShapeError, match=r"linear.*\(2, 3\).*\(5, 4\)"):
        nn.Linear(4, 5)(tx.ones(2, 3))


# Initial values -----------------------------------------------------------------------------------


def test_init() -> None:
    tx.manual_seed(5)
    x = nn.Parameter(tx.empty(200, 300))
    bound = np.sqrt(6 / 500)
    nn.init.xavier_uniform_(x)
    assert x.requires_grad and x.is_leaf
    assert np.abs(x.numpy()).max() == pytest.approx(bound, rel=1e-3)
    assert x.numpy().std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    nn.init.xavier_normal_(x)
    assert x.numpy().std() == pytest.approx(np.sqrt(2 / 500), rel=0.02)
    nn.init.kaiming_uniform_(x)
    assert np.abs(x.numpy()).max() == pytest.approx(np.sqrt(6 / 300), rel=1e-3)
    nn.init.normal_(x, 3.0, 0.5)
    assert x.numpy().mean() == pytest.approx(3, rel=0.01)
    assert x.numpy().std() == pytest.approx(0.5, rel=0.02)
    nn.init.ones_(x)
    assert (x.numpy() == 1).all()
    nn.init.zeros_(x)
    assert not x.numpy().any()
    with pytest.raises(ShapeError, match="matrix"):
        nn.init.xavier_uniform_(tx.zeros(3))


def test_init_is_repeated_by_the_seed() -> None:
    tx.manual_seed(7)
    first = nn.Linear(3, 4).state_dict()
    tx.manual_seed(7)
    for name, value in nn.Linear(3, 4).state_dict().items():
        np.testing.assert_array_equal(value.numpy(), first[name].numpy())
    assert np.abs(first["weight"].numpy()).max() <= 1 / np.sqrt(3)
