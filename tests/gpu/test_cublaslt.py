"""The binding of cuBLASLt, with a stand-in for the library; our own products by the simulator."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_cublaslt import INVALID, NOT_SUPPORTED, FakeCublasLt
from kernel_case import Array
from product_case import Product, lying

from tinygrad_tx.backends.gpu import cublaslt
from tinygrad_tx.backends.gpu.cublaslt import FastPath, fits
from tinygrad_tx.backends.kernels.kinds import Gemm

pytest.importorskip("llvmlite")
from simulator.machine import Machine, code

from tinygrad_tx.backends.gpu import writers

KERNELS = (Gemm("bfloat16"), Gemm("float16", True, "float32"), Gemm("float32", tf32=True))
LARGE = (1, 1, 512, 512, 512)


class Device:
    """The host's memory, and the simulator."""

    stream, workspace_size = 77, 1 << 16

    def __init__(self) -> None:
        self._memory = np.zeros(self.workspace_size + 16, np.uint8)
        self.workspace = self._memory.ctypes.data
        self.runs = 0

    def put(self, array: Array) -> Array:
        return lying(array)

    def address(self, held: Array) -> int:
        return held.ctypes.data

    def get(self, held: Array) -> Array:
        return np.array(held)

    def run(self, kernel: Gemm, words: Sequence[int]) -> None:
        self.runs += 1
        chosen = writers.choose(kernel, words)
        made = code(kernel, chosen.form, chosen.threads)
        Machine().launch(made, chosen.blocks, np.array(words, np.int64).ctypes.data)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of 64 rows are large here."""
    monkeypatch.setattr(cublaslt, "_LEAST", 64**3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_products_in_every_layout(kernel: Gemm) -> None:
    library, device = FakeCublasLt(), Device()
    path = FastPath(device, lambda: library)
    for left, right in ((False, False), (False, True), (True, False), (True, True)):
        sizes = (2, 3, 64, 72, 80)
        product = Product.of(kernel, sizes, 1, {"turned": left}, {"turned": right, "pad": 8})
        product.c = np.ascontiguousarray(product.c)
        before = np.array(product.c)
        assert path.takes(kernel, product.words) and path.run(kernel, product.words)
        product.require_close(before)
    assert device.runs == 4 and library.streams == {77}  # ours: in the first trial alone
    assert library.calls.count("cublasLtCreate") == 1
    made = library.calls.count("cublasLtMatmulAlgoGetHeuristic")
    assert made == 8  # four trials, four products; each is planned once
    assert path.takes(kernel, product.words)
    assert library.calls.count("cublasLtMatmulAlgoGetHeuristic") == made


def words_of(kernel: Gemm, sizes: Sequence[int], a: Any = (), b: Any = (), c: Any = ()) -> Any:
    words = Product.of(kernel, sizes, 0, a, b, c).words
    for place in (5, 10, 15):  # offsets of allocations
        words[place] %= 16
    return words


def test_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublaslt, "_LEAST", 2**27)
    half = Gemm("bfloat16")
    assert fits(half, words_of(half, LARGE))
    assert fits(half, words_of(half, (4, 2, 256, 256, 256)))
    assert not fits(half, words_of(half, LARGE), state=True)
    assert not fits(half, words_of(half, (1, 1, 256, 512, 512)))  # small
    assert not fits(half, words_of(half, (1, 1, 32, 4096, 1024)))  # narrow
    assert not fits(Gemm("float32"), words_of(Gemm("float32"), LARGE))  # exact
    assert not fits(half, words_of(half, LARGE, a={"pad": 4}))  # not aligned
    assert not fits(half, words_of(half, LARGE, c={"shift": 1}))
    assert not fits(half, words_of(half, LARGE, b={"step": 2}))
    words = words_of(half, LARGE)
    words[8] = 8  # from one row of a to the next: they overlap, as those of a convolution do
    assert not fits(half, words)
    words = words_of(half, (2, 4, 256, 256, 256))
    words[6] *= 2  # from one b0 of a to the next
    assert not fits(half, words)


@pytest.fixture
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warnings")
def test_where_the_library_is_missing_nothing_is_said() -> None:
    kernel = KERNELS[0]
    path = FastPath(Device(), lambda: None)
    assert not path.takes(kernel, words_of(kernel, LARGE)) and "not installed" in path.off


@pytest.mark.usefixtures("no_warnings")
def test_what_the_library_does_not_know_is_ours() -> None:
    kernel, library = KERNELS[0], FakeCublasLt()
    path, product = FastPath(Device(), lambda: library), Product.of(KERNELS[0], (1, 1, 64, 64, 64))
    assert path.takes(kernel, product.words)
    library.statuses["cublasLtMatmulAlgoGetHeuristic"] = NOT_SUPPORTED
    other = Product.of(kernel, (1, 1, 64, 128, 64))
    assert not path.takes(kernel, other.words) and not path.off
    assert path.takes(kernel, product.words)


@pytest.mark.parametrize(
    "library, why",
    [
        (FakeCublasLt(error=0.5), "cuBLASLt's products of bfloat16 differ by"),
        (FakeCublasLt(error=float("nan")), "differ by nan"),
        (FakeCublasLt({"cublasLtMatmul": 13}), "cublasLtMatmul could not run"),
        (FakeCublasLt({"cublasLtCreate": 1}), "cublasLtCreate is not initialized"),
        (FakeCublasLt({"cublasLtMatmulDescCreate": 99}), "gave status 99"),
        (FakeCublasLt(without="cublasLtMatmul"), "cublasLtMatmul"),
    ],
)
def test_a_library_that_fails_is_left_with_one_warning(library: Any, why: str) -> None:
    path, product = FastPath(Device(), lambda: library), Product.of(KERNELS[0], (1, 1, 64, 64, 64))
    with pytest.warns(UserWarning, match="products are our own code's from now on") as caught:
        assert not path.takes(product.kernel, product.words)
    assert why in str(caught[0].message) and len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not path.takes(product.kernel, product.words)
        assert not path.takes(KERNELS[2], words_of(KERNELS[2], LARGE))


def test_the_stand_in_refuses_what_does_not_fit() -> None:
    """So what it computes is what it was asked for."""
    product = Product.of(KERNELS[0], (1, 1, 64, 72, 80))
    lt = cublaslt.CublasLt(FakeCublasLt(), Device.workspace_size)
    with pytest.raises(cublaslt.CublasLtError, match="invalid value") as caught:
        lt._new("cublasLtMatrixLayoutCreate", 0, 16, 16, 8)
    assert caught.value.status == INVALID
    assert lt.knows(product.kernel, product.words)
    with pytest.raises(cublaslt.CublasLtError, match="invalid value"):  # no workspace
        lt.run(product.kernel, product.words, 0, 0)
    moved = replace(product, a=lying(np.zeros(product.a.shape, product.a.dtype), shift=1))
    with pytest.raises(cublaslt.CublasLtError, match="invalid value"):  # not aligned
        lt.run(product.kernel, moved.words, 1, 0)


def test_the_library_is_found_by_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def load(name: str) -> Any:
        tried.append(name)
        if "13" in name:
            raise OSError(name)
        return "loaded"

    find = cublaslt.find.__wrapped__
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert find() == "loaded" and len(tried) == 2
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert find() is None
