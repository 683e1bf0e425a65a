"""check: what the configurations of all models have in common. Called by their __post_init__."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import UserError


def check(name: str, value: object, holds: bool, wanted: str) -> None:
    """Raise UserError where a configuration's value makes no sense."""
    if not holds:
        raise UserError(f"{name} = {value!r} must be {wanted}")


def check_ids(config: Any) -> None:
    """Raise UserError where pad_id, bos_id or eos_id is no id of the vocabulary."""
    for name in ("pad_id", "bos_id", "eos_id"):
        token, size = getattr(config, name), config.vocab_size
        check(name, token, 0 <= token < size, f"an id below vocab_size, {size}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise UserError, which names the choices, where a value is none of them."""
    known = tuple(choices)
    check(name, value, value in known, f"one of {', '.join(known)}")
