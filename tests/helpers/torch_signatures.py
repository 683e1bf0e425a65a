"""PyTorch's signatures, recorded, and what of ours is held to them.

`python tests/helpers/torch_signatures.py`, with PyTorch installed, writes torch_signatures.json and
the table in docs/pytorch.md; test_torch_signatures.py reads the file and needs no PyTorch. What
goes in: the names that this library and PyTorch share. What comes out: for each, the parameters as
inspect tells them, or where it cannot, as the first line of the documentation and PyTorch's own
list of testing overrides do; and all public names, so that a new one of ours is noticed.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tinygrad_tx as tx

HERE = Path(__file__).parent
FILE = HERE / "torch_signatures.json"
PAGE = HERE.parents[1] / "docs" / "pytorch.md"
MARKS = (
    "<!-- differences: made by tests/helpers/torch_signatures.py -->",
    "<!-- end of differences -->",
)
_OWN = ("MultiHeadAttention", "LoRALinear")  # layers that PyTorch has not
LAYERS = [
    name
    for name in tx.nn.__all__
    if name not in _OWN and inspect.isclass(layer := getattr(tx.nn, name))
    if issubclass(layer, tx.nn.Module)
]
OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adafactor")


class Parameter(NamedTuple):
    """One parameter: default is its text, None where there is none; kind is "positional",
    "keyword" or "many" (*size)."""

    name: str
    default: str | None
    kind: str


# Whose names are walked: ours, and PyTorch's as code, for it need not be there.
SPACES = {
    "tx": (tx, "torch"),
    "Tensor": (tx.Tensor, "torch.Tensor"),
    "autograd": (tx.autograd, "torch.autograd"),
    "F": (tx.nn.functional, "torch.nn.functional"),
    "nn": (tx.nn, "torch.nn"),
    "nn.init": (tx.nn.init, "torch.nn.init"),
    "optim": (tx.optim, "torch.optim"),
    "optim.lr_scheduler": (tx.optim.lr_scheduler, "torch.optim.lr_scheduler"),
    "utils.data": (tx.data, "torch.utils.data"),
    "nn.utils": (tx.optim, "torch.nn.utils"),  # clip_grad_norm_
    **{f"nn.{name}": (getattr(tx.nn, name), f"torch.nn.{name}") for name in LAYERS},
    **{f"optim.{n}": (getattr(tx.optim, n), f"torch.optim.{n}") for n in OPTIMIZERS},
}


def walk() -> Iterator[tuple[str, Any]]:
    """Everything public of ours that can be called, by its dotted name."""
    for space, (owner, _) in SPACES.items():
        names = getattr(owner, "__all__", None) or [n for n in dir(owner) if n[0] != "_"]
        for name in names:
            value = getattr(owner, name)
            module = inspect.isclass(owner) and issubclass(owner, tx.nn.Module)
            if value is tx.Tensor or not callable(value) or inspect.ismodule(value):
                continue
            if module and owner is not tx.nn.Module and value is getattr(tx.nn.Module, name, None):
                continue  # walked with Module
            if (getattr(value, "__module__", None) or "").startswith("tinygrad_tx"):
                yield f"{space}.{name}", value


def parameters(function: Any) -> list[Parameter]:
    """What a call takes, without self."""
    return [
        Parameter(p.name, None if p.default is p.empty else _text(p.default), _kind(p))
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name != "self"
    ]


def _kind(p: inspect.Parameter) -> str:
    many = p.kind is p.VAR_POSITIONAL
    return "many" if many else "keyword" if p.kind is p.KEYWORD_ONLY else "positional"


def _text(default: Any) -> str:
    plain = isinstance(default, (type(None), bool, int, float, str, tuple))
    return repr(default) if plain else f"<{type(default).__name__}>"


def in_words(line: str) -> list[Parameter]:
    """The parameters of a documentation's line such as "arange(start=0, end, *, out=None)"."""
    found, kind = [], "positional"
    inside = line[line.index("(") + 1 : line.rindex(")", 0, (line + " ->").index(" ->"))]
    while "[" in inside:  # types of types
        inside = re.sub(r"\[[^\[\]]*\]", "", inside)
    for part in re.split(r",\s*(?![^(]*\))", inside.replace("\\", "")):
        name, _, default = re.sub(r":[^=]*", "", part.strip()).partition("=")  # without its type
        if name.strip() == "*":
            kind = "keyword"
        elif name.strip() and not name.startswith("**"):
            many = name.startswith("*")
            text = default.strip() or None
            found.append(Parameter(name.strip(" *"), text, "many" if many else kind))
            kind = "keyword" if many else kind
    return found


# Comparing -----------------------------------------------------------------------------------


