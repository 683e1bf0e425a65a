"""How probable a model finds given translations: what reranking and the cleaning of corpora ask.

In: pairs of lines, with a model that translates and its tokenizer. Out: a Score for each pair.
Called by the command line and users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler import compile
from ..creation import tensor
from ..data import by_length
from ..dtypes import float32
from ..errors import UserError
from ..models.encoder_decoder import EncoderDecoder
from ..nn import functional as F  # noqa: N812
from ..nn.module import evaluating
from ..tensor import Tensor, no_grad
from .loop import round_up
from .owned import Owned, alive


class Score(NamedTuple):
    """log_prob: the sum of the natural log-probabilities of a text's tokens, each after all before
    it, the end token's included; n_tokens: how many these are."""

    log_prob: float
    n_tokens: int


@dataclass(frozen=True)
class Scorer:
    """A model that translates, and its tokenizer. scorer(pairs) -> a Score for each pair of a
    source and its translation.

    max_tokens: in a batch, of sources and of translations, padding included. A score does not
    depend on what else is scored with it.
    """

    model: EncoderDecoder
    tokenizer: Any
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        if not isinstance(self.model, EncoderDecoder):
            raise UserError(
                f"score: the model must be one that translates, not a {type(self.model).__name__}; "
                "`tinygrad-tx evaluate --text` measures a model of language"
            )
        if self.tokenizer is None:
            raise UserError("score: the model has no tokenizer, so no ids can be made of a text")

    def __call__(self, pairs: Sequence[tuple[str, str]], first_line: int = 1) -> list[Score]:
        """The score of each pair. first_line: the number of pairs[0] in messages. UserError for a
        source or a translation that is longer than the model was made for."""
        config = self.model.config
        sources = self.tokenizer.encode_batch([source for source, _ in pairs], special=True)
        texts = self.tokenizer.target.encode_batch([text for _, text in pairs], special=False)
        targets = [[*text, config.eos_id] for text in texts]
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            self._check(i + first_line, source, target)
        lengths = [
            round_up(max(len(source), len(target)))
            for source, target in zip(sources, targets, strict=True)
        ]
        found: list[Score] = [Score(0.0, 0)] * len(targets)
        with evaluating(self.model.modules()), no_grad():
            for batch in by_length(lengths, self.max_tokens):
                rows = self._losses([sources[i] for i in batch], [targets[i] for i in batch])
                for i, row in zip(batch, rows, strict=False):  # rows of padding come after
                    n = len(targets[i])
                    found[i] = Score(-float(row[:n].sum(dtype=np.float64)), n)
        return found

    def _losses(
        self, sources: Sequence[list[int]], targets: Sequence[list[int]]
    ) -> NDArray[np.float32]:
        """The cross-entropy of each token of each target (rows, T), rows and T rounded up."""
        config = self.model.config
        rows = round_up(len(sources))
        device = next(self.model.parameters()).device
        shapes = [(rows, self._width(max(map(len, ids)))) for ids in (sources, targets)]
        src = np.full(shapes[0], config.pad_id, np.int64)
        src[:, 0] = config.eos_id  # no row without a token
        tgt_in = np.full(shapes[1], config.pad_id, np.int64)
        tgt_in[:, 0] = config.bos_id
        tgt_out = np.zeros(shapes[1], np.int64)
        for at, (source, target) in enumerate(zip(sources, targets, strict=True)):
            src[at, : len(source)] = source
            tgt_in[at, 1 : len(target)] = target[:-1]
            tgt_out[at, : len(target)] = target
        given = (tensor(array, device=device) for array in (src, tgt_in, tgt_out))
        found: NDArray[np.float32] = _Forced.of(self.model).run(*given).numpy()
        return found

    def _width(self, length: int) -> int:
        """A length as one of few, where the model has positions for it."""
        found: int = max(length, min(round_up(length), self.model.config.max_len))
        return found

    def _check(self, line: int, source: Sequence[int], target: Sequence[int]) -> None:
        longest, room = self.model.config.max_len, self.model.room(len(source))
        for what, length, most in (
            ("source", len(source), longest),
            ("translation", len(target), longest if room is None else min(room, longest)),
        ):
            if length > most:
                raise UserError(
                    f"line {line}: its {what} has {length} tokens, of which the model takes "
                    f"{most}; put its sentences on lines of their own"
                )


class _Forced(Owned):
    """A model's compiled function."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__(model)
        owner = self.model

        def run(src: Tensor, tgt_in: Tensor, tgt_out: Tensor) -> Tensor:
            logits = alive(owner)(src, tgt_in).to(float32)  # (B, T, V)
            rows = logits.reshape(-1, logits.shape[-1])
            losses = F.cross_entropy(rows, tgt_out.reshape(-1), reduction="none")
            found: Tensor = losses.reshape(*tgt_out.shape)
            return found

        self.run = compile(run)
