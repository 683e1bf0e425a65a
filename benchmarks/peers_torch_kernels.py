"""PyTorch's side of single kernels. Called by worker.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .works import Array


def _attention_grad(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    out = F.scaled_dot_product_attention(*inputs, is_causal=True)
    return torch.cat(torch.autograd.grad(out, inputs, g), -1)


_KERNELS: dict[str, Callable[..., Tensor]] = {
    "gemm": lambda a, b: a @ b,
    "gemm_bt": lambda a, b: a @ b.T,
    "softmax": lambda x: torch.softmax(x, -1),
    "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
    "attention": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "attention_grad": _attention_grad,
}


def kernel(name: str, *arrays: Array) -> Callable[[], Tensor]:
    """A function of one op, on these inputs."""
    inputs = [torch.from_numpy(array) for array in arrays]
    mode = torch.enable_grad() if name.endswith("grad") else torch.inference_mode()
    return mode(lambda: _KERNELS[name](*inputs))
