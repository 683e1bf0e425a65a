"""`tinygrad-tx report` and `plot`: of runs as the command line makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_runs import SMALL

from tinygrad_tx.cli import main


def test_a_report_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason='pip install -e ".[plots]"')
    monkeypatch.chdir(tmp_path)
    given = ["train", "--out", "a run", "--set", *SMALL, "train.samples=0"]
    assert main(given) == 0
    [sitting] = map(json.loads, Path("a run/sittings.jsonl").read_text().splitlines())
    assert sitting["command"].startswith("tinygrad-tx train --out 'a run' --set data.")
    page = Path("a run/report.html")
    first = page.read_text()
    page.unlink()
    capsys.readouterr()
    assert main(["report", "a run"]) == 0
    assert capsys.readouterr().out == "written to a run/report.html\n"
    assert page.read_text() == first, "the page is of what the run has"
    with Path("a run/metrics.jsonl").open("a") as file:
        file.write("{}\n")
    assert main(["report", "a run", "--out", "else.html"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["metrics.jsonl, line 9: damaged, and left out here", "written to else.html"]
    assert page.read_text() == first and "damaged" in Path("else.html").read_text()
    assert main(["plot", "a run"]) == 0 and Path("curves.svg").read_text().count("<svg") == 1
    assert main(["plot", "a run", "a run/../a run", "--out", "c.png"]) == 0
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    for command in (["report", "nowhere"], ["plot", "a run", "nowhere"]):
        assert main(command) == 1
        assert capsys.readouterr().err.endswith("holds no run: there is no config.toml in it\n")
