"""lift: rules that recognise idioms written by hand (a softmax, a layer norm, ...) and replace each
by the one op that computes it. A rule is named by the op that it makes.

In: the roots of a recorded graph. Out: roots with the same values. Called before gradients are
taken (capture/trace.py), because afterwards a softmax has a second reader, and once more as a pass
(pipeline.py), for graphs without gradients. An intermediate result with another reader stays
alive: the recognised op replaces the idiom's last node only.

No value changes but by rounding: a spelling that overflows where the op would not, or that makes
NaN of a row of -inf where the op would not, stays as it is. Three exceptions are accepted: where a
score is +inf, more of its row may become NaN; a gradient that is NaN only because its spelling
divides by zero or overflows on the way may become the correct value; and a mask of -1e9 or the like
counts as -inf, because scores are assumed to lie above -1e8.
"""

from __future__ import annotations

from math import isclose, prod

from .... import ops
from ....node import REBOUND, Node
from ....rules import reduced
from ..cse import cse
from ..engine import Roots, Rule, about, rewrite, use
from ..registered import registered
from ..simplify import BEFORE_GRADIENTS, number
from .attention import attention
from .gelu import gelu

DEEP = 8  # steps through reshapes, signs and roots: no way of writing a formula takes more


def lift(roots: Roots, *, differentiable: bool = False) -> Roots:
    """The pass; `differentiable` as in rewrite/engine.py. Duplicates go first, for a rule compares
    nodes."""
    roots = cse(roots, differentiable=differentiable)
    rules = (*BEFORE_GRADIENTS, *RULES, *registered(before_gradients=True))
    return rewrite(roots, rules, differentiable=differentiable)


# softmax ---------------------------------------------------------------------------------------


@about(ops.DIV, ops.MUL)
def softmax(node: Node) -> Node | None:
    """exp(x - max) / sum(exp(x - max)) -> softmax(x)."""
    match _quotient(node):
        case (Node(op=ops.EXP, srcs=(shifted,)) as e, Node(op=ops.SUM, srcs=(summed,)) as total):
            axis = total.attrs["axis"]
            if summed is e and len(axis) == 1 and _is_shifted(shifted, axis):
                return use(ops.SOFTMAX, shifted.srcs[:1], {"axis": axis[0]}, like=node)
    return None


@about(ops.SUB)
def log_softmax(node: Node) -> Node | None:
    """(x - max) - log(sum(exp(x - max))) or x - (max + log(sum(exp(x - max)))) -> log_softmax(x).
    Not x - logsumexp(x), which has other values where x has inf, and gradients where all is -inf:
    it costs the same as it is."""
    x, total = node.srcs
    pairs = zip(total.srcs, total.srcs[::-1], strict=True) if total.op is ops.ADD else ()
    for shift, log in ((None, total), *pairs):
        shifted, axis = _log_sum_exp(log)
        wanted = shifted and (shifted is x if shift is None else shifted.srcs == (x, shift))
        if shifted and wanted and _is_shifted(shifted, axis):
            if len(axis) == 1:
                return use(ops.LOG_SOFTMAX, shifted.srcs[:1], {"axis": axis[0]}, like=node)
            return None
    return None


@about(ops.ADD)
def logsumexp(node: Node) -> Node | None:
    """log(sum(exp(x - m))) + m -> logsumexp(x), where m is the maximum, or 0 for one that is not
    finite. Without that provision a row of -inf is NaN, which logsumexp does not say."""
    for log, outer in (node.srcs, node.srcs[::-1]):
        shifted, axis = _log_sum_exp(_flat(log))
        if (
            shifted is None
            or shifted.op is not ops.SUB
            or _flat(shifted.srcs[1]) is not _flat(outer)
        ):
            continue
        x, shift = shifted.srcs
        match _plain(shift):
            case Node(op=ops.WHERE, srcs=(Node(op=ops.ISFINITE, srcs=(tested,)), top, zero)) if (
                _plain(tested) is _plain(top) and number(zero) == 0
            ):
                if _is_max(_plain(top), x, axis) and prod(shift.shape) == prod(node.shape):
                    y = use(ops.LOGSUMEXP, (x,), {"axis": axis}, like=node)
                    return use(ops.RESHAPE, (y,), {"shape": node.shape}, like=node)
    return None


def _log_sum_exp(node: Node) -> tuple[Node | None, tuple[int, ...]]:
    """(x, axis) where node is log(sum(exp(x), axis))."""
    match node:
        case Node(
            op=ops.LOG, srcs=(Node(op=ops.SUM, srcs=(Node(op=ops.EXP, srcs=(x,)),)) as total,)
        ):
            return x, total.attrs["axis"]
    return None, ()


