"""check: what the configurations of all models have in common. Called by their __post_init__."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UserError


def check(name: str, value: object, holds: bool, wanted: str) -> None:
    """Raise UserError where a configuration's value makes no sense."""
    if not holds:
        raise UserError(f"{name} = {value!r} must be {wanted}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise UserError, which names the choices, where a value is none of them."""
    known = tuple(choices)
    check(name, value, value in known, f"one of {', '.join(known)}")
