"""Sentence pairs as token ids, in memory or mapped from a file.

In: (source, target) pairs of text and a tokenizer. Out: a `Dataset`, from which batches.py makes
batches. Called by training and by validation.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..tokenizer import BOS, EOS, PAD, Tokenizer
from . import cache

Indices = NDArray[np.int64]

_CHUNK = 4096  # pairs tokenised at once, at most
_CHARACTERS = 250_000  # in them, about


class NoPairsError(UserError):
    """No pair of a data set can be used."""


@dataclass(frozen=True)
class Ragged:
    """Many lists of ids in one array: list i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: NDArray[Any]  # int32; uint16 where that is enough and they are on disk
    offsets: Indices

    def __getitem__(self, i: int) -> NDArray[Any]:
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Indices:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Dataset:
    """Tokenised pairs, without start and end tokens, and the number of pairs left out. special: the
    ids of padding, start and end."""

    source: Ragged
    target: Ragged
    blank: int
    too_long: int
    special: tuple[int, int, int] = (PAD, BOS, EOS)

    def __len__(self) -> int:
        return len(self.source.offsets) - 1

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[str, str]],
        tokenizer: Tokenizer,
        max_len: int = 256,
        on_disk: bool = False,
        counted: Callable[[int], None] = lambda n: None,
    ) -> Self:
        """Tokenise pairs as they come. Those with a blank side, or a side of more than `max_len`
        tokens with its end token, are left out and counted. Raises UserError if none is left.

        on_disk: keep the ids in temporary files, so that memory does not grow with them, but for
        16 bytes a pair. counted: told now and then how many pairs have been read.
        """
        dtype = np.uint16 if on_disk and tokenizer.vocab_size <= 1 << 16 else np.int32
        columns = Column(dtype, on_disk), Column(dtype, on_disk)
        blank = too_long = read = 0
        for chunk in chunks(pairs):
            full = [pair for pair in chunk if pair[0].strip() and pair[1].strip()]
            blank += len(chunk) - len(full)
            sides = [
                cutter.encode_flat([pair[side] for pair in full])
                for side, cutter in enumerate((tokenizer, tokenizer.target))
            ]
            fits = np.maximum(sides[0][1], sides[1][1]) < max_len
            too_long += len(full) - int(fits.sum())
            for column, (ids, lengths) in zip(columns, sides, strict=True):
                column.append(ids[np.repeat(fits, lengths)], lengths[fits])
            read += len(chunk)
            counted(read)
        source, target = (column.ragged() for column in columns)
        if len(source.offsets) == 1:
            raise NoPairsError(
                f"no sentence pairs to learn from: {blank} blank, {too_long} longer than "
                f"{max_len} tokens"
            )
        special = tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id
        return cls(source, target, blank, too_long, special)

    def summary(self) -> str:
        """One line: how many pairs there are, and how many were left out and why."""
        left_out = f"{self.blank:,} blank and {self.too_long:,} overlong left out"
        tokens = len(self.source.ids) + len(self.target.ids)
        return f"{len(self):,} pairs, {tokens:,} tokens; {left_out}"

    @cached_property
    def fingerprint(self) -> int:
        """A number that differs where the ids do."""
        found = 0
        for side in (self.source, self.target):
            for block in cache.blocks(side.ids):
                found = zlib.crc32(block.astype(np.int32).tobytes(), found)
            for block in cache.blocks(side.offsets):
                found = zlib.crc32(block.tobytes(), found)
        return found

    # On disk ---------------------------------------------------------------------------------
    def keep(self, name: str) -> None:
        """Keep it in the cache under that key."""
        facts = {
            "blank": self.blank,
            "too_long": self.too_long,
            "fingerprint": self.fingerprint,
            "special": self.special,
        }
        arrays = {
            f"{side}.{part}": getattr(getattr(self, side), part)
            for side in ("source", "target")
            for part in ("ids", "offsets")
        }
        cache.save(name, facts, arrays)

    @classmethod
    def kept(cls, name: str) -> Self | None:
        """The value that `keep` has put under that key, if it is there, mapped from the file."""
        if (entry := cache.load(name)) is None:
            return None
        facts, arrays = entry
        source, target = (
            Ragged(arrays[f"{side}.ids"], arrays[f"{side}.offsets"])
            for side in ("source", "target")
        )
        special = tuple(facts.get("special", (PAD, BOS, EOS)))
        found = cls(source, target, facts["blank"], facts["too_long"], special)
        found.__dict__["fingerprint"] = facts["fingerprint"]  # need not be computed
        return found


class Column:
    """One side's ids while they come, in memory, or in a file without a name until there is no room
    for it."""

    def __init__(self, dtype: type[np.generic], on_disk: bool) -> None:
        self._dtype, self._size = dtype, 0
        self._lengths: list[Indices] = []
        self._file: IO[bytes] = io.BytesIO()
        if on_disk:
            with suppress(OSError):
                self._file = cache.scratch()

    def append(self, ids: NDArray[np.int32], lengths: Indices) -> None:
        """Several lists."""
        self._lengths.append(lengths.astype(np.int64))
        self.extend(ids)

    def close(self, length: int) -> None:
        """The end of a list of that length, which has come in parts."""
        self._lengths.append(np.array([length], np.int64))

    def extend(self, ids: NDArray[np.int32]) -> None:
        """A part of a list."""
        data = memoryview(ids.astype(self._dtype).tobytes())
        while data:
            try:
                written = self._file.write(data)
            except OSError:  # the disk is full
                self._file.seek(0)
                self._file = io.BytesIO(self._file.read(self._size))
                self._file.seek(self._size)
                continue
            self._size += written
            data = data[written:]

    def ragged(self) -> Ragged:
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if isinstance(self._file, io.BytesIO):
            return Ragged(np.frombuffer(self._file.getbuffer(), self._dtype), offsets)
        with self._file as file:  # what is mapped stays when it is closed
            ids = np.memmap(file, self._dtype, "r") if self._size else np.empty(0, self._dtype)
        return Ragged(np.asarray(ids), offsets)


def chunks(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pairs in groups of bounded size, for a bounded amount of memory at a time."""
    group: list[tuple[str, str]] = []
    size = 0
    for pair in pairs:
        group.append(pair)
        size += len(pair[0]) + len(pair[1])
        if size > _CHARACTERS or len(group) == _CHUNK:
            yield group
            group, size = [], 0
    if group:
        yield group
