"""The tokenizers that pretrained models come with: tokenizer.json by the `tokenizers` library, and
models of SentencePiece by the library of that name (the extra `sentencepiece`).

In: a directory. Out: ids of texts, and texts of ids. Called by pretrained.py. The interface is that
of tokenizer.Tokenizer, which makes tokenizers of our own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import atomic, vocabulary
from ..errors import UserError


class PretrainedTokenizer(ABC):
    """pad_id, bos_id, eos_id: those of the model, None where it has none. vocab_size: of the
    model."""

    def __init__(self, config: Any) -> None:
        self.vocab_size: int = config.vocab_size
        self.pad_id, self.bos_id, self.eos_id = (
            getattr(config, name, None) for name in ("pad_id", "bos_id", "eos_id")
        )

    @staticmethod
    def of(root: Path, config: Any) -> PretrainedTokenizer | None:
        """The tokenizer of a directory; None where there is none."""
        if (root / "tokenizer.json").exists():
            return _Fast(root / "tokenizer.json", config)
        if (root / "source.spm").exists() and (root / "vocab.json").exists():
            from .pieces import MarianTokenizer

            return MarianTokenizer(root, config)
        for name in ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model"):
            if (root / name).exists():
                from .pieces import PieceTokenizer

                return PieceTokenizer(root / name, config)
        return None

    @abstractmethod
    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; special: with the tokens that the model expects around it."""

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """The ids of each text."""
        return [self.encode(text, special=special) for text in texts]

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without special tokens."""

    @abstractmethod
    def save(self, path: Path | str) -> None:
        """Write it to a file, whole or not at all."""


class _Fast(PretrainedTokenizer):
    def __init__(self, file: Path, config: Any) -> None:
        super().__init__(config)
        try:
            self._core = vocabulary.package().Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file} is damaged or no tokenizer: {error}") from None
        self._core.no_padding()
        self._core.no_truncation()

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        found: list[int] = self._core.encode(text, add_special_tokens=special).ids
        return found

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        found = self._core.encode_batch_fast(list(texts), add_special_tokens=special)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._core.decode(list(ids), skip_special_tokens=True)
        return text

    def save(self, path: Path | str) -> None:
        atomic.write_bytes(path, self._core.to_str(pretty=True).encode())
