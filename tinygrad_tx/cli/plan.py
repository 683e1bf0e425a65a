"""`tinygrad-tx plan`: a step of training on paper: its launches, bytes and memory, and the time
that this machine will take for them, as it was measured, or the least time of a GPU."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..autocast import PRECISIONS
from ..errors import UserError
from .command import Command, count, counts, path

if TYPE_CHECKING:
    from rich.table import Table

    from ..backends.gpus import GPU
    from ..compiler.inspect.estimate import Work
    from ..compiler.inspect.machine import Machine
    from ..training.forecast import Forecast
    from ..training.outlook import Outlook
    from ..training.ranks import Timing
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
        help="instead, a step of known size: W1, W2, W3, W4, W4b (of benchmarks/), gpt2-124m, "
        "transformer-base or transformer-big",
    )  # fmt: skip
    parser.add_argument(
        "--gpu", type=path, metavar="NAME",
        help="on a GPU that need not be here, rather than on this machine: h200, h100, a100, "
        "a100-40, l40s, l4, 4090 or 3090",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", action="store_true",
        help="measure this machine anew, in a minute at most; otherwise the first time only",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="store_true",
        help="of a --work: take some steps, and say how far off the prediction was",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS,
        help="of products, as train --precision has it; default: on a GPU bf16, here the CONFIG's",
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
    parser.add_argument(
        "--ranks", type=counts, metavar="N,...",
        help="the step on so many ranks, such as 1,2,8, not its launches: docs/distributed.md",
    )  # fmt: skip
    parser.add_argument(
        "--network", type=path, metavar="NAME", default="10gbit",
        help="between them: 10gbit (the default), 100gbit or nvlink",
    )  # fmt: skip
    parser.add_argument(
        "--per-host", type=count, metavar="N", default=1,
        help="so many of them are GPUs of one host, joined by nvlink, and share its network",
    )  # fmt: skip
    parser.add_argument(
        "--weak", action="store_true",
        help="each rank has a batch of its own; otherwise they share the rows of one",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="every launch, in order")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _run(args: Namespace) -> None:
    from ..backends.gpus import gpu
    from ..training import calibration
    from ..training.ranks import Timing
    from ..training.schema import shares_a_model
    from ..training.works import sized
    from .ranks import network

    if bool(args.config) == bool(args.work):
        raise UserError("plan needs one of CONFIG and --work, such as: tinygrad-tx plan --work W1")
    if args.gpu and (args.calibrate or args.check):
        raise UserError("--calibrate and --check are of this machine: leave out --gpu")
    if args.ranks:
        network(args.network, args.per_host)  # before anything is measured
    if args.check and not args.work:
        raise UserError("--check is for a --work; what a run took beside its plan, info says")
    if args.ranks and args.config and shares_a_model(_config(args.config, args.set).model):
        raise UserError(
            "--ranks is of ranks that share the rows of a batch: add --set "
            "model.tensor_parallel=false"
        )
    if args.gpu:
        machine = gpu(args.gpu)
        found = _outlook(args, "bf16", here=False)
        on = _OnGpu(found, machine)
        if args.ranks:
            timing = Timing(
                on.of, lambda outlook: outlook.seconds(machine), adds=machine.bandwidth / 3
            )
            _show_ranks(found, on, timing, "bf16", args)
        else:
            _show(found, on, args)
        return
    config = _config(args.config, args.set) if args.config else None
    found = _outlook(args, config.train.precision if config else "fp32", here=True)
    learnt = None if args.calibrate else calibration.known()
    if learnt is None:
        learnt = calibration.calibrate(_say)
        found = _outlook(args, found.precision, here=True)  # some of its code is there by now
    here = _Here(found, learnt)
    if args.ranks:
        timing = Timing(here.of, lambda outlook: outlook.on(learnt))
        _show_ranks(found, here, timing, found.precision, args)
        return
    if config is not None and not (args.batch or args.length):
        try:
            here.forecast = _forecast(config, learnt, args.precision, args.vocab)
        except UserError as error:  # there is a plan of a step, whatever the data are
            here.unknown = str(error)
    if args.check:
        here.checked = calibration.measured(
            {**sized(args.work, args.batch, args.length), "precision": found.precision}
        )
    _show(found, here, args)


def _show(found: Outlook, on: _OnGpu | _Here, args: Namespace) -> None:
    if args.json:
        print(json.dumps(_described(found, on), indent=1))
    else:
        _print(found, on, every=args.all)


def _show_ranks(
    found: Outlook, on: _OnGpu | _Here, timing: Timing, precision: str, args: Namespace
) -> None:
    """The same step on several ranks."""
    from ..training.ranks import shares
    from . import ranks

    between, here = ranks.network(args.network, args.per_host), isinstance(on, _Here)
    config = None if args.work else _config(args.config, args.set)

    def planned(rows: int, n: int) -> Outlook:
        if (rows, n) == (found.batch, 1):
            return found
        return _outlook(Namespace(**{**vars(args), "batch": rows}), precision, here=here, ranks=n)

    sharded = config is not None and config.optim.shard
    how = {"weak": args.weak, "sharded": sharded}
    made = [*shares(planned, found.batch, sorted(set(args.ranks)), between, timing, **how)]
    if args.json:
        print(ranks.described(made, between))
    else:
        ranks.show(f"{_title(found, on)}over {between.name}\n", made, between)


def _forecast(
    config: Config, machine: Machine, precision: str | None, vocab: int | None
) -> Forecast:
    from ..training.forecast import forecast

    _say("reading the data")
    precision = precision or config.train.precision
    return forecast(config, machine, precision=precision, vocab=vocab)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _outlook(args: Namespace, precision: str, here: bool, ranks: int = 1) -> Outlook:
    from ..training import outlook

    sizes = {"batch": args.batch, "length": args.length, "here": here, "ranks": ranks}
    sizes["precision"] = args.precision or precision
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


# Machines --------------------------------------------------------------------------------------


class _OnGpu:
    """A step on a GPU on paper."""

    def __init__(self, found: Outlook, gpu: GPU) -> None:
        self._found, self.gpu = found, gpu
        self.seconds = found.seconds(gpu)

    def of(self, work: Work) -> float:
        return self.gpu.seconds(work.bytes, work.flops, self._found.precision)

    def bound(self, row: Row) -> str:
        """Which of its work, its bytes and its launches takes longest."""
        from ..backends.gpus import LAUNCH

        bounds = {
            "compute": row.flops / self.gpu.rate(self._found.precision),
            "memory": row.bytes / self.gpu.bandwidth,
            "launch": row.times * LAUNCH,
        }
        return max(bounds, key=lambda name: bounds[name])

    @property
    def where(self) -> str:
        return f"on paper on {self.gpu.name}"

    def totals(self) -> Iterator[str]:
        found, gpu, seconds, memory = self._found, self.gpu, self.seconds, self._found.memory
        used = found.flops / seconds / gpu.rate(found.precision)
        yield (
            f"{_work(found)}, at least {_time(seconds)}: at most "
            f"{found.tokens / seconds:,.0f} tokens/s, {used:.0%} of the peak"
        )
        size = _number(gpu.memory)
        fits = "" if memory.peak <= gpu.memory else f": more than the {size}B of the GPU"
        yield f"memory    {_number(memory.peak)}B at the peak{fits}: {_parts(found)}"
        if found.stand_in:
            yield (
                f"planned   as for {found.stand_in}, for there are no kernels for GPUs yet: with "
                "its packed operands, and what rides on its products"
            )

    def described(self) -> dict[str, Any]:
        from ..backends.gpus import LAUNCH

        return {"gpu": {**self.gpu._asdict(), "launch": LAUNCH}}


class _Here:
    """A step on this machine. forecast: of an epoch; unknown: why there is none; checked: what
    steps took."""

    forecast: Forecast | None = None
    unknown = ""
    checked: dict[str, Any] | None = None

    def __init__(self, found: Outlook, machine: Machine) -> None:
        self._found, self._machine = found, machine
        self.seconds, self.peak = found.on(machine), found.memory_on(machine)

    def of(self, work: Work) -> float:
        return 0.0 if work.load is None else self._machine.launch(work.load)

    @property
    def where(self) -> str:
        name, n = self._machine.name, self._machine.threads
        return f"on this machine as it was measured ({name}; {n} thread{'s' * (n > 1)})"

    def totals(self) -> Iterator[str]:
        from ..training.profile import off

        found, own = self._found, self.peak - self._found.memory.peak
        yield f"{_work(found)}, {_time(self.seconds)}: {found.tokens / self.seconds:,.0f} tokens/s"
        yield (
            f"memory    {_number(self.peak)}B at the peak: program {_number(own)}B, {_parts(found)}"
        )
        if (epoch := self.forecast) is not None:
            yield (
                f"an epoch  {epoch.steps:,} steps in batches of {epoch.shapes} shapes, "
                f"{_time(epoch.seconds)} each: {_time(epoch.epoch)}; "
                f"with the data {_number(epoch.peak_bytes)}B of memory at the peak"
            )
        if self.unknown:
            yield f"an epoch  is not known: {self.unknown}"
        if (took := self.checked) is not None:
            yield (
                f"checked   a step took {_time(took['seconds'])} (the prediction is "
                f"{off(self.seconds, took['seconds'])}), memory {_number(took['peak'])}B "
                f"({off(self.peak, took['peak'])})"
            )

    def described(self) -> dict[str, Any]:
        predicted: dict[str, Any] = {"seconds": self.seconds, "peak_bytes": self.peak}
        if (epoch := self.forecast) is not None:
            predicted["epoch"] = {**vars(epoch), "seconds_per_epoch": epoch.epoch}
        found = {"machine": asdict(self._machine), "predicted": predicted}
        return found if self.checked is None else {**found, "measured": self.checked}


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


def _rows(found: Outlook, on: _OnGpu | _Here) -> Iterator[Row]:
    """Each launch, in the order of the step."""
    for work in found.works:
        n, seconds = work.times, on.of(work)
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


def _print(found: Outlook, on: _OnGpu | _Here, every: bool) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    rows = list(_rows(found, on))
    shown, rest = (rows, []) if every else (_alike(rows)[:_SHOWN], _alike(rows)[_SHOWN:])
    if rest:
        shown = [*shown, _sum(("others", "", "", ""), rest)]
    kinds = _alike(row._replace(ops="", result="", where="") for row in rows)
    texts = [*_WORDS][: 4 if console.width >= 130 else 2]
    totals = [*on.totals(), *_opaque(found)]
    for part in (
        _title(found, on),
        _table(shown, texts, on),
        _table(kinds, texts[:1], on),
        "\n".join(totals),
    ):
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


def _table(rows: Iterable[Row], texts: Sequence[str], on: _OnGpu | _Here) -> Table:
    """texts: the columns that are no numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in texts:
        table.add_column(name, width=_WORDS[name], no_wrap=True, overflow="ellipsis")
    for name in ("launches", "bytes", "flop", "us", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    if isinstance(on, _OnGpu):
        table.add_column("bound")
    for row in rows:
        words = (row.kernel, row.ops, row.result, row.where)[: len(texts)]
        bound = (on.bound(row),) if isinstance(on, _OnGpu) else ()
        table.add_row(*words, *_cells(row, on.seconds), *bound)
    table.add_row()
    return table


def _cells(row: Row, total: float) -> tuple[str, ...]:
    """The numbers of a row."""
    numbers = _number(row.bytes), _number(row.flops) if row.flops else ""
    return (f"{row.times:,}", *numbers, f"{row.seconds * 1e6:,.1f}", f"{row.seconds / total:.1%}")


def _title(found: Outlook, on: _OnGpu | _Here) -> str:
    batches = f"{found.accumulate} batches" if found.accumulate > 1 else "a batch"
    return (
        f"{found.name}: a step of training, {batches} of {found.batch} x {found.length}, "
        f"{found.parameters:,} parameters, {found.precision}, {on.where}\n"
    )


def _work(found: Outlook) -> str:
    return (
        f"a step    {found.launches:,} launches, {_number(found.bytes)}B moved, "
        f"{_number(found.flops)} flop"
    )


def _parts(found: Outlook) -> str:
    parts = found.memory._asdict().items()
    return ", ".join(f"{name} {_number(size)}B" for name, size in parts if size)


def _opaque(found: Outlook) -> Iterator[str]:
    if found.opaque:
        yield f"no kernel does {', '.join(found.opaque)}: called as they are, between kernels"


def _described(found: Outlook, on: _OnGpu | _Here) -> dict[str, Any]:
    """Everything, in plain values; times in seconds."""

    def launch(work: Work) -> dict[str, Any]:
        known = work._asdict()
        del known["load"]
        return {**known, "seconds": on.of(work)}

    return {
        "name": found.name,
        "parameters": found.parameters,
        "batch": found.batch,
        "length": found.length,
        "accumulate": found.accumulate,
        "precision": found.precision,
        "stand_in": found.stand_in,
        **on.described(),
        "launches": found.launches,
        "bytes": found.bytes,
        "flops": found.flops,
        "seconds": on.seconds,
        "tokens_per_second": found.tokens / on.seconds,
        "memory": {**found.memory._asdict(), "peak": found.memory.peak},
        "opaque": list(found.opaque),
        "works": [launch(work) for work in found.works],
    }


def _number(value: float) -> str:
    """A count in three digits."""
    from ..compiler.inspect.explain import short

    return short(value) or "0"


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


COMMAND = Command(
    "plan",
    "say on paper what a step of training takes, on this machine or on a GPU, before any run",
    (
        ("plan tiny", "time of a step and an epoch, and memory, on this machine"),
        ("plan --work W1 --check", "a step of known size, and how far off the prediction was"),
        ("plan base --set model.d_model=1024 --batch 8 --length 256", "in other sizes"),
        ("plan --work gpt2-124m --gpu h100", "launches, bytes, memory, and a GPU's least time"),
        ("plan multi30k --gpu 4090", "the same of a preset, a config.toml or a run directory"),
        ("plan --work W4 --gpu h200 --precision fp32 --all", "every launch, in order"),
        (
            "plan --work gpt2-124m --gpu h100 --ranks 1 2 8 64 --network 100gbit",
            "on several ranks, before there are any",
        ),
        ("plan --work W1 --json", "everything, for another program"),
    ),
    _arguments,
    _run,
)
