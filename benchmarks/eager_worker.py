"""One contender of benchmarks.eager: tinygrad_tx, of whichever checkout PYTHONPATH names, or torch.

In: the library's name, and lines of [case, count]. Out: for each line the seconds of each call. It
imports nothing of this package, so that it runs beside any checkout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

CASES = ("a + b", "a * 2.0", "a @ b", "a.sum(0)", "Linear", "backward", "Adam")


def operations(lib: Any) -> dict[str, Callable[[], Any]]:
    """Each case, of tinygrad_tx or torch, ready to be called."""
    a, b = (lib.tensor([[0.5] * 4] * 4) for _ in range(2))
    layer = lib.nn.Linear(4, 4)
    p = lib.nn.Parameter(lib.tensor([1.0] * 4))
    optimizer, grad = lib.optim.Adam([p]), lib.tensor([1.0] * 4)

    def backward() -> None:
        (p * p).sum().backward()
        p.grad = None

    def adam() -> None:
        p.grad = grad
        optimizer.step()

    calls: tuple[Callable[[], Any], ...] = (
        lambda: a + b,
        lambda: a * 2.0,
        lambda: a @ b,
        lambda: a.sum(0),
        lambda: layer(a),
        backward,
        adam,
    )
    return dict(zip(CASES, calls, strict=True))


def serve(kind: str) -> None:
    """Answer lines of [case, count] with the seconds of each call."""
    lib = __import__("torch" if kind == "torch" else "tinygrad_tx")
    known = operations(lib)
    for line in sys.stdin:
        case, count = json.loads(line)
        call, times = known[case], []
        for _ in range(count):
            start = perf_counter()
            call()
            times.append(perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
