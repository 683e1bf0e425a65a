"""A small GPT learns to write, character by character, from one text file.

Get a text, for example the Shakespeare of Karpathy's char-rnn (tinyshakespeare, 1.1 MB), and run

    python examples/shakespeare.py --data input.txt
    python examples/shakespeare.py --data input.txt --steps 200

The last tenth of the text is kept apart to validate on. With the standard 2000 steps on
tinyshakespeare the validation loss ends at about 1.74; with the initial weights of GPT-2, which are
meant for wider models, at about 1.90:

    python examples/shakespeare.py --data input.txt --init-std 0.02
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.models import GPT, GPTConfig
from tinygrad_tx.optim import AdamW, clip_grad_norm_
from tinygrad_tx.optim.lr_scheduler import Cosine

BLOCK, BATCH = 64, 12  # characters in a window, windows in a batch
LAYERS, HEADS, WIDTH = 4, 4, 128
INIT_STD = 0.06
LR, MIN_LR, WARMUP = 1e-3, 1e-4, 100
EVERY = 250  # steps between two validations
VALIDATION_BATCHES = 100

Array = np.ndarray[Any, Any]


class Text:
    """A text as numbers, one for each character: what to train on, and what to validate on."""

    def __init__(self, text: str) -> None:
        self.characters = sorted(set(text))
        number = {c: i for i, c in enumerate(self.characters)}
        ids = np.array([number[c] for c in text])
        cut = len(ids) * 9 // 10
        self.train, self.valid = ids[:cut], ids[cut:]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.characters[i] for i in ids)


def batches(ids: Array, seed: int) -> Iterator[tuple[tx.Tensor, tx.Tensor]]:
    """Windows from random places, and the same windows one character on: (BATCH, BLOCK) each."""
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.integers(0, len(ids) - BLOCK, BATCH)
        windows = ids[starts[:, None] + np.arange(BLOCK + 1)]
        yield tx.tensor(windows[:, :-1]), tx.tensor(windows[:, 1:])


def train(text: Text, steps: int, init_std: float) -> GPT:
    """A trained model; prints its losses on the way."""
    config = GPTConfig(len(text.characters), LAYERS, HEADS, WIDTH, BLOCK, init_std=init_std)
    model = GPT(config)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # norms are not to shrink
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=LR, betas=(0.9, 0.99))
    schedule = Cosine(optimizer, steps, min(WARMUP, steps // 2), MIN_LR)

    @tx.compile
    def train_step(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        loss = model.loss(ids, targets)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        return loss

    @tx.compile
    @tx.no_grad()
    def loss_of(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        return model.loss(ids, targets)

    def validate() -> float:
        """The mean over the same batches each time."""
        model.eval()
        drawn = batches(text.valid, seed=1)
        total: float = sum(loss_of(*next(drawn)).item() for _ in range(VALIDATION_BATCHES))
        model.train()
        return total / VALIDATION_BATCHES

    seconds, losses = 0.0, []
    for step, batch in zip(range(1, steps + 1), batches(text.train, seed=0), strict=False):
        start = time.perf_counter()
        losses.append(train_step(*batch).item())
        seconds += time.perf_counter() - start
        if step % EVERY == 0 or step == steps:
            recent = sum(losses[-EVERY:]) / len(losses[-EVERY:])
            print(
                f"step {step:5}   train {recent:.4f}   valid {validate():.4f}   "
                f"{1e3 * seconds / step:.1f} ms a step",
                flush=True,
            )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="a text, UTF-8")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="(default: 2000)")
    parser.add_argument(
        "--init-std", type=float, default=INIT_STD, metavar="S", help=f"(default: {INIT_STD})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    args = parser.parse_args()
    if args.data is None:
        print("give it a text to learn from: python examples/shakespeare.py --data FILE")
        return
    if args.steps < 1:
        parser.error("--steps must be 1 or more")
    if not args.init_std > 0:
        parser.error("--init-std must be above 0")
    if not args.data.is_file():
        parser.error(f"there is no file {args.data}")
    text = Text(args.data.read_text(encoding="utf-8"))
    if len(text.valid) <= BLOCK + 1:
        parser.error(f"{args.data} is too short: it must have some {20 * BLOCK} characters")

    tx.manual_seed(args.seed)
    model = train(text, args.steps, args.init_std)
    prompt = text.valid[None, :1]
    (found,) = tx.decoding.generate(
        model, prompt, max_new_tokens=BLOCK, do_sample=True, temperature=0.8, top_k=20
    )
    print(f"\n{text.decode([*prompt[0], *found[0].tokens])}")


if __name__ == "__main__":
    main()
