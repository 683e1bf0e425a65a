"""Every layer of tx.nn with an input, for tests that run it on two devices.

What goes out: LAYERS, held complete by gpu/test_layers.py. A layer is made by its function, which
may make Tensors: with no device they lie on the default one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from device_case import numbers, whole

import tinygrad_tx as tx
from tinygrad_tx import nn

X, Y, Z = (numbers(3, 4, seed=s) for s in (0, 1, 2))
SIGNS = np.where(numbers(3, 4, seed=5) > 0, 1, -1).astype(np.float32)
SHARES = (1 / (1 + np.exp(-numbers(3, 4, seed=6)))).astype(np.float32)
ROW, IDS = numbers(2, 4, 6), whole(4, 3)
IMAGE = numbers(2, 4, 5, 6)


class Layer(NamedTuple):
    """A layer, its inputs (NumPy arrays), and what its call takes besides."""

    make: Callable[[], Any]
    inputs: tuple[Any, ...]
    options: Mapping[str, Any] = MappingProxyType({})


def _weights() -> tx.Tensor:
    return tx.tensor(np.array([0.5, 2.0, 1.0, 0.25], np.float32))


class _Parts(nn.Module):
    """The containers, and a Parameter and a buffer of one's own."""

    def __init__(self) -> None:
        self.maps = nn.ModuleList([nn.Linear(4, 4), nn.Identity()])
        self.named = nn.ModuleDict({"one": nn.Linear(4, 2, bias=False), "other": nn.Tanh()})
        self.factors = nn.ParameterList([tx.ones(4), tx.ones(2) * 2])
        self.shifts = nn.ParameterDict({"by": tx.ones(2)})
        self.own = nn.Parameter(tx.ones(1))
        self.register_buffer("calls", tx.tensor(0))
        self.register_buffer("mean", tx.zeros(2))

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        for layer, factor in zip(self.maps, self.factors, strict=True):
            x = layer(x) * factor[:1]
        y = self.named["other"](self.named["one"](x)) * self.factors[1] + self.shifts["by"]
        self.calls += 1
        self.mean = self.mean * 0.5 + y.detach().mean(0)
        return y * self.own


class _Cache(nn.Module):
    """Attention a step at a time, with the cache that it keeps."""

    def __init__(self) -> None:
        self.attention = nn.MultiHeadAttention(8, 2)

    def forward(self, x: tx.Tensor) -> Any:
        cache = self.attention.empty_cache(x.shape[0], 5)
        with tx.no_grad():
            for i in range(3):
                at = tx.tensor(i, device=x.device)
                y = self.attention.step(x[:, i : i + 1], cache, at)
            cache.reorder(tx.tensor([1, 0], device=x.device))
        chosen = cache.select(tx.tensor([1], device=x.device))
        return y, nn.KVCache(*cache), chosen, self.attention(x, x, x, is_causal=True)


def _lora() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    nn.lora(model, 2, "*", dropout=0.3)
    for module in model.modules():
        if isinstance(module, nn.LoRALinear):
            nn.init.normal_(module.lora_b)
    return model


