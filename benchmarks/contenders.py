"""Who is measured: for each contender where its code is and what environment it runs in.

In: a name and a number of threads. Out: a Contender, and its process's environment. Called by
common.py, which starts the processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Contender:
    """training, recurrent, translator, kernel, embedder, gpu: "module:name" of what plays that role
    (contract.py), or "".
    packages: whose versions a result names; the first one is what has to be installed.
    tuned: run with MKL's and the allocator's settings changed; see tuned_environment.
    pinned: kept to its cores by affinity, for want of a setting for its threads.
    """

    name: str
    packages: tuple[str, ...]
    training: str = ""
    translator: str = ""
    kernel: str = ""
    recurrent: str = ""
    embedder: str = ""
    gpu: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    tuned: bool = False
    pinned: bool = False


_OURS = ("tinygrad_tx", "numpy", "llvmlite")
_TORCH = "benchmarks.peers_torch"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            "tx",
            _OURS,
            "benchmarks.ours:Training",
            "benchmarks.ours:Translator",
            "benchmarks.ours:kernel",
            "benchmarks.ours:RecurrentTraining",
            "benchmarks.ours:embedder",
            "benchmarks.gpu_ours:Device",
        ),
        Contender(
            "tx-eager",
            _OURS,
            "benchmarks.ours:Training",
            "benchmarks.ours:Translator",
            "benchmarks.ours:kernel",
            gpu="benchmarks.gpu_ours:Device",
            environment={"TX_COMPILE": "0"},
        ),
        Contender("numpy", ("numpy",), kernel="benchmarks.peers_numpy:kernel"),
        Contender(
            "torch",
            ("torch",),
            f"{_TORCH}:Training",
            "benchmarks.peers_torch_decoding:Translator",
            "benchmarks.peers_torch_kernels:kernel",
            f"{_TORCH}:RecurrentTraining",
            gpu="benchmarks.gpu_torch:Device",
        ),
        Contender(
            "torch-tuned",
            ("torch",),
            f"{_TORCH}:Training",
            "benchmarks.peers_torch_decoding:Translator",
            "benchmarks.peers_torch_kernels:kernel",
            f"{_TORCH}:RecurrentTraining",
            tuned=True,
        ),
        Contender(
            "torch-compile",
            ("torch",),
            f"{_TORCH}:CompiledTraining",
            gpu="benchmarks.gpu_torch:CompiledDevice",
        ),
        Contender("torch-compile-tuned", ("torch",), f"{_TORCH}:CompiledTraining", tuned=True),
        Contender(
            "sentence-transformers",
            ("sentence-transformers", "torch"),
            embedder="benchmarks.peers_sentence_transformers:embedder",
        ),
        Contender(
            "jax",
            ("jax", "jaxlib"),
            "benchmarks.peers_jax:Training",
            gpu="benchmarks.gpu_jax:Device",
            pinned=True,
        ),
        Contender(
            "ctranslate2",
            ("ctranslate2",),
            translator="benchmarks.peers_ctranslate2:Translator",
            # Its MKL was measured to be three times as slow here as its oneDNN (on Intel).
            environment={"CT2_USE_MKL": "0", "KMP_BLOCKTIME": "0"},
        ),
    )
}
_MKL = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def environment(contender: Contender, threads: int, directory: Path) -> dict[str, str]:
    """The environment of a contender's process; what it needs is built in `directory`."""
    names = ("TX", "OMP", "MKL", "OPENBLAS")
    found = {
        **os.environ,
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        **contender.environment,
    }
    return found | tuned_environment(directory) if contender.tuned else found


def tuned_environment(directory: Path) -> dict[str, str]:
    """What makes PyTorch as fast as anyone can make it without changing it.

    MKL takes an AMD processor for one without AVX-512 unless mkl_serv_intel_cpu_true says
    otherwise, so a library that does is preloaded (where there is a C compiler; on Intel it changes
    nothing). The allocator is told to keep blocks, and to use huge pages for them.
    """
    keep = {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
        "MALLOC_TOP_PAD_": str(1 << 28),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    library = directory / "libmkl_as_intel.so"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return keep
    if not library.exists():
        source = library.with_suffix(".c")
        source.write_text(_MKL, encoding="utf-8")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return keep | {"LD_PRELOAD": str(library)}
