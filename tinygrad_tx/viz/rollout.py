"""Attention rollout (Abnar and Zuidema, "Quantifying attention flow in Transformers", ACL 2020,
arXiv 2005.00928): how much of each input token there is in each position, layer after layer.

In: the attention weights of all layers, in their order. Out: the same of one "head" each, whose
keys are tokens of the input. Called by attention.py.

A layer passes on half of what a position has (the residual connection) and half of what it looks
at, the mean of the heads: A = 0.5 W + 0.5 I, and the rollout of a layer is A times that of the
layer below. The paper tells of encoders. A decoder position has two kinds of input, so two
rollouts: of the target T and of the source R. Self-attention takes both from the layer below,
T <- A T and R <- A R; attention to the source halves both and adds half of what the encoder's E
has: T <- 0.5 T and R <- 0.5 R + 0.5 W E. Rows of T and R together add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .heads import Heads, Weights

RESIDUAL = 0.5
TITLE = ("rollout",)


def rollouts(layers: Sequence[Heads]) -> list[Heads]:
    """What has come to each layer's positions, by layer. UserError where no layer looks at its own
    positions."""
    if all(layer.role == "cross" for layer in layers):
        raise UserError(
            "a rollout follows self-attention from layer to layer, and this model has none; "
            "`mean` adds up the heads of each layer"
        )
    of_source = of_target = from_source = None
    found: list[Heads] = []
    last = -1  # the place of a decoder layer's self-attention, which cross-attention changes
    for layer in layers:
        weights = layer.weights.astype(np.float64).mean(0)
        if layer.role == "encoder":
            of_source = _passed(weights) @ (
                np.eye(len(weights)) if of_source is None else of_source
            )
            found.append(_rolled(layer, of_source))
        elif layer.role == "self":
            mixing = _passed(weights)
            of_target = mixing if of_target is None else mixing @ of_target
            if from_source is not None:
                from_source = mixing @ from_source
            last = len(found)
            found.append(_rolled(layer, of_target))
        else:
            looked = weights if of_source is None else weights @ of_source
            alive = (weights.sum(-1, keepdims=True) > 0) * (1 - RESIDUAL)
            if from_source is None:
                from_source = np.zeros_like(looked)
            from_source = (1 - alive) * from_source + alive * looked
            if of_target is not None:
                of_target = (1 - alive) * of_target
                found[last] = _rolled(found[last], of_target)
            found.append(_rolled(layer, from_source))
    return found


def _passed(weights: Weights) -> Weights:
    """0.5 W + 0.5 I; what looks at nothing keeps what it has."""
    n_queries, n_keys = weights.shape
    if n_queries != n_keys:
        raise UserError(f"a rollout needs as many queries as keys, not {n_queries} and {n_keys}")
    mixing = (1 - RESIDUAL) * weights + RESIDUAL * np.eye(n_queries)
    rows: Weights = mixing / mixing.sum(-1, keepdims=True)
    return rows


def _rolled(layer: Heads, weights: Weights) -> Heads:
    return layer._replace(weights=weights[None], titles=TITLE)
