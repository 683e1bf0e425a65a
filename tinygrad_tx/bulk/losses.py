"""The loss of a model of language over a text as bulk work. In: the windows that a text is cut
into. Out: sums of losses and tokens. Called by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..compiler import compile
from ..data.windows import WindowBatch, Windows
from ..errors import UserError
from ..models.bert import BERT
from ..models.language_model import LanguageModel
from ..nn.module import evaluating
from ..tensor import no_grad
from ..training.tasks.language import Losses, tensors
from ..training.tasks.masked import windows_of
from ..training.texts import text_of, tokenised
from .chunks import Chunk, Do, Result
from .model import ModelAt

_LONGEST = 1024  # tokens of a window
_TOKENS = 4096  # in a batch


@dataclass(frozen=True)
class Measuring:
    """For each chunk the sum of its tokens' losses, and how many these are. A chunk is one batch of
    windows: sums then are added up in the same order by any number of processes."""

    model: ModelAt

    def open(self) -> Do:
        return self.using(self.model.load()[0])

    def using(self, model: Any) -> Do:
        """The function that does it with a model that has been read."""
        loss = compile(lambda *batch: model.loss(*batch))

        def do(chunk: Chunk) -> Result:
            (batch,) = chunk.rows
            with self.model.computing(), evaluating(model.modules()), no_grad():
                total = loss(*tensors(batch)).item() * batch.n_tokens
            return Result("", (total, batch.n_tokens))

        return do


class Windowed:
    """A text as the windows that a model's loss is measured on; each is read by itself."""

    def __init__(
        self, model: Any, tokenizer: Any, file: str, columns: str | None, length: int | None
    ) -> None:
        """length: tokens of a window; None: as many as the model has positions for, 1,024 at most.
        UserError for a model of another task, and for a text that is too short."""
        _require_measurable(model, tokenizer)
        text = tokenised(text_of(file, columns), tokenizer)
        length = length or min(model.config.n_positions, _LONGEST)
        rows = max(1, _TOKENS // length)
        self._windows = (
            windows_of(text, tokenizer, length, rows, 0, only_once=True)
            if isinstance(model, BERT)
            else Windows(text, length, rows, 0, only_once=True)
        )
        if not any(batch.n_tokens for batch in self._windows.once()):
            raise UserError(f"{file} has {len(text.ids)} tokens, too few to be measured")

    def __iter__(self) -> Iterator[WindowBatch]:
        return iter(self._windows.once())

    def losses(self, sums: Sequence[float]) -> Losses:
        """What the sums of all batches say of the text."""
        total, n_tokens = sums
        return Losses(total / max(n_tokens, 1), int(n_tokens), self._windows.text.n_bytes)


def _require_measurable(model: Any, tokenizer: Any) -> None:
    if not isinstance(model, (BERT, LanguageModel)):
        raise UserError(
            f"a {type(model).__name__} translates: evaluate it with --src FILE and --ref FILE"
        )
    if isinstance(model, BERT) and model.mlm is None:
        raise UserError("the model has no head for masked words, so there is no loss to measure")
    if tokenizer is None:
        raise UserError("the model has no tokenizer, so no ids can be made of a text")
