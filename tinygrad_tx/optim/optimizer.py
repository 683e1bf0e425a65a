"""Optimizer: what all optimizers share; and clipping of gradients.

In: parameters with gradients. Out: the parameters changed in place. Everything that a step changes
is a Tensor that exists from construction (moments, step count, skip count) and changes by
`assign`, so a compiled step carries it as state. There is no `if` on a value: where the gradients
are not finite, `where` leaves everything as it was.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from .. import ops
from ..arguments import shown
from ..context import current_trace, guarded, set_grad_enabled
from ..creation import stack, tensor, where, zeros, zeros_like
from ..distributed.functional import all_reduce
from ..dtypes import DType, float32, float64, int64
from ..errors import DeviceError, DTypeError, GradError, UserError
from ..mistakes import missing_from
from ..partition import Partition, Partitioned, partition_of, partitions_of, whole_state
from ..state import KEEPERS, State, load_state, require_state
from ..tensor import Tensor, no_grad

Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]
Moments = dict[str, Tensor]
_RATES = ("lr", "initial_lr")
_NO_OPTIONS = ("params", *_RATES)


class Group(UserDict[str, Any]):
    """Parameters with options of their own. group["lr"] is a 0-d float64 Tensor, and setting it
    assigns into that Tensor: a compiled step sees the new value, and is not traced again. The
    other options are Python values, looked at by the next step after one is set; a compiled step
    is then traced again.

    momentum: a 0-d float64 Tensor where a schedule sets the momentum, or the first of betas, which
        then counts in the place of that option.
    missed: int64 (parameters,), the steps that each parameter did not take, having no gradient.
    group["initial_lr"]: the lr before any schedule set it, as schedules need it; a Tensor, too.
    options: the Python values among the options, another object whenever one is set.
    checked: the options that have been found to make sense.
    """

    missed: Tensor
    momentum: Tensor | None = None
    options: tuple[tuple[str, Any], ...] = ()
    checked: tuple[tuple[str, Any], ...] | None = None

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "params" and key in self.data:
            raise UserError("parameters of an optimizer cannot be exchanged: make a new one")
        if key in _RATES and key in self.data:
            _require_rate(value)
            self.data[key].assign(value.reshape(()) if isinstance(value, Tensor) else value)
        else:
            super().__setitem__(key, value)
            self.options = tuple((k, v) for k, v in self.data.items() if k not in _NO_OPTIONS)

    def __repr__(self) -> str:
        options = {name: self.data[name] for name in _RATES if name in self.data}
        options |= {k: v for k, v in self.data.items() if k != "params"}
        params = self.data.get("params", ())
        what = f"{len(params)} parameters of {sum(p.numel() for p in params):,} numbers"
        return f"Group({', '.join([what, *(f'{k}={_shown(v)}' for k, v in options.items())])})"

    def __missing__(self, key: str) -> Any:
        known = ", ".join(name for name in self.data if name != "params")
        raise KeyError(f'the optimizer has no option "{key}"; it has {known}')


def _shown(value: Any) -> str:
    """An option as repr() has it; a Tensor by its number, where that can be seen."""
    if not isinstance(value, Tensor):
        return repr(value)
    hidden = current_trace() is not None or value.ndim or not value.node.has_values
    return "..." if hidden else repr(value.item())


def _listed(optimizer: Optimizer) -> str:
    lines = [f"({i}): {group!r}" for i, group in enumerate(optimizer.param_groups)]
    inside = "\n  ".join([*lines, f"step_count={_shown(optimizer.step_count)}"])
    return f"{type(optimizer).__name__}(\n  {inside}\n)"


# The methods of derived classes as they were called before they were public.
_BEFORE = {"_update": "update", "_moments": "moment_names", "_scalars": "scalars"}
_BEFORE |= {"_check": "check", "_steps": "steps_of"}


def adopt(cls: type, names: Mapping[str, str]) -> None:
    """A derived class's methods under old names, as those of the new ones."""
    for old, new in names.items():
        if old in vars(cls) and new not in vars(cls):
            setattr(cls, new, vars(cls)[old])


