"""JAX's side of benchmarks.gpu: the step of peers_jax.py, jitted whole, its state donated. In bf16
its activations have 16 bits, and attention is cuDNN's.

In: works. Called by gpu_worker.py in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .peers_jax import begin
from .works import Array, Batch, Work

_DTYPES = {"fp32": jnp.float32, "bf16": jnp.bfloat16}
_PRODUCTS = {"fp32": "highest", "bf16": None}


class Device:
    """contract.Device. where: "gpu"; "cpu" in tests."""

    def __init__(self, where: str = "gpu") -> None:
        if jax.default_backend() != where:
            raise RuntimeError(
                f'JAX {jax.__version__} finds no GPU: pip install "jax[cuda13]" (or [cuda12], as '
                "your driver is)"
            )
        self._last: Any = None

    def facts(self) -> dict[str, Any]:
        (found, *_) = jax.devices()
        memory = (found.memory_stats() or {}).get("bytes_limit", 0)
        return {"name": found.device_kind, "memory": memory, "jax": jax.__version__}

    def training(self, work: Work, dropout: float, precision: str) -> Callable[[Any], jax.Array]:
        # Products of float32 would be TF32's, which nobody else is allowed here.
        jax.config.update("jax_default_matmul_precision", _PRODUCTS[precision])
        state, step = begin(work, dropout, _DTYPES[precision])

        def call(batch: tuple[jax.Array, ...]) -> jax.Array:
            nonlocal state
            state, loss = step(state, batch)
            self._last = state[-1], loss
            return loss

        return call

    def put(self, batch: Batch) -> tuple[jax.Array, ...]:
        return tuple(jnp.asarray(x.astype(np.int32)) for x in batch)

    def kernel(self, name: str, precision: str, arrays: Sequence[Array]) -> Callable[[], Any]:
        raise KeyError(name)

    def sample(self, found: Any, count: int) -> list[float]:
        flat = found.reshape(-1)
        numbers: list[float] = flat[:: max(1, flat.shape[0] // count)].tolist()
        return numbers

    def wait(self) -> None:
        jax.block_until_ready(self._last)

    def forget(self) -> None:
        self._last = None

    def held(self) -> int:
        (found, *_) = jax.devices()
        return int((found.memory_stats() or {}).get("peak_bytes_in_use", 0))

    def waits(self, call: Callable[[], Any]) -> None:
        """JAX does not count them."""
