"""The spelling of arguments: PyTorch's names, NumPy's beside them, and a refusal by name of those
that PyTorch has and this library has not. Called by all functions with a namesake in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

from .errors import UserError

F = TypeVar("F", bound=Callable[..., Any])

NUMPY = {"axis": "dim", "keepdims": "keepdim"}
_INSTEAD = {
    "device": "move the result with .to(device)",
    "differentiable": "a step is no part of a graph; compute it with Tensors",
    "generator": "seed all random numbers with tx.manual_seed(n)",
    "inplace": "use the result, as in x = f(x)",
    "layout": "every Tensor is dense and row-major; leave it out",
    "max_norm": "clip the rows of the weight under tx.no_grad()",
    "memory_format": "every Tensor is dense and row-major; leave it out",
    "out": "use the result, or x.assign(result)",
    "pin_memory": "leave it out",
    "reduce": 'write reduction="mean", "sum" or "none"',
    "scale_grad_by_freq": "scale the gradient with Tensor operations",
    "size_average": 'write reduction="mean", "sum" or "none"',
    "sparse": "gradients are dense; leave it out",
    "sparse_grad": "gradients are dense; leave it out",
}
_EITHER = ("reduce", "size_average")


def spelled(function: F) -> F:
    """The function under NumPy's names of its arguments too (`axis` for dim, `keepdims` for
    keepdim), as in PyTorch; what it takes one by one (`*size`) may be given by name as well."""
    parameters = signature(function).parameters
    also = {theirs: ours for theirs, ours in NUMPY.items() if ours in parameters}
    many = next((p.name for p in parameters.values() if p.kind is Parameter.VAR_POSITIONAL), None)

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if named:
            if many is not None and many in named:
                args = (*args, named.pop(many))
            for theirs in also.keys() & named:
                if also[theirs] in named:
                    raise TypeError(
                        f"{function.__name__}: {also[theirs]} and {theirs} are one argument; give "
                        "one of them"
                    )
                named[also[theirs]] = named.pop(theirs)
        return function(*args, **named)

    return cast(F, call)


def refuse(name: str, instead: str = "", **given: Any) -> None:
    """UserError for the first argument that is neither None nor False (which means something where
    None is the default): PyTorch has it, and here it would have no effect, or another one."""
    for argument, value in given.items():
        if value is not None and (value is not False or argument in _EITHER):
            hint = instead or _INSTEAD.get(argument, "leave it out")
            shown = repr(value) if isinstance(value, (bool, int, float, str)) else "..."
            raise UserError(f"{name}: {argument}={shown} is not supported; {hint}")
