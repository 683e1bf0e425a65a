"""Sampling: exact shares of the unit interval, frequencies, cuts, and streams of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from decoding_case import Array, Chain

import tinygrad_tx as tx
from tinygrad_tx import random
from tinygrad_tx.decoding import generate
from tinygrad_tx.decoding.loop import Steps
from tinygrad_tx.decoding.sampling import Draw
from tinygrad_tx.errors import UserError

PROBS = np.array([0.4, 0.05, 0.25, 0.1, 0.2])
CYCLE = np.stack([np.roll(PROBS, i) for i in range(5)])


def shares(
    probs: Array,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    may_end: bool = True,
    points: int = 20_000,
) -> Array:
    """How much of [0, 1) draws each token."""
    grid = (np.arange(points) + 0.5) / points
    log_probs = tx.tensor(np.tile(np.log(probs), (points, 1)))
    draw = Draw(top_k, top_p < 1, eos_id=len(probs) - 1, floor=min_p > 0)
    settings = [tx.tensor(np.array(x)) for x in (temperature, top_p, min_p, 1 - may_end)]
    values, ids = draw(log_probs, tx.tensor(0), tx.tensor(grid[None]), *settings)
    assert ids.shape == (points, 1)
    np.testing.assert_array_equal(values.numpy(), np.log(probs)[ids.numpy()])
    return np.bincount(ids.numpy().ravel(), minlength=len(probs)) / points


def cut(probs: Array, tokens: list[int]) -> Array:
    kept = np.zeros_like(probs)
    kept[tokens] = probs[tokens]
    return kept / kept.sum()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, PROBS),
        ({"temperature": 0.5}, PROBS**2 / (PROBS**2).sum()),
        ({"temperature": 3.0}, PROBS ** (1 / 3) / (PROBS ** (1 / 3)).sum()),
        ({"temperature": 1e-300}, cut(PROBS, [0])),
        ({"temperature": 1e9}, np.full(5, 0.2)),
        ({"top_k": 1}, cut(PROBS, [0])),
        ({"top_k": 3}, cut(PROBS, [0, 2, 4])),
        ({"top_k": 99}, PROBS),
        ({"top_p": 1e-9}, cut(PROBS, [0])),
        ({"top_p": 0.399}, cut(PROBS, [0])),
        ({"top_p": 0.401}, cut(PROBS, [0, 2])),
        ({"top_p": 0.66}, cut(PROBS, [0, 2, 4])),
        ({"top_p": 0.9999}, PROBS),
        ({"min_p": 1.0}, cut(PROBS, [0])),
        ({"min_p": 0.501}, cut(PROBS, [0, 2])),
        ({"min_p": 0.2}, cut(PROBS, [0, 2, 3, 4])),
        ({"temperature": 0.5, "min_p": 0.3}, cut(PROBS**2, [0, 2])),
        ({"top_k": 2, "min_p": 0.1}, cut(PROBS, [0, 2])),
        ({"top_p": 0.66, "min_p": 0.51}, cut(PROBS, [0, 2])),
        ({"min_p": 0.4, "may_end": False}, cut(PROBS, [0, 2])),
        # the cuts in their order: temperature, top_k, top_p
        ({"top_k": 2, "top_p": 0.6}, cut(PROBS, [0])),
        ({"temperature": 0.5, "top_p": 0.56}, cut(PROBS**2, [0])),
        ({"may_end": False}, cut(PROBS, [0, 1, 2, 3])),
        ({"may_end": False, "top_k": 3}, cut(PROBS, [0, 2, 3])),
    ],
)
def test_each_token_has_its_share(settings: dict[str, Any], wanted: Array) -> None:
    np.testing.assert_allclose(shares(PROBS, **settings), wanted, atol=1e-4)


def test_what_has_no_probability_is_never_drawn() -> None:
    draw = Draw(0, False, eos_id=3)
    log_probs = tx.tensor(np.array([[0, 0.5, 0, 0.5]] * 3)).log()
    uniforms = tx.tensor(np.array([[0.9] * 3, [0.0, 0.5, 1 - 2.0**-24]]))
    one = tx.tensor(1.0, dtype=tx.float64)
    _, ids = draw(log_probs, tx.tensor(1), uniforms, one, one, one * 0, tx.tensor(1))
    assert ids.tolist() == [[1], [3], [3]]


def test_of_many_equal_tokens_the_nucleus_keeps_as_many_as_it_takes() -> None:
    found = shares(np.full(50, 0.02), top_p=0.31, may_end=True)
    assert (found > 0).sum() == 16


def test_frequencies_over_several_steps() -> None:
    """Pairs of tokens of a Markov chain, end token and all, within five standard deviations."""
    tx.manual_seed(4)
    model, n = Chain(CYCLE), 6000
    (row,) = generate(model, [[0]], do_sample=True, num_return_sequences=n, max_new_tokens=2)
    seen = np.zeros((5, 5))
    for hypothesis in row:
        first, second = [*hypothesis.tokens, 4, 4][:2]
        seen[first, second] += 1
    wanted = PROBS[:, None] * CYCLE
    wanted[4] = [0, 0, 0, 0, PROBS[4]]  # the end token ends it
    deviation = np.sqrt(n * wanted * (1 - wanted))
    assert (np.abs(seen - n * wanted) <= 5 * deviation + 1e-9).all()


def test_scores_are_the_models_own_log_probabilities() -> None:
    """Whatever was cut or sharpened before drawing; the best score comes first."""
    tx.manual_seed(5)
    (row,) = generate(
        Chain(CYCLE),
        [[1]],
        do_sample=True,
        num_return_sequences=30,
        max_new_tokens=4,
        temperature=2.0,
        top_k=4,
        top_p=0.95,
        length_penalty=0.7,
    )
    for tokens, score in row:
        path = tokens if len(tokens) == 4 else [*tokens, 4]
        total = sum(np.log(CYCLE[a, b]) for a, b in zip([1, *path], path, strict=False))
        assert score == pytest.approx(total / ((5 + len(path)) / 6) ** 0.7, rel=1e-6)
    assert [h.score for h in row] == sorted((h.score for h in row), reverse=True)
    assert len({tuple(h.tokens) for h in row}) > 10


def test_no_end_before_min_new_tokens() -> None:
    (row,) = generate(
        Chain(CYCLE),
        [[3]],
        do_sample=True,
        num_return_sequences=200,
        min_new_tokens=2,
        max_new_tokens=5,
    )
    lengths = {len(h.tokens) for h in row}
    assert lengths == {2, 3, 4, 5}


def draws(model: Any, rows: list[list[int]], **options: Any) -> list[list[list[int]]]:
    settings = {"do_sample": True, "max_new_tokens": 8, "num_return_sequences": 2, **options}
    found = generate(model, rows, **settings)
    return [[h.tokens for h in row] for row in found]


def test_a_seed_gives_the_same_again_and_a_call_gives_another() -> None:
    model = Chain(CYCLE)
    tx.manual_seed(11)
    first, second = draws(model, [[0], [1]]), draws(model, [[0], [1]])
    assert first != second
    tx.manual_seed(11)
    assert [draws(model, [[0], [1]]), draws(model, [[0], [1]])] == [first, second]
    tx.manual_seed(12)
    assert draws(model, [[0], [1]]) != first


def test_a_row_draws_the_same_in_whatever_batch() -> None:
    """Rows take streams in their order; rows that end early, and limits, change nothing else."""
    model = Chain(CYCLE)
    rows = [[i % 5] for i in range(13)]
    limits = [1 + i % 4 * 3 for i in range(13)]
    tx.manual_seed(2)
    together = draws(model, rows, max_new_tokens=limits)
    tx.manual_seed(2)
    alone = [
        draws(model, [row], max_new_tokens=limit)[0]
        for row, limit in zip(rows, limits, strict=True)
    ]
    assert together == alone
    assert len({len(tokens) for row in together for tokens in row}) > 4


def test_sampling_has_streams_of_its_own() -> None:
    model = Chain(CYCLE)
    tx.manual_seed(3)
    numbers, state = tx.rand(4).tolist(), random.get_state()
    wanted = draws(model, [[0]])
    tx.manual_seed(3)
    assert draws(model, [[0]]) == wanted  # rand has taken nothing from it
    assert tx.rand(4).tolist() == numbers  # nor it from rand
    assert random.get_state() == state


def test_no_other_random_number_is_drawn_twice() -> None:
    coin = Chain([[0.5, 0.5, 0], [0.5, 0.5, 0], [1, 0, 0]])
    tx.manual_seed(6)
    numbers = tx.rand(4, 100).numpy()
    for row in draws(coin, [[0]] * 4, max_new_tokens=100, num_return_sequences=1):
        assert all(row[0] != (other >= 0.5).astype(int).tolist() for other in numbers)


def test_settings_that_are_numbers_do_not_trace_again() -> None:
    model = Chain(CYCLE)
    for temperature, top_p in ((1.0, 0.9), (0.7, 0.5), (3.0, 0.1)):
        draws(model, [[0]], temperature=temperature, top_p=top_p, min_new_tokens=7)
    assert Steps.of(model).step.stats()["retraces"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"temperature = 0.0 must be above 0; .* leave out do_sample"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"temperature": float("inf")}, "temperature = inf"),
        ({"top_k": -1}, "top_k = -1 must be 1 or more, or 0 for all tokens"),
        ({"top_p": 0.0}, "top_p = 0.0 must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"num_return_sequences": 0}, "num_return_sequences = 0"),
    ],
)
def test_bad_settings_get_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        draws(Chain(CYCLE), [[0]], **settings)
    assert "\n" not in str(caught.value)
