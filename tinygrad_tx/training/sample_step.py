"""A step of training as something to look at: compiled, and run a few times on a batch of its own.

In: a model, and the configuration of its run. Out: the compiled step. Called by
`tinygrad-tx graph --html`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..compiler.compiled import Compiled
from ..creation import tensor
from ..models.encoder_decoder import EncoderDecoder
from ..tensor import Tensor
from .schema import Config
from .step import Trainable

POSITIONS = 2048  # in a batch, at most
RUNS = 3  # the last of them finds all warm, and is timed


def sample_step(model: Any, config: Config) -> tuple[Compiled, tuple[int, int]]:
    """The step that trains a model, after it has run on one batch of words in turn; and the rows
    and positions of the batch: as the configuration cuts them, 2,048 positions at most. The model
    is changed, as training changes it."""
    batch, shape = sample_batch(model, config.data.max_len, config.data.max_tokens)
    model.train()
    config = replace(config, train=replace(config.train, compile=True))
    step = Trainable(model, config)._whole
    assert isinstance(step, Compiled)
    for _ in range(RUNS):
        step(*batch)
    return step, shape


def sample_batch(model: Any, max_len: int, max_tokens: int) -> tuple[list[Tensor], tuple[int, int]]:
    """A batch of words in turn as the model's loss takes it, and its rows and positions: as many as
    are allowed, 2,048 positions at most."""
    rows = max(1, min(max_tokens, POSITIONS) // max_len)
    longest = model.config.n_positions
    length = max_len if longest is None else min(max_len, longest)
    pairs = isinstance(model, EncoderDecoder)
    return _batch(model.config, rows, length, pairs), (rows, length)


def _batch(config: Any, rows: int, length: int, pairs: bool) -> list[Tensor]:
    """Token ids: words in turn, from the last one down, as no special token is."""
    last = config.vocab_size - 1
    ids = [
        [last - (row + 3 * i) % max(1, min(last, 1000) // 2) for i in range(length)]
        for row in range(rows)
    ]
    if not pairs:
        return [tensor(ids), tensor(ids)]
    source = [[*row[:-1], config.eos_id] for row in ids]
    target = [[config.bos_id, *row[:-1]] for row in ids]
    return [tensor(source), tensor(target), tensor(source)]
