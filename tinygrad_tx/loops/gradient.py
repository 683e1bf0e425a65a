"""The gradient of a SCAN node: a loop the other way round, and sums over all rounds.

In: cotangents of a SCAN's outputs, its sources and attributes. Out: a gradient for each source.
Called by record.py.

A round's gradient is what autograd makes of the round. What it reads of the forward round is in
arrays of one entry a round, or is computed anew where the SCAN says so (`again`). The gradient of
a constant adds up over the rounds: a product or a sum of one round becomes one of all rounds after
the loop, anything else is added to a carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..autograd import gradients
from ..context import grad_enabled, tracing
from ..dtypes import float32
from ..node import CAST, INPUT, ITEM, Graph, Node
from ..ops import ADD, FULL, MATMUL, PAD, PERMUTE, RESHAPE, SLICE, SUM
from ..rules import Spec
from ..tensor import Tensor
from .round import VIEWS, Round, apart, substituted, varying

Thunk = Callable[[], Tensor]
Scan = Callable[..., Sequence[Tensor]]
_LINEAR = (RESHAPE, PERMUTE, PAD, CAST)  # of a sum, the sum of theirs: gradients are padded with 0


def gradient(
    scan: Scan, g: Sequence[Tensor], y: Sequence[Tensor], xs: Sequence[Tensor], **attrs: Any
) -> list[Any]:
    """The gradients of the sources of a use of SCAN: a Tensor or None for each. scan: makes further
    uses, as record.use()."""
    return _Gradient(scan, g, y, xs, **attrs).run()


class _Gradient:
    """The loop that computes the gradient, as it is put together."""

    def __init__(
        self,
        scan: Scan,
        g: Sequence[Tensor],
        y: Sequence[Tensor],
        xs: Sequence[Tensor],
        *,
        round: Round,
        length: int,
        reverse: bool,
        again: bool,
        keep: tuple[Node, ...],
    ) -> None:
        self.scan, self.g, self.y, self.xs = scan, g, y, xs
        self.round, self.length, self.reverse, self.again = round, length, reverse, again
        self.keep = keep
        # Asked here: inside the round's trace, a Tensor from outside is an input.
        self.given = {i for i, cotangent in enumerate(g) if not _is_zero(cotangent)}
        self.cotangents: dict[Node, Node] = {}  # of each carry: an INPUT node of a round
        self.arrays: dict[Node, Tensor] = {}  # of values of a round: their array of all rounds
        self.stacked: list[Node] = []  # the values that the new loop gives of each round
        self.sums: dict[Node, Node] = {}  # what it adds up: an INPUT node, and what is added
        self.totals: dict[Node, Tensor] = {}  # the sums
        self.reached: set[Node] = set()  # the carries whose first value has a gradient

    def run(self) -> list[Any]:
        round, source = self.round, dict(zip(self.round.inputs, self.xs, strict=True))
        self.arrays.update((p, source[p]) for p in round.xs)
        with tracing(round.recorder):
            found = self._differentiate()
            if not found and self.length:
                return [None] * len(self.xs)
            self.varying = varying(
                found.values(), (*self.cotangents.values(), *self.arrays, *round.varying)
            )
            totals = {p: self._total(found[p]) for p in round.consts if p in found}
            carry = [found[p] if p in found else _zeros(p).node for p in self.cotangents]
            carry += [ADD(Tensor(p), Tensor(n)).node for p, n in self.sums.items()]
        entries = [p for p in round.xs if p in found]
        firsts = self._loop(source, carry, [found[p] for p in entries])
        made: dict[Node, Any] = {
            p: first for p, first in zip(self.cotangents, firsts, strict=True) if p in self.reached
        }
        made |= {p: total() for p, total in totals.items()}
        made |= {p: self.arrays[found[p]] for p in entries}
        return [made.get(p) for p in round.inputs]

    # One round --------------------------------------------------------------------------------
    def _differentiate(self) -> dict[Node, Node]:
        """The gradient of a round: of each input that it reaches, as nodes on the round's own."""
        round, create = self.round, grad_enabled()
        outs, n = (*round.outs, *self.keep), len(round.carry)
        given: list[tuple[Node, Tensor]] = []
        flows = self._flows(outs)
        for i, out in enumerate(outs):
            carried = i < n
            if i not in flows and not (carried and round.carry[i] in self.reached):
                continue
            spec = Spec(out.shape, out.dtype)
            cotangent = round.recorder.input(spec, out.device, create)
            if carried:
                self.cotangents[round.carry[i]] = cotangent
            else:
                self.arrays[cotangent] = self.g[i]
            if i in flows:
                given.append((out, Tensor(cotangent)))
        wanted = [p for p in round.inputs if p.requires_grad]
        found = gradients(
            [out for out, _ in given], [c for _, c in given], wanted, create_graph=create
        )
        return {p: grad.node for p, grad in found.items()}

    def _flows(self, outs: Sequence[Node]) -> set[int]:
        """The numbers of the outputs that have a cotangent in some round: one from outside, or that
        of the carry that the next round has read. Notes which carries the first round leads to."""
        carry, known = self.round.carry, dict[frozenset[int], frozenset[int]]()

        def leads_to(flows: frozenset[int]) -> frozenset[int]:
            if flows not in known:
                nodes = set(Graph([outs[i] for i in flows], follow=lambda n: n.requires_grad))
                found = (i for i, p in enumerate(carry) if p in nodes and p.requires_grad)
                known[flows] = frozenset(found)
            return known[flows]

        now = frozenset(i for i, out in enumerate(outs) if out.requires_grad and i in self.given)
        ys, flows = {i for i in now if i >= len(carry)}, set(now)
        for _ in range(self.length - 1):
            now = leads_to(now) | ys
            flows |= now
        firsts = leads_to(now) if self.length else now
        self.reached = {carry[i] for i in firsts if i < len(carry)}
        return flows

    def _is_forward(self, node: Node) -> bool:
        """True of a value of the forward round that is another one in each round."""
        node = node.srcs[0] if node.op is ITEM else node
        return node in self.round.varying

    def _is_at_hand(self, node: Node) -> bool:
        """True of a value of which there is an array of all rounds, or can be one for nothing."""
        kept = self._is_forward(node) and (not self.again or node in self.round.carry)
        return node in self.arrays or kept

    # Sums over all rounds ---------------------------------------------------------------------
    def _total(self, node: Node) -> Thunk:
        """The sum of a value of a round over all rounds."""
        if self.length == 1:
            alone = self._all(node)
            return lambda: RESHAPE(alone(), shape=node.shape)
        if self.again or not self._is_sum(node):
            total = self.round.recorder.input(
                Spec(node.shape, node.dtype), node.device, grad_enabled()
            )
            self.sums[total] = node
            return lambda: self.totals[total]
        if node.op is ADD:
            one, other = map(self._total, node.srcs)
            return lambda: ADD(one(), other())
        if node.op in _LINEAR:
            of = self._total(node.srcs[0])
            return lambda: node.op(of(), **node.attrs)
        if node.op is SUM:
            rows = self._all(node.srcs[0])
            axis = (0, *(i + 1 for i in node.attrs["axis"]))
            return lambda: RESHAPE(SUM(rows(), axis=axis, keepdims=True), shape=node.shape)
        left, right = self._wide(node.srcs[0]), self._tall(node.srcs[1])
        return lambda: MATMUL(left(), right(), **node.attrs)

    def _is_sum(self, node: Node) -> bool:
        """True if what a round adds is a sum of many, which one over all rounds can take in."""
        if node.op in _LINEAR and not node.attrs.get("value"):
            return self._is_sum(node.srcs[0])
        if node.op is ADD:
            return all(src.shape == node.shape and self._is_sum(src) for src in node.srcs)
        if node.op not in (SUM, MATMUL) or not node.dtype.is_floating_point:
            return False
        varies = all(src in self.varying for src in node.srcs)
        return varies and (node.op is SUM or all(src.ndim == 2 for src in node.srcs))

    def _wide(self, node: Node) -> Thunk:
        """The matrices of all rounds, side by side."""
        if node.op is PERMUTE:
            tall = self._tall(node.srcs[0])
            return lambda: PERMUTE(tall(), order=(1, 0))
        rows, shape = self._all(node), (node.shape[0], self.length * node.shape[1])
        return lambda: RESHAPE(PERMUTE(rows(), order=(1, 0, 2)), shape=shape)

    def _tall(self, node: Node) -> Thunk:
        """The matrices of all rounds, one below the other."""
        rows, shape = self._all(node), (self.length * node.shape[0], *node.shape[1:])
        return lambda: RESHAPE(rows(), shape=shape)

    def _all(self, node: Node) -> Thunk:
        """The array of a value of all rounds. Of those that are not at hand, the loop gives one."""
        if node.op in (RESHAPE, PERMUTE):
            of, op = self._all(node.srcs[0]), node.op
            if op is RESHAPE:
                shape = (self.length, *node.shape)
                return lambda: RESHAPE(of(), shape=shape)
            order = (0, *(i + 1 for i in node.attrs["order"]))
            return lambda: PERMUTE(of(), order=order)
        if node not in self.stacked:
            self.stacked.append(node)
        return lambda: self.arrays[node]

    # The loop ---------------------------------------------------------------------------------
    def _loop(
        self, source: dict[Node, Tensor], carry: list[Node], entries: list[Node]
    ) -> list[Tensor]:
        """Record the loop: what the cotangents of the carry end as. Adds arrays and totals."""
        round, rec = self.round, self.round.recorder
        wanted = dict.fromkeys((*self.stacked, *entries))
        ys = [n for n in wanted if not self._is_at_hand(n)]
        consts, rows = self._needs([*carry, *ys])
        self._keep([*rows, *(n for n in wanted if n not in ys)])
        places = {
            n: n if n.op is INPUT else rec.input(Spec(n.shape, n.dtype), n.device, n.requires_grad)
            for n in rows
        }
        carried = (*self.cotangents.values(), *self.sums)
        outs = substituted((*carry, *ys), {n: p for n, p in places.items() if n is not p})
        outs = apart(outs, len(carried), rec)
        name = f"gradient of {round.name}"
        loop = Round(name, rec, tuple(consts), carried, tuple(places.values()), outs)
        given = [source[p] if p in source else self._captured(p) for p in consts]
        for p in self.cotangents:
            given.append(self.g[round.carry.index(p)])
        given += [_zeros(p) for p in self.sums]
        given += [self.arrays[n] for n in rows]
        if not given:  # a node has sources: they say its device
            nothing = rec.input(Spec((), float32), round.outs[0].device, requires_grad=False)
            loop, given = replace(loop, consts=(nothing,)), [_zeros(nothing)]
        back = not self.reverse
        made = self.scan(given, loop, length=self.length, reverse=back, again=self.again)
        n = len(self.cotangents)
        self.totals.update(zip(self.sums, made[n:], strict=False))
        self.arrays.update(zip(ys, made[len(carried) :], strict=True))
        return list(made[:n])

    def _needs(self, ends: list[Node]) -> tuple[list[Node], list[Node]]:
        """The round's constants that the new loop reads, and the values of which it gets an entry
        each time."""
        own = {*self.cotangents.values(), *self.sums}
        consts, rows = dict[Node, None](), dict[Node, None]()
        stack, seen = ends[::-1], set[Node]()
        while stack:
            node = stack.pop()
            if node in seen or node in own:
                continue
            seen.add(node)
            if self._is_at_hand(node) and not _is_looked_through(node):
                rows[node] = None
            elif node.op is INPUT:
                consts[node] = None
            else:
                stack += node.srcs[::-1]
        return list(consts), list(rows)

    def _captured(self, placeholder: Node) -> Tensor:
        """A Tensor from outside that only the gradient reads, in a hook."""
        found = self.round.recorder.captured.values()
        return next(Tensor(c.outer) for c in found if c.placeholder is placeholder)

    def _keep(self, needed: list[Node]) -> None:
        """Have the arrays of these values, from a use of the forward loop that gives them."""
        round, n = self.round, len(self.round.carry)
        missing = [node for node in dict.fromkeys(needed) if node not in self.arrays]
        outs = (*round.outs, *self.keep)
        keep = (*self.keep, *(node for node in missing if node not in outs[n:]))
        y: Sequence[Tensor] = self.y
        if keep != self.keep:
            options = {"length": self.length, "reverse": self.reverse, "again": self.again}
            y = self.scan(self.xs, round, keep, **options)
        places = (*round.outs, *keep)
        self.arrays.update((node, y[places.index(node, n)]) for node in missing)


def _is_looked_through(node: Node) -> bool:
    """True of a view whose base is kept rather than itself: but of a computed value only the parts
    are kept that are read."""
    if node.op is not SLICE:
        return node.op in VIEWS
    while node.op in VIEWS:
        node = node.srcs[0]
    return node.op is INPUT


def _zeros(like: Node) -> Tensor:
    made: Tensor = FULL(shape=like.shape, value=0.0, dtype=like.dtype, device=like.device)
    return made


def _is_zero(g: Tensor) -> bool:
    node = g.node
    return node.op is FULL and node.attrs["value"] == 0
