"""Modules and Parameters by number or by name: what Python's lists and dicts hold unseen.

In: Modules, or Parameters. Out: a Module that has them as attributes "0", "1", ... or by their
keys, so that parameters(), state_dict(), eval() and to() reach them. Called by models and users.
As in PyTorch, a module that a derived class sets as an attribute is one of them: Sequential calls
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast, overload

from ..tensor import Tensor
from .module import Module, Parameter

T = TypeVar("T")
Self = TypeVar("Self", bound="_Numbered[Any]")


class _Container(Module, Generic[T]):
    """The base of the containers: members of one kind, which are attributes."""

    _kind: type = Module

    def _members(self) -> dict[str, T]:
        return {name: cast(T, x) for name, x in vars(self).items() if isinstance(x, self._kind)}

    def _set(self, name: str, member: T) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: a name is a str, not {name!r}")
        if hasattr(type(self), name):
            raise TypeError(f'{type(self).__name__}: "{name}" is one of its methods; rename it')
        setattr(self, name, self._accepted(member))

    def _accepted(self, member: Any) -> T:
        if not isinstance(member, self._kind):
            kind, given = self._kind.__name__, type(member).__name__
            raise TypeError(f"{type(self).__name__} holds {kind}s, not a {given}")
        return cast(T, member)

    def __len__(self) -> int:
        return len(self._members())


class _Numbered(_Container[T]):
    """Members by number, with the methods of a Python list."""

    def append(self: Self, member: T) -> Self:
        """Put it at the end."""
        self._set(str(len(self)), member)
        return self

    def extend(self: Self, members: Iterable[T]) -> Self:
        """Put all of them at the end."""
        for member in _entries(type(self).__name__, members):
            self.append(member)
        return self

    def insert(self, index: int, member: T) -> None:
        """Put it before the one at index; those behind it are numbered anew."""
        members: list[tuple[str, T]] = list(self._members().items())
        members.insert(index, ("0", self._accepted(member)))
        self._renumber(members)

    def __iter__(self) -> Iterator[T]:
        return iter(self._members().values())

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self: Self, index: slice) -> Self: ...
    def __getitem__(self: Self, index: int | slice) -> Any:
        members = list(self)
        if not isinstance(index, slice):
            return members[index]
        part = type(self).__new__(type(self))  # the members keep their paths
        vars(part).update({str(i): member for i, member in enumerate(members[index])})
        return part

    def __setitem__(self, index: int, member: T) -> None:
        name = list(self._members())[index]
        self._set(name, member)

    def __delitem__(self, index: int | slice) -> None:
        """Take it out; those behind it are numbered anew."""
        members = list(self._members().items())
        del members[index]
        self._renumber(members)

    def _renumber(self, members: list[tuple[str, T]]) -> None:
        """Have these members in this order. Numbers become places; names stay."""
        for name in self._members():
            delattr(self, name)
        for i, (name, member) in enumerate(members):
            self._set(str(i) if name.isdecimal() else name, member)


class _Named(_Container[T]):
    """Members by name, with the methods of a Python dict."""

    def __getitem__(self, name: str) -> T:
        return self._members()[name]

    def __setitem__(self, name: str, member: T) -> None:
        self._set(name, member)

    def __delitem__(self, name: str) -> None:
        del self._members()[name]  # KeyError where there is none
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._members()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._members().keys()

    def values(self) -> Iterable[T]:
        """The members."""
        return self._members().values()

    def items(self) -> Iterable[tuple[str, T]]:
        """The members with their names."""
        return self._members().items()

    def update(self, members: Mapping[str, T]) -> None:
        """Set members by name; those that are there are replaced."""
        if not isinstance(members, Mapping):
            given = type(members).__name__
            raise TypeError(f"{type(self).__name__} is made of a dict, not of a {given}")
        for name, member in members.items():
            self._set(name, member)


def _entries(name: str, members: Any) -> Iterable[Any]:
    one = isinstance(members, (Module, Tensor)) and not isinstance(members, _Numbered)
    if one or not isinstance(members, Iterable):
        raise TypeError(f"{name} is made of a list, not of a {type(members).__name__}")
    return members


M = TypeVar("M", bound=Module)


class ModuleList(_Numbered[M]):
    """Modules by number, for a forward that loops over them."""

    def __init__(self, modules: Iterable[M] | None = None) -> None:
        self.extend(() if modules is None else modules)


class ModuleDict(_Named[M]):
    """Modules by name."""

    def __init__(self, modules: Mapping[str, M] | None = None) -> None:
        self.update({} if modules is None else modules)


class Sequential(ModuleList[Module]):
    """Modules called one after the other, each on what the one before gave; or one dict of them."""

    def __init__(self, *args: Any) -> None:
        if len(args) == 1 and isinstance(args[0], dict):
            for name, module in args[0].items():
                self._set(name, module)
        else:
            super().__init__(args)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input


class ParameterList(_Numbered[Parameter]):
    """Parameters by number. A Tensor becomes one."""

    _kind = Parameter

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        self.extend(() if values is None else values)  # type: ignore[arg-type]

    def _accepted(self, member: Any) -> Parameter:
        return super()._accepted(_parameter(member))

    def describe(self) -> str:
        return ", ".join(str(p.shape) for p in self)


class ParameterDict(_Named[Parameter]):
    """Parameters by name. A Tensor becomes one."""

    _kind = Parameter

    def __init__(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        self.update({} if parameters is None else parameters)  # type: ignore[arg-type]

    def _accepted(self, member: Any) -> Parameter:
        return super()._accepted(_parameter(member))

    def describe(self) -> str:
        return ", ".join(f"{name}: {p.shape}" for name, p in self.items())


def _parameter(member: Any) -> Any:
    plain = isinstance(member, Tensor) and not isinstance(member, Parameter)
    return Parameter(member) if plain else member
