"""Two ops of one's own, differentiated twice, on every device there is. docs/extending.md explains.

Run it: python examples/custom_op.py
"""

import math

import tinygrad_tx as tx

swish = tx.Op(
    "swish",
    kind="map",
    forward=lambda xp, x: x / (1 + xp.exp(-x)),
    vjp=lambda g, y, x: (g * (y + x.sigmoid() * (1 - y)),),
)


def count(x, axis):
    return math.prod(x.shape[a] for a in axis)


rms = tx.Op(
    "rms",
    kind="reduce",
    forward=lambda xp, x, axis: xp.sqrt(xp.sum(x * x, axis) / count(x, axis)),
    vjp=lambda g, y, x, axis: (g * x / (y * count(x, axis)),),
)


def show(device: str) -> None:
    x = tx.randn(3, 4, dtype=tx.float64, device=device)
    tx.gradcheck(swish, x, order=2)
    tx.gradcheck(lambda x: rms(x, axis=1), x, order=2)

    @tx.compile
    def loss(x):
        return rms(swish(x))

    gradient = tx.grad(lambda x: rms(swish(x)))
    twice = tx.grad(lambda x: (gradient(x) ** 2).sum())
    print(f"{device}: rms(swish(x)) = {loss(x).item():.6f}, slope {gradient(x).norm().item():.6f}, "
          f"and the slope's {twice(x).norm().item():.6f}")  # fmt: skip


def main() -> None:
    tx.manual_seed(0)
    for device in ("cpu", "cuda"):
        try:
            tx.zeros(1, device=device)
        except tx.errors.DeviceError as error:
            print(f"{device}: {error}")
        else:
            show(device)
    try:
        swish(tx.arange(3))
    except tx.errors.DTypeError as error:
        print(error)


if __name__ == "__main__":
    main()
