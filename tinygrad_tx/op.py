"""Op: the record of an operation.

In: functions of an author's. Out: a record, found by its name in OPS. The records stand in ops/
and, for what the graph itself needs, in node.py, which also says what calling an op does (`_use`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from .mistakes import check_autocast, check_record
from .rules import DEFAULT_RULES

Attrs = Mapping[str, Any]


class Op:
    """One operation.

    name: its registered name; making another Op of that name replaces it, but for built-in ones.
    kind: "map" (elementwise with broadcasting), "reduce" (over `axis`, kept as 1), "move",
        "matmul", "gather", "random", "create", "fused" (has a decomposition) or "opaque".
    forward: (xp, *arrays, **attrs) -> array, or a tuple of arrays; xp is the device's backend. A
        map forward uses arithmetic and xp functions only: the compiler runs it on expressions. In
        "map", "reduce" and "fused" ops it never sees 16 bits: see half.py.
    rule: (op, *nodes, **attrs) -> Spec, or a tuple of them; raises the error that users see. Map
        and reduce ops have one by default (inputs of one floating dtype, which the result has).
    vjp: (g, y, *inputs, **attrs) -> one gradient (or None, or a function that makes it) for each
        input, written on Tensors; un-broadcasting is not its business. g and y are tuples where
        there are several outputs.
    decompose: (*inputs, **attrs) -> the same result by simpler ops, on Tensors: the oracle of a
        fused op, and its gradient where there is no vjp.
    kernel_form: the same as decompose, in a form that makes better kernels; the compiler takes it
        in the place of decompose.
    promote: which inputs of a map op are brought to a common dtype (all by default).
    autocast: the floating dtype of its operands under tx.autocast: "half" (the 16 bits asked for,
        as products take them), "float32" (the default of users' ops) or "given" (as they are, the
        default of ours). Other widths than 16 and 32 bits are let alone.

    ours: True if it belongs to this package, False if a user made it.
    """

    __call__: ClassVar[Callable[..., Any]]  # node.py sets it

    def __init__(
        self,
        name: str,
        *,
        kind: str = "opaque",
        forward: Callable[..., Any],
        rule: Callable[..., Any] | None = None,
        vjp: Callable[..., Sequence[Any]] | None = None,
        decompose: Callable[..., Any] | None = None,
        kernel_form: Callable[..., Any] | None = None,
        promote: tuple[int, ...] | None = None,
        autocast: str | None = None,
    ) -> None:
        self.ours = (getattr(forward, "__module__", "") or "").startswith(f"{__package__}.")
        self.autocast = autocast or ("given" if self.ours else "float32")
        functions = {"forward": forward, "rule": rule, "vjp": vjp, "decompose": decompose}
        check_autocast(name, self.autocast)
        check_record(name, kind, promote, self.ours, kernel_form=kernel_form, **functions)
        if not self.ours and name in OPS and OPS[name].ours:
            raise ValueError(f'Op "{name}": a built-in op has this name; choose another')
        rule = rule or DEFAULT_RULES.get(kind)
        if rule is None:
            raise ValueError(
                f'Op "{name}": kind "{kind}" needs rule=, a function (op, *nodes, **attrs) that '
                "gives tx.Spec(shape, dtype)"
            )
        self.name, self.kind, self.forward, self.rule = name, kind, forward, rule
        self.vjp, self.decompose, self.promote = vjp, decompose, promote
        self.kernel_form = kernel_form or decompose
        OPS[name] = self

    def __repr__(self) -> str:
        return f"Op({self.name})"


OPS: dict[str, Op] = {}
