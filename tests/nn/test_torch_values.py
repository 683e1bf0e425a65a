"""What losses, optimizers, schedules and initial values give is what PyTorch gives: values recorded
in tests/helpers/torch_values.json, to which the PyTorch that is installed is held, too."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch_values

RECORDED: dict[str, Any] = json.loads(torch_values.FILE.read_text(encoding="utf-8"))


def assert_same(name: str, got: list[list[float]]) -> None:
    wanted = RECORDED[name]
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        np.testing.assert_allclose(a, b, 1e-9, 1e-11, err_msg=f"{name}, value {i}")


@pytest.mark.parametrize("name", torch_values.CASES)
def test_values_are_pytorchs(name: str) -> None:
    assert_same(name, list(torch_values.flat(torch_values.CASES[name](torch_values.ours()))))


@pytest.mark.parametrize("name", torch_values.COMPILED)
def test_compiled_values_are_pytorchs(name: str) -> None:
    lib = torch_values.ours(compiled=True)
    assert_same(name, list(torch_values.flat(torch_values.CASES[name](lib))))


def test_the_file_is_what_pytorch_gives() -> None:
    pytest.importorskip("torch")
    assert list(RECORDED) == list(torch_values.CASES)
    for name, values in torch_values.record().items():
        assert_same(name, values)
