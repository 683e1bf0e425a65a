"""The recurrent encoder-decoder (Sutskever et al. 2014, arXiv 1409.3215), with the attention of
Bahdanau et al. (2015, arXiv 1409.0473) or of Luong et al. (2015, arXiv 1508.04025), or without.

In: source ids (B, S) and target ids (B, T), int32 or int64, padded on the right with pad_id. Out:
logits (B, T, V), or a loss. Called by training and decoding, and by users. Sizes in the comments:
B sentences, S source and T target positions, D = d_model, L layers, N rows in decoding.

Without attention the decoder knows of the source the state that it begins with. With it, each
target position looks at all of the encoder's states: Bahdanau's before its step, Luong's after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .. import nn
from ..arguments import check_fields, explain_init
from ..creation import arange, cat, full, tensor, where, zeros
from ..dtypes import int64
from ..loops.scan import scan
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor, no_grad
from .config import check, check_choice, check_ids, check_positive, check_rates
from .encoder_decoder import EncoderDecoder
from .stepwise import Start, repeated, rows_of

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
ATTENTIONS = ("none", "bahdanau", "luong")
SCORES = ("dot", "general", "concat")

Carry = tuple[Tensor, ...]  # the decoder's h (L, N, D), an LSTM's c, and what it is fed (1, N, D)
Turn = tuple[Tensor, Tensor | None]  # a step's state (N, D), and the context to put beside it


@explain_init
@dataclass(frozen=True)
class Seq2SeqConfig:
    """The shape of a Seq2Seq.

    cell: "rnn", "lstm" or "gru", on both sides, n_layers of them, d_model wide.
    attention: "none", "bahdanau" or "luong".
    score: of Luong's attention: "dot", "general" or "concat".
    dropout: on embeddings, between layers, and before the output.
    bidirectional: the encoder reads in both directions, and its states are mapped to d_model.
    input_feeding: Luong's decoder is fed what its last position made of state and context.
    """

    vocab_size: int
    src_vocab_size: int | None = None
    cell: str = "lstm"
    attention: str = "luong"
    score: str = "dot"
    d_model: int = 256
    n_layers: int = 1
    dropout: float = 0.0
    bidirectional: bool = True
    input_feeding: bool = False
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    max_len: ClassVar[int] = 1024  # tokens of a source that is translated
    n_positions: ClassVar[None] = None  # none are learned

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "d_model", "n_layers", "src_vocab_size")
        check_rates(self, "dropout")
        check_choice("cell", self.cell, CELLS)
        check_choice("attention", self.attention, ATTENTIONS)
        check_choice("score", self.score, SCORES)
        if self.input_feeding:
            check(
                "input_feeding", True, self.attention == "luong", "False without Luong's attention"
            )
        check_ids(self, "pad_id", "bos_id", "eos_id")

    def describe(self) -> str:
        """It in one line."""
        how = {"luong": f" ({self.score}{', input feeding' if self.input_feeding else ''})"}
        return (
            f"{'bidirectional ' if self.bidirectional else ''}{self.cell}, {self.n_layers} + "
            f"{self.n_layers} layers, d_model {self.d_model}, attention {self.attention}"
            f"{how.get(self.attention, '')}, dropout {self.dropout}"
        )


# Attention -------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """The encoder's states, as the decoder looks at them, if it does."""

    mask: Tensor  # (B, 1, S): True where there is a word
    values: Any = None  # (B, S, D)
    keys: Any = None  # (B, S, D)

    def select(self, sentences: Tensor) -> Memory:
        rows: Any = (x if x is None else x.index_select(0, sentences) for x in self)
        return Memory(*rows)


