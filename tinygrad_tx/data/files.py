"""Text files, streamed: two aligned files of sentences, one TSV, single lines, or text as it is.

In: paths of plain or gzipped files, or "-" for standard input. Out: generators of lines, of
(source, target) pairs, or of parts of a text. Called by the command line and by training;
UserErrors name the file and line at fault.

Memory is bounded whatever a file holds: text is read in blocks, and a line of more than
MAX_CHARACTERS is refused before the rest of it is read (or unpacked).

Lines end with a line feed, or carriage return and line feed, and with nothing else: a form feed or
U+2028 inside a sentence must not put two aligned files out of step. A byte-order mark is dropped.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, cast

from ..errors import UserError

MAX_CHARACTERS = 10_000  # in a line; attention takes memory by the square of a sentence's length

MAX_RECORD = 50_000_000  # characters in a line that holds a record: one document

_TSV_CHARACTERS = 1_000_000  # in a line: two sentences and whatever follows them
_BLOCK = 1 << 20  # bytes
_GZIP = b"\x1f\x8b"


class Spooled:
    """The content of a pipe, which can be read once, in a file that can be read again. The file has
    no name, so nothing is left of it however the process ends.

    The lines are looked at as they come: what is no text is refused before it fills the disk.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the last reference
        self.file: io.BufferedReader[Any]
        with _errors_named(self.name), Path(path).open("rb", buffering=0) as pipe:
            self.file = io.BufferedReader(_Copying(pipe, file), _BLOCK)
            for _ in _lines(self, _TSV_CHARACTERS):
                pass
        self.file = cast(io.BufferedReader, file)  # or BufferedRandom, which is more

    def __str__(self) -> str:
        return self.name


class _Copying(io.RawIOBase):
    """A pipe; what is read of it is written to a file, too."""

    def __init__(self, pipe: io.FileIO, file: IO[bytes]) -> None:
        self._pipe, self._file = pipe, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._pipe.readinto(buffer) or 0
        self._file.write(buffer[:read])
        return read


Source = str | Path | Spooled


def rereadable(path: str | Path) -> Source:
    """The path, or the content of a source that can be read but once: a pipe, a terminal."""
    found = Path(path)
    return Spooled(found) if found.exists() and not (found.is_file() or found.is_dir()) else path


