"""The built-in corpus: English-Spanish sentence pairs from a small bilingual grammar.

Comes in: a split, a number and a seed. Goes out: that many distinct (English, Spanish) pairs. Called
by `tinygrad-tx train` when no data are given, by examples and by tests.

Both sides are written at once from the same choices, so they are aligned in meaning, but seldom word
by word: Spanish inflects, puts most adjectives after the noun and object pronouns before the verb,
drops pronouns, turns "the boy's dog" and "the boy likes the dog" around, and asks without "do".
English decides everything: no English sentence has two translations.

Held-out sentences test composition. One in ten pairs of an adjective and the noun it describes, and
of a verb and its object, is reserved for `valid` or `test` by a hash of the two words. A sentence
with a reserved pair is held out; `train` has none of them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from typing import Literal, get_args

from tinygrad_tx.data import lexicon
from tinygrad_tx.data.sentences import ADJECTIVES, OBJECTS, OF_KIND, compose
from tinygrad_tx.errors import UserError

Split = Literal["train", "valid", "test"]

_PATIENCE = 20_000  # sentences in a row that are not new, after which the grammar counts as used up


def pairs(split: Split, n: int, seed: int = 0) -> list[tuple[str, str]]:
    """`n` distinct (English, Spanish) sentence pairs of one split; the same for the same arguments.

    Splits never share a sentence, whatever the seeds. Raises UserError for an unknown split, a
    negative seed, or more pairs than the grammar yields.
    """
    if split not in get_args(Split):
        raise UserError(f"unknown split {split!r}; choose one of {', '.join(get_args(Split))}")
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    rng = random.Random(seed)
    found: dict[str, str] = {}
    misses = 0
    while len(found) < n:
        sentence = compose(rng)
        if sentence.en in found or split_of(sentence.combinations) != split:
            misses += 1
            if misses > _PATIENCE:
                raise UserError(f"the built-in corpus has no {n} pairs for {split!r}; ask for fewer")
            continue
        found[sentence.en] = sentence.es
        misses = 0
    return list(found.items())


def split_of(combinations: Iterable[tuple[str, str]]) -> Split | None:
    """The split of a sentence with these word combinations; None if they belong to both held-out
    splits, which no split takes."""
    reserved = {split for pair in combinations if (split := reserved_for(*pair)) != "train"}
    if not reserved:
        return "train"
    return reserved.pop() if len(reserved) == 1 else None


def reserved_for(word: str, noun: str) -> Split:
    """Where an English (adjective, noun) or (verb, object) pair may occur besides sentences with
    other reserved pairs: one in twenty each for valid and test."""
    slot = zlib.crc32(f"{word} {noun}".encode()) % 20
    return "valid" if slot == 0 else "test" if slot == 1 else "train"


def count(split: Split) -> int:
    """A lower bound on the distinct pairs of a split: the sentences of the one form "the tall girl
    bought the red car" (subject, verb and object in the singular, one adjective each)."""
    subjects = [
        reserved_for(a.en, noun.en[0]) for noun in OF_KIND["person"] for a in ADJECTIVES["person"]
    ]
    total = 0
    for verb in lexicon.ACTIONS:
        for noun in OBJECTS[verb]:
            action = reserved_for(verb.en[0], noun.en[0])
            for adjective in ADJECTIVES[noun.kind]:
                total += 1
    return total
