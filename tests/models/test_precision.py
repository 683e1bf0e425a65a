"""Every kind of model under autocast: its loss, its gradients, and what it writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import decoding
from tinygrad_tx.models.registry import KINDS, Tokens, build

_SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"n_heads": 2, "d_ff": 32, "n_encoder_layers": 1, "n_decoder_layers": 1},
    "seq2seq": {},
    "convs2s": {},
    "t5": {"n_heads": 2, "d_ff": 32, "n_layers": 1},
    "gpt": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32},
    "llama": {"n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24, "max_len": 64},
    "bert": {"n_layers": 1, "n_heads": 2, "d_ff": 32, "max_len": 64, "attention_dropout": 0.0},
}


def made(kind: str) -> tuple[Any, list[tx.Tensor]]:
    """A model, and what its loss takes."""
    tx.manual_seed(0)
    own = {"d_model": 16} if kind != "gpt" else {}
    own |= {"dropout": 0.0} if "dropout" in KINDS[kind].settings else {}
    model = build({"kind": kind, **own, **_SMALL[kind]}, Tokens(24))
    rng = np.random.default_rng(0)
    src, tgt = rng.integers(3, 24, (3, 7)), rng.integers(3, 24, (3, 6))
    src[1:, 5:] = 0
    moved = np.concatenate([np.ones((3, 1), int), tgt[:, :-1]], 1)
    given = (src, moved, tgt) if KINDS[kind].task == "translate" else (tgt[:, :-1], tgt[:, 1:])
    return model, [tx.tensor(ids) for ids in given]


def test_all_kinds_are_here() -> None:
    assert _SMALL.keys() == KINDS.keys()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", _SMALL)
def test_losses_and_gradients(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", "interp")
    model, batch = made(kind)
    parameters = list(model.parameters())

    def gradients(*batch: tx.Tensor) -> list[tx.Tensor | None]:
        with tx.autocast(precision):
            loss = model.loss(*batch)
        return [loss, *tx.autograd.grad(loss, parameters, allow_unused=True)]

    eager, compiled = gradients(*batch), tx.compile(gradients)(*batch)
    assert eager[0] is not None
    assert eager[0].item() == pytest.approx(model.loss(*batch).item(), rel=0.01)
    for want, got in zip(eager, compiled, strict=True):
        assert (want is None) == (got is None)
        if want is not None and got is not None:
            assert want.dtype == got.dtype == tx.float32
            largest = want.abs().max().item()
            np.testing.assert_allclose(got.numpy(), want.numpy(), atol=0.05 * largest + 1e-3)


@pytest.mark.parametrize("kind", [k for k in _SMALL if KINDS[k].task != "mlm"])
def test_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly as probable, with caches in 16 bits."""
    monkeypatch.setenv("TX_COMPILE", "interp")
    model, batch = made(kind)
    prompt = batch[0] if KINDS[kind].task == "translate" else batch[0][:, :3]
    model.eval()
    scores = []
    for precision in ("fp32", "bf16"):
        with tx.autocast(precision):
            found = decoding.generate(model, prompt, max_new_tokens=5, beam_size=2)
        scores.append([row[0].score for row in found])
    assert scores[0] == pytest.approx(scores[1], rel=0.05)
    assert scores[0] != scores[1]