def read_lines(path: Source) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends; none for an empty file.

    Raises UserError, on the way, for a file that cannot be read, broken gzip, invalid UTF-8 or a
    line of more than MAX_CHARACTERS.
    """
    return _lines(path, MAX_CHARACTERS)


def read_records(path: Source) -> Iterator[str]:
    """As read_lines(), for lines that hold a document each: of up to MAX_RECORD characters."""
    return _lines(path, MAX_RECORD)


def read_text(path: Source) -> Iterator[str]:
    """The text of a UTF-8 file as it is, line ends included, in parts; none for an empty file. A
    byte-order mark goes.

    Raises UserError, on the way, for a file that cannot be read, broken gzip or invalid UTF-8.
    """
    name = "standard input" if str(path) == "-" else str(path)
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0  # bytes
    try:
        with _errors_named(name), _opened(path) as file:
            while block := file.read1(_BLOCK):
                text = decoder.decode(block)
                yield text if read else text.removeprefix("\ufeff")
                read += len(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}: not valid UTF-8 ({error.reason}, some bytes after byte {read:,}); convert "
            "the file to UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name}: the gzip data are damaged after byte {read:,}") from error


def read_pairs(source: Source, target: Source) -> Iterator[tuple[str, str]]:
    """Line i of one file with line i of the other.

    Raises UserError as read_lines does, for empty files, and at the end for unequal line counts.
    """
    n_source = n_target = 0
    for one, other in zip_longest(read_lines(source), read_lines(target)):
        n_source += one is not None
        n_target += other is not None
        if one is not None and other is not None:
            yield one, other
    for path, lines in ((source, n_source), (target, n_target)):
        if not lines:
            raise UserError(f"{path} is empty")
    if n_source != n_target:
        raise UserError(
            f"{source} has {n_source} lines, {target} has {n_target}; "
            "line i of one must translate line i of the other"
        )


def read_tsv(path: Source) -> Iterator[tuple[str, str]]:
    """The first two columns of a tab-separated file; a blank line is a pair of blanks.

    Raises UserError as read_lines does, for an empty file and for a line without a tab.
    """
    number = 0
    for number, line in enumerate(_lines(path, _TSV_CHARACTERS), 1):
        source, tab, rest = line.partition("\t")
        target = rest.partition("\t")[0]
        check_length(str(path), number, source)
        check_length(str(path), number, target)
        if not tab and line.strip():
            raise UserError(f"{path}, line {number}: no tab between source and target")
        yield source, target
    if not number:
        raise UserError(f"{path} is empty")


def check_length(name: str, number: int, line: str) -> str:
    """The line; UserError if it is too long to be a sentence."""
    if len(line) > MAX_CHARACTERS:
        raise _too_long(name, number, f"{len(line):,}")
    return line


def digest(path: Source, stop: Callable[[], bool] = lambda: False) -> str:
    """A number, in hexadecimal, that differs where the bytes of two files do. stop: whether it is
    not wanted any more."""
    found = hashlib.sha256()
    with _errors_named(str(path)), _raw(path) as file:
        while not stop() and (block := file.read(_BLOCK)):
            found.update(block)
    return found.hexdigest()


def _lines(path: Source, longest: int) -> Iterator[str]:
    name = "standard input" if str(path) == "-" else str(path)
    number = 0  # of lines handed out
    most, what = (longest, "record") if longest == MAX_RECORD else (MAX_CHARACTERS, "sentence")
    try:
        with _errors_named(name), _opened(path) as file:
            for block in _blocks(file, longest):
                text, wrong = _decoded(block)
                lines = text.split("\n")
                if not number:
                    lines[0] = lines[0].removeprefix("\ufeff")
                if "\r" in text:
                    lines = [line.removesuffix("\r") for line in lines]
                torn = lines.pop()
                if max(map(len, lines), default=0) > longest:
                    for line in lines:
                        if len(line) > longest:
                            raise _too_long(name, number + 1, f"{len(line):,}", most, what)
                        yield line
                        number += 1
                yield from lines
                number += len(lines)
                if len(torn) > longest:
                    raise _too_long(name, number + 1, f"more than {longest:,}", most, what)
                if wrong is not None:
                    byte = wrong.start - block.rfind(b"\n", 0, wrong.start)
                    raise UserError(
                        f"{name}, line {number + 1}: not valid UTF-8 ({wrong.reason} at byte "
                        f"{byte}); convert the file to UTF-8"
                    )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name}: the gzip data are damaged after line {number}") from error


def _blocks(file: io.BufferedIOBase, longest: int) -> Iterator[bytes]:
    """The bytes of a file in blocks of whole lines. Where a line has too many bytes to be one, the
    block ends in the middle of it; nothing is read after that is seen."""
    # In UTF-8, with a byte-order mark and a carriage return. Or more, for an exact message.
    limit = max(4 * longest + 16, _BLOCK)
    rest = b""
    while block := file.read1(_BLOCK):
        block = rest + block
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        if len(rest) > limit:
            yield block
        elif end:
            yield block[:end]
    if rest:
        yield rest + b"\n"


def _decoded(block: bytes) -> tuple[str, UnicodeDecodeError | None]:
    """The text of a block up to what is not UTF-8, if anything is not. A character that the end of
    the block cuts is left out."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(block), None
    except UnicodeDecodeError as error:
        return block[: error.start].decode(), error


def _too_long(
    name: str, number: int, characters: str, most: int = MAX_CHARACTERS, what: str = "sentence"
) -> UserError:
    return UserError(
        f"{name}, line {number}: {characters} characters; a {what} may have "
        f"{most:,}: is the file not one {what} a line?"
    )


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """One line for a refusal of the operating system."""
    try:
        yield
    except IsADirectoryError as error:
        raise UserError(f"{name} is a directory, not a file") from error
    except gzip.BadGzipFile:  # an OSError, but not the system's
        raise
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error


@contextmanager
def _raw(path: Source) -> Iterator[io.BufferedReader[Any]]:
    """The bytes of a file as they are."""
    if isinstance(path, Spooled):
        if path.file.seekable():
            path.file.seek(0)
        yield path.file
    else:
        with Path(path).open("rb") as file:
            yield file


@contextmanager
def _opened(path: Source) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, unpacked."""
    if str(path) == "-":
        yield cast(io.BufferedIOBase, sys.stdin.buffer)
        return
    with _raw(path) as file:
        start = file.peek(2)
        if start[:2] == _GZIP:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        elif start and str(path).endswith(".gz"):
            raise gzip.BadGzipFile
        else:
            yield file
