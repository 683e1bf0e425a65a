"""Runs of training by some ranks, each a fork of a fresh process: what has used threads before,
such as the tokenizers of other tests, does not survive a fork.

    python tests/helpers/ranks_case.py DIR < cases.json

A case has a name, which is the run's directory in DIR, the number of ranks, overrides of the small
run, or of a compiled one on a text, whether to resume, and steps at which each rank is asked to
stop, by rank.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tinygrad_tx as tx
from tinygrad_tx.training import Stopped, apply_overrides, preset, train, trainer

HERE = Path(__file__)
TEXT = [
    *("data.max_len=8", "data.max_tokens=16", "model.n_embd=16", "model.n_layer=1"),
    *("model.n_head=2", "model.block_size=8", "model.dropout=0.2", "schedule.warmup_steps=2"),
    *("train.samples=0", "train.log_every=1", "train.keep_last=10"),
]  # two windows a batch


def train_all(root: Path, *cases: Mapping[str, Any]) -> None:
    """Train cases one after the other, in float64 unless they say float32=True."""
    text = json.dumps(cases)
    given = [sys.executable, str(HERE), str(root)]
    done = subprocess.run(given, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def case(name: str, ranks: int, *overrides: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "ranks": ranks, "overrides": overrides, **more}


def _train(root: Path, given: Mapping[str, Any]) -> None:
    from training_runs import Watch, small

    if text := given.get("text"):
        file = root / "text.txt"
        file.write_text(text)
        config = apply_overrides(preset("char"), [f"data.text={file}", *TEXT, *given["overrides"]])
    else:
        config = small(*given["overrides"])
    stops: Sequence[int] = given.get("stops", ())

    def rank() -> None:
        tx.set_num_threads(1)
        watch = Watch()
        if stops and (number := tx.distributed.get_rank()) < len(stops):
            _stop_after(stops[number])
        try:
            train(config, root / given["name"], given.get("resume", False), watch)
        except Stopped:
            assert stops

    tx.distributed.local.run(given["ranks"], rank)


def _stop_after(step: int) -> None:
    """This process gets a SIGTERM during a step, from itself."""
    from tinygrad_tx.training.step import Trainable

    before, taken = Trainable.__call__, [0]

    def call(self: Trainable, batches: Sequence[Any]) -> Any:
        taken[0] += 1
        if taken[0] == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(self, batches)

    Trainable.__call__ = call  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    in_float32 = trainer.build
    for found in json.load(sys.stdin):
        dtype = tx.float32 if found.get("float32") else tx.float64
        trainer.build = lambda *of, dtype=dtype: in_float32(*of).to(dtype)
        _train(Path(sys.argv[1]), found)
