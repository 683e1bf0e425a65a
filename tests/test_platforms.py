"""Systems and processors that this machine is not: code is made for them and looked at, and what
their Python lacks is taken away here."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processor_kernels import KERNELS
from training_runs import SMALL

from tinygrad_tx.backends.cpu import jit, writers
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.cpu.run import executor
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.llvm import ir

pytest.importorskip("llvmlite")

ROOT = Path(__file__).parents[1]
WINDOWS = [
    Processor("avx2", 32, "x86_64-pc-windows-msvc", "haswell"),
    Processor("avx512", 64, "x86_64-pc-windows-msvc", "skylake-avx512"),
    Processor("plain", 16, "x86_64-pc-windows-msvc", "x86-64"),
]
# Of kernel32.dll and ntdll.dll, and of the C library.
KERNEL32 = {
    *("InitializeSRWLock", "AcquireSRWLockExclusive", "ReleaseSRWLockExclusive"),
    *("InitializeConditionVariable", "SleepConditionVariableSRW", "WakeAllConditionVariable"),
    *("SwitchToThread", "QueryPerformanceCounter", "QueryPerformanceFrequency"),
}
LIBRARY = {
    *("__chkstk", "memcpy", "memset", "memmove", "fma", "fmaf", "fmod", "fmodf", "floor", "floorf"),
    *("pow", "powf", "sin", "sinf", "cos", "cosf", "tan", "tanf", "atan2", "atan2f"),
    *("sinh", "sinhf", "cosh", "coshf", "log2", "log2f", "log10", "log10f"),
    *("ceil", "ceilf", "trunc", "truncf", "rint", "rintf"),
}


def undefined(data: bytes) -> set[str]:
    """The symbols that a COFF object asks others for."""
    start, count = struct.unpack_from("<II", data, 8)
    names = data[start + 18 * count :]
    found, i = set(), 0
    while i < count:
        entry = data[start + 18 * i : start + 18 * (i + 1)]
        raw, value, section, _, kind, more = struct.unpack("<8sIhHBB", entry)
        at = struct.unpack("<II", raw)
        name = names[at[1] :].split(b"\0", 1)[0] if at[0] == 0 else raw.rstrip(b"\0")
        if section == 0 and value == 0 and kind == 2:
            found.add(name.decode())
        i += 1 + more
    return found


@pytest.mark.parametrize("target", WINDOWS, ids=lambda t: t.name)
def test_the_executor_on_windows(target: Processor) -> None:
    text = executor.text(target)
    found = undefined(jit.compile_object(text, target))
    assert found <= KERNEL32 | {"__chkstk"}
    assert KERNEL32 - found == set()
    assert "_fltused" in jit.assembly(text, target)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("target", WINDOWS, ids=lambda t: t.name)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_kernels_on_windows(kernel: Kernel, target: Processor) -> None:
    module = ir.Module()
    writers.render(kernel, module, "tx_kernel", target)
    found = undefined(jit.compile_object(module.text(), target))
    assert found <= LIBRARY
    code = jit.assembly(module.text(), target).split("tx_kernel:")[1]
    assert "rcx" in code  # the first argument's register there, where it is rdi elsewhere


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("triple", "system"),
    [("aarch64-unknown-linux-gnu", "elf"), ("arm64-apple-macosx13.0.0", "macho")],
)
def test_arm(triple: str, system: str) -> None:
    target = Processor("neon", 16, triple, "neoverse-n1" if system == "elf" else "apple-m1")
    assert "\tisb\n" in jit.assembly(executor.text(target), target)
    for kernel in KERNELS:
        module = ir.Module()
        writers.render(kernel, module, "tx_kernel", target)
        assert jit.compile_object(module.text(), target)


def run(script: str, tmp_path: Path) -> Iterator[str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield from done.stdout.splitlines()


WITHOUT = """
import mmap, os, platform, signal, subprocess, sys, tempfile, time, types, uuid
import sacrebleu  # others, that know what they are on, come first
for module, names in (
    (os, ("register_at_fork", "getuid", "geteuid", "fork", "sched_getaffinity", "fchmod")),
    (signal, ("SIGHUP", "SIGUSR1", "SIGKILL")),
    (mmap, ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_SHARED", "MADV_HUGEPAGE")),
    (time, ("CLOCK_MONOTONIC", "clock_gettime")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""
TRAINS = """
import warnings
warnings.simplefilter("error")
import numpy as np
import tinygrad_tx as tx
x = tx.tensor(np.ones((4, 3), np.float32), requires_grad=True)
(x * x).sum().backward()
f = tx.compile(lambda x: (x @ x.T).softmax(-1).sum())
print(f(x).item(), x.grad.sum().item())
tx.save({"x": x}, "x.safetensors")
print(tx.load("x.safetensors")["x"].shape)
from tinygrad_tx.cli.program import main
print(main(["train", "--max-steps", "2", "--out", "run", "--set", *SMALL]))
"""


def test_what_windows_lacks(tmp_path: Path) -> None:
    """Eager code, compiled code, files and a training run."""
    lacks = "for name in ('pwd', 'resource'): sys.modules[name] = None\n"
    script = f"{WITHOUT}{lacks}{SMALL = }\n{TRAINS}"
    lines = list(run(script, tmp_path))
    assert lines[:2] == ["4.0 24.0", "(4, 3)"] and lines[-1] == "0"


def test_lines_of_models_are_told_apart() -> None:
    """Whatever separates directories: the place of a model's line is its own."""
    from tinygrad_tx import places

    assert str(Path(places.__file__).parent / "models") in places._CALLERS
