"""The API reference as Markdown: every public name of the package with its signature and docstring.

In: the package, as Python sees it. Out: a page for each public module, and for classes with very
many members. Called by pages.py beside it, and by the tests, which hold it to be complete. Nothing
is listed by hand: what is public is what `__all__` says, and where a module has none, what it
defines and what it imports `as` itself, which is how type checkers see it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Collection, Iterator
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import tinygrad_tx

WIDTH = 80  # of a signature on one line
MANY = 30  # members: a class with more has a page of its own
Member = tuple[str, Any]


class Entry(NamedTuple):
    """A public name: where it is found ("tx.nn.Linear"), and what it is."""

    path: str
    value: Any
    module: ModuleType

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@cache
def modules() -> dict[str, ModuleType]:
    """Every public module by the path that leads to it: "tx", "tx.nn", "tx.nn.functional", ..."""
    found, waiting = {}, [("tx", tinygrad_tx)]
    for path, module in waiting:
        found[path] = module
        for name in public(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                waiting.append((f"{path}.{name}", value))
    return found


def public(module: ModuleType) -> list[str]:
    """The public names of a module."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    names = []
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom):
            names += [a.name for a in node.names if a.name == a.asname]
    defined = (ast.FunctionDef, ast.ClassDef)
    names += [node.name for node in _parsed(module).body if isinstance(node, defined)]
    return [name for name in names if not name.startswith("_")]


@cache
def entries() -> tuple[Entry, ...]:
    """All public names but those of modules, in the order of their modules."""
    return tuple(
        Entry(f"{path}.{name}", value, module)
        for path, module in modules().items()
        for name in public(module)
        for value in [getattr(module, name)]
        if not isinstance(value, ModuleType)
    )


def said(entry: Entry) -> str:
    """The docstring of a public name; of a value, the text that stands below it in the source."""
    value = entry.value
    if inspect.isclass(value):
        return inspect.cleandoc(vars(value).get("__doc__") or "")
    if inspect.isroutine(value):
        return inspect.getdoc(value) or ""
    return _below(entry.module, entry.name)


def members(cls: type) -> list[Member]:
    """The public methods and properties of a class, also of bases that are not public themselves.
    What only overrides a public base's, without a docstring, is told there."""
    classes = {entry.value for entry in entries() if inspect.isclass(entry.value)} - {cls}
    shown = {b for base in cls.__mro__ if base in classes for b in base.__mro__}
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in shown or not base.__module__.startswith("tinygrad_tx"):
            continue
        for name, value in vars(base).items():
            kinds = (property, cached_property, classmethod, staticmethod)
            if name[0] != "_" and (inspect.isfunction(value) or isinstance(value, kinds)):
                found.setdefault(name, value)
    return [
        (name, value)
        for name, value in found.items()
        if value.__doc__ or not any(hasattr(base, name) for base in cls.__mro__ if base in shown)
    ]


# Pages -------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Markdown by the name of its file below reference/."""
    places = _places()
    texts: dict[str, list[str]] = {}
    for path, module in modules().items():
        about = prose(inspect.getdoc(module) or "")
        texts[_file(path)] = [f"# `{path}` {{ #{path} }}", about, _contents(path, places)]
    for entry in entries():
        file = places[id(entry.value)][0] if _is_documented(entry, places) else None
        home = _file(entry.path.rpartition(".")[0])
        if file is None:
            first = places[id(entry.value)]
            texts[home] += [_heading(entry, 2), f"The same as [`{first[1]}`]({_link(first)})."]
        elif file == home:
            texts[home] += _described(entry, 2)
        else:
            texts[file] = _described(entry, 1)
            texts[home] += [f"## `{entry.name}`", f"[`{entry.path}`]({file}) has its own page."]
    return {file: "\n\n".join(parts) + "\n" for file, parts in texts.items()}


def _file(path: str) -> str:
    return f"{path}.md"


def _anchor(path: str) -> str:
    return path.replace("__", "")  # which Markdown would take for bold


def _link(place: tuple[str, str]) -> str:
    return f"{place[0]}#{_anchor(place[1])}"


@cache
def _places() -> dict[int, tuple[str, str]]:
    """The file and the path under which something is described, by its id: what several modules
    offer is described where it comes first."""
    found: dict[int, tuple[str, str]] = {}
    for entry in entries():
        own = inspect.isclass(entry.value) and len(members(entry.value)) > MANY
        file = _file(entry.path if own else entry.path.rpartition(".")[0])
        found.setdefault(id(entry.value), (file, entry.path))
    return found


def _is_documented(entry: Entry, places: dict[int, tuple[str, str]]) -> bool:
    return places[id(entry.value)][1] == entry.path


def _contents(path: str, places: dict[int, tuple[str, str]]) -> str:
    """The names of a module in one paragraph of links."""
    module = modules()[path]
    links = []
    for name in public(module):
        value = getattr(module, name)
        inner = f"{path}.{name}"
        here = f"{_file(inner)}#{inner}" if isinstance(value, ModuleType) else None
        links.append(f"[`{name}`]({here or _link(places[id(value)])})")
    return " ".join(links)


def _heading(entry: Entry, level: int) -> str:
    name = entry.name if level > 1 else entry.path
    return f"{'#' * level} `{name}` {{ #{_anchor(entry.path)} }}"


