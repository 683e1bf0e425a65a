"""Views: movement as strides, against NumPy's own views of the same memory."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_case import Shape, places

from tinygrad_tx import backends
from tinygrad_tx.compiler.schedule.layout import collapse, dense, reshaped, same_places
from tinygrad_tx.compiler.schedule.records import Buffer, View, whole

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)
quick = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def memory(shape: Shape) -> tuple[View, np.ndarray]:
    """A dense view, and the array of its places."""
    size = prod(shape)
    return whole(Buffer("value", "float32", size), shape), np.arange(size).reshape(shape)


def moved(draw: Any, view: View, array: np.ndarray) -> tuple[View, np.ndarray]:
    """One movement, drawn, done on both."""
    kind = draw(st.sampled_from(["permute", "broadcast", "slice", "flip", "windows"]))
    n = array.ndim
    if kind == "permute":
        order = draw(st.permutations(range(n)))
        return view.permute(order), array.transpose(order)
    if kind == "flip":
        axes = tuple(i for i in range(n) if draw(st.booleans()))
        return view.flip(axes), np.flip(array, axes)
    if kind == "broadcast":
        shape = tuple(draw(st.integers(1, 3)) if m == 1 else m for m in array.shape)
        shape = (*draw(st.lists(st.integers(1, 2), max_size=1)), *shape)
        return view.broadcast(shape), np.broadcast_to(array, shape)
    if kind == "windows" and n:
        axis, size, step, dilation = (draw(st.integers(*r)) for r in ((0, n - 1), *[(1, 3)] * 3))
        if dilation * (size - 1) < array.shape[axis]:
            where = (axis, size, step, dilation)
            return view.windows(*where), backends.get("cpu").windows(array, *where)
    ranges, index = [], []
    for m in array.shape:
        step = draw(st.sampled_from([1, 1, 2, -1, -2]))
        start, stop = sorted((draw(st.integers(0, m - 1)), draw(st.integers(0, m))))
        stop = max(stop, start + 1)
        ranges.append((start, stop, step) if step > 0 else (stop - 1, start - 1, step))
        index.append(list(range(*ranges[-1])))
    return view.slice(ranges), array[np.ix_(*index)] if n else array


@st.composite
def moves(draw: Any) -> tuple[View, np.ndarray]:
    view, array = memory(draw(SHAPES))
    for _ in range(draw(st.integers(0, 4))):
        if array.size <= 200:
            view, array = moved(draw, view, array)
    return view, array


@given(moves())
@quick
def test_movement_names_the_same_places_as_numpy(made: tuple[View, np.ndarray]) -> None:
    view, array = made
    assert view.shape == array.shape
    np.testing.assert_array_equal(places(view), array)


@given(moves(), st.data())
@quick
def test_a_reshape_is_found_wherever_strides_can_say_it(
    made: tuple[View, np.ndarray], data: Any
) -> None:
    view, _ = made
    new: list[int] = []
    left = prod(view.shape)
    for number in data.draw(st.lists(st.integers(0, 99), max_size=3)):
        divisors = [d for d in range(1, left + 1) if left % d == 0]
        new.append(divisors[number % len(divisors)])
        left //= new[-1]
    shape = (*new, left)
    found = view.reshape(shape)
    # NumPy's answer, on memory large enough for every stride to be a place of its own.
    low = sum(min(0, (n - 1) * s) for n, s in zip(view.shape, view.strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(view.shape, view.strides, strict=True))
    base = np.zeros(high - low + 1, np.int8)[-low:]
    strided = np.lib.stride_tricks.as_strided(base, view.shape, view.strides)
    try:
        theirs = strided.view()
        theirs.shape = shape
    except AttributeError:
        assert found is None
        return
    assert found is not None and found.offset == view.offset
    assert same_places(shape, found.strides, theirs.strides)
    np.testing.assert_array_equal(places(found), places(view).reshape(shape))


def test_reshapes_that_split_and_join_axes() -> None:
    assert reshaped((5, 2), (2, 1), (2, 1, 5)) == (5, 0, 1)
    assert reshaped((2, 3, 4), (12, 4, 1), (6, 2, 2)) == (4, 2, 1)
    assert reshaped((3, 4), (1, 3), (12,)) is None  # transposed
    assert reshaped((4, 3), (6, 1), (2, 2, 3)) == (12, 6, 1)  # a part of wider rows
    assert reshaped((1,), (7,), ()) == () and reshaped((), (), (1, 1)) == (0, 0)


@given(SHAPES, st.integers(1, 3), st.data())
@quick
def test_collapse_walks_the_same_places(shape: Shape, count: int, data: Any) -> None:
    views = []
    for _ in range(count):
        view = memory(shape)[0].permute(data.draw(st.permutations(range(len(shape)))))
        padded = View(view.buffer, shape, view.strides)  # strides alone count here
        views.append(data.draw(st.sampled_from([memory(shape)[0], padded])))
    extents, strides = collapse(shape, [v.strides for v in views])
    assert len(extents) <= len(shape) and 1 not in extents
    for view, along in zip(views, strides, strict=True):
        short = View(view.buffer, extents, along)
        np.testing.assert_array_equal(places(short).ravel(), places(view).ravel())
    for i in range(len(extents) - 1):  # nothing more can be joined
        assert any(s[i] != s[i + 1] * extents[i + 1] for s in strides)


def test_what_lies_as_one_becomes_one_axis() -> None:
    shape = (2, 3, 4)
    assert collapse(shape, [dense(shape)]) == ((24,), [(1,)])
    rows = (*dense((2, 3)), 0)  # one value for each row
    assert collapse(shape, [dense(shape), rows]) == ((6, 4), [(4, 1), (1, 0)])
    assert collapse((1, 1), [(5, 7)]) == ((), [()])


@pytest.mark.parametrize(
    ("view", "contiguous"),
    [
        (View(Buffer("value", "float64", 6), (2, 3), (3, 1)), True),
        (View(Buffer("value", "float64", 6), (2, 1), (1, 99)), True),
        (View(Buffer("value", "float64", 6), (3, 2), (1, 3)), False),
        (View(Buffer("value", "float64", 6), (2, 3), (0, 1)), False),
    ],
)
def test_axes_of_one_element_do_not_count(view: View, contiguous: bool) -> None:
    assert view.contiguous is contiguous
    other = View(view.buffer, view.shape, view.strides, view.offset)
    assert view.same(other) and not view.same(View(view.buffer, view.shape, view.strides, 1))
