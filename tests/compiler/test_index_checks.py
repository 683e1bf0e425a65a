"""An index outside what it chooses from: every check, wherever it stands in a plan and however
that is run, raises IndexError and leaves all state as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.nn import functional as F  # noqa: N812

X = tx.tensor(np.arange(48, dtype=np.float32).reshape(4, 12))


def put(i: tx.Tensor) -> tx.Tensor:
    x = tx.zeros(4) * 1
    x[i] = 1.0
    return x


def put_into_a_column(i: tx.Tensor) -> tx.Tensor:
    x = X[:, :4] * 1
    x[:, i] = 2.0
    return x


def put_by_two(i: tx.Tensor) -> tx.Tensor:
    x = X * 1
    x[i, i] = 2.0
    return x


def gathered_gradient(i: tx.Tensor) -> tx.Tensor:
    x = X.detach().requires_grad_()
    x[i].sum().backward()
    grad = x.grad
    assert grad is not None
    return grad


# Each chooses among 4 entries (or in 4 places) by an index of shape (1,).
CHECKS: dict[str, Callable[[tx.Tensor], tx.Tensor]] = {
    "take": lambda i: X[i],
    "take_by_two": lambda i: X[i, i],
    "take_of_a_column": lambda i: X.T[:, i],
    "index_select": lambda i: X.index_select(0, i),
    "index_add": lambda i: X.index_add(0, i, tx.ones(1, 12)),
    "take_of_int32": lambda i: X[i.to(tx.int32)],
    "take_along": lambda i: X.take_along_dim(i.reshape(1, 1).expand(1, 12), 0),
    "take_along_rows": lambda i: X.T.gather(1, i.reshape(1, 1).expand(12, 1)),
    "embedding": lambda i: F.embedding(i, X),
    "cross_entropy": lambda i: F.cross_entropy(X.T[:1], i),
    "write_at": lambda i: F.write_at(X * 1, tx.ones(1, 12), i.reshape(()), 0),
    "put": put,
    "put_into_a_column": put_into_a_column,
    "put_by_two": put_by_two,
    "gradient": gathered_gradient,
}
MODES: dict[str, dict[str, str]] = {
    "native": {},
    "interp": {"TX_COMPILE": "interp"},
    "replay": {"TX_COMPILE": "replay"},
    "timed": {"TX_DEBUG": "2"},
    "checked": {"TX_CHECK": "1"},
}
OPAQUE = tx.Op(
    "refusals_opaque",
    forward=lambda xp, x: x * 2,
    rule=lambda op, x: x.spec,
    vjp=lambda g, y, x: (g * 2,),
)
# What the index goes through before its check, and what becomes of the result.
PLACES: dict[str, tuple[Callable[[tx.Tensor], tx.Tensor], Callable[[tx.Tensor], tx.Tensor]]] = {
    "first": (lambda i: i, lambda y: (y * 2 + 1).sum()),
    "last": (lambda i: (i.float().exp().log() + 0.25).floor().long(), lambda y: y),
    "before an opaque op": (lambda i: i, OPAQUE),
    "after an opaque op": (lambda i: (OPAQUE(i.float()) * 0.5).long(), lambda y: y),
    "between opaque ops": (lambda i: (OPAQUE(i.float()) * 0.5).long(), OPAQUE),
}


@pytest.fixture(
    params=[
        pytest.param(m, marks=pytest.mark.slow) if m in ("timed", "checked") else m for m in MODES
    ]
)
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in MODES[request.param].items():
        monkeypatch.setenv(name, value)
    return str(request.param)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("check", CHECKS)
def test_a_refusal_is_raised_and_changes_nothing(check: str, place: str, mode: str) -> None:
    before, after = PLACES[place]
    early, late, total = tx.zeros(3), tx.ones(3), tx.zeros(())

    def step(i: tx.Tensor) -> tx.Tensor:
        early.assign(early + 1)
        y = after(CHECKS[check](before(i)))
        late.assign(late * 2)
        total.assign(total + y.float().sum())
        return y

    def state() -> list[list[float]]:
        return [early.tolist(), late.tolist(), [total.item()]]

    good, bad = tx.tensor([1]), tx.tensor([7])
    wanted = step(good)
    expected = state()
    with pytest.raises(IndexError):
        CHECKS[check](bad)
    compiled = tx.compile(step)
    for number in range(4):  # the third run is the one that is timed
        for x, start in ((early, 0.0), (late, 1.0), (total, 0.0)):
            x.assign(tx.full(x.shape, start))
        got = compiled(good)
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-6)
        np.testing.assert_allclose(state()[2], expected[2], rtol=1e-6)
        kept = state()
        for refused in (bad, tx.tensor([-9])) if number != 1 else (bad,):
            with pytest.raises(IndexError):
                compiled(refused)
            assert state() == kept
    assert compiled.stats()["retraces"] == 0


@pytest.mark.parametrize("check", CHECKS)
def test_the_run_of_repeat_that_is_refused_changes_nothing(check: str, mode: str) -> None:
    """The index counts up by itself: the fourth call in a row is refused."""
    at, count, never = tx.tensor([0]), tx.zeros(()), tx.tensor(False)

    @tx.compile
    def step() -> tx.Tensor:
        count.assign(count + 1)
        y = OPAQUE(CHECKS[check](at).float())
        at.assign(at + 1)
        return y

    assert step.repeat(2, never) == 2
    with pytest.raises(IndexError):
        step.repeat(9, never)
    assert (count.item(), at.tolist()) == (4, [4])
    with pytest.raises(IndexError):
        step()
    assert (count.item(), at.tolist()) == (4, [4])
    at.assign(tx.tensor([1]))
    step()
    assert (count.item(), at.tolist()) == (5, [2])


def test_a_refusal_leaves_random_numbers_as_they_were(mode: str) -> None:
    @tx.compile
    def step(i: tx.Tensor) -> tx.Tensor:
        return tx.rand(3) + OPAQUE(X[i].sum())

    tx.manual_seed(3)
    step(tx.tensor([1]))
    wanted = step(tx.tensor([1])).tolist()
    tx.manual_seed(3)
    step(tx.tensor([1]))
    with pytest.raises(IndexError):
        step(tx.tensor([4]))
    assert step(tx.tensor([1])).tolist() == wanted


def test_the_message_is_of_the_index_that_was_refused(mode: str) -> None:
    """Not of another one, whose memory has been used again since, or that has not been checked."""
    small = tx.tensor(np.arange(12, dtype=np.float32).reshape(6, 2))

    @tx.compile
    def step(i: tx.Tensor, j: tx.Tensor, at: tx.Tensor) -> tx.Tensor:
        y = OPAQUE(X[i + 0].sum())  # an index in the arena, free again after its check
        z = (small[(j * 2) // 2].sum() + y).sin() * 0
        w = F.write_at(small + z, tx.ones(1, 2), at, 0)
        return w.sum() + (small * z)[(j + y.long() * 0) % 6].sum()

    zero, one = tx.tensor(0), tx.tensor([1])
    step(one, one, zero)
    with pytest.raises(IndexError, match="index 5 is outside the 4"):
        step(tx.tensor([5]), one, zero)
    with pytest.raises(IndexError, match="index 8 is outside the 6"):
        step(one, tx.tensor([8]), zero)
    with pytest.raises(IndexError, match="position 6"):
        step(one, one, tx.tensor(6))
