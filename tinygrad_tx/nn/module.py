"""Module, Parameter, and the containers of modules.

A Module is a Python object: its Parameters and Modules are those of its attributes, found when
asked for. In: whatever `forward` takes. Out: what it gives; the nodes made inside carry the
module's path ("Transformer.encoder.layers.0"). Models and users derive from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload
from weakref import ref

import numpy as np

from ..dtypes import DType
from ..errors import DTypeError, UserError
from ..node import guarded, rebound, scope
from ..tensor import Tensor, no_grad

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="Module")
M_co = TypeVar("M_co", bound="Module", covariant=True)
State = Mapping[str, "Tensor | np.ndarray[Any, Any]"]


class Parameter(Tensor):
    """A Tensor that a Module learns: an attribute of this type is listed by parameters()."""

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        super().__init__(data.detach().node)
        self.requires_grad_(requires_grad)

    def move(self, target: str | DType) -> None:
        """Go to another device or dtype, staying the same object; a gradient goes along."""
        grad, self.grad = self.grad, None
        node = rebound(self.detach().to(target).node, requires_grad=self.requires_grad)
        node.owner = ref(self)
        self._point(node)
        self.grad = None if grad is None else grad.to(target)


def scoped(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method whose nodes belong to its module, as those of forward do."""

    @wraps(method)
    def run(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with scope(self._path):
            return method(self, *args, **kwargs)

    return run


class Module:
    """The base of layers and models: derive from it, set Parameters and Modules as attributes, and
    write `forward`. Its constructor need not be called."""

    forward: Callable[..., Any]
    _path = "Module"  # the class's name, or the parent's path and the attribute's name
    _training = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._path = cls.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with scope(self._path):
            return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module):
            value._place(f"{self._path}.{name}")
        object.__setattr__(self, name, value)

    def _place(self, path: str) -> None:
        self._path = path
        for name, child in self.named_children():
            child._place(f"{path}.{name}")

    # What it consists of -----------------------------------------------------------------------
    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Itself as "", and every module inside it by its dotted name; a shared one once."""
        seen: set[int] = set()

        def walk(name: str, module: Module) -> Iterator[tuple[str, Module]]:
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                for child_name, child in module.named_children():
                    yield from walk(f"{name}.{child_name}" if name else child_name, child)

        return walk("", self)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter by its dotted name; a shared one once, by its first name."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The values of all parameters now, by name: later training does not change them."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: State, strict: bool = True) -> None:
        """Take values by name from Tensors or arrays, converted to each parameter's dtype and
        device. UserError naming every missing, unexpected and mis-shaped entry, and then nothing
        is loaded; strict=False lets names be missing or unexpected."""
        load_state(type(self).__name__, dict(self.named_parameters()), state, strict)

    # Modes and places --------------------------------------------------------------------------
    @property
    def training(self) -> bool:
        """Whether it is in training mode (as it is made) or in evaluation mode."""
        mode: bool = guarded(self, "_training")
        return mode

    def train(self: M, mode: bool = True) -> M:
        """Put it, and every module inside, in training mode."""
        for module in self.modules():
            module._training = mode
        return self

    def eval(self: M) -> M:
        """Put it, and every module inside, in evaluation mode: no dropout."""
        return self.train(False)

    def to(self: M, target: str | DType) -> M:
        """Move every parameter, in place, to a device ("cpu", "cuda") or a floating dtype.

        Optimizers made before keep their moments where those were: move first."""
        if isinstance(target, DType) and not target.is_floating_point:
            raise DTypeError(f"a module's parameters are of a floating dtype, not {target.name}")
        for parameter in self.parameters():
            parameter.move(target)
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self: M, value: bool = True) -> M:
        """Learn (or freeze) every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(value)
        return self

    # Looks -------------------------------------------------------------------------------------
    def describe(self) -> str:
        """Its options, for repr()."""
        return ""

    def __repr__(self) -> str:
        children = _runs((name, repr(child)) for name, child in self.named_children())
        lines = [f"({name}): {text}" for name, text in children]
        options = self.describe()
        if not lines:
            return f"{type(self).__name__}({options})"
        inside = "\n".join([options, *lines] if options else lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inside}\n)"


def _runs(children: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Neighbours that look alike as one: (0-5): 6 x EncoderLayer(...)."""
    runs: list[tuple[list[str], str]] = []
    for name, text in children:
        if runs and runs[-1][1] == text and name.isdecimal():
            runs[-1][0].append(name)
        else:
            runs.append(([name], text))
    for names, text in runs:
        alone = len(names) == 1
        yield (names[0], text) if alone else (f"{names[0]}-{names[-1]}", f"{len(names)} x {text}")


class ModuleList(Module, Generic[M_co]):
    """Modules by number, for a forward that loops over them."""

    def __init__(self, modules: Iterable[M_co] = ()) -> None:
        self._items: list[M_co] = []
        for module in modules:
            self.append(module)

    def append(self, module: M_co) -> None:  # type: ignore[misc]  # a container, but one filled once
        module._place(f"{self._path}.{len(self._items)}")
        self._items.append(module)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((str(i), module) for i, module in enumerate(self._items))

    def __iter__(self) -> Iterator[M_co]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> M_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[M_co]: ...
    def __getitem__(self, index: int | slice) -> M_co | list[M_co]:
        return self._items[index]


class Sequential(ModuleList[Module]):
    """Modules called one after the other, each on what the one before gave."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


def load_state(owner: str, targets: Mapping[str, Tensor], state: State, strict: bool) -> None:
    """Assign a state's values to Tensors of the same names, all or (UserError) none of them."""
    problems = []
    if strict and (missing := [name for name in targets if name not in state]):
        problems.append(f"missing: {', '.join(missing)}")
    if strict and (unexpected := [name for name in state if name not in targets]):
        problems.append(f"unexpected: {', '.join(unexpected)}")
    shared = [name for name in targets if name in state]
    if wrong := [
        f"{name} is {tuple(state[name].shape)}, wanted {targets[name].shape}"
        for name in shared
        if tuple(state[name].shape) != targets[name].shape
    ]:
        problems.append(f"of another shape: {', '.join(wrong)}")
    if problems:
        raise UserError(f"{owner}: this state does not fit; {'; '.join(problems)}")
    with no_grad():
        for name in shared:
            targets[name].assign(state[name])
