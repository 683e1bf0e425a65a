"""Adam (Kingma and Ba, arXiv 1412.6980) and AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

from __future__ import annotations

from ..dtypes import float64
from ..tensor import Tensor
from .optimizer import Group, Moments, Optimizer, Params, require


class Adam(Optimizer):
    """p -= lr * m' / (sqrt(v') + eps), with m and v running means of the gradient and its square,
    m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t). weight_decay * p is added to the gradient."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "eps": eps}
        super().__init__(params, {**options, "weight_decay": weight_decay})

    def _check(self, group: Group) -> None:
        super()._check(group)
        require("eps", group["eps"], group["eps"] >= 0, "0 or more")
        fits = len(group["betas"]) == 2 and all(0 <= b < 1 for b in group["betas"])
        require("betas", group["betas"], fits, "two numbers, at least 0 and below 1")

    def _moments(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        beta1, beta2 = group["betas"]
        t = (self.step_count + 1).to(float64)
        # The root of 1 - beta2^t is taken out of the denominator: so it meets two scalars, and not
        # every element.
        root = (1 - beta2**t).sqrt()
        lr = taken * group["lr"]
        return {
            "lr": lr,
            "rate": lr * root / (1 - beta1**t),
            "eps": root * group["eps"],
            "share1": taken * (1 - beta1),
            "share2": taken * (1 - beta2),
        }

    def _update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * p
        self._descend(p, grad, moments, scalars)

    def _descend(
        self, p: Tensor, grad: Tensor, moments: Moments, scalars: dict[str, Tensor]
    ) -> None:
        m, v = moments["exp_avg"], moments["exp_avg_sq"]
        m.assign(m + scalars["share1"] * (grad - m))
        v.assign(v + scalars["share2"] * (grad * grad - v))
        p.assign(p - scalars["rate"] * m / (v.sqrt() + scalars["eps"]))


class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient: p shrinks by the factor
    1 - lr * weight_decay."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def _update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        if group["weight_decay"]:
            p.assign(p * (1 - scalars["lr"] * group["weight_decay"]))
        self._descend(p, grad, moments, scalars)
