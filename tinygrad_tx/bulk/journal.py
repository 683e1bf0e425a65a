"""An output that can be gone on with: FILE.part, which becomes FILE in the end, and beside it
FILE.part.log, which says how far it is and what it is of.

In: chunks of text, in order. Out: the file. A chunk is on the disk before the log has a line for
it, so wherever a process or a machine dies, what the log says is there. The same command then reads
the input again from its beginning, past the lines that are done, and sees by a digest that they are
the same. Called by run.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..atomic import sync_directory
from ..errors import UserError, brief
from ..locks import is_at, try_lock
from .chunks import Chunk, Result, count_full

_FORMAT = 1


class Done(NamedTuple):
    """How far an output is."""

    chunks: int = 0
    lines: int = 0
    size: int = 0  # bytes of FILE.part
    digest: str = ""  # of the input so far
    sums: Sequence[float] = ()


class Journal:
    """FILE, made by chunks; a context, which holds it alone.

    done: how far it was when it was opened.
    """

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        """facts: what the output depends on but for the input: what is done, with which options, by
        which model. Those of what is begun already have to be the same."""
        # The file that a link leads to, which a rename would put itself in the place of.
        file = file.resolve() if file.is_symlink() else file
        self._file = file
        self._part = file.with_name(f"{file.name}.part")
        self._log = file.with_name(f"{file.name}.part.log")
        self._facts = json.loads(json.dumps({"format": _FORMAT, **facts}))
        self._digest = hashlib.sha256()
        self._opened: list[IO[bytes]] = []
        self._alone = False  # whether no other process writes them
        self._ours = False  # whether what is there is of this command
        self.done = Done()

    def __enter__(self) -> Journal:
        """UserError where the file cannot be written, somebody else is writing it, or what is begun
        is of another command."""
        if self._file.exists() and not self._file.is_file():
            raise UserError(
                f"--out {self._file}: it is no regular file, and nothing could go on with it; "
                "standard output goes anywhere"
            )
        try:
            with self._told():
                self._text = self._hold(self._part)
                self._lines = self._open(self._log)
                self._take_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind: object = None, error: object = None, trace: object = None) -> None:
        """KeyboardInterrupt: it came, and there is something to go on with."""
        if os.name == "nt":  # where no open file is removed
            self._close()
        if self._alone:
            nothing = self._ours and not self.done.chunks  # to go on with
            for path in (self._part, self._log):
                with suppress(OSError):
                    if nothing or not path.stat().st_size:
                        path.unlink()
        self._close()
        if isinstance(error, KeyboardInterrupt) and self._alone and self.done.lines:
            raise KeyboardInterrupt(
                f"{self.done.lines:,} lines are done; the same command goes on after them"
            ) from None

    def past(self, rows: Iterator[Any]) -> Chunk:
        """Read over the rows that are done; a chunk without rows that stands for them. UserError if
        they are others than those that the output is of."""
        full = 0
        for number in range(self.done.lines):
            try:
                row = next(rows)
            except StopIteration:
                raise UserError(
                    f"{self._part} is of {self.done.lines:,} lines, and the input has {number:,}; "
                    f"give the same input again, or remove {self._part} to begin anew"
                ) from None
            full += count_full((row,))
            self._digest.update(_bytes(row))
        if self.done.lines and self._digest.hexdigest() != self.done.digest:
            raise UserError(
                f"the first {self.done.lines:,} lines of the input are not those that {self._part} "
                "is of; give the same input again, or remove that file to begin anew"
            )
        return Chunk(self.done.chunks, self.done.lines + 1, [], full)

    def add(self, chunk: Chunk, result: Result, sums: tuple[float, ...]) -> None:
        """The next chunk. sums: those of all chunks so far."""
        data = result.text.encode()
        for row in chunk.rows:
            self._digest.update(_bytes(row))
        done = Done(
            chunk.number + 1,
            chunk.last,
            self.done.size + len(data),
            self._digest.hexdigest(),
            sums,
        )
        with self._told():
            for file, block in (
                (self._text, data),
                (self._lines, json.dumps(done._asdict()).encode() + b"\n"),
            ):
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
        self.done = done

    def finish(self) -> None:
        """FILE.part becomes FILE, and the log goes."""
        if os.name == "nt":  # where no open file is renamed; elsewhere it is held until all is done
            self._close()
        with self._told():
            if self._file.exists():
                shutil.copymode(self._file, self._part)
            self._part.replace(self._file)
            self._alone = False  # what has these names from now on is another's
            self._log.unlink()
            sync_directory(self._file.parent)
        self._close()

    def _close(self) -> None:
        for opened in self._opened:
            with suppress(OSError):
                opened.close()

    def _take_up(self) -> None:
        """Go on with what is there, if anything is; UserError if it is of another command."""
        size = os.fstat(self._text.fileno()).st_size
        if not size:  # new, or nothing was done, or all was, and the log was yet to go
            self._begin()
            return
        head = self._lines.readline()
        if not head.endswith(b"\n"):
            raise UserError(
                f"{self._part} is there, and nothing says what it is of; remove it, or give "
                "another --out"
            )
        self._require_same(self._object(head))
        whole = len(head)
        for line in self._lines:
            if not line.endswith(b"\n"):  # it was being written
                break
            found = self._object(line)
            self.done = Done._make(map(found.get, Done._fields))
            whole += len(line)
        if size < self.done.size:
            raise UserError(
                f"{self._part} is shorter than {self._log} says; remove both to begin anew"
            )
        for file, end in ((self._text, self.done.size), (self._lines, whole)):
            file.truncate(end)
            file.seek(end)
        self._ours = True

    def _object(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{self._log} is damaged; remove it and {self._part} to begin anew")
        return found

    def _require_same(self, then: Mapping[str, Any]) -> None:
        for key in dict.fromkeys((*self._facts, *then)):
            if then.get(key) != self._facts.get(key):
                raise UserError(
                    f"{self._part} was begun by another command: {key} was {brief(then.get(key))}, "
                    f"and is {brief(self._facts.get(key))}; give the same options again, or remove "
                    "that file to begin anew"
                )

    def _begin(self) -> None:
        self._ours = True
        for file in (self._text, self._lines):
            file.seek(0)
            file.truncate()
        self._lines.write(json.dumps(self._facts).encode() + b"\n")
        self._lines.flush()

    def _hold(self, path: Path) -> IO[bytes]:
        """Open a file, and keep others from it until it is closed."""
        while True:
            found = self._open(path)
            locked = try_lock(found.fileno())
            if locked is False:
                raise UserError(f"--out {self._file}: another process is writing {path}")
            if locked is None or is_at(found.fileno(), path):
                self._alone = True
                return found
            found.close()  # its last holder has renamed or removed it

    def _open(self, path: Path) -> IO[bytes]:
        """As it is: somebody else may be writing it."""
        found = os.fdopen(os.open(path, _FLAGS, 0o666), "r+b")
        self._opened.append(found)
        return found

    def _told(self) -> _Told:
        return _Told(self._part)


_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class _Told:
    """Refusals of the operating system in one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise UserError(f"cannot write {self._path}: {reason}") from error


def _bytes(row: Any) -> bytes:
    """A row, for the digest; no two have the same."""
    return json.dumps(row).encode() + b"\n"
