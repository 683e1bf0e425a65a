"""LLVM IR as text: typed values, straight-line code, counted loops, branches.

In: calls of a Builder's methods, in the order in which the code shall run. Out: `Module.text()`,
which jit.py compiles. Called by everything here that writes native code. There is no optimiser in
this file: LLVM's own removes common subexpressions.

A Value is its type and its name or literal: Value("float", "%v7"), Value("i64", "8").
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

_VECTOR = re.compile(r"<(\d+) x (.+)>")
_SHORT = {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}


class Value(NamedTuple):
    type: str
    name: str

    @property
    def lanes(self) -> int:
        """The number of a vector's elements; 1 for a scalar."""
        found = _VECTOR.match(self.type)
        return int(found[1]) if found else 1

    @property
    def element(self) -> str:
        """The type of a vector's element; the type itself for a scalar."""
        found = _VECTOR.match(self.type)
        return found[2] if found else self.type

    @property
    def is_float(self) -> bool:
        return self.element in ("float", "double")


Values = Sequence[Value]


def vector(lanes: int, element: str) -> str:
    """The type of a vector; a scalar's where lanes is 1."""
    return f"<{lanes} x {element}>" if lanes > 1 else element


def integer(value: int, type: str = "i64") -> Value:
    return Value(type, str(int(value)))


def boolean(value: bool) -> Value:
    return Value("i1", "true" if value else "false")


def floating(value: float, type: str = "float") -> Value:
    """A float or double literal, exact: LLVM wants the bits of the double of that value."""
    if type == "float":
        value = struct.unpack("f", struct.pack("f", value))[0]
    return Value(type, f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}")


class Function(NamedTuple):
    """A function of a module, which is called by the names of its parameters."""

    name: str
    returns: str
    params: tuple[tuple[str, str], ...]  # type and name of each

    def __call__(self, b: Straight, /, **args: Value) -> Value:
        """Write a call of it into b. TypeError where args are not its parameters, or of another
        type."""
        given = {name: value.type for name, value in args.items()}
        wanted = {name: type for type, name in self.params}
        if given != wanted:
            raise TypeError(f"{self.name} takes {wanted}, not {given}")
        return b.call(self.name, self.returns, *(args[name] for _, name in self.params))


class Module:
    """Functions and the declarations that they need. libm: whether they may call the C library's
    mathematical functions, for which libm.py has code of its own otherwise."""

    def __init__(self, *, libm: bool = True) -> None:
        self.libm = libm
        self.functions: list[Builder] = []
        self.globals: list[str] = []
        self.declared: dict[str, str] = {}
        self._rolled = 0  # loops that must stay ones

    def function(
        self,
        name: str,
        params: Sequence[tuple[str, str]],
        returns: str = "void",
        *,
        internal: bool = False,
        attributes: str = "",
    ) -> Builder:
        """A new function; params are (type, name), e.g. ("ptr noalias", "args")."""
        made = Builder(self, name, params, returns, internal, attributes)
        self.functions.append(made)
        return made

    def find(self, name: str) -> Function | None:
        """The function of that name; None where it has not been added."""
        return next((f.function for f in self.functions if f.name == name), None)

    def rolled(self) -> str:
        """What marks a loop that stays one."""
        if not self._rolled:
            self.globals.append('!0 = !{!"llvm.loop.unroll.disable"}')
        self._rolled += 1
        self.globals.append(f"!{self._rolled} = distinct !{{!{self._rolled}, !0}}")
        return f"!{self._rolled}"

    def text(self) -> str:
        defined = {f.name for f in self.functions}
        declared = [text for name, text in self.declared.items() if name not in defined]
        return "\n".join([*self.globals, *declared, *(f.text() for f in self.functions)])


