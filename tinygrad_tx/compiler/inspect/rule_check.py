"""check_rule: the test of a rewrite rule, on a function and inputs.

In: a rule, a function that has what it looks for, and Tensors. Out: True, or CheckError: the rule
did not apply, or values or gradients are others with it. Called by users, for rules of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import tree
from ...autograd import grad
from ...errors import CheckError
from ...node import Node
from ...tensor import Tensor
from ..capture.trace import trace
from ..rewrite.cse import cse
from ..rewrite.lift.idioms import lift
from ..rewrite.registered import alone, applied
from ..rewrite.simplify import simplify
from ..run.by_ops import evaluated


def check_rule(
    rule: Callable[[Node], Any],
    f: Callable[..., Any],
    *inputs: Tensor,
    ops: tuple[str, ...] = (),
    before_gradients: bool = False,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> bool:
    """Trace f(*inputs), apply the rule, which is registered for this alone, and compare.

    Results must agree to rtol and atol, and exactly in which elements are NaN or infinite: give
    inputs that have some. With before_gradients, so must the gradients by floating inputs. ops: as
    for register_rule. CheckError where the rule changes a value, or has replaced nothing.
    """
    name = getattr(rule, "__name__", "rule")

    def results(*xs: Tensor) -> Any:
        out = f(*xs)
        if not before_gradients:
            return out
        outs = [x for x in tree.leaves(out) if isinstance(x, Tensor) and x.requires_grad]
        asked = [x for x in xs if x.requires_grad]
        return (*tree.leaves(out), *grad([x.sum() for x in outs], asked, allow_unused=True))

    leaves = [
        x.detach().requires_grad_(x.dtype.is_floating_point and before_gradients) for x in inputs
    ]
    wanted = [x.numpy() for x in tree.leaves(results(*leaves)) if isinstance(x, Tensor)]
    with alone(rule, ops, before_gradients):
        traced = trace(results, tuple(leaves), {})
        ends = [x._node for x in tree.leaves(traced.results) if isinstance(x, Tensor)]
        roots = cse(simplify(lift(tuple(ends))))
        if not applied(rule):
            raise CheckError(f"check_rule: {name} has replaced nothing in {f.__name__}")
        found = evaluated(roots, traced, leaves)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if not np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
            off = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
            at = tuple(int(n) for n in np.argwhere(off)[0])
            raise CheckError(
                f"check_rule: with {name}, result {i} of {f.__name__} is {a[at]} at {at}, and "
                f"{b[at]} without"
            )
    return True
