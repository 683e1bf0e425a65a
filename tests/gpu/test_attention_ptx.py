"""Attention for a GPU as PTX: NVIDIA's assembler takes every form of it, for both architectures,
and none spills registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llvmlite")
import ptxas
from ptxas import ARCHITECTURES

from tinygrad_tx.backends.gpu import writers
from tinygrad_tx.backends.gpu.attention.forms import Form
from tinygrad_tx.backends.kernels import arguments
from tinygrad_tx.backends.kernels.kinds import (
    Attention,
    AttentionKeyGrad,
    AttentionQueryGrad,
    Kernel,
)

MASKS = ("none", "bool", "float", "bounds")
WIDTHS = (32, 64, 128)
STORED = ("float32", "bfloat16", "float16", "tf32", "float64")
Case = tuple[Kernel, Form]


def words(kernel: Any, t: int, width: int) -> list[int]:
    """Of a call on 4 x 8 heads, which lie side by side in memory."""
    at = kernel.layout
    found = [0] * len(arguments.words(at))
    sizes = {"b": 4, "h": 8, "t": t, "s": t, "d_k": width, "d_v": width, "group": 1}
    for name, size in sizes.items():
        found[getattr(at, name)] = size
    for name in ("q", "k", "v", "out", "g", "dq", "dk", "dv"):
        matrix = getattr(at, name, None)
        if matrix is not None:
            strides = (t * 8 * width, width, 8 * width, 1)
            for word, stride in zip(matrix[1:], strides, strict=True):
                found[word] = stride
    return found


def three(
    stored: str, mask: str, causal: bool, width: int, t: int = 512, dropout: float = 0.0
) -> Iterator[Case]:
    """Attention and its gradients. stored: "tf32" as well."""
    dtype = "float64" if stored == "float64" else "float32"
    kept = "float32" if stored == "tf32" else stored
    form = dtype, 0.125, mask, causal
    more: dict[str, Any] = {"tf32": stored == "tf32", "dropout": dropout}
    kernels: tuple[Any, ...] = (
        Attention(*form, kept, statistics=True, **more),
        AttentionQueryGrad(*form, mask == "float", kept, **more),
        AttentionKeyGrad(*form, kept, **more),
    )
    for kernel in kernels:
        yield kernel, writers.choose(kernel, words(kernel, t, width)).form


def unaligned(case: Case) -> Case:
    """As where elements are read and written one by one."""
    kernel, form = case
    assert form.layout is not None
    return kernel, form._replace(layout=form.layout._replace(copy=0, pairs=False))


def every() -> Iterator[Case]:
    for stored, mask, causal, width in product(STORED, MASKS, (False, True), WIDTHS):
        yield from three(stored, mask, causal, width)
    for stored, width in product(STORED, WIDTHS):
        yield from three(stored, "none", True, width, 8)
    for stored, width in product(("bfloat16", "tf32"), WIDTHS):
        yield from (unaligned(x) for x in three(stored, "none", True, width) if x[1].layout)
    for stored in ("float32", "bfloat16", "float64"):
        yield from three(stored, "none", True, 256)
    for stored, mask, width, t in product(STORED, ("none", "bool"), WIDTHS, (512, 511)):
        yield from three(stored, mask, True, width, t, 0.1)


def require(cases: Sequence[Case], architecture: str, folder: Path) -> None:
    ptxas.require([(kernel, form, form.threads) for kernel, form in cases], architecture, folder)


@pytest.mark.ptxas
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ptxas_takes_attention(architecture: str, tmp_path: Path) -> None:
    cases = [
        *three("bfloat16", "none", True, 64),
        *list(three("bfloat16", "bounds", True, 128))[1:],
        *three("float32", "none", True, 64, dropout=0.1),
    ]
    require(cases, architecture, tmp_path)


@pytest.mark.ptxas
@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ptxas_takes_every_form_of_attention(architecture: str, part: int, tmp_path: Path) -> None:
    cases = list(dict.fromkeys(every()))[part::16]
    for first in range(0, len(cases), 8):
        require(cases[first : first + 8], architecture, tmp_path)
