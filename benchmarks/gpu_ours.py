"""Our side of benchmarks.gpu, through the public API: training steps and single kernels on "cuda".

In: works, kernels and their inputs. Called by gpu_worker.py in a process of its own; TX_COMPILE=0
makes it eager.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any
from unittest import mock

import tinygrad_tx as tx
import tinygrad_tx.nn.functional as F  # noqa: N812
from tinygrad_tx import Tensor, backends
from tinygrad_tx.training import works

from .works import Array, Batch, Work, weights

_DTYPES = {"bf16": tx.bfloat16, "fp16": tx.float16}


class Device:
    """contract.Device. where: "cuda"; "cpu" in tests, which has no memory to ask about."""

    def __init__(self, where: str = "cuda") -> None:
        self._backend = backends.get(where)
        tx.set_default_device(where)
        if where == "cuda":
            import cupy

            self._cupy: Any = cupy

    def facts(self) -> dict[str, Any]:
        runtime = self._cupy.cuda.runtime
        found = runtime.getDeviceProperties(self._cupy.cuda.Device().id)
        return {
            "name": found["name"].decode(),
            "memory": int(found["totalGlobalMem"]),
            "multiprocessors": int(found["multiProcessorCount"]),
            "cuda_of_driver": runtime.driverGetVersion(),
            "cuda_of_cupy": runtime.runtimeGetVersion(),
            "cupy": self._cupy.__version__,
        }

    def training(self, work: Work, dropout: float, precision: str) -> Callable[[Any], Tensor]:
        table = {**works.work(work.name), **asdict(work), "dropout": dropout}
        model, step = works.begin(table, precision)  # type: ignore[arg-type]
        model.load_state_dict(weights(work))
        compiled = tx.compile(step)
        return lambda batch: compiled(*batch)  # type: ignore[no-any-return]

    def put(self, batch: Batch) -> tuple[Tensor, ...]:
        return tuple(map(tx.tensor, batch))

    def kernel(self, name: str, precision: str, arrays: Sequence[Array]) -> Callable[[], Any]:
        given = [tx.tensor(array) for array in arrays]
        dtype = _DTYPES.get(precision)
        if dtype is not None:
            given = [x.to(dtype) if x.dtype is tx.float32 else x for x in given]
        if name == "adamw":
            return _adamw(given)
        compiled = tx.compile(_KERNELS[name])
        return lambda: compiled(*given)

    def sample(self, found: Any, count: int) -> list[float]:
        numbers: list[float] = []
        for x in found if isinstance(found, tuple) else (found,):
            flat = x.detach().reshape(-1)
            numbers += flat[:: max(1, flat.shape[0] // count)].float().tolist()
        return numbers

    def wait(self) -> None:
        self._backend.synchronize()

    def forget(self) -> None:
        self._cupy.get_default_memory_pool().free_all_blocks()

    def held(self) -> int:
        """All that CuPy's pool has taken, the arena among it: it gives nothing back by itself."""
        return int(self._cupy.get_default_memory_pool().total_bytes())

    def waits(self, call: Callable[[], Any]) -> int:
        """What the host waits for in code of ours; what CuPy waits for by itself, in sorts and
        where a mask is an index, is not seen."""
        from tinygrad_tx.backends.arrays.cupy_backend import CupyBackend
        from tinygrad_tx.backends.gpu.cupy_device import CupyReports, CupyTable

        places = (
            *((CupyBackend, "to_host"), (CupyBackend, "synchronize")),
            *((CupyReports, "_wait"), (CupyTable, "run_timed")),
        )
        with ExitStack() as stack:
            seen = [
                stack.enter_context(mock.patch.object(kind, name, autospec=True, side_effect=real))
                for kind, name in places
                for real in [getattr(kind, name)]
            ]
            call()
            return sum(place.call_count for place in seen)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _attention_grad(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    def total(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found: Tensor = (_attention(q, k, v) * g).sum()
        return found

    return tuple(tx.grad(total, argnums=(0, 1, 2))(q, k, v))


_KERNELS: dict[str, Callable[..., Any]] = {
    "matmul": lambda a, b: a @ b,
    "linear": lambda x, w: x @ w.transpose(0, 1),
    "softmax": lambda x: F.softmax(x, -1),
    "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[-1], w, b),
    "attention": _attention,
    "attention+grad": _attention_grad,
    "cross_entropy+grad": lambda x, targets: tx.grad(F.cross_entropy)(x, targets),
}


def _adamw(given: Sequence[Tensor]) -> Callable[[], Tensor]:
    parameters = [tx.nn.Parameter(x) for x in given]
    for p in parameters:
        p.grad = p.detach() * 0.1
    step = tx.compile(tx.optim.AdamW(parameters, 1e-3, weight_decay=0.1).step)

    def call() -> Tensor:
        step()
        return parameters[0]

    return call
