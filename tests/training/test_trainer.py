"""Training: what a step does, when what falls due, and that measuring disturbs nothing."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from training_runs import Watch, rows, small

import tinygrad_tx as tx
from tinygrad_tx import random, serialize
from tinygrad_tx.data import Batch, Batches, Dataset
from tinygrad_tx.errors import UserError
from tinygrad_tx.models import Transformer
from tinygrad_tx.models.loading import build, weights
from tinygrad_tx.optim import lr_scheduler
from tinygrad_tx.tokenizer import Tokenizer
from tinygrad_tx.training import Config, corpus, progress, train
from tinygrad_tx.training import log as metrics
from tinygrad_tx.training.metrics import score
from tinygrad_tx.training.step import Trainable, tensors
from tinygrad_tx.training.validation import Validation

PAIRS = [(f"{a} {b}", f"{b} {a}") for a in "abcdefgh" for b in "ijklmnop"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train((text for pair in PAIRS for text in pair), "word", 40, False, 1)


def batches(tokenizer: Tokenizer, max_tokens: int) -> Batches:
    return Batches(Dataset.from_pairs(PAIRS, tokenizer), max_tokens)


def new_model(tokenizer: Tokenizer, config: Config) -> Transformer:
    random.manual_seed(config.train.seed)
    return build(asdict(config.model), tokenizer)


def fresh(tokenizer: Tokenizer, *overrides: str) -> tuple[Transformer, Trainable]:
    config = small(*overrides)
    model = new_model(tokenizer, config)
    return model, Trainable(model, config)


# One step ----------------------------------------------------------------------------------------


def test_micro_batches_weigh_as_one_large_batch(tokenizer: Tokenizer) -> None:
    """Also where they have unequally many tokens, as here: a mean of means would be another."""
    config = small("model.dropout=0", "optim.clip_norm=0.5")
    pairs = [*PAIRS[:20], *((f"{s} {s} {s}", t) for s, t in PAIRS[20:24]), *PAIRS[24:27]]
    pairs = [(s, f"{t} {t}" if i % 3 else t) for i, (s, t) in enumerate(pairs)]
    data = Dataset.from_pairs(pairs, tokenizer)
    [whole] = list(Batches(data, 10_000, max_shapes=1).once())
    cuts = [0, 4, 5, 16, 27]
    parts = [
        Batch(
            whole.src[i:j],
            whole.tgt_in[i:j],
            whole.tgt_out[i:j],
            int((whole.tgt_out[i:j] != 0).sum()),
            whole.indices[i:j],
        )
        for i, j in pairwise(cuts)
    ]
    assert sum(part.n_tokens for part in parts) == whole.n_tokens
    assert len({part.n_tokens for part in parts}) == 4
    found = []
    for given in ([whole], parts):
        model = new_model(tokenizer, config).to(tx.float64)
        trainable = Trainable(model, config)
        outcomes = [trainable(given) for _ in range(3)]
        found.append((outcomes, {n: t.numpy() for n, t in model.state_dict().items()}))
    (one, one_state), (many, many_state) = found
    for a, b in zip(one, many, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-9)
        assert a.norm == pytest.approx(b.norm, abs=1e-9)
        assert a.norm > 0.5, "the joint gradient is clipped, not each part's"
    for name, value in one_state.items():
        np.testing.assert_allclose(many_state[name], value, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_compiled_steps_are_the_eager_ones(tokenizer: Tokenizer, accumulate: int) -> None:
    """With dropout, a moving average, and batches of several shapes."""
    found = []
    for mode in ("true", "false"):
        model, trainable = fresh(
            tokenizer, f"train.compile={mode}", "optim.ema_decay=0.9", "model.dropout=0.3"
        )
        stream = batches(tokenizer, 60)
        outcomes = [trainable([next(stream) for _ in range(accumulate)]) for _ in range(6)]
        assert trainable.ema is not None
        state = {**model.state_dict(), **trainable.ema.state_dict()}
        found.append((outcomes, {name: t.numpy() for name, t in state.items()}))
    (compiled, compiled_state), (eager, eager_state) = found
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)
    for name, value in eager_state.items():
        np.testing.assert_allclose(compiled_state[name], value, atol=1e-4, err_msg=name)


def test_a_toy_task_is_learnt(tokenizer: Tokenizer) -> None:
    """Two words are swapped, also those of pairs that were never seen."""
    config = small(
        *("model.d_model=32", "model.d_ff=64", "model.dropout=0", "schedule.warmup_steps=40"),
        *("schedule.scale=0.3", "train.compile=true", "train.label_smoothing=0"),
    )
    model = new_model(tokenizer, config)
    trainable = Trainable(model, config)
    held_out = PAIRS[::7]
    data = Dataset.from_pairs([p for p in PAIRS if p not in held_out], tokenizer)
    stream = Batches(data, 80)
    outcomes = [trainable([next(stream)]) for _ in range(150)]
    assert outcomes[0].loss > 2.5 and outcomes[-1].loss < 0.1
    validation = Validation(held_out, tokenizer, model, stream, lambda: None)
    assert validation.loss() < 0.3
    found, scores = validation.translate(len(held_out), config.decode)
    assert sum(text == target for text, (_, target) in zip(found, held_out, strict=True)) >= 9
    assert scores.chrf > 80


def test_no_clipping_still_measures_the_norm(tokenizer: Tokenizer) -> None:
    _, clipped = fresh(tokenizer, "optim.clip_norm=0.01", "model.dropout=0")
    _, free = fresh(tokenizer, "optim.clip_norm=0", "model.dropout=0")
    batch = next(batches(tokenizer, 60))
    assert clipped([batch]).norm == free([batch]).norm > 0.01


@pytest.mark.parametrize(
    ("overrides", "kind", "rates"),
    [
        (["schedule.scale=2"], lr_scheduler.Noam, [2 * 16**-0.5 * s * 10**-1.5 for s in (1, 2)]),
        (["schedule.name=inverse_sqrt"], lr_scheduler.InverseSqrt, [1e-3, 2e-3]),
        (["schedule.name=constant"], lr_scheduler.Constant, [1e-3, 2e-3]),
        (["schedule.name=linear"], lr_scheduler.Linear, [1e-3, 2e-3]),
        (["schedule.name=cosine"], lr_scheduler.Cosine, [1e-3, 2e-3]),
    ],
)
def test_schedules(
    tokenizer: Tokenizer, overrides: list[str], kind: type, rates: list[float]
) -> None:
    if "noam" not in overrides and kind is not lr_scheduler.Noam:
        overrides = [*overrides, "optim.lr=1e-2", "train.max_steps=100"]
    _, trainable = fresh(tokenizer, *overrides)
    assert type(trainable.schedule) is kind
    stream = batches(tokenizer, 60)
    assert [trainable([next(stream)]).lr for _ in rates] == pytest.approx(rates)


def test_adamw_decays(tokenizer: Tokenizer) -> None:
    constant = ("schedule.name=constant", "schedule.warmup_steps=0", "optim.lr=1e-12")
    _, trainable = fresh(tokenizer, *constant, "optim.name=adamw", "optim.weight_decay=0.5")
    assert type(trainable.optimizer) is tx.optim.AdamW
    assert trainable.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert trainable.optimizer.param_groups[0]["betas"] == (0.9, 0.98)


# Validation --------------------------------------------------------------------------------------


def test_the_loss_is_per_token_and_unsmoothed(tokenizer: Tokenizer) -> None:
    model = new_model(tokenizer, small("model.dropout=0.5"))
    validation = Validation(PAIRS, tokenizer, model, batches(tokenizer, 60), lambda: None)
    total = n_tokens = 0.0
    model.eval()
    for batch in batches(tokenizer, 30).once():  # batches of another size
        total += model.loss(*tensors(batch)).item() * batch.n_tokens
        n_tokens += batch.n_tokens
    model.train()
    assert validation.loss() == pytest.approx(total / n_tokens, rel=1e-5)
    assert model.training


def test_validation_disturbs_nothing(tmp_path: Path) -> None:
    """The weights do not depend on how often a run is validated, saved or told about."""
    found = []
    for name, every in (("seldom", 8), ("often", 1)):
        out = tmp_path / name
        watch = Watch()
        config = small(
            *(f"train.{what}_every={every}" for what in ("valid", "log", "checkpoint")),
            *("train.valid_bleu=true", "optim.ema_decay=0.5"),
        )
        train(config, out, progress=watch)
        state = serialize.load(out / "checkpoints" / "step-00000008.safetensors")
        found.append((watch.losses, {k: t.numpy() for k, t in state.items()}, rows(out)))
    (one, one_state, one_rows), (other, other_state, other_rows) = found
    assert one == other
    for name, value in one_state.items():
        np.testing.assert_array_equal(other_state[name], value, err_msg=name)
    assert [row for row in other_rows if row["step"] == 8][-2:] == one_rows[-2:]
    losses = [row["loss"] for row in other_rows if "loss" in row]
    assert losses == pytest.approx(one, rel=1e-12)
    tokens = np.diff([0, *(row["tokens"] for row in other_rows if "loss" in row)])
    mean = np.average(losses, weights=tokens)
    assert one_rows[0]["loss"] == pytest.approx(mean), "a row sums up the tokens since the last"


def test_scores_are_sacrebleus() -> None:
    found = score(["the cat sat on the mat"], ["The cat sat on the mat"])
    assert 0 < found.bleu < 100 and "case:mixed" in found.bleu_signature
    lower = score(["the cat sat on the mat"], ["The cat sat on the mat"], lowercase=True)
    assert lower.bleu == pytest.approx(100) and lower.chrf == pytest.approx(100)
    assert "case:lc|" in lower.bleu_signature and "nc:6" in lower.chrf_signature


# A run -------------------------------------------------------------------------------------------


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    out, watch = tmp_path / "run", Watch()
    report = train(small("train.valid_bleu=true"), out, progress=watch)
    assert {path.name for path in out.iterdir()} == {
        *("config.toml", "tokenizer.json", "model.safetensors", "metrics.jsonl"),
        *("checkpoints", "translations.txt", "samples.jsonl", "sittings.jsonl", "report.html"),
        "profile.json",
    }
    assert watch.last == 8 and watch.closed and "120 pairs" in "".join(watch.said)
    found = rows(out)
    assert [(row["step"], "loss" in row) for row in found] == [
        *((2, True), (4, True), (4, False), (6, True), (8, True), (8, False), (8, False)),
    ]
    first, validated, final = found[0], found[2], found[-1]
    assert set(first) == {
        *("step", "epoch", "tokens", "loss", "cross_entropy", "lr", "grad_norm", "skipped")
    }
    assert set(validated) == {"step", "valid_loss", "bleu", "chrf"}
    assert final["of"] == "held-out sentences" and final["bleu"] == report.scores.bleu
    assert report.n_sentences == 3 and len(report.examples) == 3
    text = (out / "translations.txt").read_text(encoding="utf-8")
    assert text == report.text() + "\n"
    held_out = corpus.open_corpus(small().data, 0).held_out
    assert f"source     {held_out[0][0]}\nreference  {held_out[0][1]}\noutput     " in text
    best = min((row for row in found if "valid_loss" in row), key=lambda row: row["valid_loss"])
    assert f"weights of step {report.best_step}" in text
    assert report.best_step in (best["step"], 4)


def test_epochs_end_a_run(tmp_path: Path) -> None:
    out, watch = tmp_path / "run", Watch()
    train(small("train.max_epochs=1", "train.max_steps=none"), out, progress=watch)
    assert len(watch.losses) == watch.last > 8
    assert rows(out)[-2]["step"] == watch.last and rows(out)[-3]["epoch"] == 1


def test_the_clock_ends_a_run(tmp_path: Path) -> None:
    """As any run ends: with a validation, a checkpoint and the best weights. It may go on for
    longer, and counts the time of both sittings."""
    out, watch = tmp_path / "run", Watch()
    timed = ("train.max_steps=none", "train.valid_every=100", "train.checkpoint_every=100")
    report = train(small(*timed, "train.max_minutes=1e-9"), out, progress=watch)
    assert (report.steps, report.best_step, watch.last) == (1, 1, None)
    assert [row["step"] for row in rows(out) if "valid_loss" in row] == [1]
    assert len(list((out / "checkpoints").iterdir())) == 1 and (out / "model.safetensors").exists()
    spent = metrics.read(out / "metrics.jsonl")[-1]["seconds"]
    train(small(*timed, "train.max_minutes=1e-9"), out, resume=True, progress=watch)
    assert len(watch.losses) == 1, "it is over"
    longer = f"train.max_minutes={(spent + 1e-6) / 60}"
    assert train(small(*timed, longer), out, resume=True, progress=watch).steps == 2
    assert metrics.read(out / "metrics.jsonl")[-1]["seconds"] > spent


def test_patience_ends_a_run(tmp_path: Path) -> None:
    """At a rate that changes nothing, the first validation stays the best."""
    still = ("schedule.name=constant", "optim.lr=1e-30", "train.valid_every=2")
    out, watch = tmp_path / "run", Watch()
    report = train(small(*still, "train.patience=2"), out, progress=watch)
    assert (report.steps, report.best_step, len(watch.losses)) == (6, 2, 6)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    """The rate is such that training goes wrong after the first validation."""
    wrong = ("schedule.name=constant", "optim.lr=10", "schedule.warmup_steps=0")
    out = tmp_path / "run"
    report = train(
        small(*wrong, "train.valid_every=1", "train.checkpoint_every=1", "train.max_steps=5"),
        out,
        progress=Watch(),
    )
    losses = [row["valid_loss"] for row in rows(out) if "valid_loss" in row]
    best = int(np.argmin(losses)) + 1
    assert best < 5 and report.best_step == best
    checkpoint = out / "checkpoints" / f"step-{best:08}.safetensors"
    found, wanted = weights(out / "model.safetensors"), weights(checkpoint)
    assert all(np.array_equal(found[name].numpy(), wanted[name].numpy()) for name in wanted)


def test_the_moving_average_is_what_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(small("optim.ema_decay=0.5", "train.max_steps=4"), out, progress=Watch())
    state = serialize.load(out / "checkpoints" / "step-00000004.safetensors")
    names = [key.removeprefix("model.") for key in state if key.startswith("model.")]
    kept = weights(out / "model.safetensors")
    own = Tokenizer.load(out / "tokenizer.json")
    order = [name for name, _ in build(asdict(small().model), own).named_parameters()]
    assert sorted(names) == sorted(kept) == sorted(order)
    for i, name in enumerate(order):
        np.testing.assert_array_equal(kept[name].numpy(), state[f"ema.average.{i}"].numpy())
        assert not np.array_equal(kept[name].numpy(), state[f"model.{name}"].numpy())


def test_the_average_of_checkpoints_is_tried(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(small("train.average_last=2", "train.keep_last=2"), out, progress=Watch())
    [row] = [row for row in rows(out) if "average" in row.get("of", "")]
    assert row["of"] == "average of 2 checkpoints" and row["valid_loss"] > 0


def test_steps_that_are_not_finite(tmp_path: Path) -> None:
    """They change nothing; after too many in a row the run stops, with everything saved."""
    wrong = ("schedule.name=constant", "optim.lr=1e30", "schedule.warmup_steps=0")
    out, watch = tmp_path / "run", Watch()
    with pytest.raises(UserError, match=r"the last 3 gradients were not finite, up to step 4"):
        train(small(*wrong, "optim.max_bad_steps=3", "optim.clip_norm=0"), out, progress=watch)
    assert [line.split(":")[0] for line in watch.said[1:]] == ["step 2", "step 3", "step 4"]
    state = serialize.load(out / "checkpoints" / "step-00000004.safetensors")
    assert state["optimizer.skipped"].item() == 3 and state["optimizer.step"].item() == 1
    first, second = (row for row in rows(out) if "loss" in row)
    assert (first["skipped"], second["skipped"], second["loss"]) == (1, 2, None)


# Sentence pairs ----------------------------------------------------------------------------------


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def test_pairs_of_files(tmp_path: Path) -> None:
    src = write(tmp_path / "s", [f"s{i}" for i in range(50)] + ["", "x"])
    tgt = write(tmp_path / "t", [f"t{i}" for i in range(50)] + ["y", " "])
    data = replace(small().data, corpus="files", src=src, tgt=tgt, valid_size=4)
    found = corpus.open_corpus(data, seed=1)
    pairs = [(f"s{i}", f"t{i}") for i in range(50)]
    assert sorted([*found.train(), *found.valid]) == sorted(pairs)
    assert list(found.train()) == list(found.train()), "the stream starts anew"
    assert 3 <= len(found.valid) <= 4 and found.held_out == found.valid
    assert corpus.open_corpus(data, seed=1).valid == found.valid
    assert corpus.open_corpus(data, seed=2).valid != found.valid
    assert len(corpus.open_corpus(replace(data, valid_size=500), 1).valid) <= 5
    valid = replace(data, valid_tsv=write(tmp_path / "v", ["a\tb", "\t", "c\td"]))
    found = corpus.open_corpus(valid, seed=1)
    assert list(found.train()) == pairs and found.valid == [("a", "b"), ("c", "d")]


def test_files_that_are_of_no_use(tmp_path: Path) -> None:
    data = replace(small().data, corpus="files")
    one = write(tmp_path / "one", ["a\tb"])
    with pytest.raises(UserError, match="one has one sentence pair; training needs two or more"):
        corpus.open_corpus(replace(data, tsv=one), 0)
    long = write(tmp_path / "long", ["a\tb", "c\t" + "d" * 100_000])
    with pytest.raises(UserError, match="long, line 2: 100,000 characters"):
        corpus.open_corpus(replace(data, tsv=long), 0)
    blank = write(tmp_path / "blank", ["\t", ""])
    with pytest.raises(UserError, match="blank holds only blank lines"):
        corpus.open_corpus(replace(data, tsv=one, valid_tsv=blank), 0)


def test_the_built_in_pairs_are_apart() -> None:
    found = corpus.open_corpus(small().data, 0)
    train_pairs, valid, test = set(found.train()), set(found.valid), set(found.held_out)
    assert (len(train_pairs), len(valid), len(test)) == (120, 12, 12)
    assert not (train_pairs & valid or train_pairs & test or valid & test)


# What is told ------------------------------------------------------------------------------------


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    out = metrics.Metrics(path)
    for step in range(4):
        out.write({"step": step, "loss": math.inf if step == 1 else 0.5})
    out.close()
    with path.open("ab") as file:
        file.write(b'{"step": 4, "lo')
    assert [row["step"] for row in metrics.read(path)] == [0, 1, 2, 3]
    assert metrics.read(path)[1]["loss"] is None
    again = metrics.Metrics(path, keep=3)
    assert again.rows == 3
    again.write({"step": 30})
    again.close()
    assert [row["step"] for row in metrics.read(path)] == [0, 1, 2, 30]
    assert metrics.read(tmp_path / "absent") == []
    with pytest.raises(UserError, match="cannot write"):
        metrics.Metrics(tmp_path / "absent" / "metrics.jsonl")


def test_plain_lines() -> None:
    stream = io.StringIO()
    told = progress.for_stream(stream)
    told.start(0, 100)
    told.step(50, 1.0, 1e-3, 900.0)
    told.row({"step": 50, "loss": 1.25, "lr": 1e-3, "skipped": 0, "tokens_per_s": 1234.5})
    told.row({"step": 50, "valid_loss": 2.0, "bleu": 12.345, "chrf": 30.0})
    told.row({"step": 60, "loss": None, "skipped": 2})
    told.say("a word")
    told.close()
    first, second, third, last = stream.getvalue().splitlines()
    assert first == "step     50  loss 1.2500  lr 1.00e-03  tokens/s 1,234  left 0:00"
    assert second == "step     50  valid loss 2.0000  BLEU 12.35  chrF 30.00"
    assert third == "step     60  steps skipped 2  left 0:00"
    assert last == "a word"
    assert [progress.clock(s) for s in (5, 75.4, 3675)] == ["0:05", "1:15", "1:01:15"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    told = progress.for_stream(stream)
    assert isinstance(told, progress.Bar)
    told.start(10, 100)
    told.step(60, 1.25, 1e-3, 9000.0)
    told.row({"step": 60, "loss": 7.777})
    told.row({"step": 60, "valid_loss": 2.0})
    told.say("[a word]")
    told.close()
    shown = stream.getvalue()
    assert "60/100" in shown and "loss 1.250" in shown and "9,000 tokens/s" in shown
    assert "valid loss 2.0000" in shown and "[a word]" in shown
    assert "7.777" not in shown, "the bar shows each step's loss already"
