"""Pictures of a computation: the recorded nodes behind a Tensor, grouped by module.

What comes in: a Tensor, several of them, or the Graph of a compiled function. What goes out: a
`Drawing`, which is saved as .dot, .svg or .png, or shown by a notebook. Called by users and by
`tinygrad-tx graph`. Which nodes share a box is decided in boxes.py; here they are drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import atomic
from ..dtypes import float32
from ..errors import GradError, UserError
from ..node import RELEASED, Graph, Node, Spec
from ..tensor import Tensor
from .boxes import Box, Layout, module_path

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

    def save(self, path: str | Path) -> Path:
        """Write .dot, .svg, .png or .pdf, told apart by the suffix of path, and give path back.

        All but .dot need the program `dot`; UserError that names its package where it is missing.
        """
        path = Path(path)
        if path.suffix == ".dot":
            atomic.write_bytes(path, self.dot.encode())
        elif path.suffix in _FORMATS:
            atomic.write_bytes(path, self._render(path.suffix[1:]))
        else:
            known = ", ".join((".dot", *_FORMATS))
            raise UserError(f'cannot draw "{path}": its name must end in one of {known}')
        return path

    def _render(self, form: str) -> bytes:
        import graphviz

        try:
            return graphviz.Source(self.dot).pipe(format=form)
        except graphviz.ExecutableNotFound:
            raise UserError(
                f"drawing .{form} needs the program dot of Graphviz: apt install graphviz (Debian, "
                "Ubuntu), dnf install graphviz (Fedora), brew install graphviz (macOS) or winget "
                "install graphviz (Windows); .dot files can be written without it"
            ) from None

    def _repr_svg_(self) -> str | None:
        try:
            return self._render("svg").decode()
        except UserError:
            return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        svg = self._repr_svg_()
        return {"text/plain": self.dot} if svg is None else {"image/svg+xml": svg}


def graph(of: Tensor | Sequence[Tensor] | Graph, depth: int | None = None) -> Drawing:
    """Draw what a Tensor was computed from, each module as a frame or, collapsed, as one box.

    of: a Tensor, several, or a Graph such as compiled.graph(); draw a loss before its backward(),
        which releases the graph. depth: how many levels of modules are opened; by default as many
        as leave the picture readable. GradError for a released graph.
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
        raise UserError(f"viz.graph: depth is a number of module levels, not {depth}")
    layout = _readable(of) if depth is None else Layout(of, depth)
    return Drawing(_render(layout, set(of.roots)))


def _readable(graph: Graph) -> Layout:
    """The deepest layout of few enough boxes; the shallowest where none is."""
    depth = max((len(module_path(node)) for node in graph), default=0)
    while depth and len((layout := Layout(graph, depth)).boxes) > READABLE:
        depth -= 1
    return layout if depth else Layout(graph, 0)


# DOT ---------------------------------------------------------------------------------------------

_COLOURS = {  # by kind of op; a module has the colour of the first of these kinds that is in it
    "attention": "#f9d5a7",
    "matmul": "#fbe7c6",
    "fused": "#d8ead3",
    "gather": "#d3e6f5",
    "opaque": "#eadcf4",
    "random": "#f7d9e3",
    "reduce": "#dfdff5",
    "map": "#f4f4f4",
}
_PLAIN = "#ffffff"
_SYMBOLS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−"}
_FONT = "Helvetica,Arial,sans-serif"


def _render(layout: Layout, roots: set[Node]) -> str:
    from graphviz import Digraph

    dot = Digraph("graph")
    dot.attr(rankdir="TB", nodesep="0.25", ranksep="0.35", fontname=_FONT, fontsize="11")
    dot.attr("node", fontname=_FONT, fontsize="11", shape="box", style="rounded,filled",
             margin="0.12,0.06", height="0.3", color="#707070", fillcolor=_PLAIN)  # fmt: skip
    dot.attr("edge", fontname=_FONT, fontsize="8", fontcolor="#606060", color="#707070",
             arrowsize="0.6")  # fmt: skip
    names = {box: f"n{i}" for i, box in enumerate(layout.boxes)}
    _frame(dot, (), layout, names, roots)
    for (source, target), specs in layout.edges.items():
        label = "\n".join(dict.fromkeys(map(_spec, specs)))
        dashed = "dashed" if source.is_data else ""
        dot.edge(names[source], names[target], label=f" {label} ", style=dashed)
    return str(dot.source)
