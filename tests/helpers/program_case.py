"""Small kernels of tests alone, and their arguments: what programs are tried with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinygrad_tx.backends.cpu import jit
from tinygrad_tx.backends.llvm import ir

Words = npt.NDArray[np.int64]
Body = Callable[[ir.Builder, ir.Value, ir.Value, ir.Value], None]


def word(f: ir.Builder, args: ir.Value, i: int) -> ir.Value:
    return f.load("i64", f.at(args, ir.integer(i), "i64"))


def place(f: ir.Builder, args: ir.Value, i: int, index: ir.Value) -> ir.Value:
    """The index-th int64 of the array whose address is argument i."""
    base = f.load("ptr", f.at(args, ir.integer(i), "i64"))
    return f.at(base, index, "i64")


def count(f: ir.Builder, args: ir.Value, task: ir.Value, scratch: ir.Value) -> None:
    """x[task] += 1. Arguments: x."""
    at = place(f, args, 0, task)
    f.store(f.add(f.load("i64", at), ir.integer(1)), at)


def neighbours(f: ir.Builder, args: ir.Value, task: ir.Value, scratch: ir.Value) -> None:
    """y[task] = 3 x[task] + x[(task + 1) % n]. Arguments: x, y, n."""
    right = f.binary("urem", f.add(task, ir.integer(1)), word(f, args, 2))
    mine, other = (f.load("i64", place(f, args, 0, i)) for i in (task, right))
    f.store(f.add(f.mul(mine, ir.integer(3)), other), place(f, args, 1, task))


def report(f: ir.Builder, args: ir.Value, task: ir.Value, scratch: ir.Value) -> None:
    """report[0] = 1 if task is the one named. Arguments: report, number of the task."""
    with f.when(f.compare("eq", task, word(f, args, 1))):
        f.store(ir.integer(1), place(f, args, 0, ir.integer(0)))


def report_if(f: ir.Builder, args: ir.Value, task: ir.Value, scratch: ir.Value) -> None:
    """report[0] = 1 if task is the one that a number says. Arguments: report, the number."""
    said = f.load("i64", place(f, args, 1, ir.integer(0)))
    with f.when(f.compare("eq", task, said)):
        f.store(ir.integer(1), place(f, args, 0, ir.integer(0)))


def rest(f: ir.Builder, args: ir.Value, task: ir.Value, scratch: ir.Value) -> None:
    """Sleep, then x[task] = the address of the scratch. Arguments: x, microseconds."""
    f.call("usleep", "i32", f.convert("trunc", word(f, args, 1), "i32"))
    f.store(f.emit("i64", f"ptrtoint ptr {scratch.name} to i64"), place(f, args, 0, task))


def use_scratch(f: ir.Builder, args: ir.Value, task: ir.Value, scratch: ir.Value) -> None:
    """Fill the scratch with the task's number, add it up into x[task]. Arguments: x, words."""
    words = word(f, args, 1)
    with f.loop(ir.integer(0), words, ir.integer(1)) as at:
        f.store(task, f.at(scratch, at.i, "i64"))
    with f.loop(ir.integer(0), words, ir.integer(1), [ir.integer(0)]) as at:
        at.next = [f.add(at.carried[0], f.load("i64", f.at(scratch, at.i, "i64")))]
    f.store(at.carried[0], place(f, args, 0, task))


BODIES: tuple[Body, ...] = (count, neighbours, report, report_if, rest, use_scratch)


def compiled() -> Callable[[Body], int]:
    """A function that tells the address of a kernel."""
    module = ir.Module()
    for body in BODIES:
        f = module.function(body.__name__, [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")])
        args, task, scratch = f.params
        body(f, args, task, scratch)
        f.end()
    target = jit.host_target()
    loaded = jit.load_object(jit.compile_object(module.text(), target), target)
    return lambda body: int(loaded.address(body.__name__))


def words(*values: int | Words) -> Words:
    """Arguments: numbers, and arrays by their addresses."""
    return np.array([v.ctypes.data if isinstance(v, np.ndarray) else v for v in values], np.int64)
