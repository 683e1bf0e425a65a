"""TX_CHECK=nan: the first op that makes a NaN or an infinity, by its module and the user's line.

In: an op that has just run, its inputs and its result. Out: CheckError where the result has a NaN
that no input has, or an infinity where all inputs are finite; or where an input is NaN already.
Called by node.py for each op of eager code, and by procedure.py for each of a graph that runs op by
op: compiled functions run so, too, before their kernels do. While TX_CHECK says something else, an
op pays for one look-up.

An infinity in an input is passed on without a word, for masks are made of them; so is what a
constant or an attribute of the op brings in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf, isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from . import settings
from .backends import Backend, get
from .context import Of
from .dtypes import as_dtype, float32
from .errors import CheckError
from .places import Place, in_words, said, shortened

if TYPE_CHECKING:  # node.py imports this file
    from .node import Node
    from .op import Op

asked, _kept = settings.reader("TX_CHECK")
NAN = _kept("nan")  # asked() == NAN: what each op asks, without a call of a function in Python
_PASSED = ("leaf", "loop", "create")  # data, what is checked inside, and what users ask for


def wanted() -> bool:
    """True if TX_CHECK asks for it."""
    return bool(asked() == NAN)


def check(
    op: Op,
    srcs: Sequence[Node],
    arrays: Sequence[Any],
    attrs: Mapping[str, Any],
    out: Any,
    scope: str,
    at: Place,
    of: int | None,
    names: Mapping[Node, str],
) -> None:
    """CheckError where an op has made what is not finite. scope, at, of: those of its node. names:
    of inputs, in words."""
    if op.kind in _PASSED:
        return
    lands = attrs.get("target") or (srcs[0].device if srcs else attrs["device"])
    for result in out if isinstance(out, tuple) else (out,):
        made = _look(lands, result)
        if made is None or made.finite:
            continue
        looks = [_look(src.device, array) for src, array in zip(srcs, arrays, strict=True)]
        what, line, module = _where(op.name, scope, at, of)
        for i, (src, look) in enumerate(zip(srcs, looks, strict=True)):
            if look is not None and look.nans:
                place = ", ".join(filter(None, (module, f"at {shortened(line)}" if line else "")))
                raise CheckError(
                    f"TX_CHECK=nan: input {i} of {what}{f' ({place})' if place else ''} is NaN "
                    f"already, {look.first()}: {_named(src, names)}"
                )
        attributes = [x for x in attrs.values() if isinstance(x, float)]
        passed = any(map(isinf, attributes)) or any(x and x.infinities for x in looks)
        if any(map(isnan, attributes)) or (passed and not made.nans):
            continue
        kind = "NaN" if made.nans else "an infinity"
        parts = [f"TX_CHECK=nan: {what} made {kind} {made.first(looks)}", module]
        parts.append(f"at {in_words(line)}" if line else "")
        error = CheckError(", ".join(filter(None, parts)))
        for i, (src, look) in enumerate(zip(srcs, looks, strict=True)):
            if look is not None:
                error.add_note(f"  input {i}: {look.range()}, {_named(src, names)}")
        raise error


def agree(expected: Sequence[tuple[Node, Any]], found: Sequence[Any]) -> None:
    """CheckError where kernels have made something of a graph's ends that its ops, one by one, have
    not. expected: the ends, and what the ops made of them."""
    for (node, wanted), array in zip(expected, found, strict=True):
        one, other = _look(node.device, wanted), _look(node.device, array)
        if one is not None and other is not None and one.finite and not other.finite:
            raise CheckError(
                f"TX_CHECK=nan: the kernels made {'NaN' if other.nans else 'an infinity'} "
                f"{other.first()} of {node.op.name} at {in_words(node.line)}, where its ops alone "
                "make none: TX_CHECK=1 finds the kernel"
            )


class _Look:
    """What a floating array holds."""

    def __init__(self, xp: Backend, array: Any) -> None:
        self.xp = xp
        self.array = array = xp.cast(array, float32) if array.dtype.itemsize == 2 else array
        of, finite = xp.module, bool(xp.module.isfinite(array).all())
        self.finite = finite
        self.nans = not finite and bool(of.isnan(array).any())
        self.infinities = not finite and bool(of.isinf(array).any())

    def _host(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.xp.to_host(self.array))

    def first(self, inputs: Sequence[_Look | None] = ()) -> str:
        """How many elements, and the first of them. inputs: shown there, if they have its place."""
        value = self._host()
        bad = np.isnan(value) if self.nans else np.isinf(value)
        text = f"in {int(bad.sum())} of {bad.size} elements"
        if not value.ndim:
            place: tuple[int, ...] = ()
            text = f"({value})"
        else:
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            text += f", the first ({value[place]}) at {place}"
        of = [x.at(place, value.shape) for x in inputs if x is not None]
        return text + (f", of {' and '.join(of)}" if of and all(of) else "")

    def at(self, place: tuple[int, ...], shape: tuple[int, ...]) -> str:
        """The element at a place of what it is broadcast to; empty where it is not."""
        value = self._host()
        try:
            return str(np.broadcast_to(value, shape)[place])
        except ValueError:
            return ""

    def range(self) -> str:
        value = self._host()
        value = value[np.isfinite(value)]
        infinite = "infinities and " if self.infinities else ""
        return f"{infinite}{value.min()} to {value.max()}" if value.size else "nothing finite"


def _look(device: str, array: Any) -> _Look | None:
    """None of what are no floats, or has no values."""
    dtype, xp = getattr(array, "dtype", None), get(device)
    floats = dtype is not None and as_dtype(dtype).is_floating_point
    return _Look(xp, array) if floats and array.size and xp.computes else None


def _where(name: str, scope: str, at: Place, of: int | None) -> tuple[str, str, str]:
    """An op, its line and its module, in words; of a gradient, those of the op whose gradient it
    is."""
    if isinstance(of, Of) and of.op:
        inside = "" if name == of.op else f" (by {name})"
        name, at = f"the gradient of {of.op}{inside}", of.at
    return name, said(at), f"in the module {scope}" if scope else ""


def _named(node: Node, names: Mapping[Node, str]) -> str:
    """An input by its dtype and shape, and where it was made."""
    what = " and ".join(f"{spec.dtype.name} {spec.shape}" for spec in node.specs)
    name = names.get(node)
    if name is None and node.line:
        name = f"made {f'in {node.scope} ' if node.scope else ''}at {in_words(node.line)}"
    return f"{what}, {name}" if name else what
