"""`tinygrad-tx doctor`: the libraries and devices of this machine, a line for each, and those
missing."""

from __future__ import annotations

import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from .. import settings
from ..errors import DeviceError, NativeUnavailable
from .command import Command

_NEEDED = ("numpy", "ml-dtypes", "safetensors", "tokenizers", "sacrebleu", "rich")
_OPTIONAL = {
    "matplotlib": "pictures of attention and of runs, graphs as .png and .pdf",
    "tensorboardX": "event files of train.tensorboard",
    "distributed": "bulk work by --workers and --scheduler",
    "mpi4py": "training by several processes (tinygrad_tx[mpi] brings mpiexec, too)",
}
_CPU_FEATURES = ("avx512f", "avx512_bf16", "amx_tile", "avx2", "fma", "asimd", "neon", "sve")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--clear-cache",
        action="store_true",
        help="first remove what is kept on disk: compiled kernels and tokenised text",
    )


def _run(args: Namespace) -> None:
    if args.clear_cache:
        from ..backends import store
        from ..data import cache

        print(f"{'cleared':<14}{store.clear_cache()} compiled kernels")
        _, files, size = cache.clear()
        print(f"{'cleared':<14}{files} files of tokenised text, {size / 2**20:.1f} MiB")
    for name, what in _findings():
        print(f"{name:<14}{what}")


def _findings() -> Iterator[tuple[str, str]]:
    from .. import backends
    from ..version import __version__

    yield "tinygrad_tx", __version__
    yield "python", f"{platform.python_version()} at {sys.executable}"
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "processor", _processor()
    for package in _NEEDED:
        yield package, _version(package) or f"missing: pip install {package}"
    yield "BLAS", _blas()
    for device in backends.devices():
        try:
            yield f"device {device}", f"ready ({type(backends.get(device)).__name__})"
        except DeviceError as error:
            yield f"device {device}", f"not available: {error}"
        else:
            if code := _code_of(device):
                yield f"code on {device}", code
    yield "native code", _native()
    yield "kernel cache", _kernel_cache()
    yield "token cache", _token_cache()
    for package, use in _OPTIONAL.items():
        yield package, _version(package) or f"not installed; for {use}: pip install {package}"


def _version(package: str) -> str | None:
    # Imported here, for every command imports this file, and it takes as long as all others.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Its name, cores that this process may use, and the vector instructions it has, or is taken to
    have."""
    from ..backends.cpu import host

    facts = host.cpuinfo()
    flags = facts.get("flags", facts.get("Features", "")).split()
    name, said = facts["model name"], ""
    if kind := settings.get("TX_HOST_FEATURES"):
        flags = [flag for flag in flags if host.has(kind, flag)]
        said = f" (TX_HOST_FEATURES={kind})"
    vectors = " ".join(name for name in _CPU_FEATURES if name in flags)
    return f"{name}, {host.cores()} cores, {vectors or 'no vector instructions known'}{said}"


def _blas() -> str:
    """NumPy's library for matrix products, and the limit of its threads."""
    import numpy as np

    config = np.show_config(mode="dicts")
    found = config["Build Dependencies"]["blas"] if config else {}
    limits = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    name = f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()
    return f"{name}, threads: {' '.join(limits) or 'as many as there are cores'}"


def _native() -> str:
    """The processor that functions are compiled for, and the number of threads that run them."""
    from ..backends.cpu import jit
    from ..backends.cpu.run import team
    from ..backends.llvm import engine

    try:
        target = jit.host_target()
    except NativeUnavailable as error:
        return f"not available: {error}"
    return (
        f"{target.name} ({target.cpu}), LLVM {engine.version()}, {team.get_num_threads()} threads"
    )


def _code_of(device: str) -> str:
    """Whether a kernel of ours runs on a GPU: one is made, loaded and run. Nothing of the host,
    which has a line of its own."""
    from .. import backends
    from ..compiler.compiled import compile
    from ..creation import ones

    if device == backends.devices()[0]:
        return ""
    try:
        target = backends.target_of(device)
        if target is None:
            return ""
        found = compile(lambda x: x * 2 + 1)(ones(3, device=device)).tolist()
    except NativeUnavailable as error:
        return f"not available, compiled functions run op by op: {error}"
    except Exception as error:  # the driver and CuPy fail in their own ways
        why = str(error).strip().partition("\n")[0]
        return f"compiled functions fail: {type(error).__name__}: {why}"
    if found != [3, 3, 3]:
        return f"a kernel of ours gives {found} where it should give [3, 3, 3]: please report it"
    return f"ready ({getattr(target, 'name', 'kernels of ours')})"


def _kernel_cache() -> str:
    from ..backends import store

    path, files, size = store.cache_info()
    return f"{files} compiled kernels, {size / 2**20:.1f} MiB in {path}" if path else "not used"


def _token_cache() -> str:
    from ..data import cache

    path, files, size = cache.info()
    if path is None:
        return "not used"
    most = cache.LIMIT / 2**20
    return f"{files} files of tokenised text, {size / 2**20:.1f} of {most:.0f} MiB in {path}"


COMMAND = Command(
    "doctor",
    "show what is installed and which devices there are",
    (
        ("doctor", "versions, processor, BLAS, devices, optional packages"),
        (
            "doctor --clear-cache",
            "and kernels are compiled and text is tokenised again",
        ),
    ),
    _arguments,
    _run,
)
