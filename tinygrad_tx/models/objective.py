"""The objective that all models are trained by. In: logits and the tokens that are right. Out: a
loss. Called by language_model.py, encoder_decoder.py and bert.py.
"""

from __future__ import annotations

from ..autocast import computed_in
from ..context import part
from ..dtypes import float32
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor


@computed_in("float32")
def mean_loss(logits: Tensor, targets: Tensor, ignored: int, label_smoothing: float) -> Tensor:
    """logits (B, T, V), targets (B, T) -> the mean cross-entropy, in nats, of those that are not
    `ignored`; 0 where all are. Added up in float32 at least."""
    with part("loss"):
        return _mean_loss(logits, targets, ignored, label_smoothing)


def _mean_loss(logits: Tensor, targets: Tensor, ignored: int, label_smoothing: float) -> Tensor:
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
