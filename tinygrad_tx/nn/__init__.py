"""Layers: Module and those built on it, with PyTorch's names. tx.nn.functional (usually F) has the
functions, tx.nn.init the initial values."""

from . import functional, init
from .calls import scoped
from .containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from .layers import (
    GELU,
    Dropout,
    Embedding,
    KVCache,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    ReLU,
    RMSNorm,
)
from .module import Module, Parameter

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "functional",
    "init",
    "scoped",
]
