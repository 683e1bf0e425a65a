"""einsum: products of Tensors written by the names of their dimensions.

In: an equation and Tensors. Out: a Tensor. Each pair of operands becomes one matmul (dimensions
that both have and the rest needs are its batch, those that nobody needs any more are summed), or a
product of elements where nothing is summed; operands are taken from the left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from .arguments import explain_functions, shown
from .errors import DTypeError, ShapeError, UserError
from .node import Handle

if TYPE_CHECKING:  # Tensors are made by methods alone
    from .tensor import Tensor

_ELLIPSIS = "."  # followed by the number of a dimension, counted from the right


class _Term(NamedTuple):
    """An operand, and the name of each of its dimensions."""

    x: Tensor
    names: tuple[str, ...]


def einsum(*args: Any) -> Tensor:
    """einsum("bij,bjk->bik", a, b): the sum of products over all names that the result lacks.

    Without -> the result has the names that come once, sorted, after the dimensions of "...". A
    name that comes twice in an operand is its diagonal; dimensions of size 1 broadcast. Also
    einsum(a, [0, 1], b, [1, 2], [0, 2]), with numbers and Ellipsis for names.
    """
    equation, operands = _given(args)
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    parts = inputs.split(",")
    if len(parts) != len(operands):
        raise UserError(
            f"einsum: {equation!r} names {len(parts)} operands, and {len(operands)} are given"
        )
    terms = [_named(equation, *pair) for pair in zip(parts, operands, strict=True)]
    sizes: dict[str, int] = {}
    for term in terms:
        for name, n in zip(term.names, term.x.shape, strict=True):
            if sizes.setdefault(name, n) != n and 1 not in (n, sizes[name]):
                raise ShapeError(
                    f"einsum: in {equation!r} the dimension {name} is {sizes[name]} in one operand "
                    f"and {n} in another"
                )
            sizes[name] = n if sizes[name] == 1 else sizes[name]
    wanted = _wanted(equation, bool(arrow), result, terms, sizes)
    return _contracted([_broadcast(term, sizes) for term in terms], wanted, sizes)


def _given(args: Sequence[Any]) -> tuple[str, list[Tensor]]:
    """The equation and the operands, which may be one list or alternate with lists of numbers."""
    if args and isinstance(args[0], str):
        operands = args[1:]
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        equation = args[0]
    else:
        operands = args[: len(args) // 2 * 2 : 2]
        lists = [*args[1::2], *(args[-1:] if len(args) % 2 else ())]
        texts = [_letters(names) for names in lists]
        equation = ",".join(texts[: len(operands)])
        if len(args) % 2:
            equation += f"->{texts[-1]}"
    for i, x in enumerate(operands):
        if not isinstance(x, Handle):
            raise DTypeError(f"einsum: operand {i} must be a Tensor, not {shown(x)}")
    if not operands:
        raise UserError('einsum: give an equation and Tensors, as in einsum("ij,jk->ik", a, b)')
    return equation, list(operands)


def _letters(names: Any) -> str:
    if not isinstance(names, (list, tuple)) or not all(
        n is Ellipsis or (type(n) is int and 0 <= n < 52) for n in names
    ):
        raise DTypeError(f"einsum: names are a list of numbers from 0 to 51, not {shown(names)}")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join("..." if n is Ellipsis else letters[n] for n in names)


def _named(equation: str, part: str, x: Tensor) -> _Term:
    """An operand with a name for each dimension, those that come twice made one."""
    before, dots, after = part.partition("...")
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise UserError(f"einsum: {equation!r}: names of dimensions are letters, and ... once")
    room = x.ndim - len(before) - len(after)
    if room < 0 or (room and not dots):
        raise ShapeError(
            f"einsum: {part!r} names {len(before) + len(after)} dimensions of an operand {x.shape}"
        )
    names = [*before, *(f"{_ELLIPSIS}{i}" for i in range(room, 0, -1)), *after]
    for name in [name for name, count in Counter(names).items() if count > 1]:
        while names.count(name) > 1:
            i = names.index(name)
            j = names.index(name, i + 1)
            if x.shape[i] != x.shape[j]:
                raise ShapeError(
                    f"einsum: {part!r} names a diagonal of {x.shape}, whose sizes differ"
                )
            x = x.diagonal(0, i, j)
            names = [n for k, n in enumerate(names) if k not in (i, j)] + [name]
    return _Term(x, tuple(names))


def _wanted(
    equation: str, explicit: bool, result: str, terms: list[_Term], sizes: dict[str, int]
) -> tuple[str, ...]:
    """The names of the result's dimensions."""
    dots = sorted((n for n in sizes if n[0] == _ELLIPSIS), key=lambda n: -int(n[1:]))
    if not explicit:
        inputs = equation.replace(" ", "").replace("...", "").replace(",", "")
        return (*dots, *sorted(n for n, count in Counter(inputs).items() if count == 1))
    before, ellipsis, after = result.partition("...")
    wanted = (*before, *(dots if ellipsis else ()), *after)
    for name in wanted:
        if name not in sizes or wanted.count(name) > 1:
            raise UserError(
                f"einsum: {equation!r}: the result has {name!r}, which must come once and be a "
                "name of an operand"
            )
    return wanted


