"""The op table: for every registered op the inputs it is tried with, what NumPy says, its errors.

What goes out: CASES, read by ops/test_ops.py (values, dtypes, layouts, gradients, decompositions,
errors, compiled) and gpu/test_ops.py (the same rows on a GPU). A new op needs a row here, or a test
fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import op_reference as ref
from op_case import (
    INTS,
    Bad,
    OpCase,
    apart,
    bools,
    ints,
    normal,
    small,
)
from op_maps import MAPS
from op_rows import reduction
from op_updates import UPDATES
from op_windows import WINDOWS

import tinygrad_tx as tx

# Ops that no user calls and that compute nothing of their own: each with the reason.
STRUCTURAL = {
    "leaf": "data; has no forward",
    "input": "a compiled function's argument; has no forward",
    "lost": "what a compiled function gives without its history; has no forward",
    "released": "what backward() leaves of a node; has no forward",
    "const": "a scalar known to the compiler; made by node.constant",
    "item": "one output of an op with several; every such op's row goes through it",
    "rebound": "a traced detach(); made by node.rebound",
    "scan": "a loop over a function; core/test_scan.py",
    "checkpoint": "a call that is made again; core/test_scan.py",
    **dict.fromkeys(
        ("all_reduce", "all_gather", "reduce_scatter", "from_rank", "to_rank"),
        "needs several ranks; distributed/test_collectives.py",
    ),
    **dict.fromkeys(
        ("copy_to_ranks", "reduce_from_ranks"),
        "needs several ranks; distributed/test_tensor_parallel.py",
    ),
    **dict.fromkeys(
        ("start_all_reduce", "start_reduce_scatter", "finish_reduce"),
        "half of an all_reduce; distributed/test_collectives.py",
    ),
    "move": "needs two devices; test_devices.py and gpu/test_ops.py move Tensors",
}


REDUCTIONS = [
    *reduction("sum", ref.reducer(np.sum), scale=4),
    OpCase("sum", (small(3, 4),), ref.reducer(np.sum), {"axis": 0}, dtypes=INTS, result="int64",
           grad=False),
    OpCase("sum", (bools(3, 4),), ref.reducer(np.sum), {"axis": 1}, "bool", dtypes=("float64",),
           result="int64", grad=False),
    *reduction("max", ref.reducer(np.max), apart, empty=False, bad=(
        Bad((normal(2, 0),), ValueError, "max: axis 1 .* is empty", {"axis": 1}),)),
    *reduction("min", ref.reducer(np.min), apart, empty=False, bad=(
        Bad((normal(2, 0),), ValueError, "min: axis 1 .* is empty", {"axis": 1}),)),
    OpCase("max", (small(3, 4),), ref.reducer(np.max), {"axis": 0}, "int", INTS, grad=False),
    OpCase("max", (np.array([[1, np.nan], [2, 3]]),), ref.reducer(np.max), {"axis": 1}, "NaN",
           grad=False),
    *reduction("any", ref.reducer(np.any), bools, dtypes=("float64",), result="bool", grad=False,
               bad=(Bad((small(2),), TypeError, "any needs a bool", {"axis": 0}),)),
    *reduction("all", ref.reducer(np.all), bools, dtypes=("float64",), result="bool", grad=False,
               bad=(Bad((small(2),), TypeError, "all needs a bool", {"axis": 0}),)),
    *reduction("logsumexp", ref.logsumexp, empty=False, scale=4, bad=(
        Bad((normal(2, 0),), ValueError, r"logsumexp: .*\(2, 0\) is empty", {"axis": 1}),
        Bad((small(2),), TypeError, "logsumexp needs a floating", {"axis": 0}))),
    OpCase("logsumexp", (np.array([[-np.inf, -np.inf], [np.inf, 1], [900, 901]]),), ref.logsumexp,
           {"axis": 1}, "extremes", grad=False),
    *[OpCase(name, (apart(3, 5),), f, {"axis": axis}, f"axis{axis}", result="int64", grad=False,
             bad=(Bad((normal(0, 2),), ValueError, f"{name}: axis 0 .* is empty", {"axis": 0}),))
      for name, f in (("argmax", ref.keeping(np.argmax)), ("argmin", ref.keeping(np.argmin)))
      for axis in (0, 1)],
    OpCase("argmax", (np.array([1, 3, 3, 0]),), ref.keeping(np.argmax), {"axis": 0}, "ties",
           INTS, "int64", grad=False),
    *[OpCase("cumsum", (normal(*shape),), np.cumsum, {"axis": axis}, scale=4)
      for shape, axis in (((3, 5), 0), ((2, 3, 4), 1), ((0, 3), 0))],
    OpCase("cumsum", (small(3, 4),), np.cumsum, {"axis": 1}, "int", INTS, "int64", grad=False),
    *reduction("prod", ref.reducer(np.prod), scale=4),
    OpCase("prod", (np.array([[0.0, 2, 3], [0, 0, 4], [5, 6, -7]]),), ref.reducer(np.prod),
           {"axis": 1}, "zeros"),
    OpCase("prod", (small(3, 4),), ref.reducer(np.prod), {"axis": 0}, "int", INTS, "int64",
           grad=False),
    *[OpCase("cumprod", (normal(*shape),), np.cumprod, {"axis": axis}, scale=4)
      for shape, axis in (((3, 5), 0), ((2, 3, 4), 1), ((0, 3), 0))],
    OpCase("cumprod", (small(3, 4),), np.cumprod, {"axis": 1}, "int", INTS, "int64", grad=False),
]  # fmt: skip

MOVES = [
    *[OpCase("reshape", (normal(*shape),), np.reshape, {"shape": to})
      for shape, to in (((2, 6), (3, 4)), ((), (1, 1)), ((0, 3), (5, 0)), ((4, 1), (2, 1, 2)))],
    OpCase("reshape", (small(6),), np.reshape, {"shape": (2, 3)}, "int", INTS, grad=False, bad=(
        Bad((normal(2, 3),), ValueError, r"reshape: \(2, 3\) has 6 elements, \(4,\)",
            {"shape": (4,)}),)),
    *[OpCase("broadcast", (normal(*shape),), np.broadcast_to, {"shape": to})
      for shape, to in (((3, 1), (2, 3, 4)), ((), (2,)), ((1,), (0,)), ((2, 3), (2, 3)))],
    OpCase("broadcast", (bools(3),), np.broadcast_to, {"shape": (2, 3)}, "bool", ("float64",),
           "bool", grad=False, bad=(
        Bad((normal(3),), ValueError, r"broadcast: \(3,\) does not expand to \(3, 2\)",
            {"shape": (3, 2)}),
        Bad((normal(2, 3),), ValueError, r"broadcast: \(2, 3\) does not", {"shape": (3,)}))),
    *[OpCase("permute", (normal(*shape),), lambda x, order: x.transpose(order), {"order": order})
      for shape, order in (((2, 3, 4), (2, 0, 1)), ((), ()), ((0, 3), (1, 0)))],
    OpCase("permute", (small(2, 3),), lambda x, order: x.transpose(order), {"order": (1, 0)}, "int",
           INTS, grad=False, bad=(
        Bad((normal(2, 3),), ValueError, r"permute: \(0, 0\) does not name", {"order": (0, 0)}),)),
    *[OpCase("slice", (normal(5, 4),), ref.sliced, {"ranges": ranges}, str(ranges))
      for ranges in (((1, 4, 1), (0, 4, 1)), ((4, -1, -2), (3, 0, -1)), ((0, 0, 1), (0, 4, 3)),
                     ((0, 5, 4), (2, 3, 1)))],
    *[OpCase("slice_write", (normal(5, 4), normal(*value)), ref.slice_write, {"ranges": ranges},
             str(ranges))
      for ranges, value in ((((1, 4, 1), (0, 4, 1)), (3, 4)), (((4, -1, -2), (3, 0, -1)), (3, 1)),
                            (((0, 0, 1), (0, 4, 1)), (4,)), (((0, 5, 1), (1, 2, 1)), ()))],
    OpCase("slice_write", (small(4), small(2)), ref.slice_write, {"ranges": ((1, 3, 1),)}, "int",
           INTS, grad=False, bad=(
        Bad((normal(4), normal(3)), ValueError, r"slice write: a value \(3,\) does not fit the "
            r"slice \(2,\) of \(4,\)"),
        Bad((normal(4), small(2)), TypeError, "slice write: int64 into float64"))),
    *[OpCase("pad", (normal(*shape),), ref.pad, {"widths": widths, "value": 2.5}, str(widths))
      for shape, widths in (((2, 3), ((1, 0), (0, 2))), ((), ()), ((0, 2), ((1, 1), (0, 0))))],
    OpCase("pad", (small(3),), ref.pad, {"widths": ((1, 2),), "value": 7}, "int", INTS, grad=False,
           bad=(Bad((normal(3),), ValueError, "pad: widths", {"widths": ((1, -2),), "value": 0}),
                Bad((normal(3, 2),), ValueError, "pad: widths"))),
    *[OpCase("concat", tuple(normal(*s) for s in shapes), ref.concat, {"axis": axis})
      for shapes, axis in ((((2, 3), (1, 3), (4, 3)), 0), (((2, 3), (2, 0), (2, 1)), 1),
                           (((2, 3),), 0))],
    OpCase("concat", (small(2), small(3)), ref.concat, {"axis": 0}, "int", INTS, grad=False, bad=(
        Bad((normal(2, 3), normal(2, 2)), ValueError,
            r"concat: shapes \(2, 3\) and \(2, 2\) may differ along axis 0"),
        Bad((normal(2), small(2)), TypeError, "concat: float64 with int64"))),
    *[OpCase("flip", (normal(*shape),), lambda x, axis: np.flip(x, axis), {"axis": axis})
      for shape, axis in (((3, 4), (0,)), ((3, 4), (0, 1)), ((2, 0), (1,)))],
]  # fmt: skip

MATMULS = [
    OpCase("matmul", (normal(*a), normal(*b)), np.matmul, scale=8)
    for a, b in (
        ((3, 5), (5, 2)),
        ((1, 7), (7, 1)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((3, 4), (2, 4, 5)),
        ((0, 3, 4), (4, 2)),
        ((2, 3, 0), (0, 4)),
        ((2, 0), (0, 3)),
        ((2, 3, 4), (4, 0)),
    )
]
MATMULS.append(OpCase("matmul", (small(3, 4), small(4, 2)), np.matmul, label="int", dtypes=INTS,
    grad=False, bad=(
    Bad((normal(2, 3), normal(4, 3)), ValueError,
        r"matmul: the last axis of a \(2, 3\) is 3, .* b \(4, 3\) is 4; did you mean b.T\?"),
    Bad((normal(2, 3), normal(5, 4, 3)), ValueError, r"did you mean b.mT\?"),
    Bad((normal(2, 3), normal(4, 2)), ValueError, "they must be equal"),
    Bad((normal(3), normal(3, 2)), ValueError, r"matmul: a \(3,\) and b \(3, 2\) need"),
    Bad((normal(2, 2, 3), normal(4, 3, 2)), ValueError, r"matmul \(batch axes\): .*\(2,\) and \(4"),
    Bad((small(2, 2), normal(2, 2)), TypeError, "matmul: a is int64, b is float64"),
    Bad((bools(2, 2), bools(2, 2)), TypeError, "matmul needs numbers, not bool"))))  # fmt: skip

_INT_INDEX = "indices must be int32 or int64, not float64"
GATHERS = [
    *[OpCase("take", (normal(4, 3), ints(-n, n, *shape)), lambda x, i, axis: np.take(x, i, axis),
             {"axis": axis})
      for shape, axis, n in (((5,), 0, 4), ((2, 3), 1, 3), ((), 0, 4), ((0,), 0, 4))],
    OpCase("take", (normal(4, 3), ints(0, 4, 2, 2)), lambda x, i, axis, wrap: x[i],
           {"axis": 0, "wrap": False}, "embedding"),
    OpCase("take", (small(4), ints(0, 4, 3)), lambda x, i, axis: np.take(x, i, axis), {"axis": 0},
           "int", INTS, grad=False, bad=(
        Bad((normal(4), np.array([0, 4])), IndexError, "take: index 4 is outside the 4 entries"),
        Bad((normal(4), np.array([-5])), IndexError, "take: index -5 is outside the 4"),
        Bad((normal(4), np.array([-1])), IndexError, "index -1 is outside",
            {"axis": 0, "wrap": False}),
        Bad((normal(4), normal(2)), TypeError, f"take: {_INT_INDEX}"))),
    *[OpCase("index_add", (normal(4, 3), ints(-n, n, k), normal(*shape)), ref.index_add,
             {"axis": axis}, scale=4)
      for k, shape, axis, n in ((6, (6, 3), 0, 4), (5, (4, 5), 1, 3), (0, (0, 3), 0, 4))],
    OpCase("index_add", (small(4), ints(0, 4, 9), small(9)), ref.index_add, {"axis": 0}, "int",
           INTS, grad=False, bad=(
        Bad((normal(4, 3), ints(0, 3, 2), normal(2, 2)), ValueError,
            r"index_add: along axis 0 of float64 \(4, 3\) .* must be float64 \(2, 3\), not"),
        Bad((normal(4), np.array([4]), normal(1)), IndexError, "index_add: index 4 is outside"))),
    *[OpCase("index_put", (normal(4, 3), index, normal(*shape)), ref.index_put, {"axis": axis},
             label)
      for index, shape, axis, label in (
        (np.array([2, -4]), (2, 3), 0, "distinct"), (np.array([1, 1, -1, 1]), (4, 3), 0, "twice"),
        (np.array([2, 0, 2]), (4, 3), 1, "axis 1"), (ints(0, 3, 0), (0, 3), 0, "none"))],
    OpCase("index_put", (small(4), ints(0, 4, 9), small(9)), ref.index_put, {"axis": 0}, "int",
           INTS, grad=False, bad=(
        Bad((normal(4), ints(0, 4, 2), normal(3)), ValueError, "index_put: along axis 0"),
        Bad((normal(4), normal(1), normal(1)), TypeError, f"index_put: {_INT_INDEX}"))),
    *[OpCase("index_max", (apart(5), ints(-5, 5, 7), apart(7) + 0.1), ref.index_max,
             {"axis": 0, "least": least, "include_self": include}, f"{least} {include}",
             ("float64", "float32"), bad=(
        Bad((normal(5, 2), ints(0, 5, 2), normal(2, 2)), ValueError, "index_max: a row of numbers"),
        Bad((normal(5), np.array([5]), normal(1)), IndexError, "index_max: index 5 is outside")))
      for least in (False, True) for include in (False, True)],
    OpCase("index_max", (small(4), ints(0, 4, 9), small(9)), ref.index_max,
           {"axis": 0, "least": True, "include_self": True}, "int", INTS, grad=False),
    *[OpCase("searchsorted", (np.sort(normal(*row), -1), normal(*x)), ref.searchsorted,
             {"right": right}, f"{row} {x} {right}", ("float64", "float32"), "int64", grad=False)
      for row, x in (((5,), (2, 3)), ((2, 3), (2, 4)), ((0,), (3,)), ((1,), ()))
      for right in (False, True)],
    OpCase("searchsorted", (np.sort(small(9)), small(20)), ref.searchsorted, {"right": True}, "int",
           INTS, "int64", grad=False, bad=(
        Bad((normal(3), small(2)), TypeError, "searchsorted: a sequence of float64, values of int"),
        Bad((normal(2, 3), normal(3, 4)), ValueError, r"searchsorted: a sequence \(2, 3\) does"))),
    *[OpCase("take_along", (normal(*x), ints(-n, n, *i)), np.take_along_axis, {"axis": axis})
      for x, i, axis, n in (((4, 3), (2, 3), 0, 4), ((2, 5, 3), (2, 4, 3), 1, 5),
                            ((3, 4), (3, 0), 1, 4))],
    OpCase("take_along", (small(4), ints(0, 4, 2)), np.take_along_axis, {"axis": 0}, "int", INTS,
           grad=False, bad=(
        Bad((normal(4, 3), ints(0, 3, 2, 2)), ValueError,
            r"take_along: an index \(2, 2\) may differ from \(4, 3\) along axis 0 only"),
        Bad((normal(3), np.array([3])), IndexError, "take_along: index 3 is outside"))),
    *[OpCase("scatter_add", (ints(-n, n, *i), normal(*i)), ref.scatter_add,
             {"shape": shape, "axis": axis}, scale=4)
      for i, shape, axis, n in (((6, 3), (4, 3), 0, 4), ((2, 9, 3), (2, 2, 3), 1, 2),
                                ((0,), (3,), 0, 3))],
    OpCase("scatter_add", (ints(0, 4, 6), small(6)), ref.scatter_add, {"shape": (4,), "axis": 0},
           "int", INTS, grad=False, bad=(
        Bad((ints(0, 3, 2), normal(3)), ValueError, r"scatter_add: index \(2,\) and value \(3,\)"),
        Bad((np.array([4]), normal(1)), IndexError, "scatter_add: index 4 is outside"))),
    OpCase("wrap_index", (ints(-3, 3, 4),), lambda i, size: i % size, {"size": 3}, dtypes=INTS,
           result="int64", grad=False, bad=(
        Bad((np.array([0, 3]),), IndexError, "wrap_index: index 3 is outside the 3"),)),
    *[OpCase("update", (normal(5, 3), normal(*value), np.array(at)), ref.update, {"axis": axis},
             f"{axis} at {at}")
      for value, at, axis in (((1, 3), 4, 0), ((2, 3), 0, 0), ((5, 1), -1, 1), ((5, 3), 0, 1))],
    OpCase("update", (small(5), small(2), np.array(3)), ref.update, {"axis": 0}, "int", INTS,
           grad=False, bad=(
        Bad((normal(5), normal(2), np.array(4)), IndexError, "update: a write of 2 at position 4"),
        Bad((normal(5), normal(6), np.array(0)), ValueError, r"update: float64 \(6,\)"),
        Bad((normal(5), normal(1), normal()), TypeError, "update: indices must be int32"))),
    *[OpCase("argsort", (x,), ref.argsort, {"axis": axis, "descending": descending},
             f"{label} {axis} {descending}", result="int64", grad=False)
      for x, axis, label in ((normal(3, 5), 1, "normal"), (normal(0, 3), 0, "empty"),
                             (np.array([[2.0, np.nan, 1, 2], [1, 1, np.inf, 1]]), 1, "ties, NaN"))
      for descending in (False, True)],
    *[OpCase("argtopk", (x,), ref.argtopk, {"k": k, "axis": axis}, f"{x.shape} {k} {axis}",
             result="int64", grad=False, bad=(
        Bad((normal(3),), ValueError, r"topk: k = 4 does not fit axis 0 of \(3,\)",
            {"k": 4, "axis": 0}),))
      for x, k, axis in ((normal(3, 40), 2, 1), (normal(5, 3), 5, 0), (normal(2, 9), 0, 1),
                         (np.round(normal(3, 60)), 4, 1), (normal(0, 20), 2, 1),
                         (np.where(normal(2, 40) > 1, np.nan, 1.0), 3, 1))],
    OpCase("argtopk", (ints(-3, 4, 4, 50),), ref.argtopk, {"k": 3, "axis": 1}, "int", INTS, "int64",
           grad=False),
]  # fmt: skip

# Creation, random numbers ------------------------------------------------------------------------

_KEY = (np.array(7_000_000_019), np.array(3))
MADE = [
    *[OpCase("full", (), ref.full, {"shape": shape, "value": v, "dtype": dtype, "device": "cpu"},
             dtype.name, ("float64",), dtype.name, grad=False)
      for shape, v, dtype in (((2, 3), 1.5, tx.float32), ((), 1.5, tx.float16),
                                  ((0, 2), 3, tx.int64), ((2,), True, tx.bool_))],
    *[OpCase("arange", (), ref.arange,
             {"start": start, "step": step, "count": 5, "dtype": dtype, "device": "cpu"},
             dtype.name, ("float64",), dtype.name, grad=False)
      for start, step, dtype in ((3, -2, tx.int32), (0.5, 0.25, tx.float32), (0, 1, tx.int64))],
    *[OpCase("uniform", _KEY, ref.uniform, {"shape": shape, "dtype": dtype}, str(shape),
             ("float64",), dtype.name, grad=False)
      for shape, dtype in (((2, 3, 3), tx.float64), ((5,), tx.float32), ((), tx.float32),
                           ((0, 2), tx.float32))],
    OpCase("normal", _KEY, ref.normal, {"shape": (3, 5), "dtype": tx.float64}, "",
           ("float64",), "float64", grad=False, scale=1e5),
    *[OpCase("randint", _KEY, ref.randint,
             {"low": low, "high": high, "shape": (3, 7), "dtype": dtype}, dtype.name, ("float64",),
             dtype.name, grad=False, bad=(
        Bad(_KEY, ValueError, "negative size",
            {"low": 0, "high": 2, "shape": (-1,), "dtype": tx.int64}),
        Bad(_KEY, ValueError, "randint: high .2. must be above low .2.",
            {"low": 2, "high": 2, "shape": (1,), "dtype": tx.int64})))
      for low, high, dtype in ((-3, 9, tx.int64), (0, 2**31, tx.int32))],
    *[OpCase("keep", _KEY, ref.keep, {"p": p, "shape": (4, 6)}, str(p), ("float64",), "bool",
             grad=False, bad=(
        Bad(_KEY, ValueError, "p is 1.5", {"p": 1.5, "shape": (2,)}),))
      for p in (0.0, 0.3, 1.0)],
]  # fmt: skip

# Fused -------------------------------------------------------------------------------------------


# Of four queries: all keys, some, those beyond the end as well, none.
BOUNDS = np.array([[[[0, 6], [2, 4], [3, 99], [5, 5]]]])


def attentions() -> list[OpCase]:
    """Attention and its gradient: every kind of mask, causal or not, lengths that differ, batch
    axes that broadcast, rows without a key."""
    dead = bools(3, 4, 6)
    dead[:, 1] = False
    equal, some = bools(4, 4), bools(2, 1, 4, 6)
    plans: list[tuple[str, Any, Any, Any, Any, bool]] = [
        ("plain", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), None, False),
        ("no batch", (3, 2), (3, 2), (3, 2), None, True),
        ("causal, more keys", (2, 4, 5), (2, 6, 5), (2, 6, 3), None, True),
        ("causal, fewer keys", (2, 6, 5), (2, 3, 5), (2, 3, 3), None, True),
        ("keys broadcast", (2, 3, 4, 5), (3, 6, 5), (1, 6, 2), None, False),
        ("values wider", (4, 5), (6, 5), (2, 3, 6, 2), None, False),
        ("bool mask", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), some, False),
        ("bool mask, dead rows", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), dead, False),
        ("bool mask, causal", (2, 4, 5), (2, 4, 5), (2, 4, 5), equal, True),
        ("padding mask", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), bools(2, 1, 1, 6), False),
        ("additive mask", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), normal(3, 4, 6), False),
        ("additive, causal", (2, 4, 5), (2, 4, 5), (2, 4, 5), normal(4, 4), True),
        ("additive, values wider", (4, 5), (6, 5), (2, 3, 6, 2), normal(3, 1, 6), False),
        ("bounds", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), BOUNDS, False),
        ("bounds, causal", (4, 5), (6, 5), (6, 2), BOUNDS[0, 0], True),
        ("empty batch", (0, 4, 5), (0, 6, 5), (0, 6, 2), None, False),
    ]
    groups: list[tuple[str, Any, Any, Any, Any, bool]] = [
        ("groups", (2, 6, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), None, False),
        ("groups, causal, mask", (2, 6, 4, 5), (2, 3, 4, 5), (2, 3, 4, 2), bools(2, 1, 1, 4), True),
        ("groups, keys broadcast", (2, 4, 3, 5), (2, 6, 5), (1, 2, 6, 2), None, False),
        ("groups, bounds", (2, 6, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2), BOUNDS, False),
        ("groups, additive", (6, 4, 5), (3, 6, 5), (3, 6, 2), normal(6, 4, 6), False),
    ]
    rows = []
    for label, q, k, v, mask, causal in (*plans, *groups):
        inputs = (normal(*q), normal(*k), normal(*v), *(() if mask is None else (mask,)))
        attrs: dict[str, Any] = {"scale": 0.4, "causal": causal}
        if label.startswith("groups"):
            attrs["group"] = 2
        out = ref.attention(*inputs, **attrs)
        rows.append(OpCase("attention", inputs, ref.attention, attrs, label, scale=4))
        inputs = (normal(*out.shape), *inputs)
        rows.append(OpCase("attention_grad", inputs, ref.attention_grad, attrs, label, scale=8))
    q = normal(4, 5)
    rows.append(
        OpCase(
            "attention",
            (q, q, q),
            ref.attention,
            {"scale": 0.4, "causal": False},
            "errors",
            bad=(
                Bad(
                    (q, normal(6, 4), q),
                    ValueError,
                    r"attention: q \(4, 5\), k \(6, 4\) and v \(4, 5\)",
                ),
                Bad((q, q, normal(3, 5)), ValueError, "k and v the length"),
                Bad((q, normal(0, 5), normal(0, 5)), ValueError, "at least one key"),
                Bad((normal(5), q, q), ValueError, r"attention: q \(5,\)"),
                Bad((normal(2, 4, 5), normal(3, 4, 5), q), ValueError, r"attention \(batch axes\)"),
                Bad(
                    (q, q, q, bools(4, 5)),
                    ValueError,
                    r"attention \(mask with scores\): .*\(4, 5\)",
                ),
                Bad(
                    (q, q, q, bools(2, 4, 4)),
                    ValueError,
                    r"mask \(2, 4, 4\) does not fit scores \(4, 4",
                ),
                Bad(
                    (q, q, q, ints(0, 2, 4, 4)), TypeError, "attention: a mask is bool .* not int64"
                ),
                Bad(
                    (q, q, q.astype("f4")),
                    TypeError,
                    "attention: q, k and v are float64, float64 and fl",
                ),
                Bad((ints(0, 2, 2, 2),) * 3, TypeError, "attention needs a floating dtype"),
            ),
        )
    )
    return rows


def _losses() -> list[OpCase]:
    rows = []
    for label, shape, ignore, smoothing in (
        ("rows", (5, 7), -100, 0.0),
        ("smoothed", (5, 7), -100, 0.1),
        ("ignored", (2, 3, 4), 2, 0.2),
        ("one row", (6,), -100, 0.1),
        ("no rows", (0, 4), -100, 0.0),
    ):
        x, t = normal(*shape), ints(0, shape[-1], *shape[:-1])
        if ignore < 0 and t.ndim and t.size:
            t.flat[1] = ignore
        attrs = {"ignore_index": ignore, "label_smoothing": smoothing}
        rows.append(OpCase("cross_entropy", (x, t), ref.cross_entropy, attrs, label, scale=4))
        rows.append(OpCase("cross_entropy_grad", (normal(*t.shape), x, t), ref.cross_entropy_grad,
                           attrs, label, scale=4))  # fmt: skip
    rows.append(
        OpCase(
            "cross_entropy",
            (x, t),
            ref.cross_entropy,
            attrs,
            "errors",
            bad=(
                Bad(
                    (normal(2, 3), ints(0, 3, 3)),
                    ValueError,
                    r"cross_entropy: logits \(2, 3\) want targets \(2,\), not \(3,\)",
                ),
                Bad((normal(2, 3), normal(2)), TypeError, "cross_entropy: targets must be int32"),
                Bad(
                    (normal(2, 3), np.array([0, 3])),
                    IndexError,
                    "cross_entropy: index 3 is outside",
                ),
                Bad(
                    (normal(2, 3), np.array([0, -1])),
                    IndexError,
                    "cross_entropy: index -1 is outside",
                ),
                Bad((ints(0, 3, 2, 3), ints(0, 3, 2)), TypeError, "cross_entropy needs a floating"),
            ),
        )
    )
    return rows


def _norms() -> list[OpCase]:
    rows = []
    for shape in ((5,), (3, 5), (2, 3, 4), (0, 3), (3, 1)):
        x, weight, bias = normal(*shape), normal(shape[-1]), normal(shape[-1])
        for affine in ((), (weight,), (weight, bias)):
            rows.append(OpCase("layer_norm", (x, *affine), ref.layer_norm, {"eps": 1e-3}, scale=4))
        for affine in ((), (weight,)):
            inputs = (normal(*shape), x, *affine)
            rows.append(OpCase("layer_norm_grad", inputs, ref.layer_norm_grad, {"eps": 1e-3},
                               scale=20))  # fmt: skip
    rows.append(OpCase("layer_norm", (1e4 + normal(2, 300),), ref.layer_norm, {"eps": 1e-5},
                       "float64 far from 0", ("float64",), scale=1e4))  # fmt: skip
    rows.append(
        OpCase(
            "layer_norm",
            (x,),
            ref.layer_norm,
            {"eps": 1e-3},
            "errors",
            bad=(
                Bad(
                    (normal(2, 3), normal(2)),
                    ValueError,
                    r"layer_norm: .* float64 \(3,\) for an input \(2, 3\), not float64 \(2,\)",
                ),
                Bad((normal(),), ValueError, "layer_norm: a 0-d Tensor"),
                Bad((ints(0, 2, 3),), TypeError, "layer_norm needs a floating dtype"),
            ),
        )
    )
    return rows


_HIGH = np.array([[1000.0, 999.0], [-1000.0, -1001.0], [-np.inf, 0.0], [-np.inf, -np.inf]])
FUSED = [
    *[OpCase(name, (normal(*shape),), f, {"axis": axis}, f"{shape}{axis}", scale=4)
      for name, f in (("softmax", ref.softmax), ("log_softmax", ref.log_softmax))
      for shape, axis in (((3, 5), 1), ((2, 3, 4), 0), ((0, 3), 1), ((4,), 0), ((3, 1), 1))],
    *[OpCase(name, (_HIGH,), f, {"axis": 1}, "extremes", grad=False, bad=(
        Bad((normal(2, 0),), ValueError, rf"{name}: axis 1 of \(2, 0\) is empty"),
        Bad((ints(0, 2, 2, 2),), TypeError, f"{name} needs a floating dtype")))
      for name, f in (("softmax", ref.softmax), ("log_softmax", ref.log_softmax))],
    *[OpCase(name, (normal(*shape), of(normal(*shape), axis)), f, {"axis": axis}, f"{shape}{axis}",
             scale=8)
      for name, f, of in (("softmax_grad", ref.softmax_grad, ref.softmax),
                          ("log_softmax_grad", ref.log_softmax_grad, ref.log_softmax))
      for shape, axis in (((3, 5), 1), ((2, 3, 4), 0))],
    *_norms(),
    *_losses(),
    *attentions(),
]  # fmt: skip

CASES = [*MAPS, *REDUCTIONS, *MOVES, *MATMULS, *GATHERS, *MADE, *FUSED, *UPDATES, *WINDOWS]
