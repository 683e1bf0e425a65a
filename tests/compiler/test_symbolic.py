"""Forwards on symbols: what they compute is what they compute on arrays, whatever they mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx

SAME, ASKS = None, tx.bool_
FORWARDS: dict[str, tuple[Callable[..., Any], Any]] = {
    "inverted": (lambda xp, x: ~x, SAME),
    "low bits": (lambda xp, x: x & 6, SAME),
    "low bits, turned": (lambda xp, x: 6 | x, SAME),
    "flipped": (lambda xp, x: x ^ 3, SAME),
    "not": (lambda xp, x: xp.logical_not(x), ASKS),
    "and": (lambda xp, x: xp.logical_and(x, x - x + 4), ASKS),
    "or": (lambda xp, x: xp.logical_or(x, 0), ASKS),
    "xor": (lambda xp, x: xp.logical_xor(x, 2), ASKS),
    "below a float": (lambda xp, x: x < 1.5, ASKS),
    "a float below": (lambda xp, x: x >= -0.5, ASKS),
    "chosen by numbers": (lambda xp, x: xp.where(x, x, 7), SAME),
    "a float or it": (lambda xp, x: xp.where(x > 1, 0.5, x) > 0.4, ASKS),
    "a float added": (lambda xp, x: (x + 0.5) > 1, ASKS),
    "a NumPy number": (lambda xp, x: (x * np.float32(0.5)) > 0.4, ASKS),
    "a bool added": (lambda xp, x: (x + True) > 1, ASKS),
    "a quotient": (lambda xp, x: (x / 2) > 0.4, ASKS),
    "a root": (lambda xp, x: xp.sqrt(x * x) > 1.5, ASKS),
    "chosen by a function": (lambda xp, x: xp.where(xp.tanh(x) > 0.9, x, x + x), SAME),
    "a function of a bool": (lambda xp, x: xp.exp(x > 0) * x > 2, ASKS),
    "a fractional power": (lambda xp, x: xp.power(x, 0.5) > 1.2, ASKS),
    "a negative power": (lambda xp, x: xp.power(x * 2 + 1, -2.0) > 0.03, ASKS),
    "a floor of a quotient": (lambda xp, x: (x // 2.0) > 0.5, ASKS),
    "a remainder": (lambda xp, x: (x % 3) > 1, ASKS),
    "a number's power": (lambda xp, x: (2.0**x) > 3, ASKS),
    "a number's remainder": (lambda xp, x: (7 % (x * x + 1)) > 1, ASKS),
    "itself": (lambda xp, x: +x, SAME),
    "one of two numbers": (lambda xp, x: xp.where(x > 0, 1.0, 0.25) > 0.5, ASKS),
    "always chosen": (lambda xp, x: xp.where(True, x, 0), SAME),
    "is a number": (lambda xp, x: xp.isfinite(x), ASKS),
    "maximum of a float": (lambda xp, x: xp.maximum(x, 0.5) > 0.6, ASKS),
}


FLOATS = ("float32", "float16")
# What NumPy has no operation for, or one of another dtype.
REFUSED = {
    *(("inverted", dtype) for dtype in FLOATS),
    *((what, dtype) for what in ("low bits", "low bits, turned", "flipped") for dtype in FLOATS),
    *((what, "bool") for what in ("low bits", "low bits, turned", "flipped", "and")),
    *((what, "bool") for what in ("chosen by numbers", "always chosen", "itself")),
}
# Functions that make 16 bits of bools: these are called as they are.
OPAQUE = {
    *((what, "bool") for what in ("a root", "chosen by a function", "is a number")),
    *(("a function of a bool", dtype) for dtype in ("int32", "int64", "bool", *FLOATS)),
}


@pytest.mark.filterwarnings("ignore:the map op test_symbols:UserWarning")  # of the opaque ones
@pytest.mark.parametrize("mode", ["native", "interp"])
@pytest.mark.parametrize("what", FORWARDS)
@pytest.mark.parametrize("dtype", [tx.int32, tx.int64, tx.bool_, tx.float32, tx.float16], ids=str)
def test_forwards_mean_the_same_on_symbols(
    what: str, dtype: tx.DType, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    forward, result = FORWARDS[what]
    op = tx.Op(
        f"test_symbols_{what.replace(' ', '_').replace(',', '').replace(chr(39), '')}",
        kind="map",
        forward=forward,
        rule=lambda op, x: tx.Spec(x.shape, result or x.dtype),
    )
    x = tx.tensor([0, 1, 2, -3, 0, 5, 7]).to(dtype)
    if (what, dtype.name) in REFUSED:
        with pytest.raises((TypeError, ValueError)):
            op(x)
        return
    wanted = op(x).numpy()
    f = tx.compile(op)
    found = f(x).numpy()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    assert ("called as it is" in f.explain()) == ((what, dtype.name) in OPAQUE)
