"""The data that a run trains on and is measured with. In: a configuration, and the run's tokenizer
if it has one. Out: `Examples`. Called by the trainer.

A vocabulary and token ids are kept in the cache (data/cache.py), by all that they depend on: the
bytes of the files, the tokenizer, the settings, and the library. So a second start, or a resumed
run, begins at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..data import Dataset, Tokenizer, cache
from ..data.dataset import NoPairsError, chunks
from ..errors import UserError
from ..vocabulary import package
from .corpus import ANY, FULL, Corpus, Pair, Rule, is_full, open_corpus
from .progress import Counted
from .schema import Config, TokenizerConfig
from .validation import longest_measured

_VERSION = 1  # raised whenever the same texts would give another vocabulary, or other ids


class Examples(NamedTuple):
    """Pairs as token ids to train on; texts to validate with and to report on at the end."""

    tokenizer: Tokenizer
    data: Dataset
    valid: list[Pair]
    held_out: list[Pair]


def load_examples(
    config: Config,
    tokenizer: Tokenizer | None,
    then: Callable[[], int | None],
    count: Counted = lambda what, n, unit: None,
) -> Examples:
    """All that a run needs of its data; UserError if it cannot be trained with them.

    tokenizer: None if one is to be learnt. then: gives the fingerprint of the data that the run was
    begun with, if it was.
    """

    def opened(rule: Rule) -> Corpus:
        made = config.data.corpus == "builtin"
        what = f"making {config.data.corpus_size:,} pairs" if made else "reading pairs"
        return open_corpus(config.data, config.train.seed, rule, lambda n: count(what, n, "pairs"))

    corpus = opened(FULL)
    tokenizer = tokenizer or _learn(corpus, config.tokenizer, count)
    if not corpus.drawn:
        return _examples(config, corpus, tokenizer, count)
    try:
        found = _examples(config, corpus, tokenizer, count)
    except NoPairsError:
        # What was drawn leaves nothing to train on, or is too long to measure with.
        return _examples(config, opened(_fitting(config, tokenizer)), tokenizer, count)
    if corpus.blank and then() not in (None, found.data.fingerprint):
        before = _examples(config, opened(ANY), tokenizer, count)
        if before.data.fingerprint == then():
            return before
    return found


def _examples(config: Config, corpus: Corpus, tokenizer: Tokenizer, count: Counted) -> Examples:
    data = _tokenised(corpus, tokenizer, config.data.max_len, count)
    held_out = _measurable(config, corpus.held_out, tokenizer)
    return Examples(tokenizer, data, corpus.valid, held_out)


def _learn(corpus: Corpus, c: TokenizerConfig, count: Counted) -> Tokenizer:
    """A tokenizer with the vocabulary of the training pairs."""
    if c.kind == "pretrained":
        raise UserError("tokenizer.kind is pretrained: it comes with a model, train.init")
    settings = (c.kind, c.vocab_size, c.lowercase, c.min_frequency)
    key = corpus.key and _key("vocabulary", corpus.key, *settings)
    if key and (entry := cache.load(key)):
        return Tokenizer.loads(entry.facts["tokenizer"])
    texts = (text for pair in corpus.train() for text in pair)
    count(what := "learning the vocabulary", 0, "pairs")
    found = Tokenizer.train(texts, *settings, lambda n: count(what, n // 2, "pairs"))
    if key and corpus.unchanged():
        cache.save(key, {"tokenizer": found.dumps()})
    return found


def _tokenised(corpus: Corpus, tokenizer: Tokenizer, max_len: int, count: Counted) -> Dataset:
    """The training pairs as token ids."""
    key = corpus.key and _key("tokens", corpus.key, tokenizer.dumps(), max_len)
    if key and (kept := Dataset.kept(key)):
        return kept
    count(what := "making token ids of the pairs", 0, "pairs")
    data = Dataset.from_pairs(
        corpus.train(), tokenizer, max_len, bool(key), lambda n: count(what, n, "pairs")
    )
    data = replace(data, blank=data.blank + corpus.blank, too_long=data.too_long + corpus.too_long)
    if key and corpus.unchanged():
        data.keep(key)
        return Dataset.kept(key) or data  # of which nothing need stay in memory
    return data


def _key(*parts: object) -> str:
    return cache.key(*parts, _VERSION, package().__version__)


def _measurable(config: Config, pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[Pair]:
    """Those pairs that fit into a batch and have positions in the model, with sources that it can
    translate. NoPairsError if there are none."""
    max_tokens, made = config.data.max_tokens, config.model.of_model()
    longest = longest_measured(max_tokens, made.n_positions)
    found: list[Pair] = []
    for chunk in chunks(pairs):
        source, target = (
            cutter.encode_flat([pair[i] for pair in chunk])[1]
            for i, cutter in enumerate((tokenizer, tokenizer.target))
        )
        fits = (source < min(longest, made.max_len)) & (target < longest)
        found += [pair for pair, fit in zip(chunk, fits, strict=True) if fit]
    if not found:
        raise NoPairsError(
            f"none of the {len(pairs)} sentence pairs to validate with fits: they are longer than "
            f"data.max_tokens {max_tokens} or model.max_len {made.max_len}"
        )
    return found


def _fitting(config: Config, tokenizer: Tokenizer) -> Rule:
    """Pairs that can be trained on and measured with."""
    longest = min(config.data.max_len, config.model.of_model().max_len)

    def holds(pair: Pair) -> bool:
        lengths = (len(tokenizer.encode(text, special=False)) for text in pair)
        return is_full(pair) and all(length < longest for length in lengths)

    what = f"sentence pair of at most {longest} tokens a side"
    return Rule(holds, what, _key(tokenizer.dumps(), longest))
