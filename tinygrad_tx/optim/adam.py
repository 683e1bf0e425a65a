"""Adam (Kingma and Ba, arXiv 1412.6980) and AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

from __future__ import annotations

from .. import ops
from ..dtypes import float64
from ..spelling import refuse
from ..tensor import Tensor
from .optimizer import (
    Group,
    Moments,
    Optimizer,
    Params,
    momentum,
    require,
    require_betas,
    require_numbers,
)


class Adam(Optimizer):
    """p -= lr * m' / (sqrt(v') + eps), with m and v running means of the gradient and its square,
    m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t), where t counts the parameter's own steps.
    weight_decay * p is added to the gradient, or taken as in AdamW where decoupled_weight_decay is
    set. amsgrad: the largest v so far counts in the place of v (Reddi et al., arXiv 1904.09237).
    maximize: against the gradient's negative. foreach, capturable and fused, PyTorch's ways to
    run the same step, change nothing."""

    _decoupled = False  # whether weight decay is apart from the gradient

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refuse(type(self).__name__, differentiable=differentiable)
        self._decoupled = self._decoupled or decoupled_weight_decay
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "maximize": maximize})

    def check(self, group: Group) -> None:
        super().check(group)
        require_numbers(eps=group["eps"])
        require("eps", group["eps"], group["eps"] >= 0, "0 or more")
        require_betas(group)

    def moment_names(self, group: Group) -> tuple[str, ...]:
        names = ("exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        beta2 = group["betas"][1]
        beta1 = momentum(group, group["betas"][0])
        t = (self.steps_of(group) + 1).to(float64)  # one for each parameter
        # The root of 1 - beta2^t is taken out of the denominator: so it meets two scalars, and not
        # every element.
        root = (1 - beta2**t).sqrt()
        return {
            "lr": taken * group["lr"],
            "rate": group["lr"] * root / (1 - beta1**t),
            "eps": root * group["eps"],
            "share1": taken * (1 - beta1),
            "share2": taken * (1 - beta2),
        }

    def _take(
        self,
        p: Tensor,
        grad: Tensor,
        finite: Tensor,
        moments: Moments,
        group: Group,
        scalars: dict[str, Tensor],
    ) -> None:
        m, v = moments["exp_avg"], moments["exp_avg_sq"]
        decay = group["weight_decay"]
        apart = [scalars["lr"]] if self._decoupled and decay else []
        if group["amsgrad"]:
            self._take_largest(p, grad.where(finite, 0), finite, moments, decay, scalars)
            return
        numbers = (scalars[name] for name in ("rate", "eps", "share1", "share2"))
        new = ops.ADAM(p, grad, m, v, finite, *numbers, *apart, weight_decay=decay)
        for old, value in zip((p, m, v), new, strict=True):
            old.assign(value)

    def _take_largest(
        self,
        p: Tensor,
        grad: Tensor,
        finite: Tensor,
        moments: Moments,
        decay: float,
        scalars: dict[str, Tensor],
    ) -> None:
        m, v, largest = (moments[k] for k in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"))
        start = p.detach()
        if decay and self._decoupled:
            p.assign(p * (1 - scalars["lr"] * decay))
        elif decay:
            grad = grad + p * decay
        m.assign(m + scalars["share1"] * (grad - m))
        v.assign(v + scalars["share2"] * (grad * grad - v))
        largest.assign(largest.maximum(v))
        step = scalars["rate"] * m / (largest.sqrt() + scalars["eps"])
        p.assign((p - step).where(finite, start))


class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient: p shrinks by the factor
    1 - lr * weight_decay."""

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            *(params, lr, betas, eps, weight_decay, amsgrad),
            maximize=maximize,
            differentiable=differentiable,
        )
