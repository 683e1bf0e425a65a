"""data/batches.py: every example once, few shapes, exact resume."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_tx.data import Batch, Batches, Dataset, Shape, Tokenizer, by_length
from tinygrad_tx.data.batches import Ragged, _edges, _shapes
from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.errors import UserError

BYTES = Tokenizer.train([], vocab_size=260)


def dataset(lengths: list[tuple[int, int]]) -> Dataset:
    """Examples of these lengths (end tokens not counted) with distinct ids."""

    def ragged(side: int) -> Ragged:
        ends = np.cumsum([0] + [pair[side] for pair in lengths])
        return Ragged(np.arange(4, 4 + ends[-1], dtype=np.int32), ends)

    return Dataset(ragged(0), ragged(1), 0, 0)


def random_dataset(n: int, seed: int = 0, longest: int = 40) -> Dataset:
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.geometric(0.08, size=n), longest)
    others = np.clip(sizes + rng.integers(-4, 5, size=n), 1, longest)
    return dataset(list(zip(sizes.tolist(), others.tolist(), strict=True)))


def shape(batch: Batch) -> Shape:
    return Shape(len(batch.src), batch.src.shape[1], batch.tgt_in.shape[1])


def take(stream: Iterator[Batch], n: int) -> list[Batch]:
    return [next(stream) for _ in range(n)]


def same(one: Batch, other: Batch) -> bool:
    arrays = ("src", "tgt_in", "tgt_out", "indices")
    return one.n_tokens == other.n_tokens and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


# Datasets


def test_tokenised_and_indexed() -> None:
    pairs = [("ab", "xyz"), ("c d", "w"), ("é", "ü")]
    data = Dataset.from_pairs(iter(pairs), BYTES)
    assert len(data) == 3
    assert data.source.ids.dtype == data.target.ids.dtype == np.int32
    for i, (source, target) in enumerate(pairs):
        assert data.source[i].tolist() == BYTES.encode(source)
        assert data.target[i].tolist() == BYTES.encode(target)
    assert data.source.lengths.tolist() == [len(BYTES.encode(source)) for source, _ in pairs]


def test_chunks_keep_the_order() -> None:
    pairs = [(f"s{i}", f"t{i}") for i in range(10_000)]
    data = Dataset.from_pairs(iter(pairs), BYTES)
    assert len(data) == 10_000
    assert all(BYTES.decode(data.source[i].tolist()) == f"s{i}" for i in (0, 4095, 4096, 9999))
    assert BYTES.decode(data.target[8192].tolist()) == "t8192"


def test_blank_and_overlong_pairs_are_counted() -> None:
    line = "x" * 100_000
    pairs = [("a", "b"), ("", "b"), ("a", " \t\u2028"), (line, "b"), ("a", line), ("é", "f")]
    data = Dataset.from_pairs(pairs, BYTES, max_len=8)
    assert (len(data), data.blank, data.too_long) == (2, 2, 2)
    assert data.summary() == "2 pairs, 9 tokens; 2 blank and 2 overlong left out"


def test_max_len_counts_the_end_token() -> None:
    ids = len(BYTES.encode("abcdef"))  # with the space that goes before every text
    assert len(Dataset.from_pairs([("abcdef", "a")], BYTES, max_len=ids + 1)) == 1
    assert len(Dataset.from_pairs([("a", "abcdef")], BYTES, max_len=ids + 1)) == 1
    for pair in (("abcdef", "a"), ("a", "abcdef")):
        with pytest.raises(UserError, match="1 longer than 7 tokens"):
            Dataset.from_pairs([pair], BYTES, max_len=ids)


@pytest.mark.parametrize("pairs", [[], [("", "x"), (" ", "\n")]])
def test_nothing_left(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(UserError, match=f"no sentence pairs to learn from: {len(pairs)} blank"):
        Dataset.from_pairs(pairs, BYTES)


# Batches


def test_a_batch() -> None:
    data = dataset([(3, 2), (1, 4)])  # sources 4 5 6 | 7; targets 4 5 | 6 7 8 9
    batches = Batches(data, max_tokens=100, shuffle=False)
    batch = next(batches)
    assert batches.shapes == [Shape(2, 4, 6)]
    assert batch.indices.tolist() == [1, 0]
    assert batch.src.tolist() == [[7, 2, 0, 0], [4, 5, 6, 2]]
    assert batch.tgt_in.tolist() == [[1, 6, 7, 8, 9, 0], [1, 4, 5, 0, 0, 0]]
    assert batch.tgt_out.tolist() == [[6, 7, 8, 9, 2, 0], [4, 5, 2, 0, 0, 0]]
    assert batch.n_tokens == 8
    assert batch.src.dtype == batch.tgt_in.dtype == batch.tgt_out.dtype == np.int32


def test_a_single_example() -> None:
    batches = Batches(dataset([(5, 7)]), max_tokens=4096)
    assert (batches.batches_per_epoch, batches.shapes) == (1, [Shape(1, 6, 8)])
    assert same(next(batches), next(batches))
    assert batches.state() == {"epoch": 2, "position": 0}


def test_padding_rows() -> None:
    """Where examples run out, rows have a source to attend to and no target to learn."""
    batches = Batches(dataset([(3, 3)] * 5), max_tokens=8)
    assert batches.shapes == [Shape(2, 4, 4)]
    epoch = take(batches, batches.batches_per_epoch)
    (short,) = [batch for batch in epoch if len(batch.indices) == 1]
    assert short.src.shape == (2, 4)
    assert short.src[1].tolist() == [2, 0, 0, 0]
    assert short.tgt_in[1].tolist() == [1, 0, 0, 0]
    assert short.tgt_out[1].tolist() == [0, 0, 0, 0]
    assert short.n_tokens == 4
    assert sum(batch.n_tokens for batch in epoch) == 20


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("max_tokens", [42, 128, 1000, 100_000])
def test_an_epoch(n: int, max_tokens: int, shuffle: bool) -> None:
    """Every example once, whole, in batches within the budget and of the shapes promised."""
    data = random_dataset(n)
    batches = Batches(data, max_tokens, seed=3, shuffle=shuffle)
    assert len(batches.shapes) <= 12
    for _ in range(2):
        seen: Counter[int] = Counter()
        partial = 0
        for batch in take(batches, batches.batches_per_epoch):
            seen.update(batch.indices.tolist())
            assert shape(batch) in batches.shapes
            assert batch.src.size <= max_tokens
            assert batch.tgt_in.size == batch.tgt_out.size <= max_tokens
            assert batch.n_tokens == (batch.tgt_out != 0).sum()
            partial += len(batch.indices) < len(batch.src)
            for row, i in enumerate(batch.indices):
                source, target = data.source[i].tolist(), data.target[i].tolist()
                assert [token for token in batch.src[row].tolist() if token] == [*source, 2]
                assert [token for token in batch.tgt_in[row].tolist() if token] == [1, *target]
                assert [token for token in batch.tgt_out[row].tolist() if token] == [*target, 2]
        assert seen == Counter(range(n))
        assert partial <= 1
    assert batches.state() == {"epoch": 2, "position": 0}


def test_padding_is_little() -> None:
    data = random_dataset(5000)
    batches = Batches(data, 2000)
    full = used = 0
    for batch in batches.once():
        full += batch.src.size + batch.tgt_in.size
        used += int((batch.src != 0).sum()) + batch.n_tokens
    assert used / full > 0.8


def test_languages_of_unequal_length() -> None:
    """Characters to words, say: the short side is not padded to the long one's length."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, size=1000)
    batches = Batches(dataset([(int(5 * n), int(n)) for n in sizes]), 2000)
    for _, width, height in batches.shapes:
        assert height < 0.3 * width + 3


