"""States: Tensors or arrays by name, which state_dict() gives and files hold.

In: a state and the Tensors that it is for. Out: their values assigned, all or none. Called by
modules, optimizers, schedules and moving averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from .dtypes import as_dtype
from .errors import DTypeError, UserError
from .indexing import leaf_like
from .partition import Partition
from .tensor import Tensor, no_grad

State = Mapping[str, Tensor | np.ndarray[Any, Any]]
KEEPERS: WeakSet[Any] = WeakSet()
"""What keeps Tensors from step to step beside a model, as optimizers do; each has `_state()`, its
Tensors by name. compiler/inspect/names.py tells of them by these names."""


class IncompatibleKeys(NamedTuple):
    """The keys that load_state_dict(strict=False) has passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def require_state(owner: str, state: Any) -> None:
    """UserError for what is no dict by name."""
    wanted = f"{owner}: a state is a dict of Tensors or arrays by name"
    if not isinstance(state, Mapping):
        raise UserError(f"{wanted}, not a {type(state).__name__}")
    for name in state:
        if not isinstance(name, str):
            raise UserError(f"{wanted}; this one has the key {name!r}")


def load_state(
    owner: str,
    targets: Mapping[str, Tensor],
    state: State,
    strict: bool,
    *,
    partitions: Mapping[str, Partition] = MappingProxyType({}),
) -> IncompatibleKeys:
    """Assign a state's values to Tensors of the same names, all or (UserError) none of them.
    partitions: of the targets that are this rank's part of what the state has whole."""
    require_state(owner, state)
    problems = []
    missing = [name for name in targets if name not in state]
    unexpected = [name for name in state if name not in targets]
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    shared = [name for name in targets if name in state]
    if strange := [name for name in shared if not _numeric(state[name])]:
        kinds = ", ".join(f"{name} ({type(state[name]).__name__})" for name in strange)
        problems.append(f"neither Tensors nor arrays of numbers: {kinds}")
    if wrong := [
        f"{name} is {tuple(state[name].shape)}, wanted {shape}"
        for name in shared
        for shape in [partitions[name].shape if name in partitions else targets[name].shape]
        if name not in strange and tuple(state[name].shape) != shape
    ]:
        problems.append(f"of another shape: {', '.join(wrong)}")
    if problems:
        raise UserError(f"{owner}: this state does not fit; {'; '.join(problems)}")
    with no_grad():
        # All of them first: one may hold a number that its dtype has no room for.
        values = [_of_dtype(state[name], targets[name], partitions.get(name)) for name in shared]
        for name, value in zip(shared, values, strict=True):
            targets[name].assign(value)
    return IncompatibleKeys(missing, unexpected)


def _of_dtype(value: Any, target: Tensor, partition: Partition | None) -> Tensor:
    given = value if isinstance(value, Tensor) else Tensor(leaf_like(value, target))
    return (given if partition is None else partition.part(given)).to(target.dtype)


def _numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        try:
            as_dtype(value.dtype)
        except DTypeError:
            return False
    return isinstance(value, (Tensor, np.ndarray))
