"""Layers: Module and those built on it, with PyTorch's names. tx.nn.functional (usually F) has the
functions, tx.nn.init the initial values."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from . import functional, init
from .activations import (
    ELU,
    GELU,
    GLU,
    Flatten,
    Identity,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Unflatten,
)
from .calls import scoped
from .containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from .layers import (
    Dropout,
    Embedding,
    KVCache,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    RMSNorm,
)
from .module import Module, Parameter

if TYPE_CHECKING:
    from .adapters import LoRALinear, lora
    from .convolution_layers import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
    from .criteria import (
        BCELoss,
        BCEWithLogitsLoss,
        CosineEmbeddingLoss,
        CosineSimilarity,
        CrossEntropyLoss,
        GaussianNLLLoss,
        HingeEmbeddingLoss,
        HuberLoss,
        KLDivLoss,
        L1Loss,
        MarginRankingLoss,
        MSELoss,
        NLLLoss,
        PairwiseDistance,
        PoissonNLLLoss,
        SmoothL1Loss,
        SoftMarginLoss,
        TripletMarginLoss,
    )
    from .normalization_layers import BatchNorm1d, BatchNorm2d, GroupNorm
    from .pooling_layers import AvgPool1d, AvgPool2d, Fold, MaxPool1d, MaxPool2d, Unfold, Upsample
    from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "adapters": "LoRALinear lora",
            "convolution_layers": "Conv1d Conv2d ConvTranspose1d ConvTranspose2d",
            "criteria": "BCELoss BCEWithLogitsLoss CosineEmbeddingLoss CosineSimilarity "
            "CrossEntropyLoss GaussianNLLLoss HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss "
            "MarginRankingLoss MSELoss NLLLoss PairwiseDistance PoissonNLLLoss SmoothL1Loss "
            "SoftMarginLoss TripletMarginLoss",
            "normalization_layers": "BatchNorm1d BatchNorm2d GroupNorm",
            "pooling_layers": "AvgPool1d AvgPool2d Fold MaxPool1d MaxPool2d Unfold Upsample",
            "recurrent": "GRU LSTM RNN GRUCell LSTMCell RNNCell",
            # What functional.py offers of these is not offered here.
            **dict.fromkeys(("convolution", "losses", "normalization", "pairs", "pooling"), ""),
        },
    )

__all__ = [
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool1d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Fold",
    "GRUCell",
    "GaussianNLLLoss",
    "GroupNorm",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "KVCache",
    "L1Loss",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LoRALinear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "MaxPool1d",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "NLLLoss",
    "PairwiseDistance",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PoissonNLLLoss",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Softplus",
    "Tanh",
    "TripletMarginLoss",
    "Unflatten",
    "Unfold",
    "Upsample",
    "functional",
    "init",
    "lora",
    "scoped",
]
