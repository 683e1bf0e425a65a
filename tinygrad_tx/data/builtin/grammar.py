"""The built-in corpus: English-Spanish sentence pairs from a small bilingual grammar.

In: a split, a number and a seed. Out: that many distinct pairs of sentences. Called by `tinygrad-tx
train` when no data are given, by examples and by tests.

Both sides are written at once from the same choices: aligned in meaning, but seldom word by word.
Spanish inflects, puts most adjectives after the noun and object pronouns before the verb,
drops pronouns, turns "the boy's dog" and "the boy likes the dog" around, and asks without "do".
English decides everything: no English sentence has two translations.

Held-out sentences test composition. One in ten pairs of an adjective and the noun it describes, and
of a verb and its object, is reserved for `valid` or `test` by a hash of the two words. A sentence
with a reserved pair is held out; `train` has none of them.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from typing import Literal, get_args

from ...errors import UserError
from . import lexicon
from .sentences import ADJECTIVES, OBJECTS, OF_KIND, compose

Split = Literal["train", "valid", "test"]

_PATIENCE = 20_000  # sentences in a row that are not new, after which the grammar counts as used up
_MOST = 4_000_000  # pairs: more than a gigabyte of memory, and minutes to compose


def pairs(
    split: Split, n: int, seed: int = 0, counted: Callable[[int], None] = lambda n: None
) -> list[tuple[str, str]]:
    """`n` distinct (English, Spanish) sentence pairs of one split; the same for the same arguments.

    counted: told 0 when the making begins, then now and then how many there are. Splits never share
    a sentence, whatever the seeds. Raises UserError for an unknown split, a negative seed, or more
    pairs than the grammar yields.
    """
    if split not in get_args(Split):
        raise UserError(f"unknown split {split!r}; choose one of {', '.join(get_args(Split))}")
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    if n > _MOST:
        raise UserError(f"{n} pairs of the built-in corpus are too many: the most is {_MOST}")
    rng = random.Random(seed)
    found: dict[str, str] = {}
    misses = 0
    counted(0)
    while len(found) < n:
        sentence = compose(rng)
        if sentence.en in found or split_of(sentence.combinations) != split:
            misses += 1
            if misses > _PATIENCE:
                raise UserError(f"the built-in corpus ran out at {len(found)} {split} pairs of {n}")
            continue
        found[sentence.en] = sentence.es
        misses = 0
        if not len(found) % 4096:
            counted(len(found))
    return list(found.items())


def split_of(combinations: Iterable[tuple[str, str]]) -> Split | None:
    """The split of a sentence with these word combinations; None if it would be held out twice."""
    return _joint(reserved_for(*pair) for pair in combinations)


@cache
def reserved_for(word: str, noun: str) -> Split:
    """The split that an English (adjective, noun) or (verb, object) pair is kept for: one in twenty
    for valid, one in twenty for test."""
    slot = zlib.crc32(f"{word} {noun}".encode()) % 20
    return "valid" if slot == 0 else "test" if slot == 1 else "train"


def _joint(splits: Iterable[Split]) -> Split | None:
    held_out = set(splits) - {"train"}
    if len(held_out) > 1:
        return None
    return held_out.pop() if held_out else "train"


def count(split: Split) -> int:
    """A lower bound on the distinct pairs of a split: how many it has of one form, "the tall girl
    bought the red car", in three tenses and with one or more girls."""
    subjects = Counter(
        reserved_for(adjective.en, noun.en[0])
        for noun in OF_KIND["person"]
        for adjective in ADJECTIVES["person"]
    )
    objects = Counter(
        split_of([(verb.en[0], noun.en[0]), (adjective.en, noun.en[0])])
        for verb in lexicon.ACTIONS
        for noun in OBJECTS[verb]
        for adjective in ADJECTIVES[noun.kind]
    )
    return 6 * sum(
        subjects[one] * objects[other]
        for one, other in product(subjects, objects)
        if other and _joint((one, other)) == split
    )