class Optimizer:
    """Base of the optimizers. A derived one hands its options to __init__, "lr" among them, and
    writes `update`; `moment_names` and `scalars` where it needs any.

    param_groups: a Group for each dict that was given, or one for all parameters. They and their
        parameters are tuples: what is learnt changes by add_param_group alone.
    defaults: the options of a group that does not name them.
    step_count: 0-d int64 Tensor, the steps taken. A parameter's own steps leave out those at which
        it had no gradient: its group counts these, for a step at which all have one then changes
        nothing but the count of all.
    skipped: 0-d int64 Tensor, the steps that were not, because the gradients' norm was infinite or
        NaN: such a step changes no parameter, no moment, and counts for nothing else.
    moments: what is remembered of each parameter, in the order of the groups; in float32 where the
        parameter has 16 bits, as is the step: the new parameter is rounded once.
    """

    defaults: dict[str, Any]
    param_groups: tuple[Group, ...]
    parameters: tuple[Tensor, ...]
    step_count: Tensor
    skipped: Tensor
    moments: list[Moments]
    _group_count: int

    def __init_subclass__(cls) -> None:
        adopt(cls, _BEFORE)

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        name = type(self).__name__
        if not isinstance(defaults, Mapping):
            raise TypeError(f"{name}: its options must be a dict, not {defaults!r}")
        if "lr" not in defaults:
            raise UserError(f'{name}: its options, {", ".join(defaults) or "none"}, lack "lr"')
        if type(self).update is Optimizer.update and type(self)._take is Optimizer._take:
            raise TypeError(
                f"{name} must define update(self, p, grad, moments, group, scalars), which "
                "assigns to the parameter p"
            )
        self.defaults = dict(defaults)
        groups = _groups(name, params, defaults)
        device = _one_device(name, (p for group in groups for p in group["params"]))
        self.step_count, self.skipped = (tensor(0, dtype=int64, device=device) for _ in range(2))
        self.param_groups, self.parameters, self.moments = (), (), []
        for group in groups:
            self._add(group)
        KEEPERS.add(self)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Learn more parameters: {"params": [...], "lr": ..., ...}, with the defaults for options
        that it does not name. They have taken no step yet, whatever the others have; schedules that
        are there take the group's lr as they took the others'. A compiled step is traced again."""
        name = type(self).__name__
        if current_trace() is not None:
            raise UserError(f"{name}: add_param_group() belongs outside of a compiled function")
        if not isinstance(param_group, Mapping):
            raise TypeError(f"{name}: a parameter group is a dict, not {shown(param_group)}")
        (group,) = _groups(name, [param_group], self.defaults, self.parameters)
        _one_device(name, (*self.parameters, *group["params"]))
        self._add(group)

    def _add(self, group: Group) -> None:
        rate = group.data.pop("lr")
        _require_rate(rate.item() if isinstance(rate, Tensor) and rate.numel() == 1 else rate)
        device = self.step_count.device
        group["lr"] = tensor(rate, dtype=float64, device=device)
        if any("initial_lr" in other for other in self.param_groups):
            group["initial_lr"] = group["lr"].detach()
        group.missed = self.step_count.detach() + zeros(
            len(group["params"]), dtype=int64, device=device
        )
        self.check(group)
        group.checked = group.options
        for p in group["params"]:
            names = self._remembers(group)
            self.moments.append({key: self._start(group, key, p) for key in names})
        self.param_groups += (group,)
        self.parameters += group["params"]
        self._group_count = len(self.param_groups)

    def __getattr__(self, name: str) -> Any:
        if name in Optimizer.__annotations__:
            kind = type(self).__name__
            raise TypeError(f"{kind}: its __init__ must call super().__init__(params, defaults)")
        raise missing_from(self, f"{type(self).__name__!r} object", name)

    __repr__ = _listed

    @no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient, unless the gradients are not finite. One
        that has none stays as it is, and so do its moments and its count of steps.

        closure: computes the loss and its gradients anew, and returns the loss, as does step()."""
        loss = None
        if closure is not None:
            if not callable(closure):
                raise TypeError(f"step: closure must be a function or None, not {closure!r}")
            with set_grad_enabled(True):
                loss = closure()
        self._step()
        return loss

    def _step(self) -> None:
        guarded(self, "_group_count")
        having = [p for p in self.parameters if p.grad is not None]
        if not having:
            return
        if having[0]._node.device != self.step_count._node.device:
            raise DeviceError(
                f"{type(self).__name__}: the parameters are on {having[0].device}, its moments on "
                f"{self.step_count.device}: make the optimizer after model.to(...)"
            )
        finite = squared_norm(having).isfinite()
        taken, one = finite.to(float64), finite.to(int64)
        remembered = iter(self.moments)
        groups = [
            (group, [(p, p.grad, next(remembered)) for p in group["params"]])
            for group in self.param_groups
        ]
        for group, members in groups:  # before anything is changed
            if guarded(group, "options") is not group.checked:
                self._check_again(group, members)
        for group, members in groups:
            lacking = [grad is None for _, grad, _ in members]
            if not all(lacking):
                scalars = _Scalars(type(self).__name__, self.scalars(group, taken))
            for i, (p, grad, moments) in enumerate(members):
                if grad is not None:
                    grad = -grad if group.get("maximize") else grad
                    # Of 16 bits only the parameter itself: a square of a gradient needs more.
                    wide = p.detach().to(float32) if p.dtype.is_half else p
                    numbers = scalars.of(wide, i)
                    self._take(wide, grad.to(wide.dtype), finite, moments, group, numbers)
                    if wide is not p:
                        p.assign(wide.to(p.dtype))
            if any(lacking):
                group.missed.assign(group.missed + one * tensor(lacking, device=one.device))
        self.step_count.assign(self.step_count + one)
        self.skipped.assign(self.skipped + (~finite).to(int64))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or (set_to_none=False) make them zero."""
        guarded(self, "_group_count")
        for p in self.parameters:
            if p.grad is not None:
                p.grad = None if set_to_none else zeros_like(p.grad)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a step depends on, under flat names: "step", "skipped"; of each group "lr",
        "missed" and, once there was a schedule, "initial_lr"; and "{moment}.{parameter number}",
        the whole one where ranks share the parameter, who then ask together."""
        return whole_state(self._state(), _partitions(self))

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a state_dict of an optimizer of the same parameters, in the same order and in
        groups of the same sizes; UserError naming what does not fit, and then nothing is changed.

        A state without "missed", as it was when all parameters shared one count, means that none
        has missed a step."""
        state, targets = state_dict, self._state()
        fresh: dict[int, Tensor] = {}
        require_state(type(self).__name__, state)
        for i, group in enumerate(self.param_groups):
            name = f"initial_lr.{i}"
            if name not in state:
                targets.pop(name, None)
            elif name not in targets:
                targets[name] = fresh[i] = zeros_like(group["lr"])
        if not any(name.startswith("missed.") for name in state):
            counts = {n: zeros_like(t) for n, t in targets.items() if n.startswith("missed.")}
            state = {**state, **counts}
        load_state(type(self).__name__, targets, state, strict=True, partitions=_partitions(self))
        for i, rate in fresh.items():
            self.param_groups[i]["initial_lr"] = rate

    def _state(self) -> dict[str, Tensor]:
        groups = list(enumerate(self.param_groups))
        return {
            "step": self.step_count,
            "skipped": self.skipped,
            **{f"lr.{i}": group["lr"] for i, group in groups},
            **{f"initial_lr.{i}": g["initial_lr"] for i, g in groups if "initial_lr" in g},
            **{f"missed.{i}": group.missed for i, group in groups},
            **{f"{k}.{i}": t for i, moments in enumerate(self.moments) for k, t in moments.items()},
        }

    # The parts of an optimizer -------------------------------------------------------------------
    def check(self, group: Group) -> None:
        """Raise UserError where an option makes no sense."""
        if "weight_decay" in group:
            decay = group["weight_decay"]
            require_numbers(weight_decay=decay)
            require("weight_decay", decay, decay >= 0, "0 or more")

    def _check_again(self, group: Group, members: list[Any]) -> None:
        """Look at options that were set since the last step."""
        self.check(group)
        for name in self._remembers(group):
            if any(name not in moments for *_, moments in members):
                raise UserError(
                    f"{type(self).__name__}: {name} was switched on after the optimizer was made, "
                    "which remembers none: make a new one"
                )
        group.checked = group.options

    def _remembers(self, group: Group) -> tuple[str, ...]:
        names = self.moment_names(group)
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            kind = type(self).__name__
            raise TypeError(f"{kind}: moment_names must give a tuple of names, not {names!r}")
        return names

    def moment_names(self, group: Group) -> tuple[str, ...]:
        """The names of what is remembered of each parameter."""
        return ()

    def _start(self, group: Group, name: str, p: Tensor) -> Tensor:
        """What is remembered of a parameter before its first step: zeros."""
        return zeros_like(p, dtype=wide(p))

    def steps_of(self, group: Group) -> Tensor:
        """The steps that each parameter of a group has taken: int64 (parameters,)."""
        return self.step_count - group.missed

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        """The numbers that the updates of a group share, as float64 Tensors: 0-d, or with one
        entry for each parameter. `taken` is 1, or 0 where the step is skipped: then they must be
        such that nothing changes."""
        return {"lr": taken * group["lr"], "taken": taken}

    def update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> Any:
        """Assign p and its moments, and return None. grad is 0 where the step is skipped; the
        scalars are 0-d, in p's dtype."""
        raise NotImplementedError

    def _take(
        self,
        p: Tensor,
        grad: Tensor,
        finite: Tensor,
        moments: Moments,
        group: Group,
        scalars: dict[str, Tensor],
    ) -> None:
        """The same with the gradient as it is: for optimizers whose update is one op."""
        if self.update(p, grad.where(finite, 0), moments, group, scalars) is not None:
            kind = type(self).__name__
            raise TypeError(f"{kind}: update must assign to the parameter, and return nothing")


