"""Curves of runs: which panels there are, and their pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tinygrad_tx.errors import UserError
from tinygrad_tx.viz.curves import Curve, draw_curves, panels, thinned

ROWS: list[dict[str, Any]] = [
    {"step": 2, "loss": 3.0, "cross_entropy": 2.5, "lr": 0.1, "tokens_per_s": None},
    {"step": 4, "loss": 2.0, "cross_entropy": 1.5, "lr": 0.2, "tokens_per_s": 10.0},
    {"step": 4, "valid_loss": 1.75, "bleu": 20.0},
    {"step": 4, "valid_loss": 9.0, "of": "average of 2 checkpoints"},
    {"step": -1, "loss": 7.0},
    {"step": 10**400, "loss": 10**400, "lr": True},
]


def test_panels() -> None:
    found = {panel.title: panel.curves for panel in panels(ROWS, 0.1)}
    assert found["loss (nats a token)"] == [
        Curve("training, labels smoothed by 0.1", "dashed", [2, 4], [3.0, 2.0]),
        Curve("training", "line", [2, 4], [2.5, 1.5]),
        Curve("validation", "marked", [4], [1.75]),
    ]
    assert found["tokens/s"] == [Curve("tokens/s", "line", [4], [10.0])]
    assert found.keys() == {"loss (nats a token)", "BLEU and chrF", "learning rate", "tokens/s"}
    plain = panels(ROWS, 0.0)[0].curves
    assert [curve.name for curve in plain] == ["training", "validation"]
    old = panels([{"step": 1, "loss": 1.0}], 0.0)[0].curves
    assert old == [Curve("training", "dashed", [1], [1.0])]
    assert panels([]) == []


def test_thinned() -> None:
    assert thinned(range(5), 9) == [0, 1, 2, 3, 4]
    assert thinned(range(101), 5) == [0, 25, 50, 75, 100]


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='pip install -e ".[plots]"')
    one, other = panels(ROWS, 0.1), panels(ROWS[2:3])
    svg = draw_curves({"_a$x$<b>": one, "other": other}, tmp_path / "curves.svg")
    text = svg.read_text()
    assert (
        "<svg" in text
        and text
        == draw_curves({"_a$x$<b>": one, "other": other}, tmp_path / "again.svg").read_text()
    )
    png = draw_curves({"run": one}, tmp_path / "curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"must end in one of \.svg, \.png, \.pdf"):
        draw_curves({"run": one}, tmp_path / "curves.gif")
    with pytest.raises(UserError, match="no steps have been written down yet"):
        draw_curves({"run": []}, tmp_path / "curves.svg")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r'pip install "tinygrad_tx\[plots\]"'):
        draw_curves({"run": panels(ROWS)}, tmp_path / "curves.svg")
