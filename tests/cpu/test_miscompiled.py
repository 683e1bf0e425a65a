"""What LLVM has compiled wrongly, and is kept from: places of extremes among few different values,
and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.models import GPT, GPTConfig

pytest.importorskip("llvmlite")

# Of x and a 0-d u, which is loaded once.
PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "argmax of a comparison": lambda x, u: (x > u).long().argmax(-1),
    "argmin of a comparison": lambda x, u: (x < u).long().argmin(-1),
    "argmax of int32": lambda x, u: (x > u).int().argmax(-1),
    "argmax of floats": lambda x, u: (x > u).float().argmax(-1),
    "argmax of a sum of two": lambda x, u: ((x > u).long() + (x > u / 2).long()).argmax(-1),
    "argmax of a choice": lambda x, u: tx.where(x > u, 2.0, -1.0).argmax(-1),
    "argmax of signs": lambda x, u: (x - u).sign().argmax(-1),
    "argmax of a product": lambda x, u: ((x > u).long() * 3).argmax(-1),
    "largest and its place": lambda x, u: (x > u).long().max(-1).indices,
    "place among columns": lambda x, u: (x > u).long().argmax(0),
    "of a share of the sum": lambda x, u: (
        (x.cumsum(-1) > u * x.sum(-1, keepdim=True)).long().argmax(-1)
    ),
    "by a row": lambda x, u: (x > x[:, :1] * u).long().argmax(-1),
    "constants": lambda x, u: (x > 0.9).long().argmax(-1),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_of_extremes(name: str) -> None:
    f = PLACES[name]
    run = tx.compile(f)
    for size in (5, 16, 17, 64, 131):
        rng = np.random.default_rng(size)
        for dtype in (np.float32, np.float64):
            x, u = tx.tensor(rng.random((40, size)).astype(dtype)), tx.tensor(0.9, dtype=tx.float64)
            found, wanted = run(x, u).numpy(), f(x, u).numpy()
            np.testing.assert_array_equal(found, wanted, err_msg=f"{size} {dtype}")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("settings", [{}, {"min_p": 0.01}, {"top_p": 0.99}, {"temperature": 2.0}])
def test_every_token_is_drawn(settings: dict[str, float]) -> None:
    """Of a model to which all tokens are alike."""
    tx.manual_seed(0)
    model = GPT(GPTConfig(40, n_layer=1, n_head=2, n_embd=8, block_size=1024)).eval()
    with tx.no_grad():
        for p in model.parameters():
            p.assign(p * 0)
    [[found]] = tx.decoding.generate(
        model, [[1]], do_sample=True, seed=3, max_new_tokens=1000, **settings
    )
    counts = np.bincount(found.tokens, minlength=40)
    assert counts.min() > 0
    if "top_p" not in settings:
        assert ((counts - 25) ** 2 / 25).sum() < 80  # chi squared of 39 degrees: one in 10,000
