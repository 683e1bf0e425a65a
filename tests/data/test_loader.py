"""TensorDataset and DataLoader: shuffled batches, as PyTorch makes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.data import DataLoader, TensorDataset

X, Y = tx.arange(14.0).reshape(7, 2), tx.arange(7)
DATA = TensorDataset(X, Y)


class Point(NamedTuple):
    x: float
    name: str


def test_a_tensor_dataset_gives_rows() -> None:
    x, y = DATA[2]
    assert len(DATA) == 7 and x.tolist() == [4, 5] and y.item() == 2
    assert [t.tolist() for t in DATA[-1]] == [[12, 13], 6]


def test_batches_in_order() -> None:
    batches = list(DataLoader(DATA, 3))
    assert [y.tolist() for _, y in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches[1][0].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert len(DataLoader(DATA, 3)) == 3 and len(DataLoader(DATA)) == 7
    dropped = DataLoader(DATA, 3, drop_last=True, num_workers=4, pin_memory=True)
    assert len(dropped) == len(list(dropped)) == 2
    assert not list(DataLoader(TensorDataset(X[:0]), 3)) and not len(DataLoader([], 3))


def test_each_epoch_is_shuffled_anew_and_can_be_repeated() -> None:
    def orders(loader: DataLoader, epochs: int = 2) -> list[list[int]]:
        return [[i for _, y in loader for i in y.tolist()] for _ in range(epochs)]

    loader = DataLoader(DATA, 3, shuffle=True, seed=1)
    first, second = orders(loader)
    assert first != second and sorted(first) == sorted(second) == list(range(7))
    again = DataLoader(DATA, 3, shuffle=True, seed=1)
    again.epoch = 1
    assert orders(again, 1) == [second] and loader.epoch == again.epoch == 2
    found = []
    for _ in range(2):
        tx.manual_seed(7)
        before = tx.rand(2).tolist()
        found.append((orders(DataLoader(DATA, 2, True)), tx.rand(2).tolist(), before))
    assert found[0] == found[1]
    tx.manual_seed(7)
    tx.rand(2)
    assert tx.rand(2).tolist() == found[0][1]  # no number of others depends on it


def test_samples_of_any_kind() -> None:
    samples = [
        {"a": tx.ones(2) * i, "b": (i, float(i), i > 0), "c": np.full(2, i), "d": str(i)}
        for i in range(3)
    ]
    (batch,) = DataLoader(samples, 3)
    assert batch["a"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert [t.dtype for t in batch["b"]] == [tx.int64, tx.float64, tx.bool_]
    assert batch["c"].shape == (3, 2) and batch["d"] == ["0", "1", "2"]
    (point,) = DataLoader([Point(1.5, "a"), Point(2.5, "b")], 2)
    assert point.x.tolist() == [1.5, 2.5] and point.name == ["a", "b"]
    assert [b.tolist() for b in DataLoader(np.arange(3), 2)] == [[0, 1], [2]]


def test_samplers_and_collate() -> None:
    assert [y.tolist() for _, y in DataLoader(DATA, 2, sampler=[6, 0, 3])] == [[6, 0], [3]]
    loader = DataLoader(DATA, batch_sampler=[[1, 2], [4]])
    assert [y.tolist() for _, y in loader] == [[1, 2], [4]] and len(loader) == 2
    assert list(DataLoader([1, 2, 3], 2, collate_fn=sum)) == [3, 3]
    assert [y.item() for _, y in DataLoader(DATA, None)] == list(range(7))
    assert list(DataLoader([1, 2], None, collate_fn=str)) == ["1", "2"]


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: TensorDataset(X, Y[:3]), "(7, 2), (3,) differ in their first axis, the samples"),
    (lambda: TensorDataset(X, 3), "TensorDataset is made of Tensors, not of 3"),
    (lambda: TensorDataset(tx.tensor(1.0)), "Tensors of at least one axis"),
    (lambda: DataLoader(iter([1])), "a dataset has a length and gives dataset[i], unlike"),
    (lambda: DataLoader(DATA, 0), "batch_size is 0; it must be 1 or more, or None"),
    (lambda: DataLoader(DATA, shuffle=True, sampler=[1]), "shuffle goes without a sampler"),
    (lambda: DataLoader(DATA, 2, batch_sampler=[[1]]), "batch_sampler gives the batches"),
    (lambda: DataLoader(DATA, generator=3), "generator=3 is not supported; give seed="),
    (lambda: next(iter(DataLoader([(1,), (1, 2)], 2))), "samples of 1, 2 parts make no batch"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()
