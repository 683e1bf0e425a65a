"""The encoder-decoder of 'Convolutional Sequence to Sequence Learning' (Gehring et al. 2017,
arXiv 1705.03122).

In: source ids (B, S) and target ids (B, T), int32 or int64, padded on the right with pad_id. Out:
logits (B, T, V), or a loss. Called by training and decoding, and by users. Sizes in the comments:
B sentences, S source and T target positions, D = d_model, K = kernel_size, N rows in decoding.

Each layer sees K places of the one below, so L of them see L (K - 1) + 1 words; and each layer of
the decoder looks at the whole source. All positions are computed at once, as in the Transformer.
The authors' weight normalization is left out, and so is their factor on the encoder's gradients,
which matters little under Adam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from .. import nn
from ..arguments import check_fields, explain_init
from ..creation import arange, cat, full, tensor, zeros
from ..dtypes import int64
from ..errors import ShapeError
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor, no_grad
from .config import check_ids, check_positive, check_rates
from .encoder_decoder import EncoderDecoder
from .stepwise import Start, rows_of

HALF = math.sqrt(0.5)  # a sum of two values times this varies as much as each of them: section 3.5


@explain_init
@dataclass(frozen=True)
class ConvS2SConfig:
    """The shape of a ConvS2S.

    n_layers: of the encoder, and as many of the decoder.
    kernel_size: the places that a convolution sees; the decoder's are the last ones.
    dropout: on embeddings, on what convolutions read, and before the output.
    max_len: how many positions are learned, on either side.
    """

    vocab_size: int
    src_vocab_size: int | None = None
    d_model: int = 256
    n_layers: int = 4
    kernel_size: int = 3
    dropout: float = 0.0
    max_len: int = 1024
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "d_model", "n_layers", "kernel_size", "max_len")
        check_positive(self, "src_vocab_size")
        check_rates(self, "dropout")
        check_ids(self, "pad_id", "bos_id", "eos_id")

    @property
    def n_positions(self) -> int:
        """How many positions are learned."""
        return self.max_len

    def describe(self) -> str:
        """It in one line."""
        return (
            f"convolutions of {self.kernel_size}, {self.n_layers} + {self.n_layers} layers, "
            f"d_model {self.d_model}, dropout {self.dropout}"
        )


# Parts -----------------------------------------------------------------------------------------

M = TypeVar("M", nn.Conv1d, nn.Linear)


def begun(layer: M, gain: float) -> M:
    """The layer with weights such that its values vary gain times as much as its inputs."""
    nn.init.normal_(layer.weight, std=math.sqrt(gain / layer.weight[0].numel()))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Embedding(nn.Module):
    """Ids (N, T) -> (N, T, D): a learned vector for each word, plus one for its position."""

    def __init__(self, vocab_size: int, config: ConvS2SConfig) -> None:
        self.words = nn.Embedding(vocab_size, config.d_model)
        self.positions = nn.Embedding(config.max_len, config.d_model)
        for embedding in (self.words, self.positions):
            nn.init.normal_(embedding.weight, std=0.1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        return self._at(ids, self.table(ids.shape[1]))

    @nn.scoped
    def step(self, ids: Tensor, position: Tensor) -> Tensor:
        """forward() of words (N,), all at one 0-d position -> (N, D)."""
        return self._at(ids, self.positions.weight[position])

    def table(self, length: int) -> Tensor:
        """(length, D); ShapeError where there are fewer positions."""
        if length > self.positions.num_embeddings:
            raise ShapeError(
                f"ConvS2S: a sequence of {length} positions: this model has learned "
                f"{self.positions.num_embeddings} (max_len); shorten it"
            )
        return self.positions.weight[:length]

    def _at(self, ids: Tensor, positions: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.words(ids) + positions)
        return y


class GatedConvolution(nn.Module):
    """x (B, T, D) -> (B, T, D): a * sigmoid(b), a and b two convolutions (equation 1 of arXiv
    1612.08083). ahead: how many of the K places lie ahead; beyond the ends are zeros."""

    def __init__(self, config: ConvS2SConfig, ahead: int) -> None:
        d, k = config.d_model, config.kernel_size
        self.dropout = nn.Dropout(config.dropout)
        # A gate halves what it lets by, and dropout makes it vary more.
        self.conv = begun(nn.Conv1d(d, 2 * d, k), 4 * (1 - config.dropout))
        self.border = (0, 0, k - 1 - ahead, ahead)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask (B, T, 1): False where x counts as zeros."""
        x = self.dropout(x)
        x = F.pad(x if mask is None else x.where(mask, 0.0), self.border)
        y: Tensor = self.conv(x.transpose(1, 2))
        return F.glu(y.transpose(1, 2))

    @nn.scoped
    def step(self, x: Tensor, past: Tensor) -> Tensor:
        """The same for one place x (N, D), none ahead. past (N, D, K - 1): what it read before,
        which goes on by one place. A single window is a row, and its convolution a linear map."""
        seen = cat([past, self.dropout(x).unsqueeze(-1)], -1)
        past.assign(seen[..., 1:])
        return F.glu(F.linear(seen.flatten(1), self.conv.weight.flatten(1), self.conv.bias))


class Memory(NamedTuple):
    """The source, as each layer of the decoder looks at it."""

    keys: Tensor  # (B, S, D): the encoder's outputs
    values: Tensor  # (B, S, D): those plus the embeddings, which say what stands where, scaled
    mask: Tensor  # (B, 1, S): True where there is a word

    def select(self, sentences: Tensor) -> Memory:
        return Memory(*(part.index_select(0, sentences) for part in self))


