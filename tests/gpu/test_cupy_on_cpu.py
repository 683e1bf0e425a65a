"""What cupy_on_cpu is to find, it finds where it was planted: writes and reads outside an array,
memory that nobody has written, threads and blocks that depend on their order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent
# Kernels of 8 blocks of 64 threads, on 500 numbers.
KERNELS = r"""
extern "C" __global__ void outside(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) x[i] = i;  // one too many
}
extern "C" __global__ void far(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += x[i + 512];
}
extern "C" __global__ void inside(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = i;
}
extern "C" __global__ void threads(float* x, int n) {
    int first = blockIdx.x * blockDim.x, i = first + threadIdx.x;
    if (i < n) x[i] = 1 + x[i == first ? i : i - 1];  // of a neighbour that may be there or not
}
extern "C" __global__ void waiting(float* x, int n) {
    int first = blockIdx.x * blockDim.x, i = first + threadIdx.x;
    float own = i < n ? x[i == first ? i : i - 1] : 0;
    __syncthreads();
    if (i < n) x[i] = 1 + own;
}
extern "C" __global__ void blocks(float* x, int n) {
    if (threadIdx.x == 0) x[blockIdx.x + 1] = 1 + x[blockIdx.x];
}
"""
PROGRAM = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import cupy_on_cpu
cupy_on_cpu.install()
import cupy
import numpy as np
module = cupy.RawModule(code={KERNELS!r})
x = cupy.empty(500, np.float32) if sys.argv[2:] else cupy.zeros(500, np.float32)
module.get_function(sys.argv[1])((8,), (64,), (x, np.int32(500)))
print(float(x.sum()))
del x
"""


def run(kernel: str, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("CPU_CUDA_GUARD", "CPU_CUDA_ORDER")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, kernel, *more],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def chosen() -> None:
    if "cupy_on_cpu" not in sys.modules:
        pytest.skip("of --gpu cupy_on_cpu")


def test_what_is_outside_an_array() -> None:
    for kernel in ("outside", "far"):
        done = run(kernel, CPU_CUDA_GUARD="1")
        assert done.returncode < 0, (kernel, done.stdout, done.stderr)
    assert run("inside", CPU_CUDA_GUARD="1").returncode == 0


def test_what_nobody_has_written() -> None:
    assert run("threads", "empty").stdout == "nan\n"


@pytest.mark.parametrize("kernel", ["threads", "blocks"])
def test_what_depends_on_the_order(kernel: str) -> None:
    found = {run(kernel, CPU_CUDA_ORDER=order).stdout for order in ("0", "1", "7")}
    assert len(found) == 3 and all(map(float, found))


def test_what_does_not() -> None:
    found = {run("waiting", CPU_CUDA_ORDER=order).stdout for order in ("0", "1", "7")}
    assert found == {"500.0\n"}
