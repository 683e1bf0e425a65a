"""Text to token ids and back: byte-level BPE, words or characters, by the `tokenizers` library.

Comes in: text. Goes out: lists of ids, and text again. `train` makes a tokenizer from a corpus and
saves it with the model as tokenizer.json; `translate` and everything else loads it from there.

All three kinds cut text the same way first: a word with the space before it, single digits, single
punctuation marks. So a piece never spans words, its leading space says where words begin, and
joining pieces gives the text back. One space is put before every text, for a first word to be the
same piece as one in the middle, and taken off again in decoding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Self, get_args

from tinygrad_tx import atomic
from tinygrad_tx.errors import UserError

if TYPE_CHECKING:
    import tokenizers

Kind = Literal["bpe", "word", "char"]

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
UNKNOWN = "⁇"
_WORDS = r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"
_CHARACTERS = r"[\s\S]"


class Tokenizer:
    """A trained tokenizer. Ids 0 to 3 are padding, start, end and unknown; no text encodes to the
    first three, whatever it spells."""

    pad_id, bos_id, eos_id, unk_id = PAD, BOS, EOS, UNK

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        """Wrap the library's tokenizer; use `train` or `load`."""
        self._core = core
        self._spaced = bool(core.normalizer) and core.normalizer.normalize_str("x") == " x"
        self.vocab_size = core.get_vocab_size()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        kind: Kind = "bpe",
        vocab_size: int = 8000,
        lowercase: bool = False,
        min_frequency: int = 2,
    ) -> Self:
        """Learn a vocabulary from texts, read once; the same texts give the same tokenizer.

        `vocab_size` is the most it may hold, specials included; `min_frequency` how often a piece
        must occur to be in it. Raises UserError for an unknown kind or too small a size.
        """
        if kind not in get_args(Kind):
            raise UserError(f"unknown tokenizer {kind!r}; choose from {', '.join(get_args(Kind))}")
        smallest = len(SPECIALS) + (256 if kind == "bpe" else 1)
        if vocab_size < smallest:
            raise UserError(
                f"vocab_size {vocab_size} is too small: {kind} needs {smallest} or more"
            )
        core, trainer = _untrained(kind, vocab_size, lowercase, min_frequency)
        core.train_from_iterator(texts, trainer=trainer)
        # The library would find its special tokens inside texts; as plain entries of the vocabulary
        # they cannot be spelled, for "<" and letters are never one piece.
        state = json.loads(core.to_str())
        state["added_tokens"] = []
        return cls(_library().Tokenizer.from_str(json.dumps(state)))

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
            core = _library().Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path} is damaged or no tokenizer: {error}") from error
        if [core.token_to_id(token) for token in SPECIALS] != [PAD, BOS, EOS, UNK]:
            raise UserError(
                f"{path} is of another program: ids 0 to 3 must be {' '.join(SPECIALS)}"
            )
        return cls(core)

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, whole or not at all."""
        atomic.write_bytes(path, self._core.to_str(pretty=True).encode())

    def encode(self, text: str) -> list[int]:
        """The ids of one text, without start and end."""
        return self._core.encode(text).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        return [encoding.ids for encoding in self._core.encode_batch_fast(list(texts))]

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
            text = SPECIALS[token] if token < len(SPECIALS) else self._core.decode([token])
            goes_on = self._spaced and in_word and text[:1].isalnum()
            in_word = token >= len(SPECIALS) and text[-1:].isalnum()
            pieces.append("·" + text if goes_on else text.strip() or "␣")
        return pieces


def _library() -> ModuleType:
    """The `tokenizers` library, single-threaded unless the environment says otherwise: its threads
    do not survive a fork, and it warns of every one."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    return tokenizers


def _untrained(
    kind: Kind, vocab_size: int, lowercase: bool, min_frequency: int
) -> tuple[tokenizers.Tokenizer, tokenizers.trainers.Trainer]:
    _library()  # first, for its setting
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    cut = pre_tokenizers.Split(Regex(_CHARACTERS if kind == "char" else _WORDS), "isolated")
    trainer: tokenizers.trainers.Trainer
    steps: list[tokenizers.normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    if kind != "char":
        steps.append(normalizers.Prepend(" "))
    if kind == "bpe":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIALS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        core = Tokenizer(models.WordLevel({}, unk_token=SPECIALS[UNK]))
        core.pre_tokenizer, core.decoder = cut, decoders.Fuse()
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIALS),
            show_progress=False,
        )
    if steps:
        core.normalizer = normalizers.Sequence(steps)
    return core, trainer
