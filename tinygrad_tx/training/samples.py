"""Samples: single sentences that a validation has looked at. In: texts, and what a model makes of
them. Out: `Seen`, which samples.jsonl keeps a line of. Made by the tasks, written by the recorder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import nn, viz
from ..errors import ShapeError, UserError

LONGEST = 48  # tokens of a side whose attention is kept
EXTREMES = 5  # best and worst sentences

Row = dict[str, Any]


@dataclass(frozen=True)
class Attention:
    """The mean over the heads of each layer, in hundredths: layers[name][query][key]."""

    queries: Sequence[str]
    keys: Sequence[str]
    layers: dict[str, list[list[int]]]


@dataclass(frozen=True)
class Sample:
    """source: what the model is given. output: what it makes of it. reference: what is right, where
    that is known. chrf: of the output, from 0 to 100."""

    source: str
    output: str
    reference: str | None = None
    chrf: float | None = None
    attention: Attention | None = None


@dataclass(frozen=True)
class Seen:
    """A validation: numbers for metrics.jsonl; the same sentences each time; and, of all that were
    looked at, those that came out best, the best first, and worst, the worst first."""

    row: Row
    samples: Sequence[Sample] = ()
    best: Sequence[Sample] = ()
    worst: Sequence[Sample] = ()

    def line(self, step: int) -> dict[str, Any]:
        """As samples.jsonl has it."""
        kinds = {"samples": self.samples, "best": self.best, "worst": self.worst}
        return {"step": step, **{name: list(map(_bare, kind)) for name, kind in kinds.items()}}


def _bare(sample: Sample) -> dict[str, Any]:
    """Without what is not known."""
    return {key: value for key, value in asdict(sample).items() if value is not None}


def extremes(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The best and the worst by chrF; no sentence is both."""
    order = sorted(samples, key=lambda sample: -(sample.chrf or 0.0))
    n = min(EXTREMES, len(order) // 2)
    return order[:n], order[::-1][:n]


@dataclass(frozen=True)
class Heads:
    """Attention of a model, for samples. across: to the source alone, from each target token."""

    model: nn.Module
    across: bool

    def of(
        self, ids: Sequence[Sequence[int]], queries: Sequence[str], keys: Sequence[str]
    ) -> Attention | None:
        """That of one sentence, whose ids the model is called with; None where it records none or
        the sentence is long."""
        if max(len(queries), len(keys)) > LONGEST:
            return None
        try:
            maps = viz.attention_maps(self.model, *ids)
        except (UserError, ShapeError):  # it has none, or no positions for so many
            return None
        shape = len(queries), len(keys)
        layers = {
            name: np.rint(100 * weights.mean(0, dtype=np.float32)).astype(int).tolist()
            for name, weights in maps.items()
            if weights.shape[1:] == shape and (_looks_across(name) or not self.across)
        }
        return Attention(list(queries), list(keys), layers) if layers else None


def _looks_across(name: str) -> bool:
    """True for the module of a decoder that looks at the source."""
    parts = name.partition("#")[0].split(".")
    return parts[0] != "encoder" and parts[-1] in ("cross_attn", "attention")
