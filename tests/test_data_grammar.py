"""The built-in corpus: correct, systematic, large, and held out by word combinations."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
import sacrebleu

from tinygrad_tx.data import grammar
from tinygrad_tx.data import lexicon as lx
from tinygrad_tx.data.grammar import Split, reserved_for
from tinygrad_tx.data.morphology import conjugate_es, plural_en, plural_es
from tinygrad_tx.data.sentences import MAX_WORDS, Sentence, compose
from tinygrad_tx.errors import UserError

Pairs = list[tuple[str, str]]


def words(text: str) -> list[str]:
    return re.findall(r"\w+|'", text.lower())


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    """50,000 sentences as they come, of all splits, repetitions included."""
    rng = random.Random(0)
    return [compose(rng) for _ in range(50_000)]


@pytest.fixture(scope="module")
def train() -> Pairs:
    return grammar.pairs("train", 8000)


@pytest.fixture(scope="module")
def test() -> Pairs:
    return grammar.pairs("test", 400)


# What must come out, construction by construction: an English sentence and its only translation.
EXAMPLES = {
    "agreement": ("The white shirts are expensive.", "Las camisas blancas son caras."),
    "a and an": ("", ""),
}
