"""RMSprop (Tieleman and Hinton 2012) and Adagrad (Duchi et al. 2011): steps by the root of the
gradient's mean square, or of the sum of its squares."""

from __future__ import annotations

from ..creation import full_like
from ..dtypes import float64
from ..spelling import refuse
from ..tensor import Tensor
from .optimizer import (
    Group,
    Moments,
    Optimizer,
    Params,
    decayed,
    momentum,
    require,
    require_numbers,
    wide,
)


class RMSprop(Optimizer):
    """p -= lr * g / (sqrt(v) + eps), with v = alpha * v + (1 - alpha) * g^2, from which the square
    of the gradient's running mean is subtracted where centered is set. weight_decay * p is added to
    the gradient. With momentum, b = momentum * b + g / (sqrt(v) + eps), and p -= lr * b. maximize:
    against the gradient's negative. foreach and capturable, PyTorch's ways to run the same step,
    change nothing."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        refuse("RMSprop", differentiable=differentiable)
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        more = {"momentum": momentum, "centered": centered, "maximize": maximize}
        super().__init__(params, {**options, **more})

    def check(self, group: Group) -> None:
        super().check(group)
        for name in ("alpha", "eps", "momentum"):
            require_numbers(**{name: group[name]})
            require(name, group[name], group[name] >= 0, "0 or more")

    def moment_names(self, group: Group) -> tuple[str, ...]:
        names = ["square_avg"]
        names += ["grad_avg"] if group["centered"] else []
        names += ["momentum_buffer"] if group["momentum"] else []
        return tuple(names)

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        found = super().scalars(group, taken)
        found["share"] = taken * (1 - group["alpha"])
        if group["momentum"]:
            found["kept"] = 1 - taken * (1 - momentum(group, group["momentum"]))
        return found

    def update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        grad = decayed(p, grad, group, scalars)
        square, share = moments["square_avg"], scalars["share"]
        square.assign(square + share * (grad * grad - square))
        variance: Tensor = square
        if group["centered"]:
            mean = moments["grad_avg"]
            mean.assign(mean + share * (grad - mean))
            variance = square - mean * mean
        step = grad / (variance.sqrt() + group["eps"])
        if group["momentum"]:
            b = moments["momentum_buffer"]
            b.assign(scalars["kept"] * b + step)
            step = b
        p.assign(p - scalars["lr"] * step)


class Adagrad(Optimizer):
    """p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps), with s the sum of all g^2 since
    initial_accumulator_value, and t the parameter's own steps. weight_decay * p is added to the
    gradient. The rest as for RMSprop."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse("Adagrad", differentiable=differentiable)
        options = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        more = {"initial_accumulator_value": initial_accumulator_value, "maximize": maximize}
        super().__init__(params, {**options, **more})

    def check(self, group: Group) -> None:
        super().check(group)
        for name in ("lr_decay", "eps", "initial_accumulator_value"):
            require_numbers(**{name: group[name]})
            require(name, group[name], group[name] >= 0, "0 or more")

    def moment_names(self, group: Group) -> tuple[str, ...]:
        return ("sum",)

    def _start(self, group: Group, name: str, p: Tensor) -> Tensor:
        return full_like(p, group["initial_accumulator_value"], dtype=wide(p))

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        before = self.steps_of(group).to(float64)
        return {
            "lr": taken * group["lr"] / (1 + before * group["lr_decay"]),
            "taken": taken,
        }

    def update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        grad = decayed(p, grad, group, scalars)
        total = moments["sum"]
        total.assign(total + grad * grad)
        p.assign(p - scalars["lr"] * grad / (total.sqrt() + group["eps"]))
