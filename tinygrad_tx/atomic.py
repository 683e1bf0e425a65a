"""Files that are written whole or not at all. In: a path and bytes, or a function that writes a
file. Out: the file on disk, synced. Called by whatever saves: checkpoints, tokenizers, configs.

The new content goes to a temporary file beside its target, is flushed to the disk, and takes the
target's name in one rename. A full disk, Ctrl-C or a power cut leaves the old file as it was; a
killed process leaves at most a `.NAME.*.tmp` beside it, which nothing reads. It is removed when the
file is next saved, and by `remove_leftovers`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .locks import try_lock


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replaces the file at `path` by `data`, in one step. UserError if it cannot be written."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_with(path, write)


def write_with(path: Path | str, writer: Callable[[Path], None]) -> None:
    """Replaces the file at `path` by what `writer` writes to the temporary path that it is given.

    The temporary file is in the same directory, exists already (empty), and is gone when this
    returns or raises. An error of the operating system, in the writer or in the rename, becomes a
    UserError that names `path` and the reason; other exceptions pass through. In each case the old
    file is untouched. A new file's mode is that of the umask, a replaced file's that of the old.

    What is no file, a device or a pipe, is written to as it is: a rename would put a file in the
    place of /dev/null.
    """
    path = Path(path)
    if not path.name or "\0" in str(path):
        raise UserError(f"cannot write {str(path)!r}: it is no name of a file")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            writer(path)
            return
        # A rename would replace a symbolic link instead of the file that it points to.
        target = path.resolve() if path.is_symlink() else path
        with _temporary(target) as temporary:
            if target.exists():
                shutil.copymode(target, temporary)
            writer(temporary)
            _sync(temporary)
            temporary.replace(target)
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {path}: {reason}; what was there is unchanged") from error
    sync_directory(target.parent)
    remove_leftovers(target.parent, target.name)


def sync_directory(directory: Path) -> None:
    """Makes the disk hold the names in a directory. Some systems cannot: a rename is done by then,
    only not yet durable."""
    with suppress(OSError):
        _sync(directory)


def remove_leftovers(directory: Path, name: str | None = None) -> None:
    """Removes what processes that were killed while they wrote have left in a directory, of the
    file of that name or of all. A file that is being written stays: it is locked."""
    start = "." if name is None else f".{name}."
    with suppress(OSError):
        for path in directory.iterdir():
            if path.name.startswith(start) and _TEMPORARY.search(path.name) and _is_left(path):
                with suppress(OSError):
                    path.unlink()


# The end of our names; and all of a name that older versions left when they were killed.
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$|^\.tmp[A-Za-z0-9]{6}$")


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, locked while it is written, and gone in the end."""
    while True:
        path = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if os.name == "nt":  # nobody can rename an open file there, nor remove it: no lock is due
            os.close(handle)
            break
        if try_lock(handle) is not False and path.exists():
            break
        os.close(handle)  # somebody was quicker, and took it for a leftover
    try:
        yield path
    finally:
        if os.name != "nt":
            os.close(handle)
        # Gone already after the rename.
        with suppress(OSError):
            path.unlink()


def _is_left(path: Path) -> bool:
    """True if nobody is writing the temporary file: then its lock is free."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return try_lock(handle) is True
    finally:
        os.close(handle)


def _reason(error: Exception) -> str | None:
    """The operating system's words for a refusal, or None if the error is of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Writers in Rust (safetensors, tokenizers) raise exceptions of their own, with this text.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else None


def _sync(path: Path) -> None:
    """Makes the disk hold what was written to the file or the directory at `path`."""
    # Windows syncs only what is open for writing; a directory can only be read.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
