"""Lion (Chen et al., arXiv 2302.06675): the sign of a running mean of the gradient."""

from __future__ import annotations

from ..tensor import Tensor
from .optimizer import Group, Moments, Optimizer, Params, momentum, require_betas


class Lion(Optimizer):
    """p shrinks by the factor 1 - lr * weight_decay, then p -= lr * sign(beta1 * m + (1 - beta1)
    * g); after it m = beta2 * m + (1 - beta2) * g. maximize: against the gradient's negative.
    Algorithm 2 of the paper; PyTorch has none."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, options)

    def check(self, group: Group) -> None:
        super().check(group)
        require_betas(group)

    def moment_names(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg",)

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        beta1, beta2 = group["betas"]
        found = super().scalars(group, taken)
        found["share1"] = taken * (1 - momentum(group, beta1))
        found["share2"] = taken * (1 - beta2)
        return found

    def update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        m, lr, decay = moments["exp_avg"], scalars["lr"], group["weight_decay"]
        direction = (m + scalars["share1"] * (grad - m)).sign()
        p.assign((p * (1 - lr * decay) if decay else p) - lr * direction)
        m.assign(m + scalars["share2"] * (grad - m))
