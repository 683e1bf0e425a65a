"""The simulator of a GPU itself: it finds what a GPU would not forgive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from simulator.machine import Code, DivergenceError, Machine, compiled
from simulator.thread import Simulated

from tinygrad_tx.backends.gpu.indexing import i32, wide
from tinygrad_tx.backends.gpu.thread import WARP, Thread
from tinygrad_tx.backends.llvm import ir

THREADS = 128
Body = Callable[[Thread], None]


def made(body: Body, threads: int = THREADS) -> Code:
    """The code of a kernel that is not one of ours."""
    module = ir.Module()
    thread = Simulated(module, "kernel", threads)
    body(thread)
    thread.end()
    loaded = compiled(module.text(), thread.waits > 0)
    return Code("kernel", loaded.address("kernel"), threads, thread.used, loaded)


def run(body: Body, seed: int = 0, blocks: int = 3) -> np.ndarray:
    """What a kernel writes to its only argument: an int32 for each thread of each block."""
    out = np.full(blocks * THREADS, -7, np.int32)
    words = np.array([out.ctypes.data], np.int64)
    Machine(seed).launch(made(body), blocks, words.ctypes.data)
    return out.reshape(blocks, THREADS)


def write(t: Thread, x: ir.Value) -> None:
    b = t.b
    at = b.add(b.mul(t.block, t.size), t.thread)
    b.store(x, b.at(t.words.place(0), wide(b, at), "i32"))


def rotated(t: Thread, wait: bool) -> None:
    """Each thread writes what the next warp's has put into shared memory."""
    b, memory = t.b, t.shared(4 * THREADS)
    b.store(b.mul(t.thread, i32(3)), b.at(memory, t.thread, "i32"))
    if wait:
        t.barrier()
    other = b.binary("and", b.add(t.thread, i32(WARP)), i32(THREADS - 1))
    write(t, b.load("i32", b.at(memory, other, "i32")))


def test_threads_share_memory_in_any_order() -> None:
    wanted = 3 * ((np.arange(THREADS) + WARP) % THREADS)
    for seed in range(4):
        assert (run(lambda t: rotated(t, wait=True), seed) == wanted).all()


def test_a_missing_barrier_is_seen() -> None:
    found = [run(lambda t: rotated(t, wait=False), seed) for seed in range(4)]
    assert any((x == -1).any() for x in found)  # shared memory begins as NaN
    assert any((x != found[0]).any() for x in found)


def test_registers_go_from_thread_to_thread() -> None:
    def body(t: Thread) -> None:
        b = t.b
        x = t.exchange(b.add(wide(b, t.thread), ir.integer(1 << 40)), 5)
        with b.loop(i32(0), i32(3), i32(1), [x]) as loop:  # the same place again and again
            loop.next = [t.exchange(loop.carried[0], 1)]
        half = b.compare("slt", t.lane, i32(4))
        low = b.convert("trunc", b.sub(loop.carried[0], ir.integer(1 << 40)), "i32")
        write(t, b.add(low, b.mul(t.vote(half), i32(1000))))

    lanes = np.arange(THREADS)
    for seed in range(3):
        assert (run(body, seed) == (lanes ^ 4) + 15000).all()


def diverging(t: Thread) -> None:
    with t.b.when(t.b.compare("slt", t.thread, i32(5))):
        t.barrier()


def some_warps(t: Thread) -> None:
    with t.b.when(t.b.compare("slt", t.warp, i32(2))):
        t.barrier()


def half_a_warp(t: Thread) -> None:
    b = t.b
    with b.when(b.compare("slt", t.lane, i32(16))):
        write(t, t.exchange(t.thread, 1))


@pytest.mark.parametrize("body", [diverging, some_warps, half_a_warp])
def test_divergence_is_an_error(body: Body) -> None:
    with pytest.raises(DivergenceError, match="block 0: threads wait at different places"):
        run(body)


SCRIPT = """
import sys
sys.path[:0] = {path!r}
from test_simulator import *
def body(t):
    memory = t.shared(64)
    t.b.store(i32(1), t.b.at(memory, i32(int(sys.argv[1])), "i32"))
    t.barrier()
run(body)
print("fine")
"""


def test_shared_memory_ends_at_a_page_without_access() -> None:
    here = Path(__file__).parent
    path = [str(here), str(here.parent / "helpers"), str(here.parents[1])]
    for word, fine in ((15, True), (16, False)):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(path=path), str(word)], capture_output=True
        )
        assert (done.returncode == 0) == fine and (b"fine" in done.stdout) == fine
