"""tinygrad_tx: a tensor library with reverse-mode autograd, NumPy and CuPy backends, a compiler,
and the Transformer on top of it.

    import tinygrad_tx as tx

Everything a user needs is a name here or in tx.nn, tx.nn.functional, tx.optim, tx.models,
tx.data, tx.training, tx.decoding and tx.viz; the last four are loaded when first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import backends, errors
from .autocast import autocast
from .context import grad_enabled as is_grad_enabled
from .creation import (
    arange,
    cat,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    get_default_device,
    linspace,
    maximum,
    meshgrid,
    minimum,
    ones,
    ones_like,
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
from .mistakes import missing
from .op import Op
from .ordering import bucketize, searchsorted
from .random import manual_seed
from .rules import Spec
from .tensor import Tensor, no_grad
from .version import __version__

if TYPE_CHECKING:
    from . import compiler, data, decoding, distributed, models, nn, optim, training, viz
    from .backends.cpu.run.team import get_num_threads, set_num_threads
    from .compiler import compile
    from .contraction import einsum
    from .drawing import (
        bernoulli,
        multinomial,
        rand,
        rand_like,
        randint,
        randint_like,
        randn,
        randn_like,
        randperm,
    )
    from .functions import *
    from .loops.checkpoint import checkpoint
    from .loops.scan import scan
    from .serialize import load, save
    from .transforms import grad, value_and_grad

__all__ = [
    "DType", "Op", "Spec", "Tensor", "__version__", "abs", "add", "all", "allclose", "amax", "amin",
    "any", "arange", "argmax", "argmin", "argsort", "atan2", "autocast", "autograd", "backends",
    "bernoulli",
    "bfloat16", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "bool_", "broadcast_to",
    "bucketize", "cat", "ceil", "checkpoint", "chunk", "clamp", "clip", "clone", "compile",
    "compiler", "cos", "cosh", "cumprod", "cumsum", "data", "decoding", "diagonal", "distributed",
    "div", "einsum",
    "empty", "empty_like", "eq", "erf", "errors", "exp", "expm1", "eye", "flatten", "flip",
    "float16", "float32", "float64", "floor", "floor_divide", "from_dlpack", "full", "full_like",
    "gather", "ge", "get_default_device", "get_num_threads", "grad", "gradcheck", "gt", "index_add",
    "index_select", "int32", "int64", "is_grad_enabled", "isclose", "isfinite", "isinf", "isnan",
    "le", "linspace", "load", "log", "log1p", "log2", "log10", "log_softmax", "logical_and",
    "logical_not", "logical_or", "logical_xor", "logsumexp", "lt", "manual_seed", "masked_fill",
    "matmul", "max", "maximum", "mean", "median", "meshgrid", "min", "minimum", "models", "mul",
    "multinomial", "ne", "neg", "nn", "no_grad", "nonzero", "norm", "ones", "ones_like", "optim",
    "outer", "permute", "pow", "prod", "quantile", "rand", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "randperm", "reciprocal", "relu", "remainder", "repeat_interleave",
    "reshape", "roll", "round", "rsqrt", "save", "scan", "scatter", "scatter_add", "scatter_reduce",
    "searchsorted", "set_default_device", "set_num_threads", "sigmoid", "sign", "sin", "sinh",
    "softmax", "sort", "split", "sqrt", "square", "squeeze", "stack", "std", "sub", "sum",
    "take_along_dim", "tan", "tanh", "tensor", "tile", "topk", "trace", "training", "transpose",
    "tril", "triu", "trunc", "unbind", "unique", "unsqueeze", "value_and_grad", "var", "viz",
    "where", "zeros", "zeros_like",
]  # fmt: skip

_LAZY = {
    "einsum": "contraction",
    "grad": "transforms",
    "value_and_grad": "transforms",
    **dict.fromkeys(("rand", "rand_like", "randint", "randint_like", "randn"), "drawing"),
    **dict.fromkeys(("randn_like", "randperm", "bernoulli", "multinomial"), "drawing"),
    "compile": "compiler",
    "scan": "loops.scan",
    "checkpoint": "loops.checkpoint",
    "save": "serialize",
    "load": "serialize",
    "get_num_threads": "backends.cpu.run.team",
    "set_num_threads": "backends.cpu.run.team",
}
_PACKAGES = (
    *("compiler", "data", "decoding", "distributed", "models", "nn", "optim", "training", "viz"),
)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    if name in __all__:
        return getattr(import_module(".functions", __name__), name)
    raise missing(sys.modules[__name__], f"module {__name__!r}", name, __all__)
