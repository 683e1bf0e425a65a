"""Colours of numbers: white to blue for what is 0 or more, blue over white to red for both signs.

In: arrays. Out: the number of a colour for each value, for the Cells of a Scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Levels = np.ndarray[Any, np.dtype[np.intp]]
STEPS = 33  # of a scale; odd, so that the middle of one with two signs is white


def mixed(a: str, b: str, share: float) -> str:
    """Colour a where share is 0, b where it is 1: "#rrggbb"."""
    parts = (
        round(int(a[i : i + 2], 16) * (1 - share) + int(b[i : i + 2], 16) * share)
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in parts)


def _scale(stops: Sequence[str]) -> tuple[str, ...]:
    found = []
    for place in np.linspace(0, len(stops) - 1, STEPS).tolist():
        at = min(int(place), len(stops) - 2)
        found.append(mixed(stops[at], stops[at + 1], place - at))
    return tuple(found)


SHARES = _scale(("#ffffff", "#cfe1f2", "#93c4de", "#4a97c9", "#1764ab", "#08306b"))
SIGNED = _scale(("#8c1d18", "#e0735c", "#f7d2c2", "#ffffff", "#c5dcec", "#4a97c9", "#0b3c73"))
# Of heads and curves, one after another.
LINES = (
    *("#1f6fb4", "#e07b12", "#2b9348", "#c92a2a", "#7b5ea7", "#8a5a44", "#d0589f", "#5f6b73"),
    *("#97922a", "#1296a6"),
)


def shares(values: np.ndarray[Any, Any]) -> Levels:
    """Levels of SHARES: of numbers from 0 to 1. What is no number has none."""
    return _levels(values)


def signed(values: np.ndarray[Any, Any], most: float | None = None) -> Levels:
    """Levels of SIGNED: of numbers from -most to most, by default of the largest."""
    if most is None:
        known = np.abs(values[np.isfinite(values)])
        most = float(known.max()) if known.size else 0.0
    return _levels(values / (2 * (most or 1.0)) + 0.5)


def _levels(values: np.ndarray[Any, Any]) -> Levels:
    with np.errstate(invalid="ignore"):
        found = np.rint(np.clip(values, 0, 1) * (STEPS - 1))
    return np.where(np.isnan(found), -1, found).astype(np.intp)
