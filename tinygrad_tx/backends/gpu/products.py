"""Products for a GPU: which of the writers makes the code of a Gemm kernel, or of one with its
epilogue.

In: the kernel, the words of a call. Out: the form of its code, and the code. Called by writers.py.
What is rounded before it is multiplied (16 bits, tf32) goes to tensor cores, all else is added up
in the order of every other machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import gemm, tensor_core
from .choice import Choice
from .thread import Thread
from .tile import Product, gemm_of

Form = gemm.Form | tensor_core.Form


def choose(kernel: Product, words: Sequence[int]) -> Choice:
    """The form of a call's code. words: addresses are offsets of what is aligned."""
    if gemm_of(kernel).exact:
        return gemm.choose(kernel, words)
    return tensor_core.choose(kernel, words)


def product(kernel: Product, form: Form, t: Thread) -> None:
    """Write the code of a product, and of what is computed of c before it is written."""
    if isinstance(form, gemm.Form):
        gemm.gemm(kernel, form, t)
    else:
        tensor_core.gemm(kernel, form, t)
