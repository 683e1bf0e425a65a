"""Choice: what a GPU's code is made for beside the kernel, and how many threads run it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

MOST = 1 << 16  # blocks: more of them are a loop, in which each takes several parts


class Choice(NamedTuple):
    """form: what the writer of that kind of kernel is told; a part of the key of its code. threads:
    of a block."""

    form: Hashable
    threads: int
    blocks: int


def limited(parts: int) -> int:
    """Blocks for so many parts, of which any number of blocks can take care."""
    return max(1, min(parts, MOST))
