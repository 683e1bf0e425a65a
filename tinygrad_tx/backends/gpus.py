"""GPUs on paper: what named ones can do at most, as their makers say.

In: a name. Out: a GPU. Called by compiler/inspect/estimate.py, `tinygrad-tx plan` and
benchmarks/gpu.py; nothing here needs one. Another GPU is one entry of GPUS.

Rates are those without sparsity, of tensor cores that add up in float32, at the boost clock.
Sources: the datasheets and architecture papers of A100, L4, L40S, H100 and H200; NVIDIA's papers on
the GeForce chips GA102 and AD102.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import NamedTuple

from ..errors import UserError

# Seconds that a kernel of a CUDA graph takes beside its work, to start and to end: an assumption,
# the same for all. Between dependent kernels of a graph NVIDIA measured 0.5 us (its blog on CUDA
# graphs, 2019); an empty kernel takes one or two.
LAUNCH = 1.5e-6


class GPU(NamedTuple):
    """memory: bytes. bandwidth: bytes a second. fp32, tf32, bf16: products' operations a second,
    on operands of that precision; those of fp16 are as many as those of bf16."""

    name: str
    memory: float
    bandwidth: float
    fp32: float
    tf32: float
    bf16: float

    def rate(self, precision: str) -> float:
        """The operations a second in a precision of tx.autocast."""
        rates = {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16, "fp16": self.bf16}
        return rates[precision]

    def seconds(self, n_bytes: float, flops: float, precision: str) -> float:
        """The least time that a launch takes: that of its bytes or of its operations, whichever is
        longer (a roofline), and LAUNCH."""
        return max(n_bytes / self.bandwidth, flops / self.rate(precision)) + LAUNCH


GPUS: Mapping[str, GPU] = MappingProxyType(
    {
        "h200": GPU("NVIDIA H200 SXM", 141e9, 4.8e12, 66.9e12, 494.7e12, 989.4e12),
        "h100": GPU("NVIDIA H100 SXM", 80e9, 3.35e12, 66.9e12, 494.7e12, 989.4e12),
        "a100": GPU("NVIDIA A100 SXM 80GB", 80e9, 2.039e12, 19.5e12, 156e12, 312e12),
        "a100-40": GPU("NVIDIA A100 SXM 40GB", 40e9, 1.555e12, 19.5e12, 156e12, 312e12),
        "l40s": GPU("NVIDIA L40S", 48e9, 0.864e12, 91.6e12, 183e12, 362e12),
        "l4": GPU("NVIDIA L4", 24e9, 0.3e12, 30.3e12, 60e12, 121e12),
        "4090": GPU("NVIDIA GeForce RTX 4090", 24e9, 1.008e12, 82.6e12, 82.6e12, 165.2e12),
        "3090": GPU("NVIDIA GeForce RTX 3090", 24e9, 0.936e12, 35.6e12, 35.6e12, 71e12),
    }
)


def gpu(name: str) -> GPU:
    """The GPU of that name; UserError that lists the names if there is none."""
    found = GPUS.get(name.lower().removeprefix("rtx").strip(" -"))
    if found is None:
        near = get_close_matches(name.lower(), GPUS, 1)
        hint = f"did you mean {near[0]}?" if near else f"the GPUs are {', '.join(GPUS)}"
        raise UserError(f"GPU {name!r} is unknown here: {hint}")
    return found


def recognised(device: str) -> GPU | None:
    """The GPU that a driver calls by this name, such as "NVIDIA H100 80GB HBM3". None for others,
    among them those that share a name and are slower: PCIe, NVL, laptops."""
    words = set(re.findall(r"[a-z0-9]+", device.lower()))
    if words & {"pcie", "nvl", "laptop", "mig"}:
        return None
    names = [name for name in GPUS if name in words]
    if names and "40gb" in words:
        names = [name for name in (f"{names[0]}-40",) if name in GPUS]
    return GPUS[names[0]] if names else None
