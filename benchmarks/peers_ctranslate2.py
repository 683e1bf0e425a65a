"""CTranslate2's side of decoding, in float32, with the weights given to it as one of its own
Transformers. Called by worker.py. Its scores are a little higher than others': the end token, which
no step may choose, is out of its softmax too.
"""

from __future__ import annotations

import math
import os
import tempfile

import ctranslate2
import numpy as np
from ctranslate2.specs import attention_spec, common_spec, transformer_spec

from .contract import Translation
from .works import BOS, EOS, PAD, Array, Decoding

_SPECIAL = {PAD: "<pad>", BOS: "<s>", EOS: "</s>"}
_Weights = dict[str, Array]


class Translator:
    """Called with sources (B, S), it translates them."""

    def __init__(self, case: Decoding) -> None:
        self._case = case
        vocab = case.model.vocab
        self._words = [_SPECIAL.get(i, f"w{i}") for i in range(vocab)]
        self._ids = {word: i for i, word in enumerate(self._words)}
        with tempfile.TemporaryDirectory() as directory:
            spec = _spec(case, self._words)
            spec.save(directory)
            self._translator = ctranslate2.Translator(
                directory,
                device="cpu",
                compute_type="float32",
                inter_threads=1,
                intra_threads=int(os.environ["OMP_NUM_THREADS"]),
            )

    def __call__(self, sources: Array) -> Translation:
        n = self._case.new_tokens
        found = self._translator.translate_batch(
            [[self._words[i] for i in row] for row in sources],
            beam_size=self._case.beam,
            length_penalty=0.0,
            min_decoding_length=n,
            max_decoding_length=n,
            return_scores=True,
        )
        tokens = [[self._ids[word] for word in row.hypotheses[0]] for row in found]
        return Translation(np.array(tokens), np.array([row.scores[0] for row in found]))


def _spec(case: Decoding, words: list[str]) -> transformer_spec.TransformerSpec:
    work, weights = case.model, case.weights()
    spec = transformer_spec.TransformerSpec.from_config(
        (work.layers, work.layers),
        work.heads,
        pre_norm=False,
        activation=common_spec.Activation.RELU,
    )
    table = _sinusoids(max(case.source, case.new_tokens) + 1, work.width)
    embedding = weights["embedding.weight"]
    for stack, target, given in (
        ("encoder", spec.encoder, spec.encoder.embeddings[0]),
        ("decoder", spec.decoder, spec.decoder.embeddings),
    ):
        given.weight = embedding
        target.scale_embeddings = True
        target.position_encodings.encodings = table
        for i, layer in enumerate(target.layer):
            name = f"{stack}.layers.{i}"
            _self_attention(layer.self_attention, weights, name)
            if stack == "decoder":
                _cross_attention(layer.attention, weights, name)
            _feed_forward(layer.ffn, weights, name, "norm3" if stack == "decoder" else "norm2")
    spec.decoder.projection.weight = embedding
    spec.config.decoder_start_token = _SPECIAL[BOS]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.validate()
    return spec


def _self_attention(
    spec: attention_spec.MultiHeadAttentionSpec, weights: _Weights, name: str
) -> None:
    parts = [weights[f"{name}.self_attn.{part}_proj.weight"] for part in "qkv"]
    spec.linear[0].weight = np.concatenate(parts)
    spec.linear[1].weight = weights[f"{name}.self_attn.out_proj.weight"]
    _norm(spec.layer_norm, weights, f"{name}.norm1")


def _cross_attention(
    spec: attention_spec.MultiHeadAttentionSpec, weights: _Weights, name: str
) -> None:
    parts = [weights[f"{name}.cross_attn.{part}_proj.weight"] for part in "qkv"]
    spec.linear[0].weight = parts[0]
    spec.linear[1].weight = np.concatenate(parts[1:])
    spec.linear[2].weight = weights[f"{name}.cross_attn.out_proj.weight"]
    _norm(spec.layer_norm, weights, f"{name}.norm2")


def _feed_forward(
    spec: transformer_spec.FeedForwardSpec, weights: _Weights, name: str, norm: str
) -> None:
    for part, target in (("linear1", spec.linear_0), ("linear2", spec.linear_1)):
        target.weight = weights[f"{name}.ffn.{part}.weight"]
        target.bias = weights[f"{name}.ffn.{part}.bias"]
    _norm(spec.layer_norm, weights, f"{name}.{norm}")


def _norm(spec: common_spec.LayerNormSpec, weights: _Weights, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _sinusoids(length: int, width: int) -> Array:
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, width, 2) * -math.log(10000) / width)
    table: Array = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, width)
    return table.astype(np.float32)
