"""Token ids of lines as bulk work. In: lines. Out: a line of ids, or of pieces, for each. Called by
`tokenize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.loading import CONFIG, directory_of, is_pretrained, read_toml, tokenizer_of
from .chunks import Chunk, Do, Result
from .model import ModelAt


@dataclass(frozen=True)
class Tokenising:
    """Ids with spaces between. pieces: what each id stands for, instead. special: with the tokens
    that the model reads around a text. target: of the language that is translated into."""

    model: ModelAt
    pieces: bool = False
    special: bool = False
    target: bool = False

    def open(self) -> Do:
        tokenizer = self._tokenizer()
        if tokenizer is None:
            raise UserError(f"{self.model.path} has no tokenizer, so no ids can be made of a text")
        if self.target:
            tokenizer = tokenizer.target

        def do(chunk: Chunk) -> Result:
            rows = tokenizer.encode_batch(chunk.rows, special=self.special)
            shown = (self._pieces(tokenizer, row) if self.pieces else map(str, row) for row in rows)
            return Result("".join(f"{' '.join(row)}\n" for row in shown))

        return do

    def _pieces(self, tokenizer: Any, row: list[int]) -> list[str]:
        """As many as there are ids: what is white space in one would be taken for what is between
        two."""
        return ["".join("␣" if c.isspace() else c for c in s) for s in tokenizer.tokens(row)]

    def _tokenizer(self) -> Any:
        path = Path(self.model.path)
        if is_pretrained(path):  # how it reads a text hangs on the model's settings
            return self.model.load()[1]
        self.model.check()
        root = directory_of(path)
        return tokenizer_of(root, read_toml(root / CONFIG).get("tokenizer"))
