"""A graph's picture in the DOT language, for Graphviz and the programs that read it.

In: a Picture. Out: text. Graphviz itself is not needed for it. Called by graph.py.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from . import labels
from .boxes import BACKWARD, FORWARD, Box, Level

if TYPE_CHECKING:
    from .labels import Label
    from .picture import Picture

_FONT = "Helvetica,Arial,sans-serif"
_HEAD = f"""digraph graph {{
\trankdir=TB nodesep=0.2 ranksep=0.15 fontname="{_FONT}" labelloc=t
\tnode [fontname="{_FONT}" fontsize=11 shape=box style="rounded,filled" margin="0.1,0.05" \
width=0 height=0.25 color="#808080"]
\tedge [fontname="{_FONT}" fontsize=8 fontcolor="#606060" color="#808080" arrowsize=0.5]"""
_SIDES = {FORWARD: "forward", BACKWARD: "backward"}


def dot(picture: Picture) -> str:
    boxes = picture.boxes.boxes
    names = {box: f"n{i}" for i, box in enumerate(boxes)}
    head = ": ".join(filter(None, (picture.name, picture.note or picture.summary)))
    lines = [_HEAD.replace("digraph graph", 'digraph "graph"'), f"\tlabel={quoted(head)}"]
    roots = {picture.boxes.box.get(root) for root in picture.graph.roots}
    clusters: Counter[str] = Counter()
    framed = any(box.side == BACKWARD for box in boxes)
    written = {box: f"{names[box]} [{_look(picture.labels[box], box in roots)}]" for box in boxes}
    for side in sorted({(box.round, box.side) for box in boxes}):
        within = {box: text for box, text in written.items() if (box.round, box.side) == side}
        if framed and side[1] in _SIDES:
            lines.append(f'\tsubgraph "cluster_{side[0]}_{_SIDES[side[1]]}" {{')
            lines.append(f"\t\tlabel={_SIDES[side[1]]} labeljust=l")
            lines += _frame(None, within, 2, clusters)
            lines.append("\t}")
        else:
            lines += _frame(None, within, 1, clusters)
    for (source, target), nodes in picture.boxes.edges.items():
        look = " [style=dashed arrowhead=none]" if source.is_data else ""
        times = sum(nodes.values()) if target.level is None and target.side == FORWARD else 1
        lines += [f"\t{names[source]} -> {names[target]}{look}"] * min(4, times)
    return "\n".join([*lines, "}", ""])


def _frame(
    level: Level | None, boxes: dict[Box, str], depth: int, clusters: Counter[str]
) -> list[str]:
    """The boxes inside a level, and the frames of the levels in it. clusters: how often each name
    of a frame has been given."""
    indent, lines = "\t" * depth, list[str]()
    at = 0 if level is None else _depth(level)
    inner: dict[Level, dict[Box, str]] = {}
    for box, text in boxes.items():
        if len(box.path) == at:
            lines.append(indent + text)
        else:
            inner.setdefault(box.path[at], {})[box] = text
    for child, inside in inner.items():
        label = labels.frame(child)
        name = child.call or labels.title(child)
        clusters[name] += 1
        name = name if clusters[name] == 1 else f"{name}#{clusters[name]}"
        lines.append(f"{indent}subgraph {quoted(f'cluster_{name}')} {{")
        lines.append(
            f"{indent}\tlabel={quoted(label.title)} labeljust=l fontsize=12 style=rounded "
            f'color="#b0b0b0" tooltip={quoted(label.hover)}'
        )
        lines += _frame(child, inside, depth + 1, clusters)
        lines.append(f"{indent}}}")
    return lines


def _depth(level: Level) -> int:
    depth, outer = 1, level.outer
    while outer is not None:
        depth, outer = depth + 1, outer.outer
    return depth


def _look(label: Label, root: bool) -> str:
    """The attributes of a box."""
    first, *rest = (escape(line).replace("\\", "&#92;") for line in (label.title, *label.lines))
    first = f"<b>{first}</b>" if label.kind == "level" else first
    small = (f'<font point-size="9" color="#505050">{line}</font>' for line in rest)
    look = f"label=<{'<br/>'.join((first, *small))}> tooltip={quoted(label.hover)}"
    if label.kind == "data":
        look += ' shape=plain style=""'
    else:
        look += f' fillcolor="{label.colour}"'
    return look + (' penwidth=2 color="#303030"' if root else "")


def quoted(text: str) -> str:
    """Text that means itself: DOT takes backslashes and quotes for marks of its own."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
