"""summary: a module and those inside it as a table: what each learns, gives, multiplies and makes.

In: a Module, and the inputs of a call or none. Out: a Summary, which shows itself in a terminal and
in a notebook, and has its rows as data. Called by `model.summary()` and `tinygrad-tx info`. The
call is recorded on shapes and not run; FLOPs and activations are those that
compiler/inspect/costs.py counts.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..arguments import shown
from ..compiler.capture.trace import trace
from ..compiler.inspect.costs import of_ops
from ..compiler.inspect.explain import short
from ..context import WRITTEN, Call, set_grad_enabled
from ..errors import TraceError, UserError
from ..partition import whole_size
from ..tensor import Tensor
from ..tree import leaves

if TYPE_CHECKING:  # module.py has a base that calls this file
    from .module import Module

Shape = tuple[int, ...]


@dataclass
class Row:
    """A module, with all that is inside it.

    path: its dotted name, "" of the whole; name: the last part of it; kind: its class; depth: how
    many modules it is in. parameters, learnt: numbers in its Parameters, and in those that require
    a gradient, of the whole where ranks share them; bytes: that they take here. Each Parameter and
    each module counts once, where it is found first; elsewhere: numbers of its own Parameters that
    were counted before.

    calls: how often it was called; outputs: the shapes of what it gave last; flops: of products
    and attention in all of its calls, a multiplication and an addition being two; activations:
    bytes of the values that it hands on to other modules, or that those inside it do. None, all
    four, if nobody knows them.
    """

    path: str
    name: str
    kind: str
    depth: int
    options: str = field(default="", repr=False)
    parameters: int = 0
    learnt: int = 0
    bytes: int = 0
    elsewhere: int = 0
    calls: int | None = None
    outputs: tuple[Shape, ...] | None = None
    flops: int | None = None
    activations: int | None = None


@dataclass(frozen=True, repr=False)
class Summary:
    """rows: the module itself, then those inside it, each behind the one that it is in. note: why
    something is not known, or empty. summary["encoder.layers.0"] is the row of that path."""

    rows: tuple[Row, ...]
    note: str = ""

    @property
    def parameters(self) -> int:
        return self.rows[0].parameters

    @property
    def flops(self) -> int | None:
        return self.rows[0].flops

    @property
    def activations(self) -> int | None:
        return self.rows[0].activations

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> Row:
        for row in self.rows:
            if row.path == path:
                return row
        raise KeyError(f"the summary has no row {path!r}")

    def __repr__(self) -> str:
        heads, cells = self._cells()
        table = [heads, *cells]
        widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
        lines = [
            "  ".join(
                text.rjust(width) if i > self._called else text.ljust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        return "\n".join([*lines, "", *self._totals()])

    def _repr_html_(self) -> str:
        heads, cells = self._cells()
        top = "".join(f"<th style='text-align:left'>{html.escape(x)}</th>" for x in heads)
        body = "".join(
            "<tr>" + "".join(_html(i, text) for i, text in enumerate(row)) + "</tr>"
            for row in cells
        )
        totals = "<br>".join(map(html.escape, self._totals()))
        return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table><p>{totals}</p>"

    @property
    def _called(self) -> bool:
        return self.rows[0].calls is not None

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """The heads of the columns, and the texts of each row."""
        heads = ["module", *["gives"] * self._called, "parameters"]
        heads += ["FLOPs", "activations"] if self._called else ["bytes"]
        return heads, [[*self._of(row)] for row in self.rows]

    def _of(self, row: Row) -> Iterator[str]:
        title = f"{row.kind}({row.options})" if row.options else row.kind
        calls = f", {row.calls} calls" if row.calls and row.calls > 1 else ""
        yield "  " * row.depth + (f"{row.name}: {title}" if row.name else title) + calls
        if self._called:
            yield ", ".join(map(str, row.outputs or ()))
        counted = f"{row.parameters:,}" if row.parameters else ""
        yield f"{counted} (+ {row.elsewhere:,} above)".strip() if row.elsewhere else counted
        if self._called:
            yield "?" if row.flops is None else short(row.flops)
            yield "?" if row.activations is None else _size(row.activations)
        else:
            yield _size(row.bytes)

    def _totals(self) -> Iterator[str]:
        whole = self.rows[0]
        frozen = whole.parameters - whole.learnt
        held = f", {frozen:,} of them frozen" if frozen else ""
        yield f"{whole.parameters:,} parameters{held}, {_size(whole.bytes) or '0 B'}"
        if self._called and whole.flops is not None:
            yield (
                f"{short(whole.flops) or 0} FLOPs of products in a call (a multiplication and an "
                f"addition are two), {_size(whole.activations or 0) or '0 B'} of activations"
            )
        if self.note:
            yield self.note


def _html(i: int, text: str) -> str:
    indent = len(text) - len(text.lstrip())
    style = f"text-align:left;padding-left:{0.5 + 0.75 * indent}em" if i == 0 else ""
    return f"<td style='{style}'>{html.escape(text.strip())}</td>"


def _size(count: int) -> str:
    return f"{short(count)}B" if count >= 1000 else f"{count} B" if count else ""


def summary(module: Module, inputs: Sequence[Any], depth: int | None = None) -> Summary:
    """See Module.summary."""
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise UserError(f"summary: depth must be a number from 0 up, not {shown(depth)}")
    modules = dict(module.named_modules())
    rows = _rows(modules)
    notes = [_called(module, inputs, modules, rows)] if inputs else []
    here = sum(p.numel() for p in module.parameters())
    if here < rows[""].parameters:
        notes.append(f"ranks share them: this one has {here:,} numbers; FLOPs are its own")
    note = "; ".join(filter(None, notes))
    shown_rows = (row for row in rows.values() if depth is None or row.depth <= depth)
    return Summary(tuple(shown_rows), note)


def _rows(modules: dict[str, Module]) -> dict[str, Row]:
    """A row for each module, with its parameters."""
    rows: dict[str, Row] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        depth = path.count(".") + bool(path)
        row = rows[path] = Row(path, path.rpartition(".")[2], type(module).__name__, depth)
        row.options = "" if any(True for _ in module.children()) else module.describe()
        for _, parameter in module.named_parameters(recurse=False):
            count = whole_size(parameter)
            if id(parameter) in seen:
                row.elsewhere += count
                continue
            seen.add(id(parameter))
            for around in _around(path):
                rows[around].parameters += count
                rows[around].learnt += count * parameter.requires_grad
                rows[around].bytes += parameter.numel() * parameter.dtype.itemsize
    return rows


def _around(path: str) -> list[str]:
    """A path, and those of the modules around it."""
    parts = path.split(".") if path else []
    return [".".join(parts[:i]) for i in range(len(parts), -1, -1)]


# A call ------------------------------------------------------------------------------------------


def _called(
    module: Module, inputs: Sequence[Any], modules: dict[str, Module], rows: dict[str, Row]
) -> str:
    """Add what a call tells to the rows; why it does not tell all, or ""."""
    for row in rows.values():
        row.calls, row.outputs = 0, ()

    def call(*given: Any) -> list[Tensor]:
        out = module(*given)
        return [x for x in leaves(out) if isinstance(x, Tensor)]

    with _watched(modules, rows), set_grad_enabled(True):
        try:
            traced = trace(call, tuple(inputs), {})
        except TraceError as error:
            for row in rows.values():
                row.calls, row.outputs = 0, ()
            _run(call, inputs)
            return f"FLOPs and activations are not known: it cannot be recorded: {error}"
    path_of = {id(found): path for path, found in modules.items()}
    flops, kept = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    for made_in, cost in of_ops([x._node for x in traced.made.values()]):
        for around in _around(_path(made_in, path_of)):
            flops[around] += int(cost.flops)
            kept[around] += cost.kept
    for path, row in rows.items():
        row.flops, row.activations = flops[path], kept[path]
    return ""


def _path(call: str | None, path_of: dict[int, str]) -> str:
    """Of the innermost module of the model in whose call another one was made."""
    while isinstance(call, Call):
        if id(call.module()) in path_of:
            return path_of[id(call.module())]
        call = call.outer
    return ""


def _run(call: Any, inputs: Sequence[Any]) -> None:
    """A call whose changes of Tensors are taken back."""
    token = WRITTEN.set({})
    try:
        call(*inputs)
    finally:
        written = WRITTEN.get() or {}
        WRITTEN.reset(token)
        for tensor, before in written.values():
            tensor._point(before)


@contextmanager
def _watched(modules: dict[str, Module], rows: dict[str, Row]) -> Iterator[None]:
    """Calls are noted in the rows, and modules are in evaluation mode; afterwards the attributes of
    each are what they were."""
    before = [(module, dict(vars(module))) for module in modules.values()]
    try:
        modules[""].eval()
        for path, module in modules.items():
            vars(module)["_forward_hooks"] = dict(module._forward_hooks)
            module.register_forward_hook(_noting(rows[path]))
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def _noting(row: Row) -> Any:
    def note(module: Module, args: Any, output: Any) -> None:
        row.calls = (row.calls or 0) + 1
        row.outputs = tuple(x.shape for x in leaves(output) if isinstance(x, Tensor))

    return note
