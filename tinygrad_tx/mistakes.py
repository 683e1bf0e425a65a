"""The message when an op's record is wrong, or an op is called wrongly: one line, by its name.

In: an exception out of one of a record's functions, and what the function was called with. Out:
OpError in its place, where the cause can be told. Called by op.py, node.py and autograd.py, when
something has failed. Names that are missing (of a Tensor, a module, a package) are said here, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from .errors import DeferredIndexError, OpError, ShapeError

KINDS = ("map", "reduce", "move", "matmul", "gather", "random", "create", "fused", "opaque")
AUTOCASTS = ("half", "float32", "given")
_INNER = ("leaf", "loop", "released", "scan", "transfer")  # the engine's own


def check_record(name: Any, kind: Any, promote: Any, ours: bool, **functions: Any) -> None:
    """Raise TypeError or ValueError for a record of an op that cannot be meant."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"Op: a name is a str, not {name!r}")
    if promote is not None and not (
        isinstance(promote, tuple) and all(type(i) is int for i in promote)
    ):
        raise TypeError(f'Op "{name}": promote= must be a tuple of ints, not {promote!r}')
    if kind not in KINDS and not (ours and kind in _INNER):
        raise ValueError(f'Op "{name}": no kind {kind!r}{near(kind, KINDS)}')
    for role, function in functions.items():
        if not callable(function) and (role == "forward" or function is not None):
            raise TypeError(f'Op "{name}": {role}= must be a function, not {function!r}')


def check_autocast(name: str, autocast: Any) -> None:
    """Raise ValueError where a record says what no operands are under autocast."""
    if autocast not in AUTOCASTS:
        raise ValueError(f'Op "{name}": no autocast={autocast!r}{near(autocast, AUTOCASTS)}')


def near(name: Any, known: Collection[str]) -> str:
    """ "; did you mean a, b?", or what there is."""
    found = get_close_matches(str(name), list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(found)}?" if found else f"; there are {', '.join(known)}"


@lru_cache(maxsize=256)
def _nearest(name: str, known: frozenset[str]) -> str:
    """ "; did you mean a?" where a name is written almost so, or goes on from there; else empty."""
    found = get_close_matches(name, known, n=3, cutoff=0.6)
    bare = name.replace("_", "").lower()
    found += sorted(x for x in known if x not in found and x.replace("_", "").lower() == bare)
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""


def missing(owner: Any, what: str, name: str, known: Collection[str]) -> AttributeError:
    """The error of an attribute that is not there, with the names near to it. what: the owner in
    words. Programs ask for attributes to see whether they are there, so names are compared once."""
    hint = ""
    if not name.startswith("_"):
        hint = _nearest(name, frozenset(x for x in known if not x.startswith("_")))
    error = AttributeError(f"{what} has no attribute {name!r}{hint}", obj=owner)
    vars(error)["wanted"] = name  # as name= Python would add a guess of its own
    return error


def missing_from(owner: Any, what: str, name: str) -> AttributeError:
    """As missing(), of an object's __getattr__: what it and its class have. An error out of a
    property comes again, as it is."""
    cls = type(owner)
    if any(name in vars(c) for c in cls.__mro__):
        object.__getattribute__(owner, name)
    return missing(owner, what, name, () if name.startswith("_") else dir(owner))


def explain(
    error: Exception,
    op: str,
    role: str,
    function: Callable[..., Any] | None = None,
    given: tuple[Any, ...] = (),
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Raise what a user can act on in the place of an error of op's `role` (forward, rule, vjp or
    decompose), called as function(*given, **attrs). Return where the error says it by itself."""
    if isinstance(error, (OpError, DeferredIndexError)):  # they are named
        return
    if isinstance(error, IndexError):
        of = (attrs or {}).get("of") if op == "wrap_index" else None
        raise IndexError(f"{of or op}: {error}") from None
    if isinstance(error, TypeError) and function is not None:
        why = _misfit(function, given, attrs or {})
        if why:
            raise OpError(f"{op}: its {role} {why}") from None
    if isinstance(error, AttributeError) and (what := _kind(error.obj)):
        wanted = error.name or vars(error).get("wanted")
        known = [name for name in dir(error.obj) if not name.startswith("_")]
        hint = near(wanted, known)
        hint = hint if hint.startswith("; did") else "; see docs/extending.md for what it has"
        raise OpError(
            f"{op}: its {role} asks {what} for {wanted}, which it has not{hint}"
        ) from None
    if role == "forward" and isinstance(error, ValueError) and "read-only" in str(error):
        raise OpError(
            f"{op}: its forward writes into one of its inputs, which others hold, too: copy it "
            "first, as in x = x.copy()"
        ) from None
    error.add_note(f"in the {role} of the op {op}")


class naming:  # noqa: N801
    """Explains an error inside by the node, whose op's name a forward does not know."""

    __slots__ = ("node",)

    def __init__(self, node: Any = None) -> None:
        self.node = node

    def __enter__(self) -> naming:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if self.node is not None and isinstance(error, Exception):
            explain(error, self.node.op.name, "forward", attrs=self.node.attrs)


def broken(op: str, array: Any, spec: Any) -> ShapeError:
    """The error of a forward that made something else than its rule promised."""
    return ShapeError(
        f"{op}: the forward made {array.dtype} {array.shape}, "
        f"its rule promises {spec.dtype.name} {spec.shape}"
    )


def _misfit(function: Callable[..., Any], given: tuple[Any, ...], attrs: Mapping[str, Any]) -> str:
    """The reason for which a function cannot be called like this; empty where it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a built-in function
        return ""
    try:
        signature.bind(*given, **attrs)
    except TypeError as why:
        named = [f"{name}={value!r}" for name, value in attrs.items()]
        return (
            f"is written for {signature}, but called with {len(given)} arguments"
            f"{' and ' * bool(named)}{', '.join(named)}: {why}; attributes are passed by name"
        )
    return ""


def _kind(owner: Any) -> str:
    """The kind of a value that a record's functions are handed, in words; empty for any other."""
    kinds = {"Backend": "xp", "Handle": "a Tensor", "Node": "a node"}
    return next((kinds[c.__name__] for c in type(owner).__mro__ if c.__name__ in kinds), "")
