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
from typing import Any

from tinygrad_tx.errors import UserError

Row = Mapping[str, Any]


class Metrics:
    """The file at `path`, cut back to its first `keep` rows and open for more."""

    def __init__(self, path: Path, keep: int = 0) -> None:
        try:
            self._file = path.open("a+b", buffering=0)  # a row is one write: nothing to flush
            self._file.seek(0)
            kept = [line for line in self._file.readlines() if line.endswith(b"\n")][:keep]
            self._file.truncate(sum(map(len, kept)))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        self.path = path
        self.rows = len(kept)

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
    """The rows of a metrics file; a torn last line is left out, a missing file has none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
