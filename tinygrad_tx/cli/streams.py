"""Standard input, output and error as a command finds them: closed, full, a pipe whose reader has
left. In: the process as it is. Out: streams on which commands can rely. Used by program.py.

Results go to standard output: one that cannot be written ends the command (OutputError). Progress
and complaints go to standard error, where nothing that fails may end anything.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from ..errors import UserError
from ..training.progress import Forgiving


class OutputError(UserError):
    """Standard output cannot be written to."""


@contextmanager
def usable() -> Iterator[None]:
    """Inside, all three standard streams are open, in UTF-8; afterwards nothing is left in them
    that Python could fail to write when it ends."""
    _open_closed()
    out, err = sys.stdout, sys.stderr
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout, sys.stderr = cast(TextIO, _Output(out)), cast(TextIO, Forgiving(err))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        for stream in (out, err):
            try:
                stream.flush()
            except (OSError, ValueError):
                with suppress(OSError, ValueError):  # no stream of the system's
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Output(io.TextIOBase):
    """Standard output whose errors say what they are; BrokenPipeError stays what it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _told():
            return self._stream.write(text)

    def flush(self) -> None:
        with _told():
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def _open_closed() -> None:
    """Open what the process was started without (`0<&-`), for no other file to get its number. What
    is opened refuses to be read, or written to: closed input is not empty, output is not lost
    without a word."""
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
