"""Checks that the configurations of all models have in common. Called by their __post_init__, after
check_fields: None is in a field only where that may be, and nothing is wrong with it then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import UserError


def check(name: str, value: object, holds: bool, wanted: str) -> None:
    """Raise UserError where a configuration's value makes no sense."""
    if not holds:
        raise UserError(f"{name} = {value!r} must be {wanted}")


def check_positive(config: Any, *names: str) -> None:
    """Raise UserError where one of these fields is 0 or less."""
    for name, value in _given(config, names):
        check(name, value, value > 0, "positive")


def check_counts(config: Any, *names: str) -> None:
    """Raise UserError where one of these fields is below 0."""
    for name, value in _given(config, names):
        check(name, value, value >= 0, "0 or more")


def check_rates(config: Any, *names: str) -> None:
    """Raise UserError where one of these fields is no rate of dropout."""
    for name, value in _given(config, names):
        check(name, value, 0 <= value < 1, "from 0 to below 1")


def check_ids(config: Any, *names: str) -> None:
    """Raise UserError where one of these fields is no id of the vocabulary."""
    size = config.vocab_size
    for name, token in _given(config, names):
        check(name, token, 0 <= token < size, f"an id below vocab_size, {size}")


def _given(config: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The fields of these names that are not None."""
    for name in names:
        value = getattr(config, name)
        if value is not None:
            yield name, value


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise UserError, which names the choices, where a value is none of them."""
    known = tuple(choices)
    check(name, value, value in known, f"one of {', '.join(known)}")
