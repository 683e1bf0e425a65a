"""What is written in and on a graph's boxes and frames.

In: a Box or a Level (boxes.py), and the names of inputs. Out: a `Label`: a title, small lines under
it, and what a hover says. Called by picture.py and dot.py.
"""

from __future__ import annotations

import linecache
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from .. import backends
from ..dtypes import float32
from ..loops.record import SCAN
from ..node import CONST, INPUT, ITEM, Graph, Node
from ..rules import Spec
from .boxes import BACKWARD, Box, Level, is_data

COLOURS = {  # by op or its kind, and in words; a box has the first of these that is in it
    "attention": ("#fbd9ae", "attention"),
    "attention_grad": ("#fbd9ae", "attention"),
    "loop": ("#cfe8e8", "loop"),
    "matmul": ("#fdeecb", "matrix product"),
    "fused": ("#d8ead3", "fused op: softmax, norm, loss, optimizer"),
    "gather": ("#d3e6f5", "lookup"),
    "opaque": ("#eadcf4", "op of another library"),
    "random": ("#f7d9e3", "random numbers"),
    "reduce": ("#dfdff5", "reduction"),
    "map": ("#f1f1f1", "element by element"),
}
PLAIN = ("#ffffff", "")
_HEAVY = ("matmul", "fused", "gather", "opaque", "loop")
_SYMBOLS = {
    "add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−", "matmul": "@", "ne": "≠",
    "eq": "=", "lt": "<", "le": "≤", "gt": ">", "ge": "≥",
}  # fmt: skip
_LONG = 44  # letters of a title
_LINES = 8  # of a statement
_OPTIONS = 24  # letters of a module's options in a title


@dataclass(frozen=True)
class Label:
    """title: bold where the box is a level. kind: "level", "op", "data" or "frame"."""

    kind: str
    title: str
    lines: tuple[str, ...]
    hover: str
    colour: str
    meaning: str = ""  # of the colour


class Labels:
    """The labels of a graph's boxes. names: of inputs and parameters."""

    def __init__(
        self, names: Mapping[Node, str], shared: set[Node], outputs: Mapping[Box, Iterable[Node]]
    ) -> None:
        self.names, self.shared, self.outputs = names, shared, outputs

    def box(self, box: Box) -> Label:
        node = box.nodes[0]
        if box.is_data:
            return self._data(node)
        colour, meaning = _colour(box.nodes)
        made = _specs(self.outputs.get(box, ()))
        if box.level is not None:
            lines = [*_of(box.level), *self._contents(box), *made]
            hover = _hover(box.level, box.nodes)
            return Label("level", title(box.level), tuple(lines), hover, colour, meaning)
        where = "\n".join(filter(None, (node.scope, *_line(node.line))))
        if box.side == BACKWARD:
            of = next((one for one in box.of if one.level is None), None)
            name = f"gradient of {_op(of) if of else 'a part'}"
            return Label("op", name, (*self._contents(box), *made), where, colour, meaning)
        inside = _rounds(node) if node.op is SCAN else ()
        return Label("op", _op(box), (*inside, *made), where or node.op.name, colour, meaning)

    def _parameter(self, node: Node) -> str:
        shared = ", shared" if node in self.shared else ""
        return f"{self._short(node)} {_spec(node)}{shared}"

    def _short(self, node: Node) -> str:
        """The name of data, of which a long one keeps its end."""
        full = self.names.get(node, "")
        return full if len(full) <= _OPTIONS else ".".join(full.split(".")[-2:])

    def _data(self, node: Node) -> Label:
        full, short = self.names.get(node, ""), self._short(node)
        what = "parameter" if node.requires_grad else "input" if node.op is INPUT else "data"
        what = f"shared {what}" if node in self.shared else what
        lines = (_spec(node),) if not short or what == "data" else (what, _spec(node))
        where = " ".join(filter(None, (node.scope, *_line(node.line))))
        hover = "\n".join(filter(None, (f"{what} {full}".strip(), where)))
        return Label("data", short or what, lines, hover, *PLAIN)

    def _contents(self, box: Box) -> list[str]:
        """What is in a box: its ops, the heavy ones by name, its parameters, and other values that
        are kept from one call to the next."""
        counts = Counter(n.op.name for n in box.nodes if n.op is not ITEM)
        heavy = {n.op.name for n in box.nodes if n.op.kind in _HEAVY}
        named = [f"{n} {op}" if n > 1 else op for op, n in counts.items() if op in heavy]
        ops = plural(counts.total(), "op")
        lines = [f"{ops}: {', '.join(named[:3])}{', ...' * (len(named) > 3)}" if named else ops]
        if box.side == BACKWARD:
            return lines
        parameters = [n for n in box.folded if n.requires_grad]
        if len(parameters) <= 2 and all(n in self.names for n in parameters):
            lines += [self._parameter(n) for n in parameters]
        elif parameters:
            numbers = sum(prod(n.shape) for n in parameters)
            line = f"{plural(len(parameters), 'parameter')}, {numbers:,} numbers"
            lines.append(f"{line}, shared" if self.shared.intersection(parameters) else line)
        state = [n for n in box.folded if n.op is INPUT and not n.requires_grad and n.shape]
        if state:
            numbers = sum(prod(n.shape) for n in state)
            lines.append(f"state: {plural(len(state), 'tensor')}, {numbers:,} numbers")
        return lines