for _old, _new in _BEFORE.items():  # for super() of those
    setattr(Optimizer, _old, getattr(Optimizer, _new))


def _partitions(optimizer: Optimizer) -> dict[str, Partition]:
    """How ranks share moments, which is as they share the parameters."""
    owners = enumerate(zip(optimizer.parameters, optimizer.moments, strict=True))
    return partitions_of({f"{name}.{i}": p for i, (p, moments) in owners for name in moments})


def momentum(group: Group, option: float) -> float | Tensor:
    """The option, or what a schedule has set in its place."""
    return option if group.momentum is None else group.momentum


def decayed(p: Tensor, grad: Tensor, group: Group, scalars: dict[str, Tensor]) -> Tensor:
    """The gradient with weight_decay * p, which a step that is skipped leaves out."""
    decay = group["weight_decay"]
    return grad + p * (scalars["taken"] * decay) if decay else grad


class _Scalars:
    """The numbers of a group, converted and taken apart once for all parameters of a dtype."""

    def __init__(self, name: str, exact: dict[str, Tensor]) -> None:
        self._name, self._exact = name, exact
        self._made: dict[DType, dict[str, Tensor | tuple[Tensor, ...]]] = {}

    def of(self, p: Tensor, i: int) -> dict[str, Tensor]:
        """Those of parameter i of the group."""
        made = self._made.get(p.dtype)
        if made is None:
            try:
                cast = [(name, x.to(p.dtype)) for name, x in self._exact.items()]
            except AttributeError:
                raise TypeError(
                    f"{self._name}: scalars must give a dict of Tensors, not {self._exact!r}"
                ) from None
            made = {name: ops.UNBIND(x) if x.ndim else x for name, x in cast}
            self._made[p.dtype] = made
        return {name: x[i] if isinstance(x, tuple) else x for name, x in made.items()}


