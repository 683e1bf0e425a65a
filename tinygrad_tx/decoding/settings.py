"""Settings: how a search goes, what is done to logits on the way, and where it ends.

In: what generate() is given. Out: the search and the controls that it means, for rows of a model,
or an error that names what makes no sense. Called by generate.py and streaming.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import UserError
from .beam import BeamSearch
from .controls import Controls
from .loop import Model
from .protocols import Stops
from .sampling import Sampling

MOST = 2**20  # new tokens: memory for the keys and values of all of them is taken at the start
_INTS = ("beam_size", "num_return_sequences", "min_new_tokens", "top_k")
_NUMBERS = ("length_penalty", "temperature", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Settings:
    """The keyword arguments of generate(), which says what they mean."""

    beam_size: int = 1
    max_new_tokens: int | Sequence[int] = 64
    min_new_tokens: int = 0
    length_penalty: float = 0.0
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    prefix_tokens: Sequence[int] | Sequence[Sequence[int]] = ()
    bad_words: Sequence[int | Sequence[int]] = ()
    stop: Sequence[int | Sequence[int]] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """TypeError naming a setting of the wrong kind, UserError for one that makes no sense."""
        self._require_kinds()
        for name in ("beam_size", "num_return_sequences"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)} must be 1 or more")
        if self.do_sample and self.beam_size > 1:
            raise UserError(
                f"sampling knows no beam: beam_size = {self.beam_size} must be 1 with do_sample"
            )
        if not self.do_sample and self.num_return_sequences > self.beam_size:
            raise UserError(
                f"num_return_sequences = {self.num_return_sequences} needs a beam_size that large, "
                f"not {self.beam_size}; or do_sample"
            )
        if not 0 < self.temperature < math.inf:
            raise UserError(
                f"temperature = {self.temperature} must be above 0; for the most probable tokens "
                "leave out do_sample"
            )
        if self.top_k < 0:
            raise UserError(f"top_k = {self.top_k} must be 1 or more, or 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p = {self.top_p} must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p = {self.min_p} must be from 0 to 1")
        if not math.isfinite(self.length_penalty):
            raise UserError(f"length_penalty = {self.length_penalty} must be a finite number")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(
                f"repetition_penalty = {self.repetition_penalty} must be above 0; 1 is none"
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UserError(f"seed = {self.seed} must be from 0 to 2**63 - 1")

    def _require_kinds(self) -> None:
        for name in (*_INTS, *_NUMBERS, *(() if self.seed is None else ("seed",))):
            value, wanted = getattr(self, name), Real if name in _NUMBERS else Integral
            if isinstance(value, bool) or not isinstance(value, wanted):
                kind = "a number" if name in _NUMBERS else "an int"
                raise TypeError(f"generate: {name} must be {kind}, not {value!r}")

    @property
    def prefixes(self) -> list[Any]:
        """prefix_tokens as a list: of tokens, or of lists of them."""
        given = self.prefix_tokens
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise TypeError(f"generate: prefix_tokens must be a list of tokens, not {given!r}")
        return list(given.tolist() if hasattr(given, "tolist") else given)

    def limits(self, rows: int) -> list[int]:
        """The most new tokens of each of some rows."""
        most, least = self.max_new_tokens, self.min_new_tokens
        if isinstance(most, (int, np.integer)):
            limits = [int(most)] * rows
        elif isinstance(most, (list, tuple)) and all(
            isinstance(n, Integral) and not isinstance(n, bool) for n in most
        ):
            limits = [int(n) for n in most]
        else:
            wanted = "an int, or a list with one for each row"
            raise TypeError(f"generate: max_new_tokens must be {wanted}, not {most!r}")
        if len(limits) != rows:
            raise UserError(f"max_new_tokens has {len(limits)} numbers for {rows} rows")
        for n in limits:
            if n < 1:
                raise UserError(f"max_new_tokens = {n} must be 1 or more")
            if n > MOST:
                raise UserError(
                    f"max_new_tokens = {n} must be at most {MOST}: there must be room for it"
                )
            if not 0 <= least <= n:
                raise UserError(f"min_new_tokens = {least} must be from 0 to max_new_tokens")
        return limits

    def search(
        self, model: Model, limits: Sequence[int], often: bool = False
    ) -> BeamSearch | Sampling:
        """The search for rows with these limits. often: there is a look at every step."""
        config = model.config
        stops = _sequences("stop", self.stop, getattr(config, "vocab_size", None))
        stops += tuple((token,) for token in getattr(config, "more_eos_ids", ()))
        eos_id = -1 if config.eos_id is None else config.eos_id
        if not self.do_sample:
            return BeamSearch(
                limits,
                eos_id=eos_id,
                beam_size=self.beam_size,
                min_new_tokens=self.min_new_tokens,
                length_penalty=self.length_penalty,
                stops=stops,
                often=often,
            )
        return Sampling(
            limits,
            eos_id=eos_id,
            samples=self.num_return_sequences,
            min_new_tokens=self.min_new_tokens,
            length_penalty=self.length_penalty,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            stops=stops,
            seed=self.seed,
            often=often,
            device=next(model.parameters()).device,
        )

    def controls(self, model: Model, rows: list[list[int]]) -> Controls | None:
        """What is to be done to the logits of rows; None for nothing."""
        size, given = getattr(model.config, "vocab_size", None), self.prefixes
        nested = bool(given) and not isinstance(given[0], Integral)
        found = [_sequence("prefix_tokens", row, size) for row in given] if nested else []
        if nested and len(found) != len(rows):
            raise UserError(f"prefix_tokens has {len(found)} lists for {len(rows)} rows")
        every = () if nested else _sequence("prefix_tokens", given, size)
        prefixes = tuple(found) if nested else (every,) * len(rows)
        bad = _sequences("bad_words", self.bad_words, size)
        if self.repetition_penalty == 1 and not bad and not any(prefixes):
            return None
        if size is None:
            raise UserError(
                "repetition_penalty, bad_words and prefix_tokens need the model's config.vocab_size"
            )
        said = [row[:-1] for row in rows] if model.padding_side == "left" else [[] for _ in rows]
        return Controls(size, said, self.repetition_penalty, prefixes, bad)


def _sequences(name: str, given: Any, size: int | None) -> Stops:
    """Tokens and sequences of tokens, as sequences. UserError for what is no token."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"generate: {name} must be a list of tokens, not {given!r}")
    found = tuple(
        _sequence(name, (word,) if isinstance(word, Integral) else word, size) for word in given
    )
    if not all(found):
        raise UserError(f"{name}: a sequence without tokens")
    return found


def _sequence(name: str, given: Any, size: int | None) -> tuple[int, ...]:
    """The tokens of a sequence. size: how many there are, where that is known. UserError for what
    is no token."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"generate: {name} must be a list of tokens, not {given!r}")
    found = tuple(given)
    for token in found:
        if isinstance(token, bool) or not isinstance(token, Integral):
            raise TypeError(f"generate: {name} must be tokens, which are ints, not {token!r}")
        if int(token) < 0 or (size is not None and int(token) >= size):
            most = "on" if size is None else f"to {size - 1}"
            raise UserError(f"{name}: {token} is no token: they are from 0 {most}")
    return tuple(int(token) for token in found)
