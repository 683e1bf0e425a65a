"""EncoderDecoder: what the models that translate have in common.

In: source ids (B, S) and target ids (B, T), padded on the right with pad_id. Out: logits, a loss,
and the steps of decoding (stepwise.py). The base of Transformer, Seq2Seq and ConvS2S;
training and the commands know no more of a model than this, and find its class in registry.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from ..context import part
from ..creation import arange
from ..errors import ShapeError
from ..nn import KVCache
from ..tensor import Tensor
from .objective import mean_loss
from .saving import Savable
from .stepwise import Start, rows_of


class DecoderState(NamedTuple):
    """The decoding state of N = B * beam rows; see stepwise.py."""

    own: tuple[KVCache, ...]  # of each layer's self-attention: (N, H, max_new_tokens, d_k)
    memory: tuple[KVCache, ...]  # of each layer's cross-attention: (B, H, S, d_k)
    mask: Tensor  # (B, 1, 1, S): which source positions take part
    positions: Tensor  # (max_new_tokens, ...): what each position brings along

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; rows (N,) stay in their sentences,
        whose memory is shared."""
        for cache in self.own:
            cache.reorder(rows)

    def keep(self, sentences: Tensor) -> DecoderState:
        """A new state of these sentences (B',) alone."""
        rows = sentences
        if self.own:
            rows = rows_of(sentences, self.own[0].k.shape[0] // self.mask.shape[0])
        return DecoderState(
            tuple(cache.select(rows) for cache in self.own),
            tuple(cache.select(sentences) for cache in self.memory),
            self.mask.index_select(0, sentences),
            self.positions,
        )


class EncoderDecoder(Savable, ABC):
    """model(src, tgt_in) -> logits (B, T, V). config: has vocab_size, pad_id, bos_id, eos_id,
    d_model and max_len, the most tokens of a source that is translated."""

    padding_side = "right"
    config: Any

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Weights as config says."""

    @abstractmethod
    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """src int (B, S), tgt_in int (B, T), beginning with bos_id -> logits (B, T, V): at t, of
        the target word that follows tgt_in[:, : t + 1]."""

    def loss(
        self, src: Tensor, tgt_in: Tensor, tgt_out: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """The mean cross-entropy, in nats, of the target tokens (B, T) that are no padding; 0 where
        all are."""
        pad_id: int = self.config.pad_id
        return mean_loss(lambda: self(src, tgt_in), tgt_out, pad_id, label_smoothing)

    def check_source(self, src: Tensor) -> None:
        """ShapeError unless these are ids (B, S), one at least in a row."""
        if src.ndim != 2:
            raise ShapeError(
                f"{type(self).__name__}: source ids must be (batch, length), not {src.shape}"
            )
        self._check_length("source", src)

    def check_target(self, tgt_in: Tensor, rows: int) -> None:
        """ShapeError unless these are ids (B, T) for so many sources, one at least in a row."""
        if tgt_in.ndim != 2 or tgt_in.shape[0] != rows:
            raise ShapeError(
                f"{type(self).__name__}: target ids {tgt_in.shape} must be (batch, length), with "
                f"as many rows as the source has, {rows}"
            )
        self._check_length("target", tgt_in)

    def _check_length(self, which: str, ids: Tensor) -> None:
        if not ids.shape[1]:
            raise ShapeError(
                f"{type(self).__name__}: {which} ids {ids.shape} must have a length of 1 or more"
            )

    def source_mask(self, src: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 1, 1, S) for sources (B, S) of so many words (B,): True where there is a word, which
        without lengths is where there is no pad_id. It hides padding as keys, from every head and
        every query; what padding asks as a query nobody looks at."""
        self.check_source(src)
        with part("padding mask"):
            if lengths is None:
                mask: Tensor = src != self.config.pad_id
            else:
                mask = arange(src.shape[1], device=src.device) < lengths.unsqueeze(1)
            return mask.unsqueeze(1).unsqueeze(1)

    # One token at a time; see stepwise.py
    def room(self, length: int) -> int | None:
        """The number of new tokens that may follow a source of that length; None: any number."""
        return None

    @abstractmethod
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        """Encode sources (B, S) for up to max_new_tokens steps of `beam` hypotheses each."""

    @abstractmethod
    def step(self, state: Any, ids: Tensor, position: Tensor) -> Tensor:
        """The logits (N, V) of the tokens after ids (N,) at a 0-d position."""