def test_orders_differ_by_epoch_and_by_seed() -> None:
    data = random_dataset(500)

    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = Batches(data, 300, seed=seed)
        batches.restore({"epoch": epoch, "position": 0})
        return [batch.indices.tolist() for batch in take(batches, batches.batches_per_epoch)]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
    assert order(0, 1) == orders[1]


def test_resume_in_mid_epoch_is_exact() -> None:
    data = random_dataset(300)
    uninterrupted = Batches(data, 256, seed=5)
    per_epoch = uninterrupted.batches_per_epoch
    expected = take(uninterrupted, 3 * per_epoch)
    for stop in (0, 1, per_epoch - 1, per_epoch, per_epoch + 1, 2 * per_epoch + per_epoch // 2):
        before = Batches(data, 256, seed=5)
        take(before, stop)
        state = json.loads(json.dumps(before.state()))
        assert state == {"epoch": stop // per_epoch, "position": stop % per_epoch}
        after = Batches(data, 256, seed=5)
        after.restore(state)
        rest = take(after, 3 * per_epoch - stop)
        assert all(map(same, rest, expected[stop:]))
        assert after.state() == uninterrupted.state()


@pytest.mark.parametrize("state", [(0, 10_000), (0, -1), (-1, 0)])
def test_states_of_other_data_are_refused(state: tuple[int, int]) -> None:
    batches = Batches(random_dataset(50), 256)
    with pytest.raises(UserError, match="the data or max_tokens have changed"):
        batches.restore({"epoch": state[0], "position": state[1]})


def test_once_goes_through_all_and_moves_nothing() -> None:
    data = random_dataset(100)
    batches = Batches(data, 200, shuffle=False)
    take(batches, 2)
    passed = list(batches.once())
    assert batches.state()["position"] == 2
    assert sorted(i for batch in passed for i in batch.indices.tolist()) == list(range(100))
    assert all(map(same, passed, batches.once()))
    lengths = [data.source.lengths[batch.indices].mean() for batch in passed]
    assert np.corrcoef(lengths, range(len(lengths)))[0, 1] > 0.9


def test_shapes_of_another_stream() -> None:
    """Validation in the shapes of training, so that nothing more is compiled."""
    training = Batches(random_dataset(2000), 500)
    validation = Batches(random_dataset(100, seed=1), 500, shuffle=False, shapes=training.shapes)
    assert validation.shapes == training.shapes
    assert {shape(batch) for batch in validation.once()} <= set(training.shapes)
    longer = Batches(dataset([(3, 3), (60, 9)]), 500, shapes=training.shapes)
    assert longer.shapes[:-1] == training.shapes
    assert sorted(i for batch in longer.once() for i in batch.indices.tolist()) == [0, 1]


def test_budget_below_the_longest_example() -> None:
    with pytest.raises(UserError, match="max_tokens is 40, but the longest example takes 42"):
        Batches(dataset([(3, 41), (3, 3)]), max_tokens=40)
    assert Batches(dataset([(3, 41), (3, 3)]), max_tokens=42).batches_per_epoch == 2
    with pytest.raises(UserError, match="seed must be 0 or more"):
        Batches(dataset([(3, 3)]), 100, seed=-1)


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 6))
def test_edges_are_the_best_there_are(sizes: list[int], n: int) -> None:
    edges = _edges(np.array(sizes), n)
    even = sorted({-(-size // 2) * 2 for size in sizes})
    assert set(edges) <= set(even)
    assert edges == sorted(edges)
    assert len(edges) <= n
    assert edges[-1] == even[-1]

    def cost(chosen: list[int]) -> int:
        return sum(min(edge for edge in chosen if edge >= size) for size in sizes)

    if n <= 2:
        assert cost(edges) == min(cost([edge, even[-1]][-n:]) for edge in even)
    # No edge can be moved to a better place.
    for i in range(len(edges) - 1):
        others = edges[:i] + edges[i + 1 :]
        assert all(cost(edges) <= cost([*others, edge]) for edge in even)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=50))
def test_every_example_fits_a_shape(sizes: list[tuple[int, int]]) -> None:
    source, target = np.array(sizes).T
    shapes = _shapes(source, target, 60, 5)
    assert source.max() <= shapes[-1].source <= source.max() + 1
    assert target.max() <= shapes[-1].target <= target.max() + 1
    for small, large in pairwise(shapes):
        assert small.source <= large.source
        assert small.target <= large.target
        assert small[1:] != large[1:]
    for rows, width, height in shapes:
        assert rows >= 1
        assert rows * max(width, height) <= 60


# Translation


def test_by_length() -> None:
    sizes = [5, 1, 9, 5, 0, 30]
    groups = by_length(sizes, max_tokens=18)
    assert [group.tolist() for group in groups] == [[5], [2, 0], [3, 1, 4]]
    assert by_length([], 18) == []
    output = np.zeros(6, dtype=np.int64)
    for group in groups:
        output[group] = np.array(sizes)[group]
    assert output.tolist() == sizes


def test_from_the_built_in_corpus() -> None:
    pairs = grammar.pairs("train", 2000)
    tokenizer = Tokenizer.train((side for pair in pairs for side in pair), vocab_size=1000)
    batches = Batches(Dataset.from_pairs(pairs, tokenizer), max_tokens=1024)
    batch = next(batches)
    source, target = pairs[batch.indices[0]]
    assert tokenizer.decode(batch.src[0].tolist()) == source
    assert tokenizer.decode(batch.tgt_out[0].tolist()) == target