def wide(p: Tensor) -> DType:
    """The dtype that a parameter's step is computed in."""
    return float32 if p.dtype.is_half else p.dtype


def require(name: str, value: Any, holds: bool, wanted: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}; it must be {wanted}")


def require_numbers(**options: Any) -> None:
    """TypeError naming an option that is no real number."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, not {shown(value)}")


def require_betas(group: Group) -> None:
    """The same of an option betas that is not two shares."""
    betas = group["betas"]
    wanted = "two numbers, at least 0 and below 1"
    require("betas", betas, isinstance(betas, (tuple, list)) and len(betas) == 2, wanted)
    for beta in betas:
        require_numbers(betas=beta)
    require("betas", betas, all(0 <= b < 1 for b in betas), wanted)


def _require_rate(value: Any) -> None:
    """The same of lr, which may also be a Tensor of one number (whose value is not looked at, for
    the sake of traces and of devices); and no number below 0."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.dtype.kind == "b":
            raise TypeError(f"lr must be one number, not a {value.dtype.name} {value.shape}")
        return
    require_numbers(lr=value)
    require("lr", value, value >= 0, "0 or more")


def tensors(name: str, given: Any, wanted: str = "Tensors") -> list[Any]:
    """The given collection as a list; TypeError naming the function where it is none."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name}: params must be {wanted}, not {shown(given)}")
    return list(given)


def require_tensors(name: str, members: list[Any]) -> None:
    for p in members:
        if not isinstance(p, Tensor):
            raise TypeError(f"{name}: a parameter must be a Tensor, not {shown(p)}")


def _groups(
    name: str, params: Params, defaults: dict[str, Any], before: tuple[Tensor, ...] = ()
) -> list[Group]:
    """The groups that params means. before: the parameters that are in others."""
    wanted = "Tensors or dicts"
    if isinstance(params, Tensor):
        raise TypeError(f"{name}: params must be a list of {wanted}, not one Tensor")
    given = tensors(name, params, wanted)
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
        members = [members] if isinstance(members, Tensor) else tensors(name, members, wanted)
        require_tensors(name, members)
        groups.append(Group({**defaults, **one, "params": tuple(members)}))
    everything = [p for group in groups for p in group["params"]]
    if not everything:
        raise UserError(f"{name} got no parameters")
    if len({id(p) for p in (*before, *everything)}) != len(before) + len(everything):
        raise UserError(f"{name}: a parameter is given twice; each belongs to one group")
    for p in everything:
        if not p.is_leaf:
            raise GradError(f"{name}: only leaf Tensors can be changed, not a computed {p.shape}")
        if not p.dtype.is_floating_point:
            raise DTypeError(f"{name}: a parameter has a floating dtype, not {p.dtype.name}")
    return groups


def _one_device(name: str, tensors: Iterable[Tensor]) -> str:
    devices = sorted({t.device for t in tensors})
    if len(devices) > 1:
        raise DeviceError(f"{name}: parameters are on {' and '.join(devices)}; move them to one")
    return devices[0]


# Norms -----------------------------------------------------------------------------------------


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their joint norm (of order norm_type) is at most max_norm.

    Returns the norm before, a 0-d Tensor. Where it is infinite or NaN the gradients stay as they
    are, and the optimizer skips the step; error_if_nonfinite: GradError instead, which a traced
    function cannot raise. foreach, PyTorch's way to run it, changes nothing.
    """
    name = "clip_grad_norm_"
    members = [parameters] if isinstance(parameters, Tensor) else tensors(name, parameters)
    require_tensors(name, members)
    if isinstance(norm_type, str) and norm_type.removeprefix("-") == "inf":  # as PyTorch takes it
        norm_type = float(norm_type)
    require_numbers(max_norm=max_norm, norm_type=norm_type)
    having = [p for p in members if p.grad is not None]
    if not having:
        return tensor(0.0, device=members[0].device if members else None)
    if norm_type == 2:
        norm = squared_norm(having).sqrt()
    elif any(partition_of(p) is not None for p in having):
        raise UserError("clip_grad_norm_: norm_type must be 2 where ranks share the parameters")
    else:
        grads = [p.grad for p in having if p.grad is not None]
        wide = [g.to(float32) if g.dtype.itemsize < 4 else g for g in grads]
        norm = stack([g.norm(norm_type).to(wide[0].dtype) for g in wide]).norm(norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise GradError(f"clip_grad_norm_: the norm of the gradients is {norm.item()}")
    scale = where(norm.isfinite(), (max_norm / (norm + 1e-6)).clip(max=1.0), 1.0)
    for p in having:
        assert p.grad is not None
        p.grad = (p.grad * scale).to(p.dtype)  # a number of 16 bits would become float32
    return norm


@no_grad()
def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Bring every number of every gradient into -clip_value to clip_value."""
    name = "clip_grad_value_"
    members = [parameters] if isinstance(parameters, Tensor) else tensors(name, parameters)
    require_tensors(name, members)
    require_numbers(clip_value=clip_value)
    for p in members:
        if p.grad is not None:
            p.grad = p.grad.clip(-float(clip_value), float(clip_value))


def squared_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The sum of all squares of their gradients, in float32 or better; over all ranks where these
    share a parameter, so that all find the same."""
    own: Tensor | None = None
    shared: Tensor | None = None
    for p in parameters:
        grad = p.grad
        if grad is None:
            continue
        wide = grad.to(float32) if grad.dtype.itemsize < 4 else grad
        part = (wide * wide).sum()
        if isinstance(p, Partitioned):
            shared = part if shared is None else shared + part
        else:
            own = part if own is None else own + part
    if shared is not None:
        shared = all_reduce(shared)
        own = shared if own is None else own + shared
    assert own is not None
    return own
