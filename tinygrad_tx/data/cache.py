"""Results computed from text, kept on disk from one start of a training to the next: facts of a
corpus, vocabularies, token ids.

In: a key, JSON, and arrays. Out: the same again, the arrays mapped into memory. Called by training;
`tinygrad-tx doctor` shows its size and clears it.

An entry is one file. Its name is a digest of all that its content depends on; it begins with a
digest of that content, so a damaged file is known, removed and made again. Files appear whole
(atomic.py), so several processes may work here. When they exceed LIMIT, those that were not used
for longest go. Where nothing can be kept, everything works, and starts are slower.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import atomic, settings
from ..errors import UserError

LIMIT = 4 << 30  # bytes on disk

# And nothing else is touched.
_FILE = re.compile(r"[0-9a-f]{64}\.tokens|\.[0-9a-f]{64}\.tokens\.[0-9a-f]{8}\.tmp")
_MAGIC = b"tinygrad_tx tokens, format 1\n\0\0\0"
_START = len(_MAGIC) + 32  # of what the digest is of
_ALIGN = 64
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]


class Entry(NamedTuple):
    """The content of a file: JSON, and arrays, which are read-only."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


class CacheInfo(NamedTuple):
    path: Path | None  # None: there is no home directory
    files: int
    bytes: int


def key(*parts: object) -> str:
    """The name of what depends on these parts, and on nothing else."""
    return sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def load(name: str) -> Entry | None:
    """The entry of that key; None if there is none or it is damaged."""
    place = directory()
    if place is None:
        return None
    path = place / f"{name}.tokens"
    try:
        with path.open("rb") as file:
            found = _read(file)
    except OSError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("%s is damaged and made again: %s", path, error)
        with suppress(OSError):
            path.unlink()
        return None
    with suppress(OSError):
        os.utime(path)  # the mark of its last use
    return found


def save(name: str, facts: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Keep an entry. A full disk costs the next start some time, and this one nothing."""
    place = directory()
    if place is None:
        return

    def write(path: Path) -> None:
        with path.open("w+b") as file:
            _write(file, facts, arrays or {})

    try:
        atomic.write_with(place / f"{name}.tokens", write)
    except UserError as error:
        _log.warning("tokenised data are not kept: %s", error)
    trim()


def trim() -> None:
    """Remove what killed processes have left half written, and what was not used for longest until
    the rest fits into LIMIT."""
    place = location()
    if place is not None:
        atomic.remove_leftovers(place)
    entries = sorted(_entries(place))
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total > LIMIT and path.suffix != ".tmp":
            with suppress(OSError):
                path.unlink()
            total -= size


def info() -> CacheInfo:
    """The directory of the entries, which may not exist yet, and their number and bytes."""
    place = location()
    sizes = [size for _, size, _ in _entries(place)]
    return CacheInfo(place, len(sizes), sum(sizes))


def clear() -> CacheInfo:
    """Remove all entries and their directory; says how many entries there were. What is mapped
    stays readable."""
    place = location()
    sizes = []
    for _, size, path in _entries(place):
        with suppress(OSError):
            path.unlink()
            sizes.append(size)
    if place is not None:
        with suppress(OSError):  # it holds something else, or is not there
            place.rmdir()
    return CacheInfo(place, len(sizes), sum(sizes))


def scratch() -> IO[bytes]:
    """An empty, unbuffered file without a name, on the disk of the cache, or where temporary files
    are. Raises OSError if neither takes one."""
    place = directory()
    if place is not None:
        with suppress(OSError):
            return tempfile.TemporaryFile(buffering=0, dir=place)
    return tempfile.TemporaryFile(buffering=0)


def location() -> Path | None:
    """The path of the directory, whether it is there or not; None without a home directory."""
    root = settings.get("TX_CACHE_DIR")
    if not root:
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            if not base.is_absolute():  # is to be ignored
                base = Path.home() / ".cache"
        except RuntimeError:  # neither HOME nor an entry for this user
            return None
        root = os.fspath(Path(base, "tinygrad_tx"))
    return Path(root) / "tokens"


def directory() -> Path | None:
    """The directory, made where it is missing; None, and a warning, where it cannot be used."""
    path = location()
    if path is None:
        return None
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        for made in (path.parent, path):
            made.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if os.access(path, os.W_OK | os.X_OK):
            return path
        reason = "it is read-only"
    _warn(path, reason)
    return None


@cache  # once
def _warn(path: Path, reason: str) -> None:
    _log.warning("tokenised data are not kept on disk: %s: %s", path, reason)


# A file ------------------------------------------------------------------------------------------
# magic, digest, length of the table (8 bytes), table (JSON: facts; name, type, place and length of
# each array), and the arrays, each at a multiple of _ALIGN.


def _write(file: IO[bytes], facts: Mapping[str, Any], arrays: Arrays) -> None:
    table: dict[str, Any] = {"facts": facts, "arrays": []}
    place = 0
    for name, array in arrays.items():
        table["arrays"].append([name, array.dtype.str, place, len(array)])
        place = _aligned(place + array.nbytes)
    text = json.dumps(table).encode()
    file.write(_MAGIC + bytes(32) + len(text).to_bytes(8, "little") + text)
    start = _aligned(file.tell())
    for (*_, place, _), array in zip(table["arrays"], arrays.values(), strict=True):
        file.write(bytes(start + place - file.tell()))
        for block in blocks(array):
            file.write(block.tobytes())
    found = _digest(file)
    file.seek(len(_MAGIC))
    file.write(found)


def _read(file: IO[bytes]) -> Entry:
    """Raises ValueError, KeyError or TypeError for a file that is not as `_write` leaves it."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no such file")
    if file.read(32) != _digest(file):
        raise ValueError("its checksum is wrong")
    file.seek(_START)
    text = file.read(int.from_bytes(file.read(8), "little"))
    start = _aligned(file.tell())
    table = json.loads(text)
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, place, length in table["arrays"]:
        # Nothing can be mapped of a file of no bytes.
        arrays[name] = np.empty(0, dtype)
        if length:
            mapped = np.memmap(file, dtype, "r", start + place, (length,))
            arrays[name] = np.asarray(mapped)  # a slice of a memmap is slow to make
    return Entry(table["facts"], arrays)


def _digest(file: IO[bytes]) -> bytes:
    file.seek(_START)
    found = sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    file.seek(_START)
    return found.digest()


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in parts that are small enough to be copied."""
    size = _BLOCK // array.itemsize
    return (array[i : i + size] for i in range(0, len(array), size))


def _aligned(place: int) -> int:
    return -(-place // _ALIGN) * _ALIGN


# The directory -----------------------------------------------------------------------------------


def _entries(place: Path | None) -> Sequence[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of each file that is ours."""
    found = []
    files: list[Path] = []
    with suppress(OSError):  # it is not there, or not for us to read
        files = list(place.iterdir()) if place is not None else []
    for path in (f for f in files if _FILE.fullmatch(f.name)):
        with suppress(OSError):  # another process has just removed it
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found
