"""Machine code of processors: IR text to object code, object code to addresses.

In: the text of a module and a Processor. Out: bytes of an object file, which library.py keeps, and
what they become once loaded into this process. Called by library.py, target.py, run/team.py,
`tinygrad-tx doctor` and tests that read the assembly.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from functools import cache
from itertools import count
from threading import Lock
from typing import Any

from ... import settings
from ...errors import NativeUnavailable, UserError
from ..llvm import engine
from . import host
from .processor import Processor
from .run import windows

_BYTES = {"avx512": 64, "avx2": 32, "neon": 16, "plain": 16}
_NEEDED: dict[str, tuple[str, ...]] = {  # features of an x86 processor of the kind, best first
    "avx512": ("avx512f", "avx512vl", "avx512dq", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
    "plain": (),
}
_USUAL = {"avx512": "skylake-avx512", "avx2": "haswell", "neon": "neoverse-n1"}
_LOADS = count()
_LINKING = Lock()
_UNUSED: deque[Any] = deque()  # what holds code that nobody uses any more


def host_target() -> Processor:
    """This processor, or the lesser one that the environment variable TX_TARGET names. UserError
    where it names none of those that this one is."""
    names = _runnable()
    name = settings.get("TX_TARGET") or names[0]
    if name not in names:
        raise UserError(f"TX_TARGET={name}: this processor runs {', '.join(names)}")
    return named_target(name)


def _runnable() -> list[str]:
    """Names of the targets whose code this processor runs, the best one first; none that are better
    than what TX_HOST_FEATURES has it taken for."""
    found = kinds()
    return found[found.index(host.believed(found)) :]


def kinds() -> list[str]:
    """The kinds that TX_HOST_FEATURES may name here: whose code runs, the best one first."""
    if _is_arm():
        return ["neon", "plain"]
    features = _features(engine.binding())
    return [name for name, needed in _NEEDED.items() if all(features.get(f) for f in needed)]


@cache
def _features(llvm: Any) -> Mapping[str, bool]:
    return dict(llvm.get_host_cpu_features())


def named_target(name: str) -> Processor:
    """The target of that name: this processor, as far as it is of the kind; where it is not, a
    usual one of the kind with that one's features, whose code can be looked at here but not run."""
    llvm, here = engine.binding(), name in _runnable()
    triple = llvm.get_process_triple()
    if name == "plain":
        return Processor(name, _BYTES[name], triple, "generic" if _is_arm() else "x86-64")
    tuning = {"prefer-256-bit": False} if name == "avx512" else {}  # we choose the width
    if not here:
        if (name == "neon") != _is_arm():
            machine = "aarch64" if name == "neon" else "x86_64"
            triple = f"{machine}-unknown-linux-gnu"
        return Processor(name, _BYTES[name], triple, _USUAL[name], _flat(tuning))
    found = _features(llvm).items()
    features = {feature: on and host.has(name, feature) for feature, on in found}
    cpu = llvm.get_host_cpu_name()
    return Processor(name, _BYTES[name], triple, cpu, _flat({**features, **tuning}))


def _flat(features: Mapping[str, bool]) -> str:
    return ",".join(f"{'+' if on else '-'}{feature}" for feature, on in sorted(features.items()))


def _is_arm() -> bool:
    machine = str(engine.binding().get_process_triple()).partition("-")[0]
    if machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise NativeUnavailable(f"native code is made for x86-64 and ARM64 only, not for {machine}")
    return machine in ("aarch64", "arm64")


def compile_object(text: str, target: Processor) -> bytes:
    """An object file with the module's functions. RuntimeError where the text is no valid IR."""
    machine, module = _optimised(text, target)
    return bytes(machine.emit_object(module))


def assembly(text: str, target: Processor) -> str:
    """The assembly of what compile_object makes."""
    machine, module = _optimised(text, target)
    return str(machine.emit_assembly(module))


def _optimised(text: str, target: Processor) -> tuple[Any, Any]:
    machine = _machine(target)
    text = f'target triple = "{target.triple}"\n{text}'
    if windows.is_windows(target):
        text += windows.FLOATS
    module = engine.parse(text, machine)
    engine.optimise(module, machine)
    return machine, module


def _machine(target: Processor) -> Any:
    """Position-independent code: it calls libm through a table, wherever that lies."""
    return (
        engine.binding()
        .Target.from_triple(target.triple)
        .create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
        )
    )


class Loaded:
    """Machine code in this process. It stays as long as this object, and goes when the next one is
    loaded: an object may die at any moment, while others are linked."""

    def __init__(self, linked: Any, name: str) -> None:
        self._linked, self._name = linked, name
        self._found: dict[str, Any] = {}

    def address(self, name: str) -> int:
        """The address of the function of that name; KeyError where there is none, or where it calls
        one that this process lacks."""
        with _LINKING:  # if two threads found it at once, dropping one's find would unload the code
            if name not in self._found:
                try:
                    self._found[name] = _linker().lookup(self._name, name)
                except RuntimeError as error:
                    raise KeyError(f"{name}: {error}") from error
            return int(self._found[name][name])

    def __del__(self) -> None:
        _UNUSED.append((self._found, self._linked))


@cache
def _linker() -> Any:
    return engine.binding().create_lljit_compiler(_machine(host_target()), use_jit_link=True)


def load_object(data: bytes, target: Processor) -> Loaded:
    """Load what compile_object made. Calls of libc's and libm's functions are bound to this
    process's. RuntimeError where the bytes are no object file, or a symbol is missing."""
    name = f"tinygrad_tx.{target.name}.{next(_LOADS)}"
    with _LINKING:
        while _UNUSED:
            _UNUSED.popleft()
        library = engine.binding().JITLibraryBuilder()
        library.add_object_img(data).add_current_process()
        return Loaded(library.link(_linker(), name), name)


def _renew() -> None:
    """In the child of a fork: its parent's other threads may have held the lock."""
    global _LINKING
    _LINKING = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
