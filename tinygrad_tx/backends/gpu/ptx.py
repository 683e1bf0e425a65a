"""PTX: a thread of NVIDIA's GPUs, and the text that their driver loads.

In: writers' calls; the IR of a module. Out: PTX. Called by library.py. Every operation is written
as rounded by itself (nothing is contracted), and subnormal numbers are kept: so what is computed
element by element has the bits of a processor's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ..llvm import engine, ir
from ..llvm.ir import Value
from ..llvm.operands import Words
from ..reports import CLEAN
from .thread import PIECE, Thread

TRIPLE = "nvptx64-nvidia-cuda"
_GLOBAL, _SHARED = "ptr addrspace(1)", "ptr addrspace(3)"
_ALL = ir.integer(-1, "i32")  # threads of a warp
_MMA = {
    "float16": "m16n8k16.row.col.f32.f32",
    "bfloat16": "m16n8k16.row.col.bf16",
    "tf32": "m16n8k8.row.col.tf32",
}
_VERSION = "+ptx80"  # of PTX: drivers from CUDA 12.0 on load it


class Ptx(Thread):
    """A thread of a kernel `void @name(ptr words, ptr report)`, in blocks of `threads`.

    each: the words of a call. A launch is of one call or more, whose words lie one after the other:
    that of number y, of the grid's second axis, has the words from y * each on.
    """

    pointer, shared_pointer = _GLOBAL, _SHARED

    def __init__(self, module: ir.Module, name: str, threads: int, each: int = 0) -> None:
        super().__init__(threads)
        self._module, self._memory = module, f"{name}.shared"
        attributes = self._limit = f'"nvvm.maxntid"="{threads}"'
        self.b = module.function(
            name, [("ptr", "words"), ("ptr", "report")], "void", attributes=attributes
        )
        self.b.head = self.b.head.replace("define void", "define ptx_kernel void")
        self.thread, self.block, self.blocks = map(self._register, ("tid.x", "ctaid.x", "nctaid.x"))
        words, report = (self._global(p) for p in self.b.params)
        if each:
            ahead = self.b.mul(self._register("ctaid.y"), ir.integer(each, "i32"))
            words = self.b.at(words, ahead, "i64")
        self._words = Words(self.b, words, _GLOBAL)
        self._stop_if(self.b.load("i64", report))

    def _stop_if(self, reported: Value) -> None:
        """Nothing is computed once an index was outside: so nothing is written, either."""
        found = self.b.compare("ne", reported, ir.integer(CLEAN))
        self.b.do(f"br i1 {found.name}, label %stopped, label %begin")
        self.b.label("stopped")
        self.b.end()
        self.b.label("begin")

    def _register(self, name: str) -> Value:
        return self.b.call(f"llvm.nvvm.read.ptx.sreg.{name}", "i32")

    def _global(self, pointer: Value) -> Value:
        return self.b.emit(_GLOBAL, f"addrspacecast ptr {pointer.name} to {_GLOBAL}")

    @property
    def words(self) -> Words:
        return self._words

    def _shared(self) -> Value:
        return Value(_SHARED, f"@{self._memory}")

    def barrier(self) -> None:
        self.b.call("llvm.nvvm.barrier.cta.sync.aligned.all", "void", ir.integer(0, "i32"))

    def _exchange(self, word: Value, mask: int) -> Value:
        of, bound = ir.integer(mask, "i32"), ir.integer(31, "i32")
        return self.b.call("llvm.nvvm.shfl.sync.bfly.i32", "i32", _ALL, word, of, bound)

    def vote(self, flag: Value) -> Value:
        return self.b.call("llvm.nvvm.vote.ballot.sync", "i32", _ALL, flag)

    # Tensor cores --------------------------------------------------------------------------------
    def mma(
        self, kind: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]
    ) -> list[Value]:
        operands = [*a, *b]
        if kind == "float16":
            operands = [self.b.convert("bitcast", x, "<2 x half>") for x in operands]
        name = f"llvm.nvvm.mma.{_MMA[kind]}"
        return self._several(name, "float", *operands, *c)

    def load_matrices(self, row: Value, transposed: bool = False) -> list[Value]:
        how = ".trans" if transposed else ""
        name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4{how}.b16.p3"
        return self._several(name, "i32", row)

    def _several(self, name: str, type: str, *args: Value) -> list[Value]:
        """A call that returns four values."""
        all = "{" + ", ".join([type] * 4) + "}"
        found = self.b.call(name, all, *args)
        return [self.b.emit(type, f"extractvalue {all} {found.name}, {i}") for i in range(4)]

    def tf32(self, x: Value) -> Value:
        return self.b.call("llvm.nvvm.f2tf32.rna", "i32", x)

    def copy_async(self, shared: Value, place: Value, valid: Value, size: int = PIECE) -> None:
        level = "cg" if size == PIECE else "ca"  # smaller ones go through the cache of the cores
        name = f"llvm.nvvm.cp.async.{level}.shared.global.{size}.s"
        self.b.call(name, "void", shared, place, valid)

    def commit(self) -> None:
        self.b.call("llvm.nvvm.cp.async.commit.group", "void")

    def wait(self, pending: int) -> None:
        self.b.call("llvm.nvvm.cp.async.wait.group", "void", ir.integer(pending, "i32"))

    # Numbers -------------------------------------------------------------------------------------
    def exp2(self, x: Value) -> Value:
        return self.b.call("llvm.nvvm.ex2.approx.ftz.f", "float", x)

    def pack(self, kind: str, low: Value, high: Value) -> Value:
        b, type = self.b, ir.vector(2, "half" if kind == "float16" else "bfloat")
        both = Value("<2 x float>", "poison")
        for i, x in enumerate((low, high)):
            both = b.emit(
                both.type, f"insertelement {both.type} {both.name}, float {x.name}, i64 {i}"
            )
        near = b.emit(type, f"fptrunc {both.type} {both.name} to {type}")
        return b.emit("i32", f"bitcast {type} {near.name} to i32")

    def end(self) -> None:
        self.b.end()
        # Also where it is 1: ptxas would spill registers, so that more blocks find room.
        limits = f'{self._limit} "nvvm.minctasm"="{self.resident}"'
        self.b.head = self.b.head.replace(self._limit, limits)
        if self.used:
            self._module.globals.append(
                f"@{self._memory} = internal addrspace(3) global [{self.used} x i8] undef, align 16"
            )


def compile_ptx(text: str, architecture: str) -> str:
    """The PTX of a module. architecture: "sm_80" and so on. RuntimeError where the text is no valid
    IR."""
    machine = _machine(architecture)
    module = engine.parse(f'target triple = "{TRIPLE}"\n{text}', machine)
    engine.optimise(module, machine)
    return str(machine.emit_assembly(module))


@cache
def _machine(architecture: str) -> Any:
    return (
        engine.binding()
        .Target.from_triple(TRIPLE)
        .create_target_machine(cpu=architecture, features=_VERSION, opt=3)
    )