def _described(entry: Entry, level: int) -> list[str]:
    """A public name: heading, signature, docstring, members."""
    value = entry.value
    parts = [_heading(entry, level)]
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return [*parts, _block(f"{entry.path} = {_brief(value)}"), prose(said(entry))]
    prefix = "class " if inspect.isclass(value) else ""
    parts.append(_block(signature(value, f"{prefix}{entry.path}")))
    parts.append(prose(said(entry), _parameters(value)))
    if inspect.isclass(value):
        bases = [b for b in value.__mro__[1:] if id(b) in _places()]
        if bases:
            place = _places()[id(bases[0])]
            parts.append(f"Derives from [`{place[1]}`]({_link(place)}).")
        for name, member in members(value):
            parts.append(f"{'#' * (level + 1)} `{name}` {{ #{entry.path}.{name} }}")
            parts += _member(value, name, member)
    return parts


def _member(cls: type, name: str, member: Any) -> list[str]:
    if isinstance(member, (property, cached_property)):
        getter = member.fget if isinstance(member, property) else member.func
        given = inspect.signature(getter).return_annotation
        kind = f"{name}: {_written(given)}" if isinstance(given, str) else name
        return [_block(kind), prose(inspect.cleandoc(member.__doc__ or ""))]
    function = getattr(cls, name)
    bound = "classmethod " if isinstance(member, classmethod) else ""
    bound = "staticmethod " if isinstance(member, staticmethod) else bound
    text = signature(function, f"{bound}{name}", method=inspect.isfunction(member))
    return [_block(text), prose(inspect.getdoc(function) or "", _parameters(function))]


# Text --------------------------------------------------------------------------------------------


class _Raw:
    """Text that a Signature prints as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(value: Any, name: str, method: bool = False) -> str:
    """name(parameters) -> result, on a line for each parameter where one line is too long."""
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    own = [
        p.replace(annotation=_annotation(p.annotation), default=_default(p.default))
        for p in list(given.parameters.values())[method:]
    ]
    result = given.empty if inspect.isclass(value) else _annotation(given.return_annotation)
    line = name + str(given.replace(parameters=own, return_annotation=result))
    if len(line) <= WIDTH:
        return line
    one = [str(inspect.Signature([p]))[1:-1] for p in own]
    kinds = [p.kind for p in own]
    star = kinds.index(inspect.Parameter.KEYWORD_ONLY) if _bare_star(kinds) else None
    one = [x.removeprefix("*, ") for x in one]
    if star is not None:
        one.insert(star, "*")
    arrow = "" if result is given.empty else f" -> {result!r}"
    return "\n".join([f"{name}(", *(f"    {x}," for x in one), f"){arrow}"])


def _bare_star(kinds: list[Any]) -> bool:
    kind = inspect.Parameter
    return kind.KEYWORD_ONLY in kinds and kind.VAR_POSITIONAL not in kinds


def _annotation(given: Any) -> Any:
    return _Raw(_written(given)) if isinstance(given, str) else given


def _written(annotation: str) -> str:
    return annotation.strip("'\"").replace("builtins.", "")


def _default(given: Any) -> Any:
    return given if given is inspect.Parameter.empty else _Raw(_brief(given))


def _brief(value: Any) -> str:
    """A value as it would be written; what has no such form as three dots."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return str(value.__name__)
    text = repr(value)
    return "..." if text.startswith("<") or " at 0x" in text else text


def _block(code: str) -> str:
    return f"```python\n{code}\n```"


def _parameters(value: Any) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


def prose(doc: str, parameters: Collection[str] = ()) -> str:
    """A docstring as Markdown: what would mean something there and does not in a docstring is
    escaped, but for `code` and indented examples; parameters that a sentence begins with stand
    out."""
    parts = re.split(r"\n\s*\n", doc)
    return "\n\n".join(x if x.startswith("    ") else _escaped(x, parameters) for x in parts)


def _escaped(paragraph: str, parameters: Collection[str]) -> str:
    parts = re.split(r"(`[^`]*`)", paragraph)
    for i in range(0, len(parts), 2):
        text = re.sub(r"([*_<>\[\]])", r"\\\1", parts[i].replace("&", "&amp;"))
        names = r"(?:\w|\\_)+(?:,\s(?:\w|\\_)+)*"
        parts[i] = re.sub(rf"(^|[.;)]\s+)({names}):(?=\s)", lambda m: _marked(m, parameters), text)
    return re.sub(r"^(\s*)([#+])", r"\1\\\2", "".join(parts), flags=re.MULTILINE)


def _marked(match: re.Match[str], parameters: Collection[str]) -> str:
    names = match[2].replace("\\", "").replace(",", " ").split()
    if not set(names) <= set(parameters):
        return match[0]
    before = f"{match[1].rstrip()}  \n" if "\n" in match[1] else match[1]
    return f"{before}{', '.join(f'**`{name}`**' for name in names)}:"


# Sources -----------------------------------------------------------------------------------------


@cache
def _parsed(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))


def _below(module: ModuleType, name: str) -> str:
    """The string below the assignment of a name, in the module that it comes from."""
    body = _parsed(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if name in _assigned(node):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return inspect.cleandoc(str(after.value.value)) if told else ""  # type: ignore[union-attr]
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    source = "." * node.level + (node.module or "")
                    package = module.__package__ or ""
                    return _below(import_module(source, package), alias.name)
    return ""


def _assigned(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return (target.id for target in targets if isinstance(target, ast.Name))
