"""The tokenizers that pretrained models come with: tokenizer.json by the `tokenizers` library, and
models of SentencePiece by the library of that name (the extra `sentencepiece`).

In: a directory. Out: ids of texts, and texts of ids. Called by pretrained.py and loading.py. The
interface is that of tokenizer.Tokenizer, which makes tokenizers of our own.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import atomic, vocabulary
from ..errors import UserError
from ..tokenizer import joined

# What a directory may have its tokenizer in.
FILES = (
    "tokenizer.json", "source.spm", "target.spm", "vocab.json", "spiece.model",
    "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
_MASKS = ("[MASK]", "<mask>")


class PretrainedTokenizer(ABC):
    """pad_id, bos_id, eos_id: those of the model, None where it has none. vocab_size: of the
    model. mask_id: the token of words that are to be guessed, None where there is none. max_len:
    the most tokens of a text that a sentence encoder was made for, None where nothing says so."""

    mask_id: int | None = None
    max_len: int | None = None

    def __init__(self, config: Any) -> None:
        self.vocab_size: int = config.vocab_size
        self.pad_id, self.bos_id, self.eos_id = (
            getattr(config, name, None) for name in ("pad_id", "bos_id", "eos_id")
        )

    @staticmethod
    def of(root: Path, config: Any) -> PretrainedTokenizer | None:
        """The tokenizer of a directory; None where there is none."""
        found = PretrainedTokenizer._of(root, config)
        limit = root / "sentence_bert_config.json"
        if found is not None and limit.exists():
            try:
                most = json.loads(limit.read_text(encoding="utf-8")).get("max_seq_length")
            except (OSError, ValueError, AttributeError):
                raise UserError(f"{limit} holds no configuration") from None
            found.max_len = most if isinstance(most, int) and most > 1 else None
        return found

    @staticmethod
    def _of(root: Path, config: Any) -> PretrainedTokenizer | None:
        if (root / "tokenizer.json").exists():
            return _Fast(root / "tokenizer.json", config)
        if (root / "source.spm").exists() and (root / "vocab.json").exists():
            from .pieces import MarianTokenizer

            return MarianTokenizer(root, config)
        for name in FILES[-3:]:
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

    @property
    def target(self) -> PretrainedTokenizer:
        """The tokenizer of the language that is translated into."""
        return self

    def encode_flat(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of all texts one after another, without special tokens, and how many each has."""
        return joined(self.encode_batch(texts, special=False))

    @property
    def frame(self) -> tuple[int, ...]:
        """The two tokens that the model expects around a text, if it does."""
        found = self.encode("", special=True)
        return tuple(found) if len(found) == 2 else ()

    @abstractmethod
    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One readable piece for each id, for pictures."""

    @abstractmethod
    def dumps(self) -> str:
        """A text that differs where tokenizers do."""

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
        found = [self._core.token_to_id(mask) for mask in _MASKS]
        self.mask_id = next((i for i in found if i is not None), None)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        found: list[int] = self._core.encode(text, add_special_tokens=special).ids
        return found

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        found = self._core.encode_batch_fast(list(texts), add_special_tokens=special)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Iterable[int]) -> str:
        special = {self.pad_id, self.bos_id, self.eos_id}
        found = [i for i in ids if i not in special]
        text: str = self._core.decode(found, skip_special_tokens=True)
        return text

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._piece(i) for i in ids]

    def _piece(self, token: int) -> str:
        """A piece as letters, where it is written by its bytes, each of which has a letter."""
        piece: str = self._core.id_to_token(token) or "?"
        if piece.isascii() or type(self._core.decoder).__name__ != "ByteLevel":
            return piece
        text: str = self._core.decode([token], skip_special_tokens=False)
        if not text.strip() or "\ufffd" in text:  # white space, and a part of a letter
            return piece
        return f"Ġ{text[1:]}" if text[0] == " " else text

    def dumps(self) -> str:
        text: str = self._core.to_str(pretty=True)
        return text

    def save(self, path: Path | str) -> None:
        atomic.write_bytes(path, self.dumps().encode())
