"""The objective that all models are trained by. In: what makes logits, and the tokens that
are right. Out: a loss. Called by language_model.py, encoder_decoder.py and bert.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..autocast import computed_in
from ..context import part
from ..dtypes import float32
from ..nn import functional as F  # noqa: N812
from ..partition import Partition
from ..tensor import Tensor
from .tensor_parallel import cross_entropy, logits_apart

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


def mean_loss(
    logits: Callable[[], Tensor], targets: Tensor, ignored: int, label_smoothing: float
) -> Tensor:
    """logits: gives those (B, T, V) of a model; targets (B, T) -> the mean cross-entropy, in nats,
    of those that are not `ignored`; 0 where all are. Added up in float32 at least. Where ranks
    share the words, each makes the logits of its own, and all find the same loss."""
    with logits_apart() as shared:
        found = logits()
    words = shared[0] if shared else None
    with part("loss"):
        loss, plain = _means(found, targets, words, ignored, label_smoothing)
    if (kept := _kept.get()) is not None:
        if plain is None:
            plain, _ = _means(found.detach(), targets, None, ignored, 0.0)
        kept.append(plain.detach())
    return loss


@computed_in("float32")
def _means(
    logits: Tensor, targets: Tensor, words: Partition | None, ignored: int, label_smoothing: float
) -> tuple[Tensor, Tensor | None]:
    """The mean, and the one without label smoothing, as far as that is known then."""
    rows, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    half = rows.dtype.itemsize < 4
    rows = rows.to(float32) if half else rows
    plain: Tensor | None = None
    if words is None:
        total = F.cross_entropy(
            rows,
            wanted,
            ignore_index=ignored,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        plain = None if label_smoothing else total
    else:
        losses, plains = cross_entropy(rows, wanted, words, ignored, label_smoothing)
        total, plain = losses.sum(), plains.sum()
    count = (wanted != ignored).sum().clip(min=1)

    def mean(x: Tensor) -> Tensor:
        found: Tensor = x / count
        return found.to(logits.dtype) if half else found

    loss = mean(total)
    return loss, loss if plain is total else None if plain is None else mean(plain)
