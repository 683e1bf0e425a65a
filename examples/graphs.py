"""Pictures of training steps: an MLP's, a Transformer's of one layer, and a recurrent tagger's.

    python examples/graphs.py --out docs/pictures

draws those of docs/seeing.md. Each step is recorded, and drawn without running.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.nn import functional as F  # noqa: N812


def mlp() -> tx.viz.Drawing:
    model = nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, 1))
    opt = tx.optim.Adam(model.parameters(), 1e-2)

    def train_step(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss

    return tx.viz.graph(train_step, tx.zeros(8, 2), tx.zeros(8, 1))


def transformer() -> tx.viz.Drawing:
    config = tx.models.TransformerConfig(
        vocab_size=32, d_model=16, n_heads=4, d_ff=24, n_encoder_layers=1, n_decoder_layers=1
    )
    model = tx.models.Transformer(config)
    opt = tx.optim.Adam(model.parameters(), 1e-3)

    def train_step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        return loss

    words = [tx.ones(2, n, dtype=tx.int64) for n in (7, 5, 5)]
    return tx.viz.graph(train_step, *words)


class Tagger(nn.Module):
    """ids (S, B) -> scores (S, B, tags)."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, ids: tx.Tensor) -> tx.Tensor:
        h, _ = self.lstm(self.embedding(ids))
        return self.head(h)


def tagger() -> tx.viz.Drawing:
    model = Tagger()
    opt = tx.optim.SGD(model.parameters(), 0.1)

    def train_step(ids: tx.Tensor, tags: tx.Tensor) -> tx.Tensor:
        scores = model(ids)
        loss = F.cross_entropy(scores.flatten(0, 1), tags.flatten())
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss

    return tx.viz.graph(train_step, *(tx.ones(6, 2, dtype=tx.int64) for _ in range(2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(), help="the folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("mlp", mlp), ("transformer", transformer), ("tagger", tagger)):
        path = draw().save(out / f"step-{name}.svg")
        print(f"drawn in {path}")


if __name__ == "__main__":
    main()
