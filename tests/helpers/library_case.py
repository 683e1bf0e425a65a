"""A kernel of tests alone, and its writer: what the cache of object code is tried with."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.llvm import ir


@dataclass(frozen=True)
class AddTo(Kernel):
    """x[task] += value. Arguments: address of x, float64."""

    value: float


def write(kernel: AddTo, module: ir.Module, name: str, target: Processor) -> None:
    f = module.function(name, [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")])
    args, task, _ = f.params
    at = f.at(f.load("ptr", args), task, "double")
    f.store(f.add(f.load("double", at), ir.floating(kernel.value, "double")), at)
    f.end()


def value(address: int) -> float:
    """What the function adds."""
    x = np.zeros(3)
    args = np.array([x.ctypes.data], np.int64)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(address)
    call(args.ctypes.data, 2, None)
    assert not x[:2].any()
    return float(x[2])
