"""Works: training steps of known sizes, by name. works.toml has them as data.

In: a name. Out: its table; a model and a function that takes a step of training it. Called by
outlook.py, and by benchmarks/, which measures them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from .. import optim
from ..autocast import Precision, autocast
from ..distributed.functional import all_reduce_gradients
from ..errors import UserError
from ..models import GPT, GPTConfig, Transformer, TransformerConfig
from ..tensor import Tensor

Step = Callable[..., Tensor]  # takes a batch, gives its loss


@cache
def works() -> Mapping[str, Mapping[str, Any]]:
    """The table of each work."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    named = tables["measured"] | tables["planned"]
    return {name: {**tables[work["kind"]], **work} for name, work in named.items()}


def work(name: str) -> Mapping[str, Any]:
    """The work of that name; UserError that lists the names if there is none."""
    if name not in works():
        near = get_close_matches(name, works(), 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"the works are {', '.join(works())}"
        raise UserError(f"work {name!r} is unknown: {hint}")
    return works()[name]


def sized(name: str, batch: int | None = None, length: int | None = None) -> dict[str, Any]:
    """The table of a work, in other batches where they are given."""
    table = dict(work(name))
    table["batch"], table["length"] = batch or table["batch"], length or table["length"]
    return table


def begin(work: Mapping[str, Any], precision: Precision = "fp32") -> tuple[Any, Step]:
    """A new model, in training mode, and its step, not compiled: (src, tgt_in, tgt_out) of a
    transformer or (ids, targets) of a gpt, int64 (batch, length) each -> the loss. precision: of
    the model's forward (tx.autocast). Of several ranks each takes the step with its rows of a
    batch, and weight=, its share of the tokens."""
    model: Any
    rates, options = (work["lr"], tuple(work["betas"]), work["eps"]), {}
    if work["kind"] == "transformer":
        model = Transformer(
            TransformerConfig(
                vocab_size=work["vocab"],
                d_model=work["width"],
                n_heads=work["heads"],
                d_ff=work["hidden"],
                n_encoder_layers=work["layers"],
                n_decoder_layers=work["layers"],
                dropout=work["dropout"],
            )
        )
        options["label_smoothing"] = work["label_smoothing"]
        optimizer: optim.Adam = optim.Adam(model.parameters(), *rates)
    else:
        model = GPT(
            GPTConfig(
                vocab_size=work["vocab"],
                n_layer=work["layers"],
                n_head=work["heads"],
                n_embd=work["width"],
                block_size=work["length"],
                dropout=work["dropout"],
                bias=work["bias"],
                activation=work["activation"],
            )
        )
        optimizer = optim.AdamW(model.parameters(), *rates, work["weight_decay"])
    model.train()

    def step(*batch: Tensor, weight: Tensor | None = None) -> Tensor:
        with autocast(precision):
            loss: Tensor = model.loss(*batch, **options)
        (loss if weight is None else loss * weight).backward()
        all_reduce_gradients(model.parameters())
        optim.clip_grad_norm_(model.parameters(), work["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return model, step