def _is_shifted(node: Node, axis: tuple[int, ...]) -> bool:
    """True if node is x minus its maximum along axis."""
    if node.op is not ops.SUB:
        return False
    x, shift = node.srcs
    return _is_max(_plain(shift), x, axis) and shift.shape == reduced(x.shape, axis)


def _is_max(node: Node, x: Node, axis: tuple[int, ...]) -> bool:
    """True if node is the maximum of x along axis."""
    match node:
        case Node(op=ops.MAX, srcs=(y,)):
            return node.attrs["axis"] == axis and _attached(y) is _attached(x)
        case Node(op=ops.TAKE_ALONG, srcs=(y, Node(op=ops.ARGMAX, srcs=(of,)) as index)):
            along = axis == (node.attrs["axis"],) == (index.attrs["axis"],)
            return along and _attached(of) is _attached(y) is _attached(x)
    return False


def _plain(node: Node) -> Node:
    """node without reshapes, copies and detaching: for a maximum, whose gradient cancels out."""
    while node.op in (ops.RESHAPE, ops.COPY, REBOUND):
        node = node.srcs[0]
    return node


def _attached(node: Node) -> Node:
    while node.op in (ops.COPY, REBOUND):
        node = node.srcs[0]
    return node


def _flat(node: Node) -> Node:
    """node without the reshape around it."""
    return node.srcs[0] if node.op is ops.RESHAPE else node


def _quotient(node: Node) -> tuple[Node, Node] | None:
    """(a, b) where node is a / b, also by way of 1 / b or b ** -1."""
    match node:
        case Node(op=ops.DIV, srcs=(a, b)):
            return a, b
        case Node(op=ops.MUL, srcs=factors):
            for a, inverse in (factors, factors[::-1]):
                base, exponent = _power(inverse)
                if exponent == -1 and base.shape == inverse.shape:
                    return a, base
    return None


def _power(node: Node) -> tuple[Node, float]:
    """(base, exponent): node as a power of a positive base, whatever reshapes are in between."""
    exponent = 1.0
    for _ in range(DEEP):
        node = _flat(node)
        match node:
            case Node(op=ops.SQRT, srcs=(x,)):
                exponent *= 0.5
            case Node(op=ops.RSQRT, srcs=(x,)):
                exponent *= -0.5
            case Node(op=ops.DIV, srcs=(one, x)) if number(one) == 1:
                exponent *= -1.0
            case Node(op=ops.POW, srcs=(x, p)) if number(p) in (-1, -0.5, 0.5):
                exponent *= number(p)
            case _:
                break
        node = x
    return _flat(node), exponent


# layer norm ------------------------------------------------------------------------------------


@about(ops.MUL, ops.DIV)
def layer_norm(node: Node) -> Node | None:
    """(x - mean) / sqrt(var + eps), in any spelling of the root -> layer_norm(x). A factor that
    was multiplied in before the division comes after it."""
    divides = node.op is ops.DIV
    for centred, scale in (node.srcs,) if divides else (node.srcs, node.srcs[::-1]):
        base, exponent = _power(scale)
        if exponent != (0.5 if divides else -0.5):
            continue
        for part in (centred, *(centred.srcs if centred.op is ops.MUL else ())):
            x, eps = _centred(part), _epsilon(base, part)
            kept = (*part.shape[:-1], 1)
            if x is None or eps is None or scale.shape != kept or part.shape != node.shape:
                continue
            y = use(ops.LAYER_NORM, (x,), {"eps": eps}, like=node)
            if part is centred:
                return y
            a, b = centred.srcs
            return use(ops.MUL, (y, b if a is part else a), {}, like=node)
    return None


@about(ops.MUL, ops.ADD)
def affine_layer_norm(node: Node) -> Node | None:
    """layer_norm(x) * weight -> layer_norm(x, weight); + bias -> layer_norm(x, weight, bias)."""
    for y, p in (node.srcs, node.srcs[::-1]):
        if y.op is ops.LAYER_NORM and len(y.srcs) == (1 if node.op is ops.MUL else 2):
            columns = y.shape[-1:]
            if p.shape[-1:] == columns and prod(p.shape) == columns[0] and p.ndim <= y.ndim:
                row = use(ops.RESHAPE, (p,), {"shape": columns}, like=node)
                return use(ops.LAYER_NORM, (*y.srcs, row), y.attrs, like=node)
    return None


