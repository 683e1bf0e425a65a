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


def found(kind: str) -> dict[str, str]:
    """The digests of all results on such a processor."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("TX_") and name != "TX_CACHE_DIR")
    }
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "processor_bits.py"), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digests: dict[str, str] = json.loads(done.stdout)
    return digests


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    digests = found(jit.kinds()[0])
    assert len(digests) > 200
    return digests


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("avx512", "neon")]


@pytest.mark.parametrize("kind", ["avx2", "plain", *SLOW])
def test_kernels_and_whole_programs(kind: str, expected: dict[str, str]) -> None:
    got = found(kind)
    assert [name for name in expected if got[name] != expected[name]] == []
