"""settings: the environment variables that the library reads, each once, with its meaning.

In: the environment. Out: a variable's text. Who reads one says what it makes of it and what is
wrong with it; docs/using-compile.md tells users. The examples of the repository read TX_SMALL
besides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

MEANINGS = {
    "TX_COMPILE": "0: everything runs eagerly; interp: kernels run in NumPy; replay: op by op",
    "TX_DEBUG": "1 to 4: what is printed to stderr of compiling and of runs",
    "TX_CHECK": "1: every launch is run natively and in NumPy, and compared; nan: the first op "
    "that makes a NaN or an infinity is named",
    "TX_NUM_THREADS": "the threads of compiled functions",
    "TX_CACHE_DIR": "where compiled kernels and tokenised data are kept",
    "TX_HOST_FEATURES": "the lesser processor that this one is taken for",
    "TX_TARGET": "the lesser kind of code that is made",
    "TX_NCCL": "1: between ranks of several processes, arrays go from GPU to GPU",
    "TX_RANK_TIMEOUT": "seconds of silence after which a rank of several counts as ended",
    "TX_MONITOR": "where the monitor of the ranks is: `tinygrad-tx launch` sets it",
    "TX_CUBLASLT": "0: on a GPU, no product is NVIDIA's library's",
}


def get(name: str) -> str:
    """The text of a variable; empty where it is not set."""
    assert name in MEANINGS, name
    return os.environ.get(name, "")


def reader(name: str) -> tuple[Callable[[], Any], Callable[[str], Any]]:
    """A function that gives a variable as it is kept, or None, and one that gives a text in that
    form: for what eager code asks at each op. os.environ itself, which CPython keeps as bytes,
    costs a thousand times as much as a look into a dict."""
    assert name in MEANINGS, name
    kept = getattr(os.environ, "_data", None)
    if os.name != "posix" or not isinstance(kept, dict):
        return partial(os.environ.get, name), str
    return partial(kept.get, os.fsencode(name)), os.fsencode
