"""One step of training. In: a model, its configuration, and batches. Out: the model a step further,
and what the step showed. Called by the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import optim
from ..autocast import autocast
from ..compiler import compile
from ..creation import tensor
from ..data import Batch
from ..optim import lr_scheduler
from ..tensor import Tensor
from .schema import Config

Run = Callable[..., Any]
Inputs = Callable[[Any], tuple[Tensor, ...]]


class Outcome(NamedTuple):
    """loss: the mean over the batches' tokens, before the step. norm: of the gradient, unclipped.
    lr: that the step was taken with. finite: True if it was taken at all."""

    loss: float
    norm: float
    lr: float
    finite: bool


class Trainable:
    """A model with all that changes in a step: optimizer, schedule, moving average, loss scale.

    Calling it takes a step on one or several batches, which together weigh as one batch of all
    their tokens would. train.compile decides whether a step runs from a plan.
    """

    def __init__(self, model: Any, config: Config, inputs: Inputs | None = None) -> None:
        """inputs: what the model's loss takes of a batch; None: of sentence pairs."""
        self.model, self._inputs = model, inputs or tensors
        self.optimizer = _optimizer(model, config)
        self.schedule = _schedule(self.optimizer, config)
        decay = config.optim.ema_decay
        self.ema = optim.EMA(model.parameters(), decay) if decay else None
        self.precision = config.train.precision
        self.scaler = optim.GradScaler(enabled=self.precision == "fp16")
        self._smoothing = config.train.label_smoothing
        self._clip = config.optim.clip_norm or float("inf")
        planned: Callable[[Run], Run] = compile if config.train.compile else lambda run: run
        self._whole = planned(self._step)
        self._part, self._end = planned(self._add), planned(self._update)

    def __call__(self, batches: Sequence[Any]) -> Outcome:
        """One step on all of the batches."""
        lr = self.optimizer.param_groups[0]["lr"].item()
        skipped = self.optimizer.skipped.item()
        if len(batches) == 1:
            found, norm = self._whole(*self._inputs(batches[0]))
            loss = found.item()
        else:
            n_tokens = sum(batch.n_tokens for batch in batches)
            loss = 0.0
            for batch in batches:
                share = batch.n_tokens / n_tokens
                weight = tensor(share, dtype=self.optimizer.parameters[0].dtype)
                loss += share * self._part(weight, *self._inputs(batch)).item()
            norm = self._end()
        return Outcome(loss, norm.item(), lr, skipped == self.optimizer.skipped.item())

    def _step(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        loss = self._loss(*inputs)
        self.scaler.scale(loss).backward()
        return loss, self._update()

    def _add(self, weight: Tensor, *inputs: Tensor) -> Tensor:
        """Add a batch's share to the gradient."""
        loss = self._loss(*inputs)
        self.scaler.scale(loss * weight).backward()
        return loss

    def _loss(self, *inputs: Tensor) -> Tensor:
        with autocast(self.precision):
            loss: Tensor = self.model.loss(*inputs, label_smoothing=self._smoothing)
        return loss

    def _update(self) -> Tensor:
        """Take the step that the gradient asks for; its norm."""
        self.scaler.unscale_(self.optimizer)
        norm = optim.clip_grad_norm_(self.model.parameters(), self._clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update()
        return norm


def tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """src, tgt_in and tgt_out of a batch, on the default device."""
    return tensor(batch.src), tensor(batch.tgt_in), tensor(batch.tgt_out)


def _optimizer(model: Any, config: Config) -> optim.Adam:
    c = config.optim
    learnt = [p for p in model.parameters() if p.requires_grad]
    groups: list[Any] = learnt
    if c.weight_decay and not c.decay_vectors:
        matrices = [p for p in learnt if p.ndim > 1]
        vectors = [p for p in learnt if p.ndim <= 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    kind: type[optim.Adam] = {"adam": optim.Adam, "adamw": optim.AdamW}[c.name]
    lr = 0.0 if c.lr is None else c.lr  # noam sets its own
    return kind(groups, lr, (c.beta1, c.beta2), c.eps, c.weight_decay)


def _schedule(optimizer: optim.Adam, config: Config) -> lr_scheduler.Schedule:
    c = config.schedule
    if c.name == "noam":
        return lr_scheduler.Noam(
            optimizer, config.model.of_model().d_model, c.warmup_steps, c.scale
        )
    if c.name == "inverse_sqrt":
        return lr_scheduler.InverseSqrt(optimizer, c.warmup_steps)
    if c.name == "constant":
        return lr_scheduler.Constant(optimizer, c.warmup_steps)
    assert config.train.max_steps is not None  # a Config sees to it
    falling = {"linear": lr_scheduler.Linear, "cosine": lr_scheduler.Cosine}[c.name]
    steps = config.train.max_steps
    warmup = c.warmup_steps if c.warmup_steps < steps else steps // 2
    return falling(optimizer, steps, warmup, c.min_lr)
