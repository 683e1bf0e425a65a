"""PyTorch's side of benchmarks.gpu: the models of peers_torch.py under torch.autocast, with fused
optimizers and F.scaled_dot_product_attention.

In: works, kernels and their inputs. Called by gpu_worker.py in a process of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .peers_torch import load, made, optimizer
from .works import CLIP, Array, Batch, Work, weights

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Device:
    """contract.Device. where: "cuda"; "cpu" in tests."""

    def __init__(self, where: str = "cuda") -> None:
        if where == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(
                f"PyTorch {torch.__version__} finds no GPU: is it a build for CUDA, as pip install "
                "torch brings it on Linux?"
            )
        self._where = where

    def facts(self) -> dict[str, Any]:
        found = torch.cuda.get_device_properties(0)
        return {
            "name": found.name,
            "memory": found.total_memory,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }

    def training(self, work: Work, dropout: float, precision: str) -> Callable[[Any], Tensor]:
        model = made(work, dropout)
        load(model, weights(work))
        model.to(self._where)
        parameters = list(model.parameters())
        optimize = optimizer(work, parameters)
        loss_of = self._compiled(model.loss)
        dtype = _DTYPES.get(precision)

        def step(batch: tuple[Tensor, ...]) -> Tensor:
            with torch.autocast(self._where, dtype, enabled=dtype is not None):
                loss = loss_of(*batch)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimize.step()
            optimize.zero_grad(set_to_none=True)
            return loss.detach()

        return step

    def _compiled(self, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return f

    def put(self, batch: Batch) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(x).to(self._where) for x in batch)

    def kernel(self, name: str, precision: str, arrays: Sequence[Array]) -> Callable[[], Any]:
        dtype = _DTYPES.get(precision, torch.float32)
        given = list(self.put(tuple(arrays)))
        given = [x.to(dtype) if x.is_floating_point() else x for x in given]
        if name == "adamw":
            return _adamw(given)
        call = _KERNELS[name]
        mode = torch.enable_grad() if name.endswith("grad") else torch.no_grad()
        return mode(lambda: call(*given))

    def sample(self, found: Any, count: int) -> list[float]:
        numbers: list[float] = []
        for x in found if isinstance(found, tuple) else (found,):
            flat = x.detach().reshape(-1)
            numbers += flat[:: max(1, flat.shape[0] // count)].float().tolist()
        return numbers

    def wait(self) -> None:
        if self._where == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        torch.cuda.empty_cache()

    def held(self) -> int:
        return torch.cuda.max_memory_reserved()

    def waits(self, call: Callable[[], Any]) -> int:
        """PyTorch counts its own."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                call()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(x.message) for x in seen)


class CompiledDevice(Device):
    """Forward and backward by torch.compile; clipping and the optimizer's step, one fused kernel
    already, stay eager. Of kernels there is nothing to compile."""

    def _compiled(self, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(f)


def _attention_grad(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = F.scaled_dot_product_attention(*leaves, is_causal=True)
    return torch.autograd.grad(out, leaves, g)


def _cross_entropy_grad(x: Tensor, targets: Tensor) -> Tensor:
    """In float32, as autocast has it."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(leaf.float(), targets), leaf)[0]


_KERNELS: dict[str, Callable[..., Any]] = {
    "matmul": lambda a, b: a @ b,
    "linear": lambda x, w: F.linear(x, w),
    "softmax": lambda x: torch.softmax(x, -1),
    "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
    "attention": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "attention+grad": _attention_grad,
    "cross_entropy+grad": _cross_entropy_grad,
}


def _adamw(given: Sequence[Tensor]) -> Callable[[], Tensor]:
    parameters = [nn.Parameter(x) for x in given]
    for p in parameters:
        p.grad = p.detach() * 0.1
    optimize = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.1, fused=True)

    def call() -> Tensor:
        optimize.step()
        return parameters[0]

    return call
