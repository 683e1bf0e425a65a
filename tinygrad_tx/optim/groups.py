"""Parameter groups by the names of parameters.

In: a model, and options for patterns of names. Out: groups for an optimizer. Called by users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..nn.adapters import fits
from ..nn.module import Module


def parameter_groups(
    model: Module, options: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Groups of the parameters that learn, one for each pattern, in its order, and one with the
    optimizer's own options for the rest: tx.optim.AdamW(parameter_groups(model, {
    "*.bias": {"weight_decay": 0.0}, "layers.0.*": {"lr": 1e-5}})). A parameter belongs to the
    first pattern that its dotted name, or the end of it, fits; frozen ones belong to none.

    UserError where nothing fits a pattern.
    """
    groups: dict[str, list[Any]] = {pattern: [] for pattern in options}
    rest: list[Any] = []
    names = [name for name, _ in model.named_parameters()]
    for pattern in options:
        if not any(fits(name, pattern) for name in names):
            raise UserError(f"parameter_groups: no parameter is called {pattern!r}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found = next((pattern for pattern in options if fits(name, pattern)), None)
            (rest if found is None else groups[found]).append(parameter)
    found_groups = [{"params": groups[p], **options[p]} for p in options if groups[p]]
    return [*found_groups, *([{"params": rest}] if rest else [])]
