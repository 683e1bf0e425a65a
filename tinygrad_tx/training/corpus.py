"""The sentence pairs of a run. In: the [data] section. Out: a Corpus: pairs to train on, to
validate with, and to report on at the end. Called by the trainer.

Pairs to train on are streamed, for they may be many. Those of files without validation files are
held out of the training files, drawn by the run's seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tinygrad_tx.data import grammar
from tinygrad_tx.data.files import read_pairs, read_tsv
from tinygrad_tx.errors import UserError
from tinygrad_tx.training.sections import DataConfig

Pair = tuple[str, str]

MAX_CHARACTERS = 10_000  # in a line; attention takes memory by the square of a sentence's length


@dataclass(frozen=True)
class Corpus:
    """`train()` starts the stream of training pairs anew; `valid` chooses the best weights;
    `held_out` is what the final scores are of: pairs that nothing was chosen by, if there are
    any."""

    train: Callable[[], Iterator[Pair]]
    valid: list[Pair]
    held_out: list[Pair]


def open_corpus(data: DataConfig, seed: int) -> Corpus:
    """The pairs that a configuration names. UserError for files that cannot be used."""
    if data.corpus == "builtin":
        pairs = grammar.pairs("train", data.corpus_size)
        valid, test = (grammar.pairs(split, data.valid_size) for split in ("valid", "test"))
        return Corpus(lambda: iter(pairs), valid, test)
    valid_files = data.valid_src is not None or data.valid_tsv is not None
    if valid_files:
        valid = list(_not_blank(_read(data.valid_src, data.valid_tgt, data.valid_tsv)))
        if not valid:
            raise UserError(f"{data.valid_src or data.valid_tsv} holds only blank lines")
        return Corpus(lambda: _not_blank(_read(data.src, data.tgt, data.tsv)), valid, valid)
    chosen = _held_out(sum(1 for _ in _read(data.src, data.tgt, data.tsv)), data, seed)
    everything = enumerate(_read(data.src, data.tgt, data.tsv))
    valid = list(_not_blank(pair for i, pair in everything if i in chosen))

    def train() -> Iterator[Pair]:
        everything = enumerate(_read(data.src, data.tgt, data.tsv))
        return _not_blank(pair for i, pair in everything if i not in chosen)

    return Corpus(train, valid, valid)


def check_length(name: str, number: int, line: str) -> str:
    """The line; UserError if it is too long to be a sentence."""
    if len(line) > MAX_CHARACTERS:
        raise UserError(
            f"{name}, line {number}: {len(line):,} characters; a sentence may have "
            f"{MAX_CHARACTERS:,}: is the file not one sentence a line?"
        )
    return line


def _read(src: str | None, tgt: str | None, tsv: str | None) -> Iterator[Pair]:
    """The pairs of two aligned files or of one TSV, checked."""
    if tsv is not None:
        for number, (source, target) in enumerate(read_tsv(tsv), 1):
            yield check_length(tsv, number, source), check_length(tsv, number, target)
    elif src is not None and tgt is not None:
        for number, (source, target) in enumerate(read_pairs(src, tgt), 1):
            yield check_length(src, number, source), check_length(tgt, number, target)


def _not_blank(pairs: Iterable[Pair]) -> Iterator[Pair]:
    return (pair for pair in pairs if pair[0].strip() and pair[1].strip())


def _held_out(n_pairs: int, data: DataConfig, seed: int) -> set[int]:
    """The numbers of the pairs kept for validation, one in ten at most."""
    name = data.src or data.tsv
    if n_pairs < 2:
        raise UserError(f"{name} has one sentence pair; training needs two or more")
    return set(random.Random(seed).sample(range(n_pairs), min(data.valid_size, n_pairs // 10 or 1)))
