"""GPT: names, what it computes, decoding with caches, and the same losses as a plain PyTorch
implementation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.models import GPT, GPTConfig

Array = np.ndarray[Any, Any]
CONFIG = GPTConfig(20, n_layer=2, n_head=4, n_embd=16, block_size=10, bias=True)
VARIANTS = {
    "bias": CONFIG,
    "no_bias": replace(CONFIG, bias=False),
    "tanh": replace(CONFIG, activation="gelu_tanh"),
}


def build(config: GPTConfig = CONFIG) -> GPT:
    """A model whose every parameter matters."""
    tx.manual_seed(0)
    model = GPT(config)
    with tx.no_grad():
        for p in model.parameters():
            p.assign(p + 0.2 * tx.randn(p.shape))
    return model


def texts(seed: int = 0, shape: tuple[int, int] = (3, 8)) -> Array:
    return np.random.default_rng(seed).integers(1, 20, shape)


@pytest.mark.parametrize("bias", [False, True])
def test_names_are_the_contracts(bias: bool) -> None:
    shapes = {n: v.shape for n, v in GPT(replace(CONFIG, bias=bias)).state_dict().items()}
    wanted = {"wte.weight": (20, 16), "wpe.weight": (10, 16), "ln_f.weight": (16,)}
    if bias:
        wanted["ln_f.bias"] = (16,)
    for i in range(2):
        for name, shape in {
            "ln_1": (16,), "attn.c_attn": (48, 16), "attn.c_proj": (16, 16), "ln_2": (16,),
            "mlp.c_fc": (64, 16), "mlp.c_proj": (16, 64),
        }.items():  # fmt: skip
            wanted[f"h.{i}.{name}.weight"] = shape
            if bias:
                wanted[f"h.{i}.{name}.bias"] = shape[:1]
    assert shapes == wanted


@pytest.mark.parametrize("std", [0.02, 0.06])
def test_initial_values(std: float) -> None:
    tx.manual_seed(0)
    config = GPTConfig(500, 8, n_head=2, n_embd=64, block_size=64, bias=True, init_std=std)
    state = {name: value.numpy() for name, value in GPT(config).state_dict().items()}
    for name in ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.7.mlp.c_fc.weight"):
        assert state[name].std() == pytest.approx(std, rel=0.05)
    for name in ("h.0.attn.c_proj.weight", "h.7.mlp.c_proj.weight"):
        assert state[name].std() == pytest.approx(std / 4, rel=0.05)
    assert not state["h.0.mlp.c_fc.bias"].any() and not state["ln_f.bias"].any()
    assert (state["h.3.ln_2.weight"] == 1).all()


def reference(model: GPT, ids: Array) -> Array:
    """The logits of one text, by NumPy."""
    w = {name: value.numpy() for name, value in model.state_dict().items()}
    c = model.config

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)  # type: ignore[no-any-return]

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)  # type: ignore[no-any-return]

    def gelu(x: Array) -> Array:
        if c.activation == "gelu_tanh":
            return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))  # type: ignore[no-any-return]

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for i in range(c.n_layer):
        q, k, v = np.split(linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, -1)
        heads = []
        for h in np.split(np.arange(c.n_embd), c.n_head):
            s = q[:, h] @ k[:, h].T / math.sqrt(len(h))
            e = np.exp(np.where(np.tril(np.ones_like(s)) > 0, s, -np.inf))
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, h])
        x = x + linear(np.concatenate(heads, -1), f"h.{i}.attn.c_proj")
        hidden = gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(hidden, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T  # type: ignore[no-any-return]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_as_by_hand(variant: str) -> None:
    model = build(VARIANTS[variant]).to(tx.float64)
    ids = texts()
    got = model(tx.tensor(ids)).numpy()
    for i in range(3):
        np.testing.assert_allclose(got[i], reference(model, ids[i]), rtol=1e-9, atol=1e-11)


def test_loss_leaves_out_minus_100() -> None:
    model = build()
    ids, targets = texts(), texts(1)
    targets[0, 3:] = targets[2] = -100
    logp = model(tx.tensor(ids)).log_softmax(-1).numpy()
    real = targets >= 0
    picked = np.take_along_axis(logp, np.where(real, targets, 0)[..., None], -1)[..., 0]
    loss = model.loss(tx.tensor(ids), tx.tensor(targets))
    assert loss.item() == pytest.approx(-picked[real].mean(), rel=1e-5)
    loss.backward()
    assert model.wte.weight.grad is not None
    nothing = model.loss(tx.tensor(ids), tx.full((3, 8), -100))
    assert nothing.item() == 0


def test_dropout() -> None:
    model = build(replace(CONFIG, dropout=0.3))
    ids = tx.tensor(texts())
    assert not np.allclose(model(ids).numpy(), model(ids).numpy())
    model.eval()
    np.testing.assert_array_equal(model(ids).numpy(), model(ids).numpy())


def test_errors() -> None:
    model = build()
    with pytest.raises(ShapeError, match=r"11 positions.*block_size = 10"):
        model(tx.ones(1, 11, dtype=tx.int64))
    with pytest.raises(ShapeError, match=r"ids must be \(batch, length\), not \(3,\)"):
        model(tx.tensor([1, 2, 3]))
    with pytest.raises(ShapeError, match="at least one token"):
        model.start(tx.zeros(1, 0, dtype=tx.int64), max_new_tokens=1)
    with pytest.raises(ShapeError, match="fewer new tokens"):
        model.start(tx.ones(1, 4, dtype=tx.int64), max_new_tokens=8)
    with pytest.raises(UserError, match="n_embd = 16 must be a multiple of n_head, 3"):
        replace(CONFIG, n_head=3)
    with pytest.raises(TypeError, match=r"GPTConfig: n_layer must be an int, not 1.5"):
        replace(CONFIG, n_layer=1.5)
    with pytest.raises(UserError, match="eos_id = 20"):
        replace(CONFIG, eos_id=20)
    with pytest.raises(UserError, match="block_size = 0 must be positive"):
        replace(CONFIG, block_size=0)


# One token at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [1, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_what_forward_gives(variant: str, prompt: int) -> None:
    model = build(VARIANTS[variant]).eval()
    ids = texts()
    whole = model(tx.tensor(ids)).numpy()
    state, word, position = model.start(tx.tensor(ids[:, :prompt]), max_new_tokens=4, beam=2)
    for t in range(prompt - 1, prompt + 3):
        np.testing.assert_array_equal(word.numpy(), np.repeat(ids[:, t], 2))
        logits = model.step(state, word, position).numpy()
        np.testing.assert_allclose(logits[::2], whole[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits[1::2], whole[:, t], rtol=1e-4, atol=1e-5)
        word, position = tx.tensor(np.repeat(ids[:, t + 1], 2)), position + 1


@pytest.mark.parametrize("told", ["lengths", "pad_id"])
def test_prompts_of_different_length(told: str) -> None:
    """Each row goes on as it would alone, whatever stands beside it and to its left."""
    model = build(replace(CONFIG, pad_id=0)).eval()
    ids, lengths = texts(), np.array([5, 2, 1])
    whole = model(tx.tensor(ids)).numpy()
    prompts = np.zeros((3, 6), int)
    for i, n in enumerate(lengths):
        prompts[i, 6 - n :] = ids[i, :n]
    if told == "lengths":
        prompts = np.where(prompts == 0, 7, prompts)
    given = tx.tensor(lengths) if told == "lengths" else None
    state, word, position = model.start(tx.tensor(prompts), given, max_new_tokens=3)
    for t in range(3):
        logits = model.step(state, word, position).numpy()
        for i, n in enumerate(lengths):
            np.testing.assert_allclose(logits[i], whole[i, n - 1 + t], rtol=1e-4, atol=1e-5)
        word, position = tx.tensor(ids[range(3), lengths + t]), position + 1


def test_hypotheses_can_be_reordered_and_prompts_dropped() -> None:
    model = build(replace(CONFIG, pad_id=0)).eval()
    prompts = tx.tensor([[0, 0, 3], [4, 5, 6]])
    state, word, position = model.start(prompts, max_new_tokens=5, beam=2)
    model.step(state, word, position)
    model.step(state, tx.tensor([7, 8, 9, 10]), position + 1)
    state.reorder(tx.tensor([1, 1, 3, 2]))
    kept = state.keep(tx.tensor([1]))
    logits = model.step(state, tx.tensor([11, 12, 13, 14]), position + 2).numpy()
    rows = [[3, 8, 11], [3, 8, 12], [4, 5, 6, 10, 13], [4, 5, 6, 9, 14]]
    for got, row in zip(logits, rows, strict=True):
        np.testing.assert_allclose(
            got, model(tx.tensor([row])).numpy()[0, -1], rtol=1e-4, atol=1e-5
        )
    again = model.step(kept, tx.tensor([13, 14]), position + 2).numpy()
    np.testing.assert_allclose(again, logits[2:], rtol=1e-4, atol=1e-5)


def test_a_compiled_step_is_traced_once() -> None:
    model = build().eval()
    step = tx.compile(model.step)
    for seed in range(2):
        ids = texts(seed)
        whole = model(tx.tensor(ids)).numpy()
        state, word, position = model.start(tx.tensor(ids[:, :3]), max_new_tokens=5)
        for t in range(2, 7):
            logits = step(state, word, position).numpy()
            np.testing.assert_allclose(logits, whole[:, t], rtol=1e-4, atol=1e-5)
            word, position = tx.tensor(ids[:, t + 1]), position + 1
    assert step.stats()["retraces"] == 0


# Against PyTorch ----------------------------------------------------------------------------------


def torch_gpt(config: GPTConfig) -> Any:
    """A plain GPT in PyTorch with the contract's parameter names."""
    torch = pytest.importorskip("torch")
    tnn, d = torch.nn, config.n_embd
    approximate = "tanh" if config.activation == "gelu_tanh" else "none"

    class Attention(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = tnn.Linear(d, 3 * d, bias=config.bias)
            self.c_proj = tnn.Linear(d, d, bias=config.bias)

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape  # noqa: N806
            q, k, v = (
                y.view(B, T, config.n_head, -1).transpose(1, 2)
                for y in self.c_attn(x).split(d, dim=2)
            )
            s = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
            s = s.masked_fill(~torch.ones(T, T).tril().bool(), -math.inf)
            return self.c_proj((s.softmax(-1) @ v).transpose(1, 2).reshape(B, T, d))

    class MLP(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.c_fc = tnn.Linear(d, 4 * d, bias=config.bias)
            self.c_proj = tnn.Linear(4 * d, d, bias=config.bias)

        def forward(self, x: Any) -> Any:
            return self.c_proj(tnn.functional.gelu(self.c_fc(x), approximate=approximate))

    class Block(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = (tnn.LayerNorm(d, bias=config.bias) for _ in range(2))
            self.attn, self.mlp = Attention(), MLP()

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Model(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.wte = tnn.Embedding(config.vocab_size, d)
            self.wpe = tnn.Embedding(config.block_size, d)
            self.h = tnn.ModuleList(Block() for _ in range(config.n_layer))
            self.ln_f = tnn.LayerNorm(d, bias=config.bias)

        def forward(self, ids: Any) -> Any:
            x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
            for block in self.h:
                x = block(x)
            return self.ln_f(x) @ self.wte.weight.T

    torch.manual_seed(0)
    return Model()


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_five_adamw_steps_as_torch(variant: str, dtype: str, close: float) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_gpt(VARIANTS[variant]).to(getattr(torch, dtype))
    ours = GPT(VARIANTS[variant]).to(dtype)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    optimizers = (
        tx.optim.AdamW(ours.parameters(), lr=3e-3),
        torch.optim.AdamW(theirs.parameters(), lr=3e-3),
    )
    for n in range(5):
        ids, targets = texts(n), texts(n + 9)
        targets[1, 4:] = -100
        loss = ours.loss(tx.tensor(ids), tx.tensor(targets))
        logits = theirs(torch.tensor(ids)).flatten(0, 1)
        wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(targets).flatten())
        assert abs(loss.item() - wanted.item()) < close, n
        for optimizer, value in zip(optimizers, (loss, wanted), strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
