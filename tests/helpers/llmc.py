"""llm.c's step of GPT-2 124M on paper, kernel by kernel, beside ours; the tables of docs/gpu.md.

    python tests/helpers/llmc.py write       the tables in docs/gpu.md
    python tests/helpers/llmc.py show        them, and our launches one by one

Counted from karpathy/llm.c at f1e2ace (train_gpt2.cu and llmc/*.cuh), with cuDNN's attention, as
scripts/run_gpt2_124M.sh runs it (-r 0: nothing is computed again), one batch a step, float32 master
weights. A kernel reads and writes each operand once; a product by cuBLASLt is one launch, so is
each of cuDNN's two calls, whose insides are not known. Copies from and to the host do not count,
fills of memory (cudaMemset) do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tinygrad_tx.backends.gpus import gpu
from tinygrad_tx.compiler.inspect.estimate import Work
from tinygrad_tx.training import outlook

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
L, H, C, T, V = 12, 12, 768, 1024, 50304  # layers, heads, width, length; vocabulary, padded to 128
GROUPS = (
    *("embedding", "products", "weights cast", "attention", "norm and residual", "activation"),
    *("bias and norm gradients", "loss", "norm of gradients", "optimizer"),
)


class Kernel(NamedTuple):
    """A kernel, or several that are alike: how many launches; bytes and operations of each."""

    name: str
    group: str
    launches: int
    bytes: float
    flops: int = 0


def llmc(batch: int = 32, width: int = 2, *, fused: bool = False) -> list[Kernel]:
    """Its kernels in order. width: bytes of an activation, weight or gradient: 2 in bf16. fused:
    GELU inside of cuBLASLt's products (-ge 2), which it leaves out unless it is asked for."""
    n = batch * T  # positions
    x = n * C  # elements of an activation
    w = C * C  # elements of a square weight
    weights = V * C + T * C + L * (12 * w + 13 * C) + 2 * C
    master = width < 4
    made: list[Kernel] = []

    def add(
        name: str, group: str, launches: int, elements: int, extra: int = 0, flops: int = 0
    ) -> None:
        """elements: of `width` bytes; extra: other bytes. Of each launch."""
        made.append(Kernel(name, group, launches, elements * width + extra, flops))

    def product(name: str, k: int, m: int, read: int = 0, launches: int = L) -> None:
        """(n, k) @ (k, m), and what else its epilogue reads or writes."""
        add(name, "products", launches, n * k + k * m + n * m + read, flops=2 * n * k * m)

    def backward(name: str, k: int, m: int, read: int = 0, launches: int = L) -> None:
        """Of such a product by its input, and, added to what is there, by its weight."""
        if launches > 1:  # the last product has no bias
            add(f"{name}: by bias", "bias and norm gradients", launches, n * m)
            add(f"{name}: by bias, sums", "bias and norm gradients", launches, 2 * m)
        product(f"{name}: by input", m, k, read, launches)
        moved = n * k + n * m + 2 * k * m
        add(f"{name}: by weight", "products", launches, moved, flops=2 * n * k * m)

    statistics = 2 * 4 * n  # mean and deviation of each row, float32
    add("encoder_forward", "embedding", 1, 2 * x + T * C, 4 * n)
    add("layernorm_forward", "norm and residual", 1, 2 * x + 2 * C, statistics)
    product("qkv", C, 3 * C, 3 * C)
    scores = n * T * C  # operations of q @ k.T or the like, half of which is masked
    add("attention_forward_cudnn", "attention", L, 4 * x, 4 * n * H, 2 * scores)
    product("attproj", C, C, C)
    add("fused_residual_forward", "norm and residual", 2 * L, 4 * x + 2 * C, statistics)
    product("fc", C, 4 * C, 4 * C + (4 * x if fused else 0))
    if not fused:
        add("gelu_forward", "activation", L, 8 * x)
    product("fcproj", 4 * C, C, C)
    product("logits", C, V, launches=1)

    add("memset of losses", "loss", 1, 0, 4 * n)
    add("memset of gradients", "optimizer", 1, weights)
    add("fused_classifier", "loss", 1, 2 * n * V, 3 * 4 * n)
    add("memset of dresidual", "norm and residual", 1, x)
    backward("logits", C, V, launches=1)
    add("memset of a flag", "norm and residual", 2 * L + 1, 0, 4)
    add("layernorm_backward", "norm and residual", 2 * L + 1, 4 * x + 6 * C, statistics)
    backward("fcproj", 4 * C, C, 4 * x if fused else 0)
    if not fused:
        add("gelu_backward_inplace", "activation", L, 12 * x)
    backward("fc", C, 4 * C)
    backward("attproj", C, C)
    add("attention_backward_cudnn", "attention", L, 8 * x, 4 * n * H, 5 * scores)
    backward("qkv", C, 3 * C)
    add("wpe_backward", "embedding", 1, x + 2 * T * C)
    add("wte_backward", "embedding", 1, x + 2 * min(n, V) * C, 20 * n)
    add("global_sum of losses", "loss", 1, 0, 4 * n)

    add("memset of sums", "norm of gradients", 1, 0, 4 * 1024)
    add("global_norm_squared", "norm of gradients", 1, weights, 4 * 1024)
    add("global_sum of squares", "norm of gradients", 1, 0, 4 * 1024)
    # Read: the gradient, and a weight that has no master. Read and written: moments, masters.
    update = weights * ((2 if master else 3) * width + 16 + (8 if master else 0))
    made.append(Kernel("adamw", "optimizer", 16, update / 16))
    return made


