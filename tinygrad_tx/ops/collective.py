"""Collective ops: every rank of a job calls them, and each gives a part of what they compute.

A gradient is that of the sum of all ranks' results, so the vjp of each is one of these as well; but
COPY_TO_RANKS and REDUCE_FROM_RANKS are of a loss that all ranks have alike.
Compiled functions call them between kernels, in the order of the program (fuse/order.py), for all
ranks must come to them in the same one. What carries arrays is distributed/'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import DType, int64
from ..errors import DTypeError, GradError, ShapeError, UserError
from ..node import Node
from ..op import Op
from ..rules import Spec

if TYPE_CHECKING:
    from ..distributed.communicator import Communicator

X = Any


def _ranks(x: X) -> tuple[Communicator, bool]:
    """The ranks that take such arrays; True if these go there through the host."""
    from ..distributed import world

    direct = None if isinstance(x, np.ndarray) else world.for_device()
    if direct is not None:
        return direct, False
    return world.current(), not isinstance(x, np.ndarray)


def _by_ranks(xp: X, x: X, work: Callable[[Communicator, X], X]) -> X:
    """What a communicator makes of an array."""
    ranks, through = _ranks(x)
    return xp.from_host(work(ranks, xp.to_host(x))) if through else work(ranks, x)


def _adds(op: Op, x: Node, how: str) -> None:
    from ..distributed.communicator import HOWS

    if how not in HOWS:
        raise UserError(f"{op.name}: no {how!r}; there are {', '.join(HOWS)}")
    if x.dtype.kind not in "fi" or (how == "avg" and x.dtype.kind == "i"):
        raise DTypeError(f"{op.name}: no {how} of {x.dtype.name}; convert it with .to(dtype)")


def _reduced(op: Op, x: Node, *, how: str) -> Spec:
    _adds(op, x, how)
    return Spec(x.shape, x.dtype)


def _same(op: Op, x: Node, **attrs: Any) -> Spec:
    return Spec(x.shape, x.dtype)


def _scattered(op: Op, x: Node, *, how: str, size: int) -> Spec:
    _adds(op, x, how)
    if x.shape[:1] != (size,):
        raise ShapeError(f"{op.name}: x is {x.shape}; its first axis must be the ranks', {size}")
    return Spec(x.shape[1:], x.dtype)


def _of_sums(name: str, how: str) -> None:
    if how not in ("sum", "avg"):
        raise GradError(f"{name} with {how} has no gradient: those of sum and avg have one")


def _all_reduce_vjp(g: X, y: X, x: X, how: str) -> tuple[X]:
    _of_sums("all_reduce", how)
    return (ALL_REDUCE(g, how=how),)


def _reduce_scatter_vjp(g: X, y: X, x: X, how: str, size: int) -> tuple[X]:
    _of_sums("reduce_scatter", how)
    found = ALL_GATHER(g, size=size)
    return (found / size if how == "avg" else found,)


def _all_gather_vjp(g: X, y: X, x: X, size: int) -> tuple[X]:
    return (REDUCE_SCATTER(g, how="sum", size=size),)


def _from_rank_vjp(g: X, y: X, x: X, rank: int) -> tuple[X]:
    return (TO_RANK(g, rank=rank),)


ALL_REDUCE = Op(
    "all_reduce",
    rule=_reduced,
    forward=lambda xp, x, how: _by_ranks(xp, x, lambda ranks, a: ranks.all_reduce(a, how)),
    vjp=_all_reduce_vjp,
)
ALL_GATHER = Op(  # a new first axis is the ranks'
    "all_gather",
    rule=lambda op, x, size: Spec((size, *x.shape), x.dtype),
    forward=lambda xp, x, size: _by_ranks(xp, x, lambda ranks, a: ranks.all_gather(a)),
    vjp=_all_gather_vjp,
)
REDUCE_SCATTER = Op(  # the first axis is the ranks'; each keeps its own place of it
    "reduce_scatter",
    rule=_scattered,
    forward=lambda xp, x, how, size: _by_ranks(
        xp, x, lambda ranks, a: ranks.reduce_scatter(a, how)
    ),
    vjp=_reduce_scatter_vjp,
)
FROM_RANK = Op(  # every rank gets what one of them has
    "from_rank",
    rule=_same,
    forward=lambda xp, x, rank: _by_ranks(xp, x, lambda ranks, a: ranks.broadcast(a, rank)),
    vjp=_from_rank_vjp,
)
TO_RANK = Op(  # one rank gets the sum of what all have, the others zeros
    "to_rank",
    rule=_same,
    forward=lambda xp, x, rank: _by_ranks(xp, x, lambda ranks, a: ranks.reduce(a, rank)),
    vjp=lambda g, y, x, rank: (FROM_RANK(g, rank=rank),),
)

# Where ranks share the units of a layer, and all have one loss rather than each a part of it: a
# value that all have enters what each computes by itself, and what each has computed adds up to a
# value that all have. The gradient of either is the other. Megatron's f and g (arXiv 1909.08053).
COPY_TO_RANKS = Op(
    "copy_to_ranks",
    rule=lambda op, x: _reduced(op, x, how="sum"),
    forward=lambda xp, x: x,
    decompose=lambda x: x,
    vjp=lambda g, y, x: (REDUCE_FROM_RANKS(g),),
)
REDUCE_FROM_RANKS: Op = Op(
    "reduce_from_ranks",
    rule=lambda op, x: _reduced(op, x, how="sum"),
    forward=lambda xp, x: _by_ranks(xp, x, lambda ranks, a: ranks.all_reduce(a)),
    vjp=lambda g, y, x: (COPY_TO_RANKS(g),),
)


def _started(op: Op, *xs: Node, how: str) -> Spec:
    for x in xs:
        _adds(op, x, how)
        if x.dtype != xs[0].dtype:
            raise DTypeError(f"{op.name}: {x.dtype.name} and {xs[0].dtype.name} in one message")
    return Spec((), int64)


def _scattering(op: Op, *xs: Node, how: str) -> Spec:
    for x in xs:
        if not x.ndim or x.shape[0] != xs[0].shape[0]:
            raise ShapeError(f"{op.name}: an array {x.shape} has no axis for the ranks")
    return _started(op, *xs, how=how)


def _start(xp: X, *xs: X, how: str) -> X:
    ranks, through = _ranks(xs[0])
    arrays = [xp.to_host(x) for x in xs] if through else xs
    return xp.scalar(ranks.start_all_reduce(arrays, how), int64)


def _start_scatter(xp: X, *xs: X, how: str) -> X:
    ranks, through = _ranks(xs[0])
    arrays = [xp.to_host(x) for x in xs] if through else xs
    return xp.scalar(ranks.start_reduce_scatter(arrays, how), int64)


def _finish(xp: X, ticket: X, shapes: tuple[tuple[int, ...], ...], dtype: DType) -> tuple[X, ...]:
    ranks, through = _ranks(ticket)
    found = ranks.finish_reduce(int(xp.to_host(ticket)))
    return tuple(map(xp.from_host, found) if through else found)


# all_reduce of several arrays, or reduce_scatter, in two parts: what stands between them is
# computed meanwhile. The number that the first gives is a ticket, for which the second gives the
# results.
START_ALL_REDUCE = Op("start_all_reduce", rule=_started, forward=_start)
START_REDUCE_SCATTER = Op("start_reduce_scatter", rule=_scattering, forward=_start_scatter)
FINISH_REDUCE = Op(
    "finish_reduce",
    rule=lambda op, ticket, shapes, dtype: tuple(Spec(shape, dtype) for shape in shapes),
    forward=_finish,
)

STARTS = frozenset((START_ALL_REDUCE, START_REDUCE_SCATTER))
_WHOLE = ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, FROM_RANK, TO_RANK, REDUCE_FROM_RANKS
IN_ORDER = frozenset((*_WHOLE, *STARTS, FINISH_REDUCE))
