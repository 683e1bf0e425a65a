"""What attention on tensor cores moves through shared memory: banks, and planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from attention_case import Array, AttentionCase, outputs, place
from simulator.machine import Code, Machine, made
from simulator.thread import Simulated

from tinygrad_tx.backends.gpu import writers
from tinygrad_tx.backends.gpu.attention.heads import Rows
from tinygrad_tx.backends.gpu.attention.panels import Panel
from tinygrad_tx.backends.gpu.attention.tensor import Tensor
from tinygrad_tx.backends.gpu.indexing import i32
from tinygrad_tx.backends.kernels.kinds import Attention
from tinygrad_tx.backends.llvm import ir
from tinygrad_tx.backends.llvm.ir import Value

ROWS, THREADS = 64, 128


class Watched(Simulated):
    """Notes the addresses that matrices are loaded from and copied to."""

    def __init__(self, module: ir.Module, name: str, threads: int) -> None:
        super().__init__(module, name, threads)
        self.loaded: list[Value] = []
        self.copied: list[Value] = []

    def _number(self, place: Value) -> Value:
        return self.b.emit("i64", f"ptrtoint ptr {place.name} to i64")

    def load_matrices(self, row: Value, transposed: bool = False) -> list[Value]:
        self.loaded.append(self._number(row))
        return [i32(0)] * 4

    def copy_async(self, shared: Value, place: Value, valid: Value, size: int = 16) -> None:
        self.copied.append(self._number(shared))


def moved(kind: str, width: int) -> tuple[Array, Array]:
    """The bytes before what the threads load at once, (loads, threads), and copy."""
    kept: list[int] = []

    def write(t: Simulated) -> None:
        assert isinstance(t, Watched)
        b, start = t.b, t.shared(0)
        panel = Panel(t, kind, start, 0, ROWS, width, 16)
        given = Value("ptr", "null")
        of = Rows(given, ir.integer(width), i32(ROWS), i32(width), "bfloat16")
        panel.bring(of, i32(0))
        for step in range(panel.pieces // 2):
            panel.rows_down(i32(16), 32, i32(step))
            panel.rows_across(16, i32(step))
        if kind != "tf32":
            for column in range(0, width, 16):
                panel.columns_across(column, 1)
        kept.extend((len(t.loaded), len(t.copied)))
        base = t._number(start)
        for i, x in enumerate((*t.loaded, *t.copied)):
            to = b.at(t.words.place(0), b.add(i32(i * THREADS), t.thread), "i64")
            b.store(b.sub(x, base), to)
        t.end()

    code = made(write, THREADS, Watched)
    out = np.zeros((sum(kept), THREADS), np.int64)
    words = np.array([out.ctypes.data], np.int64)
    Machine().launch(code, 1, words.ctypes.data)
    return out[: kept[0]], out[kept[0] :]


@pytest.mark.parametrize("kind", ["bfloat16", "tf32"])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_what_is_moved_at_once_lies_in_different_banks(kind: str, width: int) -> None:
    """Of 32 banks of 4 bytes each: eight threads move 16 bytes each at once."""
    loaded, copied = moved(kind, width)
    for addresses in (loaded, copied):
        banks = (addresses % 128 // 16).reshape(-1, 8)
        assert all(len(set(row)) == 8 for row in banks.tolist())
    size = ROWS * width * (4 if kind == "tf32" else 2)
    assert sorted(copied.ravel().tolist()) == list(range(0, size, 16))


def test_single_elements_lie_in_different_banks() -> None:
    """Of tf32, which are loaded by 32 threads one by one as a right operand."""
    found: list[Any] = []

    class Noting(Simulated):
        pass

    def write(t: Simulated) -> None:
        b = t.b
        panel = Panel(t, "tf32", t.shared(0), 0, ROWS, 64, 16)
        places: list[Value] = []
        at = panel._at

        def noted(mine: Value, more: int) -> Value:
            places.append(mine)
            return at(mine, more)

        panel._at = noted  # type: ignore[method-assign]
        panel.columns_across(16, 2)
        found.append(len(places))
        for i, x in enumerate(places):
            to = b.at(t.words.place(0), b.add(i32(i * 32), t.thread), "i32")
            b.store(x, to)
        t.end()

    code = made(write, 32, Noting)
    out = np.zeros((found[0], 32), np.int32)
    words = np.array([out.ctypes.data], np.int64)
    Machine().launch(code, 1, words.ctypes.data)
    assert all(len(set(row)) == 32 for row in (out % 128 // 4).tolist())


# Faults ------------------------------------------------------------------------------------------


def attended(seed: int) -> bool:
    """True if attention over several tiles is what it should be."""
    case = AttentionCase(1, 1, 20, 200, 32, 32, "bfloat16")
    (out,) = outputs(case.dtype, (1, 1, 20, 32))
    kernel = Attention("float32", case.scale, "none", False, case.dtype)
    args = [*case.sizes, *place(case.q, case.k, case.v, out)]
    chosen = writers.choose(kernel, args)
    code: Code = made(lambda t: writers.write(kernel, chosen.form, t), chosen.threads)
    words = np.array(args, np.int64)
    Machine(seed).launch(code, chosen.blocks, words.ctypes.data)
    return bool(np.allclose(out.astype("d"), case.reference(), rtol=5e-2, atol=5e-2))


def _no_barrier(method: str) -> Callable[..., None]:
    """A method of Tensor without the barriers in it."""
    whole = getattr(Tensor, method)

    def without(self: Tensor, *args: Any, **named: Any) -> None:
        barrier = self.t.barrier
        self.t.barrier = lambda: None  # type: ignore[method-assign]
        whole(self, *args, **named)
        self.t.barrier = barrier  # type: ignore[method-assign]

    return without


def test_attention_over_several_tiles() -> None:
    assert attended(0) and attended(1)


@pytest.mark.parametrize("method", ["turn", "second", "done"])
def test_a_barrier_that_is_left_out_is_found(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, method, _no_barrier(method))
    assert not all(attended(seed) for seed in range(2))


def test_a_wait_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Tensor.turn

    def impatient(self: Tensor, start: Value) -> None:
        wait = self.t.wait
        self.t.wait = lambda pending: wait(pending + 1)  # type: ignore[method-assign]
        whole(self, start)
        self.t.wait = wait  # type: ignore[method-assign]

    monkeypatch.setattr(Tensor, "turn", impatient)
    assert not attended(0)