def _broadcast(term: _Term, sizes: dict[str, int]) -> _Term:
    """Without the dimensions of size 1 that others have in full."""
    gone = [i for i, name in enumerate(term.names) if term.x.shape[i] != sizes[name]]
    names = tuple(name for i, name in enumerate(term.names) if i not in gone)
    return _Term(term.x.squeeze(tuple(gone)), names) if gone else term


def _contracted(terms: list[_Term], wanted: tuple[str, ...], sizes: dict[str, int]) -> Tensor:
    done = _Term(*terms[0])
    for i, term in enumerate(terms[1:], 1):
        needed = {*wanted, *(name for later in terms[i + 1 :] for name in later.names)}
        done = _pair(_summed(done, needed | {*term.names}), _summed(term, needed | {*done.names}),
                     needed, sizes)  # fmt: skip
    done = _summed(done, {*wanted})
    return done.x.permute(*(done.names.index(name) for name in wanted)) if wanted else done.x


def _summed(term: _Term, needed: set[str]) -> _Term:
    """Summed over what nobody needs."""
    over = tuple(i for i, name in enumerate(term.names) if name not in needed)
    if not over:
        return term
    total = term.x.sum(over, dtype=term.x.dtype)
    return _Term(total, tuple(n for n in term.names if n in needed))


def _pair(a: _Term, b: _Term, needed: set[str], sizes: dict[str, int]) -> _Term:
    """The product of two operands, summed over what both have and nobody needs."""
    both = [name for name in a.names if name in b.names]
    batch = [name for name in both if name in needed]
    inner = [name for name in both if name not in needed]
    left = [name for name in a.names if name not in both]
    right = [name for name in b.names if name not in both]
    names = (*batch, *left, *right)
    if not inner:
        return _Term(_aligned(a, names) * _aligned(b, names), names)
    lead = tuple(sizes[name] for name in batch)
    m, k, n = (prod(sizes[name] for name in group) for group in (left, inner, right))
    y = _aligned(a, (*batch, *left, *inner)).reshape(*lead, m, k) @ _aligned(
        b, (*batch, *inner, *right)
    ).reshape(*lead, k, n)
    return _Term(y.reshape(tuple(sizes[name] for name in names)), names)


def _aligned(term: _Term, names: Sequence[str]) -> Tensor:
    """The operand with its dimensions in the order of names, 1 where it lacks one."""
    present = [name for name in names if name in term.names]
    x = term.x.permute(*(term.names.index(name) for name in present)) if present else term.x
    at = iter(x.shape)
    return x.reshape(tuple(next(at) if name in term.names else 1 for name in names))


explain_functions(globals())
