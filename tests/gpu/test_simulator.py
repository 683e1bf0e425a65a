"""The simulator of a GPU itself: it finds what a GPU would not forgive."""

from __future__ import annotations

import ctypes
import mmap
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from simulator import guarded
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
    out = guarded.copied(np.full(blocks * THREADS, -7, np.int32))
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
    with pytest.raises(DivergenceError, match=r"block \d: threads wait at different places"):
        run(body)


# Races between blocks ----------------------------------------------------------------------------


def of_all(body: Body, seed: int, begin: int = 0) -> np.ndarray:
    """What eight blocks leave in an int32 for each thread of one block."""
    out = guarded.copied(np.full(THREADS, begin, np.int32))
    words = np.array([out.ctypes.data], np.int64)
    Machine(seed).launch(made(body), 8, words.ctypes.data)
    return out


def own(t: Thread) -> ir.Value:
    return t.b.at(t.words.place(0), wide(t.b, t.thread), "i32")


def one_place(t: Thread) -> None:
    """Every block writes its number to the same places."""
    t.b.store(t.block, own(t))


def not_atomic(t: Thread) -> None:
    """Every block goes on from what it finds."""
    b = t.b
    b.store(b.add(b.mul(b.load("i32", own(t)), i32(3)), t.block), own(t))


@pytest.mark.parametrize("body", [one_place, not_atomic])
def test_blocks_that_share_a_place_are_seen(body: Body) -> None:
    found = [of_all(body, seed) for seed in range(4)]
    assert any((x != found[0]).any() for x in found)


def test_blocks_that_only_add_to_a_place_are_not_races() -> None:
    def adding(t: Thread) -> None:
        t.b.store(t.b.add(t.b.load("i32", own(t)), t.block), own(t))

    assert all((of_all(adding, seed) == 28).all() for seed in range(4))


def test_a_block_that_reads_what_another_one_writes_is_seen() -> None:
    """Blocks do not wait for each other: a barrier between launches is missing."""

    def body(t: Thread) -> None:
        b = t.b
        with b.when(b.compare("eq", t.block, i32(0))):
            b.store(i32(9), own(t))
        with b.when(b.compare("eq", t.block, i32(1))):
            b.store(b.add(b.load("i32", own(t)), i32(1)), own(t))

    found = {int(of_all(body, seed)[0]) for seed in range(8)}
    assert found == {9, 10}


# Threads of a block that write to one place, or read it before it is written again ----------------


def one_place_of_threads(t: Thread) -> None:
    b, memory = t.b, t.shared(4)
    b.store(t.thread, b.at(memory, i32(0), "i32"))
    t.barrier()
    write(t, b.load("i32", b.at(memory, i32(0), "i32")))


def written_too_early(t: Thread) -> None:
    """What another thread still reads is written again: a barrier is missing behind the read."""
    b, memory = t.b, t.shared(4 * THREADS)
    mine = b.at(memory, t.thread, "i32")
    other = b.at(memory, b.binary("xor", t.thread, i32(WARP)), "i32")
    b.store(t.thread, mine)
    t.barrier()
    found = b.load("i32", other)
    b.store(i32(-5), mine)
    write(t, found)


@pytest.mark.parametrize("body", [one_place_of_threads, written_too_early])
def test_threads_that_share_a_place_are_seen(body: Body) -> None:
    found = [run(body, seed) for seed in range(4)]
    assert any((x != found[0]).any() for x in found)


# Pages without access ----------------------------------------------------------------------------

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


def ends(script: str, *given: object) -> bool:
    """True if a script comes to its end, False if an access outside ends it."""
    here = Path(__file__).parent
    path = [str(here), str(here.parent / "helpers"), str(here.parents[1])]
    command = [sys.executable, "-c", script.format(path=path), *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert done.stdout == "fine\n"
        return True
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS), done.stderr
    return False


def test_shared_memory_ends_at_a_page_without_access() -> None:
    assert ends(SCRIPT, 15) and not ends(SCRIPT, 16)


PLAN = """
import sys
sys.path[:0] = {path!r}
from contextlib import nullcontext
from unittest import mock
import tinygrad_tx as tx
from simulator.device import NAME, apart, install
from tinygrad_tx.backends.gpu import program
from tinygrad_tx.backends.llvm import ir

install()
which, how, ahead = sys.argv[1], sys.argv[2], int(sys.argv[3])

def begin(self, row, right=program.Program.begin):  # one operand lies elsewhere than it does
    right(self, row)
    if which == "read":
        self.row.places[0] = self.b.at(self.row.places[0], ir.integer(ahead), "float")
    else:
        self.places[0] = self.b.at(self.places[0], ir.integer(ahead), "float")

@tx.compile
def f(x):
    if how == "argument":
        return x + 1
    y = x.sum(0, keepdim=True) * tx.ones(3, 64, device=NAME)  # a value of the arena
    return y.softmax(-1) + y.sum(-1, keepdim=True)

x = tx.ones(3, 64, device=NAME)
with apart() if how == "apart" else nullcontext():
    with mock.patch.object(program.Program, "begin", begin):
        f(x).numpy()
print("fine")
"""
PAGE = 4096 // 4  # floats


@pytest.mark.one_in(2)
@pytest.mark.parametrize("which", ["read", "written"])
@pytest.mark.parametrize("how", ["argument", "apart"])
def test_arrays_of_plans_lie_between_pages_without_access(which: str, how: str) -> None:
    assert ends(PLAN, which, how, 0)
    assert not ends(PLAN, which, how, 64) and not ends(PLAN, which, how, -PAGE)


def test_memory_ends_at_a_page_at_every_size() -> None:
    for size in (0, 1, 15, 16, 17, 4080, 4096, 5000):
        block = guarded.Block(size)
        rest = -block.end % mmap.PAGESIZE
        assert rest < guarded.ALIGN and block.address % guarded.ALIGN == 0
        assert guarded.Block(size, 4).address % guarded.ALIGN == 4
    x = np.arange(60, dtype=np.int32).reshape(4, 15)[::-2, 1:9:3]
    y = guarded.moved(x)
    np.testing.assert_array_equal(x, y)
    assert y.strides == x.strides and (y.ctypes.data - x.ctypes.data) % guarded.ALIGN == 0
    assert not guarded.is_whole(y[1:]) and guarded.is_whole(guarded.copied(x))


def test_bytes_beside_an_array_are_looked_at() -> None:
    for place in (-1, 5):
        x = guarded.empty((5,), np.uint8)
        guarded.require_intact()
        ctypes.c_uint8.from_address(x.ctypes.data + place).value = 3
        with pytest.raises(guarded.OutsideError, match="beside an array of 5 bytes"):
            guarded.require_intact()
        guarded.require_intact()
