"""The encoder-decoder Transformer of 'Attention Is All You Need' (arXiv 1706.03762).

In: source ids (B, S) and target ids (B, T), int32 or int64, padded on the right with pad_id. Out:
logits (B, T, V), or a loss. Called by training and decoding, and by users. Sizes in the comments:
B sentences, S source and T target positions, D = d_model, H heads, N rows in decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import nn
from ..arguments import check_fields, explain_init
from ..creation import full, tensor, zeros
from ..dtypes import int64
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor, no_grad
from .config import check, check_choice, check_counts, check_ids, check_positive, check_rates
from .encoder_decoder import DecoderState, EncoderDecoder
from .layers import DecoderLayer, EncoderLayer, layer_norm
from .positions import positions_of
from .stepwise import Start
from .tensor_parallel import columns, logits, parallelize


@explain_init
@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer; the defaults are the paper's base model.

    dropout: on embedding + position and on every sub-layer's output; attention_dropout on the
        attention weights; activation_dropout between the two maps of the feed-forward.
    norm: "post" (the paper's) or "pre", each before its sub-layer, and one after each stack.
    tie_embeddings: source, target and output share one matrix.
    output_bias: a number for each word is added to its logit; it is a buffer, which does not learn.
    max_len: how many positions there are, where they are "learned".
    positions: "sinusoidal", which have no end; "sinusoidal_halves", with all sines before all
        cosines, as Marian has them; "learned".
    tensor_parallel: ranks share feed-forwards and vocabulary (docs/distributed.md).
    """

    vocab_size: int
    src_vocab_size: int | None = None
    d_model: int = 512
    n_heads: int = 8
    d_ff: int = 2048
    n_encoder_layers: int = 6
    n_decoder_layers: int = 6
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    norm: str = "post"
    activation: str = "relu"
    attention_bias: bool = False
    tie_embeddings: bool = True
    output_bias: bool = False
    max_len: int = 1024
    positions: str = "sinusoidal"
    layer_norm_eps: float = 1e-5
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    tensor_parallel: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "d_model", "n_heads", "d_ff", "max_len")
        check_counts(self, "n_encoder_layers", "n_decoder_layers", "layer_norm_eps")
        check_rates(self, "dropout", "attention_dropout", "activation_dropout")
        check_ids(self, "pad_id", "bos_id", "eos_id")
        fits = self.d_model % self.n_heads == 0
        check("d_model", self.d_model, fits, f"a multiple of n_heads, {self.n_heads}")
        check("norm", self.norm, self.norm in ("post", "pre"), '"post" or "pre"')
        check_choice("positions", self.positions, ("sinusoidal", "sinusoidal_halves", "learned"))
        F.activation(self.activation)
        one = self.src_vocab_size in (None, self.vocab_size)
        wanted = f"vocab_size, {self.vocab_size}, where tie_embeddings is set"
        check("src_vocab_size", self.src_vocab_size, one or not self.tie_embeddings, wanted)

    @property
    def n_positions(self) -> int | None:
        """How many positions are learned; None: sinusoids, for any number."""
        return self.max_len if self.positions == "learned" else None

    def describe(self) -> str:
        """It in one line."""
        return (
            f"d_model {self.d_model}, {self.n_heads} heads, d_ff {self.d_ff}, "
            f"{self.n_encoder_layers} + {self.n_decoder_layers} layers, dropout {self.dropout}, "
            f"{self.norm}-norm"
        )


