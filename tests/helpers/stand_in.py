"""What device "cuda" is in this process: a GPU, or a stand-in, which has less time and counts.

In: nothing. Out: its name, how often something is to be done, how often the host has waited, and
the environment of another process that has the same. Called by tests/gpu.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PATHS = {
    "": [ROOT],
    "double": [ROOT / "tests" / "gpu" / "double", ROOT],
    "cupy_on_cpu": [ROOT / "tests" / "gpu", ROOT],
}


def stand_in() -> str:
    """Its name, "double" or "cupy_on_cpu"; empty where there is a GPU."""
    import cupy

    if hasattr(cupy, "counts"):
        return "double"
    return "cupy_on_cpu" if "cupy_on_cpu" in sys.modules else ""


def few(on_a_gpu: int, here: int) -> int:
    """How often something is done: on a GPU, or on a stand-in."""
    return here if stand_in() else on_a_gpu


def waits() -> int:
    """How often the host has waited for the device. A GPU does not count: the test is skipped."""
    import cupy

    match stand_in():
        case "double":
            return int(cupy.counts["waits"])
        case "cupy_on_cpu":
            return int(sys.modules["cupy_on_cpu"].waits())
        case _:
            pytest.skip("a GPU does not count waits")


def environment(folder: Path) -> dict[str, str]:
    """That of a process with the same "cuda". folder: for a file that such a process reads."""
    paths = _PATHS[stand_in()]
    if stand_in() == "cupy_on_cpu":
        text = "import cupy_on_cpu\n\ncupy_on_cpu.install()\n"
        (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
        paths = [folder, *paths]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
