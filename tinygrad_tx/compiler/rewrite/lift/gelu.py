"""lift/gelu: gelu and gelu_tanh as written by hand, whatever the order of their factors.

A rule of rewrite/lift/idioms.py. Both formulas are polynomials of x and one erf or tanh: they are
multiplied out and compared.
"""

from __future__ import annotations

from math import isclose, pi, sqrt

from .... import ops
from ....node import Node
from ..engine import about, use
from ..simplify import number

Polynomial = dict[tuple[int, ...], float]  # the coefficient of each product of variables, by number

_SLOPE, _CUBIC = sqrt(2 / pi), 0.044715
_ARGUMENT: dict[str, Polynomial] = {  # of erf or tanh; x is variable 0
    ops.ERF.name: {(0,): sqrt(0.5)},
    ops.TANH.name: {(0,): _SLOPE, (0, 0, 0): _SLOPE * _CUBIC},
}
LOOKED_AT = 32  # nodes below a product: no way of writing it takes more
_WHOLE: Polynomial = {(0,): 0.5, (0, 1): 0.5}  # 0.5 x (1 + erf or tanh)


@about(ops.MUL, ops.DIV)
def gelu(node: Node) -> Node | None:
    """0.5 x (1 + erf(x / sqrt 2)) -> gelu(x); 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    -> gelu_tanh(x)."""
    curve, candidates = _factors(node)
    if curve is None:
        return None
    for x in candidates:
        if (
            x.shape == node.shape
            and _equal(_polynomial(curve.srcs[0], (x,)), _ARGUMENT[curve.op.name], x)
            and _equal(_polynomial(node, (x, curve)), _WHOLE, x)
        ):
            op = ops.GELU if curve.op is ops.ERF else ops.GELU_TANH
            return use(op, (x,), {}, like=node)
    return None


def _factors(node: Node) -> tuple[Node | None, list[Node]]:
    """The erf or tanh in a product, and the other factors, with and without their numbers."""
    left: list[tuple[Node, list[Node]]] = [(node, [])]
    for node, others in left:  # grows meanwhile: what is nearer comes first
        if len(left) > LOOKED_AT:
            break
        if node.op is ops.ERF or node.op is ops.TANH:
            return node, others
        if node.op is ops.ADD:
            a, b = node.srcs
            inner = b if number(a) is not None else a if number(b) is not None else None
            if inner is not None and inner.op is not ops.ADD:
                left.append((inner, others))
        elif node.op is ops.MUL or node.op is ops.DIV:
            a, b = node.srcs
            for inner, other in ((b, a), (a, b)):
                if number(inner) is None:
                    also = other.srcs if other.op in (ops.MUL, ops.DIV) else ()
                    left.append((inner, [other, *also, *others]))
    return None, []


def _polynomial(node: Node, variables: tuple[Node, ...], depth: int = 8) -> Polynomial | None:
    """node multiplied out; None where it is no small polynomial of the variables."""
    if node in variables:
        return {(variables.index(node),): 1.0}
    value = number(node)
    if value is not None:
        return {(): float(value)}
    if not depth or not node.srcs or node.op not in (ops.ADD, ops.MUL, ops.DIV, ops.POW):
        return None
    left = _polynomial(node.srcs[0], variables, depth - 1)
    right = _polynomial(node.srcs[1], variables, depth - 1) if left is not None else None
    if left is None or right is None:
        return None
    if node.op is ops.ADD:
        return {key: left.get(key, 0) + right.get(key, 0) for key in left | right}
    if node.op is ops.MUL:
        return _product(left, right)
    by = right.get(()) if len(right) == 1 else None
    if node.op is ops.DIV:
        return {key: c / by for key, c in left.items()} if by else None
    if by not in (2, 3):
        return None
    square = _product(left, left)
    return square if by == 2 else _product(square, left)


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    out: Polynomial = {}
    for p, c in a.items():
        for q, d in b.items():
            key = tuple(sorted((*p, *q)))
            out[key] = out.get(key, 0) + c * d
    return out


def _equal(found: Polynomial | None, wanted: Polynomial, x: Node) -> bool:
    """True if the coefficients agree to the precision of x's dtype."""
    if found is None or found.keys() != wanted.keys():
        return False
    tolerance = 1e-12 if x.dtype.itemsize == 8 else 1e-6
    return all(isclose(found[key], wanted[key], rel_tol=tolerance) for key in wanted)
