"""The sentence pairs of a run. In: the [data] section. Out: a Corpus: pairs to train on, to
validate with, and to report on at the end. Called by examples.py.

Pairs to train on are streamed, for they may be many. Those of files without validation files are
held out of the training files, drawn by the run's seed. What a first reading finds is kept in the
cache, so that the files of a later start are only compared with what they were.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import NamedTuple

from ..data import cache
from ..data.builtin import grammar
from ..data.files import (
    Source,
    Spooled,
    check_length,
    digest,
    read_pairs,
    read_tsv,
    rereadable,
)
from ..data.tables import format_of, is_table, read_columns
from ..errors import UserError
from .schema import DataConfig

Pair = tuple[str, str]
Counted = Callable[[int], None]  # told now and then how many pairs have been read

_OFTEN = 20_000  # pairs


class Rule(NamedTuple):
    """The condition of the pairs that held-out ones are drawn from, the word for one of those, and
    a name that tells rules apart."""

    holds: Callable[[Pair], bool]
    what: str
    name: str


def is_full(pair: Pair) -> bool:
    """True if neither side is blank."""
    return bool(pair[0].strip() and pair[1].strip())


FULL = Rule(is_full, "sentence pair", "full")
ANY = Rule(lambda pair: True, "sentence pair", "any")  # by which runs were begun once


@dataclass(frozen=True)
class Corpus:
    """`train()` starts the stream of training pairs anew; `valid` chooses the best weights;
    `held_out` is what the final scores are of: pairs that nothing was chosen by, if there are
    any."""

    train: Callable[[], Iterator[Pair]]
    valid: list[Pair]
    held_out: list[Pair]
    drawn: bool = False  # whether `valid` was drawn from the training files
    blank: int = 0  # pairs of the training files with a blank side, which train() leaves out
    too_long: int = 0  # and those that the rule leaves out
    key: str | None = None  # of all that the pairs depend on, for the cache; None: not for it
    unchanged: Callable[[], bool] = lambda: True  # whether the files are as they were at first


def open_corpus(
    data: DataConfig, seed: int, rule: Rule = FULL, counted: Counted = lambda n: None
) -> Corpus:
    """The pairs that a configuration names. UserError for files that cannot be used."""
    if data.corpus == "builtin":
        valid, test = (grammar.pairs(split, data.valid_size) for split in ("valid", "test"))
        pairs = grammar.pairs("train", data.corpus_size, counted=counted)
        return Corpus(lambda: iter(pairs), valid, test)
    cache.trim()
    files = _Files.of(data)
    if data.valid_src is None and data.valid_tsv is None:
        return _drawn(files, data.valid_size, seed, rule, counted)
    then = files.stamp()
    key = cache.key("files", files.kind, *files.digests())
    found = _Survey.kept(key) or _survey(files, FULL, counted)
    if not found.size:
        raise UserError(f"{files.name} holds only blank lines")
    others = _Files.of(data, "valid_")
    valid = list(filter(is_full, others.pairs()))
    if not valid:
        raise UserError(f"{others.name} holds only blank lines")
    if files.stamp() == then:
        found.keep(key)
    return Corpus(
        lambda: filter(is_full, files.pairs()),
        valid,
        valid,
        blank=found.blank,
        key=key,
        unchanged=lambda: files.stamp() == then,
    )


def _drawn(files: _Files, wanted: int, seed: int, rule: Rule, counted: Counted) -> Corpus:
    """The pairs of training files, some of them held out: one in ten at most."""
    then = files.stamp()
    key = cache.key("split", files.kind, *files.digests(), seed, wanted, rule.name)
    kept = _Survey.kept(key)
    found = kept or _survey(files, rule, counted)
    if not found.size and found.too_long:
        raise UserError(f"no sentence pairs to learn from: {files.name} has no {rule.what}")
    if not found.size:
        raise UserError(f"{files.name} holds only blank lines")
    if found.size < 2:
        raise UserError(f"{files.name} has one {rule.what}; training needs two or more")
    n = min(wanted, found.size // 10 or 1)
    chosen = set(random.Random(seed).sample(range(found.size), n))

    def split(held_out: bool) -> Iterator[Pair]:
        numbered = enumerate(filter(rule.holds, files.pairs()))
        return filter(is_full, (pair for i, pair in numbered if (i in chosen) is held_out))

    valid = found.valid if kept else list(split(True))
    if not kept and files.stamp() == then:
        found._replace(valid=valid).keep(key)
    return Corpus(
        lambda: split(False),
        valid,
        valid,
        drawn=True,
        blank=found.blank,
        too_long=found.too_long,
        key=key,
        unchanged=lambda: files.stamp() == then,
    )


class _Survey(NamedTuple):
    """The result of a first reading of training files."""

    size: int  # pairs that follow the rule
    blank: int  # pairs with a blank side
    too_long: int  # others that do not follow it
    valid: list[Pair]  # held-out pairs, once they are drawn

    @classmethod
    def kept(cls, key: str) -> _Survey | None:
        """From the cache."""
        if (entry := cache.load(key)) is None:
            return None
        facts = entry.facts
        return cls(**{**facts, "valid": [(one, other) for one, other in facts["valid"]]})

    def keep(self, key: str) -> None:
        """In the cache."""
        cache.save(key, self._asdict())


def _survey(files: _Files, rule: Rule, counted: Counted) -> _Survey:
    """Reads the files to the end, so that what is wrong with them is known before anything is made
    of them."""
    size = blank = others = 0
    for number, pair in enumerate(files.pairs(), 1):
        full, holds = is_full(pair), rule.holds(pair)
        size += holds
        blank += not full
        others += full and not holds
        if number % _OFTEN == 0:
            counted(number)
    return _Survey(size, blank, others, [])


@dataclass(frozen=True)
class _Files:
    """Two aligned files, one TSV, or one table."""

    kind: str
    sources: tuple[Source, ...]
    name: str  # of one of them
    columns: tuple[str, ...] = ()  # of a table

    @classmethod
    def of(cls, data: DataConfig, prefix: str = "") -> _Files:
        """Those that a configuration names. What comes out of pipes is read now, once."""
        src, tgt, tsv = (getattr(data, prefix + name) for name in ("src", "tgt", "tsv"))
        paths = (tsv,) if tsv is not None else (src, tgt)
        kind = "tsv" if tsv is not None else "aligned"
        if table := next((path for path in paths if is_table(path)), None):
            if kind == "aligned":
                raise UserError(
                    f"{table} has columns: give it as data.tsv, with data.columns SOURCE,TARGET"
                )
            kind = f"table {format_of(table)} {data.columns}"
        elif data.columns is not None and not prefix:
            raise UserError(f"{paths[0]} has no columns: they are of a .jsonl, .csv or .parquet")
        sources = tuple(rereadable(path) for path in paths)
        return cls(kind, sources, paths[0], data.column_names)

    def pairs(self) -> Iterable[Pair]:
        """All pairs, from the start."""
        if self.kind.startswith("table"):
            return self._records()
        return read_tsv(*self.sources) if self.kind == "tsv" else read_pairs(*self.sources)

    def _records(self) -> Iterator[Pair]:
        for number, pair in enumerate(read_columns(self.sources[0], self.columns, 2), 1):
            one, other = (check_length(self.name, number, text) for text in pair)
            yield one, other

    def digests(self) -> list[str]:
        """A key that differs when the content of a file does."""
        stop = Event()
        with ThreadPoolExecutor() as threads:
            try:
                return list(threads.map(partial(digest, stop=stop.is_set), self.sources))
            except BaseException:  # Ctrl-C: the threads would read on to the end
                stop.set()
                raise

    def stamp(self) -> list[tuple[int, int, int]]:
        """A key that differs when a file has been changed."""
        found = []
        with suppress(OSError):  # reading it will say what is wrong
            for path in self.sources:
                if not isinstance(path, Spooled):
                    status = Path(path).stat()
                    found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return found
