"""`tinygrad-tx plan`: a step of training on paper: its launches, bytes and memory, and the least
time that a GPU takes for them."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..autocast import PRECISIONS
from ..errors import UserError
from .command import Command, count, path

if TYPE_CHECKING:
    from rich.table import Table

    from ..backends.gpus import GPU
    from ..compiler.inspect.estimate import Work
    from ..training.outlook import Outlook
    from ..training.schema import Config

_SHOWN = 20  # rows of the table, unless --all is given
_WIDTH = 140  # columns, where there is no terminal
_WORDS = {"kernel": 15, "ops": 22, "result": 20, "where": 28}  # columns of each text
_LAYER = re.compile(r"\.\d+(?=\.)")


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config", type=path, nargs="?", metavar="CONFIG",
        help="a preset's name, a .toml file like config.toml of a run, or a run directory",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=path, metavar="NAME",
        help="instead, a step of known size: W1, W2, W3, W4, W4b (of benchmarks/) or gpt2-124m",
    )  # fmt: skip
    parser.add_argument(
        "--gpu", type=path, default="h200", metavar="NAME",
        help="h200 (default), h100, a100, a100-40, l40s, l4, 4090 or 3090",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="bf16",
        help="of products, as train --precision has it; default: bf16",
    )  # fmt: skip
    parser.add_argument("--batch", type=count, metavar="N", help="rows of a batch")
    parser.add_argument("--length", type=count, metavar="N", help="positions of a row")
    parser.add_argument(
        "--vocab", type=count, metavar="N", help="pieces of the vocabulary, if it turns out smaller"
    )
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
        help="any value of config.toml, such as model.d_model=256",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="every launch, in order")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _run(args: Namespace) -> None:
    from ..backends.gpus import gpu

    if bool(args.config) == bool(args.work):
        raise UserError("plan needs one of CONFIG and --work, such as: tinygrad-tx plan --work W1")
    machine = gpu(args.gpu)
    found = _outlook(args)
    if args.json:
        print(json.dumps(_described(found, machine), indent=1))
    else:
        _print(found, machine, every=args.all)


def _outlook(args: Namespace) -> Outlook:
    from ..training import outlook

    sizes = {"batch": args.batch, "length": args.length, "precision": args.precision}
    if not args.work:
        return outlook.of_config(_config(args.config, args.set), vocab=args.vocab, **sizes)
    if args.set or args.vocab:
        raise UserError("--set and --vocab are for a CONFIG; a --work takes --batch and --length")
    return outlook.of_work(args.work, **sizes)


def _config(name: str, changes: list[str]) -> Config:
    """The configuration of a preset, a file or a run directory."""
    from ..training import config as configs
    from ..training.run import RunDirectory

    file = Path(name)
    if name in configs.PRESETS:
        found = configs.preset(name)
    elif file.is_dir():
        found = RunDirectory(file).config()
    elif file.exists() or file.suffix:
        found = configs.load(file)
    else:
        found = configs.preset(name)  # which there is not
    return configs.apply_overrides(found, changes)


# Rows ------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """Launches that are alike but for the number of their layer. times: how many there are;
    bytes, flops, seconds: of all of them."""

    kernel: str
    ops: str
    result: str
    where: str
    times: int
    bytes: int
    flops: int
    seconds: float


def _rows(found: Outlook, gpu: GPU) -> Iterator[Row]:
    """Each launch, in the order of the step."""
    for work in found.works:
        n, seconds = work.times, gpu.seconds(work.bytes, work.flops, found.precision)
        yield Row(*work[:4], n, n * work.bytes, n * work.flops, n * seconds)


def _alike(rows: Iterable[Row]) -> list[Row]:
    """Those that look the same as one, the slowest first."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = (row.kernel, row.ops, row.result, _LAYER.sub(".*", row.where))
        groups.setdefault(key, []).append(row)
    merged = [_sum(key, group) for key, group in groups.items()]
    return sorted(merged, key=lambda row: -row.seconds)


def _sum(key: tuple[str, ...], rows: list[Row]) -> Row:
    kernel, ops, result, where = key
    times, n_bytes, flops = (sum(x) for x in zip(*(row[4:7] for row in rows), strict=True))
    return Row(kernel, ops, result, where, times, n_bytes, flops, sum(r.seconds for r in rows))


# What is printed -------------------------------------------------------------------------------


def _print(found: Outlook, gpu: GPU, every: bool) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    rows = list(_rows(found, gpu))
    shown, rest = (rows, []) if every else (_alike(rows)[:_SHOWN], _alike(rows)[_SHOWN:])
    if rest:
        shown = [*shown, _sum(("others", "", "", ""), rest)]
    kinds = _alike(row._replace(ops="", result="", where="") for row in rows)
    texts = [*_WORDS][: 4 if console.width >= 130 else 2]
    for part in (
        _title(found, gpu),
        _table(shown, texts, found, gpu),
        _table(kinds, texts[:1], found, gpu),
        "\n".join(_totals(found, gpu)),
    ):
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


