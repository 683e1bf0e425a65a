"""Text to token ids and back: byte-level BPE, words or characters, by the `tokenizers` library.

In: text. Out: lists of ids, and text again. `train` makes a tokenizer from a corpus and saves it
with the model as tokenizer.json; `translate` and everything else loads it from there.

All three kinds cut text the same way first: a word with the space before it, single digits, single
punctuation marks. So a piece never spans words, its leading space says where words begin, and
joining pieces gives the text back. One space is put before every text, for a first word to be the
same piece as one in the middle, and taken off again in decoding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self, get_args

import numpy as np
from numpy.typing import NDArray

from . import atomic, vocabulary
from .errors import UserError
from .vocabulary import SPECIALS, Kind

if TYPE_CHECKING:
    import tokenizers

PAD, BOS, EOS, UNK = range(4)
_LARGEST = 2**22  # vocabulary
UNKNOWN = "⁇"
MASK = "[MASK]"


Ints = NDArray[np.int32]
Indices = NDArray[np.int64]


class Tokenizer:
    """A trained tokenizer. Ids 0 to 3 are padding, start, end and unknown; no text encodes to the
    first three, whatever it spells."""

    pad_id, bos_id, eos_id, unk_id = PAD, BOS, EOS, UNK
    mask_id: int | None = None  # it has no token for words that are to be guessed

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        """Wrap the library's tokenizer; use `train` or `load`."""
        self._core = core
        self._spaced = bool(core.normalizer) and core.normalizer.normalize_str("x") == " x"
        self.vocab_size = core.get_vocab_size()
        self._words: _Words | None = None

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        kind: Kind = "bpe",
        vocab_size: int = 8000,
        lowercase: bool = False,
        min_frequency: int = 2,
        counted: vocabulary.Counted = lambda n: None,
    ) -> Self:
        """Learn a vocabulary from texts, read once; the same texts give the same tokenizer.

        `vocab_size` is the most it may hold, specials included; `min_frequency` how often a piece
        must occur to be in it. `counted` is told now and then how many texts have been read. Raises
        UserError for an unknown kind or too small a size.
        """
        if kind not in get_args(Kind):
            raise UserError(f"unknown tokenizer {kind!r}; choose from {', '.join(get_args(Kind))}")
        smallest = len(SPECIALS) + (256 if kind == "bpe" else 1)
        if vocab_size < smallest:
            raise UserError(
                f"vocab_size {vocab_size} is too small: {kind} needs {smallest} or more"
            )
        if vocab_size > _LARGEST:  # the library takes memory for all of them first
            raise UserError(f"vocab_size {vocab_size} is too large: the most is {_LARGEST}")
        return cls(vocabulary.learn(texts, kind, vocab_size, lowercase, min_frequency, counted))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tokenizer.json that `save` wrote. Raises UserError if it is missing, damaged or of
        another making."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"cannot read the tokenizer {path}: {reason}") from error
        try:
            core = vocabulary.package().Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path} is damaged or no tokenizer: {error}") from error
        if [core.token_to_id(token) for token in SPECIALS] != [PAD, BOS, EOS, UNK]:
            raise UserError(
                f"{path} is of another program: ids 0 to 3 must be {' '.join(SPECIALS)}"
            )
        return cls(core)

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, whole or not at all."""
        atomic.write_bytes(path, self.dumps().encode())

    def dumps(self) -> str:
        """The text that `save` writes."""
        return self._core.to_str(pretty=True)

    def masked(self, mask_id: int) -> Self:
        """The same with a token for words that are to be guessed, `[MASK]`, behind all others."""
        if mask_id != self.vocab_size:
            return self
        found = self.loads(self.dumps())
        found._core.add_special_tokens([MASK])
        found.mask_id = mask_id
        return found

    @classmethod
    def loads(cls, text: str) -> Self:
        """The tokenizer of which `dumps` gave the text."""
        return cls(vocabulary.package().Tokenizer.from_str(text))

    @property
    def frame(self) -> tuple[int, ...]:
        """The two tokens that models of whole texts expect around one."""
        return BOS, EOS

    @property
    def target(self) -> Self:
        """The tokenizer of the language that is translated into: the same."""
        return self

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of one text; special: with the end token, as models that translate read it."""
        ids: list[int] = self._core.encode(text).ids
        return [*ids, EOS] if special else ids

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """The ids of each text."""
        end = [EOS] if special else []
        with vocabulary.parallel(sum(map(len, texts))):
            return [encoding.ids + end for encoding in self._core.encode_batch_fast(list(texts))]

    def encode_flat(self, texts: Sequence[str]) -> tuple[Ints, Indices]:
        """The ids of all texts one after another, and how many each text has. The quick way for
        much text: a word that has been seen is not cut into pieces again."""
        if self._words is None:
            self._words = _Words(self)
        return self._words.encode(texts)

    def words(self) -> vocabulary.Words | None:
        """The rule by which texts may be cut before they are encoded; None for a tokenizer of
        another making."""
        steps = ("normalizer", "pre_tokenizer")
        own = json.loads(self._core.to_str())
        for kind in get_args(Kind):
            for lowercase in (False, True):
                made = json.loads(vocabulary.pipeline(kind, lowercase).to_str())
                if [own[step] for step in steps] == [made[step] for step in steps]:
                    return vocabulary.Words(kind != "char")
        return None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, as it is written. Padding, start and end are left out; unknown words and
        characters show as ⁇, broken UTF-8 as U+FFFD."""
        runs: list[list[int]] = [[]]
        for token in ids:
            if token == UNK:
                runs.append([])
            elif token not in (PAD, BOS, EOS):
                runs[-1].append(token)
        unknown = f" {UNKNOWN}" if self._spaced else UNKNOWN
        text = unknown.join(self._core.decode(run) for run in runs)
        return text.removeprefix(" ") if self._spaced else text

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One readable piece for each id, for pictures: `·` marks a piece that goes on a word, `␣`
        stands for white space."""
        pieces: list[str] = []
        in_word = False
        for token in ids:
            if token == self.mask_id:
                text = MASK
            else:
                text = SPECIALS[token] if token < len(SPECIALS) else self._core.decode([token])
            goes_on = self._spaced and in_word and text[:1].isalnum()
            in_word = token >= len(SPECIALS) and text[-1:].isalnum()
            pieces.append("·" + text if goes_on else text.strip() or "␣")
        return pieces


