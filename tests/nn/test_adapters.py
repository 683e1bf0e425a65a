"""LoRA: nothing changes at first, adapters alone learn, merging is the same function, and unmerging
the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import UserError
from tinygrad_tx.models import GPT, T5, GPTConfig, Llama, LlamaConfig, T5Config


def build(bias: bool = True) -> GPT:
    tx.manual_seed(0)
    return GPT(GPTConfig(20, 2, 2, 8, 6, bias=bias))


IDS = tx.tensor(np.arange(12).reshape(2, 6))
TARGETS = tx.tensor(np.arange(1, 13).reshape(2, 6))


def train(model: GPT, adapters: nn.adapters.Adapters, steps: int = 3) -> list[float]:
    optimizer = tx.optim.Adam(adapters.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        loss = model.loss(IDS, TARGETS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_adapters_alone_learn() -> None:
    model = build()
    wanted, before = model(IDS).numpy(), model.state_dict()
    adapters = nn.lora(model, 2, ["c_attn", "*.mlp.c_fc"])
    assert [*adapters.modules] == [
        f"h.{i}.{name}" for i in range(2) for name in ("attn.c_attn", "mlp.c_fc")
    ]
    np.testing.assert_array_equal(model(IDS).numpy(), wanted)
    learnt = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learnt == [name for name, _ in adapters.named_parameters()] and len(learnt) == 8
    losses = train(model, adapters)
    assert losses[2] < losses[0]
    after = model.state_dict()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].numpy(), value.numpy())


def test_merge_and_unmerge() -> None:
    model = build().eval()
    adapters = nn.lora(model, 2, "c_attn", alpha=4)
    train(model, adapters)
    apart, weight = model(IDS).numpy(), model.h[0].attn.c_attn.weight.numpy().copy()
    step = tx.compile(model)
    np.testing.assert_allclose(step(IDS).numpy(), apart, rtol=1e-5, atol=1e-6)
    adapters.merge()
    assert adapters.merged and (model.h[0].attn.c_attn.weight.numpy() != weight).any()
    np.testing.assert_allclose(model(IDS).numpy(), apart, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(step(IDS).numpy(), apart, rtol=1e-5, atol=1e-6)
    adapters.merge()  # once is enough
    adapters.unmerge()
    np.testing.assert_array_equal(model.h[0].attn.c_attn.weight.numpy(), weight)
    np.testing.assert_array_equal(model(IDS).numpy(), apart)


def test_only_adapters_are_saved(tmp_path: Path) -> None:
    model = build()
    adapters = nn.lora(model, 2, "c_proj")
    train(model, adapters)
    adapters.save(tmp_path / "lora.safetensors")
    assert sorted(tx.load(tmp_path / "lora.safetensors")) == sorted(adapters.state_dict())
    other = build()
    nn.lora(other, 2, "c_proj").load(tmp_path / "lora.safetensors")
    np.testing.assert_array_equal(other(IDS).numpy(), model(IDS).numpy())
    with pytest.raises(UserError, match="adapters of rank 2, and these have 3"):
        nn.lora(build(), 3, "c_proj").load(tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="missing"):
        nn.lora(build(), 2, "c_attn").load(tmp_path / "lora.safetensors")


def test_remove_leaves_a_plain_model() -> None:
    model = build().eval()
    adapters = nn.lora(model, 2, "c_attn")
    train(model, adapters)
    wanted = model(IDS).numpy()
    adapters.merge()
    adapters.remove(model)
    assert not any(isinstance(m, nn.LoRALinear) for m in model.modules())
    assert model.state_dict().keys() == build().state_dict().keys()
    np.testing.assert_allclose(model(IDS).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_what_is_wrong() -> None:
    with pytest.raises(UserError, match="no Linear is called 'q_proj'; there are c_attn, c_proj"):
        nn.lora(build(), 2, "q_proj")
    for rank in (0, -1, 1.5, True):
        with pytest.raises(UserError, match="rank"):
            nn.lora(build(), rank, "c_attn")  # type: ignore[arg-type]
    model = build()
    nn.lora(model, 2, "c_attn")
    with pytest.raises(UserError, match=r"h\.0\.attn\.c_attn has an adapter already"):
        nn.lora(model, 2, "c_attn")


def test_frozen_early_layers_cost_no_gradients() -> None:
    """What lies before the first layer that learns is not differentiated."""

    def kernels(model: GPT) -> int:
        learnt = [p for p in model.parameters() if p.requires_grad]
        optimizer = tx.optim.SGD(learnt, lr=0.1)

        @tx.compile
        def step(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
            loss = model.loss(ids, targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        step(IDS, TARGETS)
        found: int = step.stats()["kernels"]
        return found

    whole, frozen = build(), build()
    frozen.requires_grad_(False)
    frozen.h[1].requires_grad_()
    forward = tx.compile(build().eval())
    forward(IDS)
    assert kernels(frozen) < kernels(whole)
    only_last = build()
    only_last.requires_grad_(False)
    only_last.ln_f.requires_grad_()
    assert kernels(only_last) < kernels(frozen)


def test_groups_by_names() -> None:
    model = build()
    groups = tx.optim.parameter_groups(
        model, {"*.bias": {"weight_decay": 0.0}, "h.0.*": {"lr": 1e-5}}
    )
    names = {id(p): name for name, p in model.named_parameters()}
    first, second, rest = ([names[id(p)] for p in g["params"]] for g in groups)
    assert all(name.endswith("bias") for name in first) and len(first) == 13
    assert all(name.startswith("h.0.") and name.endswith("weight") for name in second)
    assert "wte.weight" in rest and sum(map(len, (first, second, rest))) == len(names)
    optimizer = tx.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.0, 0.1, 0.1]
    assert optimizer.param_groups[1]["lr"].item() == pytest.approx(1e-5)
    model.h[0].requires_grad_(False)
    groups = tx.optim.parameter_groups(model, {"h.0.*": {"lr": 1e-5}})
    assert len(groups) == 1
    with pytest.raises(UserError, match="no parameter is called 'q_proj"):
        tx.optim.parameter_groups(model, {"q_proj": {}})


def test_a_head_learns_as_other_maps_do() -> None:
    """An output with a matrix of its own is called."""
    tx.manual_seed(0)
    for model, given in (
        (Llama(LlamaConfig(20, 8, 1, 2, d_ff=12, max_len=8)), 1),
        (T5(T5Config(20, 8, 1, 2, 12, tie_embeddings=False)), 2),
    ):
        nn.lora(model, 2, "lm_head")
        ids = tx.tensor([[3, 4, 5]])
        model.loss(*[ids] * given, ids).backward()
        assert [n for n, p in model.named_parameters() if p.grad is not None] == [
            "lm_head.lora_a", "lm_head.lora_b",
        ]  # fmt: skip


def test_adapters_beside_adapters() -> None:
    model = build()
    first = nn.lora(model, 2, "c_attn")
    second = nn.lora(model, 2, "c_fc")
    assert all(p.requires_grad for a in (first, second) for p in a.parameters())
    learning = sum(p.requires_grad for p in model.parameters())
    assert learning == len([*first.parameters(), *second.parameters()])


def test_a_shared_map_is_adapted_in_all_its_places() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model.append(model[0])
    adapters = nn.lora(model, 2, "0")
    assert isinstance(model[0], nn.LoRALinear) and model[2] is model[0]
    adapters.remove(model)
    assert type(model[0]) is nn.Linear and model[2] is model[0]


def test_weights_that_change_while_merged() -> None:
    model = build()
    adapters = nn.lora(model, 2, "c_attn")
    adapters.merge()
    model.load_state_dict({n: v + 1 for n, v in model.state_dict().items()})
    with pytest.raises(UserError, match="the weight was changed while its adapter was merged"):
        adapters.unmerge()
    with pytest.raises(TypeError, match="targets must be names of Linears"):
        nn.lora(build(), 2, [3])  # type: ignore[list-item]
