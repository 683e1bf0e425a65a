"""Event files for TensorBoard, by tensorboardX. In: rows of metrics.jsonl. Out: the directory
tensorboard/ of a run. Written by the recorder where train.tensorboard asks for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import UserError
from .log import Row

_TAGS = {
    "loss": "loss/trained_on",
    "cross_entropy": "loss/train",
    "valid_loss": "loss/valid",
    "perplexity": "loss/perplexity",
    "bits_per_byte": "loss/bits_per_byte",
    "bleu": "score/BLEU",
    "chrf": "score/chrF",
    "lr": "step/learning_rate",
    "grad_norm": "step/gradient_norm",
    "tokens_per_s": "step/tokens_per_s",
}


def require() -> Any:
    """The package; UserError if it is missing."""
    try:
        import tensorboardX
    except ImportError:
        raise UserError(
            'train.tensorboard is true, but tensorboardX is missing: pip install "tinygrad_tx'
            '[tensorboard]", or set train.tensorboard=false'
        ) from None
    return tensorboardX


class Events:
    """Event files in a directory. step: what an earlier sitting has written of later ones no longer
    counts."""

    def __init__(self, directory: Path, step: int) -> None:
        # Names have whole seconds: of two sittings in one, the second would empty the file.
        self._writer = require().SummaryWriter(
            str(directory), purge_step=step + 1, filename_suffix=f".from-{step}"
        )

    def row(self, row: Row) -> None:
        """The numbers of a row, as far as they are known; not those of the end, which are of other
        weights."""
        for key, tag in _TAGS.items():
            value = row.get(key)
            if value is not None and math.isfinite(value) and "of" not in row:
                self._writer.add_scalar(tag, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Everything is in the file."""
        self._writer.close()
