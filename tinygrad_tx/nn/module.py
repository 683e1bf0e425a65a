"""Module and Parameter.

A Module is a Python object: its Parameters and Modules are those of its attributes, found when
asked for; buffers, which are plain Tensors, are told apart by name. Models and users derive from
it; calls.py has what a call does, containers.py lists and dicts of modules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar
from weakref import ref

from ..arguments import shown
from ..context import guarded
from ..creation import zeros_like
from ..dtypes import DType
from ..errors import DTypeError
from ..node import rebound
from ..partition import partitions_of, whole_state
from ..spelling import refuse
from ..state import IncompatibleKeys, State, load_state
from ..tensor import Tensor, placed
from .calls import Calls

T = TypeVar("T", bound=Tensor)
M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A Tensor that a Module learns: an attribute of this type is listed by parameters()."""

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            kind = type(data).__name__
            raise TypeError(f"Parameter: data must be a Tensor, not {kind}: use tx.tensor(...)")
        super().__init__(data.detach().node)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def move(self, target: str | DType) -> None:
        """Go to another device or dtype, staying the same object; a gradient goes along."""
        grad, self.grad = self.grad, None
        node = rebound(self.detach().to(target).node, requires_grad=self.requires_grad)
        node.owner = ref(self)
        self._point(node)
        self.grad = None if grad is None else grad.to(target)


