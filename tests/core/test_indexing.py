"""x[index] and x[index] = value against NumPy, with the places of axes that PyTorch gives them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import DTypeError, ShapeError, TraceError

SAMPLES = 600


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
        view = out[(*self.basic, ...)]  # the dots: NumPy makes a scalar of a full index otherwise
        view[self.advanced] = value
        return out


def sample(seed: int) -> Sample:
    """A random array of up to four axes, and a random index of what a Tensor can be indexed by."""
    rng = np.random.default_rng(seed)
    shape = tuple(
        int(n) for n in rng.choice([0, 1, 2, 3, 4], _one(rng, 0, 1, 2, 3, 3, 4, 4), p=_SIZES)
    )
    common = tuple(int(n) for n in rng.integers(1, 4, rng.integers(0, 3)))  # that of all arrays
    if rng.random() < 0.1:
        common = (0, *common)
    index: list[Any] = []
    basic: list[Any] = []
    advanced: list[Any] = []
    axis, dots = 0, False
    while axis < len(shape) and rng.random() < 0.95:
        n, kind = shape[axis], rng.choice(_KINDS)
        if kind == "dots":
            if not dots:
                skipped = int(rng.integers(0, len(shape) - axis + 1))
                index.append(Ellipsis)
                basic += [slice(None)] * skipped
                advanced += [slice(None)] * skipped
                axis, dots = axis + skipped, True
            continue
        if kind == "none":
            index.append(None)
            basic.append(None)
            advanced.append(slice(None))
            continue
        if kind == "slice" or n == 0:
            start, stop = (None if rng.random() < 0.3 else int(i) for i in rng.integers(-5, 6, 2))
            index.append(slice(start, stop, rng.choice([None, 1, 2, 3, -1, -2])))
            basic.append(index[-1])
            advanced.append(slice(None))
        elif kind == "integer":
            i = int(rng.integers(-n, n))
            index.append(_one(rng, int, np.int32, np.array, tx.tensor)(i))
            basic.append(i)
        elif kind == "mask":
            mask = rng.random(shape[axis : axis + int(rng.integers(1, 3))]) < 0.6
            count = int(np.count_nonzero(mask))
            if count != 1 and any(isinstance(a, np.ndarray) for a in advanced):
                continue  # as many as the other arrays have would be luck
            common = (count,)
            index.append(_one(rng, tx.tensor, np.array)(mask))
            basic += [slice(None)] * mask.ndim
            advanced += np.nonzero(mask)
            axis += mask.ndim - 1
        else:
            own = tuple(1 if rng.random() < 0.2 else m for m in common)[rng.integers(0, 2) :]
            values = rng.integers(-n, n, own or (1,))
            wraps = [np.array, tx.tensor, lambda v: tx.tensor(v).int(), np.ndarray.tolist]
            index.append(_one(rng, *wraps[: 4 if values.size else 3])(values))
            basic.append(slice(None))
            advanced.append(values)
        axis += 1
    rest = [slice(None)] * (len(shape) - axis)
    index += rest if dots else []  # what follows the dots counts from the end
    return Sample(rng.standard_normal(shape), tuple(index), (*basic, *rest), tuple(advanced))


_SIZES = [0.04, 0.16, 0.3, 0.3, 0.2]
_KINDS = ["slice"] * 3 + ["integer"] * 2 + ["array"] * 5 + ["none", "dots", "mask"]


def _one(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[rng.integers(0, len(choices))]


def test_samples_hold_what_they_should() -> None:
    found = [sample(seed) for seed in range(SAMPLES)]
    arrays = [[i for i, a in enumerate(s.advanced) if isinstance(a, np.ndarray)] for s in found]
    several = [a for a in arrays if len(a) > 1]
    apart = [a for a in several if a[-1] - a[0] >= len(a)]
    positions = [
        s for s in found if any(np.shape(i) == () and not isinstance(i, int) for i in s.index)
    ]
    assert len(several) > 150 and len(apart) > 30 and len(positions) > 150


@pytest.mark.parametrize("part", range(8))
def test_reading(part: int) -> None:
    for seed in range(part, SAMPLES, 8):
        case = sample(seed)
        want = case.read()
        got = tx.tensor(case.array)[case.index if len(case.index) != 1 else case.index[0]]
        np.testing.assert_array_equal(got.numpy(), want, strict=True, err_msg=f"{seed}: {case}")


@pytest.mark.parametrize("part", range(8))
def test_writing(part: int) -> None:
    for seed in range(part, SAMPLES, 8):
        case = sample(seed)
        rng = np.random.default_rng(seed)
        # The value broadcasts: some of its axes are 1, leading ones are missing, or ones too many.
        shape = tuple(1 if rng.random() < 0.2 else n for n in case.read().shape)
        value = rng.standard_normal(shape[rng.integers(0, len(shape) + 1) :])
        given = _one(rng, value, tx.tensor(value), tx.tensor(value)[None])
        x = tx.tensor(case.array)
        before, seen = x.detach(), x.numpy()
        x[case.index] = given
        np.testing.assert_array_equal(x.numpy(), case.write(value), err_msg=f"{seed}: {case}")
        np.testing.assert_array_equal(seen, case.array)
        np.testing.assert_array_equal(before.numpy(), case.array)


@pytest.mark.parametrize("part", range(8))
def test_gradients_to_second_order(part: int) -> None:
    for seed in range(part, 80, 8):
        case = sample(seed)
        value = np.random.default_rng(seed).standard_normal(case.read().shape)

        def write(x: tx.Tensor, v: tx.Tensor, index: Any = case.index) -> tx.Tensor:
            y = x * 1.0
            y[index] = v * v
            return y * y

        x = tx.tensor(case.array)
        assert tx.gradcheck(lambda x, i=case.index: (x * x)[i] ** 3, x, order=2), seed
        assert tx.gradcheck(write, (x, tx.tensor(value)), order=2), seed


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
    with pytest.raises(IndexError, match=r"(take|update): .* 5 "):
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
    if isinstance(index, tx.Tensor) and index.dtype == tx.bool_ and not index.ndim:
        return  # to write under a condition is a where()
    with pytest.raises(error):
        x[index] = tx.ones(3)
    assert not x.any()


def test_values_that_do_not_fit() -> None:
    x = tx.zeros(2, 3)
    for index, value, part in ((0, tx.ones(2), "3,"), ([0, 1], tx.ones(3, 3), "2, 3"),
                               ((slice(None), tx.tensor(1)), tx.ones(3), "2,"),
                               (x > 0, tx.ones(2), "0,")):  # fmt: skip
        with pytest.raises(ShapeError, match=rf"value: .* not fit the indexed part \({part}\)"):
            x[index] = value
