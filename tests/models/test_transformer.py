"""The Transformer: the contract's names, what it computes, decoding with caches, training, and the
same losses as a plain PyTorch implementation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformer_case import CONFIG, VARIANTS, Array, batch, build

import tinygrad_tx as tx
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.models import Transformer, TransformerConfig
from tinygrad_tx.node import Graph

# Names and sizes ----------------------------------------------------------------------------------


def names(config: TransformerConfig) -> set[str]:
    """The contract's names."""
    ends = ("weight", "bias") if config.attention_bias else ("weight",)
    found = set()
    for stack, n, attentions in (
        ("encoder", config.n_encoder_layers, ["self_attn"]),
        ("decoder", config.n_decoder_layers, ["self_attn", "cross_attn"]),
    ):
        for i in range(n):
            at = f"{stack}.layers.{i}"
            found |= {f"{at}.{a}.{p}_proj.{e}" for a in attentions for p in ("q", "k", "v", "out")
                      for e in ends}  # fmt: skip
            found |= {f"{at}.ffn.linear{j}.{e}" for j in (1, 2) for e in ("weight", "bias")}
            norms = range(1, len(attentions) + 2)
            found |= {f"{at}.norm{j}.{e}" for j in norms for e in ("weight", "bias")}
        if config.norm == "pre":
            found |= {f"{stack}.norm.{e}" for e in ("weight", "bias")}
        if config.positions == "learned":
            found.add(f"{stack}.positions.weight")
    if config.tie_embeddings:
        return found | {"embedding.weight"}
    return found | {"src_embedding.weight", "tgt_embedding.weight", "lm_head.weight"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_are_the_contracts(variant: str) -> None:
    config = VARIANTS[variant]
    model = Transformer(config)
    assert set(model.state_dict()) == names(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes["encoder.layers.0.ffn.linear1.weight"] == (32, 16)
    if not config.tie_embeddings:
        assert shapes["src_embedding.weight"] == (config.src_vocab_size or 20, 16)
        assert shapes["lm_head.weight"] == (20, 16)


def test_size_of_the_base_model() -> None:
    def count(v: int, d: int, ff: int, n: int) -> int:
        feed = 2 * d * ff + ff + d
        return v * d + n * (4 * d * d + feed + 4 * d) + n * (8 * d * d + feed + 6 * d)

    assert sum(p.numel() for p in build().parameters()) == count(20, 16, 32, 2)
    default = TransformerConfig(37000)
    sizes = (default.vocab_size, default.d_model, default.d_ff, default.n_encoder_layers)
    assert count(*sizes) == pytest.approx(65e6, rel=0.05)
    assert count(37000, 1024, 4096, 6) == pytest.approx(213e6, rel=0.05)


def test_initial_values() -> None:
    tx.manual_seed(0)
    model = Transformer(TransformerConfig(3000, d_model=64, n_heads=2, d_ff=256))
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    assert state["embedding.weight"].std() == pytest.approx(64**-0.5, rel=0.01)
    bound = math.sqrt(6 / (64 + 256))
    linear1 = state["encoder.layers.5.ffn.linear1.weight"]
    assert np.abs(linear1).max() == pytest.approx(bound, rel=1e-2)
    assert linear1.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert np.abs(state["decoder.layers.0.cross_attn.k_proj.weight"]).max() == pytest.approx(
        math.sqrt(6 / 128), rel=1e-2
    )
    assert not state["encoder.layers.0.ffn.linear1.bias"].any()
    assert (state["encoder.layers.0.norm1.weight"] == 1).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_heads": 3}, "d_model = 16 must be a multiple of n_heads, 3"),
        ({"norm": "both"}, '"post" or "pre"'),
        ({"positions": "none"}, "sinusoidal, sinusoidal_halves, learned"),
        ({"activation": "swish"}, "relu, gelu"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"vocab_size": 0}, "vocab_size = 0 must be positive"),
        ({"n_encoder_layers": -1}, "n_encoder_layers"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps = -1e-05 must be 0 or more"),
        ({"eos_id": 20}, "eos_id = 20 must be an id below vocab_size, 20"),
        ({"src_vocab_size": 5}, "src_vocab_size = 5 must be vocab_size, 20, where tie_embeddings"),
    ],
)
def test_a_config_that_makes_no_sense(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vocab_size": 20.0}, "vocab_size must be an int, not 20.0"),
        ({"n_heads": True}, "n_heads must be an int, not True"),
        ({"dropout": "0.1"}, "dropout must be a number, not '0.1'"),
        ({"tie_embeddings": 1}, "tie_embeddings must be a bool, not 1"),
        ({"src_vocab_size": 20.5}, "src_vocab_size must be an int or None, not 20.5"),
        ({"activation": None}, "activation must be a str, not None"),
    ],
)
def test_a_config_of_the_wrong_kind(change: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        replace(CONFIG, **change)
    assert str(caught.value) == f"TransformerConfig: {text}"


def test_errors_at_the_call() -> None:
    model = build(VARIANTS["pre_untied_learned_gelu_bias"])
    ids = tx.ones(2, 5, dtype=tx.int64)
    with pytest.raises(ShapeError, match=r"source ids must be \(batch, length\), not \(5,\)"):
        model(ids[0], ids)
    with pytest.raises(ShapeError, match=r"as many rows as the source has, 2"):
        model(ids, ids[:1])
    with pytest.raises(ShapeError, match=r"13 positions.*learned 12.*sinusoidal"):
        model(tx.ones(1, 13, dtype=tx.int64), ids[:1])
    with pytest.raises(IndexError, match="index 20"):
        model(ids, ids * 20).numpy()


# What the model computes --------------------------------------------------------------------------


def reference(model: Transformer, src: Array, tgt: Array) -> Array:
    """The logits by NumPy, sentence by sentence, without any padding mask: none is needed."""
    w = {name: value.numpy() for name, value in model.state_dict().items()}
    c = model.config
    pre = c.norm == "pre"

    def linear(x: Array, name: str) -> Array:
        y: Array = x @ w[f"{name}.weight"].T
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + c.layer_norm_eps)
        y: Array = x * w[f"{name}.weight"] + w[f"{name}.bias"]
        return y

    def around(f: Callable[[Array], Array], name: str, x: Array) -> Array:
        return x + f(norm(x, name)) if pre else norm(x + f(x), name)

    def attention(q: Array, m: Array, name: str, causal: bool = False) -> Array:
        heads = []
        for h in np.split(np.arange(c.d_model), c.n_heads):
            qh, kh, vh = (
                linear(x, f"{name}.{p}_proj")[:, h] for x, p in ((q, "q"), (m, "k"), (m, "v"))
            )
            s = qh @ kh.T / math.sqrt(len(h))
            if causal:
                s = np.where(np.tril(np.ones_like(s)) > 0, s, -np.inf)
            e = np.exp(s - s.max(-1, keepdims=True))
            heads.append(e / e.sum(-1, keepdims=True) @ vh)
        return linear(np.concatenate(heads, -1), f"{name}.out_proj")

    def feed(x: Array, name: str) -> Array:
        x = linear(x, f"{name}.linear1")
        erf = np.vectorize(math.erf)
        x = np.maximum(x, 0) if c.activation == "relu" else x / 2 * (1 + erf(x / math.sqrt(2)))
        return linear(x, f"{name}.linear2")

    def embed(ids: Array, stack: str) -> Array:
        table = w["embedding.weight" if c.tie_embeddings else f"{stack[:3]}_embedding.weight"]
        x: Array = table[ids] * math.sqrt(c.d_model)
        at = {"src": "encoder", "tgt": "decoder"}[stack]
        if c.positions == "learned":
            learned: Array = x + w[f"{at}.positions.weight"][: len(ids)]
            return learned
        i = np.arange(c.d_model)
        angle = np.arange(len(ids))[:, None] / 10000 ** ((i - i % 2) / c.d_model)
        return x + np.where(i % 2, np.cos(angle), np.sin(angle))

    m = embed(src[src != 0], "src")
    for i in range(c.n_encoder_layers):
        at = f"encoder.layers.{i}"
        m = around(lambda x: attention(x, x, f"{at}.self_attn"), f"{at}.norm1", m)  # noqa: B023
        m = around(lambda x: feed(x, f"{at}.ffn"), f"{at}.norm2", m)  # noqa: B023
    m = norm(m, "encoder.norm") if pre else m
    x = embed(tgt[tgt != 0], "tgt")
    for i in range(c.n_decoder_layers):
        at = f"decoder.layers.{i}"
        x = around(lambda x: attention(x, x, f"{at}.self_attn", True), f"{at}.norm1", x)  # noqa: B023
        x = around(lambda x: attention(x, m, f"{at}.cross_attn"), f"{at}.norm2", x)  # noqa: B023
        x = around(lambda x: feed(x, f"{at}.ffn"), f"{at}.norm3", x)  # noqa: B023
    x = norm(x, "decoder.norm") if pre else x
    logits: Array = x @ w["embedding.weight" if c.tie_embeddings else "lm_head.weight"].T
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_as_by_hand(variant: str) -> None:
    model = build(VARIANTS[variant]).to(tx.float64)
    src, tgt_in, _ = batch()
    got = model(src, tgt_in).numpy()
    for i in range(3):
        wanted = reference(model, src.numpy()[i], tgt_in.numpy()[i])
        np.testing.assert_allclose(got[i, : len(wanted)], wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_rows_of_padding_count_for_nothing(norm: str) -> None:
    """Batches are filled up with rows whose target is padding and whose source is one end token, or
    nothing at all: the loss and every gradient are those without them."""
    src, tgt_in, tgt_out = batch()
    model = build(replace(CONFIG, norm=norm))

    def gradients(*ids: tx.Tensor) -> tuple[float, list[Array]]:
        model.zero_grad()
        loss = model.loss(*ids, label_smoothing=0.1)
        loss.backward()
        return loss.item(), [p.grad.numpy() for p in model.parameters() if p.grad is not None]

    loss, wanted = gradients(src, tgt_in, tgt_out)
    filler = np.zeros((2, 6), int)
    filler[0, 0] = 2
    none = tx.zeros(2, 5, dtype=tx.int64)
    filled, got = gradients(
        tx.cat([src, tx.tensor(filler)]), tx.cat([tgt_in, none]), tx.cat([tgt_out, none])
    )
    assert filled == pytest.approx(loss, rel=1e-5)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    nothing, got = gradients(tx.tensor(filler), none, none)
    assert nothing == 0 and not any(g.any() for g in got)


def test_dropout_acts_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """On embeddings and sub-layers by `dropout`; on weights and hidden units by the other two."""
    monkeypatch.setenv("TX_COMPILE", "replay")
    src, tgt_in, _ = batch()
    stacks = [f"{stack}.layers.{i}" for stack in ("encoder", "decoder") for i in (0, 1)]
    wanted = {
        "dropout": {"encoder.dropout": 1, "decoder.dropout": 1}
        | {f"{at}.dropout": 2 + at.startswith("decoder") for at in stacks},
        "attention_dropout": {f"{at}.self_attn": 1 for at in stacks}
        | {f"decoder.layers.{i}.cross_attn": 1 for i in (0, 1)},
        "activation_dropout": {f"{at}.ffn.dropout": 1 for at in stacks},
    }
    for name, places in wanted.items():
        model = build(replace(CONFIG, **{name: 0.4}))
        assert not np.allclose(model(src, tgt_in).numpy(), model(src, tgt_in).numpy())
        compiled = tx.compile(model)
        compiled(src, tgt_in)
        keeps = [n for n in compiled.graph() if n.op.name == "keep"]
        assert Counter(n.scope.partition(".")[2] for n in keeps) == places
        assert {n.attrs["p"] for n in keeps} == {0.4}
        model.eval()
        np.testing.assert_array_equal(model(src, tgt_in).numpy(), model(src, tgt_in).numpy())


def test_nodes_carry_the_module_path() -> None:
    model = build()
    src, tgt_in, tgt_out = batch()
    scopes = {n.scope for n in Graph([model.loss(src, tgt_in, tgt_out).node]) if not n.is_leaf}
    assert "Transformer.encoder.layers.0.self_attn.q_proj" in scopes
    assert "Transformer.decoder.layers.1.cross_attn.out_proj" in scopes
    assert "Transformer.decoder.layers.1.norm3" in scopes


# One token at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_what_forward_gives(variant: str) -> None:
    model = build(VARIANTS[variant]).eval()
    src, tgt_in, _ = batch()
    whole = model(src, tgt_in).numpy()
    state, ids, position = model.start(src, max_new_tokens=8, beam=2)
    np.testing.assert_array_equal(ids.numpy(), np.ones(6))
    for t in range(5):
        ids = tx.tensor(np.repeat(tgt_in.numpy()[:, t], 2))
        logits = model.step(state, ids, position).numpy()
        assert logits.shape == (6, 20)
        np.testing.assert_allclose(logits[::2], whole[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits[1::2], whole[:, t], rtol=1e-4, atol=1e-5)
        position = position + 1


def test_hypotheses_can_be_reordered_and_sentences_dropped() -> None:
    model = build().eval()
    src, tgt_in, _ = batch()
    other = tgt_in.numpy() % 17 + 3
    other[:, 0] = 1
    state, _, _ = model.start(src, max_new_tokens=5, beam=2)
    first = np.stack([tgt_in.numpy(), other], 1).reshape(6, 5)  # row 2 i and 2 i + 1
    for t in range(2):
        model.step(state, tx.tensor(first[:, t]), tx.tensor(t))
    caches = [id(cache.k) for cache in state.own]
    state.reorder(tx.tensor([1, 0, 2, 2, 5, 4]))
    assert [id(cache.k) for cache in state.own] == caches  # in place
    prefix = first[[1, 0, 2, 2, 5, 4]]
    whole = model(tx.tensor(np.repeat(src.numpy(), 2, 0)), tx.tensor(prefix)).numpy()
    logits = model.step(state, tx.tensor(prefix[:, 2]), tx.tensor(2)).numpy()
    np.testing.assert_allclose(logits, whole[:, 2], rtol=1e-4, atol=1e-5)
    kept = state.keep(tx.tensor([2, 0]))
    rows = [4, 5, 0, 1]
    logits = model.step(kept, tx.tensor(prefix[rows, 3]), tx.tensor(3)).numpy()
    np.testing.assert_allclose(logits, whole[rows, 3], rtol=1e-4, atol=1e-5)


def test_lengths_say_what_is_padding() -> None:
    model = build().eval()
    src = tx.tensor([[5, 0, 7, 0, 0]])  # with a pad_id that is a word
    given = model.start(src, tx.tensor([3]), max_new_tokens=2).state
    np.testing.assert_array_equal(given.mask.numpy()[0, 0, 0], [1, 1, 1, 0, 0])
    found = model.start(src, max_new_tokens=2).state
    np.testing.assert_array_equal(found.mask.numpy()[0, 0, 0], [1, 0, 1, 0, 0])


def test_a_compiled_step_is_traced_once() -> None:
    model = build().eval()
    step = tx.compile(model.step)
    for seed in range(2):
        src, tgt_in, _ = batch(seed)
        whole = model(src, tgt_in).numpy()
        state, ids, position = model.start(src, max_new_tokens=5)
        for t in range(5):
            logits = step(state, tx.tensor(tgt_in.numpy()[:, t]), position).numpy()
            np.testing.assert_allclose(logits, whole[:, t], rtol=1e-4, atol=1e-5)
            position = position + 1
    assert step.stats()["retraces"] == 0
    assert ids.shape == (3,)


# Training -----------------------------------------------------------------------------------------


def trainer(
    model: Transformer, optimizer: tx.optim.Optimizer
) -> Callable[[tx.Tensor, tx.Tensor, tx.Tensor], tx.Tensor]:
    schedule = tx.optim.lr_scheduler.Noam(optimizer, 16, warmup=4)

    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out, label_smoothing=0.1)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return loss

    return step


@pytest.mark.one_in(2)
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_compiled_training_equals_eager(norm: str) -> None:
    """With dropout on: the same random streams are drawn."""
    losses = []
    for wrap in (lambda f: f, tx.compile):
        model = build(replace(CONFIG, norm=norm, dropout=0.1))
        step = wrap(trainer(model, tx.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)))
        tx.manual_seed(11)
        losses.append([step(*batch(n % 3)).item() for n in range(6)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    assert step.stats()["retraces"] == 0


# Against PyTorch ----------------------------------------------------------------------------------


def torch_transformer(config: TransformerConfig) -> Any:
    """A plain Transformer in PyTorch with the contract's parameter names."""
    torch = pytest.importorskip("torch")
    tnn, d = torch.nn, config.d_model

    class Attention(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(self, p, tnn.Linear(d, d, bias=config.attention_bias))

        def forward(self, q: Any, m: Any, mask: Any) -> Any:
            def heads(x: Any) -> Any:
                return x.view(x.shape[0], x.shape[1], config.n_heads, -1).transpose(1, 2)

            q, k, v = heads(self.q_proj(q)), heads(self.k_proj(m)), heads(self.v_proj(m))
            s = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
            y = (s.softmax(-1) @ v).transpose(1, 2).flatten(2)
            return self.out_proj(y)

    class Feed(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear1, self.linear2 = tnn.Linear(d, config.d_ff), tnn.Linear(config.d_ff, d)

        def forward(self, x: Any) -> Any:
            act = {"relu": torch.relu, "gelu": tnn.functional.gelu}[config.activation]
            return self.linear2(act(self.linear1(x)))

    def norm() -> Any:
        return tnn.LayerNorm(d, eps=config.layer_norm_eps)

    class Layer(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, cross: bool) -> None:
            super().__init__()
            self.self_attn, self.ffn = Attention(), Feed()
            self.norm1, self.norm2 = norm(), norm()
            if cross:
                self.cross_attn, self.norm3 = Attention(), norm()

        def around(self, n: Any, f: Callable[[Any], Any], x: Any) -> Any:
            return x + f(n(x)) if config.norm == "pre" else n(x + f(x))

    class Stack(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, n: int, cross: bool) -> None:
            super().__init__()
            self.layers = tnn.ModuleList(Layer(cross) for _ in range(n))
            self.norm = norm() if config.norm == "pre" else tnn.Identity()
            if config.positions == "learned":
                self.positions = tnn.Embedding(config.max_len, d)

        def place(self, x: Any) -> Any:
            pos = torch.arange(x.shape[1])
            if config.positions == "learned":
                return x + self.positions(pos)
            i = torch.arange(0, d, 2)
            angle = pos.double()[:, None] / 10000 ** (i.double() / d)
            table = torch.zeros(x.shape[1], d, dtype=torch.float64)
            table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
            return x + table.to(x.dtype)

    class Model(tnn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Stack(config.n_encoder_layers, False)
            self.decoder = Stack(config.n_decoder_layers, True)
            if config.tie_embeddings:
                self.embedding = tnn.Embedding(config.vocab_size, d)
            else:
                sources = config.src_vocab_size or config.vocab_size
                self.src_embedding = tnn.Embedding(sources, d)
                self.tgt_embedding = tnn.Embedding(config.vocab_size, d)
                self.lm_head = tnn.Linear(d, config.vocab_size, bias=False)

        def forward(self, src: Any, tgt: Any) -> Any:
            tied = config.tie_embeddings
            source, target = (
                (self.embedding, self.embedding)
                if tied
                else (self.src_embedding, self.tgt_embedding)
            )
            keys = (src != config.pad_id)[:, None, None]
            m = self.encoder.place(source(src) * math.sqrt(d))
            for a in self.encoder.layers:
                m = a.around(a.norm1, lambda y: a.self_attn(y, y, keys), m)  # noqa: B023
                m = a.around(a.norm2, a.ffn, m)
            m = self.encoder.norm(m)
            past = torch.ones(tgt.shape[1], tgt.shape[1]).tril().bool()
            x = self.decoder.place(target(tgt) * math.sqrt(d))
            for a in self.decoder.layers:
                x = a.around(a.norm1, lambda y: a.self_attn(y, y, past), x)  # noqa: B023
                x = a.around(a.norm2, lambda y: a.cross_attn(y, m, keys), x)  # noqa: B023
                x = a.around(a.norm3, a.ffn, x)
            x = self.decoder.norm(x)
            return x @ self.embedding.weight.T if tied else self.lm_head(x)

    torch.manual_seed(0)
    return Model()


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_five_adam_steps_as_torch(variant: str, dtype: str, close: float) -> None:
    torch = pytest.importorskip("torch")
    config = VARIANTS[variant]
    theirs = torch_transformer(config).to(getattr(torch, dtype))
    ours = Transformer(config).to(dtype)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    options: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.98), "eps": 1e-9}
    optimizers = tx.optim.Adam(ours.parameters(), **options), torch.optim.Adam(
        theirs.parameters(), **options
    )  # fmt: skip
    for n in range(5):
        ids = batch(n)
        loss = ours.loss(*ids, label_smoothing=0.1)
        src, tgt_in, tgt_out = (torch.tensor(x.numpy()) for x in ids)
        wanted = torch.nn.functional.cross_entropy(
            theirs(src, tgt_in).flatten(0, 1), tgt_out.flatten(), ignore_index=0,
            label_smoothing=0.1,
        )  # fmt: skip
        assert abs(loss.item() - wanted.item()) < close, n
        for optimizer, value in zip(optimizers, (loss, wanted), strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    if dtype == "float64":  # in float32 Adam makes whole steps of the noise in a gradient of 0
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name].numpy(), value.numpy(), atol=1e-8)