def _centred(node: Node) -> Node | None:
    """x where node is x minus its mean along the last axis."""
    match node:
        case Node(op=ops.SUB, srcs=(x, mean)) if x.ndim and mean.shape == (*x.shape[:-1], 1):
            return x if _mean_of(mean) is x else None
    return None


def _epsilon(node: Node, centred: Node) -> float | None:
    """eps where node is the mean of centred^2, plus eps."""
    terms: tuple[tuple[Node, Node | None], ...] = ((node, None),)
    if node.op is ops.ADD:
        a, b = node.srcs
        terms = ((a, b), (b, a))
    for variance, eps in terms:
        value = 0.0 if eps is None else number(eps)
        squares = _mean_of(variance)
        if value is not None and squares is not None and squares.op is ops.MUL:
            return value if squares.srcs == (centred, centred) else None
    return None


def _mean_of(node: Node) -> Node | None:
    """x where node is the mean of x along its last axis, whatever its reshapes."""
    node = _flat(node)
    match node:
        case Node(op=ops.DIV, srcs=(total, n)):
            count = number(n)
        case Node(op=ops.MUL, srcs=(total, n) | (n, total)) if number(n):
            count = 1 / number(n)
        case _:
            return None
    total = _flat(total)
    if count is None or total.op is not ops.SUM:
        return None
    (x,) = total.srcs
    last = total.attrs["axis"] == (x.ndim - 1,)
    return x if last and isclose(count, x.shape[-1], rel_tol=1e-6) else None


# cross-entropy ---------------------------------------------------------------------------------


@about(ops.SUB, ops.TAKE, ops.TAKE_ALONG)
def cross_entropy(node: Node) -> Node | None:
    """log_softmax(x)[i, index[i]] -> -cross_entropy(x, index); logsumexp(x) - x[i, index[i]] ->
    cross_entropy(x, index). The index keeps its meaning: it may count from the end."""
    match node:
        case Node(op=ops.SUB, srcs=(total, picked)):
            found = _picked(_flat(picked))
            match _flat(total):
                case Node(op=ops.LOGSUMEXP, srcs=(x,), attrs={"axis": axis}):
                    if not found or found[0] is not x or axis != (x.ndim - 1,):
                        return None
                case _:
                    return None
            if prod(node.shape) != prod(x.shape[:-1]):
                return None
            return _losses(x, found[1], node)
        case Node(op=ops.TAKE_ALONG | ops.TAKE):
            found = _picked(node)
            scores = _scores(found[0]) if found else None
            if found and scores is not None:
                return use(ops.NEG, (_losses(scores, found[1], node),), {}, like=node)
    return None


def _scores(node: Node) -> Node | None:
    """x where node is log_softmax(x) along the last axis, as one op or as x - logsumexp(x)."""
    match node:
        case Node(op=ops.LOG_SOFTMAX, srcs=(x,), attrs={"axis": axis}):
            return x if axis == x.ndim - 1 else None
        case Node(op=ops.SUB, srcs=(x, Node(op=ops.LOGSUMEXP, srcs=(y,), attrs={"axis": axis}))):
            return x if x is y and axis == (x.ndim - 1,) else None
    return None


@about(ops.ADD, ops.SUB)
def smoothed_cross_entropy(node: Node) -> Node | None:
    """(1 - s) * cross_entropy(x) - s * mean(log_softmax(x)) -> cross_entropy(x, smoothing s)."""
    terms = _terms(node)
    if len(terms) != 2 or not node.dtype.is_floating_point:
        return None
    for (loss, own), (total, spread) in (terms, terms[::-1]):
        match loss, total:
            case (
                Node(op=ops.CROSS_ENTROPY, srcs=(x, _), attrs={"label_smoothing": 0.0}),
                Node(op=ops.SUM, srcs=(logp,)),
            ) if x is _scores(logp):
                smoothing = -spread * x.shape[-1]
                sizes = {prod(n.shape) for n in (node, loss, total)}
                if (
                    total.attrs["axis"] == (x.ndim - 1,)
                    and 0 <= smoothing <= 1
                    and isclose(own, 1 - smoothing, rel_tol=1e-6)
                    and len(sizes) == 1
                ):
                    attrs = {**loss.attrs, "label_smoothing": smoothing}
                    losses = use(ops.CROSS_ENTROPY, loss.srcs, attrs, like=node)
                    return use(ops.RESHAPE, (losses,), {"shape": node.shape}, like=node)
    return None


