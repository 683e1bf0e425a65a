"""The running text of a run. In: a configuration, and the run's tokenizer if it has one. Out: token
ids to train on and to validate with. Called by the tasks on running text, and by `evaluate`.

Text is streamed, for it may be larger than memory; its tokens are kept in the cache (data/cache.py)
by all that they depend on, and mapped from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from ..data import Tokenizer, cache
from ..data.files import Source, digest, read_text, rereadable
from ..data.tables import format_of, is_table, read_columns
from ..data.text import Text, chunks
from ..errors import UserError
from ..vocabulary import Words, package
from .progress import Counted
from .schema import Config, DataConfig, TokenizerConfig

Document = Iterable[str]  # in parts

_VERSION = 1  # raised whenever the same text would give other ids
_HELD_OUT = 10  # one part of so many
_MANY = 1_000_000  # characters, which take a while to read


class Loaded(NamedTuple):
    tokenizer: Any
    train: Text
    valid: Text


class _Size(NamedTuple):
    documents: int
    characters: int


class _Part(NamedTuple):
    """A part of a file: of its documents or, where it is one text, of its characters. Until the end
    where `last` is None."""

    source: Source
    columns: tuple[str, ...]
    first: int = 0
    last: int | None = None

    @property
    def several(self) -> bool:
        """True if it is a table, of documents."""
        return is_table(self.source)

    def documents(self) -> Iterator[Document]:
        """From the start."""
        if not self.several:
            yield self._characters()
            return
        texts = (text for (text,) in read_columns(self.source, self.columns, 1) if text.strip())
        for text in islice(texts, self.first, self.last):
            yield [text]

    def _characters(self) -> Iterator[str]:
        at = 0
        for text in read_text(self.source):
            begin, end = max(self.first - at, 0), len(text)
            if self.last is not None:
                end = min(end, self.last - at)
            if begin < end:
                yield text[begin:end]
            at += len(text)
            if self.last is not None and at >= self.last:
                return

    def key(self) -> str:
        """What differs where the content does."""
        return cache.key(
            digest(self.source), format_of(self.source), self.columns, self.first, self.last
        )


def load_texts(
    config: Config, tokenizer: Any, count: Counted = lambda what, n, unit: None
) -> Loaded:
    """All that a run needs of its text; UserError if it cannot be trained with it.

    tokenizer: None if one is to be learnt.
    """
    train, valid = _parts(config.data, count)
    tokenizer = tokenizer or _learn(train, config.tokenizer, count)
    return Loaded(
        tokenizer,
        tokenised(train, tokenizer, count),
        tokenised(valid, tokenizer, count),
    )


def text_of(file: str, columns: str | None) -> _Part:
    """A file, whole. UserError for columns of what has none."""
    if columns is not None and not is_table(file):
        raise UserError(f"{file} has no columns: they are of a .jsonl, .csv or .parquet")
    return _Part(rereadable(file), DataConfig(columns=columns).column_names)


def tokenised(part: _Part, tokenizer: Any, count: Counted = lambda what, n, unit: None) -> Text:
    """Its text as token ids; documents of a table end with the end token."""
    end = tokenizer.eos_id if part.several else None
    key = _key("text", part.key(), tokenizer.dumps(), end)
    if kept := Text.kept(key):
        return kept
    count(what := "making token ids of the text", 0, "characters")
    found = Text.from_documents(
        part.documents(), tokenizer, end, True, lambda n: count(what, n, "characters")
    )
    found.keep(key)
    return Text.kept(key) or found  # of which nothing need stay in memory


def _parts(data: DataConfig, count: Counted) -> tuple[_Part, _Part]:
    """The parts to train on, and to validate with."""
    assert data.text is not None  # the configuration has seen to it
    whole = text_of(data.text, data.columns)
    size = _size(whole, count)
    if data.valid_text is not None:
        valid = text_of(data.valid_text, data.columns)
        _size(valid, count)
        return whole, valid
    n = size.documents if whole.several else size.characters
    if n < 2:
        what = "document" if whole.several else "character"
        raise UserError(f"{data.text} has one {what}; training needs two or more")
    first = n - (n // _HELD_OUT or 1)
    return whole._replace(last=first), whole._replace(first=first)


def _size(part: _Part, count: Counted) -> _Size:
    """How much there is in a file; UserError where it is nothing. A first reading, for what is
    wrong to be known before anything is made of it."""
    key = _key("size", part.key())
    if entry := cache.load(key):
        return _Size(**entry.facts)
    documents = characters = 0
    blank = True
    for document in part.documents():
        documents += 1
        for text in document:
            characters += len(text)
            blank = blank and not text.strip()
        if characters >= _MANY:
            count("reading the text", characters, "characters")
    if blank:
        what = "holds only blank lines" if characters else "is empty"
        raise UserError(f"{part.source} {what}")
    found = _Size(documents, characters)
    cache.save(key, found._asdict())
    return found


def _learn(part: _Part, c: TokenizerConfig, count: Counted) -> Tokenizer:
    """A tokenizer with the vocabulary of a text."""
    if c.kind == "pretrained":
        raise UserError("tokenizer.kind is pretrained: it comes with a model, train.init")
    settings = (c.kind, c.vocab_size, c.lowercase, c.min_frequency)
    key = _key("vocabulary of text", part.key(), *settings)
    if entry := cache.load(key):
        return Tokenizer.loads(entry.facts["tokenizer"])
    words = Words(c.kind != "char")
    texts = (chunk.taken for document in part.documents() for chunk in chunks(document, words))
    count(what := "learning the vocabulary", 0, "parts")
    found = Tokenizer.train(texts, *settings, lambda n: count(what, n, "parts"))
    cache.save(key, {"tokenizer": found.dumps()})
    return found


def _key(*parts: object) -> str:
    return cache.key(*parts, _VERSION, package().__version__)
