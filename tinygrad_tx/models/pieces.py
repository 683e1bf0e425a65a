"""Tokenizers of models that SentencePiece has cut: T5's, Llama's, and Marian's, which has a model
for either language and numbers of its own.

In: files of a directory. Out: tokenizers. Called by pretrained_tokenizer.py. They need the library
`sentencepiece`, which the extra of that name brings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import UserError
from .pretrained_tokenizer import PretrainedTokenizer

_SENTINELS = re.compile(r"(<extra_id_\d+>)")
_LANGUAGE = re.compile(r">>[^<>]+<<")


def _processor(file: Path) -> Any:
    """SentencePiece with a model."""
    try:
        import sentencepiece
    except ImportError:
        raise UserError(
            f"{file} needs the library sentencepiece: pip install 'tinygrad_tx[sentencepiece]'"
        ) from None
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{file} is damaged or no model of SentencePiece: {error}") from None


def _copy(file: Path, beside: Path) -> None:
    """A file of the same name beside another one, whole or not at all."""
    atomic.write_bytes(beside.with_name(file.name), file.read_bytes())


class PieceTokenizer(PretrainedTokenizer):
    """One model for all texts. T5's ends texts with eos_id and has sentinels, <extra_id_0> and on,
    at the end of the vocabulary; Llama's begins them with bos_id."""

    def __init__(self, file: Path, config: Any) -> None:
        super().__init__(config)
        self._file, self._core = file, _processor(file)
        size = self._core.get_piece_size()
        ends = file.name == "spiece.model"
        self._sentinels = min(max(self.vocab_size - size, 0), 100) if ends else 0
        self._last = size + self._sentinels - 1  # the id of <extra_id_0>
        self._before = [] if ends or self.bos_id is None else [self.bos_id]
        self._after = [self.eos_id] if ends and self.eos_id is not None else []

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        ids: list[int] = []
        for part in _SENTINELS.split(text) if self._sentinels else [text]:
            number = int(part[10:-1]) if self._sentinels and _SENTINELS.fullmatch(part) else -1
            if 0 <= number < self._sentinels:
                ids.append(self._last - number)
            elif part:
                ids += self._core.encode(part)
        return [*self._before, *ids, *self._after] if special else ids

    def decode(self, ids: Iterable[int]) -> str:
        special = {self.pad_id, self.bos_id, self.eos_id}
        size = self._core.get_piece_size()
        text: str = self._core.decode([i for i in ids if i < size and i not in special])
        return text

    def tokens(self, ids: Iterable[int]) -> list[str]:
        size = self._core.get_piece_size()
        return [
            self._core.id_to_piece(i) if i < size else f"<extra_id_{self._last - i}>" for i in ids
        ]

    def dumps(self) -> str:
        return sha256(self._core.serialized_model_proto()).hexdigest()

    def save(self, path: Path | str) -> None:
        _copy(self._file, Path(path))


class MarianTokenizer(PretrainedTokenizer):
    """A model of SentencePiece for either language, and one vocabulary of pieces for both. A text
    may begin with a language, `>>fra<<`, for models that translate into several."""

    def __init__(self, root: Path, config: Any, cutter: Any = None) -> None:
        """cutter: the model that cuts texts; None: that of the source."""
        super().__init__(config)
        self._root, self._config = root, config
        self._source, self._target = (_processor(root / f"{s}.spm") for s in ("source", "target"))
        self._cutter = cutter or self._source
        try:
            found = json.loads((root / "vocab.json").read_text(encoding="utf-8"))
            self._ids = {str(piece): int(i) for piece, i in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            raise UserError(f"{root / 'vocab.json'} holds no vocabulary") from None
        self._pieces = {i: piece for piece, i in self._ids.items()}
        self._unknown: int = self._ids.get("<unk>", self.pad_id or 0)

    @property
    def target(self) -> MarianTokenizer:
        """That which cuts as the target's model does."""
        return MarianTokenizer(self._root, self._config, self._target)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        pieces, language = [], _LANGUAGE.match(text)
        if language:
            pieces, text = [language[0]], text[language.end() :].strip()
        pieces += self._cutter.encode(text, out_type=str)
        ids: list[int] = [self._ids.get(piece, self._unknown) for piece in pieces]
        return [*ids, self.eos_id] if special and self.eos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        special = {self.pad_id, self.bos_id, self.eos_id}
        pieces = [self._pieces[i] for i in ids if i in self._pieces and i not in special]
        text: str = self._target.decode_pieces(pieces)
        return text

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._pieces.get(i, "?") for i in ids]

    def dumps(self) -> str:
        models = (self._source, self._target)
        parts = [model.serialized_model_proto() for model in models]
        return sha256(b"".join(parts) + json.dumps(self._ids).encode()).hexdigest()

    def save(self, path: Path | str) -> None:
        for name in ("source.spm", "target.spm", "vocab.json"):
            _copy(self._root / name, Path(path))