class Attention(nn.Module):
    """query (B, T, D) looks at a Memory -> its context (B, T, D), the sum of the values by weights
    that softmax makes of scores: q . k; q . W k ("general"); or v . tanh(U q + W k) ("concat",
    which is Bahdanau's)."""

    def __init__(self, score: str, d_model: int) -> None:
        self.score = score
        self.key = None if score == "dot" else nn.Linear(d_model, d_model, bias=False)
        self.query: nn.Linear | None = None
        if score == "concat":
            self.query = nn.Linear(d_model, d_model, bias=False)
            self.v = nn.Parameter(zeros(d_model))
            nn.init.uniform_(self.v, -(d_model**-0.5), d_model**-0.5)

    @nn.scoped
    def keys(self, values: Tensor) -> Tensor:
        return values if self.key is None else self.key(values)

    def forward(self, query: Tensor, memory: Memory) -> Tensor:
        return self.weights(query, memory).matmul(memory.values)

    def weights(self, query: Tensor, memory: Memory) -> Tensor:
        """(B, T, S): rows add up to 1, and are 0 at padding; all 0 where there is nothing else."""
        if self.query is None:
            scores = query @ memory.keys.mT
        else:
            both = self.query(query).unsqueeze(2) + memory.keys.unsqueeze(1)  # (B, T, S, D)
            scores = (both.tanh() * self.v).sum(-1)
        alive = memory.mask.any(-1, keepdim=True)
        scores = where(memory.mask, scores, -math.inf)
        return where(alive, where(alive, scores, 0.0).softmax(-1), 0.0)


# Encoder and decoder ---------------------------------------------------------------------------


def _layers(c: Seq2SeqConfig, width: int, bidirectional: bool = False) -> Any:
    settings = {"dropout": c.dropout if c.n_layers > 1 else 0.0, "bidirectional": bidirectional}
    return CELLS[c.cell](width, c.d_model, c.n_layers, batch_first=True, **settings)


class Encoder(nn.Module):
    """Embedded sources (B, S, D) and lengths (B,) -> states (B, S, D), and the decoder's first."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        d, n_states = config.d_model, 2 if config.cell == "lstm" else 1
        self.rnn = _layers(config, d, config.bidirectional)
        self.proj = self.bridge = None
        if config.bidirectional:
            self.proj = None if config.attention == "none" else nn.Linear(2 * d, d)
            self.bridge = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(n_states))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Carry]:
        y, last = self.rnn(x, lengths=lengths)
        state = last if isinstance(last, tuple) else (last,)  # each (L x directions, B, D)
        if self.proj is not None:
            y = self.proj(y)
        if self.bridge is None:
            return y, state
        both = [cat([part[::2], part[1::2]], -1) for part in state]  # each (L, B, 2 D)
        first = [bridge(part) for bridge, part in zip(self.bridge, both, strict=True)]
        return y, (first[0].tanh(), *first[1:])  # h is between -1 and 1, c anywhere


class Decoder(nn.Module):
    """Embedded targets (B, T, D), the first state and the encoder's -> outputs (B, T, D)."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        d = config.d_model
        self.looks_first, self.feeds = config.attention == "bahdanau", config.input_feeding
        self.rnn = _layers(config, 2 * d if self.looks_first or self.feeds else d)
        self.attention: Any = None
        if config.attention != "none":
            self.attention = Attention("concat" if self.looks_first else config.score, d)
            self.combine = nn.Linear(2 * d, d, bias=False)

    def forward(self, x: Tensor, first: Carry, memory: Memory) -> Tensor:
        if not (self.looks_first or self.feeds):  # all steps first, then all that they look at
            h, _ = self.rnn(x, first if len(first) > 1 else first[0])
            return self._read(h, None if self.attention is None else self.attention(h, memory))
        x = x.transpose(0, 1)  # (T, B, D)
        _, (h, context) = scan(lambda carry, x: self._turn(x, carry, memory), first, x)
        return self._read(h, context).transpose(0, 1)

    @nn.scoped
    def step(self, x: Tensor, carry: Carry, memory: Memory) -> tuple[Tensor, Carry]:
        """forward() for one position x (N, D): its output (N, D), and the carry after it."""
        carry, ys = self._turn(x, carry, memory)
        return self._read(*ys), carry

    def _turn(self, x: Tensor, carry: Carry, memory: Memory) -> tuple[Carry, Turn]:
        """One position x (N, D) -> the carry after it, and the state and context to _read."""
        state, fed = (carry[:-1], carry[-1:]) if self.feeds else (carry, ())
        context = self._look(state[0][-1], memory) if self.looks_first else None
        also = fed[0][0] if self.feeds else context
        x = x if also is None else cat([x, also], -1)
        y, last = self.rnn(x.unsqueeze(1), state if len(state) > 1 else state[0])
        h = y.squeeze(1)
        if self.attention is not None and not self.looks_first:
            context = self._look(h, memory)
        if self.feeds:
            h, context = self._read(h, context), None
            fed = (h.unsqueeze(0),)
        return (*(last if isinstance(last, tuple) else (last,)), *fed), (h, context)

    def _read(self, h: Tensor, context: Tensor | None) -> Tensor:
        """The output of a state and its context; without one, the state."""
        return h if context is None else F.tanh(self.combine(cat([h, context], -1)))

    def _look(self, h: Tensor, memory: Memory) -> Tensor:
        """The contexts (N, D) of states (N, D): a sentence's hypotheses are its queries."""
        sentences = memory.mask.shape[0]
        beam = h.shape[0] // max(sentences, 1)
        together = h.reshape(sentences, beam, h.shape[-1])  # (B, beam, D)
        context: Tensor = self.attention(together, memory)
        return context.reshape(h.shape)


