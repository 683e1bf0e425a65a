"""Simulated: a thread of a GPU's kernel as a function of a processor.

In: the calls of the very writers that make PTX. Out: LLVM IR. A kernel whose threads never wait for
each other becomes a function; any other a coroutine of LLVM's, which is suspended wherever its
thread waits. Values cross between threads through `slots`, two sets in turn, so that a thread that
goes ahead overwrites nothing that another one still reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_tx.backends.gpu.thread import PIECE, SHARED, WARP, Thread
from tinygrad_tx.backends.llvm import half, ir
from tinygrad_tx.backends.llvm.ir import Value
from tinygrad_tx.backends.llvm.operands import Words

from . import tensor_core
from .tensor_core import WIDTH

PARAMS = (
    *(("ptr", "words"), ("i32", "thread"), ("i32", "block"), ("i32", "blocks")),
    *(("ptr", "shared"), ("ptr", "slots"), ("ptr", "places"), ("ptr", "fault")),
)
BARRIER, TOGETHER = 0, 1  # the last bit of a place: what is waited for there

_BEGIN = """\
  %id = call token @llvm.coro.id(i32 64, ptr null, ptr null, ptr null)
  %size = call i64 @llvm.coro.size.i64()
  %more = add i64 %size, 63
  %room = and i64 %more, -64
  %frame = call ptr @aligned_alloc(i64 64, i64 %room)
  %self = call ptr @llvm.coro.begin(token %id, ptr %frame)"""
_END = """\
  %last = call i8 @llvm.coro.suspend(token none, i1 true)
  switch i8 %last, label %away [i8 0, label %never i8 1, label %never]
never:
  unreachable
