"""Results have the same bits on every kind of processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_tx.backends.cpu import jit

pytest.importorskip("llvmlite")

ROOT = Path(__file__).parents[2]


def found(kind: str, *parts: str) -> dict[str, str]:
    """The digests of results on such a processor: of these parts, or all."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("TX_") and name != "TX_CACHE_DIR")
    }
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "processor_bits.py"), kind, *parts]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digests: dict[str, str] = json.loads(done.stdout)
    return digests


QUICK = ("rows", "columns", "products", "attention")
HOST = jit.kinds()[0]


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return found(HOST, *QUICK)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["avx2", "plain"])
def test_kernels_and_a_program(kind: str, expected: dict[str, str]) -> None:
    if kind == HOST:
        pytest.skip("what is expected is of this kind")
    got = found(kind, *QUICK)
    assert len(got) > 200
    assert [name for name in expected if got[name] != expected[name]] == []


@pytest.mark.slow
def test_whole_programs_on_every_kind() -> None:
    wanted = found(HOST)
    assert len(wanted) > 300
    for kind in ("avx512", "avx2", "neon", "plain"):
        got = found(kind)
        assert [name for name in wanted if got[name] != wanted[name]] == [], kind
