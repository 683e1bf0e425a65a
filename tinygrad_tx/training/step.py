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
from ..distributed import world
from ..distributed.functional import all_reduce_gradients
from ..models.loading import PART
from ..models.objective import plain_losses
from ..optim import lr_scheduler
from ..optim.shards import ShardedState, Shards
from ..partition import partition_of
from ..random import drawing_for
from ..tensor import Tensor
from .checkpoint import Stateful
from .parallel import Part
from .schema import Config

Run = Callable[..., Any]
Inputs = Callable[[Any], tuple[Tensor, ...]]


class Outcome(NamedTuple):
    """loss: the mean over the batches' tokens, before the step, or a rank's part of it; plain:
    without label smoothing, NaN where a model's loss is of its own. norm: of the gradient,
    unclipped. lr: that the step was taken with. finite: True if it was taken at all."""

    loss: float
    plain: float
    norm: float
    lr: float
    finite: bool


class Trainable:
    """A model with all that changes in a step: optimizer, schedule, moving average, loss scale.

    Calling it takes a step on one or several batches, which together weigh as one batch of all
    their tokens would. train.compile decides whether a step runs from a plan; `traced` counts those
    that were made.
    """

    def __init__(
        self,
        model: Any,
        config: Config,
        inputs: Inputs | None = None,
        compiling: Callable[[int], None] = lambda n: None,
        share: Callable[[Any], Part] = Part,
    ) -> None:
        """inputs: what the model's loss takes of a batch; None: of sentence pairs. compiling: told,
        before batches of another shape are compiled, how many there are by then. share: the part of
        a batch that this rank has of it."""
        self.model, self._of, self._compiling = model, inputs or tensors, compiling
        self._share = share
        self._shapes: set[tuple[Any, ...]] = set()
        learnt = [p for p in model.parameters() if p.requires_grad]
        shared = config.optim.shard and world.current().size > 1
        self.shards = Shards(learnt) if shared else None
        # Ranks that share a model have all rows, and each the whole gradient of what it has.
        self._one_model = any(partition_of(p) is not None for p in model.parameters())
        self.optimizer = _optimizer(learnt, config, self.shards)
        self.schedule = _schedule(self.optimizer, config)
        decay = config.optim.ema_decay
        self.ema = optim.EMA(model.parameters(), decay) if decay else None
        self.precision = config.train.precision
        self.scaler = optim.GradScaler(enabled=self.precision == "fp16")
        self._smoothing = config.train.label_smoothing
        self._clip = config.optim.clip_norm or float("inf")
        self.traced = 0
        self._compiled = config.train.compile
        planned: Callable[[Run], Run] = compile if self._compiled else lambda run: run
        self._whole, self._shared = planned(self._step), planned(self._step_of_part)
        self._part, self._end = planned(self._add), planned(self._update)

    def __call__(self, batches: Sequence[Any]) -> Outcome:
        """One step on all of the batches."""
        lr = self.optimizer.param_groups[0]["lr"].item()
        skipped = self.optimizer.skipped.item()
        n_tokens = max(sum(batch.n_tokens for batch in batches), 1)
        loss = plain = 0.0
        norm: list[Tensor] = []
        for batch in batches:
            part, rows = self._share(batch)
            share, inputs, run = part.n_tokens / n_tokens, self._inputs(part), self._whole
            if len(batches) > 1 or rows is not None:
                weight = tensor(share, dtype=self.optimizer.parameters[0].dtype)
                inputs, run = (weight, *inputs), self._part if len(batches) > 1 else self._shared
            with drawing_for(rows):
                found, same, *norm = run(*inputs)
            loss += share * found.item()
            plain += share * _number(same)
        if len(batches) > 1:
            norm = [self._end()]
        taken = skipped == self.optimizer.skipped.item()
        return Outcome(loss, plain, norm[0].item(), lr, taken)

    def parts(self) -> dict[str, Stateful]:
        """All that has a state, by the names that a checkpoint knows it by."""
        found: dict[str, Stateful] = {
            PART: self.model,
            "optimizer": self.optimizer
            if self.shards is None
            else ShardedState(self.optimizer, self.shards),
            "schedule": self.schedule,
        }
        if self.ema is not None:
            found["ema"] = self.ema
        if self.scaler.is_enabled():
            found["scaler"] = self.scaler
        return found

    def _inputs(self, batch: Any) -> tuple[Tensor, ...]:
        inputs = self._of(batch)
        shapes = tuple(given.shape for given in inputs)
        if self._compiled and shapes not in self._shapes:
            self._shapes.add(shapes)
            self._compiling(len(self._shapes))
        return inputs

    def _step(self, *inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        loss, plain = self._losses(*inputs)
        self.scaler.scale(loss).backward()
        return loss, plain, self._update()

    def _step_of_part(
        self, weight: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """A step on a batch of which other ranks have the rest."""
        loss, plain = self._add(weight, *inputs)
        return loss, plain, self._update()

    def _add(self, weight: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add a batch's share to the gradient."""
        loss, plain = self._losses(*inputs)
        self.scaler.scale(loss * weight).backward()
        return loss, plain

    def _losses(self, *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The loss to train on, and the plain one, if the model has taken one by mean_loss. Of a
        compiled step this is run when it is traced, and not again."""
        self.traced += self._compiled
        with autocast(self.precision), plain_losses() as plain:
            loss: Tensor = self.model.loss(*inputs, label_smoothing=self._smoothing)
        return loss, plain[0] if len(plain) == 1 else None

    def _update(self) -> Tensor:
        """Take the step that the gradient asks for, of all ranks; its norm."""
        shards = self.shards
        if shards is not None:
            shards.take_gradients()
        elif not self._one_model:
            all_reduce_gradients(self.optimizer.parameters)
        self.scaler.unscale_(self.optimizer)
        if shards is None:
            norm = optim.clip_grad_norm_(self.model.parameters(), self._clip)
        else:
            norm = shards.clip_grad_norm_(self._clip)
        self.scaler.step(self.optimizer)
        if shards is not None:
            shards.spread()
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update()
        return norm


def _number(loss: Tensor | None) -> float:
    return float("nan") if loss is None else loss.item()


def tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """src, tgt_in and tgt_out of a batch, on the default device."""
    return tensor(batch.src), tensor(batch.tgt_in), tensor(batch.tgt_out)


def _optimizer(learnt: list[Tensor], config: Config, shards: Shards | None) -> optim.Adam:
    c = config.optim
    parts = learnt if shards is None else shards.of(learnt)
    groups: list[Any] = parts
    if c.weight_decay and not c.decay_vectors:
        matrices = [part for p, part in zip(learnt, parts, strict=True) if p.ndim > 1]
        vectors = [part for p, part in zip(learnt, parts, strict=True) if p.ndim <= 1]
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
