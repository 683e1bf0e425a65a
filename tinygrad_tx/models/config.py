"""check: what the configurations of all models have in common. Called by their __post_init__."""

from __future__ import annotations

from ..errors import UserError


def check(name: str, value: object, holds: bool, wanted: str) -> None:
    """Raise UserError where a configuration's value makes no sense."""
    if not holds:
        raise UserError(f"{name} = {value!r} must be {wanted}")