def _table(rows: Iterable[Row], texts: Sequence[str], found: Outlook, gpu: GPU) -> Table:
    """texts: the columns that are no numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in texts:
        table.add_column(name, width=_WORDS[name], no_wrap=True, overflow="ellipsis")
    for name in ("launches", "bytes", "flop", "us", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound")
    total = found.seconds(gpu)
    for row in rows:
        words = (row.kernel, row.ops, row.result, row.where)[: len(texts)]
        table.add_row(*words, *_cells(row, found, gpu, total))
    table.add_row()
    return table


def _cells(row: Row, found: Outlook, gpu: GPU, total: float) -> tuple[str, ...]:
    """The numbers of a row, and which of its work, its bytes and its launches take longest."""
    from ..backends.gpus import LAUNCH

    bounds = {
        "compute": row.flops / gpu.rate(found.precision),
        "memory": row.bytes / gpu.bandwidth,
        "launch": row.times * LAUNCH,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    share = f"{row.seconds / total:.1%}"
    numbers = _number(row.bytes), _number(row.flops) if row.flops else ""
    return (f"{row.times:,}", *numbers, f"{row.seconds * 1e6:,.1f}", share, bound)


def _title(found: Outlook, gpu: GPU) -> str:
    batches = f"{found.accumulate} batches" if found.accumulate > 1 else "a batch"
    return (
        f"{found.name}: a step of training, {batches} of {found.batch} x {found.length}, "
        f"{found.parameters:,} parameters, {found.precision}, on paper on {gpu.name}\n"
    )


def _totals(found: Outlook, gpu: GPU) -> Iterator[str]:
    seconds, memory = found.seconds(gpu), found.memory
    used = found.flops / seconds / gpu.rate(found.precision)
    yield (
        f"a step    {found.launches:,} launches, {_number(found.bytes)}B moved, "
        f"{_number(found.flops)} flop, at least {_time(seconds)}: at most "
        f"{found.tokens / seconds:,.0f} tokens/s, {used:.0%} of the peak"
    )
    parts = ", ".join(f"{name} {_number(size)}B" for name, size in memory._asdict().items() if size)
    fits = "" if memory.peak <= gpu.memory else f": more than the {_number(gpu.memory)}B of the GPU"
    yield f"memory    {_number(memory.peak)}B at the peak{fits}: {parts}"
    if found.opaque:
        yield f"no kernel does {', '.join(found.opaque)}: called as they are, between graphs"
    if found.stand_in:
        yield (
            f"planned   as for {found.stand_in}, for there are no kernels for GPUs yet: with its "
            "packed operands, and what rides on its products"
        )


def _described(found: Outlook, gpu: GPU) -> dict[str, Any]:
    """Everything, in plain values; times in seconds."""
    from ..backends.gpus import LAUNCH

    def launch(work: Work) -> dict[str, Any]:
        return {
            **work._asdict(),
            "seconds": gpu.seconds(work.bytes, work.flops, found.precision),
        }

    seconds = found.seconds(gpu)
    return {
        "name": found.name,
        "parameters": found.parameters,
        "batch": found.batch,
        "length": found.length,
        "accumulate": found.accumulate,
        "precision": found.precision,
        "stand_in": found.stand_in,
        "gpu": {**gpu._asdict(), "launch": LAUNCH},
        "launches": found.launches,
        "bytes": found.bytes,
        "flops": found.flops,
        "seconds": seconds,
        "tokens_per_second": found.tokens / seconds,
        "memory": {**found.memory._asdict(), "peak": found.memory.peak},
        "opaque": list(found.opaque),
        "works": [launch(work) for work in found.works],
    }


def _number(value: float) -> str:
    """A count in three digits."""
    power = next(p for p in (4, 3, 2, 1, 0) if value >= 1000**p or not p)
    value /= 1000**power
    digits = f"{value:.0f}" if value >= 100 or not power else f"{value:.1f}"
    return digits + ["", "k", "M", "G", "T"][power]


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


COMMAND = Command(
    "plan",
    "say on paper what a step of training takes on a GPU, before any run",
    (
        ("plan --work gpt2-124m --gpu h100", "launches, bytes, memory, and the least time"),
        ("plan multi30k --gpu 4090", "the same of a preset, a config.toml or a run directory"),
        ("plan base --set model.d_model=1024 --batch 8 --length 256", "in other sizes"),
        ("plan --work W4 --precision fp32 --all", "every launch, in order"),
        ("plan --work W1 --json", "everything, for another program"),
    ),
    _arguments,
    _run,
)
