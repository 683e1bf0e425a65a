"""Calls: what calling a Module does, and the hooks that come before and after.

In: whatever `forward` takes. Out: what it gives; the nodes made inside carry the module's path
("Transformer.encoder.layers.0"). The base of Module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import ref

from ..arguments import blame, explain_init
from ..context import SCOPE, Call
from ..errors import UserError
from ..hooks import RemovableHandle, added, watch
from ..mistakes import missing_from
from ..operands import note
from ..spelling import refuse

if TYPE_CHECKING:
    from .summary import Summary

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="Calls")


def scoped(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method whose nodes belong to its module, as those of forward do."""

    @wraps(method)
    def run(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        outer = SCOPE.get()
        if isinstance(outer, Call) and outer.module() is self:  # a part of that call
            return method(self, *args, **kwargs)
        token = SCOPE.set(self._begin())
        try:
            return method(self, *args, **kwargs)
        finally:
            SCOPE.reset(token)

    return run


def _is_ours(cls: type) -> bool:
    """True if a class is this package's: errors of a user's class are not put into other words."""
    return cls.__module__.startswith(f"{__package__.partition('.')[0]}.")


@dataclass(frozen=True)
class _Hook:
    function: Callable[..., Any]
    before: bool
    with_kwargs: bool


class Calls:
    """The half of a Module that is called."""

    _path = "Module"  # the class's name, or the parent's path and the attribute's name
    _forward_hooks: dict[int, _Hook] = {}  # noqa: RUF012 - one of its own has a module that has any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._path = cls.__name__
        if "__init__" in vars(cls) and _is_ours(cls):
            explain_init(cls)

    if not TYPE_CHECKING:  # it would let type checkers take any name

        def __getattr__(self, name: str) -> Any:
            raise missing_from(self, self._path, name)

    def _begin(self) -> Call:
        """A new call, inside the current one."""
        call = Call(self._path)
        call.kind, call.module, call.outer = type(self), ref(self), SCOPE.get()
        return call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of a call; for a derived class to write, with arguments of its own."""
        kind = type(self).__name__
        raise NotImplementedError(f"{kind} cannot be called: it has no method forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = Call(self._path)  # as _begin() and scope() do, without their calls
        call.kind, call.module, call.outer = type(self), ref(self), SCOPE.get()
        token = SCOPE.set(call)
        try:
            watch()
            if self._forward_hooks:
                return self._call_with_hooks(args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            note(error, self._path, type(self).__name__, vars(self))
            if _is_ours(type(self)):
                self._blame(error, args, kwargs)
            raise
        finally:
            SCOPE.reset(token)

    def _blame(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise what an argument of the wrong kind explains in the place of an error, with its
        notes."""
        try:
            blame(error, type(self).__name__, self.forward, args, kwargs)
        except Exception as better:
            for told in error.__notes__:
                better.add_note(told)
            raise

    def summary(self: Any, *inputs: Any, depth: int | None = None) -> Summary:
        """The module and those inside it as a table: parameters and, with the inputs of a call,
        what each gives, its FLOPs and activations. It is called on shapes alone, in evaluation
        mode, and nothing is changed; see Summary. depth: levels below it that are shown.

        Raises what forward raises, and UserError for a depth below 0."""
        from .summary import summary

        return summary(self, inputs, depth)

    # Hooks -------------------------------------------------------------------------------------
    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Have hook(module, args) called before each forward; what it gives, unless None, is given
        to forward in the place of args. with_kwargs: hook(module, args, kwargs), which gives
        (args, kwargs) or None. prepend: before the hooks that are there.

        In a compiled function a hook runs while it is traced: what it computes, and the state that
        it changes, is part of every run."""
        return self._register(hook, True, prepend, with_kwargs)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Have hook(module, args, output) called after each forward; what it gives, unless None,
        is the result in the place of output. with_kwargs: hook(module, args, kwargs, output).
        The rest as for register_forward_pre_hook."""
        refuse(
            "register_forward_hook", "catch the error where it is raised", always_call=always_call
        )
        return self._register(hook, False, prepend, with_kwargs)

    def _register(
        self, function: Callable[..., Any], before: bool, prepend: bool, with_kwargs: bool
    ) -> RemovableHandle:
        if not callable(function):
            kind = type(function).__name__
            raise TypeError(f"{type(self).__name__}: a hook must be a function, not a {kind}")
        hooks = vars(self).setdefault("_forward_hooks", {})
        return added(hooks, _Hook(function, before, with_kwargs), first=prepend)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks = list(self._forward_hooks.values())
        for hook in hooks:
            if hook.before:
                args, kwargs = self._before(hook, args, kwargs)
        output = self.forward(*args, **kwargs)
        for hook in hooks:
            if not hook.before:
                named = (kwargs,) if hook.with_kwargs else ()
                given = hook.function(self, args, *named, output)
                output = output if given is None else given
        return output

    def _before(
        self, hook: _Hook, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments after a hook has seen them."""
        if not hook.with_kwargs:
            given = hook.function(self, args)
            if given is not None:
                args = given if isinstance(given, tuple) else (given,)
            return args, kwargs
        given = hook.function(self, args, kwargs)
        if given is None:
            return args, kwargs
        if not isinstance(given, tuple) or [type(x) for x in given] != [tuple, dict]:
            raise UserError(
                f"{type(self).__name__}: a hook with_kwargs before forward must give (args, "
                f"kwargs), a tuple and a dict, or None, not a {type(given).__name__}"
            )
        return given
