"""What test_processor_bits.py runs once for each kind of processor: kernels of every kind and whole
programs, each of whose results becomes a digest. Printed as one JSON object.

    python processor_bits.py KIND [PART ...]

A kind that this processor is not (avx512, neon) is run, too: as the code that is written for it,
with its vectors, tiles and order of operations, made into instructions that there are here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import decoding
from tinygrad_tx.backends.cpu import jit
from tinygrad_tx.models import GPT, GPTConfig, Transformer, TransformerConfig
from tinygrad_tx.nn import functional as F  # noqa: N812

Array = np.ndarray[Any, Any]
LENGTHS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 130, 2047, 2048, 2049, 5000)
FLOATS = ("float32", "float64", "float16", "bfloat16")
ROW: dict[str, Callable[[tx.Tensor], tx.Tensor]] = {
    "sum": lambda x: x.sum(-1),
    "mean of squares": lambda x: (x * x).mean(-1),
    "sum of long bodies": lambda x: (((x * 1.1 + 0.3) * x - 0.7) * (x + 2) * (x - 3) * x).sum(-1),
    "norm": lambda x: x.norm(dim=-1),
    "max, min": lambda x: x.amax(-1) - x.amin(-1),
    "argmax": lambda x: x.argmax(-1),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "var": lambda x: x.var(-1) if x.shape[-1] > 1 else x,
    "layer_norm": lambda x: F.layer_norm(x, (x.shape[-1],)),
    "any": lambda x: (x > 2).any(-1),
    "strided": lambda x: x[:, ::2].sum(-1),
    "counted": lambda x: (x * tx.arange(x.shape[-1]).to(x.dtype)).sum(-1),
}


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def compiled(f: Callable[..., Any], *args: tx.Tensor) -> Any:
    return tx.compile(f)(*args)


def rows() -> Iterator[tuple[str, Any]]:
    for dtype in ("float32", "float64", "bfloat16"):
        for n in LENGTHS[1::2] if dtype == "float32" else LENGTHS[::5]:
            x = tx.tensor(random(3, n)).to(getattr(tx, dtype))
            for name, f in list(ROW.items())[: len(ROW) if dtype == "float32" else 3]:
                yield f"{name} {dtype} {n}", compiled(f, x)
    zeros = tx.tensor([[0.0, -0.0] * 20, [-0.0, 0.0] * 20, [-0.0] * 40])
    yield "zeros", compiled(lambda x: 1 / x.amax(-1), zeros)
    for n in (10**5, 10**6):
        yield f"long {n}", compiled(lambda x: (x * x).sum(), tx.tensor(random(n)).float())


def columns() -> Iterator[tuple[str, Any]]:
    for dtype in FLOATS:
        for m, n in ((1, 5), (63, 33), (64, 8), (129, 70), (1000, 3), (5000, 17)):
            x = tx.tensor(random(m, n)).to(getattr(tx, dtype))
            yield f"columns {dtype} {m} {n}", compiled(lambda x: (x.sum(0), x.amax(0)), x)


def maps() -> Iterator[tuple[str, Any]]:
    for dtype in ("float32", "float64"):
        x = tx.tensor(random(1000) * 3).to(getattr(tx, dtype))
        for name in ("exp", "tanh", "erf", "expm1", "sqrt", "sin", "floor", "sigmoid"):
            yield f"{name} {dtype}", compiled(lambda x, name=name: getattr(x, name)(), x)
        yield f"log {dtype}", compiled(lambda x: (x.abs() + 0.1).log(), x)
        yield f"gelu {dtype}", compiled(lambda x: F.gelu(x), x)
        yield f"power {dtype}", compiled(lambda x: x.abs() ** 1.7, x)


def products() -> Iterator[tuple[str, Any]]:
    for dtype in FLOATS:
        for m, n, k in ((1, 1, 1), (1, 40, 300), (2, 33, 64), (7, 5, 3), (65, 70, 600)):
            a, b = (tx.tensor(random(*shape)).to(getattr(tx, dtype)) for shape in ((m, k), (k, n)))
            yield f"product {dtype} {m} {n} {k}", compiled(lambda a, b: a @ b, a, b)
            yield f"turned {dtype} {m} {n} {k}", compiled(lambda a, b: b.T @ a.T, a, b)


def attention() -> Iterator[tuple[str, Any]]:
    for dtype in ("float32", "float64", "bfloat16"):
        for t, s, d, masked, causal in (
            (1, 1, 4, False, False),
            (1, 37, 64, True, False),
            (2, 40, 24, False, False),
            (9, 9, 8, False, True),
            (33, 50, 16, True, False),
            (130, 130, 32, False, True),
        )[:: 1 if dtype == "float32" else 3]:

            def step(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor, m: Any, causal: bool) -> Any:
                y = F.scaled_dot_product_attention(q, k, v, m, is_causal=causal)
                (y * y).sum().backward()
                return y, q.grad, k.grad, v.grad

            shapes = (2, 2, t, d), (2, 2, s, d), (2, 2, s, d)
            q, k, v = (tx.tensor(random(*x, seed=i)) for i, x in enumerate(shapes))
            q, k, v = (x.to(getattr(tx, dtype)).requires_grad_() for x in (q, k, v))
            mask = tx.tensor(random(2, 1, t, s) > -1) if masked else None
            name = f"attention {dtype} {t} {s} {d}"
            yield name, compiled(step, q, k, v, mask, causal)


def translation() -> Iterator[tuple[str, Any]]:
    tx.manual_seed(3)
    config = TransformerConfig(
        61, d_model=40, n_heads=4, d_ff=72, n_encoder_layers=2, n_decoder_layers=2, dropout=0.1
    )
    for dtype in ("float32",):
        model = Transformer(config).to(getattr(tx, dtype))
        optimizer = tx.optim.AdamW(model.parameters(), lr=3e-3)

        @tx.compile
        def step(src: tx.Tensor, given: tx.Tensor, wanted: tx.Tensor) -> tx.Tensor:
            loss = model.loss(src, given, wanted, label_smoothing=0.1)  # noqa: B023
            loss.backward()
            tx.optim.clip_grad_norm_(model.parameters(), 1.0)  # noqa: B023
            optimizer.step()  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            return loss

        rng = np.random.default_rng(1)
        src, tgt = rng.integers(3, 61, (6, 11)), rng.integers(3, 61, (6, 10))
        src[:3, 7:] = tgt[:3, 6:] = 0
        batch = [tx.tensor(x.copy()) for x in (src, tgt[:, :-1], tgt[:, 1:])]
        for i in range(4):
            yield f"loss {dtype} {i}", step(*batch)
        for name, p in model.named_parameters():
            yield f"parameter {dtype} {name}", p
        model.eval()
        for beam in (1, 3):
            found = decoding.generate(model, batch[0], max_new_tokens=12, beam_size=beam)
            yield f"beam {beam} {dtype}", np.array([repr(h) for h in found])


def gpt() -> Iterator[tuple[str, Any]]:
    tx.manual_seed(4)
    model = GPT(GPTConfig(50, 2, 2, 24, 32, dropout=0.1, init_std=0.1))
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-2)

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    ids = tx.tensor(np.random.default_rng(2).integers(0, 50, (4, 20)))
    for i in range(3):
        yield f"gpt {i}", step(ids)
    for name, p in model.named_parameters():
        yield f"gpt {name}", p


def digest(value: Any) -> str:
    arrays = value if isinstance(value, (tuple, list)) else [value]
    found = sha256()
    for array in arrays:
        x = array.detach().numpy() if isinstance(array, tx.Tensor) else np.asarray(array)
        if x.dtype.kind == "f":
            x = np.where(np.isnan(x), x.dtype.type(np.nan), x)  # their payloads mean nothing
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()[:16]


def believe(kind: str) -> None:
    """Have code written for that kind of processor."""
    if kind in jit.kinds():
        os.environ["TX_HOST_FEATURES"] = kind
        return
    written = replace(jit.host_target(), name=kind, bytes=jit.named_target(kind).bytes)
    jit.host_target = lambda: written


if __name__ == "__main__":
    believe(sys.argv[1])
    every = (rows, columns, maps, products, attention, translation, gpt)
    parts = [part for part in every if part.__name__ in sys.argv[2:] or len(sys.argv) == 2]
    print(json.dumps({name: digest(value) for part in parts for name, value in part()}))
