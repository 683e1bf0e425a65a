"""Runs small enough for tests: seconds, on the built-in corpus. Used by the tests of training, of
checkpoints and of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygrad_tx.training import Config, apply_overrides
from tinygrad_tx.training.log import Row

SMALL = [
    *("data.corpus_size=120", "data.valid_size=12", "data.max_tokens=200", "data.max_len=64"),
    *("tokenizer.vocab_size=300", "model.d_model=16", "model.n_heads=2", "model.d_ff=32"),
    *("model.n_encoder_layers=1", "model.n_decoder_layers=1", "schedule.warmup_steps=10"),
    *("train.max_steps=8", "train.log_every=2", "train.valid_every=4", "train.keep_last=10"),
    *("train.checkpoint_every=3", "train.valid_sentences=3", "train.compile=false"),
    *("train.valid_bleu=false", "decode.max_extra_tokens=2"),
]


def small(*overrides: str) -> Config:
    """The defaults, made much smaller, with these changes; no preset, for those are tuned."""
    return apply_overrides(Config(), [*SMALL, *overrides])


class Watch:
    """A Progress that keeps what it is told, and calls back with it."""

    def __init__(
        self,
        on_step: Callable[[int], None] = lambda step: None,
        on_row: Callable[[Row], None] = lambda row: None,
    ) -> None:
        self.on_step, self.on_row = on_step, on_row
        self.said: list[str] = []
        self.losses: list[float] = []
        self.last: int | None = None
        self.closed = False

    def start(self, step: int, last: int | None) -> None:
        self.last = last

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self.losses.append(loss)
        self.on_step(step)

    def row(self, row: Row) -> None:
        self.on_row(row)

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        self.closed = True


def rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    for row in found:
        row.pop("tokens_per_s", None)
        row.pop("seconds", None)
    return found


def outcome(run: Path) -> dict[str, Any]:
    """All that two runs must have in common to be the same run: not the clock, nor the machine."""
    other = ("metrics.jsonl", "sittings.jsonl", "profile.json", "report.html")
    return {
        "rows": rows(run),
        **{
            str(path.relative_to(run)): path.read_bytes()
            for path in sorted(run.rglob("*"))
            if path.is_file() and path.name not in other
        },
    }