def disagreements(ours: list[Parameter], theirs: list[Parameter]) -> dict[str, str]:
    """Where a call meant for theirs means something else for ours, by the parameter's name."""
    found: dict[str, str] = {}
    by_name = {p.name: p for p in ours}
    places = [p.name for p in ours if p.kind == "positional"]
    many = next((p.name for p in ours if p.kind == "many"), None)
    place = 0
    for p in theirs:
        mine = by_name.get(p.name)
        if mine is None:
            found[p.name] = "is not taken"
        elif p.kind == "positional" and mine.kind != "many":
            if many is None and (place >= len(places) or places[place] != p.name):
                found[p.name] = "stands in another place"
            place += 1
        elif p.kind == "many" and mine.kind != "many":
            found[p.name] = "is one sequence, not one by one"
        if mine is not None and not _same(mine, p):
            found[p.name] = f"is {mine.default} by default, not {p.default}"
    known = {p.name for p in theirs}
    for p in ours:
        if p.name not in known and p.default is None and p.kind != "many":
            found[p.name] = "is no parameter of PyTorch's and has no default"
    return found


def _same(ours: Parameter, theirs: Parameter) -> bool:
    if ours.default is None or theirs.default is None:
        # A default where PyTorch has none takes every call that PyTorch takes.
        return theirs.default is None or ours.kind == "many"
    a, b = (_value(p.default) for p in (ours, theirs))
    return bool(a == b)


def _value(text: str | None) -> Any:
    """A default's value; what only PyTorch has (torch.strided, a pickle module) is our None."""
    try:
        return ast.literal_eval(text or "None")
    except (ValueError, SyntaxError):
        return None


# Recording, with PyTorch ------------------------------------------------------------------------


def record() -> dict[str, Any]:
    """The file's contents."""
    import torch
    from torch.overrides import get_testing_overrides

    overrides = get_testing_overrides()
    theirs = {space: eval(code, {"torch": torch}) for space, (_, code) in SPACES.items()}
    signatures: dict[str, Any] = {}
    for name, _ in walk():
        space, _, last = name.rpartition(".")
        function = getattr(theirs[space], last, None)
        # What a function that dispatches on return_indices takes stands in this one's signature.
        function = getattr(theirs[space], f"{last}_with_indices", function)
        if callable(function):
            signatures[name] = _recorded(function, overrides, last, space == "Tensor")
    names = {
        space: sorted(n for n in dir(owner) if n[0] != "_" and callable(getattr(owner, n)))
        for space, owner in theirs.items()
    }
    return {"torch": torch.__version__.split("+")[0], "signatures": signatures, "names": names}


def _recorded(function: Any, overrides: dict[Any, Any], name: str, method: bool) -> dict[str, Any]:
    head = (function.__doc__ or "").strip().partition("\n")[0]
    if head.startswith("__init__("):  # RNN and its like, which take *args
        return {"doc": in_words(head)}
    try:
        given = parameters(function)
        # (*args, **kwargs) alone says nothing: that of a layer without options.
        return {"inspect": given if [p.name for p in given] != ["args"] else []}
    except (ValueError, TypeError):
        found: dict[str, Any] = {}
    lines = (function.__doc__ or "").splitlines()
    heads = [line.strip().removeprefix(".. method:: ") for line in lines]
    heads = [h for h in heads if h.startswith(f"{name}(") and "->" in h]
    if heads:
        found["doc"] = in_words(heads[0])
    if function in overrides:
        given = parameters(overrides[function])
        # Of a method they list the function's parameters, the Tensor first.
        of_self = method and given and given[0].name in ("input", "tensor", "condition")
        found["overrides"] = [
            p for p in given[bool(of_self) :] if not method or p.name not in ("out", "inplace")
        ]
    return found


def held_to(recorded: dict[str, Any]) -> list[Parameter]:
    """The parameters that ours are held to: where inspect has none, those that the documentation
    names, for the overrides leave some out and invent others."""
    for source in ("inspect", "doc", "overrides"):
        if recorded.get(source):
            return [Parameter(*p) for p in recorded[source]]
    return []


def text(found: dict[str, Any]) -> str:
    """The file: one line for each name."""

    def lines(table: dict[str, Any]) -> str:
        rows = (f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table.items()))
        return "{\n" + ",\n".join(rows) + "\n  }"

    return (
        f'{{\n  "torch": {json.dumps(found["torch"])},\n'
        f'  "signatures": {lines(found["signatures"])},\n'
        f'  "names": {lines(found["names"])}\n}}\n'
    )


def page(old: str) -> str:
    """docs/pytorch.md with the table of the differences made anew."""
    from torch_differences import table

    before, _, rest = old.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    return f"{before}{MARKS[0]}\n\n{table()}\n{MARKS[1]}{after}"


if __name__ == "__main__":
    FILE.write_text(text(record()), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