def _terms(node: Node) -> list[tuple[Node, float]]:
    """The summands of a sum with their factors: through reshapes, signs, products with numbers."""
    found: list[tuple[Node, float]] = []
    left = [(node, 1.0, 4, DEEP)]  # how many sums deep, and how many steps between two of them
    while left:
        node, factor, depth, steps = left.pop()
        match node:
            case _ if not depth or not steps:
                found.append((node, factor))
            case Node(op=ops.ADD | ops.SUB, srcs=(a, b)) if a.shape == b.shape:
                sign = factor if node.op is ops.ADD else -factor
                left += [(b, sign, depth - 1, DEEP), (a, factor, depth - 1, DEEP)]
            case Node(op=ops.NEG, srcs=(x,)):
                left.append((x, -factor, depth, steps - 1))
            case Node(op=ops.RESHAPE, srcs=(x,)):
                left.append((x, factor, depth, steps - 1))
            case Node(op=ops.MUL, srcs=(x, c) | (c, x)) if number(c) is not None:
                left.append((x, factor * number(c), depth, steps - 1))
            case Node(op=ops.DIV, srcs=(x, c)) if number(c):
                left.append((x, factor / number(c), depth, steps - 1))
            case _:
                found.append((node, factor))
    return found


def _losses(x: Node, index: Node, like: Node) -> Node:
    targets = use(ops.RESHAPE, (index,), {"shape": x.shape[:-1]}, like=like)
    targets = use(ops.WRAP_INDEX, (targets,), {"size": x.shape[-1]}, like=like)
    attrs = {"ignore_index": -1, "label_smoothing": 0.0}  # no wrapped index is -1
    losses = use(ops.CROSS_ENTROPY, (x, targets), attrs, like=like)
    return use(ops.RESHAPE, (losses,), {"shape": like.shape}, like=like)


def _picked(node: Node) -> tuple[Node, Node] | None:
    """(x, index) where node is one element of each row of x, x[i, index[i]]."""
    match node:
        case Node(op=ops.TAKE_ALONG, srcs=(x, index), attrs={"axis": axis}):
            return (x, index) if axis == x.ndim - 1 and index.shape[-1] == 1 else None
        case Node(op=ops.TAKE, srcs=(Node(op=ops.RESHAPE, srcs=(x,)) as line, place)) if (
            x.ndim == 2 and line.ndim == 1
        ):
            match place:
                case Node(
                    op=ops.ADD,
                    srcs=(
                        Node(op=ops.MUL, srcs=(Node(op=ops.WRAP_INDEX, srcs=(rows,)), size)),
                        Node(op=ops.WRAP_INDEX, srcs=(index,), attrs={"size": classes}),
                    ),
                ):
                    fits = classes == x.shape[1] == number(size) and index.shape == x.shape[:1]
                    return (x, index) if fits and _counts(rows, x.shape[0]) else None
    return None


def _counts(node: Node, n: int) -> bool:
    """True if node is 0, 1, ..., n - 1."""
    attrs = node.attrs
    return node.op is ops.ARANGE and (attrs["start"], attrs["step"], attrs["count"]) == (0, 1, n)


# activations -----------------------------------------------------------------------------------


@about(ops.DIV, ops.POW)
def sigmoid(node: Node) -> Node | None:
    """1 / (1 + exp(-x)) -> sigmoid(x)."""
    base, exponent = _power(node)
    x = _negated_exp(base) if exponent == -1 else None
    return (
        use(ops.SIGMOID, (x,), {}, like=node) if x is not None and x.shape == node.shape else None
    )


@about(ops.DIV, ops.MUL)
def silu(node: Node) -> Node | None:
    """x * sigmoid(x) or x / (1 + exp(-x)) -> silu(x)."""
    match node:
        case Node(op=ops.DIV, srcs=(x, base)) if _negated_exp(base) is x:
            return use(ops.SILU, (x,), {}, like=node)
        case Node(
            op=ops.MUL,
            srcs=(x, Node(op=ops.SIGMOID, srcs=(y,))) | (Node(op=ops.SIGMOID, srcs=(y,)), x),
        ) if x is y:
            return use(ops.SILU, (x,), {}, like=node)
    return None


def _negated_exp(node: Node) -> Node | None:
    """x where node is 1 + exp(-x)."""
    if node.op is ops.ADD:
        for one, e in (node.srcs, node.srcs[::-1]):
            match e:
                case Node(op=ops.EXP, srcs=(Node(op=ops.NEG, srcs=(x,)),)) if number(one) == 1:
                    return x
    return None


RULES: tuple[Rule, ...] = (
    softmax, log_softmax, logsumexp, layer_norm, affine_layer_norm, cross_entropy,
    smoothed_cross_entropy, attention, sigmoid, silu, gelu,
)  # fmt: skip
