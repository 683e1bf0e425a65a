"""Training by several ranks: the steps of one, to rounding; resumed, the same again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks_case import case, train_all
from training_runs import outcome, rows

import tinygrad_tx as tx
from tinygrad_tx.data import Batches, Dataset
from tinygrad_tx.data.text import Text
from tinygrad_tx.data.windows import IGNORED, Windows
from tinygrad_tx.errors import UserError
from tinygrad_tx.random import Rows
from tinygrad_tx.tokenizer import Tokenizer
from tinygrad_tx.training.parallel import Ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are made by fork")

DROPS = ("model.dropout=0.2", "model.attention_dropout=0.1", "model.activation_dropout=0.1")
SHORT = ("train.max_steps=4", "train.valid_every=4", "train.checkpoint_every=2")


def far(one: Path, other: Path) -> float:
    """The largest difference of two runs' metrics; they have the same rows and whole numbers."""
    first, second = rows(one), rows(other)
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if isinstance(value, float):
                worst = max(worst, abs(value - b[name]))
            else:
                assert value == b[name], name
    return worst


def weights(run: Path, step: int) -> dict[str, Any]:
    return {
        n: t.numpy() for n, t in tx.load(run / f"checkpoints/step-{step:08}.safetensors").items()
    }


TEXT = "the cat sat on the mat. " * 20
SHARDED = "optim.shard=true"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the three tests below, made by one process."""
    root = tmp_path_factory.mktemp("ranks")
    several = (*DROPS, *SHORT, "optim.accumulate=2", "optim.clip_norm=0.3")
    clipped = (*SHORT, "optim.clip_norm=0.3")
    half = (*SHORT, "train.compile=false", "train.precision=fp16", "optim.lr=0.0001")
    half = (*half, "schedule.min_lr=0.0001")
    long = ("train.max_steps=6", "train.checkpoint_every=6", "train.compile=false", SHARDED)
    train_all(
        root,
        *(case(f"pairs-{n}", n, *several) for n in (1, 2)),
        *(case(f"text-{n}", n, *clipped, text=TEXT) for n in (1, 3)),
        case("text-2", 2, *clipped, SHARDED, text=TEXT),
        case("one", 1, *half, text=TEXT, float32=True),
        case("two", 2, *half, text=TEXT, float32=True),
        case("parts", 2, *half, SHARDED, text=TEXT, float32=True),
        case("whole", 2, *long, text=TEXT),
        case("stopped", 2, *long, stops=[99, 3], text=TEXT),
        case("stopped", 2, *long, resume=True, text=TEXT),
        case("other", 2, *long, stops=[2], text=TEXT),
        case("other", 3, *long, resume=True, text=TEXT),
    )
    return root


def test_ranks_take_the_steps_of_one(runs: Path) -> None:
    """Dropout included, eagerly, where a step is several batches; and compiled, with more ranks
    than rows. Losses, norms, weights and moments are one rank's, and so are the files; also where
    each rank keeps its part of the moments."""
    for one, several_ranks in (("pairs-1", "pairs-2"), ("text-1", "text-3"), ("text-1", "text-2")):
        alone, run = runs / one, runs / several_ranks
        assert far(alone, run) < 1e-9
        mine, wanted = weights(run, 4), weights(alone, 4)
        assert mine.keys() == wanted.keys()
        assert max(abs(mine[name] - wanted[name]).max() for name in wanted) < 1e-9
        assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in alone.iterdir())


def test_mixed_precision(runs: Path) -> None:
    """All ranks skip the same steps and find the same scale as one; losses differ as 16 bits
    round."""
    one = weights(runs / "one", 4)
    for name in ("two", "parts"):
        assert far(runs / "one", runs / name) < 0.02
        found = weights(runs / name, 4)
        assert found["scaler.scale"] == one["scaler.scale"]
        assert found["optimizer.skipped"] == one["optimizer.skipped"]


def test_a_resumed_run_is_the_same(runs: Path) -> None:
    """To the bit with as many ranks, to rounding with another number; after a signal at any rank,
    upon which all stop at the same step."""
    assert outcome(runs / "stopped") == outcome(runs / "whole")
    assert far(runs / "other", runs / "whole") < 1e-9
    for name in ("stopped", "other"):
        assert len((runs / name / "sittings.jsonl").read_text().splitlines()) == 2


def shares(batches: Any, batch: Any, size: int) -> list[Any]:
    """What each of some ranks has of a batch."""
    found = []
    for number in range(size):
        ranks = Ranks()
        ranks.number, ranks.size, ranks.first, ranks.alone = number, size, not number, size == 1
        found.append(ranks.part(batches, batch))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_shares_of_sentence_pairs(size: int) -> None:
    pairs = [(f"{a} {b}", f"{b} {a} {b}") for a in "abc" for b in "ijk"]
    tokenizer = Tokenizer.train((text for pair in pairs for text in pair), "word", 40, False, 1)
    batches = Batches(Dataset.from_pairs(pairs, tokenizer), 40)
    batch = next(batches)
    parts = shares(batches, batch, size)
    assert sum(part.batch.n_tokens for part in parts) == batch.n_tokens
    having = [p for p in parts if p.batch.n_tokens]
    for name in ("src", "tgt_in", "tgt_out"):
        joined = np.concatenate([getattr(p.batch, name) for p in having])
        np.testing.assert_array_equal(joined, getattr(batch, name)[: len(joined)])
    assert np.concatenate([p.batch.indices for p in parts]).tolist() == batch.indices.tolist()
    for part in parts:
        assert len(part.batch.src) == (part.rows.count if part.rows else len(batch.src)) > 0
    if size > 1:
        assert having[-1].rows.first + having[-1].rows.count == len(batch.src)


def test_shares_of_windows() -> None:
    tokenizer = Tokenizer.train(["a b c d e"], "word", 20, False, 1)
    text = Text.from_documents([["a b c d e " * 20]], tokenizer)
    windows = Windows(text, 6, 4)
    batch = next(windows)
    parts = shares(windows, batch, 5)
    assert [part.rows for part in parts[:2]] == [Rows(0, 1, 4), Rows(0, 1, 4)]
    assert (parts[0].batch.targets == IGNORED).all() and not parts[0].batch.n_tokens
    joined = np.concatenate([part.batch.ids for part in parts[1:]])
    np.testing.assert_array_equal(joined, batch.ids)
    assert sum(part.batch.n_tokens for part in parts) == batch.n_tokens


def test_what_the_first_rank_finds_the_others_are_told() -> None:
    def rank() -> Any:
        ranks, said = Ranks(), []
        found = ranks.first_does(lambda: said.append("done") or {"number": ranks.number})
        with pytest.raises(UserError, match="no room"):
            ranks.first_does(lambda: (_ for _ in ()).throw(UserError("no room")))
        ranks.require_same("data", 5)
        with pytest.raises(UserError, match="rank 1 has read other data than rank 0"):
            ranks.require_same("data", ranks.number)
        return found, said

    first, second = tx.distributed.local.run(2, rank)
    assert first == ({"number": 0}, ["done"]) and second == ({"number": 0}, [])
