"""LanguageModel: what the decoder-only models have in common: GPT and Llama.

In: ids (B, T), int32 or int64. Out: logits (B, T, V), a loss, and the steps of decoding, as
stepwise.py has them. A model of its own kind says how ids and positions become vectors, which
blocks they go through, and what the last vectors say of the next token. Sizes in the comments: B
rows, T positions, D the width, N rows in decoding, L positions in a cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

from .. import nn
from ..creation import arange, tensor, zeros
from ..dtypes import int64
from ..errors import ShapeError
from ..nn import KVCache
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor, no_grad
from .objective import mean_loss
from .saving import Savable
from .stepwise import Start, repeated, rows_of


class Past(NamedTuple):
    """What a layer's attention is told in a step of decoding."""

    cache: KVCache  # (N, heads, L, d_k)
    mask: Tensor  # (N, 1, T, L): True where a new position sees a place of the cache
    position: Tensor  # 0-d: the first of the new positions


class Packed(NamedTuple):
    """What a layer's attention is told of documents that lie side by side in a row."""

    bounds: Tensor  # (B, 1, T, 2): where the document of each position begins, and where it ends


Seen = Past | Packed | None


def attend(q: Tensor, own: KVCache, seen: Seen, dropout: float = 0.0) -> Tensor:
    """Causal self-attention of queries (B, H, T, d_k) with their own keys and values, which may
    have fewer heads -> (B, T, H d_k). With a past, these go into its cache, and are seen there."""
    B, H, T, d_k = q.shape  # noqa: N806
    mask = bounds = None
    if isinstance(seen, Past):
        seen.cache.write(own.k, own.v, seen.position)
        own, mask = seen.cache, seen.mask
    elif seen is not None:
        bounds = seen.bounds
    heads = F.scaled_dot_product_attention(
        q,
        own.k,
        own.v,
        mask,
        dropout,
        mask is None,
        enable_gqa=own.k.shape[1] != H,
        bounds=bounds,
    )
    return heads.transpose(1, 2).reshape(B, T, H * d_k)


