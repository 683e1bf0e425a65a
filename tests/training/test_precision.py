"""Training in 16 bits: losses near float32's, float32 weights, a scale that a run remembers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from training_runs import Watch, outcome, rows, small

import tinygrad_tx as tx
from tinygrad_tx import nn, optim, serialize
from tinygrad_tx.errors import UserError
from tinygrad_tx.models import GPT, GPTConfig, Transformer, TransformerConfig
from tinygrad_tx.training import train
from tinygrad_tx.training.step import Trainable

HALVES = ("bf16", "fp16")


# Fifty steps -------------------------------------------------------------------------------------


def gpt() -> tuple[nn.Module, list[np.ndarray]]:
    """A GPT, and texts that count up."""
    config = GPTConfig(vocab_size=24, block_size=16, n_layer=2, n_head=2, n_embd=32)
    starts = np.random.default_rng(0).integers(0, 24, (50, 8, 1))
    return GPT(config), [(s + np.arange(17)) % 24 for s in starts]


def gpt_loss(model: nn.Module, ids: tx.Tensor) -> tx.Tensor:
    found: tx.Tensor = model.loss(ids[:, :-1], ids[:, 1:])
    return found


def transformer() -> tuple[nn.Module, list[np.ndarray]]:
    """A Transformer, and sentences that it is to turn round."""
    config = TransformerConfig(
        vocab_size=24, d_model=32, n_heads=2, d_ff=64, n_encoder_layers=1, n_decoder_layers=1
    )
    return Transformer(config), [*np.random.default_rng(0).integers(4, 24, (50, 8, 8))]


def transformer_loss(model: nn.Module, ids: tx.Tensor) -> tx.Tensor:
    turned = ids.flip(1)
    first = tx.zeros(len(ids), 1, dtype=tx.int64) + 1
    found: tx.Tensor = model.loss(ids, tx.cat([first, turned[:, :-1]], 1), turned)
    return found


CASES = {"gpt": (gpt, gpt_loss), "transformer": (transformer, transformer_loss)}


def losses(name: str, precision: str) -> list[float]:
    tx.manual_seed(0)
    make, loss_of = CASES[name]
    model, batches = make()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    scaler = optim.GradScaler(enabled=precision == "fp16")

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            loss = loss_of(model, ids)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss

    found = [step(tx.tensor(ids)).item() for ids in batches]
    assert all(p.dtype == tx.float32 for p in model.parameters())
    assert step.stats()["retraces"] == 0
    return found


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CASES)
def test_fifty_steps(name: str) -> None:
    want = losses(name, "fp32")
    assert want[-1] < 0.8 * want[0]
    for precision in HALVES:
        found = losses(name, precision)
        assert found != want
        np.testing.assert_allclose(found, want, rtol=0.03, atol=0.03)


# Runs --------------------------------------------------------------------------------------------

RESUMED = ["train.compile=true", "train.checkpoint_every=2", "data.max_tokens=2000"]


@pytest.fixture
def eager_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that grows after every third step."""
    quick = partial(optim.GradScaler, init_scale=2.0**10, growth_interval=3)
    monkeypatch.setattr(optim, "GradScaler", quick, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_that_stops_and_goes_on(precision: str, tmp_path: Path, eager_scale: None) -> None:
    """To the bit: with the scale, and how long ago it grew."""
    settings = [*RESUMED, f"train.precision={precision}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(small(*settings), whole, progress=Watch())
    train(small(*settings, "train.max_steps=4"), parts, progress=Watch())
    train(small(*settings), parts, resume=True, progress=Watch())
    last = "checkpoints/step-00000008.safetensors"
    found, wanted = serialize.load(parts / last), serialize.load(whole / last)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)
    assert rows(parts) == rows(whole)
    weights = [name for name in wanted if name.startswith("model.")]
    assert weights and all(wanted[name].dtype == tx.float32 for name in weights)
    scale = {name: wanted[name].item() for name in wanted if name.startswith("scaler.")}
    grown = {"scaler.scale": 2.0**12, "scaler.growth_tracker": 2}  # 8 steps: twice by 2
    assert scale == (grown if precision == "fp16" else {})
    best = serialize.load(whole / "model.safetensors")
    assert all(value.dtype == tx.float32 for value in best.values())


def test_a_run_keeps_its_precision(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small("train.max_steps=2", "train.precision=bf16"), run, progress=Watch())
    before = outcome(run)
    with pytest.raises(UserError, match=r"train\.precision was bf16 .*, and is fp32 now"):
        train(small(), run, resume=True, progress=Watch())
    assert outcome(run) == before


def test_tf32_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="products on cpu are not computed in it") as caught:
        train(small("train.precision=tf32"), tmp_path / "run", progress=Watch())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_unknown_precisions() -> None:
    with pytest.raises(UserError, match=r"train\.precision .*fp32.*bf16"):
        small("train.precision=bf61")


def test_a_step_whose_gradient_is_infinite(tmp_path: Path) -> None:
    """In float16 a scale that is too large makes it so: nothing changes but the scale."""
    tx.manual_seed(0)
    model, batches = gpt()
    trainable = Trainable(
        model,
        small("train.precision=fp16", "train.compile=true"),
        lambda ids: (tx.tensor(ids[:, :-1]), tx.tensor(ids[:, 1:])),
    )
    trainable.scaler.update(2.0**40)

    class Batch(np.ndarray):
        n_tokens = 128

    before = [p.numpy().copy() for p in model.parameters()]
    first = trainable([batches[0].view(Batch)])
    assert not first.finite and not np.isfinite(first.norm) and np.isfinite(first.loss)
    for p, value in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
    assert trainable.scaler.get_scale() == 2.0**39
    outcomes = [trainable([b.view(Batch)]) for b in batches[:40]]
    assert outcomes[-1].finite and trainable.scaler.get_scale() < 2.0**30
    assert trainable.optimizer.skipped.item() > 5
