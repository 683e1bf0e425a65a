"""profile.json: what a run took, by module; what is made of a damaged one; and `info`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from training_runs import Watch, small

from tinygrad_tx.backends.cpu.run.team import get_num_threads
from tinygrad_tx.cli import main
from tinygrad_tx.compiler.inspect.loads import KINDS
from tinygrad_tx.compiler.inspect.machine import Machine
from tinygrad_tx.errors import UserError
from tinygrad_tx.training import Stopped, forecast, profile, train


def test_a_run_tells_what_its_modules_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small("train.compile=true"), tmp_path / "run", progress=Watch())
    path = tmp_path / "run" / "profile.json"
    found = profile.load(path)
    assert found is not None and found.seconds > 0 and 0 < found.steps < 8 and found.tokens > 0
    assert found.device == "cpu" and found.threads >= 1 and len(found.shapes) == 3
    rows = {row.path: row for row in found.modules}
    order = [row.path for row in found.modules]  # that of the program
    assert order.index("Transformer.encoder") < order.index("Transformer.decoder")
    whole, encoder = rows["Transformer"], rows["Transformer.encoder"]
    assert encoder.depth == 1 and 0 < encoder.seconds < whole.seconds
    assert 0 < encoder.forward < whole.forward < whole.backward
    assert 0 < encoder.activations < whole.activations
    assert rows[""].seconds > 0  # the optimizer
    assert main(["info", str(path.parent), "--depth", "1"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("  encoder: Encoder")]
    assert line.split()[2] == f"{encoder.parameters:,}" and line.endswith("%  ")
    assert "self_attn" not in out and "a step               " in out and " tokens/s" in out


MACHINE = Machine(
    "a processor", get_num_threads(), dict.fromkeys(KINDS, 0.0) | {"product": 1e-10},
    wave=3e-6, step=1e-4, tensor=1e-6, bytes=1e8, launch_bytes=1e4, making_bytes=3e7,
)  # fmt: skip


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_is_held_to_its_prediction(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its most frequent batches, whether they are steps or parts of one; on the page, too."""
    monkeypatch.setattr(forecast, "known", lambda: MACHINE)
    config = small("train.compile=true", f"optim.accumulate={accumulate}", "train.max_steps=12")
    train(config, tmp_path / "run", progress=Watch())
    found = profile.load(tmp_path / "run" / "profile.json")
    assert found is not None and [len(shape) for shape in found.shapes] == [2, 2, 2]
    assert found.expected > 1e-4 and found.expected_bytes > 1e8
    said = dict(profile.facts(found))
    assert "too " in said["memory predicted"]
    assert ("time predicted" in said) == (accumulate == 1)  # of a step on one shape
    assert accumulate > 1 or " on batches of " in said["time predicted"]
    assert "memory predicted" in (tmp_path / "run" / "report.html").read_text()


def test_what_no_prediction_is_made_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another device, other threads, a run that was stopped; one that fails loses no profile."""
    monkeypatch.setattr(forecast, "known", lambda: MACHINE)
    here = profile.Profile(1.0, 2, 3.0, None, "cpu", MACHINE.threads, shapes=[[2, 3]], usual=1.0)
    for other in (
        replace(here, device="cuda"), replace(here, threads=99), replace(here, shapes=[])
    ):  # fmt: skip
        assert forecast.expecting(small(), other) == other

    def stop(step: int) -> None:
        if step == 6:
            raise Stopped

    with pytest.raises(Stopped):
        train(small("train.compile=true"), tmp_path / "stopped", progress=Watch(stop))
    found = profile.load(tmp_path / "stopped" / "profile.json")
    assert found is not None and found.expected == 0.0 < found.seconds

    def fail(*_: object) -> Machine:
        raise UserError("nobody knows")

    monkeypatch.setattr(forecast, "known", fail)
    train(small("train.compile=true"), tmp_path / "whole", progress=Watch())
    found = profile.load(tmp_path / "whole" / "profile.json")
    assert found is not None and found.expected == 0.0 < found.usual


def test_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    assert profile.load(path) is None
    whole = {"seconds": 1.0, "steps": 2, "tokens": 3.0, "peak_bytes": None, "device": "cpu"}
    whole |= {"threads": 1, "shapes": [], "modules": []}
    path.write_text(json.dumps(whole))
    assert profile.load(path) == profile.Profile(1.0, 2, 3.0, None, "cpu", 1)
    unlike = ({"seconds": 0}, {"usual": 1.0, "expected": 1.0})  # any run that was written
    wrong = ({"seconds": "x"}, {"modules": [1]}, {"modules": [{"path": 1}]}, {"more": 1})
    for damaged in (*wrong, *unlike):
        path.write_text(json.dumps({**whole, **damaged}))
        assert profile.load(path) is None
    for text in ("", "[]", "null", "[" * 9999, "\xff"):
        path.write_text(text)
        assert profile.load(path) is None
