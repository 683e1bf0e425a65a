"""The real CuPy on a machine without a GPU: `cupy_on_cpu.install()` before `import cupy`.

Every line of CuPy 14.2 runs: its Python, its Cython and the CUDA C of its kernels. What is replaced
is what lies below:
- the driver, and the runtime linked statically into the wheel: driver.cpp (libcuda.so.1); jumps to
  it are written over the runtime's entry points, which the wheel's symbol table names;
- what NVRTC makes: a kernel's source is compiled by a C++ compiler against simulator.h; blocks run
  one after another, threads as fibers (threads.h);
- cuBLAS: the products, as plain loops (cublas.cpp);
- Thrust's sorts, which the wheel holds as machine code of a GPU only: NumPy's stable ones.
CUB is switched off (CUPY_ACCELERATORS=""): its kernels in the wheel are GPU code, too.

Linux on x86-64, with the extra `gpu-test` and g++ or clang++ ($CXX chooses).
docs/gpu.md says what this proves. Environment: CPU_CUDA_CACHE, where compiled kernels are kept;
CPU_CUDA_NVRTC=1, NVRTC must accept each kernel for a GPU as well; CPU_CUDA_GUARD=1, a page without
access and a canary behind every array; CPU_CUDA_ORDER=n, blocks and the threads of each in another
order.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("CPU_CUDA_CACHE") or Path.home() / ".cache" / "cupy_on_cpu")
_ATTRIBUTE = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{_ATTRIBUTE}void\s+{_ATTRIBUTE}(\w+)\s*\(')
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w:\s]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
_WAITS = re.compile(r"__sync|__shfl|__ballot|__any|__all|cooperative_groups|asm")
_HEADERS = (  # that CuPy puts before every kernel
    *("complex.cuh", "carray.cuh", "atomics.cuh", "math_constants.h", "float16.cuh"),
    "bfloat16.cuh",
)
_HOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_library: ctypes.CDLL
_kept: list[Any] = []  # callbacks, which the driver holds


def missing() -> str | None:
    """What this machine lacks, in words; None where install() can work."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "Linux on x86-64"
    if importlib.util.find_spec("cupy_backends") is None:
        return 'CuPy (pip install -e ".[gpu-test]")'
    if not (_cuda() / "cuda_runtime_api.h").exists():
        return 'the headers of CUDA 13 (pip install -e ".[gpu-test]")'
    return None if _compiler() else "a C++ compiler (g++, clang++ or $CXX)"


def install() -> None:
    """Make `import cupy` work here. RuntimeError where something is missing()."""
    global _library
    if lacking := missing():
        raise RuntimeError(f"the real CuPy on the CPU needs {lacking}")
    os.environ["CUPY_ACCELERATORS"] = ""
    CACHE.mkdir(parents=True, exist_ok=True)
    ours = b"".join((HERE / name).read_bytes() for name in ("simulator.h", "__init__.py"))
    key = hashlib.sha256(ours + _compiler().encode()).hexdigest()[:12]
    os.environ["CUPY_CACHE_DIR"] = str(CACHE / f"kernels{key}")
    _library = ctypes.CDLL(str(_built("driver.cpp", "libcuda.so.1")), ctypes.RTLD_GLOBAL)
    _library.cpu_cuda_count.restype = ctypes.c_size_t
    ctypes.CDLL(str(_built("cublas.cpp", "libcublas.so.13", _stubs())), ctypes.RTLD_GLOBAL)
    _redirect_runtime(next((_site() / "cupy_backends/cuda/api").glob("runtime.*.so")))
    _find_cublas()
    sys.modules["cupy.cuda.thrust"] = _thrust()
    import cupy

    cupy.cuda.thrust = sys.modules["cupy.cuda.thrust"]
    _run_ptx()
    nvrtc = cupy.cuda.compiler._NVRTCProgram
    nvrtc.compile = _compile_for_cpu(nvrtc.compile)
    if os.environ.get("CPU_CUDA_GUARD"):
        cupy.cuda.set_allocator(None)  # each array has a block of its own


def _run_ptx() -> None:
    """What cuModuleLoadData gets as PTX is run by the simulator of our kernels, which makes its own
    code of the kernel that the PTX was made of."""
    from simulator import ptx

    _kept.extend(ptx.callbacks())
    _library.cpu_cuda_ptx(*_kept)


def enqueue(work: Callable[[], None]) -> None:
    """Do it now, or with each launch of the graph that is being captured."""
    _kept.append(_HOST(lambda _: work()))
    _library.rt_cudaLaunchHostFunc(None, _kept[-1], None)


def waits() -> int:
    """How often the host has waited for the device."""
    return int(_library.cpu_cuda_count(2))


