"""Host: the kind of this machine's processor and its cores, as far as the environment lets on.

In: nothing but the operating system and TX_HOST_FEATURES. Out: names and numbers. Called by jit.py
(what code is made for), team.py (how many threads run it) and by what describes the machine.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Sequence

from ... import settings
from ...errors import UserError

# The vector instructions of x86-64 itself, which every processor has. Names of LLVM and of Linux.
_PLAIN = frozenset({"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"})
_BEYOND_AVX2 = ("avx512", "avx10", "amx", "evex512")


def believed(kinds: Sequence[str]) -> str:
    """The kind that this processor is taken for, of those whose code it runs, the best one first:
    that one, or the lesser one that TX_HOST_FEATURES names. UserError for any other name."""
    name = settings.get("TX_HOST_FEATURES") or kinds[0]
    if name not in kinds:
        raise UserError(
            f"TX_HOST_FEATURES={name}: this processor can be taken for {' or '.join(kinds)}"
        )
    return name


def has(kind: str, feature: str) -> bool:
    """True if a processor of that kind may have a feature of this one."""
    if kind == "avx2":
        return not feature.startswith(_BEYOND_AVX2)
    return kind != "plain" or feature in _PLAIN


def cores() -> int:
    """The cores that this process may use; without the slow ones of a processor that has two kinds,
    where the system does not say which are ours: work is shared out evenly."""
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity:
        return len(affinity(0))
    count: int | None = getattr(os, "process_cpu_count", os.cpu_count)()
    fast = _sysctl("hw.perflevel0.logicalcpu") if sys.platform == "darwin" else 0
    return min(fast or count or 1, count or 1)


def _sysctl(name: str) -> int:
    """A number that macOS knows of itself; 0 where it does not."""
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (AttributeError, OSError):
        return 0
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    failed = ask(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return 0 if failed else int(value.value)


def described() -> str:
    """The processor in words: its model, and how many cores this process may use."""
    return f"{cpuinfo()['model name']}, {cores()} cores"


def cpuinfo() -> dict[str, str]:
    """Linux's description of the first processor, with its model's name and its flags; elsewhere
    only the name."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - Linux only
            for line in file:
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    found.setdefault("model name", platform.processor() or platform.machine())
    return found
