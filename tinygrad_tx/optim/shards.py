"""Shards: each rank of a job keeps the moments of a part of every parameter, and takes the step of
that part alone (ZeRO-1; Rajbhandari et al., arXiv 1910.02054).

In: parameters with gradients. Out: parts of them, for an optimizer that updates element by element,
and the whole parameters again. Called by the trainer. Gradients come as sums of a rank's own part,
which is half the way of an all_reduce; the other half is that of the new parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..creation import cat, where, zeros
from ..distributed import world
from ..distributed.functional import all_reduce, buckets, stacked
from ..ops import FINISH_REDUCE, START_REDUCE_SCATTER
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, squared_norm


class Shards:
    """parts: for each parameter a Tensor (each,) of this rank's elements: those of its flat values
    from rank * each on, with zeros behind the last."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._ranks = world.current()
        self.whole = tuple(parameters)
        self._each = {id(p): -(-p.numel() // self._ranks.size) for p in self.whole}
        self.parts = tuple(self.part_of(p, p.detach()).requires_grad_() for p in self.whole)
        self._part = {id(p): part for p, part in zip(self.whole, self.parts, strict=True)}

    def of(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """The parts of some of the parameters."""
        return [self._part[id(p)] for p in parameters]

    def part_of(self, p: Tensor, values: Tensor) -> Tensor:
        """This rank's part of something in a parameter's shape."""
        return self._rows(p, values)[self._ranks.rank].clone()

    def _rows(self, p: Tensor, values: Tensor) -> Tensor:
        """(size, each): each rank's part."""
        size, each = self._ranks.size, self._each[id(p)]
        flat = values.reshape(-1)
        if missing := size * each - flat.numel():
            flat = cat([flat, zeros(missing, dtype=flat.dtype, device=flat.device)])
        return flat.reshape(size, each)

    def _joined(self, p: Tensor, rows: Tensor) -> Tensor:
        """(size, each) in the parameter's shape."""
        return rows.reshape(-1)[: p.numel()].reshape(p.shape)

    @no_grad()
    def take_gradients(self) -> None:
        """The parts get the sums over all ranks of their gradients, and the parameters forget
        theirs. Where a number is not finite on one rank, it is on none: all skip the step."""
        found = buckets(self.whole)
        begun = [
            START_REDUCE_SCATTER(*(self._rows(p, p.grad) for p in bucket), how="sum")
            for bucket in found
        ]
        for bucket, ticket in zip(found, begun, strict=True):
            shapes = tuple((self._each[id(p)],) for p in bucket)
            sums = FINISH_REDUCE(ticket, shapes=shapes, dtype=bucket[0].grad.dtype)
            for p, summed in zip(bucket, sums, strict=True):
                self._part[id(p)].grad, p.grad = summed, None
        total = self._squared_norm()
        for part in self._having():
            part.grad = part.grad + (total - total).to(part.dtype)

    @no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """As optim.clip_grad_norm_, of all ranks' parts."""
        norm = self._squared_norm().sqrt()
        scale = where(norm.isfinite(), (max_norm / (norm + 1e-6)).clip(max=1.0), 1.0)
        for part in self._having():
            part.grad = (part.grad * scale).to(part.dtype)
        return norm

    @no_grad()
    def spread(self) -> None:
        """The parameters become what all ranks have made of their parts."""
        kinds: dict[Any, list[Tensor]] = {}
        for p in self.whole:
            kinds.setdefault(p.dtype, []).append(p)
        for members in kinds.values():
            rows, at = stacked(cat([self._part[id(p)].detach() for p in members])), 0
            for p in members:
                each = self._each[id(p)]
                p.assign(self._joined(p, rows[:, at : at + each]))
                at += each

    def _having(self) -> list[Tensor]:
        return [part for part in self.parts if part.grad is not None]

    def _squared_norm(self) -> Tensor:
        return all_reduce(squared_norm(self.parts))


class ShardedState:
    """The state of an optimizer of parts as that of one of the whole parameters would be, so that
    any number of ranks can go on from it. All ranks ask for it together."""

    def __init__(self, optimizer: Optimizer, shards: Shards) -> None:
        self._optimizer, self._shards = optimizer, shards
        whole = {id(part): p for p, part in zip(shards.whole, shards.parts, strict=True)}
        self._moments = {
            f"{name}.{i}": whole[id(part)]
            for i, (part, moments) in enumerate(
                zip(optimizer.parameters, optimizer.moments, strict=True)
            )
            for name in moments
        }

    def state_dict(self) -> dict[str, Tensor]:
        """As Optimizer.state_dict()."""
        shards = self._shards
        return {
            name: shards._joined(self._moments[name], stacked(t)) if name in self._moments else t
            for name, t in self._optimizer.state_dict().items()
        }

    @no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """As Optimizer.load_state_dict(); the parts are of the parameters' values of now."""
        shards = self._shards
        self._optimizer.load_state_dict(
            {
                name: shards.part_of(p, t) if (p := self._moments.get(name)) is not None else t
                for name, t in state.items()
            }
        )
        for p, part in zip(shards.whole, shards.parts, strict=True):
            part.assign(shards.part_of(p, p.detach()))
