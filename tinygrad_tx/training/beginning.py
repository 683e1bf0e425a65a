"""The model that a run begins with, where it is none of its own: `train --init DIR`.

In: the directory of a run, or of a pretrained model. Out: its model, tokenizer and configuration.
Called by the command line and by the trainer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models import loading, registry
from ..nn import Module
from .config import PRESETS_OF, preset
from .run import RunDirectory
from .schema import Config, TokenizerConfig, model_section

_TOKENS = 2048  # in a batch


@dataclass(frozen=True)
class Beginning:
    """A trained model, and what cuts its texts."""

    path: str
    model: Any
    tokenizer: Any

    def give(self, model: Module) -> None:
        """Give a model these weights. UserError where they are of another one."""
        try:
            model.load_state_dict(self.model.state_dict())
        except UserError as error:
            raise UserError(f"train.init {self.path} is not of this model: {error}") from error


def begin(path: str) -> Beginning:
    """What is in a directory. UserError where there is no model, or no tokenizer for it."""
    model, tokenizer = loading.load(path)
    if tokenizer is None:
        raise UserError(f"{path} has no tokenizer, so no ids can be made of a text")
    return Beginning(path, model, tokenizer)


def configured(path: str) -> Config:
    """The configuration of a run that begins with what is in a directory: a run's own, or for a
    pretrained model the preset of its task with a low rate that falls."""
    if not loading.is_pretrained(Path(path)):
        run = RunDirectory(loading.directory_of(Path(path))).config()
        return replace(run, train=replace(run.train, init=path))
    found = begin(path)
    section = registry.described(found.model.config)
    model = model_section(section["kind"])(**section)
    base = preset(PRESETS_OF[model.task])
    own, positions = found.tokenizer, model.of_model().n_positions
    length = base.data.max_len if model.task == "translate" else 256
    if positions is not None:
        length = min(length, positions - positions % 2)
    return replace(
        base,
        data=replace(base.data, corpus="files", max_len=length, max_tokens=max(_TOKENS, length)),
        tokenizer=TokenizerConfig(
            kind="pretrained",
            vocab_size=found.model.config.vocab_size,
            pad_id=own.pad_id,
            bos_id=own.bos_id,
            eos_id=own.eos_id,
            mask_id=own.mask_id,
        ),
        model=model,
        optim=replace(base.optim, name="adamw", lr=1e-4, beta2=0.98, weight_decay=0.0),
        schedule=replace(base.schedule, name="cosine", warmup_steps=100, min_lr=0.0),
        train=replace(
            base.train,
            max_steps=1000,
            label_smoothing=0.0,
            log_every=50,
            valid_every=200,
            init=path,
        ),
    )
