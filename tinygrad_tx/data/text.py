"""Running text as token ids, in memory or mapped from a file.

In: documents, each in parts, and a tokenizer. Out: a `Text`, from which windows.py makes batches.
Called by training's tasks.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..tokenizer import Tokenizer
from ..vocabulary import Words
from . import cache
from .dataset import Column, Ragged

Documents = Iterable[Iterable[str]]

_CHARACTERS = 250_000  # tokenised at once, about
_LONGEST = 16 * _CHARACTERS  # of a text without a place where it may be cut
_LINE = re.compile(r"\n(?=\S)")


@dataclass(frozen=True)
class Text:
    """Documents of token ids, one after another. n_bytes: what they take as UTF-8."""

    documents: Ragged
    n_bytes: int

    @property
    def ids(self) -> NDArray[Any]:
        """All of them."""
        return self.documents.ids

    @classmethod
    def from_documents(
        cls,
        documents: Documents,
        tokenizer: Any,
        end: int | None = None,
        on_disk: bool = False,
        counted: Callable[[int], None] = lambda n: None,
    ) -> Self:
        """Tokenise documents as they come. end: the token that each of them ends with, if any.

        on_disk: keep the ids in a temporary file, so that memory does not grow with them. counted:
        told now and then how many characters have been read.
        """
        dtype = np.uint16 if on_disk and tokenizer.vocab_size <= 1 << 16 else np.int32
        column = Column(dtype, on_disk)
        last = np.array([] if end is None else [end], np.int32)
        words = tokenizer.words() if isinstance(tokenizer, Tokenizer) else None
        read = n_bytes = 0
        for document in documents:
            length = 0
            for text in chunks(document, words):
                ids = tokenizer.encode_flat([text.taken])[0]
                column.extend(ids)
                length += len(ids)
                read += text.length
                n_bytes += text.n_bytes
                counted(read)
            column.extend(last)
            column.close(length + len(last))
        return cls(column.ragged(), n_bytes)

    @property
    def several(self) -> bool:
        """True if it is more than one document."""
        return len(self.documents.offsets) > 2

    def summary(self) -> str:
        """One line: how much of it there is."""
        n = len(self.documents.offsets) - 1
        of = f"{n:,} documents, " if n > 1 else ""
        return f"{of}{len(self.ids):,} tokens, {self.n_bytes:,} bytes"

    @cached_property
    def fingerprint(self) -> int:
        """A number that differs where the ids do."""
        found = 0
        for block in cache.blocks(self.ids):
            found = zlib.crc32(block.astype(np.int32).tobytes(), found)
        return zlib.crc32(self.documents.offsets.tobytes(), found)

    # On disk ---------------------------------------------------------------------------------
    def keep(self, name: str) -> None:
        """Keep it in the cache under that key."""
        facts = {"bytes": self.n_bytes, "fingerprint": self.fingerprint}
        arrays = {"ids": self.documents.ids, "offsets": self.documents.offsets}
        cache.save(name, facts, arrays)

    @classmethod
    def kept(cls, name: str) -> Self | None:
        """The value that `keep` has put under that key, if it is there, mapped from the file."""
        if (entry := cache.load(name)) is None:
            return None
        found = cls(Ragged(entry.arrays["ids"], entry.arrays["offsets"]), entry.facts["bytes"])
        found.__dict__["fingerprint"] = entry.facts["fingerprint"]  # need not be computed
        return found


@dataclass(frozen=True)
class Chunk:
    """A part of a document. taken: what is tokenised, which may lack a space at its end that the
    tokenizer puts before the next part."""

    text: str
    taken: str

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def n_bytes(self) -> int:
        return len(self.text.encode())


def chunks(parts: Iterable[str], words: Words | None) -> Iterator[Chunk]:
    """A document in chunks that are tokenised by themselves: cut where no token spans the cut.
    words: the rule by which the tokenizer cuts texts, if it is known."""
    rest = ""
    for part in parts:
        rest += part
        while len(rest) > _CHARACTERS:
            place = _place(rest, words)
            if not place:
                break
            text, rest = rest[:place], rest[place:]
            spaced = words is not None and words.spaced and text.endswith(" ")
            yield Chunk(text, text[:-1] if spaced else text)
    if rest:
        yield Chunk(rest, rest)


def _place(text: str, words: Words | None) -> int:
    """Where a text is cut: 0 for a place that comes later."""
    if words is not None and not words.spaced:
        return _CHARACTERS
    if words is not None:  # after a space, which is before the next word in any case
        place = text.rfind(" ", 1, _CHARACTERS) + 1
    else:  # before a line, of which no tokenizer joins the beginning with the end of that before
        place = max((found.end() for found in _LINE.finditer(text, 0, _CHARACTERS)), default=0)
    if place > 1 or len(text) < _LONGEST:
        return place if place > 1 else 0
    return _CHARACTERS
