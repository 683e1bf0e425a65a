"""Machine code of Kernels: compiled once, kept in this process and on disk.

In: Kernels. Out: the address of each one's function. Called by target.py for every plan, by team.py
for the executor, and by `tinygrad-tx doctor`. Code stays in the process as long as somebody holds
it, and some that was used last beyond that.

A file of the disk cache is one module's object code. Its name is a digest of all that the code
depends on: the kernel, the target, LLVM's version and the source of everything here that writes
code. It begins with a digest of its content, so that a damaged file is known and made again. This
code will be run: so the directory must be the user's own and closed to others' writing, or it is
not used. Several processes may work in it: files appear whole, by a rename.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from weakref import WeakValueDictionary

from ... import arguments, dtypes, errors, settings
from ..arrays import special
from ..kernels import arguments as kernel_arguments
from ..kernels import instructions, kinds, summation
from ..kernels.kinds import Kernel
from ..llvm import engine, ir
from . import jit
from .processor import Processor
from .writers import render

LIMIT = 256 << 20  # bytes on disk
KEPT = 128  # modules that stay loaded although nobody may use them any more

# What the code depends on beside the files of this directory, whatever these import.
SOURCES = (
    kinds,
    instructions,
    kernel_arguments,
    summation,
    special,
    dtypes,
    errors,
    arguments,
    settings,
)

_BACKENDS = Path(__file__).parents[1]
_NAME = "tx_kernel"
_HEADER = b"tinygrad_tx object code 1\n"
_FILE = re.compile(r"[0-9a-f]{64}\.o|\.[0-9a-f]{16}\.tmp")  # and nothing else is touched
_STALE = 3600  # seconds after which a temporary file belongs to a process that was killed
_log = logging.getLogger(__name__)
_LOCK = Lock()
# By repr, for 0.0 equals -0.0 and 1 equals True.
_loaded: dict[tuple[str, Processor], jit.Loaded] = {}  # the one used last stands last
# Those that are still held.
_others: WeakValueDictionary[tuple[str, Processor], jit.Loaded] = WeakValueDictionary()
_bytes: dict[Path, int] = {}  # in each directory, as far as this process knows
_stats = {"compiled": 0, "disk_hits": 0, "memory_hits": 0, "seconds": 0.0}


class Functions(dict[Kernel, int]):
    """Addresses of kernels' functions, which are good as long as this is there: it holds the
    code."""

    def __init__(self, loaded: dict[Kernel, jit.Loaded]) -> None:
        super().__init__((kernel, code.address(_NAME)) for kernel, code in loaded.items())
        self._loaded = tuple(loaded.values())


def functions(kernels: Sequence[Kernel], target: Processor | None = None) -> Functions:
    """The address of each kernel's function on the target, by default this processor's."""
    target = target or jit.host_target()
    return Functions({k: load(repr(k), partial(_text, k, target), target) for k in kernels})


def _text(kernel: Kernel, target: Processor) -> str:
    module = ir.Module()
    render(kernel, module, _NAME, target)
    return module.text()


def load(identity: str, text: Callable[[], str], target: Processor) -> jit.Loaded:
    """The machine code of a module. identity: all that the text depends on besides the target and
    the source of this package; `text` writes it, where it is found nowhere."""
    key = identity, target
    with _LOCK:
        known = _loaded.pop(key, None) or _others.pop(key, None)
        if known is not None:
            _stats["memory_hits"] += 1
            return _keep(key, known)
        started = time.perf_counter()
        directory = _directory()
        path = directory / f"{_digest(identity, target)}.o" if directory else None
        found = _from_disk(path, target) if path else None
        if found is None:
            data = jit.compile_object(text(), target)
            found = jit.load_object(data, target)
            _stats["compiled"] += 1
            if path:
                _to_disk(path, data)
        else:
            _stats["disk_hits"] += 1
        _stats["seconds"] += time.perf_counter() - started
        return _keep(key, found)


def _keep(key: tuple[str, Processor], code: jit.Loaded) -> jit.Loaded:
    """Mark it as used last. The least recently used are freed if nobody holds them."""
    _loaded[key] = code
    while len(_loaded) > KEPT:
        oldest = next(iter(_loaded))
        _others[oldest] = _loaded.pop(oldest)
    return code


def stats() -> dict[str, float]:
    """Since the process began: kernels compiled, found on disk, found in memory, and the seconds
    that compiling and loading took."""
    with _LOCK:
        return dict(_stats)


# On disk -----------------------------------------------------------------------------------------


class CacheInfo(NamedTuple):
    path: Path | None  # None: there is no directory that may be used
    files: int
    bytes: int


def cache_info() -> CacheInfo:
    """The directory of the disk cache, and the number and bytes of its files."""
    directory = _directory()
    sizes = [size for _, size, _ in _entries(directory)] if directory else []
    return CacheInfo(directory, len(sizes), sum(sizes))


def clear_cache() -> int:
    """Remove the files of the disk cache; the number of them. Loaded code stays."""
    directory = _directory()
    removed = 0
    for _, _, path in _entries(directory) if directory else []:
        with suppress(OSError):
            path.unlink()
            removed += 1
    _bytes.clear()
    return removed


def _directory() -> Path | None:
    """The directory, made where it is missing; None, and a warning, where it cannot be trusted."""
    if named := settings.get("TX_CACHE_DIR"):
        return _trusted(Path(named))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # a relative one is to be ignored
        return _trusted(Path(base, "tinygrad_tx"))
    try:
        return _trusted(Path.home() / ".cache" / "tinygrad_tx")
    except RuntimeError:  # no HOME, and a user that the system does not know
        return _homeless()


@cache  # a warning once
def _homeless() -> None:
    _log.warning(
        "compiled kernels are not kept on disk: there is no home directory; set HOME or "
        "TX_CACHE_DIR"
    )


@cache  # a warning once
def _trusted(path: Path) -> Path | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.stat()
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        posix = hasattr(os, "getuid")  # elsewhere a user's directories are closed to others
        if posix and status.st_uid != os.getuid():
            reason = "it belongs to somebody else"
        elif posix and status.st_mode & 0o022:
            reason = "others may write to it; chmod 700 would help"
        elif not os.access(path, os.W_OK | os.X_OK):
            reason = "it is read-only"
        else:
            return path
    _log.warning("compiled kernels are not kept on disk: %s: %s", path, reason)
    return None


def _digest(identity: str, target: Processor) -> str:
    return sha256(
        "\0".join([identity, repr(target), engine.version(), _sources()]).encode()
    ).hexdigest()


@cache
def _sources() -> str:
    """A digest of the files that write code, and of those that they import."""
    files = [Path(str(module.__file__)) for module in SOURCES]
    writers = sorted(path for room in ("cpu", "llvm") for path in (_BACKENDS / room).rglob("*.py"))
    found = sha256()
    for file in [*files, *writers]:
        found.update(file.read_bytes() + b"\0")
    return found.hexdigest()


def _from_disk(path: Path, target: Processor) -> jit.Loaded | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_HEADER) + 32
    data = content[start:]
    if content[:start] != _HEADER + sha256(data).digest():
        return None
    try:
        loaded = jit.load_object(data, target)
    except RuntimeError:  # whole, but not what this process can link
        return None
    with suppress(OSError):
        os.utime(path)  # the mark of its last use
    return loaded


def _to_disk(path: Path, data: bytes) -> None:
    """A full disk costs the next process some time, and this one nothing."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(_HEADER + sha256(data).digest() + data)
        temporary.replace(path)
        _grown(path.parent, len(_HEADER) + 32 + len(data))
    except OSError as error:
        _log.debug("cannot keep %s: %s", path, error)
        with suppress(OSError):
            temporary.unlink()


def _grown(directory: Path, size: int) -> None:
    """A file of so many bytes has been added: the directory is listed at the first one of this
    process, and where it may have come to its limit since."""
    total = _bytes.get(directory)
    if total is not None:
        _bytes[directory] = total = total + size
    if total is None or total > LIMIT:
        _bytes[directory] = _trim(directory)


def _trim(directory: Path) -> int:
    """Remove the least recently used files if there is too much, until there is some room again;
    the bytes that are left."""
    entries = sorted(_entries(directory))
    total = sum(size for _, size, _ in entries)
    most = LIMIT - LIMIT // 8 if total > LIMIT else LIMIT
    for used, size, path in entries:
        abandoned = path.suffix == ".tmp" and used < time.time() - _STALE
        if total > most or abandoned:
            with suppress(OSError):
                path.unlink()
            total -= size
    return total


def _entries(directory: Path) -> list[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of each file that is ours."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as files:
        for file in files:
            if _FILE.fullmatch(file.name):
                with suppress(OSError):  # another process has just removed it
                    status = file.stat()
                    found.append((status.st_mtime, status.st_size, directory / file.name))
    return found


def _renew() -> None:
    """In the child of a fork: its parent's other threads may have held the lock."""
    global _LOCK
    _LOCK = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