class _Words(dict[str, int]):
    """The ids of words that have been seen; forgotten when they become too many. As a dictionary,
    the number of each word: its ids are `flat[starts[number]:][:lengths[number]]`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._cut = tokenizer.words()
        self._forget()

    def _forget(self) -> None:
        self.clear()
        self._new: list[str] = []
        self._flat: Ints = np.empty(0, np.int32)
        self._lengths: Indices = np.empty(0, np.int64)
        self._starts = self._lengths
        self._characters = 0

    def __missing__(self, word: str) -> int:
        self._new.append(word)
        number = self[word] = len(self)
        return number

    def encode(self, texts: Sequence[str]) -> tuple[Ints, Indices]:
        if self._cut is None:
            rows = self._tokenizer.encode_batch(texts)
            return joined(rows)
        if len(self) > _MAX_WORDS or self._characters > _MAX_WORD_CHARACTERS:
            self._forget()
        words = self._cut.cut(texts)
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        self._learn()
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        places = np.repeat(self._starts[numbers] - (ends - lengths), lengths) + np.arange(total)
        last = np.cumsum([self._cut.count(text) for text in texts], dtype=np.int64)
        edges = np.concatenate([[0], ends])[np.concatenate([[0], last]).astype(np.int64)]
        return self._flat[places], np.diff(edges)

    def _learn(self) -> None:
        """The ids of the words that were new."""
        if not self._new:
            return
        rows = self._tokenizer.encode_batch(self._new)
        assert self._cut is not None
        if self._cut.spaced and "" in self._new:  # only the space before it, of which " " has two
            rows[self._new.index("")] = self._tokenizer.encode(" ")[1:]
        flat, lengths = joined(rows)
        self._flat = np.concatenate([self._flat, flat])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._characters += sum(map(len, self._new))
        self._new = []


_MAX_WORDS = 300_000
_MAX_WORD_CHARACTERS = 8_000_000


def joined(rows: Sequence[Sequence[int]]) -> tuple[Ints, Indices]:
    """Lists of ids one after another, and how many each has."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
    return ids, lengths
