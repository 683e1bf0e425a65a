"""Store: compiled code on disk, for the next process.

In: the name of a file and its content. Out: the content again. Called by cpu/library.py and
gpu/library.py, whose names are digests of all that code depends on, and by `tinygrad-tx doctor`. A
file begins with a digest of its content, so that a damaged one is known and made again. This code
will be run: so the directory must be the user's own and closed to others' writing, or it is not
used. Several processes may work in it: files appear whole, by a rename.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from .. import arguments, dtypes, errors, settings
from . import reports
from .arrays import special
from .kernels import arguments as kernel_arguments
from .kernels import instructions, kinds, summation

LIMIT = 256 << 20  # bytes on disk
HEADER = b"tinygrad_tx object code 1\n"

# What code depends on beside the files of the rooms that write it, whatever these import.
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
    reports,
)

_FILE = re.compile(r"[0-9a-f]{64}\.(o|ptx)|\.[0-9a-f]{16}\.tmp")  # and nothing else is touched
_STALE = 3600  # seconds after which a temporary file belongs to a process that was killed
_log = logging.getLogger(__name__)
_bytes: dict[Path, int] = {}  # in each directory, as far as this process knows


@cache
def sources(*rooms: str) -> str:
    """A digest of the files of some rooms beside this one, and of those that they import."""
    files = [Path(str(module.__file__)) for module in SOURCES]
    here = Path(__file__).parent
    writers = sorted(path for room in rooms for path in (here / room).rglob("*.py"))
    found = sha256()
    for file in [*files, *writers]:
        found.update(file.read_bytes() + b"\0")
    return found.hexdigest()


def place(digest: str, kind: str) -> Path | None:
    """The file of some code, whether it is there or not; None where nothing is kept."""
    found = directory()
    return found / f"{digest}.{kind}" if found else None


def read(path: Path) -> bytes | None:
    """The content of a file that is whole; None of any other, and where there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(HEADER) + 32
    data = content[start:]
    return data if content[:start] == HEADER + sha256(data).digest() else None


def used(path: Path) -> None:
    """Mark a file as used now."""
    with suppress(OSError):
        os.utime(path)


class CacheInfo(NamedTuple):
    path: Path | None  # None: there is no directory that may be used
    files: int
    bytes: int


def cache_info() -> CacheInfo:
    """The directory of the disk cache, and the number and bytes of its files."""
    place = directory()
    sizes = [size for _, size, _ in _entries(place)] if place else []
    return CacheInfo(place, len(sizes), sum(sizes))


def clear_cache() -> int:
    """Remove the files of the disk cache; the number of them. Loaded code stays."""
    place = directory()
    removed = 0
    for _, _, path in _entries(place) if place else []:
        with suppress(OSError):
            path.unlink()
            removed += 1
    _bytes.clear()
    return removed


def directory() -> Path | None:
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


def write(path: Path, data: bytes) -> None:
    """A full disk costs the next process some time, and this one nothing."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(HEADER + sha256(data).digest() + data)
        temporary.replace(path)
        _grown(path.parent, len(HEADER) + 32 + len(data))
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