class Attention(nn.Module):
    """h (B, T, D) -> what the source has for it (B, T, D): equations 1 and 2. g: the embeddings of
    the target, which say what word h stands at."""

    def __init__(self, config: ConvS2SConfig) -> None:
        self.query = begun(nn.Linear(config.d_model, config.d_model), 1)

    def forward(self, h: Tensor, g: Tensor, memory: Memory) -> Tensor:
        q = (self.query(h) + g) * HALF
        return F.scaled_dot_product_attention(q, *memory, scale=1.0)


class DecoderLayer(nn.Module):
    """A convolution of the last K places; what it gives, and that by attention, is added to x."""

    def __init__(self, config: ConvS2SConfig) -> None:
        self.conv, self.attention = GatedConvolution(config, 0), Attention(config)

    def forward(self, x: Tensor, g: Tensor, memory: Memory) -> Tensor:
        return self._sum(x, self.conv(x), g, memory)

    @nn.scoped
    def step(self, x: Tensor, g: Tensor, memory: Memory, past: Tensor) -> Tensor:
        """The same for one position, which follows those in past (N, D, K - 1). x, g (B, beam, D):
        a sentence's hypotheses are queries of one attention."""
        h = self.conv.step(x.flatten(0, 1), past)
        return self._sum(x, h.reshape(x.shape), g, memory)

    def _sum(self, x: Tensor, h: Tensor, g: Tensor, memory: Memory) -> Tensor:
        c: Tensor = self.attention(h, g, memory)
        return (x + (h + c) * HALF) * HALF


# The model -------------------------------------------------------------------------------------


class ConvS2SState(NamedTuple):
    """The decoding state of N = B * beam rows; see stepwise.py."""

    past: tuple[Tensor, ...]  # of each layer: what its convolution has read (N, D, K - 1)
    memory: Memory

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; rows (N,) stay in their sentences,
        whose memory is shared."""
        for past in self.past:
            past.assign(past.index_select(0, rows))

    def keep(self, sentences: Tensor) -> ConvS2SState:
        """A new state of these sentences (B',) alone."""
        rows = rows_of(sentences, self.past[0].shape[0] // self.memory.mask.shape[0])
        past = tuple(part.index_select(0, rows) for part in self.past)
        return ConvS2SState(past, self.memory.select(sentences))


class ConvS2S(EncoderDecoder):
    """model(src, tgt_in) -> logits. Weights start such that values vary alike in all layers:
    section 3.5 of the paper."""

    config: ConvS2SConfig

    def __init__(self, config: ConvS2SConfig) -> None:
        self.config = config
        self.src_embedding = Embedding(config.src_vocab_size or config.vocab_size, config)
        self.tgt_embedding = Embedding(config.vocab_size, config)
        layers, ahead = range(config.n_layers), config.kernel_size // 2
        self.encoder = nn.ModuleList(GatedConvolution(config, ahead) for _ in layers)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in layers)
        self.dropout = nn.Dropout(config.dropout)
        lm_head = nn.Linear(config.d_model, config.vocab_size)
        self.lm_head = begun(lm_head, 1 - config.dropout)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        memory = self.encode(src)
        self.check_target(tgt_in, src.shape[0])
        x = g = self.tgt_embedding(tgt_in)  # (B, T, D)
        for layer in self.decoder:
            x = layer(x, g, memory)
        logits: Tensor = self.lm_head(self.dropout(x))
        return logits

    @nn.scoped
    def encode(self, src: Tensor, mask: Tensor | None = None) -> Memory:
        """src (B, S) -> what the decoder looks at. mask (B, S): True where there is a word; without
        it, where there is no pad_id."""
        self.check_source(src)
        mask = src != self.config.pad_id if mask is None else mask
        x = e = self.src_embedding(src)  # (B, S, D)
        for layer in self.encoder:
            x = (x + layer(x, mask.unsqueeze(-1))) * HALF
        # A mean of m values varies less by sqrt(m); attention is at first such a mean.
        m = mask.sum(-1).to(e.dtype).reshape(-1, 1, 1)
        return Memory(x, (x + e) * (m * 0.5).sqrt(), mask.unsqueeze(1))

    # One token at a time; see stepwise.py
    def room(self, length: int) -> int | None:
        return self.config.max_len if length <= self.config.max_len else 0

    @no_grad()
    @nn.scoped
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        mask = None
        if lengths is not None:
            mask = arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
        memory, rows = self.encode(ids, mask), ids.shape[0] * beam
        self.tgt_embedding.table(max_new_tokens)  # whether there are so many
        like, shape = memory.keys, (rows, self.config.d_model, self.config.kernel_size - 1)
        past = tuple(zeros(shape, dtype=like.dtype, device=like.device) for _ in self.decoder)
        bos = full(rows, self.config.bos_id, dtype=int64, device=ids.device)
        return Start(ConvS2SState(past, memory), bos, tensor(0, device=ids.device))

    @no_grad()
    @nn.scoped
    def step(self, state: ConvS2SState, ids: Tensor, position: Tensor) -> Tensor:
        g = self.tgt_embedding.step(ids, position)
        x = g = g.reshape(state.memory.mask.shape[0], -1, g.shape[-1])  # (B, beam, D)
        for layer, past in zip(self.decoder, state.past, strict=True):
            x = layer.step(x, g, state.memory, past)
        logits: Tensor = self.lm_head(self.dropout(x.flatten(0, 1)))
        return logits
