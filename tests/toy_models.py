"""Models small enough to be decoded by hand: a Markov chain and a recurrent network. The tests of
decoding run them through the same protocol as the Transformer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.models.stepwise import Start, repeated, rows_of

Array = np.ndarray[Any, Any]
# Prefixes (n) of one length -> log-probabilities (n, V) of what follows each.
LogProbs = Callable[[list[list[int]]], Array]


class Forgetful(NamedTuple):
    """The state of a Chain: nothing to remember."""

    rows: tx.Tensor  # (B, beam), for its shape

    def reorder(self, rows: tx.Tensor) -> None:
        pass

    def keep(self, sentences: tx.Tensor) -> Forgetful:
        return Forgetful(self.rows.index_select(0, sentences))


class Chain(tx.nn.Module):
    """Given probabilities of the token that follows each token; the first follows the source's.
    The last one is the end token."""

    padding_side = "right"

    def __init__(self, probs: Any) -> None:
        table = tx.tensor(np.asarray(probs, np.float64))
        self.config = SimpleNamespace(eos_id=len(table) - 1, pad_id=None)
        self.table = tx.nn.Parameter(table.log())

    def room(self, length: int) -> int | None:
        return None

    def start(
        self,
        ids: tx.Tensor,
        lengths: tx.Tensor | None = None,
        *,
        max_new_tokens: int,
        beam: int = 1,
    ) -> Start:
        rows = ids[:, :1] + tx.zeros(1, beam, dtype=tx.int64)
        return Start(Forgetful(rows), rows.reshape(-1), tx.tensor(0))

    def step(self, state: Forgetful, ids: tx.Tensor, position: tx.Tensor) -> tx.Tensor:
        return self.table.index_select(0, ids)


class Memory(NamedTuple):
    """The state of a Recurrent: one vector for each row."""

    h: tx.Tensor  # (N, D)
    beams: tx.Tensor  # (beam,), for its shape

    def reorder(self, rows: tx.Tensor) -> None:
        self.h.assign(self.h.index_select(0, rows))

    def keep(self, sentences: tx.Tensor) -> Memory:
        rows = rows_of(sentences, self.beams.shape[0])
        return Memory(self.h.index_select(0, rows), self.beams)


class Recurrent(tx.nn.Module):
    """h = tanh(h A + E[token]), logits = h W: small, but every token so far matters."""

    padding_side = "right"

    def __init__(self, vocab_size: int, scale: float = 3.0) -> None:
        self.config = SimpleNamespace(eos_id=vocab_size - 1, pad_id=0)
        self.mix = tx.nn.Parameter(tx.randn(6, 6, dtype=tx.float64))
        self.words = tx.nn.Parameter(tx.randn(vocab_size, 6, dtype=tx.float64))
        self.out = tx.nn.Parameter(tx.randn(6, vocab_size, dtype=tx.float64) * scale)

    def room(self, length: int) -> int | None:
        return None

    def start(
        self,
        ids: tx.Tensor,
        lengths: tx.Tensor | None = None,
        *,
        max_new_tokens: int,
        beam: int = 1,
    ) -> Start:
        known = (ids != self.config.pad_id).unsqueeze(-1)
        h = repeated(self.words.index_select(0, ids.reshape(-1)).reshape(*ids.shape, 6), 1)
        h = repeated((h * known).sum(1).tanh(), beam)
        first = tx.zeros(h.shape[0], dtype=tx.int64)
        return Start(Memory(h, tx.zeros(beam)), first, tx.tensor(0))

    def step(self, state: Memory, ids: tx.Tensor, position: tx.Tensor) -> tx.Tensor:
        h = (state.h @ self.mix + self.words.index_select(0, ids)).tanh()
        state.h.assign(h)
        return h @ self.out

    def log_probs(self, source: list[int]) -> LogProbs:
        """The same without a state, in NumPy."""
        mix, words, out = (p.detach().numpy() for p in (self.mix, self.words, self.out))
        begin = np.tanh(words[[token for token in source if token]].sum(0))

        def of(prefixes: list[list[int]]) -> Array:
            h = np.tile(begin, (len(prefixes), 1))
            for tokens in zip(*([0, *prefix] for prefix in prefixes), strict=True):
                h = np.tanh(h @ mix + words[list(tokens)])
            logits = h @ out
            return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

        return of
