"""Layers: Module and what is built on it, with PyTorch's names. tx.nn.functional (usually F) has
the functions, tx.nn.init the initial values."""

from . import functional, init
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
from .module import Module, ModuleList, Parameter, Sequential, scoped

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "functional",
    "init",
    "scoped",
]