def totals(kernels: Iterable[Kernel]) -> tuple[int, float]:
    """Launches and bytes of all."""
    found = list(kernels)
    return sum(k.launches for k in found), sum(k.launches * k.bytes for k in found)


def ours(precision: str = "bf16") -> outlook.Outlook:
    """Our step of the same model; counted once."""
    return _counted(precision)


@cache
def _counted(precision: str) -> outlook.Outlook:
    return outlook.of_work("gpt2-124m", precision=precision)


def group_of(work: Work) -> str:
    """The group of one of our launches, by what it computes and where."""
    kernel, ops, result, where = work[:4]
    layer = where.startswith(("GPT.h.", "GPT.ln_f"))
    if ops == "cast":
        return "weights cast"
    if kernel.startswith(("matmul", "gemm")):
        return "products"
    if kernel.startswith("attention"):
        return "attention"
    if "models.objective" in where or "50257]" in result or "[32768]" in result.split()[-1]:
        return "loss"
    if kernel == "columns" and layer:
        return "bias and norm gradients"
    if where.startswith("GPT.w") or kernel in ("index", "scatteradd") or ops == "copy":
        return "embedding"
    if where.startswith("GPT  ") and kernel == "columns":  # the sum over the batch for wpe
        return "embedding"
    if layer:
        return "norm and residual"
    return "optimizer" if "add sqrt div" in ops and "sub" in ops else "norm of gradients"


# Tables ----------------------------------------------------------------------------------------


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    heads = list(heads)
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines])


def gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f}"


def kernels() -> str:
    """llm.c's step, kernel by kernel."""
    rows = [(k.name, k.launches, gb(k.launches * k.bytes)) for k in llmc()]
    return table(("kernel", "launches", "GB"), rows)


def groups() -> str:
    """Both steps by what is done, and what is asked of ours."""
    theirs, found = llmc(), ours()
    rows: list[tuple[object, ...]] = []
    for name in GROUPS:
        launches, n_bytes = totals(k for k in theirs if k.group == name)
        own = [w for w in found.works if group_of(w) == name]
        moved = sum(w.times * w.bytes for w in own)
        rows.append((name, launches, sum(w.times for w in own), gb(n_bytes), gb(moved)))
    launches, n_bytes = totals(theirs)
    rows.append(("**all**", launches, found.launches, gb(n_bytes), gb(found.bytes)))
    share = found.launches / launches, found.bytes / n_bytes
    rows.append(("**ours to theirs**", "", f"{share[0]:.2f}", "", f"{share[1]:.2f}"))
    heads = ("", "launches, llm.c", "launches, ours", "GB, llm.c", "GB, ours")
    return table(heads, rows)


def works() -> str:
    """Each work on some GPUs, in bf16."""
    names = ("W1", "W2", "W3", "W4", "W4b", "gpt2-124m")
    shown = ("4090", "a100", "h100", "h200")
    rows = []
    for name in names:
        found = outlook.of_work(name, precision="bf16")
        times = (f"{found.seconds(gpu(g)) * 1e3:.2f}" for g in shown)
        rate = f"{found.tokens / found.seconds(gpu('h100')):,.0f}"
        peak = f"{found.memory.peak / 1e9:.2f}"
        rows.append((name, f"{found.launches:,}", gb(found.bytes), peak, *times, rate))
    heads = ("work", "launches", "GB moved", "GB at the peak", *(f"ms, {g}" for g in shown))
    return table((*heads, "tokens/s, h100"), rows)


def rates() -> str:
    """The same step as others publish its rate, and its least time on paper, on an H100."""
    h100, found = gpu("h100"), ours()
    least = sum(k.launches * h100.seconds(k.bytes, k.flops, "bf16") for k in llmc())
    rows = [
        ("llm.c", "measured, as published", "468,000"),
        ("nanoGPT with torch.compile", "measured, as published", "379,000"),
        ("llm.c", "on paper: at most", f"{found.tokens / least:,.0f}"),
        ("ours", "on paper: at most", f"{found.tokens / found.seconds(h100):,.0f}"),
    ]
    return table(("GPT-2 124M, T 1,024, bf16, one H100", "", "tokens/s"), rows)


TABLES = {"kernels": kernels, "groups": groups, "works": works, "rates": rates}


def filled(page: str, names: Iterable[str] = tuple(TABLES)) -> str:
    """The page with tables of these names in their marked places."""
    for name in names:
        begin, end = f"<!-- table {name} -->\n", "<!-- end -->"
        assert page.count(begin) == 1, f"docs/gpu.md has no place for the table {name}"
        before, _, after = page.partition(begin)
        page = f"{before}{begin}{TABLES[name]()}\n{end}{after.partition(end)[2]}"
    return page


def lines() -> Iterator[str]:
    for work in ours().works:
        words = " | ".join(work[:4])
        yield f"{group_of(work):24} {work.times:4} {work.bytes / 1e6:10.2f} MB  {words}"


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    elif sys.argv[1:] == ["show"]:
        print(*(f"{make()}\n" for make in TABLES.values()), *lines(), sep="\n")
    else:
        sys.exit(__doc__)
