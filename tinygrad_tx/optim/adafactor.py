"""Adafactor (Shazeer and Stern, arXiv 1804.04235): Adam's second moment as a product of two
vectors, so that it takes the memory of a row and a column."""

from __future__ import annotations

import math

from ..creation import zeros
from ..dtypes import float64
from ..errors import UserError
from ..partition import partition_of
from ..tensor import Tensor
from .optimizer import Group, Moments, Optimizer, Params, require, require_numbers, wide


class Adafactor(Optimizer):
    """p shrinks by the factor 1 - lr * weight_decay, then p -= a * u / max(1, rms(u) / d), with
    u = g / sqrt(v), a = max(eps2, rms(p)) * min(lr, 1 / sqrt(t)) and t the parameter's own steps.

    v of a vector is a running mean of g^2, with the weight t^beta2_decay for what is new; of a
    matrix (the last two axes of more) it is row_var @ col_var / mean(row_var), from running means
    of the rows' and the columns' mean squares. eps: (eps1, eps2); v is at least eps1^2, by default
    with eps1 the distance from 1 to the next number of the dtype that is computed with.
    maximize, foreach: as for Adam."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d}
        super().__init__(params, {**options, "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: Group) -> None:
        super().check(group)
        require_numbers(beta2_decay=group["beta2_decay"], d=group["d"])
        require("beta2_decay", group["beta2_decay"], group["beta2_decay"] <= 0, "0 or less")
        require("d", group["d"], group["d"] >= 1, "1 or more")
        eps = group["eps"]
        if not isinstance(eps, (tuple, list)) or len(eps) != 2:
            raise UserError(f"eps is {eps}; it must be two numbers, of which the first may be None")
        for one in eps:
            if one is not None:
                require_numbers(eps=one)
                require("eps", eps, one >= 0, "two numbers, 0 or more")

    def moment_names(self, group: Group) -> tuple[str, ...]:
        return ("row_var", "col_var")

    def _start(self, group: Group, name: str, p: Tensor) -> Tensor:
        """Of a vector row_var is all there is, in its shape."""
        if partition_of(p) is not None:
            raise UserError("Adafactor needs whole parameters, and ranks share these: take Adam")
        shape: tuple[int, ...] = (*p.shape[:-1], 1) if p.ndim > 1 else p.shape
        if name == "col_var":
            shape = (*p.shape[:-2], 1, p.shape[-1]) if p.ndim > 1 else ()
        return zeros(shape, dtype=wide(p), device=p.device)

    def scalars(self, group: Group, taken: Tensor) -> dict[str, Tensor]:
        t = (self.steps_of(group) + 1).to(float64)
        return {
            "lr": taken * group["lr"],
            "share": taken * t ** group["beta2_decay"],
            "rho": taken * (t**-0.5).minimum(group["lr"]),
        }

    def update(
        self, p: Tensor, grad: Tensor, moments: Moments, group: Group, scalars: dict[str, Tensor]
    ) -> None:
        eps1, eps2 = group["eps"]
        eps1 = p.dtype.eps if eps1 is None else eps1
        row, column, share = moments["row_var"], moments["col_var"], scalars["share"]
        square, size = grad * grad, math.sqrt(max(p.numel(), 1))
        length = scalars["rho"] * (p.norm() / size).clip(min=eps2)
        if p.ndim > 1:
            row.assign(row + share * (square.mean(-1, keepdim=True) - row))
            column.assign(column + share * (square.mean(-2, keepdim=True) - column))
            variance = row * column / row.mean(-2, keepdim=True).clip(min=eps1)
        else:
            row.assign(row + share * (square - row))
            variance = row
        update = grad * variance.clip(min=eps1 * eps1).rsqrt()
        length = length / (update.norm() / (size * group["d"])).clip(min=1.0)
        if group["weight_decay"]:
            p.assign(p * (1 - scalars["lr"] * group["weight_decay"]))
        p.assign(p - length * update)
