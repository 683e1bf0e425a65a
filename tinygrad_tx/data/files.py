"""Text files of sentences, streamed: two aligned files, one TSV, or single lines.

Comes in: paths of plain or gzipped files, or "-" for standard input. Goes out: generators of lines
or of (source, target) pairs, which hold one line at a time. Called by the command line; UserErrors
name the file and line at fault.

Lines end with a line feed, or carriage return and line feed, and with nothing else: a form feed or
U+2028 inside a sentence must not put two aligned files out of step. A byte-order mark is dropped.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from tinygrad_tx.errors import UserError

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends; none for an empty file.

    Raises UserError, on the way, for a file that cannot be read, broken gzip or invalid UTF-8.
    """
    name = "standard input" if str(path) == "-" else str(path)
    number = 0
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, 1):
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                yield (text.removeprefix(_BOM) if number == 1 else text).decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, line {number}: not valid UTF-8 ({error.reason} at byte {error.start + 1}); "
            "convert the file to UTF-8"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name}: the gzip data are damaged after line {number}") from error
    except IsADirectoryError as error:
        raise UserError(f"{name} is a directory, not a file") from error
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error


def read_pairs(source: str | Path, target: str | Path) -> Iterator[tuple[str, str]]:
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


def read_tsv(path: str | Path) -> Iterator[tuple[str, str]]:
    """The first two columns of a tab-separated file; a blank line is a pair of blanks.

    Raises UserError as read_lines does, for an empty file and for a line without a tab.
    """
    number = 0
    for number, line in enumerate(read_lines(path), 1):
        source, tab, rest = line.partition("\t")
        if not tab and line.strip():
            raise UserError(f"{path}, line {number}: no tab between source and target")
        yield source, rest.partition("\t")[0]
    if not number:
        raise UserError(f"{path} is empty")


@contextmanager
def _opened(path: str | Path) -> Iterator[Iterable[bytes]]:
    """The bytes of each line, unpacked."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        start = file.peek(2)
        if start[:2] == _GZIP:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        elif start and str(path).endswith(".gz"):
            raise gzip.BadGzipFile
        else:
            yield file
