"""NVIDIA's assembler, where it is installed: what PTX takes of a processor of a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Used(NamedTuple):
    """Of a kernel. registers: of a thread. spilled: bytes, written and read. shared: bytes."""

    registers: int
    spilled: int
    shared: int


@cache
def find() -> str | None:
    """On the path, or that of the package nvidia-cuda-nvcc; None where there is none."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    found = sorted(file for place in places or () for file in Path(place).glob("*/bin/ptxas"))
    return shutil.which("ptxas") or (str(found[-1]) if found else None)


def measure(text: str, architecture: str, folder: Path) -> dict[str, Used]:
    """What each kernel of some PTX uses. AssertionError with ptxas's words where it refuses it."""
    assembler = find()
    assert assembler is not None
    source = folder / f"{architecture}.ptx"
    source.write_text(text)
    command = [assembler, "-v", f"-arch={architecture}", str(source), "-o", f"{source}.cubin"]
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
