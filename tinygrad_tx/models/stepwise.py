"""Stepwise: the two things that decoding asks of a model: to start on some sentences, and to go on
by one token at a time.

GPT and the models that translate are `Stepwise`. A search over B sentences with `beam` hypotheses
each works on N = B * beam rows, those of a sentence side by side:

    state, ids, position = model.start(sources, max_new_tokens=64, beam=4)
    while ...:
        logits = model.step(state, ids, position)       # (N, V): what may follow
        ids = ...                                        # (N,): the tokens chosen
        state.reorder(rows)                              # (N,): row i goes on from row rows[i]
        position = position + 1

A state is a tuple of Tensors whose shapes do not change, and step() changes them in place: a
compiled step that takes state, ids and position as arguments is traced once. Dropout is the
caller's business: model.eval() first.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ..creation import arange
from ..tensor import Tensor


class State(Protocol):
    """A model's decoding state of N = B * beam rows."""

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place. rows: (N,); each must be of the
        same sentence as i."""

    def keep(self, sentences: Tensor) -> State:
        """A new state of these sentences (B',) alone, with all of their rows."""


class Start(NamedTuple):
    """The arguments of the first step()."""

    state: State
    ids: Tensor  # (N,): the start token, or the last one of each prompt
    position: Tensor  # 0-d int64: the place of ids


class Stepwise(Protocol):
    """A model that can be decoded."""

    padding_side: str  # "right" or "left": where the rows of ids that start() takes are padded

    def room(self, length: int) -> int | None:
        """The number of new tokens that may follow a source or prompt of that length, 0 or less
        where it is too long by itself; None: any number."""

    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        """Read sources or prompts. ids: int (B, S); lengths: int (B,), the tokens of each row that
        are no padding."""

    def step(self, state: Any, ids: Tensor, position: Tensor) -> Tensor:
        """The logits (N, V) of the tokens after ids (N,) at a 0-d position. state: of its
        start()."""


def repeated(x: Tensor, times: int) -> Tensor:
    """Each row of x `times` times, side by side."""
    return x.index_select(0, arange(x.shape[0] * times, device=x.device) // times)


def rows_of(sentences: Tensor, beam: int) -> Tensor:
    """The numbers of the rows (B' * beam,) that belong to sentences (B',)."""
    return (sentences.unsqueeze(1) * beam + arange(beam, device=sentences.device)).reshape(-1)
