"""x[index] and x[index] = value against NumPy, with the places of axes that PyTorch gives them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_tx as tx
from tinygrad_tx.errors import DTypeError, ShapeError, TraceError

examples = settings(derandomize=True, deadline=None, database=None)


class Sample(NamedTuple):
    """An array, an index as the user writes it, and the same in two steps that NumPy takes: basic
    items first (integers and slices), then arrays. So integers do not part the arrays."""

    array: np.ndarray
    index: tuple[Any, ...]
    basic: tuple[Any, ...]
    advanced: tuple[Any, ...]

    def read(self) -> np.ndarray:
        return self.array[self.basic][self.advanced]

    def write(self, value: Any) -> np.ndarray:
        out = self.array.copy()
        view = out[self.basic]
        assert np.shares_memory(view, out) or not view.size
        view[self.advanced] = value
        return out


@st.composite
def samples(draw: Any, grad: bool = False) -> Sample:
    shape = tuple(draw(st.lists(st.integers(0 if not grad else 1, 4), max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = rng.standard_normal(shape)
    index: list[Any] = []
    basic: list[Any] = []
    advanced: list[Any] = []
    common = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    dots, axis = draw(st.integers(0, len(shape) + 2)), 0
    kinds = ["int", "slice", "none", "array", "list", "position", "mask", "array", "slice"]
    while axis < len(shape) and draw(st.integers(0, 9)):
        if len(index) == dots:
            rest = draw(st.integers(0, len(shape) - axis))
            index.append(Ellipsis)
            basic += [slice(None)] * rest
            advanced += [slice(None)] * rest
            axis += rest
            continue
        n, kind = shape[axis], draw(st.sampled_from(kinds))
        if kind == "none":
            index.append(None)
            basic.append(None)
            advanced.append(slice(None))
            continue
        if kind == "slice" or n == 0:
            part = [draw(st.one_of(st.none(), st.integers(-5, 5))) for _ in range(2)]
            step = draw(st.sampled_from([None, 1, 2, 3, -1, -2]))
            index.append(slice(*part, step))
            basic.append(index[-1])
            advanced.append(slice(None))
        elif kind in ("int", "position"):
            i = draw(st.integers(-n, n - 1))
            wrap = draw(st.sampled_from([int, np.int32] if kind == "int" else [tx.tensor, np.array]))
            index.append(wrap(i))
            basic.append(i)
        elif kind == "mask":
            covered = shape[axis : axis + draw(st.integers(1, 2))]
            mask = rng.random(covered) < 0.6
            count = np.count_nonzero(mask)
            if any(isinstance(a, np.ndarray) for a in advanced) or count != 1:
                others = [a for a in advanced if isinstance(a, np.ndarray)]
                if others or draw(st.booleans()):
                    continue  # its length would have to fit the other arrays
                common = (count,)
            index.append(draw(st.sampled_from([tx.tensor, np.array]))(mask))
            basic += [slice(None)] * mask.ndim
            advanced += list(np.nonzero(mask))
            axis += mask.ndim - 1
        else:
            own = tuple(1 if draw(st.integers(0, 3)) == 0 else m for m in common)
            values = rng.integers(-n, n, own[draw(st.integers(0, len(own))) :])
            if not values.ndim:
                values = values.reshape(1)
            wrap = draw(st.sampled_from([np.array, tx.tensor, lambda v: tx.tensor(v).int()]))
            index.append(values.tolist() if kind == "list" and values.size else wrap(values))
            basic.append(slice(None))
            advanced.append(values)
        axis += 1
    rest = len(shape) - axis
    if any(item is Ellipsis for item in index):  # what follows the dots counts from the end
        at = next(i for i, item in enumerate(index) if item is Ellipsis)
        index[at + 1 :] += [slice(None)] * rest
    return Sample(array, tuple(index), (*basic, *[slice(None)] * rest), tuple(advanced))


@given(samples())
@examples
def test_reading(sample: Sample) -> None:
    try:
        want = sample.read()
    except IndexError:  # arrays that do not broadcast
        with pytest.raises(ShapeError, match="indexing: shapes"):
            tx.tensor(sample.array)[sample.index]
        return
    got = tx.tensor(sample.array)[sample.index if len(sample.index) != 1 else sample.index[0]]
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.numpy(), want)


@given(samples(), st.integers(0, 4), st.data())
@examples
def test_writing(sample: Sample, kind: int, data: Any) -> None:
    try:
        shape = sample.read().shape
    except IndexError:
        return
    rng = np.random.default_rng(1)
    if kind == 0:
        value: Any = 2.5
    else:  # a broadcast part of the shape, with ones in front
        shape = tuple(1 if data.draw(st.booleans()) else n for n in shape)
        value = rng.standard_normal(shape[data.draw(st.integers(0, len(shape))) :] if kind < 4
                                    else (1, *shape))  # fmt: skip
    x = tx.tensor(sample.array)
    before, seen = x.detach(), x.numpy()
    x[sample.index] = tx.tensor(value) if kind % 2 else value
    np.testing.assert_array_equal(x.numpy(), sample.write(value))
    np.testing.assert_array_equal(seen, sample.array)
    assert before.tolist() == sample.array.tolist() and x.shape == sample.array.shape


@given(samples(grad=True))
@settings(examples, max_examples=40)
def test_gradients_to_second_order(sample: Sample) -> None:
    try:
        value = np.random.default_rng(2).standard_normal(sample.read().shape)
    except IndexError:
        return

    def write(x: tx.Tensor, v: tx.Tensor) -> tx.Tensor:
        y = x * 1.0
        y[sample.index] = v * v
        return y * y

    x = tx.tensor(sample.array)
    assert tx.gradcheck(lambda x: (x * x)[sample.index] ** 3, x, order=2)
    assert tx.gradcheck(write, (x, tx.tensor(value)), order=2)


# Named cases -------------------------------------------------------------------------------------


def test_of_duplicates_the_last_one_stays() -> None:
    x, v = tx.zeros(4), tx.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x[[2, 0, 2]] = v
    assert x.tolist() == [2, 0, 3, 0]
    x.sum().backward()
    assert v.grad.tolist() == [0, 1, 1]


def test_in_place_at_an_index() -> None:
    x = tx.zeros(3, 2)
    x[1] += 2
    x[[0, 0]] += 1  # once, as in NumPy and PyTorch
    x[:, 1] *= 10
    x[x == 0] -= 5
    assert x.tolist() == [[1, 10], [2, 20], [-5, -5]]


def test_values_are_converted_to_the_dtype() -> None:
    x = tx.zeros(3, dtype=tx.int32)
    x[0], x[1], x[[2]] = 2.9, tx.tensor(1.5), [True]
    assert x.tolist() == [2, 1, 1] and x.dtype == tx.int32
    y = tx.zeros(2, dtype=tx.bool_)
    y[1] = 3
    assert y.tolist() == [False, True]


def test_a_mask_writes_scalars_and_rows() -> None:
    x = tx.tensor(np.arange(6.0).reshape(2, 3))
    x[x > 3] = -1.0
    x[tx.tensor([True, False])] = tx.tensor([7.0, 8.0, 9.0])
    x[x < 0] = tx.tensor([1.5, 2.5])
    assert x.tolist() == [[7, 8, 9], [3, 1.5, 2.5]]
    assert x[x > 100].shape == (0,) and x[[]].shape == (0, 3) and x[:, []].shape == (2, 0)
    s = tx.tensor(2.0, requires_grad=True)
    y = tx.zeros(3)
    y[tx.tensor([True, False, True])] = s
    y.sum().backward()
    assert s.grad.item() == 2


def test_empty_indices() -> None:
    x = tx.tensor(np.arange(6).reshape(2, 3))
    assert x[()].tolist() == x[...].tolist() == x[:].tolist() == x.tolist()
    assert x[1:1].shape == (0, 3) and x[5:].shape == (0, 3) and x[:, 2:0].shape == (2, 0)
    assert x[:, 2:0:-1].tolist() == [[2, 1], [5, 4]] and x[::-2].tolist() == [[3, 4, 5]]
    x[1:1] = 5
    x[tx.zeros(0, dtype=tx.int64)] = 5
    x[tx.zeros(2, 3, dtype=tx.bool_)] = 5
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    zero_d = tx.tensor(1.0)
    zero_d[()] = 3.0
    assert zero_d[None].shape == (1,) and zero_d[...].item() == 3


def test_slices_by_tensors() -> None:
    x = tx.arange(10)
    assert x[tx.tensor(2) : tx.tensor(5)].tolist() == [2, 3, 4]


def test_positions_are_read_and_written_in_one_trace() -> None:
    def step(cache: tx.Tensor, row: tx.Tensor, at: tx.Tensor) -> tx.Tensor:
        cache[:, at] = row
        cache[0, at, 0] += 100
        return cache[:, at] + cache[1, at, 1]

    compiled = tx.compile(step)
    ours, theirs = tx.zeros(2, 5, 3), tx.zeros(2, 5, 3)
    for i in range(-2, 3):
        row = tx.tensor(np.full((2, 3), i + 10.0, np.float32))
        got, want = compiled(ours, row, tx.tensor(i)), step(theirs, row, tx.tensor(i))
        assert got.tolist() == want.tolist() and ours.tolist() == theirs.tolist()
    assert compiled.stats()["retraces"] == 0
    with pytest.raises(IndexError, match="update: a write of 1 at position 5 leaves the 5 places"):
        compiled(ours, row, tx.tensor(5))


def test_masks_need_values() -> None:
    f = tx.compile(lambda x: x[x > 0])
    with pytest.raises(TraceError, match="indexing by a boolean mask needs a value"):
        f(tx.ones(3))
    g = tx.compile(lambda x: _fill(x.clone()))
    assert g(tx.tensor([1.0, -1.0])).tolist() == [0, -1]


def _fill(x: tx.Tensor) -> tx.Tensor:
    x[x > 0] = 0.0
    return x


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (2, IndexError, r"index 2 is outside axis 0 of a Tensor \(2, 3\)"),
        ((0, -4), IndexError, "index -4 is outside axis 1"),
        ((0, 0, 0), IndexError, r"3 indices .* for a Tensor \(2, 3\)"),
        ((..., 0, ...), IndexError, "2 ellipses"),
        ([0, 2], IndexError, "index 2 is outside the 2 entries"),
        (([0, 1], [0, -4]), IndexError, "index -4 is outside the 3"),
        (tx.tensor(2), IndexError, "index 2 is outside the 2 entries"),
        ((tx.tensor(0), tx.tensor([3])), IndexError, "index 3 is outside the 3"),
        (([0, 1], [0, 1, 2]), ShapeError, r"indexing: shapes \(2,\) and \(3,\) do not broadcast"),
        (tx.tensor([True] * 3), ShapeError, r"a mask \(3,\) does not fit .*\(2,.*\(2, 3\)"),
        ((..., tx.tensor([True] * 2)), ShapeError, r"a mask \(2,\) does not fit the axes \(3,\)"),
        (tx.tensor(True), DTypeError, "cannot be indexed by a 0-d Tensor of bool"),
        (tx.tensor(1.0), DTypeError, "Tensor of float32: use int32, int64 or a bool mask"),
        ([0.5], DTypeError, "an index must be of integers or bools, not float64"),
        (True, DTypeError, "cannot be indexed by True"),
        ("a", DTypeError, "cannot be indexed by 'a'"),
        (1.0, DTypeError, "cannot be indexed by 1.0"),
    ],
)
def test_errors(index: Any, error: type[Exception], message: str) -> None:
    x = tx.zeros(2, 3)
    with pytest.raises(error, match=message) as caught:
        x[index]
    assert "\n" not in str(caught.value)
    with pytest.raises((IndexError, ShapeError, DTypeError)):
        x[index] = 1.0
    assert not x.any()


def test_values_that_do_not_fit() -> None:
    x = tx.zeros(2, 3)
    for index, value, part in ((0, tx.ones(2), "3,"), ([0, 1], tx.ones(3, 3), "2, 3"),
                               ((slice(None), tx.tensor(1)), tx.ones(3), "2,"),
                               (x > 0, tx.ones(2), "0,")):  # fmt: skip
        with pytest.raises(ShapeError, match=rf"value: .* does not fit the indexed part \({part}\)"):
            x[index] = value
