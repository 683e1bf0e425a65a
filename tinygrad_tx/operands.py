"""Notes for an error inside a module's forward: the module, and where each operand was made.

In: the error, and the module whose forward it came from. Out: a note (PEP 678), so that the error's
type and its first line stay. Called by nn/calls.py when something has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FrameType, TracebackType
from typing import Any

from .errors import CheckError
from .node import CONST, Handle, Node
from .places import here, in_words, is_callers, said

_ANY = CO_VARARGS | CO_VARKEYWORDS
MOST = 8  # operands that are shown
_START = "in the module "


def note(error: Exception, path: str, kind: str, names: Mapping[str, Any]) -> None:
    """Add where it happened; once, by the innermost module. path, kind: the module's path and
    class. names: of what it holds."""
    said_before = getattr(error, "__notes__", ())
    if isinstance(error, CheckError) or any(line.startswith(_START) for line in said_before):
        return
    frames = list(_frames(error.__traceback__))[1:]  # the first is that of who asks
    users = [i for i, (frame, _) in enumerate(frames) if is_callers(frame)]
    line = said(here())
    if users:
        frame, number = frames[users[-1]]
        line = f"{frame.f_code.co_filename}:{number}"
    inside = [frame for frame, _ in frames[users[-1] + 1 if users else 1 :]]
    outside = [frame for frame, _ in frames[:1]]  # the forward itself
    named = path if path == kind else f"{path} ({kind})"
    lines = [f"{_START}{named}, at {in_words(line)}"]
    held = {id(value): name for name, value in names.items() if isinstance(value, Handle)}
    operands = _operands(inside) or _operands(outside)
    for name, value in operands[:MOST]:
        lines.append(f"  {name}: {_origin(value, path, held)}")
    if len(operands) > MOST:
        lines.append(f"  and {len(operands) - MOST} more")
    error.add_note("\n".join(lines))


def _frames(tb: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while tb is not None:
        yield tb.tb_frame, tb.tb_lineno
        tb = tb.tb_next


def _operands(frames: list[FrameType]) -> list[tuple[str, Any]]:
    """The Tensors that the outermost function which was given any was called with, by the names of
    its parameters."""
    for frame in frames:
        code = frame.f_code
        if code.co_flags & _ANY == _ANY and not code.co_argcount:  # a wrapper knows no names
            continue
        found = [x for name, value in _given(frame) for x in _tensors(name, value)]
        if found:
            return found
    return []


def _given(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """The arguments of a frame's function, as they are now."""
    code, values = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    count += sum(bool(code.co_flags & one) for one in (CO_VARARGS, CO_VARKEYWORDS))
    for name in code.co_varnames[:count]:
        if name in values:
            yield name, values[name]


def _tensors(name: str, value: Any, depth: int = 2) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Handle, Node)):
        yield name, value
    elif isinstance(value, (list, tuple)) and depth:
        for i, inner in enumerate(value):
            yield from _tensors(f"{name}[{i}]", inner, depth - 1)
    elif isinstance(value, dict) and depth:
        for key, inner in value.items():
            yield from _tensors(str(key), inner, depth - 1)


def _origin(value: Any, path: str, held: Mapping[int, str]) -> str:
    """The dtype, shape, name and place of an operand, in words."""
    node: Node = value if isinstance(value, Node) else value.node
    if not node.at and isinstance(value, Handle):  # an input of a trace: as it is outside
        node = value._node  # type: ignore[attr-defined]
    what = ", ".join(f"{spec.dtype.name} {spec.shape}" for spec in node.specs)
    name = held.get(id(value))
    parts = [what if name is None else f"{what}, {path}.{name}"]
    if node.op is not CONST and node.line:
        scope = f"in {node.scope} " if node.scope else ""
        parts.append(f"made {scope}at {in_words(node.line)}")
    return ", ".join(parts)
