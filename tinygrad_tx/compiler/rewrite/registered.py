"""Rules of users: registered by a call, and applied by the passes lift and simplify with our own.

In: a function of a node. Out: a Rule whose results are held to what they replace. The public names
are those of tx.compiler; docs/extending/rules.md is for who writes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...arguments import shown
from ...context import GRADIENT_OF, LINE, scope, set_grad_enabled, tracing
from ...errors import OpError
from ...mistakes import near
from ...node import Graph, Handle, Node
from ...op import OPS, Op
from .engine import Rule, about

MOST = 200  # replacements in one place, after which rules are taken to undo one another


class _Registered:
    """A rule of a user's, held to what it promises. name: of its function."""

    def __init__(self, rule: Callable[[Node], Any], name: str, before_gradients: bool) -> None:
        self.rule, self.name, self.before_gradients = rule, name, before_gradients
        self.times: Counter[int] = Counter()  # by the place of the node that is replaced
        self.applied = 0

    def __call__(self, node: Node) -> Node | None:
        try:
            made = self.rule(node)
        except Exception as error:
            error.add_note(f"in the rewrite rule {self.name}, of a node of {node.op.name}")
            raise
        if made is None:
            return None
        made = made.node if isinstance(made, Handle) else made
        if not isinstance(made, Node):
            raise OpError(
                f"rule {self.name}: it must give a node, a Tensor or None, not {shown(made)}"
            )
        if made is node:
            return None
        if made.spec != node.spec or made.device != node.device:
            raise OpError(
                f"rule {self.name}: it replaces {node.op.name}, {_said(node)}, by {made.op.name}, "
                f"{_said(made)}: dtype, shape and device must stay"
            )
        self.times[node.place] += 1
        if self.times[node.place] > MOST:
            raise OpError(
                f"rule {self.name}: it has replaced {node.op.name} {MOST} times in one place: does "
                "it undo another rule, or find its own result again?"
            )
        self.applied += 1
        return made


class _Rules:
    """The registered ones, by the names of their functions; all of them, as compiled functions
    compare them: where there are others, these are traced again."""

    by_name: dict[str, _Registered] = {}  # noqa: RUF012 - one for all
    all: tuple[_Registered, ...] = ()


def register_rule(
    rule: Callable[[Node], Any], *ops: str | Op, before_gradients: bool = False
) -> Callable[[Node], Any]:
    """Have the compiler apply a rewrite rule, in every function that is traced from now on.

    rule: takes a node and gives another one of the same dtype and shape in its place (a node, or a
    Tensor that `replace` made), or None. A node has op.name, srcs, attrs, shape and dtype. ops: the
    ops that it is about, by name; all, where none is given. before_gradients: apply it before
    gradients are taken, which are then those of what it makes. Gives the rule back. One of the same
    name takes the place of an earlier one. TypeError or ValueError for what is no rule or no op.
    """
    if not callable(rule):
        raise TypeError(f"register_rule: rule must be a function, not {shown(rule)}")
    known = [op if isinstance(op, Op) else OPS.get(op) for op in ops]
    for op, found in zip(ops, known, strict=True):
        if found is None:
            raise ValueError(f"register_rule: no op {op!r}{near(op, OPS)}")
    name = getattr(rule, "__name__", type(rule).__name__)
    made = _Registered(rule, name, before_gradients)
    _Rules.by_name[name] = about(*(op for op in known if op))(made) if ops else made  # type: ignore[assignment]
    _Rules.all = (*_Rules.by_name.values(),)
    return rule


def forget_rule(rule: Callable[[Node], Any]) -> None:
    """Take a registered rule away; ValueError where it is not registered."""
    found = next((name for name, r in _Rules.by_name.items() if r.rule is rule), None)
    if found is None:
        raise ValueError(f"forget_rule: {shown(rule)} is not registered")
    del _Rules.by_name[found]
    _Rules.all = (*_Rules.by_name.values(),)


@contextmanager
def alone(
    rule: Callable[[Node], Any], ops: Sequence[str | Op], before_gradients: bool
) -> Iterator[None]:
    """A rule is the only one registered inside."""
    others = _Rules.by_name
    _Rules.by_name = {}
    try:
        register_rule(rule, *ops, before_gradients=before_gradients)
        yield
    finally:
        _Rules.by_name = others
        _Rules.all = (*others.values(),)


def current() -> tuple[Any, ...]:
    """The registered rules, as a key of plans."""
    return _Rules.all


def registered(before_gradients: bool) -> tuple[Rule, ...]:
    """The rules of a pass that begins."""
    rules = [r for r in _Rules.all if r.before_gradients or not before_gradients]
    for rule in rules:
        rule.times.clear()
    return tuple(rules)


def applied(rule: Callable[[Node], Any]) -> int:
    """The number of nodes that a registered rule has replaced so far."""
    return next((r.applied for r in _Rules.all if r.rule is rule), 0)


def replace(node: Node, how: Callable[..., Any], *sources: Node) -> Node:
    """What how(*Tensors) makes of the Tensors of some nodes, as a node in the place of another one:
    it has that one's module and source line."""
    line, of = LINE.set(node.at), GRADIENT_OF.set(node.gradient_of)
    try:
        with scope(node.scope), set_grad_enabled(True), tracing(node.trace):
            made = how(*(Handle.wrap(source) for source in sources))
    finally:
        GRADIENT_OF.reset(of)
        LINE.reset(line)
    if not isinstance(made, Handle):
        raise OpError(f"replace: the function must give a Tensor, not {shown(made)}")
    known = {*sources, *(src for source in sources for src in source.srcs)}
    for new in Graph([made.node], follow=lambda n: n not in known):
        if new not in known:
            new.put_at(node)
    return made.node


def _said(node: Node) -> str:
    return " and ".join(f"{spec.dtype.name} {spec.shape}" for spec in node.specs)
