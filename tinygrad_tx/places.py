"""Places: the line of a user's Python at which something was made.

In: the running code. Out: a Place, which costs next to nothing to take and is put into words when
somebody asks. Called by node.py for each node; errors, pictures and explain() put it into words.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from pathlib import Path
from types import CodeType, FrameType

Place = tuple[CodeType, int] | str  # a function's code and where it stood in it; or "file:line"

_PACKAGE = __file__.rpartition(os.sep)[0]
# Strings, like the names of code; what lies there counts as a caller.
_CALLERS = tuple(f"{_PACKAGE}{os.sep}{room}" for room in ("models", "training"))


class _Passed(dict[str, bool]):
    """By the name of a file: True for those of this package (models and training count as callers),
    and for contextlib, which stands between a decorated function and who calls it."""

    def __missing__(self, name: str) -> bool:
        inside = name.startswith(_PACKAGE) and not name.startswith(_CALLERS)
        known = self[name] = inside or name == contextlib.__file__
        return known


PASSED = _Passed()


def here() -> Place:
    """The place of the innermost caller outside of this package; "" where there is none. Who calls
    here is inside."""
    frame: FrameType | None = sys._getframe(2)
    passed = PASSED  # each op passes here
    while frame is not None:
        code = frame.f_code
        if not passed[code.co_filename]:
            return code, frame.f_lasti
        frame = frame.f_back
    return ""


def is_callers(frame: FrameType) -> bool:
    """True if a frame is that of a user's code, as here() has it."""
    return not PASSED[frame.f_code.co_filename]


def said(place: Place) -> str:
    """ "file:line" of a place."""
    if isinstance(place, str):
        return place
    code, at = place
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= at < end and number is not None:
            line = number
    return f"{code.co_filename}:{line}"


def split(line: str) -> tuple[str, int]:
    """The file and the number of "file:line"; ("", 0) of what is none."""
    path, _, number = line.rpartition(":")
    return (path, int(number)) if path and number.isdecimal() else ("", 0)


def text(line: str) -> str:
    """The text at "file:line"; empty where the file is not there."""
    path, number = split(line)
    return linecache.getline(path, number).strip() if path else ""


def shortened(line: str) -> str:
    """ "file:line" with its path as short as can be: files of this package as module names, others
    from the current directory."""
    path, number = split(line)
    if not path:
        return line
    file = Path(path)
    if file.is_relative_to(_PACKAGE):
        short = ".".join(file.relative_to(_PACKAGE).with_suffix("").parts)
    else:
        short = os.path.relpath(path) if file.is_relative_to(Path.cwd()) else file.name
    return f"{short}:{number}"


def in_words(line: str) -> str:
    """ "file:line: its text", the path shortened."""
    return ": ".join(filter(None, (shortened(line), text(line))))
