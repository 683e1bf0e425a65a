"""Where a name is PyTorch's, its arguments are PyTorch's: order, names and defaults of all that is
public are held to tests/helpers/torch_signatures.json, without PyTorch; with it, the file is held
to the PyTorch that is installed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch_signatures as signatures
from torch_differences import DIFFERENCES, table

RECORDED: dict[str, Any] = json.loads(signatures.FILE.read_text(encoding="utf-8"))
OURS = dict(signatures.walk())
EXCUSED = {d.name: set(d.parameters) for d in DIFFERENCES if d.parameters}


@pytest.mark.parametrize("name", RECORDED["signatures"])
def test_arguments_are_pytorchs(name: str) -> None:
    assert name in OURS, f"{name} is gone: run tests/helpers/torch_signatures.py"
    theirs = signatures.held_to(RECORDED["signatures"][name])
    found = signatures.disagreements(signatures.parameters(OURS[name]), theirs)
    wrong = {k: v for k, v in found.items() if k not in EXCUSED.get(name, ())}
    assert not wrong, f"{name}: {wrong}"
    stale = EXCUSED.get(name, set()) - found.keys()
    assert not stale, f"torch_differences.py excuses what is no difference: {name}: {stale}"


def test_every_name_that_pytorch_has_is_recorded() -> None:
    missing = [
        name
        for name in OURS
        if name.rpartition(".")[2] in RECORDED["names"][name.rpartition(".")[0]]
        and name not in RECORDED["signatures"]
    ]
    assert not missing, f"run tests/helpers/torch_signatures.py with PyTorch: {missing}"
    assert len(RECORDED["signatures"]) > 200


def test_differences_are_of_names_that_exist() -> None:
    unknown = [d.name for d in DIFFERENCES if d.name not in OURS]
    assert unknown == ["nn.utils.clip_grad_norm_"] or not unknown, unknown
    assert len({d.name for d in DIFFERENCES}) == len(DIFFERENCES)


def test_the_page_prints_the_differences() -> None:
    text = signatures.PAGE.read_text(encoding="utf-8")
    assert table() in text, "run tests/helpers/torch_signatures.py"


def test_the_comparison_sees_what_is_different() -> None:
    """The check itself, on made-up signatures."""

    def theirs(a, b=1, *, c=None): ...  # type: ignore[no-untyped-def]

    def disagreements(ours: Any) -> dict[str, str]:
        lists = (signatures.parameters(f) for f in (ours, theirs))
        return signatures.disagreements(*lists)

    assert not disagreements(lambda a, b=1, c=None: 0)
    assert not disagreements(lambda a, b=1.0, *, c=None, d=2: 0)
    assert set(disagreements(lambda b=1, a=None, c=None: 0)) == {"a", "b"}
    assert set(disagreements(lambda a, b=2, c=None: 0)) == {"b"}
    assert set(disagreements(lambda a, d=0, b=1, c=None: 0)) == {"b"}
    assert set(disagreements(lambda a, b=1: 0)) == {"c"}
    assert set(disagreements(lambda x, b=1, c=None: 0)) == {"a", "b", "x"}
    assert set(disagreements(lambda a, b=1, c=None, *, d: 0)) == {"d"}
    line = "arange(start=0, end, step=1, *, out=None) -> Tensor"
    assert [tuple(p) for p in signatures.in_words(line)] == [
        ("start", "0", "positional"),
        ("end", None, "positional"),
        ("step", "1", "positional"),
        ("out", "None", "keyword"),
    ]
    assert signatures.in_words("zeros(*size, *, out=None) -> Tensor")[0].kind == "many"


def test_the_file_is_of_this_pytorch() -> None:
    torch = pytest.importorskip("torch")
    if torch.__version__.split("+")[0] != RECORDED["torch"]:
        pytest.skip(f"recorded from PyTorch {RECORDED['torch']}, not {torch.__version__}")
    now = json.loads(signatures.text(signatures.record()))
    assert now == RECORDED, "run tests/helpers/torch_signatures.py"
