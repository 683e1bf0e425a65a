"""POSIX functions that native code calls and that Windows' own library lacks.

In: a module. Out: functions in it with the names and meanings of POSIX, made of Windows' own.
Called by executor.py and jit.py. Only emitted and looked at so far: see docs/platforms.md.
"""

from __future__ import annotations

from ...llvm.ir import Builder, Module, Value, integer
from ..processor import Processor

# Objects that compute with floats ask for this name, which Microsoft's linker takes from its
# C library; nobody reads it.
FLOATS = "\n@_fltused = global i32 0\n"

_LOCKS = {
    "init": "InitializeSRWLock",
    "lock": "AcquireSRWLockExclusive",
    "unlock": "ReleaseSRWLockExclusive",
}
_CONDITIONS = {"init": "InitializeConditionVariable", "broadcast": "WakeAllConditionVariable"}
_FOREVER = integer(-1, "i32")
_SECOND = 10**9  # nanoseconds


def is_windows(target: Processor) -> bool:
    return "windows" in target.triple


def add_posix(module: Module) -> None:
    """pthread_mutex_*, pthread_cond_*, sched_yield and clock_gettime, as far as executor.py calls
    them. A slim lock and a condition variable are one pointer each, and begin as zeros."""
    for name, of_windows in _LOCKS.items():
        f = _function(module, f"pthread_mutex_{name}", 2 if name == "init" else 1)
        f.call(of_windows, "void", f.params[0])
        f.end(integer(0, "i32"))
    for name, of_windows in _CONDITIONS.items():
        f = _function(module, f"pthread_cond_{name}", 2 if name == "init" else 1)
        f.call(of_windows, "void", f.params[0])
        f.end(integer(0, "i32"))
    f = _function(module, "pthread_cond_wait", 2)
    f.call("SleepConditionVariableSRW", "i32", *f.params, _FOREVER, integer(0, "i32"))
    f.end(integer(0, "i32"))
    f = _function(module, "sched_yield", 0)
    f.end(f.call("SwitchToThread", "i32"))
    _clock(module)


def _function(module: Module, name: str, pointers: int) -> Builder:
    params = [("ptr", f"p{i}") for i in range(pointers)]
    return module.function(name, params, "i32", internal=True)


def _clock(module: Module) -> None:
    """clock_gettime(any clock, place): seconds and nanoseconds since the machine was started."""
    f = module.function("clock_gettime", [("i32", "clock"), ("ptr", "to")], "i32", internal=True)
    ticks, each = f.alloca("i64", 8), f.alloca("i64", 8)
    f.call("QueryPerformanceCounter", "i32", ticks)
    f.call("QueryPerformanceFrequency", "i32", each)
    count, rate = f.load("i64", ticks), f.load("i64", each)
    seconds = f.binary("udiv", count, rate)
    rest = f.sub(count, f.mul(seconds, rate))
    f.store(seconds, f.params[1])
    part = f.binary("udiv", f.mul(rest, Value("i64", str(_SECOND))), rate)
    f.store(part, f.at(f.params[1], integer(1), "i64"))
    f.end(integer(0, "i32"))
