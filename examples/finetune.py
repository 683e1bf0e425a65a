"""A small GPT learns one text, is written to a directory, and goes on from there on another text:
all of its weights, its last layers alone, or adapters of low rank.

    python examples/finetune.py --data input.txt

The first half of the text stands for what a model was trained on before, the second for what it
is to learn now; the last tenth of that is kept apart. It prints how many numbers each way learns,
how many kernels a step takes, how long, and the loss that it comes to.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.data import Tokenizer
from tinygrad_tx.models import GPT, GPTConfig, from_pretrained

SMALL = bool(os.environ.get("TX_SMALL"))  # how the tests run it
BLOCK, BATCH = (16, 2) if SMALL else (64, 12)
LAYERS, WIDTH = (2, 16) if SMALL else (4, 128)
STEPS, MORE = (4, 3) if SMALL else (1000, 300)
BATCHES = 2 if SMALL else 50  # to validate on

Array = np.ndarray[Any, Any]
Parameters = list[tx.nn.Parameter]


def batches(ids: Array, seed: int) -> Iterator[tuple[tx.Tensor, tx.Tensor]]:
    """Windows from random places, and the same windows one token on."""
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.integers(0, len(ids) - BLOCK, BATCH)
        windows = ids[starts[:, None] + np.arange(BLOCK + 1)]
        yield tx.tensor(windows[:, :-1]), tx.tensor(windows[:, 1:])


def train(model: GPT, learnt: Parameters, ids: Array, steps: int, lr: float) -> tuple[int, float]:
    """Trains these parameters; the kernels of a step, and its milliseconds."""
    optimizer = tx.optim.AdamW(learnt, lr=lr, weight_decay=0.0)

    @tx.compile
    def step(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        loss = model.loss(ids, targets)
        loss.backward()
        tx.optim.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    stream, begin = batches(ids, 0), 0.0
    for n in range(steps):
        step(*next(stream))
        if n == 0:  # the first one is traced
            begin = time.perf_counter()
    return step.stats()["kernels"], 1e3 * (time.perf_counter() - begin) / max(steps - 1, 1)


@tx.no_grad()
def loss_on(model: GPT, ids: Array) -> float:
    """The mean loss over the same batches each time."""
    model.eval()
    stream = batches(ids, 1)
    found = np.mean([model.loss(*next(stream)).item() for _ in range(BATCHES)])
    model.train()
    return float(found)


def whole(model: GPT) -> Parameters:
    return list(model.parameters())


def last_layers(model: GPT) -> Parameters:
    """The second half of the layers, and the last norm; what lies before gets no gradients."""
    model.requires_grad_(False)
    for part in (*list(model.h)[LAYERS // 2 :], model.ln_f):
        part.requires_grad_()
    return [p for p in model.parameters() if p.requires_grad]


def adapters(model: GPT) -> Parameters:
    return list(tx.nn.lora(model, 8, ["c_attn", "c_proj", "c_fc"]).parameters())


WAYS: dict[str, tuple[Callable[[GPT], Parameters], float]] = {
    "all weights": (whole, 3e-4),
    "the last layers": (last_layers, 5e-4),
    "adapters": (adapters, 2e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="a text file")
    args = parser.parse_args()
    if args.data:
        text = args.data.read_text(encoding="utf-8")
    elif SMALL:
        text = "the dog sees a cat. " * 40 + "7 cats, 7 dogs; " * 60
    else:
        parser.error("give --data FILE, such as tinyshakespeare's input.txt")

    tx.manual_seed(0)
    tokenizer = Tokenizer.train([text], "char", 500, min_frequency=1)
    ids = np.array(tokenizer.encode(text))
    before, now = ids[: len(ids) // 2], ids[len(ids) // 2 :]
    now, valid = now[: len(now) * 9 // 10], now[len(now) * 9 // 10 :]

    config = GPTConfig(
        tokenizer.vocab_size, LAYERS, 2 if SMALL else 4, WIDTH, BLOCK, bias=True, init_std=0.06
    )
    model = GPT(config)
    train(model, whole(model), before, STEPS, 1e-3)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory, tokenizer)
        print(f"{'':<18}{'numbers':>10}{'kernels':>10}{'ms a step':>12}{'loss':>9}")
        print(f"{'as it was':<18}{'':>32}{loss_on(model, valid):>9.3f}")
        for name, (choose, lr) in WAYS.items():
            own, _ = from_pretrained(directory)
            learnt = choose(own.train())
            kernels, ms = train(own, learnt, now, MORE, lr)
            numbers = sum(p.numel() for p in learnt)
            loss = loss_on(own, valid)
            print(f"{name:<18}{numbers:>10,}{kernels:>10}{ms:>12.1f}{loss:>9.3f}")


if __name__ == "__main__":
    main()
