"""The objective that all models are trained by. In: logits and the tokens that are right. Out: a
loss. Called by language_model.py, encoder_decoder.py and bert.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..autocast import computed_in
from ..context import part
from ..dtypes import float32
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor

_kept: ContextVar[list[Tensor] | None] = ContextVar("plain losses", default=None)


@contextmanager
def plain_losses() -> Iterator[list[Tensor]]:
    """Gives the losses that models take inside, once more without label smoothing and without a
    gradient: those of training, to be compared with those of validation."""
    found: list[Tensor] = []
    token = _kept.set(found)
    try:
        yield found
    finally:
        _kept.reset(token)


def mean_loss(logits: Tensor, targets: Tensor, ignored: int, label_smoothing: float) -> Tensor:
    """logits (B, T, V), targets (B, T) -> the mean cross-entropy, in nats, of those that are not
    `ignored`; 0 where all are. Added up in float32 at least."""
    with part("loss"):
        loss = _mean(logits, targets, ignored, label_smoothing)
    if (kept := _kept.get()) is not None:
        plain = _mean(logits.detach(), targets, ignored, 0.0) if label_smoothing else loss.detach()
        kept.append(plain)
    return loss


@computed_in("float32")
def _mean(logits: Tensor, targets: Tensor, ignored: int, label_smoothing: float) -> Tensor:
    rows, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    half = rows.dtype.itemsize < 4
    total = F.cross_entropy(
        rows.to(float32) if half else rows,
        wanted,
        ignore_index=ignored,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    mean: Tensor = total / (wanted != ignored).sum().clip(min=1)
    return mean.to(logits.dtype) if half else mean
