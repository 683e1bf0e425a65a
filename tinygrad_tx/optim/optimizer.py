"""Optimizer: what SGD, Adam and AdamW share; and clipping of gradients.

In: parameters with gradients. Out: the parameters changed in place. Everything that a step changes
is a Tensor that exists from construction (moments, step count, skip count) and changes by
`assign`, so a compiled step carries it as state. There is no `if` on a value: where the gradients
are not finite, `where` leaves everything as it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import Any

from ..creation import tensor, where, zeros_like
from ..dtypes import float32, float64, int64
from ..errors import DeviceError, GradError, UserError
from ..nn.module import State, load_state
from ..tensor import Tensor, no_grad

Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]
Moments = dict[str, Tensor]


class Group(UserDict[str, Any]):
    """Parameters with options of their own. group["lr"] is a 0-d float64 Tensor, and setting it
    assigns into that Tensor: a compiled step sees the new value, and is not traced again. The
    other options are Python values, which a compiled step takes for constants."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr" and key in self.data:
            self.data[key].assign(value)
        else:
            super().__setitem__(key, value)


class Optimizer(ABC):
    """Base of the optimizers.

    param_groups: a Group for each dict that was given, or one for all parameters.
    step_count: 0-d int64 Tensor, the steps taken.
    skipped: 0-d int64 Tensor, the steps that were not, because the gradients' norm was infinite or
        NaN: such a step changes no parameter, no moment, and not step_count.
    moments: what is remembered of each parameter, in the order of the groups.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.param_groups = _groups(type(self).__name__, params, defaults)
        self.parameters = [p for group in self.param_groups for p in group["params"]]
        device = _one_device(type(self).__name__, self.parameters)
        for group in self.param_groups:
            rate = group.data.pop("lr")
            group["lr"] = tensor(rate, dtype=float64, device=device)
            self._check(group)
        self.step_count = tensor(0, dtype=int64, device=device)
        self.skipped = tensor(0, dtype=int64, device=device)
        self.moments = [
            {name: zeros_like(p) for name in self._moments(group)}
            for group in self.param_groups
            for p in group["params"]
        ]

    @no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient, unless the gradients are not finite."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if not grads:
            return
        finite = _squared_norm(grads).isfinite()
        taken = finite.to(float64)
        remembered = iter(self.moments)
        for group in self.param_groups:
            exact = self._scalars(group, taken)
            scalars = {
                dtype: {name: x.to(dtype) for name, x in exact.items()}
                for dtype in dict.fromkeys(p.dtype for p in group["params"])
            }
            for p in group["params"]:
                moments = next(remembered)
                if p.grad is not None:
                    self._update(p, p.grad.where(finite, 0), moments, group, scalars[p.dtype])
        self.step_count.assign(self.step_count + finite.to(int64))
        self.skipped.assign(self.skipped + (~finite).to(int64))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or (set_to_none=False) make them zero."""
        for p in self.parameters:
            if p.grad is not None:
                p.grad = None if set_to_none else zeros_like(p.grad)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a step depends on, under flat names: "step", "skipped", "lr.{group}" and
        "{moment}.{parameter number}"."""
        return {name: t.detach() for name, t in self._state().items()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a state_dict of an optimizer of the same parameters; UserError naming what
        does not fit, and then nothing is changed."""
        load_state(type(self).__name__, self._state(), state, strict=True)

    def _state(self) -> dict[str, Tensor]:
        return {
            "step": self.step_count,
            "skipped": self.skipped,
            **{f"lr.{i}": group["lr"] for i, group in enumerate(self.param_groups)},
            **{f"{k}.{i}": t for i, moments in enumerate(self.moments) for k, t in moments.items()},
        }

    # What an optimizer is made of ----------------------------------------------------------------
    def _check(self, group: Group) -> None:
        """Raise UserError where an option makes no sense."""
        require("lr", group["lr"].item(), group["lr"].item() >= 0, "0 or more")
        decay = group["weight_decay"]
        require("weight_decay", decay, decay >= 0, "0 or more")

    @abstractmethod
    def _moments(self, group: Group) -> tuple[str, ...]:
        """The names of what is remembered of each parameter; all start as zeros."""

    @abstractmethod
    def _scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        """The 0-d Tensors, in float64, that the updates of all of a group share. `taken` is 1, or 0
        where the step is skipped: then they must be such that nothing changes."""

    @abstractmethod
    def _update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        """Assign p and its moments; grad is 0 where the step is skipped."""


def require(name: str, value: Any, holds: bool, wanted: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}; it must be {wanted}")


def _groups(name: str, params: Params, defaults: dict[str, Any]) -> list[Group]:
    given = list(params)
    if given and not isinstance(given[0], Mapping):
        given = [{"params": given}]
    groups = []
    for one in given:
        if not isinstance(one, Mapping) or "params" not in one:
            raise UserError(f'{name}: a parameter group must be a dict with "params"')
        for key in one:
            if key != "params" and key not in defaults:
                raise UserError(f"{name} has no option {key!r}; it has {', '.join(defaults)}")
        members = one["params"]
        members = [members] if isinstance(members, Tensor) else list(members)
        groups.append(Group({**defaults, **one, "params": members}))
    everything = [p for group in groups for p in group["params"]]
    if not everything:
        raise UserError(f"{name} got no parameters")
    if len({id(p) for p in everything}) != len(everything):
        raise UserError(f"{name}: a parameter is given twice; each belongs to one group")
    for p in everything:
        if not p.is_leaf:
            raise GradError(f"{name}: only leaf Tensors can be changed, not a computed {p.shape}")
    return groups


def _one_device(name: str, tensors: Iterable[Tensor]) -> str:
    devices = sorted({t.device for t in tensors})
    if len(devices) > 1:
        raise DeviceError(f"{name}: parameters are on {' and '.join(devices)}; move them to one")
    return devices[0]


# Norms -----------------------------------------------------------------------------------------


@no_grad()
def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most max_norm.

    Returns the norm before, a 0-d Tensor. Where it is infinite or NaN the gradients stay as they
    are, and the optimizer skips the step.
    """
    members = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    having = [p for p in members if p.grad is not None]
    if not having:
        return tensor(0.0)
    norm = _squared_norm([p.grad for p in having if p.grad is not None]).sqrt()
    scale = where(norm.isfinite(), (max_norm / (norm + 1e-6)).clip(max=1.0), 1.0)
    for p in having:
        assert p.grad is not None
        p.grad = p.grad * scale
    return norm


def _squared_norm(grads: list[Tensor]) -> Tensor:
    """The sum of all squares, in float32 or better."""
    total: Tensor | None = None
    for grad in grads:
        wide = grad.to(float32) if grad.dtype.itemsize < 4 else grad
        part = (wide * wide).sum()
        total = part if total is None else total + part
    assert total is not None
    return total
