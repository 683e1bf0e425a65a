"""What a run writes down of how it goes: samples, sittings, the page of it, event files; what is
told before a step; and rates."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_runs import Watch, rows, small

from tinygrad_tx import models
from tinygrad_tx.errors import UserError
from tinygrad_tx.models.objective import plain_losses
from tinygrad_tx.training import checkpoint, lines, page, progress, train
from tinygrad_tx.training.history import History, names
from tinygrad_tx.training.interrupt import Stopped
from tinygrad_tx.training.run import RunDirectory
from tinygrad_tx.training.trainer import Timed

BLEU = ("train.valid_bleu=true", "train.valid_sentences=12", "train.samples=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    train(small(*BLEU), out, progress=Watch(), command="tinygrad-tx train --set 'a=<b>'")
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(made, tmp_path / "run")))


def seen(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def held(page: Path) -> Any:
    """The data in a page."""
    text = page.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_the_plain_loss_is_that_of_the_same_logits() -> None:
    config = models.TransformerConfig(
        vocab_size=20, d_model=8, n_heads=2, d_ff=8, n_encoder_layers=1, n_decoder_layers=1
    )
    model = models.Transformer(config).eval()
    import tinygrad_tx as tx

    batch = [tx.tensor([[5, 6, 7]])] * 3
    with plain_losses() as found:
        smoothed = model.loss(*batch, label_smoothing=0.3)
        model.loss(*batch)
    plain = model.loss(*batch).item()
    assert [loss.item() for loss in found] == pytest.approx([plain, plain])
    assert smoothed.item() != pytest.approx(plain) and smoothed.requires_grad
    assert not any(loss.requires_grad for loss in found)


def test_training_rows_have_both_losses(made: Path, tmp_path: Path) -> None:
    for row in (row for row in rows(made) if "loss" in row):
        assert 0 < row["cross_entropy"] != row["loss"] > 0
    out = tmp_path / "plain"
    train(small("train.label_smoothing=0", "train.max_steps=2"), out, progress=Watch())
    [row] = [row for row in rows(out) if "loss" in row]
    assert row["cross_entropy"] == pytest.approx(row["loss"], rel=1e-12)
    both = {"step": 2, "loss": 1.5, "cross_entropy": 1.25}
    assert progress.describe(both).endswith("loss 1.5000  cross entropy 1.2500")
    assert progress.describe({**both, "cross_entropy": 1.5}).endswith("loss 1.5000")


def test_a_window_of_an_older_version_has_no_sum_of_plain_losses() -> None:
    old = {"steps": 2, "tokens": 9, "loss": 3.0, "skipped": 0, "lr": 0.1, "norm": 1.0}
    assert math.isnan(checkpoint._window(old)["plain"])
    assert checkpoint._window({**old, "steps": 0})["plain"] == 0
    assert checkpoint._window({**old, "plain": 2.0})["plain"] == 2.0


def test_samples_are_the_same_sentences_over_time(made: Path) -> None:
    first, last = seen(made)
    assert (first["step"], last["step"]) == (4, 8)
    assert [s["source"] for s in first["samples"]] == [s["source"] for s in last["samples"]]
    assert len(last["samples"]) == 2 and len(last["best"]) == len(last["worst"]) == 5
    scores = [s["chrf"] for s in (*last["best"], *reversed(last["worst"]))]
    assert scores == sorted(scores, reverse=True)
    assert len({s["source"] for s in (*last["best"], *last["worst"])}) == 10
    attention = last["samples"][0]["attention"]
    assert list(attention["layers"]) == ["decoder.layers.0.cross_attn"]
    [layer] = attention["layers"].values()
    assert len(layer) == len(attention["queries"]) and attention["queries"][0] == "<s>"
    assert all(len(row) == len(attention["keys"]) for row in layer)
    assert all(abs(sum(row) - 100) <= len(row) / 2 for row in layer), "hundredths"


def test_the_page_has_all_of_it(made: Path) -> None:
    shown = held(made / "report.html")
    assert shown["status"] == "finished after step 8" and not shown["notes"]
    assert [panel["title"] for panel in shown["panels"]] == [
        *("loss (nats a token)", "BLEU and chrF", "learning rate", "tokens/s", "gradient norm")
    ]
    loss = {curve["name"]: curve["points"] for curve in shown["panels"][0]["curves"]}
    assert [step for step, _ in loss["training"]] == [2, 4, 6, 8]
    assert loss.keys() == {"training, labels smoothed by 0.1", "training", "validation"}
    assert [step for step, _ in loss["validation"]] == [4, 8]
    [sitting] = shown["sittings"]
    assert sitting["command"] == "tinygrad-tx train --set 'a=<b>'" and sitting["parameters"] > 0
    assert sitting["machine"]["processor"] and sitting["step"] == 0
    assert shown["config"] == (made / "config.toml").read_text()
    assert len(shown["validations"]) == 2


def test_a_run_that_goes_on_has_the_same_curves(made: Path, tmp_path: Path) -> None:
    """Stopped after a validation that no checkpoint knows of; the page of that time is whole."""
    out = tmp_path / "run"

    def stop(step: int) -> None:
        if step == 5:
            shutil.copytree(out, tmp_path / "killed")
            raise Stopped

    with pytest.raises(Stopped):
        train(small(*BLEU), out, progress=Watch(on_step=stop))
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "killed", out, ignore=lambda *_: [".lock"])
    before = held(out / "report.html")
    assert before["status"] == "at step 4 of 8" and len(before["validations"]) == 1
    assert seen(out)[0]["step"] == 4
    train(small(*BLEU), out, resume=True, progress=Watch(), command="again")
    assert (out / "samples.jsonl").read_bytes() == (made / "samples.jsonl").read_bytes()
    shown, wanted = held(out / "report.html"), held(made / "report.html")
    timed = {"tokens/s"}
    for panel, same in zip(shown["panels"], wanted["panels"], strict=True):
        assert panel == same or panel["title"] in timed
    assert [s["command"] for s in shown["sittings"]][1:] == ["again"]
    assert [s["step"] for s in shown["sittings"]] == [0, 3]


def test_what_is_damaged_is_left_out_and_said(run: RunDirectory) -> None:
    for path, text in (
        (run.metrics, b'garbage\n{"step": "x"}\n{"step": 1, "loss": 1e999}\n{"step": 9, "lo'),
        (run.samples, b'{"step": 3, "samples": [{"source": 1}]}\n\xff\n'),
        (run.sittings, b'{"step": 0}\n[]\n'),
    ):
        path.write_bytes(path.read_bytes() + text)
    shown = held(page.write(run))
    assert len(shown["notes"]) == 4
    assert shown["notes"][0] == "metrics.jsonl, lines 8, 9: damaged, and left out here"
    assert len(shown["validations"]) == 2 and len(shown["sittings"]) == 1
    assert all(
        math.isfinite(v) for p in shown["panels"] for c in p["curves"] for _, v in c["points"]
    )


def test_an_old_run_has_a_page(run: RunDirectory, tmp_path: Path) -> None:
    """Of before there were samples, sittings and plain losses; and one without a step."""
    for path in (run.samples, run.sittings, run.page):
        path.unlink()
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for line in lines:
        line.pop("cross_entropy", None)
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = held(page.write(run, tmp_path / "elsewhere.html"))
    assert not run.page.exists() and not shown["validations"] and not shown["sittings"]
    names = [curve["name"] for curve in shown["panels"][0]["curves"]]
    assert names == ["training, labels smoothed by 0.1", "validation"]
    run.metrics.unlink()
    assert held(page.write(run))["panels"] == []
    with pytest.raises(UserError, match="holds no run"):
        page.write(RunDirectory(tmp_path))


def test_a_torn_sitting_takes_no_other_with_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(small("train.max_steps=2", "train.samples=0"), out, progress=Watch())
    sittings = out / "sittings.jsonl"
    with sittings.open("a") as file:
        file.write('{"step": 2, "da')
    train(small("train.max_steps=4", "train.samples=0"), out, resume=True, progress=Watch())
    found, damaged = lines.examine(sittings)
    assert [line["step"] for line in found] == [0, 2] and not damaged


def test_a_page_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise UserError("cannot write report.html: No space left on device")

    monkeypatch.setattr(page, "save", full)
    watch = Watch()
    train(small("train.max_steps=2", "train.samples=0"), tmp_path / "run", progress=watch)
    assert "cannot write report.html: No space left on device" in watch.said
    assert not (tmp_path / "run" / "samples.jsonl").exists(), "none are asked for"


def test_long_runs_are_thinned(run: RunDirectory) -> None:
    row, line = json.loads(run.metrics.read_text().splitlines()[0]), seen(run.root)[0]
    run.metrics.write_text("".join(json.dumps({**row, "step": i}) + "\n" for i in range(5000)))
    run.samples.write_text("".join(json.dumps({**line, "step": i}) + "\n" for i in range(300)))
    shown = held(page.write(run))
    points = shown["panels"][0]["curves"][0]["points"]
    assert len(points) == 1000 and (points[0][0], points[-1][0]) == (0, 4999)
    steps = [validation["step"] for validation in shown["validations"]]
    assert len(steps) == 60 and (steps[0], steps[-1]) == (0, 299)
    mapped = [v for v in shown["validations"] if v["samples"][0]["attention"]]
    assert len(mapped) == 12 and mapped[-1]["step"] == 299


def test_runs_are_named_apart(run: RunDirectory, made: Path) -> None:
    histories = [History.of(run), History.of(RunDirectory(made))]
    assert names(histories[:1]) == ["run"]
    found = names(histories)
    assert len(set(found)) == 2 and all(Path(name).name == "run" for name in found)


# Models of language ------------------------------------------------------------------------------


def language(kind: str, text: Path) -> Any:
    from tinygrad_tx.training import apply_overrides, preset

    size = {
        "char": ("n_layer=1", "n_head=2", "n_embd=16"),
        "bert-tiny": ("n_layers=1", "d_model=16"),
    }
    return apply_overrides(
        preset(kind),
        [
            *(f"model.{part}" for part in size[kind]),
            *("data.corpus=files", f"data.text={text}", "data.max_len=16", "data.max_tokens=64"),
            *("train.max_steps=4", "train.valid_every=2", "train.log_every=2"),
            *("train.compile=false", "train.samples=3", "tokenizer.vocab_size=300"),
            *("schedule.warmup_steps=1", "train.checkpoint_every=2"),
        ],
    )


@pytest.mark.parametrize("kind", ["char", "bert-tiny"])
def test_models_of_language(kind: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("the house is red and the garden is green, said the aunt. " * 20)
    out = tmp_path / "run"
    train(language(kind, text), out, progress=Watch())
    first, last = seen(out)
    assert [s["source"] for s in first["samples"]] == [s["source"] for s in last["samples"]]
    assert len(last["samples"]) == (3 if kind == "char" else 2), "windows of the held-out text"
    assert not last["best"]
    assert all(s["output"] and s["reference"] for s in last["samples"])
    attention = last["samples"][0]["attention"]
    assert attention["queries"] == attention["keys"] and len(attention["layers"]) == 1
    titles = [panel["title"] for panel in held(out / "report.html")["panels"]]
    assert ("bits per byte" in titles) is (kind == "char")
    assert "perplexity" in titles and "BLEU and chrF" not in titles


# Event files -------------------------------------------------------------------------------------


def test_event_files_want_their_package_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r'pip install "tinygrad_tx\[tensorboard\]"'):
        train(small("train.tensorboard=true"), tmp_path / "run", progress=Watch())
    assert not (tmp_path / "run").exists()


def test_event_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back by the format's own checksums; a second sitting, in the same second, takes back
    what the first wrote of later steps."""
    pytest.importorskip("tensorboardX", reason='pip install -e ".[tensorboard]"')
    from tensorboardX import event_file_writer
    from tensorboardX.proto.event_pb2 import Event

    monkeypatch.setattr(event_file_writer.time, "time", lambda: 1.75e9)

    out = tmp_path / "run"
    train(small("train.tensorboard=true", "train.max_steps=4"), out, progress=Watch())
    longer = small("train.tensorboard=true", "train.max_steps=6")
    train(longer, out, resume=True, progress=Watch())
    scalars: list[tuple[int, str, float]] = []
    purged = []
    for path in sorted((out / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            scalars += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            purged += [event.step] if event.session_log.status == 1 else []
    assert purged == [1, 5]
    losses = [(row["step"], row["loss"]) for row in rows(out) if "loss" in row]
    found = [(step, value) for step, tag, value in scalars if tag == "loss/trained_on"]
    assert [step for step, _ in found] == [step for step, _ in losses]
    assert [v for _, v in found] == pytest.approx([v for _, v in losses], rel=1e-6)
    assert {tag for _, tag, _ in scalars} >= {"loss/train", "loss/valid", "step/learning_rate"}


# What is told ------------------------------------------------------------------------------------


def test_what_is_done_before_a_step_is_told_and_rates_leave_out_compiling(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = small("train.compile=true", "train.log_every=1", "train.max_steps=3")
    train(config, tmp_path / "run", progress=progress.for_stream(stream))
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        "making 120 pairs",
        "learning the vocabulary",
        "making token ids of the pairs",
    ]
    assert "120 pairs" in lines[3] and lines[4] == "making the model"
    assert lines[5].startswith("compiling shape 1 of ")
    assert not any("tokens/s" in line for line in lines if line.startswith("step      1"))
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert metrics[0]["tokens_per_s"] is None, "that step compiled"
    shapes = [line for line in lines if line.startswith("compiling")]
    known = [row["tokens_per_s"] for row in metrics if "loss" in row and row["tokens_per_s"]]
    assert len(known) == 3 - len(shapes)


def test_timed() -> None:
    assert math.isnan(Timed().rate)
    assert Timed(10, 2.0).then(Timed(20, 1.0)).then(Timed()).rate == 10


def test_the_pace_leaves_out_steps_that_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = progress.Pace(0, 10)
    for seconds, compiled in ((100.0, True), (1.0, False), (3.0, False)):
        now[0] += seconds
        assert pace.left(0) == "" or not compiled
        pace.step(compiled)
    assert pace.left(4) == "0:12"
    assert progress.Pace(0, None).left(3) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    told = progress.for_stream(stream := Terminal())
    assert isinstance(told, progress.Lines)
    told.start(0, 4)
    told.step(2, 1.0, 1e-3, 10.0)
    told.row({"step": 2, "loss": 1.0})
    assert stream.getvalue().startswith("step      2  loss 1.0000  left 0:00")


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython is the notebook's own; here its two functions are stood in for."""

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, shown: Any) -> None:
            drawn.append(shown._repr_html_())

    drawn: list[str] = []

    def display(shown: Any, display_id: bool) -> Handle:
        assert display_id
        drawn.append(shown._repr_html_())
        return Handle()

    module, shown = ModuleType("IPython"), ModuleType("IPython.display")
    module.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    shown.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    assert isinstance(progress.for_stream(io.StringIO()), progress.Lines), "a stream is given"
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    told = progress.for_stream()
    assert isinstance(told, progress.Cell)
    progress.counting(told)("making 10 pairs", 0, "pairs")
    told.start(0, 10)
    told.step(1, 2.5, 1e-3, math.nan)
    told.step(10, 1.5, 1e-3, 900.0)
    told.row({"step": 10, "loss": 7.777})
    told.row({"step": 10, "valid_loss": 2.0})
    told.say("<a word>")
    told.close()
    assert '<progress max="10" value="10"' in drawn[-1] and "loss 1.500" in drawn[-1]
    assert "900 tokens/s" in drawn[-1] and "10/10" in drawn[-1]
    said = stream.getvalue().splitlines()
    assert said == ["making 10 pairs", "step     10  valid loss 2.0000", "<a word>"]
