"""Origins: the module and the line of Python that a node or a call is from.

In: a node, a call. Out: text. Called by whatever names one: explain.py, debug.py, check.py, and
run/replay.py.
"""

from __future__ import annotations

import linecache
import os
from pathlib import Path

from ...node import Node
from ..schedule.records import Call

_PACKAGE = Path(__file__).parents[2]


def named(node: Node) -> str:
    """The origin of a node: module path and source line."""
    return _shortened("  ".join(x for x in (node.scope, node.line) if x))


def origin(call: Call) -> str:
    """The origin of a call: that of the last node that it computes."""
    return named(call.nodes[-1]) if call.nodes else ""


def place(line: str) -> tuple[str, str]:
    """A node's line, its path as short as can be, and the text that stands there."""
    path, _, number = line.rpartition(":")
    text = linecache.getline(path, int(number)).strip() if number.isdecimal() else ""
    return _shortened(line), text


def _shortened(where: str) -> str:
    """A place with its path as short as can be: files of this package as module names, others
    from the current directory."""
    *scope, place = where.split("  ")
    path, _, line = place.rpartition(":")
    if not path:
        return where
    file = Path(path)
    if file.is_relative_to(_PACKAGE):
        short = ".".join(file.relative_to(_PACKAGE).with_suffix("").parts)
    else:
        short = os.path.relpath(path) if file.is_relative_to(Path.cwd()) else file.name
    return "  ".join([*scope, f"{short}:{line}"])
