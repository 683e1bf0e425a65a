"""Files that are written whole or not at all. In: a path and bytes, or a function that writes a
file. Out: the file on disk, synced. Called by whatever saves: checkpoints, tokenizers, configs.

The new content goes to a temporary file beside its target, is flushed to the disk, and takes the
target's name in one rename. A full disk, Ctrl-C or a power cut leaves the old file as it was; a
killed process leaves at most a `.NAME.*.tmp` beside it, which nothing reads.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tinygrad_tx.errors import UserError


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
    file is untouched.
    """
    path = Path(path)
    # A rename would replace a symbolic link instead of the file that it points to.
    target = path.resolve() if path.is_symlink() else path
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.touch(exist_ok=False)
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
    finally:
        # Gone already after the rename; never there if the directory is not.
        with suppress(OSError):
            temporary.unlink()
    # Some file systems cannot sync a directory. The rename is done by then, only not yet durable.
    with suppress(OSError):
        _sync(target.parent)


def _reason(error: Exception) -> str | None:
    """What the operating system refused, or None if the error is of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Writers in Rust (safetensors, tokenizers) raise exceptions of their own, with this text.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else None


def _sync(path: Path) -> None:
    """Makes the disk hold what was written to the file or the directory at `path`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
