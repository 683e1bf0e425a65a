"""What this machine is taken for: TX_HOST_FEATURES, TX_TARGET, TX_NUM_THREADS, cores."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu import host, jit, library
from tinygrad_tx.backends.cpu.run import team
from tinygrad_tx.backends.llvm import engine
from tinygrad_tx.errors import UserError

pytest.importorskip("llvmlite")

ROOT = Path(__file__).parents[2]
X86 = ["avx512", "avx2", "plain"]
REAL = [name for name in [*X86, "neon"] if name in jit.kinds()]  # of this processor, best first


def lesser(kind: str) -> list[str]:
    return REAL[REAL.index(kind) :]


@pytest.mark.parametrize("kind", REAL)
def test_everything_believes_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_HOST_FEATURES", kind)
    monkeypatch.delenv("TX_TARGET", raising=False)
    assert jit.host_target().name == kind and jit._runnable() == lesser(kind)
    assert jit.host_target() == jit.named_target(kind)
    others = set(REAL) - set(lesser(kind))
    for name in others:  # better than what there is: a usual one of its kind
        better = jit.named_target(name)
        assert better.cpu == jit._USUAL[name] != jit.host_target().cpu
        monkeypatch.setenv("TX_TARGET", name)
        with pytest.raises(UserError, match=f"TX_TARGET={name}: this processor runs {kind}"):
            jit.host_target()
    for name in lesser(kind):
        monkeypatch.setenv("TX_TARGET", name)
        assert jit.host_target().name == name and jit._runnable()[0] == kind


@pytest.mark.parametrize("kind", REAL)
def test_no_better_instruction_is_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_HOST_FEATURES", kind)
    parts = jit.host_target().features.split(",")
    features = {part[1:]: part[0] == "+" for part in parts if part}
    for name in features:
        if name.startswith(("avx512", "amx")):
            assert kind == "avx512" or not features[name], name
    text = "define <8 x float> @f(<8 x float> %x) {\n  %y = fadd <8 x float> %x, %x\n"
    text += "  ret <8 x float> %y\n}"
    assert ("ymm" in jit.assembly(text, jit.host_target())) == (kind in ("avx512", "avx2"))


def test_the_kind_is_part_of_the_cache_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for kind in REAL:
        monkeypatch.setenv("TX_HOST_FEATURES", kind)
        keys.add(library._digest("a kernel", jit.host_target()))
    assert len(keys) == len(REAL)


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | variables
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


VARIABLES = ("TX_HOST_FEATURES", "TX_TARGET", "TX_NUM_THREADS", "TX_COMPILE")
BETTER = [name for name in ("avx512", "avx2", "neon") if name not in REAL]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[("TX_HOST_FEATURES", name) for name in ("zzz", "AVX2", "avx2 ", *BETTER)],
        *[("TX_TARGET", name) for name in ("zzz", *BETTER)],
        *[("TX_NUM_THREADS", text) for text in ("abc", "0", "-1", "1.5", "9" * 30, "٣")],
    ],
)
def test_nonsense_is_one_line(variable: str, value: str, tmp_path: Path) -> None:
    done = run("-m", "tinygrad_tx", "train", "--out", str(tmp_path / "run"), **{variable: value})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"tinygrad-tx: {variable}={value}: ")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_nonsense_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, not another way to run."""
    f = tx.compile(lambda x: x + 1)
    for variable in ("TX_HOST_FEATURES", "TX_TARGET", "TX_COMPILE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "zzz")
            with pytest.raises(UserError, match=f"{variable}=zzz: "):
                f(tx.ones(1))
    assert f(tx.ones(1)).tolist() == [2.0]


def test_doctor_says_what_the_processor_is_taken_for() -> None:
    done = run("-m", "tinygrad_tx", "doctor", TX_HOST_FEATURES="plain")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["processor"].endswith("(TX_HOST_FEATURES=plain)")
    assert "avx" not in lines["processor"]
    assert lines["native"].startswith("code   plain (")


def test_features_of_lesser_processors() -> None:
    for feature in ("avx512f", "avx512_bf16", "amx_tile", "amx-int8", "avx10.1"):
        assert host.has("avx512", feature) and not host.has("avx2", feature)
    for feature in ("avx", "avx2", "fma", "f16c", "sse4.2", "bmi2"):
        assert host.has("avx2", feature) and not host.has("plain", feature)
    assert all(host.has("plain", feature) for feature in ("sse2", "cmov", "64bit"))


# Processors that this is not ----------------------------------------------------------------------


def test_a_processor_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TX_TARGET", raising=False)
    binding = engine.binding()
    monkeypatch.setattr(binding, "get_process_triple", lambda: "riscv64-unknown-linux-gnu")
    with pytest.raises(jit.NativeUnavailable, match="x86-64 and ARM64 only, not for riscv64"):
        jit.host_target()
    f = tx.compile(lambda x: (x @ x).softmax(-1).sum())
    with pytest.warns(UserWarning, match="not for riscv64; kernels run in NumPy") as said:
        assert f(tx.ones(3, 3)).item() == pytest.approx(3.0)
    assert len(said) == 1 and "\n" not in str(said[0].message)


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(os, "sched_getaffinity"):
        assert host.cores() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "process_cpu_count", lambda: 10, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert host.cores() == 10
    # macOS: as many as there are fast ones, and no more than the process may use.
    monkeypatch.setattr(sys, "platform", "darwin")
    for fast, expected in ((8, 8), (12, 10), (0, 10)):
        monkeypatch.setattr(host, "_sysctl", lambda name, fast=fast: fast)
        assert host.cores() == expected
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host.cores() == 1
    monkeypatch.setattr(host, "cores", lambda: 5000)
    monkeypatch.delenv("TX_NUM_THREADS", raising=False)
    team._default.cache_clear()
    monkeypatch.setattr(team, "_asked", None)
    assert team.get_num_threads() == team._MOST
    team._default.cache_clear()


def test_a_number_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """sysctlbyname writes through pointers; a libc that lacks it knows no numbers."""

    def ask(name: bytes, value: object, size: object, new: None, length: object) -> int:
        if name != b"hw.perflevel0.logicalcpu":
            return -1
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int32))[0] = 6  # type: ignore[arg-type]
        return 0

    class Libc:
        sysctlbyname = staticmethod(ask)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc)
    assert host._sysctl("hw.perflevel0.logicalcpu") == 6 and host._sysctl("hw.zzz") == 0
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert host._sysctl("hw.perflevel0.logicalcpu") == 0
