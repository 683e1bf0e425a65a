"""GradScaler: a factor on the loss that keeps gradients in float16 within its range (Micikevicius
et al., arXiv 1710.03740), under PyTorch's names.

In: losses, then optimizers with gradients. Out: a factor that grows and shrinks by itself. All of
its state are Tensors, and there is no `if` on a value: so it belongs into a compiled step, where
the host waits for nothing. The optimizer itself leaves everything as it was where gradients are not
finite (optimizer.py).
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from .. import tree
from ..arguments import shown
from ..context import guarded, tracing
from ..creation import ones_like, tensor, where, zeros_like
from ..dtypes import bool_, float16, float32, float64, int64
from ..errors import DTypeError, UserError
from ..state import KEEPERS, State, load_state
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, require, require_numbers, squared_norm


class GradScaler:
    """Dynamic loss scaling, for tx.autocast("fp16"):

        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # if gradients are looked at or clipped
        scaler.step(optimizer)
        scaler.update()

    The scale begins as init_scale. Where a gradient is not finite the step is skipped, and update()
    multiplies the scale by backoff_factor; after growth_interval steps without, by growth_factor.
    enabled=False: every method does what there would be without it. device: of the scale, the
    default device if it is None; losses and parameters are there, too.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        device: str | None = None,
    ) -> None:
        require_numbers(
            init_scale=init_scale, growth_factor=growth_factor, backoff_factor=backoff_factor
        )
        require("GradScaler: init_scale", init_scale, init_scale > 0, "above 0")
        require("GradScaler: growth_factor", growth_factor, growth_factor > 1, "above 1")
        require("GradScaler: backoff_factor", backoff_factor, 0 < backoff_factor < 1, "in (0, 1)")
        require("GradScaler: growth_interval", growth_interval, growth_interval > 0, "1 or more")
        self.growth_factor, self.backoff_factor = float(growth_factor), float(backoff_factor)
        self.growth_interval, self._enabled = growth_interval, bool(enabled)
        self._scale = tensor(float(init_scale), dtype=float32, device=device)
        self._growth_tracker = tensor(0, dtype=int64, device=device)
        self._found_inf = tensor(False, dtype=bool_, device=device)
        # For each optimizer, whether its gradients have been unscaled since the last update().
        self._unscaled: WeakKeyDictionary[Optimizer, Tensor] = WeakKeyDictionary()
        self._known = 0
        KEEPERS.add(self)

    def is_enabled(self) -> bool:
        """False if it leaves losses and gradients as they are."""
        return self._enabled

    def get_scale(self) -> float:
        """The factor of now; 1.0 where it is not enabled."""
        return float(self._scale.item()) if self._enabled else 1.0

    def scale(self, outputs: Any) -> Any:
        """A Tensor, or each of a nest of them, times the scale."""
        if not self._enabled:
            return outputs
        for x in tree.leaves(outputs):
            if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
                raise TypeError(
                    f"GradScaler.scale: outputs must be Tensors of floats, not {shown(x)}"
                )

        def scaled(x: Tensor) -> Tensor:
            y: Tensor = x.to(float32) * self._scale if x.dtype.is_half else x * self._scale
            return y.to(x.dtype)

        return tree.map_leaves(scaled, outputs)

    @no_grad()
    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, and note whether all are
        finite. A second call before update() changes nothing."""
        if not self._enabled:
            return
        grads = [p.grad for p in _of(optimizer).parameters if p.grad is not None]
        if not grads:
            return
        if any(g.dtype is float16 for g in grads):
            raise DTypeError(
                "GradScaler: gradients in float16 leave no room for unscaling: keep parameters in "
                'float32, and compute the loss under tx.autocast("fp16")'
            )
        done = self._state_of(optimizer)
        factor = where(done, 1.0, (1 / self._scale.to(float64)).to(float32))
        for p in optimizer.parameters:
            if p.grad is not None:
                p.grad = p.grad * factor
        self._found_inf.assign(self._found_inf | ~squared_norm(optimizer.parameters).isfinite())
        done.assign(ones_like(done))

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """optimizer.step() on unscaled gradients, which changes nothing but its count of skipped
        steps where one of them is not finite."""
        if self._enabled and (args or kwargs):
            raise UserError(
                "GradScaler.step: a closure cannot be scaled; compute loss and gradients before"
            )
        self.unscale_(optimizer)
        return _of(optimizer).step(*args, **kwargs)

    @no_grad()
    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Make the scale of the next steps, once after all optimizers' steps. new_scale: it is that
        instead."""
        if not self._enabled:
            return
        guarded(self, "_known")
        scale, found, grown = self._scale, self._found_inf, self._growth_tracker + 1
        if new_scale is None:
            due = grown == self.growth_interval
            larger = scale * self.growth_factor
            larger = where(larger.isfinite(), larger, scale)
            kept = where(found, scale * self.backoff_factor, where(due, larger, scale))
            self._growth_tracker.assign(grown.where(~(found | due), 0))
        else:
            kept = _as_scale(new_scale).to(scale.device)
        self._scale.assign(kept)
        self._found_inf.assign(zeros_like(found))
        for done in self._unscaled.values():
            done.assign(zeros_like(done))

    def state_dict(self) -> dict[str, Tensor]:
        """ "scale" and "growth_tracker", the steps since it grew or shrank; {} if not enabled."""
        return {name: t.detach() for name, t in self._state().items()}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a state_dict; UserError naming what does not fit, and then nothing is
        changed."""
        load_state("GradScaler", self._state(), state_dict, strict=True)

    def _state(self) -> dict[str, Tensor]:
        named = {"scale": self._scale, "growth_tracker": self._growth_tracker}
        return named if self._enabled else {}

    def _state_of(self, optimizer: Optimizer) -> Tensor:
        """An optimizer's part of the state: made outside of any trace, for it outlives that."""
        if optimizer not in self._unscaled:
            with tracing(None):
                self._unscaled[optimizer] = tensor(False, device=self._found_inf.device)
            self._known = len(self._unscaled)
        return self._unscaled[optimizer]


def _of(optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"GradScaler: an optimizer is wanted, not {shown(optimizer)}")
    return optimizer


def _as_scale(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value.shape != () or value.requires_grad:
            raise UserError("GradScaler.update: new_scale must be one number, without a gradient")
        return value.to(float32)
    require_numbers(new_scale=value)
    require("GradScaler: new_scale", value, value > 0, "above 0")
    return tensor(float(value), dtype=float32)
