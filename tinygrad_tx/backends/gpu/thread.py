"""Thread: a machine with thousands of threads, as the code of one of them sees it.

In: calls of the writers of kernels. Out: LLVM IR on a Builder. ptx.py writes a thread of a real
GPU; the tests have a machine that runs the same code on a processor. A writer asks a Thread for
whatever more than one thread takes part in; all else is the Builder's, as for a processor.

Threads of a block share memory and wait for each other at barriers; WARP of them go in step and
read each other's registers. All threads that take part must come to the same call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ..llvm import ir
from ..llvm.ir import Builder, Value
from ..llvm.operands import Words

WARP = 32
SHARED = 48 << 10  # bytes of shared memory that every block may have
PIECE = 16  # bytes of a row of a matrix that tensor cores read at once
_Move = Callable[[Value], Value]


class Thread(ABC):
    """b: where its code is written. threads: of a block. thread: its number in its block; size: the
    threads of a block; block, blocks: the number of its block, and how many there are; i32 each."""

    b: Builder
    size: Value
    thread: Value
    block: Value
    blocks: Value
    pointer: str  # the types of addresses of global memory, and of shared memory
    shared_pointer: str

    def __init__(self, threads: int) -> None:
        self.threads, self.size = threads, ir.integer(threads, "i32")
        self.used = 0  # bytes of shared memory
        self.resident = 1  # blocks that shall find room on a processor at once: registers for them

    # Memory --------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def words(self) -> Words:
        """The arguments of the call."""

    def shared(self, size: int) -> Value:
        """The address of so many bytes that the threads of a block share, aligned to 16."""
        at = -(-self.used // 16) * 16
        self.used = at + size
        assert self.used <= SHARED, f"{self.used} bytes of shared memory"
        return self.b.at(self._shared(), ir.integer(at, "i32"), "i8")

    @abstractmethod
    def _shared(self) -> Value:
        """The address of the first byte of shared memory."""

    # Together ------------------------------------------------------------------------------------
    @abstractmethod
    def barrier(self) -> None:
        """Wait for all threads of the block; what each wrote before is there for all after."""

    def exchange(self, x: Value, mask: int) -> Value:
        """x of the thread of the warp whose number differs from this one's in the bits of mask."""
        return self._by_words(x, lambda word: self._exchange(word, mask))

    def _by_words(self, x: Value, move: _Move) -> Value:
        """Move a value of any type, 32 bits at a time."""
        b = self.b
        if x.type in ("i1", "i8", "i16"):
            return b.convert("trunc", move(b.convert("zext", x, "i32")), x.type)
        if ir.width(x.type) == 4:
            word = x if x.type == "i32" else b.convert("bitcast", x, "i32")
            moved = move(word)
            return moved if x.type == "i32" else b.convert("bitcast", moved, x.type)
        pair = b.emit("<2 x i32>", f"bitcast {x.type} {x.name} to <2 x i32>")
        low, high = (move(b.lane(pair, i)) for i in range(2))
        both = b.emit("<2 x i32>", f"insertelement <2 x i32> poison, i32 {low.name}, i64 0")
        both = b.emit("<2 x i32>", f"insertelement <2 x i32> {both.name}, i32 {high.name}, i64 1")
        return b.emit(x.type, f"bitcast <2 x i32> {both.name} to {x.type}")

    @abstractmethod
    def _exchange(self, word: Value, mask: int) -> Value:
        """exchange() of an i32."""

    @abstractmethod
    def vote(self, flag: Value) -> Value:
        """An i32 whose bit n is the flag (i1) of thread n of the warp."""

    # Tensor cores --------------------------------------------------------------------------------
    @abstractmethod
    def mma(
        self, kind: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]
    ) -> list[Value]:
        """c + a @ b of matrices that the threads of a warp hold together: a (16, k), b (k, 8) and
        c (16, 8), where k is as many elements as two pieces have. kind: "float16", "bfloat16" or
        "tf32"; sums are of float32, in an order of the machine's own.

        a: four i32, b: two, c and the result: four floats. Thread 4 g + p of the warp has the p-th
        32 bits of each piece: of row g + 8 (i % 2) and piece i // 2 in a[i], of column g and piece
        i in b[i]; and of c the element (g + 8 (i // 2), 2 p + i % 2) in c[i].
        """

    @abstractmethod
    def load_matrices(self, row: Value, transposed: bool = False) -> list[Value]:
        """Four matrices (8, one piece) of shared memory. row: where a row of them begins, aligned
        to a piece; threads 8 j to 8 j + 7 of the warp give the rows of matrix j.

        Out: four i32, of each matrix one. Thread 4 g + p gets the p-th 32 bits of row g; if
        transposed, of elements of 16 bits, those of column g in rows 2 p and 2 p + 1.
        """

    @abstractmethod
    def tf32(self, x: Value) -> Value:
        """A float as `mma` takes it: the i32 of the nearest number with 10 bits of mantissa; of
        two, the larger one in size."""

    @abstractmethod
    def copy_async(self, shared: Value, place: Value, valid: Value, size: int = PIECE) -> None:
        """Begin to copy `size` bytes (16, 8 or 4, to which both addresses are aligned) from global
        to shared memory: the first `valid` (i32) of them, then zeros. What is there is undefined
        until this thread has waited, and other threads have come to a barrier behind that."""

    @abstractmethod
    def commit(self) -> None:
        """End a group of copies."""

    @abstractmethod
    def wait(self, pending: int) -> None:
        """Wait for this thread's groups of copies, but for so many of the last ones."""

    # Numbers -------------------------------------------------------------------------------------
    @abstractmethod
    def exp2(self, x: Value) -> Value:
        """2 to the power of a float, as quickly as it is made: within 2 units in the last place,
        and subnormal results may be 0."""

    @abstractmethod
    def pack(self, kind: str, low: Value, high: Value) -> Value:
        """Two floats as numbers of 16 bits, side by side in an i32, each the nearest one. kind:
        "float16" or "bfloat16"."""

    # Parts of numbers ----------------------------------------------------------------------------
    @property
    def lane(self) -> Value:
        """The number of the thread in its warp."""
        return self.b.binary("and", self.thread, ir.integer(WARP - 1, "i32"))

    @property
    def warp(self) -> Value:
        """The number of the warp in its block."""
        return self.b.binary("lshr", self.thread, ir.integer(WARP.bit_length() - 1, "i32"))

    @abstractmethod
    def end(self) -> None:
        """The end of the kernel."""