class Straight:
    """The body of one function, as far as it has no branches: values, and memory."""

    def __init__(
        self,
        module: Module,
        name: str,
        params: Sequence[tuple[str, str]],
        returns: str,
        internal: bool,
        attributes: str,
    ) -> None:
        self.module, self.name, self.returns = module, name, returns
        self.head = (
            f"define {'internal ' if internal else ''}{returns} @{name}("
            + ", ".join(f"{type} %{n}" for type, n in params)
            + f") {attributes} {{"
        )
        self.params = [Value(type.split()[0], f"%{n}") for type, n in params]
        self.function = Function(name, returns, tuple((type.split()[0], n) for type, n in params))
        self.lines: list[str] = []
        self.block = "entry"
        self._count = 0
        self._entry: list[str] = []  # allocas

    def text(self) -> str:
        return "\n".join([self.head, "entry:", *self._entry, *self.lines, "}"])

    # Single instructions -------------------------------------------------------------------------
    def fresh(self, hint: str = "v") -> str:
        self._count += 1
        return f"{hint}{self._count}"

    def emit(self, type: str, text: str) -> Value:
        """One instruction with a result of this type."""
        value = Value(type, f"%{self.fresh()}")
        self.lines.append(f"  {value.name} = {text}")
        return value

    def do(self, text: str) -> None:
        """One instruction without a result."""
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def binary(self, opcode: str, a: Value, b: Value) -> Value:
        return self.emit(a.type, f"{opcode} {a.type} {a.name}, {b.name}")

    def add(self, a: Value, b: Value) -> Value:
        return self.binary("fadd" if a.is_float else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.binary("fsub" if a.is_float else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.binary("fmul" if a.is_float else "mul", a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c with one rounding."""
        return self.intrinsic("fma", a.type, a, b, c)

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """predicate: slt, eq, ... of integers, olt, une, ... of floats; the result is i1."""
        kind = "fcmp" if a.is_float else "icmp"
        return self.emit(vector(a.lanes, "i1"), f"{kind} {predicate} {a.type} {a.name}, {b.name}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """a where the condition (i1, or a vector of it) holds, else b."""
        return self.emit(
            a.type,
            f"select {condition.type} {condition.name}, {a.type} {a.name}, {b.type} {b.name}",
        )

    def convert(self, opcode: str, a: Value, element: str) -> Value:
        """opcode: sext, zext, trunc, sitofp, uitofp, fptosi, fpext, fptrunc, bitcast."""
        type = vector(a.lanes, element)
        return self.emit(type, f"{opcode} {a.type} {a.name} to {type}")

    def intrinsic(self, name: str, returns: str, *args: Value) -> Value:
        """llvm.<name>, overloaded by the type of its result: fma, sqrt, floor, smin, ..."""
        full = f"llvm.{name}.{suffix(returns)}"
        return self.call(full, returns, *args)

    def call(self, name: str, returns: str, *args: Value) -> Value:
        """A call of a function, declared where this module does not define it."""
        self.declare(name, returns, [a.type for a in args])
        text = f"call {returns} @{name}({', '.join(f'{a.type} {a.name}' for a in args)})"
        if returns == "void":
            self.do(text)
            return Value("void", "")
        return self.emit(returns, text)

    def declare(self, name: str, returns: str, types: Sequence[str]) -> None:
        self.module.declared.setdefault(name, f"declare {returns} @{name}({', '.join(types)})")

    def splat(self, scalar: Value, lanes: int) -> Value:
        """A vector that holds the scalar in every lane."""
        if lanes == 1:
            return scalar
        type = vector(lanes, scalar.type)
        one = self.emit(type, f"insertelement {type} poison, {scalar.type} {scalar.name}, i64 0")
        return self.emit(
            type,
            f"shufflevector {type} {one.name}, {type} poison, <{lanes} x i32> zeroinitializer",
        )

    def lane(self, x: Value, i: int) -> Value:
        return self.emit(x.element, f"extractelement {x.type} {x.name}, i64 {i}")

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """The lanes named, of a and b side by side."""
        picks = ", ".join(f"i32 {i}" for i in lanes)
        type = vector(len(lanes), a.element)
        return self.emit(
            type,
            f"shufflevector {a.type} {a.name}, {b.type} {b.name}, <{len(lanes)} x i32> <{picks}>",
        )

    def iota(self, lanes: int, element: str = "i64") -> Value:
        """0, 1, 2, ... as a constant vector."""
        if lanes == 1:
            return Value(element, "0")
        inside = ", ".join(f"{element} {i}" for i in range(lanes))
        return Value(vector(lanes, element), f"<{inside}>")

    # Memory --------------------------------------------------------------------------------------
    def at(self, pointer: Value, index: Value, element: str) -> Value:
        """The address of the index-th element from pointer on."""
        return self.emit(
            pointer.type,
            f"getelementptr {element}, {pointer.type} {pointer.name}, {index.type} {index.name}",
        )

    def load(
        self, type: str, pointer: Value, align: int | None = None, *, volatile: bool = False
    ) -> Value:
        """A scalar or a vector; align in bytes, by default that of one element. volatile: it is
        read here, whatever is known of it."""
        align, how = align or width(Value(type, "").element), "volatile " * volatile
        return self.emit(type, f"load {how}{type}, {pointer.type} {pointer.name}, align {align}")

    def store(self, value: Value, pointer: Value, align: int | None = None) -> None:
        align = align or width(value.element)
        self.do(f"store {value.type} {value.name}, {pointer.type} {pointer.name}, align {align}")

    def masked_load(self, type: str, pointer: Value, mask: Value, other: Value) -> Value:
        """The lanes that mask selects; those of `other` elsewhere."""
        align = integer(width(Value(type, "").element), "i32")
        name = f"llvm.masked.load.{suffix(type)}.p0"
        return self.call(name, type, pointer, align, mask, other)

    def masked_store(self, value: Value, pointer: Value, mask: Value) -> None:
        align = integer(width(value.element), "i32")
        self.call(f"llvm.masked.store.{suffix(value.type)}.p0", "void", value, pointer, align, mask)

    def alloca(self, type: str, align: int = 64) -> Value:
        """Stack memory, reserved at the function's entry."""
        value = Value("ptr", f"%{self.fresh('stack')}")
        self._entry.append(f"  {value.name} = alloca {type}, align {align}")
        return value

    def atomic_load(self, pointer: Value, order: str, type: str = "i64") -> Value:
        """order, here and below: monotonic, acquire, release, acq_rel or seq_cst."""
        return self.emit(
            type, f"load atomic {type}, ptr {pointer.name} {order}, align {width(type)}"
        )

    def atomic_store(self, value: Value, pointer: Value, order: str) -> None:
        self.do(
            f"store atomic {value.type} {value.name}, ptr {pointer.name} {order}, "
            f"align {width(value.type)}"
        )

    def atomic_add(self, pointer: Value, value: Value, order: str) -> Value:
        """Adds to what lies there; the result is what lay there before."""
        return self.emit(
            value.type, f"atomicrmw add ptr {pointer.name}, {value.type} {value.name} {order}"
        )

    def atomic_min(self, pointer: Value, value: Value) -> None:
        """Leaves the smaller one there, both taken as unsigned numbers."""
        self.emit(
            value.type,
            f"atomicrmw umin {pointer.type} {pointer.name}, {value.type} {value.name} monotonic",
        )


class Builder(Straight):
    """The body of one function, written from top to bottom: with loops and branches."""

    @contextmanager
    def loop(
        self, start: Value, stop: Value, step: Value, carried: Values = (), rolled: bool = False
    ) -> Iterator[Loop]:
        """for i in range(start, stop, step). `carried` values enter the first round; set
        loop.next (as many) before the end of the body; after the loop, loop.carried are the last
        ones. rolled: no compiler may unroll it."""
        k = self.fresh("loop")
        before = self.block
        self.do(f"br label %{k}")
        self.label(k)
        place = len(self.lines)
        i = Value(start.type, f"%{self.fresh()}")
        phis = [Value(c.type, f"%{self.fresh()}") for c in carried]
        more = self.compare("slt", i, stop)
        self.do(f"br i1 {more.name}, label %{k}.body, label %{k}.exit")
        self.label(f"{k}.body")
        loop = Loop(i, phis)
        yield loop
        following = self.emit(i.type, f"add nsw {i.type} {i.name}, {step.name}")
        assert len(loop.next) == len(phis), "loop.next must have one value for each carried one"
        last = self.block
        self.do(f"br label %{k}" + (f", !llvm.loop {self.module.rolled()}" if rolled else ""))
        rows = [
            f"  {p.name} = phi {p.type} [{a.name}, %{before}], [{b.name}, %{last}]"
            for p, a, b in zip([i, *phis], [start, *carried], [following, *loop.next], strict=True)
        ]
        self.lines[place:place] = rows
        self.label(f"{k}.exit")

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """The body runs where the condition (i1) holds."""
        k = self.fresh("if")
        self.do(f"br i1 {condition.name}, label %{k}, label %{k}.end")
        self.label(k)
        yield
        self.do(f"br label %{k}.end")
        self.label(f"{k}.end")

    @contextmanager
    def forever(self) -> Iterator[Callable[[Value], None]]:
        """A loop without an end of its own: it yields `leave(condition)`, which the body calls
        wherever the loop shall end if the condition (i1) holds. State goes through an alloca."""
        k = self.fresh("ever")
        self.do(f"br label %{k}")
        self.label(k)

        def leave(condition: Value) -> None:
            stay = self.fresh(f"{k}.stay")
            self.do(f"br i1 {condition.name}, label %{k}.exit, label %{stay}")
            self.label(stay)

        yield leave
        self.do(f"br label %{k}")
        self.label(f"{k}.exit")

    def end(self, value: Value | None = None) -> None:
        """Return."""
        self.do("ret void" if value is None else f"ret {value.type} {value.name}")

    # Small sums ----------------------------------------------------------------------------------
    def smin(self, a: Value, b: Value) -> Value:
        return self.intrinsic("smin", a.type, a, b)

    def index(self, base: Value, *terms: tuple[Value, Value]) -> Value:
        """base + sum of products, in i64."""
        for a, b in terms:
            base = self.add(base, self.mul(a, b))
        return base


class Loop:
    """The inside of Builder.loop."""

    def __init__(self, i: Value, carried: list[Value]) -> None:
        self.i, self.carried = i, carried
        self.next: list[Value] = []


def ceil_div(b: Builder, x: Value, y: Value) -> Value:
    """x / y, rounded up: y is positive, x not negative."""
    return b.binary("sdiv", b.add(x, b.sub(y, integer(1, y.type))), y)


def share(b: Builder, total: Value, parts: Value, part: Value) -> tuple[Value, Value]:
    """Start and stop of part number `part` of `total` elements, cut into even parts."""
    start, stop = (b.mul(total, x) for x in (part, b.add(part, integer(1))))
    return b.binary("sdiv", start, parts), b.binary("sdiv", stop, parts)


def width(type: str) -> int:
    """Bytes of a scalar type."""
    return {"float": 4, "double": 8, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "i1": 1, "ptr": 8}[type]


def suffix(type: str) -> str:
    """The spelling of a type in the name of an overloaded intrinsic."""
    found = _VECTOR.match(type)
    if found:
        return f"v{found[1]}{suffix(found[2])}"
    return _SHORT.get(type, type)
