"""trace(): what ran when, and on which thread."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from explorer_cases import mlp, scan, training

import tinygrad_tx as tx
from tinygrad_tx.errors import UserError


def events(f: Any, tmp_path: Path) -> list[dict[str, Any]]:
    found = json.loads(f.trace(tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert found["otherData"]["function"].endswith(f._name)
    listed: list[dict[str, Any]] = found["traceEvents"]
    return listed


def rows(listed: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The events of each row, by its name."""
    names = {e["tid"]: e["args"]["name"] for e in listed if e["name"] == "thread_name"}
    spans = [e for e in listed if e["ph"] == "X"]
    return {name: [e for e in spans if e["tid"] == tid] for tid, name in names.items()}


def require_in_turn(spans: list[dict[str, Any]]) -> None:
    assert all(a["ts"] + a["dur"] <= b["ts"] + 2e-3 for a, b in pairwise(spans))


def test_waves_and_threads(tmp_path: Path) -> None:
    step = training("tiny")
    found = rows(events(step, tmp_path))
    waves = found.pop("waves")
    assert len(waves) == len(step._last.plan.waves())
    require_in_turn(waves)
    assert found and all(name.startswith("thread ") for name in found)
    end = waves[-1]["ts"] + waves[-1]["dur"]
    for spans in found.values():
        require_in_turn(spans)
        assert all(e["ts"] >= -1e-3 and e["ts"] + e["dur"] <= end + 1e-2 for e in spans)
        for e in spans:  # within its wave
            wave = waves[e["args"]["wave"] - 1]
            assert wave["ts"] - 2e-3 <= e["ts"] <= wave["ts"] + wave["dur"] + 2e-3
    launches = sum(e["args"]["launches"] for e in waves)
    assert sum(len(spans) for spans in found.values()) >= launches
    assert any("models.layers:" in e["args"]["where"] for s in found.values() for e in s)


def test_one_call_is_enough(tmp_path: Path) -> None:
    f = tx.compile(lambda x: (x @ x).exp().sum())
    f(tx.ones(8, 8))
    listed = events(f, tmp_path)
    assert next(e for e in listed if e["name"] == "process_name")["args"]["name"].endswith("run 1")
    f(tx.ones(8, 8))
    f(tx.ones(8, 8))
    listed = events(f, tmp_path)
    assert next(e for e in listed if e["name"] == "process_name")["args"]["name"].endswith("run 3")


def test_rounds_of_a_loop_and_opaque_calls(tmp_path: Path) -> None:
    found = rows(events(scan(), tmp_path))
    loops = [e for e in found["waves"] if "loop" in e["name"]]
    assert len(loops) == 2
    inside = [
        e for name, s in found.items() if name != "waves" for e in s if "wave" not in e["args"]
    ]
    assert len(inside) >= 12 and len(inside) % 6 == 0
    f = tx.compile(lambda x: (x * 2).sort()[0] + 1)
    f(tx.ones(4, 5))
    found = rows(events(f, tmp_path))
    assert any("opaque" in e["name"] for e in found["waves"])
    require_in_turn(found["waves"])


def test_op_by_op(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TX_COMPILE", "replay")
    step = mlp()
    (spans,) = rows(events(step, tmp_path)).values()
    assert len(spans) == step.stats()["kernels"]
    assert "gelu" in {e["name"] for e in spans}
    require_in_turn(spans)


def test_where_no_run_was_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TX_CHECK", "1")
    f = tx.compile(lambda x: x.exp())
    f(tx.ones(3))
    with pytest.raises(UserError, match=r"no run of .* was timed yet: TX_CHECK was set"):
        f.trace(tmp_path / "trace.json")
    assert f.describe()["timed"] is None
