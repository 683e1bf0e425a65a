"""Which file writes the native code of which kind of Kernel: one table, read by library.py and by
whatever needs to know how much scratch memory a call takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from ..kernels import kinds as k
from ..llvm import ir
from .processor import Processor

# Kind: (file, function). Beside each function stands one with `_scratch` after its name.
_WRITERS: dict[type[k.Kernel], tuple[str, str]] = {
    k.Pack: ("matmul.gemm", "pack"),
    k.Matmul: ("matmul.gemm", "matmul"),
    k.Attention: ("attention.attention", "attention"),
    k.AttentionGrad: ("attention.attention", "attention_grad"),
    k.Rows: ("rows.rows", "rows"),
    k.Columns: ("rows.columns", "columns"),
    k.Keep: ("small", "keep"),
    k.Index: ("small", "index"),
    k.ScatterAdd: ("small", "scatter_add"),
}


def render(kernel: k.Kernel, module: ir.Module, name: str, target: Processor) -> None:
    """Add to the module the function `void @name(ptr args, i64 task, ptr scratch)`, which does one
    task of a call of the kernel. TypeError for a kind that has no native form (Opaque)."""
    _writer(kernel, "")(kernel, module, name, target)


def scratch(kernel: k.Kernel, args: Sequence[int], target: Processor) -> int:
    """Bytes of scratch memory that each thread needs for a call with these arguments."""
    return int(_writer(kernel, "_scratch")(kernel, args, target))


def _writer(kernel: k.Kernel, ending: str) -> Callable[..., Any]:
    kind = type(kernel)
    if kind not in _WRITERS:
        raise TypeError(f"{kind.__name__} has no native form")
    file, function = _WRITERS[kind]
    found: Callable[..., Any] = getattr(import_module(f".{file}", __package__), function + ending)
    return found
