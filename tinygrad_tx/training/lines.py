"""Files of JSON objects, one a line, which are appended to while a run goes on: samples.jsonl and
sittings.jsonl. (metrics.jsonl, whose rows checkpoints count, is in log.py.)

A killed process may tear the last line, and a disk may damage any: both are left out on reading.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..atomic import write_bytes
from ..errors import UserError

Line = dict[str, Any]


def append(path: Path, line: Line) -> None:
    """Add a line at the end. UserError if it cannot be written."""
    try:
        with path.open("ab") as file:
            file.write(_encoded(line))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def keep(path: Path, kept: Callable[[Line], bool]) -> None:
    """Cut the file back to some of its lines, whole ones."""
    if path.exists():
        found = [line for line in examine(path)[0] if kept(line)]
        write_bytes(path, b"".join(map(_encoded, found)))


def decoded(text: bytes) -> Line | None:
    """The object that a line holds; None if it is none that has a `step`."""
    try:
        line = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def examine(
    path: Path, decode: Callable[[bytes], Line | None] = decoded
) -> tuple[list[Line], list[int]]:
    """What decode() makes of the lines of a file, and the numbers of those that it gives None for,
    which are damaged; a missing file has none. UserError if it cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    found = {number: decode(line) for number, line in enumerate(lines, 1)}
    whole = [line for line in found.values() if line is not None]
    return whole, [number for number, line in found.items() if line is None]


def _encoded(line: Line) -> bytes:
    return (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace")