away:
  call void @llvm.coro.end(ptr %self, i1 false, token none)
  ret ptr %self"""
_DECLARED = """\
declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare void @llvm.coro.end(ptr, i1, token)
declare ptr @aligned_alloc(i64, i64)"""


class Simulated(Thread):
    """A thread of a kernel `ptr @name(...PARAMS)`: the address of its coroutine, null where it has
    run to its end without waiting. Its place (an i32) is where it waits; 0 at its end."""

    pointer, shared_pointer = "ptr", "ptr"

    def __init__(self, module: ir.Module, name: str, threads: int) -> None:
        super().__init__(threads)
        self._module = module
        self.b = module.function(name, PARAMS, "ptr")
        words, self.thread, self.block, self.blocks, *rest = self.b.params
        self._words = Words(self.b, words)
        self._base, self._slots, self._places, self._fault = rest
        self._turn = self.b.alloca("i32", 4)
        self.b.store(ir.integer(0, "i32"), self._turn)
        self.waits = 0
        self._four = self.b.alloca("[4 x i32]", 16)
        self._copies = self.b.alloca(f"[{tensor_core.QUEUE_WORDS} x i64]", 16)
        for i in range(tensor_core.STATE):
            self.b.store(ir.integer(0), self.b.at(self._copies, ir.integer(i), "i64"))

    @property
    def words(self) -> Words:
        return self._words

    def _shared(self) -> Value:
        return self._base

    def barrier(self) -> None:
        self._wait(BARRIER)

    def _exchange(self, word: Value, mask: int) -> Value:
        b = self.b
        other = b.binary("xor", self.thread, ir.integer(mask, "i32"))
        self._put(word)
        self._wait(TOGETHER)
        found = b.load("i32", self._slot(other))
        self._next()
        return found

    def vote(self, flag: Value) -> Value:
        b = self.b
        self._put(b.convert("zext", flag, "i32"))
        self._wait(TOGETHER)
        first = tensor_core.first_of_warp(b, self.thread)
        with b.loop(
            ir.integer(0, "i32"),
            ir.integer(WARP, "i32"),
            ir.integer(1, "i32"),
            [ir.integer(0, "i32")],
        ) as each:
            bit = b.load("i32", self._slot(b.add(first, each.i)))
            each.next = [b.binary("or", each.carried[0], b.binary("shl", bit, each.i))]
        self._next()
        return each.carried[0]

    # Tensor cores --------------------------------------------------------------------------------
    def mma(
        self, kind: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]
    ) -> list[Value]:
        mine = [tensor_core.elements(self.b, kind, x) for x in (*a, *b)]
        self._put(*(x for both in mine for x in both))
        function = tensor_core.product(self._module, len(mine[0]))
        return self._of_warp(function, "c", "float", c)

    def load_matrices(self, row: Value, transposed: bool = False) -> list[Value]:
        self._put(self.b.emit("i64", f"ptrtoint ptr {row.name} to i64"))
        return self._of_warp(tensor_core.matrices(self._module, transposed), "out", "i32", ())

    def _of_warp(
        self, function: ir.Function, name: str, type: str, given: Sequence[Value]
    ) -> list[Value]:
        """A call of a function that reads the slots of the warp."""
        b = self.b
        self._wait(TOGETHER)
        for i, x in enumerate(given):
            b.store(x, b.at(self._four, ir.integer(i), x.type))
        slots = self._slot(tensor_core.first_of_warp(b, self.thread))
        function(b, slots=slots, lane=self.lane, **{name: self._four})
        self._next()
        return [b.load(type, b.at(self._four, ir.integer(i), type)) for i in range(4)]

    def tf32(self, x: Value) -> Value:
        return tensor_core.tf32(self.b, x)

    def copy_async(self, shared: Value, place: Value, valid: Value, size: int = PIECE) -> None:
        function = tensor_core.begin_copy(self._module)
        parts = {"queue": self._copies, "to": shared, "from": place, "valid": valid}
        function(self.b, **parts, size=ir.integer(size, "i32"), fault=self._fault)

    def commit(self) -> None:
        groups = self.b.at(self._copies, ir.integer(tensor_core.GROUPS), "i64")
        self.b.store(self.b.add(self.b.load("i64", groups), ir.integer(1)), groups)

    def wait(self, pending: int) -> None:
        function = tensor_core.end_copies(self._module)
        function(self.b, queue=self._copies, pending=ir.integer(pending))

    # Numbers -------------------------------------------------------------------------------------
    def exp2(self, x: Value) -> Value:
        return self.b.intrinsic("exp2", x.type, x)

    def pack(self, kind: str, low: Value, high: Value) -> Value:
        b = self.b
        words = [b.convert("zext", half.narrowed(b, x, kind), "i32") for x in (low, high)]
        return b.binary("or", words[0], b.binary("shl", words[1], ir.integer(16, "i32")))

    # Slots ---------------------------------------------------------------------------------------
    def _slot(self, thread: Value) -> Value:
        b = self.b
        turn = b.mul(b.load("i32", self._turn), self.size)
        at = b.mul(b.add(turn, thread), ir.integer(WIDTH, "i32"))
        return b.at(self._slots, at, "i32")

    def _put(self, *words: Value) -> None:
        mine = self._slot(self.thread)
        for i, word in enumerate(words):
            self.b.store(word, self.b.at(mine, ir.integer(i), word.type), 4)

    def _next(self) -> None:
        b = self.b
        b.store(b.binary("xor", b.load("i32", self._turn), ir.integer(1, "i32")), self._turn)

    # Suspension ----------------------------------------------------------------------------------
    def _stand(self, place: int) -> None:
        self.b.store(ir.integer(place, "i32"), self.b.at(self._places, self.thread, "i32"))

    def _wait(self, kind: int) -> None:
        b = self.b
        self.waits += 1
        go = f"go{self.waits}"
        self._stand(2 * self.waits + kind)
        found = b.emit("i8", "call i8 @llvm.coro.suspend(token none, i1 false)")
        b.do(f"switch i8 {found.name}, label %away [i8 0, label %{go} i8 1, label %never]")
        b.label(go)

    def end(self) -> None:
        b = self.b
        tensor_core.require_no_copies(b, self._copies, self._fault)
        self._stand(0)
        if not self.waits:
            b.do("ret ptr null")
            return
        b.lines.insert(0, _BEGIN)
        b.lines.append(_END)
        b.head = b.head.replace("{", "presplitcoroutine {")
        self._module.globals.append(_DECLARED)


assert SHARED % 16 == 0