LAYERS: dict[str, list[Layer]] = {
    "ELU": [Layer(lambda: nn.ELU(0.7), (X,))],
    "GELU": [Layer(nn.GELU, (X,)), Layer(lambda: nn.GELU("tanh"), (X,))],
    "GLU": [Layer(nn.GLU, (X,))],
    "LeakyReLU": [Layer(nn.LeakyReLU, (X,))],
    "LogSigmoid": [Layer(nn.LogSigmoid, (X,))],
    "LogSoftmax": [Layer(lambda: nn.LogSoftmax(-1), (X,))],
    "ReLU": [Layer(nn.ReLU, (X,))],
    "Sigmoid": [Layer(nn.Sigmoid, (X,))],
    "SiLU": [Layer(nn.SiLU, (X,))],
    "Softmax": [Layer(lambda: nn.Softmax(-1), (X,))],
    "Softplus": [Layer(lambda: nn.Softplus(2, 1.5), (X,))],
    "Tanh": [Layer(nn.Tanh, (X,))],
    "Flatten": [Layer(nn.Flatten, (ROW,))],
    "Unflatten": [Layer(lambda: nn.Unflatten(1, (2, 2)), (X,))],
    "Identity": [Layer(nn.Identity, (X,))],
    "Sequential": [Layer(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), (X,))],
    "ModuleList": [Layer(_Parts, (X,))],
    "ModuleDict": [Layer(_Parts, (X,))],
    "ParameterList": [Layer(_Parts, (X,))],
    "ParameterDict": [Layer(_Parts, (X,))],
    "Dropout": [Layer(lambda: nn.Dropout(0.3), (numbers(7, 33),))],
    "Embedding": [Layer(lambda: nn.Embedding(7, 3, padding_idx=1), (whole(7, 2, 5),))],
    "Linear": [Layer(lambda: nn.Linear(4, 3), (X,)), Layer(lambda: nn.Linear(6, 2), (ROW,))],
    "LayerNorm": [Layer(lambda: nn.LayerNorm((4, 6)), (ROW,))],
    "RMSNorm": [Layer(lambda: nn.RMSNorm(6), (ROW,))],
    "MultiHeadAttention": [
        Layer(
            lambda: nn.MultiHeadAttention(8, 2, dropout=0.2, bias=True),
            (numbers(2, 3, 8), numbers(2, 5, 8, seed=1), numbers(2, 5, 8, seed=2),
             whole(2, 2, 1, 1, 5, seed=4) > 0),
        ),
        Layer(_Cache, (numbers(2, 3, 8),)),
    ],
    "LoRALinear": [Layer(_lora, (X,))],
    "Conv1d": [
        Layer(lambda: nn.Conv1d(4, 6, 3, 2, 1, groups=2), (ROW,)),
        Layer(lambda: nn.Conv1d(4, 3, 4, padding="same", padding_mode="circular"), (ROW,)),
    ],
    "Conv2d": [
        Layer(lambda: nn.Conv2d(4, 3, 3, padding=1, dilation=(1, 2)), (IMAGE,)),
        Layer(lambda: nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), (IMAGE,)),
        Layer(lambda: nn.Conv2d(4, 4, (2, 3), padding=1, padding_mode="replicate", groups=4),
              (IMAGE,)),
    ],
    "ConvTranspose1d": [Layer(lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2), (ROW,))],
    "ConvTranspose2d": [Layer(lambda: nn.ConvTranspose2d(4, 3, 3, (2, 1), 1), (IMAGE,))],
    "AvgPool1d": [Layer(lambda: nn.AvgPool1d(3, 2, 1), (ROW,))],
    "AvgPool2d": [Layer(lambda: nn.AvgPool2d(2, 2, 1, True, False), (IMAGE,))],
    "MaxPool1d": [Layer(lambda: nn.MaxPool1d(3, 2, 1), (ROW,))],
    "MaxPool2d": [Layer(lambda: nn.MaxPool2d(2, 1, dilation=2), (IMAGE,))],
    "Fold": [Layer(lambda: nn.Fold((4, 5), (2, 3)), (numbers(2, 12, 9),))],
    "Unfold": [Layer(lambda: nn.Unfold((2, 3), padding=1, stride=2), (IMAGE,))],
    "Upsample": [
        Layer(lambda: nn.Upsample(scale_factor=2), (ROW,)),
        Layer(lambda: nn.Upsample((7, 4), mode="bilinear"), (IMAGE,)),
    ],
    "BatchNorm1d": [
        Layer(lambda: nn.BatchNorm1d(4), (ROW,)),
        Layer(lambda: nn.BatchNorm1d(4, momentum=None), (X,)),
    ],
    "BatchNorm2d": [Layer(lambda: nn.BatchNorm2d(4), (IMAGE,))],
    "GroupNorm": [Layer(lambda: nn.GroupNorm(2, 4), (IMAGE,))],
    "RNN": [Layer(lambda: nn.RNN(4, 3, nonlinearity="relu"), (numbers(5, 2, 4),))],
    "LSTM": [
        Layer(
            lambda: nn.LSTM(4, 3, 2, batch_first=True, dropout=0.3, bidirectional=True),
            (numbers(3, 5, 4),),
            {"lengths": [2, 5, 1]},
        )
    ],
    "GRU": [Layer(lambda: nn.GRU(4, 3), (numbers(5, 2, 4), numbers(1, 2, 3, seed=1)))],
    "RNNCell": [Layer(lambda: nn.RNNCell(4, 3), (X,))],
    "LSTMCell": [Layer(lambda: nn.LSTMCell(4, 3), (X,))],
    "GRUCell": [Layer(lambda: nn.GRUCell(4, 3, bias=False), (X, numbers(3, 3, seed=1)))],
    "BCELoss": [Layer(lambda: nn.BCELoss(_weights()), (SHARES, SHARES[::-1]))],
    "BCEWithLogitsLoss": [
        Layer(lambda: nn.BCEWithLogitsLoss(_weights(), pos_weight=_weights()), (X, SHARES))
    ],
    "CosineEmbeddingLoss": [Layer(lambda: nn.CosineEmbeddingLoss(0.2), (X, Y, SIGNS[:, 0]))],
    "CosineSimilarity": [Layer(nn.CosineSimilarity, (X, Y))],
    "CrossEntropyLoss": [
        Layer(
            lambda: nn.CrossEntropyLoss(_weights(), ignore_index=2, label_smoothing=0.1), (X, IDS)
        )
    ],
    "GaussianNLLLoss": [Layer(lambda: nn.GaussianNLLLoss(full=True), (X, Y, SHARES))],
    "HingeEmbeddingLoss": [Layer(nn.HingeEmbeddingLoss, (SHARES, SIGNS))],
    "HuberLoss": [Layer(lambda: nn.HuberLoss(delta=0.6), (X, Y))],
    "KLDivLoss": [Layer(lambda: nn.KLDivLoss(reduction="batchmean"), (X, SHARES))],
    "L1Loss": [Layer(nn.L1Loss, (X, Y))],
    "MSELoss": [Layer(nn.MSELoss, (X, Y))],
    "MarginRankingLoss": [Layer(lambda: nn.MarginRankingLoss(0.3), (X, Y, SIGNS))],
    "NLLLoss": [Layer(lambda: nn.NLLLoss(_weights()), (X, IDS))],
    "PairwiseDistance": [Layer(lambda: nn.PairwiseDistance(1.5), (X, Y))],
    "PoissonNLLLoss": [Layer(lambda: nn.PoissonNLLLoss(full=True), (X, SHARES * 4))],
    "SmoothL1Loss": [Layer(lambda: nn.SmoothL1Loss(beta=0.7), (X, Y))],
    "SoftMarginLoss": [Layer(nn.SoftMarginLoss, (X, SIGNS))],
    "TripletMarginLoss": [Layer(lambda: nn.TripletMarginLoss(swap=True), (X, Y, Z))],
}  # fmt: skip
