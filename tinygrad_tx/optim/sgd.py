"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from .. import ops
from ..creation import where
from ..spelling import refuse
from ..tensor import Tensor
from .optimizer import Group, Moments, Optimizer, Params, momentum, require, require_numbers


class SGD(Optimizer):
    """p -= lr * d, where d is the gradient g (+ weight_decay * p); with momentum, b = momentum * b
    + (1 - dampening) * g, at a parameter's first step b = g, and d is b, or g + momentum * b where
    nesterov is set. maximize: against the gradient's negative. foreach and fused, PyTorch's ways to
    run the same step, change nothing."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse("SGD", differentiable=differentiable)
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        super().__init__(params, {**options, "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: Group) -> None:
        super().check(group)
        momentum, dampening = group["momentum"], group["dampening"]
        require_numbers(momentum=momentum, dampening=dampening)
        require("momentum", momentum, 0 <= momentum < 1, "at least 0 and below 1")
        wanted = momentum > 0 and dampening == 0
        require("nesterov", True, not group["nesterov"] or wanted, "used with momentum, undampened")

    def moment_names(self, group: Group) -> tuple[str, ...]:
        return ("momentum",) if group["momentum"] else ()

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        found = {"lr": group["lr"] * taken}
        if group["momentum"]:
            # A skipped step brings no gradient, and leaves the momentum as it is.
            found["kept"] = 1 - taken * (1 - momentum(group, group["momentum"]))
        if group["momentum"] and group["dampening"]:
            found["share"] = where(self.steps_of(group) == 0, taken, 1 - group["dampening"])
        return found

    def _take(
        self,
        p: Tensor,
        grad: Tensor,
        finite: Tensor,
        moments: Moments,
        group: Group,
        scalars: dict[str, Tensor],
    ) -> None:
        decay, lr = group["weight_decay"], scalars["lr"]
        if not group["momentum"]:
            p.assign(ops.SGD(p, grad, finite, lr, weight_decay=decay))
            return
        if group["nesterov"] and group.momentum is not None:  # no number that an op could know
            b = moments["momentum"]
            grad = (grad + p * decay if decay else grad).where(finite, 0)
            b.assign(scalars["kept"] * b + grad)
            p.assign(p - lr * (grad + group.momentum.to(p.dtype) * b))
            return
        new, b = ops.SGD_MOMENTUM(
            *(p, grad, finite, lr, moments["momentum"], scalars["kept"]),
            *([scalars["share"]] if "share" in scalars else []),
            weight_decay=decay,
            momentum=group["momentum"],
            nesterov=group["nesterov"],
        )
        p.assign(new)
        moments["momentum"].assign(b)
