"""The ways to run a function: eagerly, and compiled by each of the compiler's executors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import tinygrad_tx as tx

MODES = ("eager", "native", "interp", "replay")


def running(f: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """f as it is, or compiled in one of the compiler's ways."""
    if mode == "eager":
        return f
    compiled = tx.compile(f)

    def run(*args: Any) -> Any:
        with mock.patch.dict(os.environ, TX_COMPILE=mode):
            return compiled(*args)

    return run


def bits(x: tx.Tensor) -> np.ndarray:
    return x.numpy().view(f"u{x.dtype.itemsize}")
