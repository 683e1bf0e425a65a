"""Choice: what a GPU's code is made for beside the kernel, and how many threads run it; what is too
large for that code."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from ...errors import NoKernel

MOST = 1 << 16  # blocks: more of them are a loop, in which each takes several parts
COUNTED = (1 << 31) - (1 << 20)  # in 32 bits, where one step too far must not be a negative number


class Choice(NamedTuple):
    """form: what the writer of that kind of kernel is told; a part of the key of its code. threads:
    of a block."""

    form: Hashable
    threads: int
    blocks: int


def limited(parts: int) -> int:
    """Blocks for so many parts, of which any number of blocks can take care."""
    return max(1, min(parts, MOST))


def require_counted(what: str, **counts: int) -> None:
    """NoKernel where a kernel would count further than it can. counts: by their names, with _ for
    blanks. Places of elements in memory are counted in 64 bits."""
    for name, count in counts.items():
        if count > COUNTED:
            raise NoKernel(
                f"{what} on a GPU counts {name.replace('_', ' ')} in 32 bits, at most {COUNTED:,}, "
                f"and here are {count:,}"
            )
