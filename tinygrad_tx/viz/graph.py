"""Pictures of a computation: the recorded nodes behind a Tensor, grouped by module.

In: a Tensor, several of them, or the Graph of a compiled function. Out: a `Drawing`, which is saved
as .dot, .svg or .png, or shown by a notebook. Called by users and by `tinygrad-tx graph`. Which
nodes share a box is decided in boxes.py; here the boxes are drawn.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Sequence
from html import escape
from math import prod
from typing import TYPE_CHECKING, Any

from .. import atomic, backends
from ..dtypes import float32
from ..errors import GradError, UserError
from ..node import CONST, INPUT, ITEM, RELEASED, Graph, Node
from ..tensor import Tensor
from .boxes import Box, Layout, Path, module_path, small_modules

if TYPE_CHECKING:
    from graphviz import Digraph

READABLE = 64  # so many boxes still make a picture to read rather than a map to get lost in
_FORMATS = (".svg", ".png", ".pdf")


class Drawing:
    """A picture in the DOT language.

    dot: its source. Notebooks show it as SVG, or as source where Graphviz is not installed.
    """

    def __init__(self, dot: str) -> None:
        self.dot = dot

    def save(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write .dot, .svg, .png or .pdf, told apart by the suffix of path, and give path back.

        All but .dot need the program `dot`; UserError that names its package where it is missing.
        """
        path = pathlib.Path(path)
        if path.suffix == ".dot":
            atomic.write_bytes(path, self.dot.encode())
        elif path.suffix in _FORMATS:
            atomic.write_bytes(path, self.render(path.suffix[1:]))
        else:
            known = ", ".join((".dot", *_FORMATS))
            raise UserError(f'cannot draw "{path}": its name must end in one of {known}')
        return path

    def render(self, form: str) -> bytes:
        """The picture as "svg", "png" or "pdf"; UserError without the program `dot`."""
        import graphviz

        try:
            picture: bytes = graphviz.Source(self.dot).pipe(format=form)
        except graphviz.ExecutableNotFound:
            raise UserError(
                f"a .{form} needs the program dot of Graphviz: apt install graphviz (Debian, "
                "Ubuntu), dnf install graphviz (Fedora), brew install graphviz (macOS) or winget "
                "install graphviz (Windows); a .dot file is written without it"
            ) from None
        return picture

    def _repr_svg_(self) -> str | None:
        try:
            return self.render("svg").decode()
        except UserError:
            return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        svg = self._repr_svg_()
        return {"text/plain": self.dot} if svg is None else {"image/svg+xml": svg}


def graph(of: Tensor | Sequence[Tensor] | Graph, depth: int | None = None) -> Drawing:
    """Draw what a Tensor was computed from, each module as a frame or, collapsed, as one box.

    of: a Tensor, several, or a Graph such as compiled.graph(); draw a loss before its backward(),
        which releases the graph. depth: how many levels of modules are opened; by default as many
        as leave the picture readable, and modules of a few ops stay closed. GradError for a
        released graph.
    """
    if not isinstance(of, Graph):
        tensors = [of] if isinstance(of, Tensor) else list(of)
        of = Graph(tensor.node for tensor in tensors)
    if any(node.op is RELEASED for node in of):
        raise GradError(
            "viz.graph: backward() has released this graph; draw it before backward(), or call "
            "backward(retain_graph=True)"
        )
    if depth is not None and depth < 0:
        raise UserError(f"viz.graph: depth counts the module levels to open; {depth} is negative")
    layout = _readable(of) if depth is None else Layout(of, depth)
    return Drawing(_render(layout, set(of.roots)))


def _readable(graph: Graph) -> Layout:
    """The deepest layout of few enough boxes, or the shallowest there is."""
    depth = max((len(module_path(node)) for node in graph), default=0)
    closed = small_modules(graph)
    layout = Layout(graph, depth, closed)
    while depth and len(layout.boxes) > READABLE:
        depth -= 1
        layout = Layout(graph, depth, closed)
    return layout


# DOT ---------------------------------------------------------------------------------------------

_COLOURS = {  # by op or its kind; a module has the colour of the first of these that is in it
    "attention": "#f9d5a7",
    "attention_grad": "#f9d5a7",
    "matmul": "#fbe7c6",
    "fused": "#d8ead3",
    "gather": "#d3e6f5",
    "opaque": "#eadcf4",
    "random": "#f7d9e3",
    "reduce": "#dfdff5",
    "map": "#f4f4f4",
}
_PLAIN = "#ffffff"
_HEAVY = ("matmul", "fused", "gather", "opaque")
_SYMBOLS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−"}
_FONT = "Helvetica,Arial,sans-serif"


