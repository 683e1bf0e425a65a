"""Shards: ranks that each take the step of a part of every parameter take that of the whole; and a
number that is not finite on one of them lets all of them skip it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import distributed, optim
from tinygrad_tx.distributed import world
from tinygrad_tx.optim.shards import ShardedState, Shards

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are made by fork")

SHAPES = [(4, 5), (7,), (), (2, 3, 2), (1,)]  # of some a rank has nothing


def parameters() -> list[tx.Tensor]:
    drawn = np.random.default_rng(3)
    return [tx.tensor(drawn.normal(size=shape), requires_grad=True) for shape in SHAPES]


def gradients(rank: int, step: int) -> list[tx.Tensor]:
    drawn = np.random.default_rng([rank, step])
    return [tx.tensor(drawn.normal(size=shape)) for shape in SHAPES]


class Steps:
    """Steps of this rank's parts. orders: by name, what ranks did together, of each step."""

    def __init__(self, compiled: bool = False) -> None:
        self.whole = parameters()
        self.shards = Shards(self.whole)
        self.optimizer = optim.Adam(self.shards.parts, 0.1, weight_decay=0.01)
        self.state = ShardedState(self.optimizer, self.shards)
        self.orders: list[list[str]] = []
        self._run = tx.compile(self._step) if compiled else self._step

    def _step(self, *grads: tx.Tensor) -> tx.Tensor:
        for p, grad in zip(self.whole, grads, strict=True):
            p.grad = grad
        self.shards.take_gradients()
        norm = self.shards.clip_grad_norm_(1.5)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.shards.spread()
        return norm

    def take(self, grads: list[tx.Tensor]) -> float:
        spans = world.current().spans
        spans.clear()
        norm: float = self._run(*grads).item()
        values = [p.numpy() for p in self.held()]  # waits for all of it
        assert len(values) == len(SHAPES)
        self.orders.append([span.name for span in spans])
        return norm

    def held(self) -> list[tx.Tensor]:
        return [p.detach() for p in self.whole]

    def arrays(self) -> tuple[list[Any], dict[str, Any]]:
        """The parameters, and the whole state."""
        state = {name: t.numpy() for name, t in self.state.state_dict().items()}
        return [p.numpy() for p in self.held()], state


def of_the_whole(size: int, steps: int) -> tuple[list[Any], dict[str, Any], list[float]]:
    """What one optimizer makes of the sums of all ranks' gradients."""
    params = parameters()
    optimizer, norms = optim.Adam(params, 0.1, weight_decay=0.01), []
    for step in range(steps):
        every = [gradients(rank, step) for rank in range(size)]
        for p, *grads in zip(params, *every, strict=True):
            p.grad = sum(grads[1:], grads[0])
        norms.append(optim.clip_grad_norm_(params, 1.5).item())
        optimizer.step()
    state = {name: t.numpy() for name, t in optimizer.state_dict().items()}
    return [p.detach().numpy() for p in params], state, norms


@pytest.mark.parametrize(("size", "compiled"), [(2, False), (3, False), (2, True)])
def test_the_step_of_the_whole(size: int, compiled: bool) -> None:
    """Parameters, moments and norms; also after its state has been put back."""

    def rank() -> Any:
        me, steps = distributed.get_rank(), Steps(compiled)
        norms = [steps.take(gradients(me, number)) for number in range(2)]
        kept = {name: t.detach() for name, t in steps.state.state_dict().items()}
        before = steps.held()
        steps.take(gradients(me, 7))  # which is taken back
        with tx.no_grad():
            for p, value in zip(steps.whole, before, strict=True):
                p.assign(value)
        steps.state.load_state_dict(kept)
        norms.append(steps.take(gradients(me, 2)))
        moments = sum(t.numel() for m in steps.optimizer.moments for t in m.values())
        return (*steps.arrays(), norms, moments)

    wanted, wanted_state, wanted_norms = of_the_whole(size, 3)
    for found, state, norms, moments in distributed.local.run(size, rank):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(norms, wanted_norms, rtol=1e-12)
        assert moments == 2 * sum(-(-int(np.prod(shape)) // size) for shape in SHAPES)
        assert state.keys() == wanted_state.keys()
        for name, array in wanted_state.items():
            np.testing.assert_allclose(state[name], array, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_all_skip_what_is_not_finite_on_one(value: float, compiled: bool) -> None:
    """Wherever the number is, and of whosever part: of the first rank, or of the last. Nothing
    changes but the count of skipped steps; ranks do the same things in the same order as in a
    step that is taken, so none waits for another; and the next step is taken."""
    size = 3

    def rank() -> Any:
        me, steps = distributed.get_rank(), Steps(compiled)
        steps.take(gradients(me, 0))
        before = steps.arrays()
        norms = []
        for which, where in ((0, 0), (0, 19), (2, 0), (3, 11)):  # a part of the first, of the last
            bad = [grad.numpy().copy() for grad in gradients(me, 9)]
            if me == size - 1:
                bad[which].reshape(-1)[where] = value
            norms.append(steps.take([tx.tensor(array) for array in bad]))
        after = steps.arrays()
        steps.take(gradients(me, 1))
        return before, after, norms, steps.arrays(), steps.orders

    results = distributed.local.run(size, rank)
    wanted, wanted_state, _ = of_the_whole(size, 2)
    for before, after, norms, last, orders in results:
        assert not np.isfinite(norms).any()
        for a, b in zip(after[0], before[0], strict=True):
            np.testing.assert_array_equal(a, b)
        assert after[1]["skipped"] == 4 and before[1]["skipped"] == 0
        for name in before[1].keys() - {"skipped"}:
            np.testing.assert_array_equal(after[1][name], before[1][name])
        for a, b in zip(last[0], wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        assert last[1]["step"] == wanted_state["step"]
        assert orders == results[0][-1] and len({tuple(order) for order in orders}) == 1