def title(level: Level) -> str:
    """A module's name and class, with its sizes; the text of a line."""
    if level.line:
        return _shortened(next(iter(_text(level.line)), "") or _short(level.line))
    kind, name = level.kind, level.name
    if not kind:
        return name
    sizes = _sizes(level.module)
    return f"{kind}{sizes}" if name == kind else f"{name} {kind}{sizes}"


def frame(level: Level) -> Label:
    """The label of an open level."""
    return Label("frame", title(level), (), _hover(level, ()), *PLAIN)


def _sizes(module: Any) -> str:
    """The sizes in a module's repr, in brackets; options by keyword are left out."""
    if module is None or next(iter(module.children()), None) is not None:
        return ""
    options = re.split(r",\s+(?![^(\[]*[)\]])", module.describe())
    text = ", ".join(one for one in options if "=" not in one)
    if not text or len(text) > _OPTIONS or "\n" in text:
        return ""
    return text if text.startswith("(") else f"({text})"


def _of(level: Level) -> list[str]:
    """The line that a gradient is the gradient of."""
    return [f"of {_shortened(text)}" for text in _text(level.of)]


def _text(line: str) -> list[str]:
    """The text of the user's line, where there is one: "file:line" says which."""
    name, _, number = line.rpartition(":")
    text = ""
    for i in range(_LINES if number.isdecimal() else 0):  # up to the end of the statement
        more = linecache.getline(name, int(number) + i).strip()
        text += f" {more}" if text and text[-1] not in "([{" else more
        if not more or sum(map(text.count, "([{")) <= sum(map(text.count, ")]}")):
            break
    return [text] if text else []


def _line(line: str) -> list[str]:
    """A line for a hover: where it stands, and its text."""
    return [_short(line), *_text(line)] if line else []


def _hover(level: Level, nodes: Iterable[Node]) -> str:
    lines = [level.line] if level.line else [n.line for n in nodes if n.line][:1]
    path = level.call.partition(".")[2] or level.call
    return "\n".join(filter(None, (path, *(text for one in lines for text in _line(one)))))


def _short(line: str) -> str:
    """ "file:line" without the file's directories."""
    return line.replace("\\", "/").rpartition("/")[2]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 2].rstrip()} …"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _op(box: Box) -> str:
    """A single op in words: its name, constants and attributes."""
    node = next((n for n in box.nodes if n.op is not ITEM), box.nodes[0])
    numbers = [_number(src) if src in box.folded else "" for src in node.srcs] or [""]
    first = numbers.pop(0) if len(numbers) > 1 else ""  # 2 - x, not x - 2
    words = [*filter(None, (first, _SYMBOLS.get(node.op.name, node.op.name), *numbers))]
    words += [f"{k}={v}" for k, v in node.attrs.items() if k in ("axis", "order", "causal")]
    return " ".join(words)


def _rounds(node: Node) -> tuple[str, ...]:
    """What a loop does in each round."""
    inside = [n for n in Graph(node.attrs["round"].outs) if not is_data(n) and n.op is not ITEM]
    heavy = Counter(n.op.name for n in inside if n.op.kind in _HEAVY)
    named = ", ".join(f"{n} {op}" if n > 1 else op for op, n in heavy.items())
    what = f"{plural(node.attrs['length'], 'round')} of {plural(len(inside), 'op')}"
    return node.attrs["round"].name, f"{what}: {named}" if named else what


def _number(node: Node) -> str:
    """A known number; the name of the shape of one that is not known before a run."""
    if node.op is CONST:
        return f"{node.attrs['value']:.4g}"
    if node.shape or not node.has_values:
        return ""
    return f"{backends.get(node.device).to_host(node.array).item():.4g}"


def _colour(nodes: Iterable[Node]) -> tuple[str, str]:
    kinds = {word for n in nodes for word in (n.op.name, n.op.kind)}
    return next((COLOURS[kind] for kind in COLOURS if kind in kinds), PLAIN)


def _specs(nodes: Iterable[Node]) -> list[str]:
    """What a box gives to others, by shapes."""
    shapes = Counter(_spec(node) for node in nodes if isinstance(node.spec, Spec))
    words = [f"{n} × {shape}" if n > 1 else shape for shape, n in shapes.items()]
    if len(words) > 2:
        return [f"→ {words[0]} and {len(words) - 1} more"]
    return [f"→ {' and '.join(words)}"] if words else []


def _spec(node: Node) -> str:
    """A node's shape, and its dtype where it is not float32."""
    return ", ".join(
        f"{s.shape}" if s.dtype == float32 else f"{s.dtype.name} {s.shape}" for s in node.specs
    )