def launches() -> int:
    """How many kernels have been launched."""
    return int(_library.cpu_cuda_count(0))


def _site() -> Path:
    spec = importlib.util.find_spec("cupy_backends")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]).parent


def _cuda() -> Path:
    return _site() / "nvidia" / "cu13" / "include"


def _compiler() -> str:
    """A C++ compiler; "" where there is none."""
    wished = os.environ.get("CXX")
    for name in (wished,) if wished else ("clang++", "g++"):
        if shutil.which(name):
            return name
    return ""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:6000]}")


# Libraries ----------------------------------------------------------------------------------------


def _built(source: str, soname: str, more: str = "") -> Path:
    """The shared library of a C++ file here, compiled unless that has been done."""
    headers = b"".join((HERE / name).read_bytes() for name in ("simulator.h", "threads.h"))
    text = (HERE / source).read_text() + more
    folder = CACHE / hashlib.sha256(headers + text.encode()).hexdigest()[:16]
    path = folder / soname
    if not path.exists():
        folder.mkdir(exist_ok=True)
        own = os.getpid()  # others may be building it, too
        (folder / f"{own}.cpp").write_text(text)
        shown = "{ global: cu*; rt_*; cpu_*; _ZN7cudasim*; local: *; };\n"
        if "cublas" in soname:
            shown = f"{soname} {{ global: cublas*; local: *; }};\n"
        (folder / f"{own}.versions").write_text(shown)
        _run(
            *(_compiler(), "-O2", "-std=c++17", "-w", "-shared", "-fPIC", f"-I{_cuda()}"),
            *(f"-I{HERE}", f"-Wl,-soname,{soname}"),
            f"-Wl,--version-script={folder / f'{own}.versions'}",
            *(str(folder / f"{own}.cpp"), "-o", f"{path}.{own}", "-ldl"),
        )
        Path(f"{path}.{own}").replace(path)
    return path


def _symbols(path: Path) -> dict[str, int]:
    """Offsets of the functions in an ELF file's symbol table."""
    data = path.read_bytes()
    at, size, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * size) for i in range(count)]
    found = {}
    for kind, offset, length, link in ((s[1], s[4], s[5], s[6]) for s in sections):
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[link][4]
        for i in range(offset, offset + length, 24):
            name, info, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, i)
            if info & 15 == 2 and value:  # STT_FUNC
                end = data.index(b"\0", names + name)
                found[data[names + name : end].decode()] = value
    return found


def _redirect_runtime(path: Path) -> None:
    """A jump to our rt_cudaX over each cudaX in the library of CuPy's that holds the runtime."""
    ctypes.CDLL(str(path))  # loaded, not yet imported
    with Path("/proc/self/maps").open() as maps:
        base = next(int(line.split("-")[0], 16) for line in maps if str(path) in line)
    libc = ctypes.CDLL(None)
    found = 0
    for name, offset in _symbols(path).items():
        ours = getattr(_library, f"rt_{name.removesuffix('_ptsz')}", None)
        if ours is None or not name.startswith("cuda"):
            continue
        there, to = base + offset, ctypes.cast(ours, ctypes.c_void_p).value
        libc.mprotect(ctypes.c_void_p(there & ~4095), ctypes.c_size_t(8192), 7)
        jump = b"\x49\xbb" + struct.pack("<Q", to) + b"\x41\xff\xe3"  # mov r11, to; jmp r11
        ctypes.memmove(there, jump, 13)
        found += 1
    if not found:
        raise RuntimeError(f"{path} has no symbol table: is it the wheel of CuPy 14.2?")


def _find_cublas() -> None:
    """CuPy's search for libraries takes the cuBLAS that is loaded, without its companions."""
    from cuda import pathfinder

    search = pathfinder.load_nvidia_dynamic_lib

    def load(name: str) -> Any:
        return None if name == "cublas" else search(name)

    pathfinder.load_nvidia_dynamic_lib = load


def _stubs() -> str:
    """A definition that says its name for each cuBLAS function the wheel wants and we lack."""
    path = next((_site() / "cupy_backends/cuda/libs").glob("cublas.*.so"))
    wanted = {w.decode() for w in re.findall(rb"\0(cublas[A-Z]\w+)(?=\0)", path.read_bytes())}
    text = (HERE / "cublas.cpp").read_text()
    have = set(re.findall(r"^ *API int (cublas\w+)\(", text, re.M))
    for of_each_type in re.findall(r"API int cublas##L##(\w+)", text):
        have |= {f"cublas{letter}{of_each_type}" for letter in "SD"}
    stubs = [f'API int {n}() {{ return missing("{n}"); }}\n' for n in sorted(wanted - have)]
    return "\n" + "".join(stubs)


# Kernels ------------------------------------------------------------------------------------------