# The model -------------------------------------------------------------------------------------


class Seq2SeqState(NamedTuple):
    """The decoding state of N = B * beam rows; see stepwise.py."""

    carry: Carry
    memory: Memory

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; a sentence's memory is shared."""
        for part in self.carry:
            part.assign(part.index_select(1, rows))

    def keep(self, sentences: Tensor) -> Seq2SeqState:
        """A new state of these sentences (B',) alone."""
        rows = rows_of(sentences, self.carry[0].shape[1] // self.memory.mask.shape[0])
        carry = (part.index_select(1, rows) for part in self.carry)
        return Seq2SeqState(tuple(carry), self.memory.select(sentences))


class Seq2Seq(EncoderDecoder):
    """model(src, tgt_in) -> logits. Embeddings start normal with standard deviation 1, for gates to
    tell words apart from the first step on; the maps as nn's do."""

    config: Seq2SeqConfig

    def __init__(self, config: Seq2SeqConfig) -> None:
        self.config, d = config, config.d_model
        self.src_embedding = nn.Embedding(config.src_vocab_size or config.vocab_size, d)
        self.tgt_embedding = nn.Embedding(config.vocab_size, d)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(d, config.vocab_size, bias=False)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        memory, first = self.encode(src)
        self.check_target(tgt_in, src.shape[0])
        y = self.decoder(self.dropout(self.tgt_embedding(tgt_in)), first, memory)
        logits: Tensor = self.lm_head(self.dropout(y))
        return logits

    @nn.scoped
    def encode(self, src: Tensor, lengths: Tensor | None = None) -> tuple[Memory, Carry]:
        """src (B, S), trailing pad_ids are padding -> what the decoder sees and begins with."""
        self.check_source(src)
        places = arange(src.shape[1], device=src.device)
        if lengths is None:
            lengths = ((src != self.config.pad_id).to(int64) * (places + 1)).amax(-1)
        x = self.dropout(self.src_embedding(src))
        values, first = self.encoder(x, lengths)
        if self.config.input_feeding:
            first = (*first, zeros(1, *first[0].shape[1:], dtype=x.dtype, device=x.device))
        seen, attention = (places < lengths.unsqueeze(1)).unsqueeze(1), self.decoder.attention
        looked_at = () if attention is None else (values, attention.keys(values))
        return Memory(seen, *looked_at), first

    @no_grad()
    @nn.scoped
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        memory, first = self.encode(ids, lengths)
        carry = tuple(repeated(part.transpose(0, 1), beam).transpose(0, 1) for part in first)
        bos = full(ids.shape[0] * beam, self.config.bos_id, dtype=int64, device=ids.device)
        return Start(Seq2SeqState(carry, memory), bos, tensor(0, device=ids.device))

    @no_grad()
    @nn.scoped
    def step(self, state: Seq2SeqState, ids: Tensor, position: Tensor) -> Tensor:
        x = self.dropout(self.tgt_embedding(ids))  # (N, D)
        y, carry = self.decoder.step(x, *state)
        for own, new in zip(state.carry, carry, strict=True):
            own.assign(new)
        logits: Tensor = self.lm_head(self.dropout(y))
        return logits
