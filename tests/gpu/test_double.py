"""The double of CuPy has no name and no parameter that the real one lacks."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

DOUBLE = Path(__file__).parent / "double"
OWN = {"counts", "annotations", "Any", "ctypes"}  # not CuPy's names
CUDA = (
    *("runtime", "memory", "get_current_stream", "alloc_pinned_memory", "driver", "function"),
    *("Device", "Event", "MemoryPointer", "Stream", "UnownedMemory", "alloc", "get_elapsed_time"),
)


def imported(*, double: bool) -> ModuleType:
    """The module `cupy` from the double's folder, or from anywhere else."""
    before = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "cupy"}
    path = sys.path[:]
    for name in before:
        del sys.modules[name]
    sys.path[:] = [p for p in path if p != str(DOUBLE)]
    if double:
        sys.path.insert(0, str(DOUBLE))
    try:
        return importlib.import_module("cupy")
    finally:
        sys.path[:] = path
        for name in [n for n in sys.modules if n.partition(".")[0] == "cupy"]:
            del sys.modules[name]
        sys.modules.update(before)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[ModuleType, ModuleType]]:
    loaded = sys.modules.get("cupy")
    if loaded is not None and not hasattr(loaded, "counts"):
        yield imported(double=True), loaded
        return
    try:
        real = imported(double=False)
    except ImportError:
        pytest.skip("the real CuPy is not installed: pip install -e '.[gpu-test]'")
    yield imported(double=True), real


def parameters(f: Any) -> list[str] | None:
    """Names in order, of the signature, or of the first line of a docstring of Cython's."""
    try:
        found = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        listed = re.search(r"\((.*)\)", (f.__doc__ or "").partition("\n")[0])
        if not listed or "x, /" in listed[0] or "x1, x2" in listed[0]:
            return None
        items = (p.strip() for p in listed[1].split(","))
        found = [re.split(r"[=:]", p)[0].split()[-1].lstrip("*") for p in items if p not in "*/"]
    return [name for name in found if name != "self"]


@pytest.mark.parametrize("owner", ["cupy", "ndarray", "cuda"])
def test_names_and_parameters_are_those_of_the_real_one(
    owner: str, both: tuple[ModuleType, ModuleType]
) -> None:
    double, real = (m if owner == "cupy" else getattr(m, owner) for m in both)
    names = CUDA if owner == "cuda" else [n for n in vars(double) if not n.startswith("_")]
    for name in sorted(set(names) - OWN):
        ours, theirs = getattr(double, name), getattr(real, name)  # that the real one has it
        if not callable(ours) or isinstance(ours, type):
            continue
        a, b = parameters(ours), parameters(theirs)
        if b is not None and a != ["args", "out", "casting", "dtype"]:  # of a ufunc
            assert a is not None and (a == b[: len(a)] or set(a) <= set(b)), (name, a, b)


def test_the_double_refuses_what_cupy_refuses() -> None:
    cupy = imported(double=True)
    x = cupy.asarray(np.arange(3.0))
    for call in (
        lambda: np.asarray(x),
        lambda: x + np.arange(3.0),
        lambda: cupy.take(x, np.array([1])),
        lambda: cupy.concatenate([x, np.arange(3.0)]),
    ):
        with pytest.raises(TypeError):
            call()
    assert isinstance(x.sum(), cupy.ndarray) and isinstance(np.float32(2) * x, cupy.ndarray)
    assert cupy.take(x, cupy.asarray(np.array([4]))).tolist() == [1]  # around the end
    assert (cupy.asarray(np.array([2])) ** -1).tolist() == [0]
    assert (cupy.asarray(np.array([1.0])) // 0.1).tolist() == [10]
    assert np.isnan(cupy.empty(3, np.float32).get()).all()
    y = cupy.zeros(2)
    y[cupy.asarray(np.array([0, 0]))] = cupy.asarray(np.array([1.0, 2.0]))
    assert y.tolist() == [1, 0]  # which of two writes stays is open
