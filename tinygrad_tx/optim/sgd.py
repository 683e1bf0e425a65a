"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from ..tensor import Tensor
from .optimizer import Group, Moments, Optimizer, Params, require


class SGD(Optimizer):
    """p -= lr * d, where d is the gradient g (+ weight_decay * p); with momentum, b = momentum * b
    + g and d is b, or g + momentum * b where nesterov is set."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov})

    def _check(self, group: Group) -> None:
        super()._check(group)
        momentum = group["momentum"]
        require("momentum", momentum, 0 <= momentum < 1, "at least 0 and below 1")
        require("nesterov", True, not group["nesterov"] or momentum > 0, "used with momentum")

    def _moments(self, group: Group) -> tuple[str, ...]:
        return ("momentum",) if group["momentum"] else ()

    def _scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        # A skipped step brings no gradient, and leaves the momentum as it is.
        momentum = 1 - taken * (1 - group["momentum"])
        return {"lr": group["lr"] * taken, "momentum": momentum, "taken": taken}

    def _update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        if group["weight_decay"]:
            grad = grad + scalars["taken"] * group["weight_decay"] * p
        if group["momentum"]:
            b = moments["momentum"]
            b.assign(scalars["momentum"] * b + grad)
            grad = grad + group["momentum"] * b if group["nesterov"] else b
        p.assign(p - scalars["lr"] * grad)
