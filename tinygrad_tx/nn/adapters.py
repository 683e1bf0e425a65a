"""LoRA: low-rank adapters beside frozen maps (Hu et al., arXiv 2106.09685).

In: a model, and patterns of names of Linears in it. Out: the same model, in which those also apply
a map of low rank that learns while everything else is frozen. Called by users.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from .. import serialize
from ..context import guarded
from ..creation import zeros
from ..errors import UserError
from ..state import IncompatibleKeys, State, load_state
from ..tensor import Tensor, no_grad
from . import functional as F  # noqa: N812
from . import init
from .layers import Dropout, Linear
from .module import Module, Parameter

_KEY = "lora"  # in the metadata of a file
_SHOWN = 8  # names that an error lists


class LoRALinear(Linear):
    """A Linear and its adapter: x W^T + b + scale * dropout(x) A^T B^T, with A (rank, in), uniform
    like a Linear's weight, and B (out, rank), zeros at first, so nothing changes at first."""

    _merged = False
    # While it is merged: the weight without the adapter, and with it.
    _plain: Tensor | None
    _whole: Tensor | None

    def __init__(self, linear: Linear, rank: int, alpha: float, dropout: float) -> None:
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        dtype, device = linear.weight.dtype, linear.weight.device
        self.lora_a = Parameter(zeros(rank, self.in_features, dtype=dtype, device=device))
        self.lora_b = Parameter(zeros(self.out_features, rank, dtype=dtype, device=device))
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.lora_a, -bound, bound)
        self.scale = alpha / rank
        self.dropout = Dropout(dropout)
        for name in ("_plain", "_whole"):  # they go where the weight goes
            self.register_buffer(name, None, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        y = F.linear(input, self.weight, self.bias)
        if guarded(self, "_merged"):
            return y
        inner = F.linear(self.dropout(input), self.lora_a)
        return y + F.linear(inner, self.lora_b) * self.scale

    @no_grad()
    def merge(self) -> None:
        """Put the adapter into the weight."""
        if self._plain is None:
            self._plain = self.weight.detach()
            self.weight.assign(self.weight + (self.lora_b @ self.lora_a) * self.scale)
            self._whole, self._merged = self.weight.detach(), True

    @no_grad()
    def unmerge(self) -> None:
        """Put the weight back, to the bit. UserError where it has been changed since."""
        if self._plain is not None and self._whole is not None:
            if not bool((self.weight == self._whole).all().item()):
                raise UserError("LoRA: the weight was changed while its adapter was merged into it")
            self.weight.assign(self._plain)
            self._plain, self._whole, self._merged = None, None, False

    @property
    def merged(self) -> bool:
        """True between merge() and unmerge()."""
        return self._merged

    def describe(self) -> str:
        return f"{super().describe()}, rank={self.lora_a.shape[0]}, merged={self._merged}"


class Adapters:
    """The adapters of a model. modules: by their names in it."""

    def __init__(self, modules: Mapping[str, LoRALinear], rank: int, alpha: float) -> None:
        self.modules, self.rank, self.alpha = dict(modules), rank, alpha

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """What learns, by its name in the model."""
        for name, module in self.modules.items():
            yield f"{name}.lora_a", module.lora_a
            yield f"{name}.lora_b", module.lora_b

    def parameters(self) -> Iterator[Parameter]:
        """What learns: for an optimizer."""
        return (p for _, p in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """Their values now, by name: nothing of the model itself."""
        return {name: p.detach() for name, p in self.named_parameters()}

    def load_state_dict(self, state_dict: State, strict: bool = True) -> IncompatibleKeys:
        """Take values by name; UserError for what does not fit, and then nothing is loaded."""
        self._require_apart("load_state_dict")
        return load_state("LoRA", dict(self.named_parameters()), state_dict, strict)

    def save(self, path: Path | str) -> None:
        """Write the adapters alone to a safetensors file."""
        described = {"rank": self.rank, "alpha": self.alpha}
        serialize.save(self.state_dict(), path, {_KEY: json.dumps(described)})

    def load(self, path: Path | str) -> None:
        """Take what `save` has written. UserError for adapters of another rank, alpha or model."""
        state, metadata = serialize.load_with_metadata(path)
        try:
            then = dict(json.loads(metadata.get(_KEY, "{}")))
        except (ValueError, TypeError):
            raise UserError(f"{path} does not say what adapters it has") from None
        for name in ("rank", "alpha"):
            own = getattr(self, name)
            if then.get(name, own) != own:
                raise UserError(f"{path} has adapters of {name} {then[name]}, and these have {own}")
        self.load_state_dict(state)

    @property
    def merged(self) -> bool:
        """True between merge() and unmerge()."""
        return any(module.merged for module in self.modules.values())

    def merge(self) -> None:
        """Put the adapters into the weights of the model: it costs what it did without them, and
        state_dict() and save_pretrained() have what was learnt."""
        for module in self.modules.values():
            module.merge()

    def unmerge(self) -> None:
        """Put the weights back as they were before merge(), to the bit."""
        for module in self.modules.values():
            module.unmerge()

    def remove(self, model: Module) -> None:
        """Put plain Linears, with the weights as they are, in the places of the adapted ones."""
        places = dict(model.named_modules())
        for name, module in self.modules.items():
            if places.get(name) is not module:
                raise UserError(f"LoRA: {name} of this model is not adapted by these")
        for module in self.modules.values():
            plain = Linear(1, 1, bias=False)
            plain.in_features, plain.out_features = module.in_features, module.out_features
            plain.weight, plain.bias = module.weight, module.bias
            _replace(model, module, plain)

    def _require_apart(self, what: str) -> None:
        if self.merged:
            raise UserError(f"LoRA: {what}() while the adapters are merged; unmerge() first")


def lora(
    model: Module,
    rank: int,
    targets: str | Iterable[str],
    *,
    alpha: float | None = None,
    dropout: float = 0.0,
) -> Adapters:
    """Freeze a model, but for adapters that it has, and give an adapter of that rank to each of its
    Linears whose name fits.

    targets: names of Linears, such as "c_attn", or patterns of their dotted names, such as
        "layers.*.self_attn.?_proj". alpha: adapters are scaled by alpha / rank; None: by 1.
    dropout: on what adapters read.

    UserError where no Linear fits a target.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UserError(f"lora: rank = {rank!r} must be a whole number of 1 or more")
    wanted = (targets,) if isinstance(targets, str) else tuple(targets)
    if not wanted or not all(isinstance(target, str) for target in wanted):
        raise TypeError(f"lora: targets must be names of Linears, not {targets!r}")
    places = dict(model.named_modules())
    linears = {n: m for n, m in places.items() if isinstance(m, Linear) and n}
    for target in wanted:
        fitting = [name for name in linears if fits(name, target)]
        if not fitting:
            known = dict.fromkeys(name.rpartition(".")[2] for name in linears)
            shown = ", ".join([*known][:_SHOWN])
            raise UserError(f"lora: no Linear is called {target!r}; there are {shown or 'none'}")
        if adapted := [name for name in fitting if isinstance(linears[name], LoRALinear)]:
            raise UserError(f"lora: {adapted[0]} has an adapter already")
    scale = float(rank if alpha is None else alpha)
    learning = [
        p
        for module in places.values()
        if isinstance(module, LoRALinear)
        for p in (module.lora_a, module.lora_b)
        if p.requires_grad
    ]
    model.requires_grad_(False)
    for p in learning:  # of adapters that it has already
        p.requires_grad_()
    made = {}
    for name, linear in linears.items():
        if any(fits(name, target) for target in wanted):
            made[name] = LoRALinear(linear, rank, scale, dropout)
            _replace(model, linear, made[name])
    return Adapters(made, rank, scale)


def fits(name: str, pattern: str) -> bool:
    """True if a dotted name, or its end after a dot, is as a pattern says."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _replace(model: Module, old: Module, new: Module) -> None:
    """Put a module in all the places of another one, which may be shared."""
    for parent in list(model.modules()):
        for name, child in list(parent._children()):
            if child is old:
                setattr(parent, name, new)