def _compile_for_cpu(nvrtc: Callable[..., Any]) -> Callable[..., Any]:
    """In place of _NVRTCProgram.compile: what cuModuleLoadData gets is the path of a library."""

    def compile(self: Any, options: tuple[str, ...] = (), log_stream: Any = None) -> Any:
        if not self.src.strip():
            return nvrtc(self, options, log_stream)
        if os.environ.get("CPU_CUDA_NVRTC") == "1":
            nvrtc(self, options, log_stream)
        expressions = enumerate(self.name_expressions or ())
        names = {e: "k{}_{}".format(i, re.sub(r"\W", "_", e)) for i, e in expressions}
        path = _kernels(self.src, options, names)
        return b"CPUCUDA:" + str(path).encode() + b"\0", names or None

    return compile


def _kernels(source: str, options: tuple[str, ...], names: dict[str, str]) -> Path:
    """The library of a source's kernels, compiled unless that has been done."""
    plain = "false" if _WAITS.search(source) else "true"
    text = _DYNAMIC.sub(r"\1* \2 = (\1*)cudasim::dyn;", source)
    for expression, name in (names or {n: n for n in _KERNEL.findall(source)}).items():
        text += f"\nCUDASIM_EXPORT({name}, {plain}, {expression})"
    includes = [o for o in options if o.startswith("-I")]
    defines = [o for o in options if o.startswith("-D")]
    # Without optimization g++ makes code of each function of the headers, which takes longest.
    least = "-O0" if "clang" in _compiler() else "-Og"
    flags = ["-std=c++17", least, "-g0", "-fPIC", "-w", "-fno-strict-aliasing"]
    flags += ["-ffp-contract=off", *includes]
    header = _prelude(flags) if includes else HERE / "simulator.h"
    simulator = (HERE / "simulator.h").read_bytes()
    key = hashlib.sha256(repr((_compiler(), text, flags, defines)).encode() + simulator)
    path = CACHE / "so" / f"{key.hexdigest()[:24]}.so"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        own = path.with_suffix(f".{os.getpid()}.cpp")
        own.write_text(text + "\n")
        made = f"{path}.{os.getpid()}"
        compiling = (_compiler(), *flags, *defines, "-shared", "-Winvalid-pch")
        _run(*compiling, "-include", str(header), str(own), "-o", made)
        Path(made).replace(path)
        own.unlink()
    return path


def _prelude(flags: list[str]) -> Path:
    """simulator.h with the headers that CuPy puts before every kernel, precompiled."""
    text = (HERE / "simulator.h").read_text()
    text += "".join(f"\n#include <cupy/{name}>" for name in _HEADERS)
    key = hashlib.sha256(repr((_compiler(), text, flags)).encode())
    header = CACHE / f"prelude{key.hexdigest()[:16]}" / "prelude.h"
    compiled = Path(f"{header}.{'pch' if 'clang' in _compiler() else 'gch'}")
    if not compiled.exists():
        header.parent.mkdir(exist_ok=True)
        header.write_text(text)
        made = f"{header}.{os.getpid()}"
        _run(_compiler(), *flags, "-x", "c++-header", str(header), "-o", made)
        Path(made).replace(compiled)
    return header


# Thrust -------------------------------------------------------------------------------------------


def _view(pointer: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    memory = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(pointer)
    return np.frombuffer(memory, dtype, count=count).reshape(shape)


def _thrust() -> types.ModuleType:
    """cupy.cuda.thrust: stable, the same dtypes, the orders of cupy_thrust.cu: NaN last, but in one
    dimension float32 and float64 go by radix, that is by their bits: a NaN with a sign is first."""
    module = types.ModuleType("cupy.cuda.thrust")

    def order(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if values.dtype.char not in "?bBhHiIlLqQefdFD":
            raise NotImplementedError(
                f"Sorting arrays with dtype '{values.dtype}' is not supported"
            )
        if values.ndim == 1 and values.dtype.char in "fd":
            bits = (values + 0).view(f"i{values.itemsize}")  # -0 as 0
            values = np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
        return np.argsort(values, axis=-1, kind="stable")

    def argsort(dtype: Any, index: int, data: int, keys: int, shape: tuple[int, ...]) -> None:
        values = _view(data, dtype, shape)
        found = order(values)
        _view(index, np.intp, shape)[...] = found
        values[...] = np.take_along_axis(values, found, -1)  # Thrust sorts the data, too

    def sort(dtype: Any, data: int, keys: int, shape: tuple[int, ...]) -> None:
        values = _view(data, dtype, shape)
        values[...] = np.take_along_axis(values, order(values), -1)

    module.__dict__.update(argsort=argsort, sort=sort, available=True)
    module.__dict__["get_build_version"] = lambda: 300000
    return module
