"""settings: the environment variables that the library reads, each once, with its meaning.

In: the environment. Out: a variable's text. Who reads one says what it makes of it and what is
wrong with it; docs/using-compile.md tells users. The examples of the repository read TX_SMALL
besides.
"""

from __future__ import annotations

import os

MEANINGS = {
    "TX_COMPILE": "0: everything runs eagerly; interp: kernels run in NumPy; replay: op by op",
    "TX_DEBUG": "1 to 4: what is printed to stderr of compiling and of runs",
    "TX_CHECK": "1: every launch is run natively and in NumPy, and compared",
    "TX_NUM_THREADS": "the threads of compiled functions",
    "TX_CACHE_DIR": "where compiled kernels and tokenised data are kept",
    "TX_HOST_FEATURES": "the lesser processor that this one is taken for",
    "TX_TARGET": "the lesser kind of code that is made",
    "TX_CUBLASLT": "0: on a GPU, no product is NVIDIA's library's",
}


def get(name: str) -> str:
    """The text of a variable; empty where it is not set."""
    assert name in MEANINGS, name
    return os.environ.get(name, "")
