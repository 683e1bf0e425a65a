"""NVIDIA's assembler, where it is installed: what PTX takes of a multiprocessor, and how much of it
a kernel of ours may take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tinygrad_tx.backends.gpu import writers
from tinygrad_tx.backends.gpu.ptx import Ptx, compile_ptx
from tinygrad_tx.backends.gpu.thread import SHARED, WARP
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.llvm import ir

ARCHITECTURES = ("sm_80", "sm_90")
REGISTERS = 65536  # of a multiprocessor, of either architecture
OF_THREAD = 255  # registers, at most
UNIT = 8 * WARP  # registers: what a warp has is a multiple
MEMORY = 164 << 10  # bytes of shared memory of a multiprocessor: sm_80 has less of it than sm_90
RESERVED = 1 << 10  # of it for each block
Case = tuple[Kernel, Any, int]  # a kernel, a form, the threads of a block


class Used(NamedTuple):
    """Of a kernel. registers: of a thread. spilled: bytes, written and read. shared: bytes, of a
    block."""

    registers: int
    spilled: int
    shared: int

    def beyond(self, threads: int, resident: int) -> str:
        """The bound that it is beyond, or nothing. threads: of a block; resident: blocks that must
        find room on a multiprocessor at once."""
        warps = -(-threads // WARP)
        registers = -(-self.registers * WARP // UNIT) * UNIT * warps
        if self.spilled:
            return f"{self.spilled} bytes of registers are spilled"
        if self.registers > OF_THREAD or registers * resident > REGISTERS:
            return f"{resident} blocks of {registers} registers are more than {REGISTERS}"
        if self.shared > SHARED or (self.shared + RESERVED) * resident > MEMORY:
            return f"{resident} blocks have {self.shared} bytes of shared memory each"
        return ""


@cache
def find() -> str:
    """On the path, or that of the package nvidia-cuda-nvcc; the test is skipped where there is
    none."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    found = sorted(file for place in places or () for file in Path(place).glob("*/bin/ptxas"))
    path = shutil.which("ptxas") or (str(found[-1]) if found else None)
    if path is None:
        pytest.skip("ptxas is not there: pip install nvidia-cuda-nvcc")
    return path


def measure(text: str, architecture: str, folder: Path) -> dict[str, Used]:
    """What each kernel of some PTX uses. AssertionError with ptxas's words where it refuses it."""
    source = folder / f"{architecture}.ptx"
    source.write_text(text)
    command = [find(), "-v", f"-arch={architecture}", str(source), "-o", f"{source}.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    found = {}
    for part in said.split("Compiling entry function")[1:]:
        spilled = re.findall(r"(\d+) bytes spill", part)
        shared = re.search(r"(\d+) bytes smem", part)
        (registers,) = re.findall(r"Used (\d+) registers", part)
        name = part.split("'")[1]
        found[name] = Used(int(registers), sum(map(int, spilled)), int(shared[1]) if shared else 0)
    return found


def require(cases: Sequence[Case], architecture: str, folder: Path) -> dict[str, Used]:
    """What all of these use. AssertionError where one is beyond a bound."""
    find()
    module, residents = ir.Module(libm=False), []
    for number, (kernel, form, threads) in enumerate(cases):
        t = Ptx(module, f"kernel{number}", threads)
        writers.write(kernel, form, t)
        residents.append(t.resident)
    found = measure(compile_ptx(module.text(), architecture), architecture, folder)
    assert len(found) == len(cases)
    for name, used in found.items():
        number = int(name.removeprefix("kernel"))
        kernel, form, threads = cases[number]
        beyond = used.beyond(threads, residents[number])
        assert not beyond, f"{beyond}\n{kernel}\n{form}: {used}"
    return found
