"""One step of training. In: a model, its configuration, and batches. Out: the model a step further,
and what the step showed. Called by the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import optim
from ..compiler import compile
from ..creation import tensor
from ..data import Batch
from ..models.encoder_decoder import EncoderDecoder
from ..optim import lr_scheduler
from ..tensor import Tensor
from .schema import Config

Run = Callable[..., Any]


class Outcome(NamedTuple):
    """loss: the mean over the batches' tokens, before the step. norm: of the gradient, unclipped.
    lr: that the step was taken with. finite: True if it was taken at all."""

    loss: float
    norm: float
    lr: float
    finite: bool


class Trainable:
    """A model with all that changes in a step: optimizer, schedule, moving average.

    Calling it takes a step on one or several batches, which together weigh as one batch of all
    their tokens would. train.compile decides whether a step runs from a plan.
    """

    def __init__(self, model: EncoderDecoder, config: Config) -> None:
        self.model = model
        self.optimizer = _optimizer(model, config)
        self.schedule = _schedule(self.optimizer, config)
        decay = config.optim.ema_decay
        self.ema = optim.EMA(model.parameters(), decay) if decay else None
        self._smoothing = config.train.label_smoothing
        self._clip = config.optim.clip_norm or float("inf")
        planned: Callable[[Run], Run] = compile if config.train.compile else lambda run: run
        self._whole = planned(self._step)
        self._part, self._end = planned(self._add), planned(self._update)

    def __call__(self, batches: Sequence[Batch]) -> Outcome:
        """One step on all of the batches."""
        lr = self.optimizer.param_groups[0]["lr"].item()
        skipped = self.optimizer.skipped.item()
        if len(batches) == 1:
            found, norm = self._whole(*tensors(batches[0]))
            loss = found.item()
        else:
            n_tokens = sum(batch.n_tokens for batch in batches)
            loss = 0.0
            for batch in batches:
                share = batch.n_tokens / n_tokens
                weight = tensor(share, dtype=self.optimizer.parameters[0].dtype)
                loss += share * self._part(*tensors(batch), weight).item()
            norm = self._end()
        return Outcome(loss, norm.item(), lr, skipped == self.optimizer.skipped.item())

    def _step(self, src: Tensor, tgt_in: Tensor, tgt_out: Tensor) -> tuple[Tensor, Tensor]:
        loss = self.model.loss(src, tgt_in, tgt_out, label_smoothing=self._smoothing)
        loss.backward()
        return loss, self._update()

    def _add(self, src: Tensor, tgt_in: Tensor, tgt_out: Tensor, weight: Tensor) -> Tensor:
        """Add a batch's share to the gradient."""
        loss = self.model.loss(src, tgt_in, tgt_out, label_smoothing=self._smoothing)
        (loss * weight).backward()
        return loss

    def _update(self) -> Tensor:
        """Take the step that the gradient asks for; its norm."""
        norm = optim.clip_grad_norm_(self.model.parameters(), self._clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update()
        return norm


def tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """src, tgt_in and tgt_out of a batch, on the default device."""
    return tensor(batch.src), tensor(batch.tgt_in), tensor(batch.tgt_out)


def _optimizer(model: EncoderDecoder, config: Config) -> optim.Adam:
    c = config.optim
    kind: type[optim.Adam] = {"adam": optim.Adam, "adamw": optim.AdamW}[c.name]
    lr = 0.0 if c.lr is None else c.lr  # noam sets its own
    return kind(model.parameters(), lr, (c.beta1, c.beta2), c.eps, c.weight_decay)


def _schedule(optimizer: optim.Adam, config: Config) -> lr_scheduler.Schedule:
    c = config.schedule
    if c.name == "noam":
        return lr_scheduler.Noam(optimizer, config.model.d_model, c.warmup_steps, c.scale)
    if c.name == "inverse_sqrt":
        return lr_scheduler.InverseSqrt(optimizer, c.warmup_steps)
    if c.name == "constant":
        return lr_scheduler.Constant(optimizer, c.warmup_steps)
    assert config.train.max_steps is not None  # a Config sees to it
    falling = {"linear": lr_scheduler.Linear, "cosine": lr_scheduler.Cosine}[c.name]
    return falling(optimizer, config.train.max_steps, c.warmup_steps, c.min_lr)
