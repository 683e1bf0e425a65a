"""Dependencies: which inputs each output of a model depends on, and the leaks among them, in words
and as small matrices.

In: what leaks.py has found. Out: text, or a Scene.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .scene import Cells, Rect, Scene, Shape, Text, text_width
from .shown import Shown

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_CELL, _LEFT = 20.0, 40.0
_COLOURS = ("#ffffff", "#4a97c9", "#eceef0", "#c92a2a")  # nothing, depends, forbidden, a leak
_FAINT, _FRAME, _WRONG = "#68727d", "#9aa3ad", "#c92a2a"


class Input(NamedTuple):
    """What the outputs of the first row have to do with one input."""

    name: str
    depends: Mask  # (T, n)
    forbidden: Mask  # (T, n)
    padding: Mask  # (n,)
    causal: bool


class Leak(NamedTuple):
    """An output that depends on what it must not see. kind: "future", "padding" or "rows". mode:
    "evaluation", or "training" where it is in that mode alone."""

    kind: str
    input: str
    row: int
    output: int  # a position of that row
    input_row: int
    position: int  # of the input
    module: str  # where it comes in: a name and its class; "" in the model's own forward, or later
    mode: str

    def __str__(self) -> str:
        what = {
            "future": "which comes later",
            "padding": "which is padding",
            "rows": f"of row {self.input_row}",
        }[self.kind]
        of_row = f" of row {self.row}" if self.kind != "future" else ""
        where = self.module or "the model's own forward"
        mode = " (in training mode)" if self.mode == "training" else ""
        return (
            f"output {self.output}{of_row} depends on {self.input}[{self.position}], {what}{mode}; "
            f"it comes in at {where}"
        )


class Dependencies(Shown):
    """What a model's outputs depend on.

    ok: there are no leaks. leaks: those that there are, one of each kind and input. matrices: of
        each input, bool (T, n), for the first row: which places each output depends on. rows: bool
        (B, B), which rows outputs of each row depend on. on_copy: a tiny copy was looked at.
    """

    def __init__(
        self,
        model: str,
        inputs: tuple[Input, ...],
        rows: Mask,
        leaks: tuple[Leak, ...],
        on_copy: bool,
    ) -> None:
        self.model, self.leaks, self.rows, self.on_copy = model, leaks, rows, on_copy
        self._inputs = inputs
        self.matrices = {given.name: given.depends for given in inputs}

    @property
    def ok(self) -> bool:
        """True if no output depends on what it must not see."""
        return not self.leaks

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{self.model}{' (a tiny copy of it)' if self.on_copy else ''}"]
        for given in self._inputs:
            lines += ["", f"{given.name}: what each output (row) depends on (columns)"]
            lines += [f"  {' '.join(marks)}" for marks in _marks(given)]
        lines += ["", "x depends, . does not and must not, blank does not, ! must not and does", ""]
        return "\n".join([*lines, *self.verdicts()])

    def verdicts(self) -> list[str]:
        """A line for each thing that is proved, and for each leak."""
        wrong = {leak.kind for leak in self.leaks}
        causal = [given.name for given in self._inputs if given.causal]
        padded = [given.name for given in self._inputs if given.padding.any()]
        proved = []
        if causal and "future" not in wrong:
            proved.append(f"no output depends on a later position of {' or '.join(causal)}")
        if padded and "padding" not in wrong:
            proved.append(f"no output depends on padding of {' or '.join(padded)}")
        if len(self.rows) > 1 and "rows" not in wrong:
            proved.append("no row of a batch depends on another one")
        return [*(f"ok    {line}" for line in proved), *(f"LEAK  {leak}" for leak in self.leaks)]

    def __repr__(self) -> str:
        return f"Dependencies({self.model}: {'; '.join(self.verdicts())})"

    def scene(self) -> Scene:
        found: list[Shape] = [Text(12, 24, self.model, 12.5, bold=True, anchor="start")]
        x, bottom = 12.0, 40.0
        for given in self._inputs:
            levels = np.where(given.depends, 1, 0) + np.where(given.forbidden, 2, 0)
            names = ["pad" if pad else str(i) for i, pad in enumerate(given.padding.tolist())]
            x, low = _matrix(found, x, given.name, levels, names)
            bottom = max(bottom, low)
        if len(self.rows) > 1:
            apart = np.where(np.eye(len(self.rows), dtype=bool), 0, 2)
            names = [str(i) for i in range(len(self.rows))]
            x, low = _matrix(found, x, "rows of the batch", self.rows + apart, names)
            bottom = max(bottom, low)
        wide = x
        for i, line in enumerate(self.verdicts()):
            colour = _WRONG if line.startswith("LEAK") else "#202020"
            verdict, what = line.split(maxsplit=1)
            y = bottom + 18 + 16 * i
            found.append(Text(12, y, verdict, 10.5, colour, bold=True, anchor="start"))
            found.append(Text(52, y, what, 10.5, colour, anchor="start"))
            wide = max(wide, 64 + text_width(what, 10.5))
        y = bottom + 26 + 16 * len(self.verdicts())
        at = 12.0
        for colour, words in zip(
            _COLOURS[1:], ("depends", "must not, does not", "must not, but does"), strict=True
        ):
            found.append(Rect(at, y, 11, 11, colour, _FRAME, 0.6, 0))
            found.append(Text(at + 16, y + 10, words, 10, _FAINT, anchor="start"))
            at += 32 + text_width(words, 10)
        return Scene(max(wide, at), y + 24, f"What outputs of {self.model} depend on", found)


def _marks(given: Input) -> list[list[str]]:
    signs = np.array([[" ", "x"], [".", "!"]])
    found: list[list[str]] = signs[given.forbidden.astype(int), given.depends.astype(int)].tolist()
    return found


def _matrix(
    found: list[Shape], x: float, title: str, levels: Any, names: list[str]
) -> tuple[float, float]:
    """Adds a matrix to the shapes -> where the next one begins, and where this one ends."""
    rows, columns = levels.shape
    left, top = x + _LEFT, 66.0
    width, height = columns * _CELL, rows * _CELL
    found.append(Text(left, 54, title, 10.5, anchor="start"))
    found.append(Cells(left, top, _CELL, _CELL, levels.astype(int), _COLOURS))
    for i in range(rows):
        found.append(Text(left - 5, top + (i + 0.7) * _CELL, str(i), 9.5, _FAINT, anchor="end"))
        for j in range(columns):
            found.append(
                Rect(left + j * _CELL, top + i * _CELL, _CELL, _CELL, "none", _FRAME, 0.5, 0)
            )
    for j, name in enumerate(names):
        found.append(Text(left + (j + 0.5) * _CELL, top + height + 13, name, 9.5, _FAINT))
    found.append(Text(x + 12, top + height / 2, "output", 9.5, _FAINT, turned=True))
    return left + max(width, text_width(title, 10.5)) + 20, top + height + 20
