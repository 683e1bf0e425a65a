"""The order of additions, a part of the meaning of a Kernel: the same on every machine.

In: a dtype. Out: sizes of blocks. Called by whatever adds: the interpreter and every target.
"""

from __future__ import annotations

KC = 256  # rows of b in one block of a matrix product: fixed, for it decides the order of additions

# The order of additions in a row, the same on every processor: element j goes to the partial sum
# j % slots, in chains of CHAIN; of their sums, CHAIN again are added in a chain, and so on.
CHAIN = 64


def slots(dtype: str) -> int:
    """Into how many partial sums a row's elements are dealt: two registers of the widest kind."""
    return 16 if dtype == "float64" else 32
