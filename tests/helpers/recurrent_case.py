"""Recurrent layers and cells, held to PyTorch's results and gradients of first and second order.

`python tests/helpers/recurrent_case.py`, with PyTorch installed, writes recurrent_values.json: of
each result its shape and three projections. nn/test_recurrent.py reads it and needs no PyTorch;
where it is installed, whole results are compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from convolution_case import projections

FILE = Path(__file__).parent / "recurrent_values.json"
T, B, I, H = 4, 3, 2, 5  # noqa: E741


class Case(NamedTuple):
    """A layer or cell, the shape of its input and of the state it begins with (None: zeros)."""

    kind: str
    settings: dict[str, Any]
    x: tuple[int, ...] = (T, B, I)
    hx: tuple[int, ...] | None = None
    lengths: list[int] | None = None


_ALL = {"num_layers": 2, "bidirectional": True, "batch_first": True}
CASES = {
    "RNN": Case("RNN", {}, hx=(1, B, H)),
    "RNN, relu": Case("RNN", {"nonlinearity": "relu", "bias": False, "num_layers": 2}),
    "LSTM": Case("LSTM", {"bias": False}),
    "LSTM, one": Case("LSTM", {"bidirectional": True}, (T, I), (2, H)),
    "LSTM, all": Case("LSTM", _ALL, (B, T, I), (4, B, H), [2, 4, 1]),
    "GRU": Case("GRU", {}, hx=(1, B, H)),
    "GRU, bias": Case("GRU", {"bias": False, "batch_first": True}, (B, T, I)),
    "GRU, all": Case("GRU", _ALL, (B, T, I), None, [4, 1, 3]),
    "RNNCell": Case("RNNCell", {"nonlinearity": "relu"}, (B, I), (B, H)),
    "LSTMCell": Case("LSTMCell", {}, (B, I), (B, H)),
    "GRUCell": Case("GRUCell", {}, (I,), (H,)),
}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """The same numbers everywhere."""
    return np.sin(np.arange(np.prod(shape)) * (1.7 + seed) + seed).reshape(shape)


def state(case: Case) -> list[np.ndarray]:
    shapes = [] if case.hx is None else [case.hx] * (1 + case.kind.startswith("LSTM"))
    return [numbers(*shape, seed=7 + i) for i, shape in enumerate(shapes)]


def flat(result: Any) -> list[Any]:
    """The Tensors of a layer's (output, state), or of a cell's state."""
    if isinstance(result, (tuple, list)):
        return [part for member in result for part in flat(member)]
    return [result]


def as_hx(case: Case, parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0] if parts else None


def by_torch(name: str) -> list[np.ndarray]:
    """What PyTorch gives: the results; the gradients of the sum of their cubes by input, state and
    weights; and the gradients of the sum of those gradients' squares."""
    import torch
    from torch.nn.utils import rnn

    case = CASES[name]
    layer = getattr(torch.nn, case.kind)(I, H, **case.settings, dtype=torch.float64)
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(torch.tensor(numbers(*p.shape, seed=20 + i)) / 2)
    given = [torch.tensor(a, requires_grad=True) for a in (numbers(*case.x), *state(case))]
    x, hx = given[0], as_hx(case, given[1:])
    if case.lengths is None:
        ys = flat(layer(x, hx))
    else:
        pack = rnn.pack_padded_sequence(x, torch.tensor(case.lengths), True, enforce_sorted=False)
        packed, last = layer(pack, hx)
        ys = [rnn.pad_packed_sequence(packed, True, total_length=T)[0], *flat(last)]
    leaves = [*given, *layer.parameters()]
    first = torch.autograd.grad(sum((y**3).sum() for y in ys), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), leaves)
    return [t.detach().numpy() for t in (*ys, *first, *second)]


def by_us(
    name: str, *, compiled: bool = False, order: int = 2, device: str = "cpu"
) -> list[np.ndarray]:
    """The same by this library; order: 1 without the gradients of gradients."""
    import tinygrad_tx as tx

    case = CASES[name]
    layer = getattr(tx.nn, case.kind)(I, H, **case.settings, dtype=tx.float64).to(device)
    with tx.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.assign(tx.tensor(numbers(*p.shape, seed=20 + i), device=device) / 2)
    arrays = (numbers(*case.x), *state(case))
    given = [tx.tensor(a, device=device, requires_grad=True) for a in arrays]
    leaves = [*given, *layer.parameters()]

    def gradients(loss: Any) -> list[Any]:
        loss.backward(create_graph=True)
        found = [t.grad for t in leaves]
        for t in leaves:
            t.grad = None
        return found

    def run() -> list[Any]:
        lengths = () if case.lengths is None else (tx.tensor(case.lengths, device=device),)
        ys = flat(layer(given[0], as_hx(case, given[1:]), *lengths))
        first = gradients(sum((y**3).sum() for y in ys))
        second = gradients(sum((g**2).sum() for g in first)) if order > 1 else []
        return [*ys, *first, *second]

    found = (tx.compile(run) if compiled else run)()
    assert {t.device for t in found} == {device}
    return [t.numpy() for t in found]


if __name__ == "__main__":
    found = {name: [projections(r) for r in by_torch(name)] for name in CASES}
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