class Prompts(NamedTuple):
    """The decoding state of N = B * beam rows; see stepwise.py."""

    caches: tuple[KVCache, ...]  # of each layer: (N, heads, L, d_k)
    begin: Tensor  # (B,): the column at which each prompt begins, after its padding

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; rows (N,) stay in their prompts."""
        for cache in self.caches:
            cache.reorder(rows)

    def keep(self, sentences: Tensor) -> Prompts:
        """A new state of these prompts (B',) alone."""
        rows = rows_of(sentences, self.caches[0].k.shape[0] // self.begin.shape[0])
        caches = tuple(cache.select(rows) for cache in self.caches)
        return Prompts(caches, self.begin.index_select(0, sentences))


class LanguageModel(Savable, ABC):
    """model(ids) -> logits. config: has pad_id, None where the model has no padding."""

    padding_side = "left"
    config: Any
    limit: str  # the setting which says how many positions there are, prompt and all
    heads: tuple[int, int]  # of a cache: their number, and their width

    @abstractmethod
    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Any, ...]:
        """ids (B, T) at positions (T,) or (B, T) -> x (B, T, D), and what all blocks take
        besides."""

    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """The layers, each called with what embed() gives, and what is Seen."""

    @abstractmethod
    def head(self, x: Tensor) -> Tensor:
        """x (B, T, D) after the last block -> logits (B, T, V)."""

    def forward(self, ids: Tensor, bounds: Tensor | None = None) -> Tensor:
        """ids int (B, T) -> logits (B, T, V): at t, of the token after ids[:, : t + 1].

        bounds: int (B, T, 2), where the document of each position begins in its row, and where it
            ends: several in a row do not see each other, and each counts its positions from 0.
        """
        if ids.ndim != 2:
            raise ShapeError(f"{type(self).__name__}: ids must be (batch, length), not {ids.shape}")
        if bounds is not None and bounds.shape != (*ids.shape, 2):
            raise ShapeError(
                f"{type(self).__name__}: bounds {bounds.shape} must be {(*ids.shape, 2)}"
            )
        self._require_room(ids.shape[1])
        positions, seen = arange(ids.shape[1], device=ids.device), None
        if bounds is not None:
            positions, seen = positions - bounds[:, :, 0], Packed(bounds.unsqueeze(1))
        x, *more = self.embed(ids, positions)
        for block in self.blocks():
            x = block(x, *more, seen)
        return self.head(x)

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        bounds: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The mean cross-entropy, in nats, of targets (B, T), those equal to -100 left out; 0 where
        all are. bounds: as of a call."""
        return mean_loss(lambda: self(ids, bounds), targets, -100, label_smoothing)

    # One token at a time; see stepwise.py
    def room(self, length: int) -> int | None:
        """The number of new tokens that may follow a prompt of that length; the last is never
        read."""
        left: int = self.config.n_positions - length + 1
        return left

    @no_grad()
    @nn.scoped
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        """Read prompts (B, P), padded on the left, for up to max_new_tokens steps of `beam`
        hypotheses each. Without lengths, leading pad_ids are padding, where the model has one."""
        B, P = ids.shape  # noqa: N806
        if not P:
            raise ShapeError(f"{type(self).__name__}: a prompt needs at least one token")
        length = P - 1 + max_new_tokens
        if lengths is None:  # where they are known, what is padded takes no room
            self._require_room(length)
        if lengths is not None:
            begin = P - lengths
        elif self.config.pad_id is not None:
            begin = ((ids != self.config.pad_id).to(int64).cumsum(1) == 0).sum(1)
        else:
            begin = zeros(B, dtype=int64, device=ids.device)
        heads, width = self.heads
        like = next(iter(self.parameters()))
        caches = tuple(KVCache.empty((B, heads, length, width), like) for _ in self.blocks())
        state = Prompts(caches, begin)
        if P > 1:
            self._advance(state, ids[:, :-1], tensor(0, device=ids.device))
        if beam > 1:
            state = Prompts(tuple(KVCache(*(repeated(x, beam) for x in c)) for c in caches), begin)
        return Start(state, repeated(ids[:, -1], beam), tensor(P - 1, device=ids.device))

    @no_grad()
    @nn.scoped
    def step(self, state: Prompts, ids: Tensor, position: Tensor) -> Tensor:
        """The logits (N, V) of the tokens after ids (N,) at a 0-d position."""
        x = self._advance(state, ids.unsqueeze(1), position)  # (N, 1, D)
        return self.head(x).squeeze(1)

    def _advance(self, state: Prompts, ids: Tensor, position: Tensor) -> Tensor:
        """ids (N, T) at the columns from a 0-d position on -> (N, T, D). A row's own positions
        count from where it begins, and it sees nothing of what is before."""
        (N, T), L = ids.shape, state.caches[0].k.shape[2]  # noqa: N806
        columns = position + arange(T, device=ids.device)  # (T,)
        begin = repeated(state.begin, N // state.begin.shape[0]).unsqueeze(1)  # (N, 1)
        # Padding, and rows that have come to their end, are anywhere: nobody looks at them.
        positions = (columns - begin).clip(0, self.config.n_positions - 1)  # (N, T)
        slots = arange(L, device=ids.device)
        past = slots <= columns.unsqueeze(1)  # (T, L)
        mask = (past & (slots >= begin.unsqueeze(1))).unsqueeze(1)  # (N, 1, T, L)
        x, *more = self.embed(ids, positions)
        for block, cache in zip(self.blocks(), state.caches, strict=True):
            x = block(x, *more, Past(cache, mask, position))
        found: Tensor = x
        return found

    def _require_room(self, length: int) -> None:
        if length > self.config.n_positions:
            raise ShapeError(
                f"{type(self).__name__}: {length} positions, but this model has {self.limit} = "
                f"{self.config.n_positions}; shorten the text, or ask for fewer new tokens"
            )
