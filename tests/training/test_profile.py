"""profile.json: what a run took, by module; what is made of a damaged one; and `info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_runs import Watch, small

from tinygrad_tx.cli import main
from tinygrad_tx.training import profile, train


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


def test_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    assert profile.load(path) is None
    whole = {"seconds": 1.0, "steps": 2, "tokens": 3.0, "peak_bytes": None, "device": "cpu"}
    whole |= {"threads": 1, "shapes": [], "modules": []}
    path.write_text(json.dumps(whole))
    assert profile.load(path) == profile.Profile(1.0, 2, 3.0, None, "cpu", 1)
    for damaged in ({"seconds": "x"}, {"modules": [1]}, {"modules": [{"path": 1}]}, {"more": 1}):
        path.write_text(json.dumps({**whole, **damaged}))
        assert profile.load(path) is None
    for text in ("", "[]", "null", "[" * 9999, "\xff"):
        path.write_text(text)
        assert profile.load(path) is None
