"""Locks on files that end with their holder, however it ends. In: a path. Out: a lock file there,
held while a `with` block runs. Called by what writes in a run directory, and by atomic.py.

The operating system keeps the lock (flock; on Windows, a locked byte) and lets go of it when the
process dies. So a file that a killed process has left behind keeps nobody out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN, EDEADLK
from pathlib import Path

from .errors import UserError

_HELD = (EAGAIN, EACCES, EDEADLK)  # what a lock in other hands is reported as
_FAR = 1 << 30  # the byte that Windows locks, beyond the text: a locked byte cannot be read


def try_lock(handle: int) -> bool | None:
    """Lock an open file: True if it is done, False if somebody else holds the lock, None where the
    file system knows no locks. Closing the file, or dying, lets go of it."""
    try:
        try:
            import fcntl
        except ImportError:
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


@contextmanager
def held(path: Path, what: str) -> Iterator[bool]:
    """Hold the lock file at `path` inside; it is made, and removed in the end.

    what: goes into the message of the UserError that is raised where another process, or another
    thread, holds it. Yields False where the file system knows no locks, and nothing is held.
    """
    handle, kept = _opened(path, what)
    try:
        with suppress(OSError):  # who holds it is only told
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield kept
    finally:
        # Removed while it is held: who opens it later makes a new one, who has it open sees that
        # it is not the one at `path` any more.
        with suppress(OSError):
            path.unlink()
        os.close(handle)
        if os.name == "nt":  # where no open file is removed; elsewhere it may be another one by now
            with suppress(OSError):
                path.unlink()


def _opened(path: Path, what: str) -> tuple[int, bool]:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        locked = try_lock(handle)
        if locked is None:
            return handle, False
        if locked and is_at(handle, path):
            return handle, True
        holder = b"" if locked else _text(handle)
        os.close(handle)
        if not locked:
            who = holder.decode(errors="replace").strip() or "another process"
            raise UserError(f"{what}: {who} is at work there; wait for it, or stop it")


def is_at(handle: int, path: Path) -> bool:
    """True if the open file is still the one of that name: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _text(handle: int) -> bytes:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        return os.read(handle, 200).partition(b"\n")[0]
    except OSError:
        return b""
