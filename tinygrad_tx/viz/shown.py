"""Shown: a picture that shows itself, in a notebook and as a file.

In: what a derived class draws as a Scene. Out: SVG, or a file of the kind that its name says. The
base of what graph(), attention(), positions() and dependencies() give.
"""

from __future__ import annotations

import pathlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from .. import atomic
from ..errors import UserError
from .raster import raster
from .scene import Scene
from .svg import svg


class Shown(ABC):
    """A picture. forms: the suffixes that save() knows."""

    forms: ClassVar[tuple[str, ...]] = (".svg", ".png", ".pdf")

    @abstractmethod
    def scene(self) -> Scene:
        """What is drawn."""

    @property
    def svg(self) -> str:
        """The picture as the text of an <svg> element."""
        return svg(self.scene())

    def save(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write a file, of the kind that the suffix of path says, and give path back.

        .png and .pdf need matplotlib, the extra `plots`; UserError where it is missing, and for
        another suffix.
        """
        path = pathlib.Path(path)
        atomic.write_bytes(path, self.render(self.form_of(path)))
        return path

    @classmethod
    def form_of(cls, path: str | pathlib.Path) -> str:
        """ "svg", "png", ...: what a file of that name holds; UserError for another suffix."""
        suffix = pathlib.Path(path).suffix
        if suffix not in cls.forms:
            known = ", ".join(cls.forms)
            raise UserError(f'cannot draw "{path}": its name must end in one of {known}')
        return suffix[1:]

    def render(self, form: str) -> bytes:
        """The content of a file of one of the forms, without its dot; UserError for another one,
        and where matplotlib is missing that .png and .pdf need."""
        if f".{form}" not in self.forms:
            known = ", ".join(suffix[1:] for suffix in self.forms)
            raise UserError(f"it is drawn as {known}, not as {form!r}")
        return self.svg.encode() if form == "svg" else raster(self.scene(), form)

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}
