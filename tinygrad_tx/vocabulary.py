"""Learning a vocabulary. In: texts, streamed. Out: a tokenizer of the `tokenizers` library. Called
by tokenizer.py.

What a vocabulary is learnt from is how often each piece of text (see tokenizer.py) occurs. Pieces
never span a space, so texts are first cut at spaces and their words counted, which takes a tenth of
the time that the library takes to cut every occurrence of every word into pieces; then each
distinct word is cut once. The result is the library's own.

Memory is bounded, whatever the texts are: of more than MAX_PIECES different pieces the rarest are
forgotten, and of those that are left a vocabulary is learnt from as many of the most frequent as
have LEARNT characters.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import tokenizers

Kind = Literal["bpe", "word", "char"]
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")

MAX_PIECES = 500_000
MAX_PIECE_CHARACTERS = 8_000_000  # of all of them together
LEARNT = 3_000_000  # characters; training a BPE takes some 100 bytes of memory for each

_MAX_WORDS = 300_000
_MAX_WORD_CHARACTERS = 8_000_000
_CHUNK = 250_000  # characters of text that are handled at once
_RUN = 1000  # occurrences of a piece told to the library at once
_WORDS = r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"
_CHARACTERS = r"[\s\S]"
_SPACED = re.compile(r" ?[^ ]+| ")
_PARALLEL = "TOKENIZERS_PARALLELISM"
_THREADED = 20_000  # characters from which on several threads are worth their start

Counted = Callable[[int], None]  # told now and then how many texts have been read


class Words:
    """The cutting of texts at spaces, for a kind of tokenizer: into words that are cut into pieces
    independently of each other. Where one space is put before every text (all kinds but "char"),
    each word begins with a space, which is not written; elsewhere it is."""

    def __init__(self, spaced: bool) -> None:
        self.spaced = spaced

    def cut(self, texts: Sequence[str]) -> list[str]:
        """The words of texts one after another; none of an empty text."""
        if self.spaced:
            return " ".join(text for text in texts if text).split(" ") if any(texts) else []
        return [word for text in texts for word in _SPACED.findall(text)]

    def count(self, text: str) -> int:
        """The number of words that `cut` makes of a text."""
        if self.spaced:
            return text.count(" ") + 1 if text else 0
        return len(_SPACED.findall(text))


class PieceCounts:
    """The frequency of each piece in texts that are added."""

    def __init__(self, core: tokenizers.Tokenizer, words: Words) -> None:
        self._core, self._cut = core, words
        self._words: Counter[str] = Counter()
        self._characters = 0.0  # in the distinct words, about
        self.pieces: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        words = self._cut.cut(texts)
        if not words:
            return
        before = len(self._words)
        self._words.update(words)
        new = len(self._words) - before
        self._characters += new * sum(map(len, words)) / len(words)
        if len(self._words) > _MAX_WORDS or self._characters > _MAX_WORD_CHARACTERS:
            self.finish()

    def finish(self) -> None:
        """Cut the added texts into pieces."""
        normalizer, pre_tokenizer = self._core.normalizer, self._core.pre_tokenizer
        assert pre_tokenizer is not None
        for word, n in self._words.items():
            # A word of no letters is the space before it.
            text = normalizer.normalize_str(word) if normalizer and word else word or " "
            for piece, _ in pre_tokenizer.pre_tokenize_str(text):
                self.pieces[piece] += n
        self._words.clear()
        self._characters = 0.0
        rare = 0
        while len(self.pieces) > MAX_PIECES or (sum(map(len, self.pieces)) > MAX_PIECE_CHARACTERS):
            rare += 1
            self.pieces = Counter({p: n for p, n in self.pieces.items() if n > rare})


def learn(
    texts: Iterable[str],
    kind: Kind,
    vocab_size: int,
    lowercase: bool,
    min_frequency: int,
    counted: Counted,
) -> tokenizers.Tokenizer:
    """A tokenizer with the vocabulary of these texts."""
    core = pipeline(kind, lowercase)
    counts = PieceCounts(core, Words(kind != "char"))
    n = 0
    for chunk in chunks(texts):
        counts.add(chunk)
        n += len(chunk)
        counted(n)
    counts.finish()
    pieces = sorted(counts.pieces.items(), key=lambda item: (-item[1], item[0]))
    del counts
    state = json.loads(core.to_str())
    if kind == "bpe":
        state["model"] = _bpe(pieces, vocab_size, min_frequency, lambda: counted(n))
    else:
        frequent = [piece for piece, n in pieces if n >= min_frequency]
        entries = [*SPECIALS, *frequent][:vocab_size]
        state["model"]["vocab"] = {piece: i for i, piece in enumerate(entries)}
    return package().Tokenizer.from_str(json.dumps(state))  # type: ignore[no-any-return]


def _bpe(
    pieces: Sequence[tuple[str, int]],
    vocab_size: int,
    min_frequency: int,
    waiting: Callable[[], None],
) -> Any:
    """The model, as in tokenizer.json, that the library learns of pieces by their frequency."""
    package()
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")  # no piece has one: it is spelt Ġ
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    given_up = threading.Event()

    def occurrences() -> Iterator[str]:
        left = LEARNT
        for piece, n in pieces:
            left -= len(piece)
            if left < 0 or given_up.is_set():
                return
            for start in range(0, n, _RUN):
                yield f"{piece} " * min(_RUN, n - start)

    failed: list[BaseException] = []

    def train() -> None:
        try:
            core.train_from_iterator(occurrences(), trainer)
        except BaseException as error:
            failed.append(error)

    # The library does not look for signals, so it works beside the thread that does.
    work = threading.Thread(target=train, daemon=True)
    with parallel():
        try:
            work.start()
            while work.is_alive():
                work.join(0.2)
                waiting()
        except BaseException:
            given_up.set()
            raise
    if failed:
        raise failed[0]
    return json.loads(core.to_str())["model"]


def pipeline(kind: Kind, lowercase: bool) -> tokenizers.Tokenizer:
    """A tokenizer of that kind, which knows nothing yet."""
    package()
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    cut = pre_tokenizers.Split(Regex(_CHARACTERS if kind == "char" else _WORDS), "isolated")
    steps: list[tokenizers.normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    if kind != "char":
        steps.append(normalizers.Prepend(" "))
    if kind == "bpe":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        core.decoder = decoders.ByteLevel()
    else:
        core = Tokenizer(models.WordLevel({}, unk_token=SPECIALS[-1]))
        core.pre_tokenizer, core.decoder = cut, decoders.Fuse()
    if steps:
        core.normalizer = normalizers.Sequence(steps)
    return core


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in groups of bounded size, for a bounded amount of work and memory at a time."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text) + 1
        if size > _CHUNK:
            yield group
            group, size = [], 0
    if group:
        yield group


# The package -------------------------------------------------------------------------------------


def package() -> ModuleType:
    """The `tokenizers` package. It works in one thread except inside `parallel`, unless the
    environment says otherwise: its threads do not survive a fork."""
    if _PARALLEL not in os.environ:
        os.environ[_PARALLEL] = "false"
        _ours.append(True)
    import tokenizers

    return tokenizers


@contextmanager
def parallel(characters: int = _THREADED) -> Iterator[None]:
    """Inside, the library works on all cores, if there are that many characters to work on."""
    chosen = _ours and characters >= _THREADED
    if chosen:
        os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        if chosen:
            os.environ[_PARALLEL] = "false"


_ours: list[bool] = []  # not empty: the variable was not the user's


def _alone() -> None:
    """In the child of a fork, which has none of its parent's threads."""
    if _ours:
        os.environ[_PARALLEL] = "false"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)
