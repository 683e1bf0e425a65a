"""tinygrad_tx: a tensor library with reverse-mode autograd, NumPy and CuPy backends, a compiler,
and the Transformer on top of it.

    import tinygrad_tx as tx

Everything a user needs is a name here or in tx.nn, tx.nn.functional, tx.optim, tx.models,
tx.data, tx.training, tx.decoding and tx.viz; the last four are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .autograd import grad, value_and_grad
from .context import grad_enabled as is_grad_enabled
from .creation import (
    arange,
    cat,
    empty,
    eye,
    from_dlpack,
    full,
    full_like,
    get_default_device,
    maximum,
    minimum,
    ones,
    ones_like,
    rand,
    randint,
    randn,
    set_default_device,
    split,
    stack,
    tensor,
    tril,
    triu,
    where,
    zeros,
    zeros_like,
)
from .dtypes import DType, bfloat16, bool_, float16, float32, float64, int32, int64
from .gradcheck import gradcheck
from .methods import matmul
from .op import Op
from .random import manual_seed
from .rules import Spec
from .tensor import Tensor, no_grad
from .version import __version__

if TYPE_CHECKING:
    from . import compiler, data, decoding, models, nn, optim, training, viz
    from .backends.cpu.run.team import get_num_threads, set_num_threads
    from .compiler import compile
    from .loops.checkpoint import checkpoint
    from .loops.scan import scan
    from .serialize import load, save

__all__ = [
    "DType", "Op", "Spec", "Tensor", "__version__", "arange", "bfloat16", "bool_", "cat",
    "checkpoint", "compile", "compiler", "data", "decoding", "empty", "errors", "eye", "float16",
    "float32", "float64", "from_dlpack", "full", "full_like", "get_default_device",
    "get_num_threads", "grad", "gradcheck", "int32", "int64", "is_grad_enabled", "load",
    "manual_seed", "matmul", "maximum", "minimum", "models", "nn", "no_grad", "ones", "ones_like",
    "optim", "rand", "randint", "randn", "save", "scan", "set_default_device", "set_num_threads",
    "split", "stack", "tensor", "training", "tril", "triu", "value_and_grad", "viz", "where",
    "zeros", "zeros_like",
]  # fmt: skip

_LAZY = {
    "compile": "compiler",
    "scan": "loops.scan",
    "checkpoint": "loops.checkpoint",
    "save": "serialize",
    "load": "serialize",
    "get_num_threads": "backends.cpu.run.team",
    "set_num_threads": "backends.cpu.run.team",
}
_PACKAGES = ("compiler", "data", "decoding", "models", "nn", "optim", "training", "viz")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
