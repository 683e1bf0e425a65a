"""Rotary positions (Su et al., arXiv 2104.09864), with what stretches them beyond the lengths of
training: how fast each pair of coordinates turns, and the turning.

In: a base and a `rope_scaling` mapping with the keys of published configurations. Out: frequencies,
and queries or keys that have been turned by their positions. Called by llama.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..creation import tensor
from ..dtypes import float32
from ..errors import UserError
from ..tensor import Tensor

Scaling = Mapping[str, Any]
Floats = np.ndarray[Any, np.dtype[np.float32]]


class Rotation(NamedTuple):
    """How positions turn pairs of coordinates: cosines (T, 1, d/2), or (B, 1, T, 1, d/2) where rows
    have positions of their own, and sines with 2 in the place of the 1, the first one's negated."""

    cos: Tensor
    sin: Tensor

    def turn(self, x: Tensor) -> Tensor:
        """x (B, H, T, d): coordinates i and i + d/2 are a pair."""
        pairs = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
        return (pairs * self.cos + pairs.flip(-2) * self.sin).reshape(x.shape)


class Frequencies(NamedTuple):
    """Radians by which each of d/2 pairs turns from a position to the next, and what cosines and
    sines are multiplied by."""

    each: Floats
    scale: float

    def at(self, positions: Tensor, dtype: Any) -> Rotation:
        """positions int (T,) or (B, T) -> their rotation, in dtype. Angles are float32, as where
        published models were trained."""
        speed = tensor(self.each, device=positions.device)
        angle = (positions.to(float32).unsqueeze(-1) * speed).unsqueeze(-2)
        if positions.ndim == 2:
            angle = angle.unsqueeze(1)  # the same in all heads
        signs = tensor([[-1.0], [1.0]], device=positions.device)
        cos, sin = angle.cos() * self.scale, (angle * signs).sin() * self.scale
        return Rotation(cos.to(dtype), sin.to(dtype))


def frequencies(width: int, theta: float, scaling: Scaling | None, max_len: int) -> Frequencies:
    """Those of heads of that width. scaling: None, or a mapping whose rope_type is "default" or one
    of SCALINGS, with the other keys that this needs. UserError for others."""
    if scaling is not None and not isinstance(scaling, Mapping):
        raise UserError(f"rope_scaling is {scaling!r}; it must be a mapping with a rope_type")
    plain = np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    each = (1 / plain).astype(np.float32)
    kind = "default" if scaling is None else scaling.get("rope_type", scaling.get("type"))
    if kind == "default":
        return Frequencies(each, 1.0)
    if not isinstance(kind, str) or kind not in SCALINGS:
        known = ", ".join(("default", *SCALINGS))
        raise UserError(f"rope_scaling: rope_type is {kind!r}; those that there are: {known}")
    assert scaling is not None
    return SCALINGS[kind](each, width, theta, scaling, max_len)


def _number(scaling: Scaling, name: str, default: float | None = None) -> float:
    value = scaling.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise UserError(f"rope_scaling: {name} is {value!r}; it must be a positive number")
    return value


def _linear(each: Floats, width: int, theta: float, scaling: Scaling, max_len: int) -> Frequencies:
    """Positions lie closer by a factor."""
    return Frequencies(each / np.float32(_number(scaling, "factor")), 1.0)


def _llama3(each: Floats, width: int, theta: float, scaling: Scaling, max_len: int) -> Frequencies:
    """Slow pairs alone turn more slowly; between them and the fast ones the change is gradual."""
    factor, low, high = (
        _number(scaling, name) for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    length = _number(scaling, "original_max_position_embeddings", max_len)
    turns = length * each / np.float32(2 * math.pi)  # in the lengths of training
    share = np.clip((turns - low) / max(high - low, 1e-9), 0, 1)
    mixed = (1 - share) * each / factor + share * each
    return Frequencies(mixed.astype(np.float32), 1.0)


def _yarn(each: Floats, width: int, theta: float, scaling: Scaling, max_len: int) -> Frequencies:
    """Peng et al., arXiv 2309.00071: as llama3, along the pairs' numbers; and scores grow."""
    if theta <= 1:
        raise UserError(f"rope_scaling: with yarn, rope_theta is {theta}; it must be above 1")
    length = _number(scaling, "original_max_position_embeddings", max_len)
    factor = _number(scaling, "factor", max_len / length)

    def pair(turns: float) -> float:
        """The number of the pair that turns so often in the lengths of training."""
        return width * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = (
        pair(_number(scaling, name, at)) for name, at in (("beta_fast", 32), ("beta_slow", 1))
    )
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    ramp = (np.arange(width // 2, dtype=np.float32) - first) / ((last - first) or 0.001)
    slow = np.clip(ramp, 0, 1)
    mixed = each / np.float32(factor) * slow + each * (1 - slow)
    return Frequencies(mixed.astype(np.float32), _yarn_scale(scaling, factor))


def _yarn_scale(scaling: Scaling, factor: float) -> float:
    def of(times: float) -> float:
        return 0.1 * times * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.get("attention_factor") is not None:
        return _number(scaling, "attention_factor")
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return of(_number(scaling, "mscale")) / of(_number(scaling, "mscale_all_dim"))
    return of(1.0)


SCALINGS: Mapping[str, Callable[[Floats, int, float, Scaling, int], Frequencies]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
