"""Lines of text as vectors, by an encoder such as BERT: those of similar meaning are near each
other, where the model was trained for that.

In: lines, with a BERT and its tokenizer. Out: a vector of length 1 for each, the mean of its
tokens'. Called by the command line and users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler import compile
from ..creation import tensor
from ..data import by_length
from ..errors import UserError
from ..models.bert import BERT
from ..nn.module import evaluating
from ..tensor import Tensor, no_grad
from .loop import round_up as round_rows
from .owned import Owned, alive

_STEP = 16  # lengths of batches are multiples of this, or of an eighth of themselves
_LEAST = 1e-12  # of a norm, and of a number of tokens


@dataclass(frozen=True)
class Embedder:
    """A BERT and its tokenizer. embedder(lines) -> float32 (n, D).

    max_len: the most tokens of a line, of which the rest is not looked at; None: as many as the
    model was made for. max_tokens: in a batch, padding included.
    """

    model: BERT
    tokenizer: Any
    max_len: int | None = None
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if not isinstance(self.model, BERT):
            raise UserError(
                f"embed: the model must be an encoder, a BERT, not a {type(self.model).__name__}"
            )
        if self.tokenizer is None:
            raise UserError("embed: the model has no tokenizer, which turns lines into ids")

    def __call__(self, lines: Sequence[str]) -> NDArray[np.float32]:
        """The vector of each line: the mean of its tokens' vectors, divided by its length."""
        if isinstance(lines, str):
            raise TypeError("embed: lines must be a list of str, not one str: write [text]")
        config = self.model.config
        own = self.max_len or getattr(self.tokenizer, "max_len", None)
        longest = min(config.max_len, own or config.max_len)
        rows = [self._fitted(ids, longest) for ids in self.tokenizer.encode_batch(list(lines))]
        found = np.zeros((len(rows), config.d_model), np.float32)
        run, device = _Pooled.of(self.model).run, next(self.model.parameters()).device
        with evaluating(self.model.modules()), no_grad():
            lengths = [round_up(len(row), longest) for row in rows]
            for group in by_length(lengths, self.max_tokens):
                width = max(lengths[i] for i in group)
                full = max(1, self.max_tokens // width)
                n = len(group) if len(group) == full else min(round_rows(len(group)), full)
                ids = np.full((n, width), config.pad_id, np.int64)
                mask = np.zeros((n, width), np.bool_)
                for at, i in enumerate(group):
                    ids[at, : len(rows[i])] = rows[i]
                    mask[at, : len(rows[i])] = True
                given = (tensor(array, device=device) for array in (ids, mask))
                found[group] = run(*given).numpy()[: len(group)]
        return found

    def _fitted(self, ids: list[int], longest: int) -> list[int]:
        """ids of which no more are taken than fit; the last one, which ends the text, stays."""
        return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]


def round_up(length: int, longest: int) -> int:
    """A length as one of few, so that there are few plans."""
    step = max(_STEP, 1 << max(length.bit_length() - 3, 0))
    return min(-(-max(length, 1) // step) * step, longest)


class _Pooled(Owned):
    """A model's compiled function."""

    def __init__(self, model: BERT) -> None:
        super().__init__(model)
        owner = self.model

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            x = alive(owner)(ids, mask)  # (B, T, D)
            counts = mask.to(x.dtype).unsqueeze(-1)  # (B, T, 1)
            mean = (x * counts).sum(1) / counts.sum(1).clip(min=_LEAST)
            norm = (mean * mean).sum(-1, keepdim=True).sqrt().clip(min=_LEAST)
            found: Tensor = mean / norm
            return found

        self.run = compile(run)
