"""Origins: the module and the line of Python that a node or a call is from.

In: a node, a call. Out: text. Called by whatever names one: explain.py, debug.py, check.py, and
run/replay.py.
"""

from __future__ import annotations

from ...node import Node
from ...places import shortened
from ..schedule.records import Call


def named(node: Node) -> str:
    """The origin of a node: module path and source line."""
    return "  ".join(x for x in (node.scope, shortened(node.line)) if x)


def origin(call: Call) -> str:
    """The origin of a call: that of the last node that it computes."""
    return named(call.nodes[-1]) if call.nodes else ""