def _render(layout: Layout, roots: set[Node]) -> str:
    from graphviz import Digraph

    dot = Digraph("graph")
    dot.attr(rankdir="TB", nodesep="0.2", ranksep="0.15", fontname=_FONT)
    dot.attr("node", fontname=_FONT, fontsize="11", shape="box", style="rounded,filled",
             margin="0.1,0.05", width="0", height="0.25", color="#808080")  # fmt: skip
    dot.attr("edge", fontname=_FONT, fontsize="8", fontcolor="#606060", color="#808080",
             arrowsize="0.5")  # fmt: skip
    names = {box: f"n{i}" for i, box in enumerate(layout.boxes)}
    looks = {box: _look(box, layout.shared, roots) | {"name": names[box]} for box in names}
    _draw_frame(dot, (), looks)
    labelled: set[Node] = set()
    for (source, target), nodes in layout.edges.items():
        ends = names[source], names[target]
        if source.is_data:
            dot.edge(*ends, style="dashed", arrowhead="none")
        elif labelled.issuperset(nodes):  # a further reader, of a residual connection for instance
            dot.edge(*ends)
        else:  # a shape is written once; weight keeps the trunk straight
            shapes = [*dict.fromkeys(f" {_spec(n)} " for n in nodes if n not in labelled)]
            labelled.update(nodes)
            if len(shapes) > 3:  # what a backward pass reads of its forward pass
                shapes[2:] = [f" and {len(shapes) - 2} more "]
            dot.edge(*ends, label="\\n".join(shapes), weight="8")
    return str(dot.source)


def _draw_frame(dot: Digraph, path: Path, looks: dict[Box, dict[str, str]]) -> None:
    """Write the boxes inside the module at `path`, and the frames of the modules in it."""
    inner: dict[Path, dict[Box, dict[str, str]]] = {}
    for box, look in looks.items():
        if box.path == path:
            dot.node(**look)
        else:
            inner.setdefault(box.path[: len(path) + 1], {})[box] = look
    for child, looks_inside in inner.items():
        name = ".".join(child)
        with dot.subgraph(name=_text(f"cluster_{name}")) as frame:
            frame.attr(label=_text(child[-1]), labeljust="l", fontname=_FONT, fontsize="12",
                       style="rounded", color="#b0b0b0", tooltip=_text(name))  # fmt: skip
            _draw_frame(frame, child, looks_inside)


def _look(box: Box, shared: set[Node], roots: set[Node]) -> dict[str, str]:
    """The attributes of a box's DOT node."""
    node = box.nodes[0]
    where = " ".join(filter(None, (node.scope, node.line.replace("\\", "/"))))
    look = {"tooltip": _text(where or node.op.name)}
    if box.is_data:
        what = "parameter" if node.requires_grad else "input" if node.op is INPUT else "data"
        what = f"shared {what}" if node in shared else what
        look |= {"shape": "plain", "style": "", "label": _label(what, _spec(node), bold=False)}
    elif box.title:
        look |= {"label": _label(box.title, *_contents(box, shared)), "fillcolor": _colour(box)}
    elif node.op.name in _SYMBOLS and not box.folded:
        look |= {"shape": "circle", "margin": "0.02", "label": _SYMBOLS[node.op.name]}
        look["fillcolor"] = _colour(box)
    else:
        look |= {"label": _label(_op(box), bold=False), "fillcolor": _colour(box)}
    if not roots.isdisjoint(box.nodes):
        look |= {"penwidth": "2", "color": "#303030"}
    return look


def _text(text: str) -> str:
    """Text that means itself: DOT takes backslashes, quotes and <...> for marks of its own."""
    from graphviz import escape

    escaped: str = escape(text)  # of a class of its own, by which the library knows it
    return escaped


def _label(head: str, *lines: str, bold: bool = True) -> str:
    """An HTML-like label: a head, and small lines under it."""
    first, *rest = (escape(line).replace("\\", "&#92;") for line in (head, *lines))
    head = f"<b>{first}</b>" if bold else first
    small = (f'<font point-size="9" color="#505050">{line}</font>' for line in rest)
    return f"<{'<br/>'.join((head, *small))}>"


def _contents(box: Box, shared: set[Node]) -> list[str]:
    """The contents of a collapsed module: its ops, the heavy ones by name, and its parameters."""
    counts = Counter(n.op.name for n in box.nodes if n.op is not ITEM)
    heavy = {n.op.name for n in box.nodes if n.op.kind in _HEAVY}
    named = [f"{n} {op}" if n > 1 else op for op, n in counts.items() if op in heavy]
    ops = _plural(counts.total(), "op")
    lines = [f"{ops}: {', '.join(named)}" if named else ops]
    parameters = [n for n in box.folded if n.requires_grad]
    if parameters:
        numbers = sum(prod(n.shape) for n in parameters)
        line = f"{_plural(len(parameters), 'parameter')}, {numbers:,} numbers"
        lines.append(line if shared.isdisjoint(parameters) else f"{line}, shared")
    return lines


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _op(box: Box) -> str:
    """A single op in words: its name, constants and attributes."""
    node = box.nodes[0]
    numbers = [_number(src) if src in box.folded else "" for src in node.srcs] or [""]
    first = numbers.pop(0) if len(numbers) > 1 else ""  # 2 - x, not x - 2
    words = [*filter(None, (first, _SYMBOLS.get(node.op.name, node.op.name), *numbers))]
    words += [f"{k}={v}" for k, v in node.attrs.items() if k in ("axis", "order", "causal")]
    return " ".join(words)


def _number(node: Node) -> str:
    if node.op is CONST:
        return f"{node.attrs['value']:.4g}"
    return f"{backends.get(node.device).to_host(node.array).item():.4g}"


def _colour(box: Box) -> str:
    kinds = {word for n in box.nodes for word in (n.op.name, n.op.kind)}
    return next((colour for kind, colour in _COLOURS.items() if kind in kinds), _PLAIN)


def _spec(node: Node) -> str:
    """A node's shape, and its dtype where it is not float32."""
    return ", ".join(
        f"{s.shape}" if s.dtype == float32 else f"{s.dtype.name} {s.shape}" for s in node.specs
    )
