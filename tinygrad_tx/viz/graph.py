"""Pictures of a computation: the recorded nodes behind a Tensor, grouped by module and line.

In: a Tensor, several of them, a Graph, a compiled function, or a Module with inputs. Out: a
`Drawing`, which is saved as .svg, .dot, .png or .pdf, or shown by a notebook. Called by users and
by `tinygrad-tx graph`. What is drawn is decided in subject.py and picture.py.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any

from ..errors import GradError, UserError
from ..node import RELEASED
from .dot import dot
from .picture import READABLE as READABLE
from .picture import Picture, picture, scene
from .scene import Scene
from .shown import Shown
from .subject import subject


class Drawing(Shown):
    """A picture of a graph. Notebooks show it as SVG.

    note: what is folded, and the depth that opens it, in words; "" where nothing is.
    """

    forms = (".svg", ".dot", ".png", ".pdf")

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self.note = picture.note

    @cached_property
    def dot(self) -> str:
        """The same boxes in the DOT language, for Graphviz and programs that read it."""
        return dot(self._picture)

    @cached_property
    def _scene(self) -> Scene:
        return scene(self._picture)

    def scene(self) -> Scene:
        """What is drawn, laid out once."""
        return self._scene

    def render(self, form: str) -> bytes:
        """The picture as "svg", "dot", "png" or "pdf"; UserError for another form, and where
        matplotlib is missing that the last two need."""
        return self.dot.encode() if form == "dot" else super().render(form)

    def __repr__(self) -> str:
        return f"Drawing({self._picture.summary})"


def graph(of: Any, *inputs: Any, depth: int | None = None) -> Drawing:
    """Draw a computation: each module and each line as a frame or, closed, as one box.

    of: a Tensor or a sequence of them, and what they were computed from is drawn (a loss before its
    backward(), which releases the graph); a compiled function, of which the call that ran last is
    drawn, with its gradients and updates; a Module (in evaluation mode) or a function with the
    inputs of a call, which is recorded, runs nothing and changes nothing; or a Graph. depth: how
    many levels of modules are opened; by default as many as leave the picture readable, and small
    modules stay closed.

    Raises GradError for a released graph, TraceError for a compiled function before its first
    call, TypeError for what cannot be drawn, and what the module raises.
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int)):
        raise TypeError(f"viz.graph: depth must be a whole number or None, not {depth!r}")
    if depth is not None and depth < 0:
        raise UserError(f"viz.graph: depth counts the module levels to open; {depth} is negative")
    found = subject(of, inputs, sys._getframe(1))
    if any(node.op is RELEASED for node in found.graph):
        raise GradError(
            "viz.graph: backward() has released this graph; draw it before backward(), or call "
            "backward(retain_graph=True)"
        )
    return Drawing(picture(found, depth))
