"""Random numbers through tx: which word is which element, seeds, streams, state, dropout."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from philox import reference as words

import tinygrad_tx as tx
from tinygrad_tx import random
from tinygrad_tx.errors import UserError
from tinygrad_tx.nn import functional as F  # noqa: N812

SEED = 0x0123456789ABCDEF


@pytest.fixture(autouse=True)
def seeded() -> None:
    tx.manual_seed(SEED)


def test_element_i_is_word_i_mod_4_of_counter_i_div_4() -> None:
    for stream in range(3):  # each call takes the next one
        u = tx.rand(3, 7)
        want = (np.array(words(SEED, stream, range(21))) >> 8) * 2.0**-24
        assert u.dtype == tx.float32 and u.shape == (3, 7)
        np.testing.assert_array_equal(u.numpy().ravel().astype(np.float64), want)


def test_integers_scale_the_word() -> None:
    n = tx.randint(-5, 20, (4, 5))
    want = [-5 + (w * 25 >> 32) for w in words(SEED, 0, range(20))]
    assert n.dtype == tx.int64 and n.numpy().ravel().tolist() == want
    assert (
        tx.randint(3, (2,)).shape == (2,) and tx.randint(0, 3, 4, dtype=tx.int32).dtype == tx.int32
    )


def test_normal_numbers_are_box_and_muller() -> None:
    z = tx.randn(5, dtype=tx.float64).numpy()
    u = (np.array(words(SEED, 0, range(6))) >> 8) * 2.0**-24
    radius, turn = np.sqrt(-2 * np.log(u[0::2] + 2.0**-24)), 2 * np.pi * u[1::2]
    want = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1).ravel()[:5]
    np.testing.assert_allclose(z, want, atol=1e-6)


def test_shape_does_not_matter_but_order_does() -> None:
    flat = tx.rand(24)
    tx.manual_seed(SEED)
    assert tx.rand(2, 3, 4).reshape(-1).tolist() == flat.tolist()
    tx.manual_seed(SEED)
    assert tx.rand(7).tolist() == flat[:7].tolist()
    assert tx.rand(7).tolist() != flat[7:14].tolist()


def test_seeds_and_streams_differ() -> None:
    a, b = tx.rand(1000), tx.rand(1000)
    tx.manual_seed(SEED + 1)
    c = tx.rand(1000)
    tx.manual_seed(SEED)
    assert tx.rand(1000).tolist() == a.tolist()
    for other in (b, c):
        assert not (a == other).any()
        assert abs(np.corrcoef(a.numpy(), other.numpy())[0, 1]) < 0.1


def test_a_refused_call_takes_no_stream() -> None:
    for call in (
        lambda: tx.rand(-1),
        lambda: tx.randn(2, dtype=tx.int64),
        lambda: tx.randint(0, 1, -1),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
    u = tx.rand(3)
    tx.manual_seed(SEED)
    assert tx.rand(3).tolist() == u.tolist()


def test_an_empty_draw_takes_a_stream_too() -> None:
    tx.rand(0, 3)
    after = tx.rand(2)
    tx.manual_seed(SEED)
    tx.rand(5)
    assert tx.rand(2).tolist() == after.tolist()


def test_statistics() -> None:
    n = 200_000
    u, z, k = (
        x.numpy().astype(np.float64) for x in (tx.rand(n), tx.randn(n), tx.randint(10, (n,)))
    )
    assert 0 <= u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n) and abs(u.var() - 1 / 12) < 1e-3
    assert abs(z.mean()) < 5 / np.sqrt(n) and abs(z.var() - 1) < 0.02
    assert abs((z**3).mean()) < 0.05 and abs((z**4).mean() - 3) < 0.1
    assert np.abs(np.bincount(k.astype(int)) / n - 0.1).max() < 5 * np.sqrt(0.09 / n)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_where_u_is_at_least_p(p: float) -> None:
    n = 100_000
    x = tx.ones(n, requires_grad=True)
    y = F.dropout(x, p)
    if p:
        tx.manual_seed(SEED)
        kept = tx.rand(n).numpy() >= np.float64(p)
        np.testing.assert_array_equal(y.numpy() != 0, kept)
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(y.numpy().max(), 1 / (1 - p), rtol=1e-6)
    y.sum().backward()  # the same mask
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_dropout_at_its_ends() -> None:
    x = tx.ones(50, requires_grad=True)
    assert F.dropout(x, 0.5, training=False).tolist() == [1] * 50
    gone = F.dropout(x, 1.0)
    gone.sum().backward()
    assert not gone.any() and not x.grad.any() and not x.grad.isnan().any()
    for p in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            F.dropout(x, p)


def test_state_goes_on_where_it_was() -> None:
    tx.rand(3)
    state = random.get_state()
    assert state["cpu"] == (SEED, 1)
    a = [tx.rand(4).tolist(), tx.randn(4).tolist()]
    tx.manual_seed(5)
    random.set_state(state)
    assert [tx.rand(4).tolist(), tx.randn(4).tolist()] == a
    assert random.get_state()["cpu"] == (SEED, 3)


def test_a_compiled_function_draws_what_eager_code_would() -> None:
    def step() -> tuple[tx.Tensor, tx.Tensor]:
        return tx.rand(3), tx.randn(2)

    compiled = tx.compile(step)
    got = [t.tolist() for _ in range(3) for t in compiled()]
    after = tx.rand(2).tolist()
    tx.manual_seed(SEED)
    assert got == [t.tolist() for _ in range(3) for t in step()] and tx.rand(2).tolist() == after


def test_random_numbers_have_no_gradient() -> None:
    assert not any(t.requires_grad for t in (tx.rand(2), tx.randn(2), tx.randint(3, (2,))))


def test_seeds_that_do_not_fit() -> None:
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match="must be between 0 and"):
            tx.manual_seed(seed)
    tx.manual_seed(2**63 - 1)
    assert tx.rand(1).shape == (1,)


def test_without_a_seed_each_process_draws_its_own() -> None:
    program = [sys.executable, "-c", "import tinygrad_tx as tx; print(tx.rand(4).tolist())"]
    one, two = (subprocess.run(program, capture_output=True, check=True).stdout for _ in range(2))
    assert one != two