class Module(Calls):
    """The base of layers and models: derive from it, set Parameters and Modules as attributes, and
    write `forward`. Its constructor need not be called.

    A list, tuple or dict of Parameters or Modules as an attribute is a TypeError, since nothing
    would find them in there: use nn.ModuleList, ModuleDict, ParameterList or ParameterDict.
    """

    _training = True
    _buffer_names: Mapping[str, bool] = {}  # the names of its buffers; whether state_dict has them

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._buffer_names:
            _set_buffer(self, name, value)
            return
        if isinstance(value, (Module, Parameter)):
            self._require_free(name)
        elif value is not None and isinstance(held := vars(self).get(name), (Module, Parameter)):
            raise TypeError(
                f"{type(self).__name__}.{name} is a {type(held).__name__}, which a "
                f"{type(value).__name__} cannot replace: set another one or None, `del` it first, "
                "or change its values by .assign()"
            )
        elif isinstance(value, _PLAIN):
            self._require_found(name, value)
        elif isinstance(getattr(value, "__wrapped__", None), Module):
            raise TypeError(
                f"{type(self).__name__}.{name}: parameters(), eval() and state_dict() do not see "
                "into a compiled Module: set the Module itself, and compile the whole or its use"
            )
        if isinstance(value, Module):
            if any(inside is self for inside in value.modules()):
                raise ValueError(f"{type(self).__name__}.{name}: a module cannot be inside itself")
            value._place(f"{self._path}.{name}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name in self._buffer_names:
            vars(self)["_buffer_names"] = {k: v for k, v in self._buffer_names.items() if k != name}

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Keep a Tensor that is no Parameter: buffers() lists it, to() moves it, state_dict() holds
        it where it is persistent, and a compiled function that changes it carries it as state.

        Setting the attribute later gives the buffer another value, and keeps it the same Tensor."""
        kind = type(self).__name__
        if not isinstance(name, str):
            raise TypeError(f"{kind}: the name of a buffer is a str, not {shown(name)}")
        self._require_free(name)
        if tensor is not None and not isinstance(tensor, Tensor):
            given = type(tensor).__name__
            raise TypeError(f'{kind}: buffer "{name}" must be a Tensor or None, not a {given}')
        if name in vars(self) and name not in self._buffer_names:
            raise TypeError(f'{kind}: "{name}" is an attribute already; `del` it or choose another')
        vars(self)["_buffer_names"] = {**self._buffer_names, name: persistent}
        vars(self)[name] = None if tensor is None else Tensor(tensor.detach().node)

    def _require_free(self, name: str) -> None:
        """TypeError for a name that would hide a method, or could not be told from a path."""
        if not name or "." in name or name in _RESERVED:
            why = "is the name of a method of every module" if name in _RESERVED else "is no name"
            raise TypeError(f'{type(self).__name__}: "{name}" {why}; choose another')

    def _require_found(self, name: str, value: Any) -> None:
        """TypeError where a plain container holds what is found nowhere else."""
        inside = list(_held(value))
        if not inside:
            return
        known = {id(x) for _, m in _walk(self) for x in (m, *vars(m).values())}
        if lost := [x for x in inside if id(x) not in known]:
            what = "Parameter" if isinstance(lost[0], Parameter) else "Module"
            container = "Dict" if isinstance(value, dict) else "List"
            raise TypeError(
                f"{type(self).__name__}.{name}: parameters(), eval() and state_dict() see nothing "
                f"inside a {type(value).__name__}: use nn.{what}{container} for its {what}s"
            )

    def _place(self, path: str) -> None:
        self._path = path
        for name, child in self._children():
            child._place(f"{path}.{name}")

    # Its parts ---------------------------------------------------------------------------------
    def _children(self) -> Iterator[tuple[str, Module]]:
        """The Modules among its attributes, in the order in which these were first set."""
        return ((name, x) for name, x in vars(self).items() if isinstance(x, Module))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside it, by name; a shared one once."""
        seen: set[int] = set()
        for name, child in self._children():
            if id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules right inside it; a shared one once."""
        return (child for _, child in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Itself as "", and every module inside it by its dotted name; a shared one once."""
        for path, module in _walk(self):
            yield path, module
            for name, value in vars(module).items():
                # Containers may have been filled since they were set; most of them never are.
                if type(value) not in _LEAVES and isinstance(value, _PLAIN) and value:
                    module._require_found(name, value)

    def modules(self) -> Iterator[Module]:
        """Itself, and every module inside it; a shared one once."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter by its dotted name, after prefix and a dot; a shared one once, by its
        first name. recurse=False: its own only, not those of the modules inside."""
        return self._named(_parameters, prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every Parameter; a shared one once. recurse=False: its own only."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Every buffer by its dotted name, as named_parameters() lists Parameters."""
        return self._named(_buffers, prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Every buffer; a shared one once. recurse=False: its own only."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(
        self, own: Callable[[Module], Iterator[tuple[str, T]]], prefix: str, recurse: bool = True
    ) -> Iterator[tuple[str, T]]:
        """What `own` finds in each module, by dotted names; a shared Tensor once."""
        seen: set[int] = set()
        for path, module in self.named_modules() if recurse else [("", self)]:
            for name, value in own(module):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield ".".join(part for part in (prefix, path, name) if part), value

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """The values of all parameters and persistent buffers now, by name after prefix: later
        training does not change them; whole ones where ranks share them, who then ask together.
        keep_vars: the Tensors themselves."""
        found = {prefix + name: p for name, p in self._named(_saved, "")}
        return found if keep_vars else whole_state(found, partitions_of(found))

    def load_state_dict(
        self, state_dict: State, strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Take values by name from Tensors or arrays, converted to each Tensor's dtype and
        device. UserError naming every missing, unexpected and mis-shaped entry, and then nothing
        is loaded; strict=False lets names be missing or unexpected, and gives them."""
        refuse("load_state_dict", "parameters stay the same objects", assign=assign)
        targets = dict(self._named(_saved, ""))
        return load_state(
            type(self).__name__, targets, state_dict, strict, partitions=partitions_of(targets)
        )

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call fn on every module inside it, and then on itself."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # Modes and places --------------------------------------------------------------------------
    @property
    def training(self) -> bool:
        """True in training mode (the default), False in evaluation mode."""
        mode: bool = guarded(self, "_training")
        return mode

    @training.setter
    def training(self, mode: bool) -> None:
        """Of this module alone: train() and eval() reach those inside, too."""
        if not isinstance(mode, bool):
            raise ValueError(f"{type(self).__name__}: training is True or False, not {mode!r}")
        self._training = mode

    def train(self: M, mode: bool = True) -> M:
        """Put it, and every module inside, in training mode."""
        for module in list(self.modules()):  # all of them, or (an error) none
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Put it, and every module inside, in evaluation mode: no dropout."""
        return self.train(False)

    def to(
        self: M,
        *args: Any,
        device: str | None = None,
        dtype: Any = None,
        non_blocking: bool = False,
    ) -> M:
        """Move every parameter and buffer, in place, to a device ("cpu", "cuda"), a floating dtype,
        or both: m.to(dtype), m.to(device, dtype), m.to(tensor) for that one's. Buffers of other
        kinds of numbers keep their dtype. non_blocking changes nothing.

        Optimizers made before keep their moments where those were: move first."""
        targets: list[Any] = []
        for target in (*args, device, dtype):
            if isinstance(target, Tensor):
                targets += [target.device, target.dtype]
            elif target is not None and not isinstance(target, bool):
                targets.append(placed(target))
        for target in targets:
            if isinstance(target, DType) and not target.is_floating_point:
                kind = f"a module's parameters are of a floating dtype, not {target.name}"
                raise DTypeError(kind)
        for parameter in self.parameters():
            for target in targets:
                parameter.move(target)
        for buffer in self.buffers():
            for target in targets:
                if isinstance(target, str) or buffer.dtype.is_floating_point:
                    buffer._point(buffer.detach().to(target).node)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or (set_to_none=False) make them zero."""
        for p in self.parameters():
            if p.grad is not None:
                p.grad = None if set_to_none else zeros_like(p.grad)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Learn (or freeze) every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    # Looks -------------------------------------------------------------------------------------
    def describe(self) -> str:
        """Its options, for repr()."""
        return ""

    def __repr__(self) -> str:
        children = _runs((name, repr(child)) for name, child in self._children())
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


_RESERVED = frozenset(dir(Module))
_PLAIN = (list, tuple, dict, set, frozenset, deque)
_LEAVES = frozenset({bool, int, float, str, type(None), Parameter, Tensor})


def _set_buffer(module: Module, name: str, value: Any) -> None:
    """What setting the attribute does: the buffer stays the Tensor that compiled functions know."""
    held = vars(module).get(name)
    if value is held:  # after `module.buffer += 1`
        return
    if value is not None and (not isinstance(value, Tensor) or isinstance(value, Parameter)):
        raise TypeError(
            f"{type(module).__name__}.{name} is a buffer, which a {type(value).__name__} cannot "
            "replace: set a Tensor or None, or `del` it first"
        )
    if value is None:
        vars(module)[name] = None
    elif held is None:
        vars(module)[name] = Tensor(value.detach().node)
    elif (value.shape, value.dtype, value.device) == (held.shape, held.dtype, held.device):
        held.assign(value)
    else:
        held._point(value.detach().node)


def _parameters(module: Module) -> Iterator[tuple[str, Parameter]]:
    """Those of a module itself."""
    return ((name, x) for name, x in vars(module).items() if isinstance(x, Parameter))


def _buffers(module: Module) -> Iterator[tuple[str, Tensor]]:
    held = vars(module)
    return ((name, held[name]) for name in module._buffer_names if held[name] is not None)


def _saved(module: Module) -> Iterator[tuple[str, Tensor]]:
    """What its state consists of."""
    yield from _parameters(module)
    yield from ((name, x) for name, x in _buffers(module) if module._buffer_names[name])


def _walk(root: Module) -> Iterator[tuple[str, Module]]:
    """A module and all inside it by dotted names, each once, parents first. Every call of
    generate() walks the model: what an attribute that is no module costs is one look at its type.
    """
    seen: set[int] = set()
    waiting = [("", root)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        inside = [
            (f"{path}.{name}" if path else name, value)
            for name, value in vars(module).items()
            if type(value) not in _LEAVES and isinstance(value, Module)
        ]
        waiting += reversed(inside)


def _held(value: Any, depth: int = 3) -> Iterator[Module | Parameter]:
    """The Modules and Parameters in a plain container, among its first entries."""
    if isinstance(value, (Module, Parameter)):
        yield value
    elif isinstance(value, _PLAIN) and depth:
        for entry in islice(value.values() if isinstance(value, dict) else value, 256):
            yield from _held(entry, depth - 1)


@contextmanager
def evaluating(modules: Iterable[Module]) -> Iterator[None]:
    """A module in evaluation mode; afterwards each inside is in the mode that it was in.
    modules: itself and those inside, as its modules() gives them."""
    modes = [(module, module.training) for module in modules]
    if not any(mode for _, mode in modes):
        yield
        return
    modes[0][0].eval()
    try:
        yield
    finally:
        for module, mode in modes:  # parents come before their children
            module.train(mode)