# Stacks ----------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Positions, dropout, layers."""

    def __init__(self, config: TransformerConfig) -> None:
        self.positions = positions_of(config.positions, config.max_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_encoder_layers))
        self.norm = layer_norm(config) if config.norm == "pre" else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = layer(x, mask)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """Positions, dropout, layers; every layer reads the encoder's last output."""

    def __init__(self, config: TransformerConfig) -> None:
        self.positions = positions_of(config.positions, config.max_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = layer_norm(config) if config.norm == "pre" else None

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = layer(x, memory, mask)
        return x if self.norm is None else self.norm(x)

    @nn.scoped
    def step(self, x: Tensor, state: DecoderState, position: Tensor) -> Tensor:
        """x (N, 1, D) at a 0-d position, after the positions that the state has seen."""
        x = self.dropout(x + state.positions[position])
        for layer, own, memory in zip(self.layers, state.own, state.memory, strict=True):
            x = layer.step(x, own, memory, state.mask, position)
        return x if self.norm is None else self.norm(x)


# The model -------------------------------------------------------------------------------------


class Transformer(EncoderDecoder):
    """model(src, tgt_in) -> logits. Matrices start Xavier uniform, embeddings normal with standard
    deviation D^-0.5."""

    config: TransformerConfig
    parallel_words = ("embedding", "src_embedding", "tgt_embedding", "lm_head")

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config
        d = config.d_model
        self.lm_head: nn.Linear | None = None
        if config.tie_embeddings:
            # Marian's targets begin with padding, whose vector gets no gradient as an input.
            padding = config.pad_id if config.pad_id == config.bos_id else None
            self.embedding = nn.Embedding(config.vocab_size, d, padding)
        else:
            self.src_embedding = nn.Embedding(config.src_vocab_size or config.vocab_size, d)
            self.tgt_embedding = nn.Embedding(config.vocab_size, d)
            self.lm_head = nn.Linear(d, config.vocab_size, bias=False)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.output_bias: Tensor | None
        self.register_buffer(
            "output_bias", zeros(config.vocab_size) if config.output_bias else None
        )
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=d**-0.5)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if config.tensor_parallel:
            parallelize(self)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """src int (B, S), tgt_in int (B, T), beginning with bos_id -> logits (B, T, V): at t, of
        the target word that follows tgt_in[:, : t + 1]."""
        mask = self.source_mask(src)
        return self.decode(tgt_in, self.encode(src, mask), mask)

    @nn.scoped
    def encode(self, src: Tensor, mask: Tensor | None = None) -> Tensor:
        """src (B, S) -> memory (B, S, D)."""
        embedding = self.embedding if self.config.tie_embeddings else self.src_embedding
        x = embedding(src) * math.sqrt(self.config.d_model)
        memory: Tensor = self.encoder(x, self.source_mask(src) if mask is None else mask)
        return memory

    @nn.scoped
    def decode(self, tgt_in: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """tgt_in (B, T), memory (B, S, D), its mask (B, 1, 1, S) -> logits (B, T, V)."""
        self.check_target(tgt_in, memory.shape[0])
        return self._logits(self.decoder(self._embed_target(tgt_in), memory, mask))

    # One token at a time; see stepwise.py
    def room(self, length: int) -> int | None:
        """The number of new tokens that may follow a source of that length; None: any number."""
        if self.config.positions != "learned":
            return None
        return self.config.max_len if length <= self.config.max_len else 0

    @no_grad()
    @nn.scoped
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        """Encode sources (B, S) for up to max_new_tokens steps of `beam` hypotheses each."""
        mask = self.source_mask(ids, lengths)
        memory = self.encode(ids, mask)
        rows, layers = ids.shape[0] * beam, self.decoder.layers
        state = DecoderState(
            tuple(layer.self_attn.empty_cache(rows, max_new_tokens) for layer in layers),
            tuple(layer.cross_attn.project(memory, memory) for layer in layers),
            mask,
            self.decoder.positions.table(max_new_tokens, memory.dtype, memory.device),
        )
        first = full(rows, self.config.bos_id, dtype=int64, device=ids.device)
        return Start(state, first, tensor(0, device=ids.device))

    @no_grad()
    @nn.scoped
    def step(self, state: DecoderState, ids: Tensor, position: Tensor) -> Tensor:
        """The logits (N, V) of the tokens after ids (N,) at a 0-d position."""
        x = self._embed_target(ids.unsqueeze(1))  # (N, 1, D)
        return self._logits(self.decoder.step(x, state, position)).squeeze(1)

    def _embed_target(self, ids: Tensor) -> Tensor:
        embedding = self.embedding if self.config.tie_embeddings else self.tgt_embedding
        x: Tensor = embedding(ids) * math.sqrt(self.config.d_model)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        if self.lm_head is None:
            return logits(x, self.embedding, self.output_bias)
        y: Tensor = self.lm_head(x)
        return y if self.output_bias is None else y + columns(self.output_bias, y)
