"""Tensor functions on a GPU: PyTorch's recorded values, and random Tensors there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch_ops

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped
    tx.set_default_device("cuda")
    yield
    tx.set_default_device("cpu")


def test_as_recorded() -> None:
    for name, want in json.loads(torch_ops.FILE.read_text(encoding="utf-8")).items():
        out, _ = torch_ops.results(tx, F, name)
        for i, (o, w) in enumerate(zip(out, want["out"], strict=True)):
            assert o.device == "cuda", name
            torch_ops.close(o, w, f"{name}: result {i}")


def test_drawing() -> None:
    """The same numbers as on the CPU."""
    found = []
    for device in ("cuda", "cpu"):
        tx.set_default_device(device)
        tx.manual_seed(3)
        w = tx.tensor([1.0, 2.0, 0.0, 4.0])
        drawn = [w.multinomial(2), w.multinomial(5, True), tx.randperm(7), (w / 4).bernoulli()]
        assert {x.device for x in drawn} == {device}
        found.append([x.tolist() for x in (*drawn, tx.rand_like(w), tx.randint_like(w, 5))])
    assert found[0] == found[1]
