"""Simulated: a thread of a GPU's kernel as a function of a processor.

In: the calls of the very writers that make PTX. Out: LLVM IR. A kernel whose threads never wait for
each other becomes a function; any other a coroutine of LLVM's, which is suspended wherever its
thread waits. Values cross between threads through `slots`, two sets in turn, so that a thread that
goes ahead overwrites nothing that another one still reads.
"""

from __future__ import annotations

from tinygrad_tx.backends.gpu.thread import SHARED, WARP, Thread
from tinygrad_tx.backends.llvm import ir
from tinygrad_tx.backends.llvm.ir import Value
from tinygrad_tx.backends.llvm.operands import Words

PARAMS = (
    *(("ptr", "words"), ("i32", "thread"), ("i32", "block"), ("i32", "blocks")),
    *(("ptr", "shared"), ("ptr", "slots"), ("ptr", "places")),
)
WIDTH = 32  # 32-bit words of a thread's slot
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
        self._base, self._slots, self._places = rest
        self._turn = self.b.alloca("i32", 4)
        self.b.store(ir.integer(0, "i32"), self._turn)
        self.waits = 0

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
        first = b.binary("and", self.thread, ir.integer(-WARP, "i32"))
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

    # Slots ---------------------------------------------------------------------------------------
    def _slot(self, thread: Value, word: int = 0) -> Value:
        b = self.b
        turn = b.mul(b.load("i32", self._turn), self.size)
        at = b.mul(b.add(turn, thread), ir.integer(WIDTH, "i32"))
        return b.at(self._slots, b.add(at, ir.integer(word, "i32")), "i32")

    def _put(self, *words: Value) -> None:
        for i, word in enumerate(words):
            self.b.store(word, self._slot(self.thread, i))

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
        self._stand(0)
        if not self.waits:
            b.do("ret ptr null")
            return
        b.lines.insert(0, _BEGIN)
        b.lines.append(_END)
        b.head = b.head.replace("{", "presplitcoroutine {")
        self._module.globals.append(_DECLARED)


assert SHARED % 16 == 0
