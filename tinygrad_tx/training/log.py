"""metrics.jsonl: one JSON object a line, appended as training goes. In: rows. Out: the file, and
its rows again. Written by the trainer; read by `info`.

A checkpoint knows how many rows it has seen. Resuming from it cuts the file back to them, together
with a last line that a killed process may have torn.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from ..errors import UserError
from . import lines

Row = Mapping[str, Any]


class Metrics:
    """The file at `path`, cut back to its first `keep` rows and open for more. lost: how many of
    them are not there, or are damaged. seconds: of training, up to the last of them."""

    def __init__(self, path: Path, keep: int = 0) -> None:
        try:
            self._file = path.open("a+b", buffering=0)  # a row is one write: nothing to flush
            self._file.seek(0)
            kept = self._file.readall().split(b"\n")[:-1][:keep]
            self._file.truncate(sum(len(line) + 1 for line in kept))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        self.path = path
        self.rows = len(kept)
        found = [row for row in map(_row, kept) if row is not None]
        self.lost = keep - len(found)
        self.seconds: float = max((row.get("seconds") or 0.0 for row in found), default=0.0)

    def write(self, row: Row) -> None:
        """Append one row. Numbers that are not finite, which JSON does not know, become null."""
        shown = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        line = (json.dumps(shown) + "\n").encode()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        self.rows += 1

    def sync(self) -> None:
        """Return when the rows are on the disk: before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; damaged lines and a torn last one are left out, a missing file
    has none."""
    return examine(path)[0]


def examine(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a metrics file, and the numbers of the lines that are damaged. UserError if it
    cannot be read."""
    return lines.examine(path, _row)


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds, or None if it is not one that `Metrics` has written."""
    row = lines.decoded(line)
    if row is None:
        return None
    texts = {"of"}
    whole = {"step", "skipped"}
    for key, value in row.items():
        wanted = str if key in texts else int if key in whole else (int, float, NoneType)
        if not isinstance(value, wanted) or isinstance(value, bool):
            return None
    return row
