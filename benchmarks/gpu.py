"""Steps of training and kernels on a GPU, ours beside others': python -m benchmarks.gpu --help

Steps: GPT-2 124M (32 rows of 1,024 tokens), and the Transformer base and big of "Attention Is All You
Need" (392 pairs of 64 tokens on either side, which is 25,088, padded from half to full length;
dropout 0.1 and 0.3): forward, backward, clipping to norm 1 and AdamW or Adam, in bf16 with float32
weights. Batches lie on the GPU before. Each contender is a process; first all take three steps
without dropout from the same weights, whose losses must be within LOSSES of ours, or it is not
timed. Then WARM steps (compiling, capturing graphs), which nobody times. Then it and ours take turns
of a second: as many steps, one behind the other, between two waits for the GPU. No more than two are
on the GPU at a time; one that finds no room beside ours is measured alone, and the result says so.

Kernels: ours, ours by CuPy (eager), and PyTorch's, on results that are within TOLERANCE of ours; beside
them the least time of any kernel for this on this GPU: its bytes over the bandwidth or its operations
over the rate, whichever is longer. What takes the host as long to say as the GPU to do is marked.

Columns: `times tx` is the median over the turns of how many times as long as ours it took; `GB` is the
most memory that the library has had from the GPU; `waits` how often the host waits for it in a step;
`host ms` how long a step takes the host.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

try:
    from tinygrad_tx.backends import gpus
    from tinygrad_tx.errors import UserError
    from tinygrad_tx.training import outlook

    from .common import (
        Worker,
        WorkerError,
        add_repeats,
        commit,
        installed,
        interleave,
        names_of,
        parser,
        show,
        summary,
        write,
    )
except ModuleNotFoundError as missing:
    sys.exit(f'{missing.name} is not installed: pip install -e ".[bench,cuda13]" (or cuda12)')
from .contenders import CONTENDERS
from .gpu_kernels import CASES, KERNELS, TINY, TOLERANCE, Case
from .works import OF_GPUS, WORKS

EXAMPLES = """\
  python -m benchmarks.gpu                                  half an hour, all of it
  python -m benchmarks.gpu --quick                          ten minutes: fewer turns and kernels
  python -m benchmarks.gpu --only gpt2-124m --batch 16 --against torch,torch-compile
  python -m benchmarks.gpu --only attention,attention+grad --gpu h100
  python -m benchmarks.gpu --tiny                           whether the benchmark itself works"""
CHECKED, LOSSES = 3, 1e-2  # steps whose losses are compared, and how closely: bf16 has 8 bits
WARM = 8  # steps before any is timed: a plan of ours is timed at its third, and a graph by then
WAITING = 5  # steps in which waits are counted
BEATEN = 0.8  # of a call's time: if the host takes as much for it, the GPU is not what is measured
OPPONENTS = tuple(name for name, c in CONTENDERS.items() if c.gpu and name != "tx")
JUDGES = ("tx", "tx-eager", "torch")  # who has kernels
TINY_WORKS = ("tiny-gpt2", "tiny")
INSTALL = {"torch": "pip install torch", "jax": 'pip install "jax[cuda13]" (or [cuda12])'}


@dataclass
class Run:
    """What is to be measured, and what has been: `found`, the result file without its head."""

    repeats: int
    turn_s: float
    precision: str
    gpu: gpus.GPU | None
    found: dict[str, Any]
    save: Callable[[], Path]
    total: int
    done: int = field(default=0)

    def say(self, what: str) -> None:
        """A line for each measurement, and the result as far as it goes on disk."""
        self.done += 1
        self.save()
        print(f"[{self.done}/{self.total}] {what}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    names, skipped, facts = _contenders(args.against)
    if facts is None:
        print(f"benchmarks.gpu: {skipped['tx']}", file=sys.stderr)
        return 2
    try:
        machine = gpus.gpu(args.gpu) if args.gpu else gpus.recognised(facts["name"])
    except UserError as error:
        print(f"benchmarks.gpu: --{error}", file=sys.stderr)
        return 2
    if machine is None:
        print(f"no figures of {facts['name']}: no floors (--gpu NAME)", file=sys.stderr)
    works = [name for name in (TINY_WORKS if args.tiny else OF_GPUS) if _wanted(args, name)]
    cases = [case for case in (TINY if args.tiny else CASES) if _wanted(args, case.kernel)]
    cases = [case for case in cases if case.quick or args.tiny or not args.quick]
    found = {
        "gpu": facts,
        "driver": _driver(),
        "commit": commit(),
        "figures": machine.name if machine else "",
        "precision": args.precision,
        "skipped": skipped,
        "steps": {},
        "kernels": [],
    }
    what = "tiny" if args.tiny else "-".join(facts["name"].lower().split())
    judges = [name for name in JUDGES if name in names]
    run = Run(
        repeats=args.repeats or (1 if args.tiny else 3 if args.quick else 10),
        turn_s=0.0 if args.tiny else 0.4 if args.quick else 1.0,
        precision=args.precision,
        gpu=machine,
        found=found,
        save=lambda: write("gpu", what, names, found, args.out),
        total=len(works) * len(names) + len(cases),
    )
    for name, why in skipped.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    ended = 0
    try:
        for name in works:
            measure_steps(run, name, names, {"batch": args.batch} if args.batch else {})
        if cases:
            measure_kernels(run, cases, judges)
    except KeyboardInterrupt:
        print("stopped: what was measured so far is kept", file=sys.stderr)
        ended = 130
    report(found, judges)
    print(run.save())
    return ended or (0 if _agree(found) else 1)


def _arguments() -> Any:
    options = parser(
        "Training steps and kernels on a GPU beside their floor, PyTorch and JAX.",
        EXAMPLES,
        ",".join(OPPONENTS),
    )
    options.set_defaults(threads=None)
    known = (*OF_GPUS, *TINY_WORKS, *KERNELS)
    options.add_argument(
        "--only",
        type=names_of(known),
        default=[],
        metavar="NAME,...",
        help=f"of {', '.join((*OF_GPUS, *KERNELS))} (default: all)",
    )
    options.add_argument(
        "--batch", type=int, metavar="N", help="rows of a batch of each work (GPT-2: 32)"
    )
    options.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="of steps (default: bf16)"
    )
    options.add_argument(
        "--gpu", metavar="NAME", help=f"whose figures make the floor, of {', '.join(gpus.GPUS)}"
    )
    options.add_argument("--quick", action="store_true", help="minutes instead of tens of them")
    options.add_argument("--tiny", action="store_true", help="tiny sizes: times mean nothing")
    add_repeats(options, 0)
    return options


def _wanted(args: Any, name: str) -> bool:
    return not args.only or name in args.only


def _contenders(against: Sequence[str]) -> tuple[list[str], dict[str, str], Any]:
    """Those that can run here, why others cannot, and what ours knows of the GPU, if it has one."""
    names, skipped, ours = [], {}, None
    for name in dict.fromkeys(("tx", *against)):
        package = CONTENDERS[name].packages[0]
        if not CONTENDERS[name].gpu:
            skipped[name] = "it has nothing for a GPU"
        elif name not in ("tx", "tx-eager") and installed(package) is None:
            skipped[name] = f"{package} is not installed: {INSTALL[package]}"
        else:
            with on_gpu(name) as (worker,):
                facts = worker.do("facts")
            if "missing" in facts:
                skipped[name] = facts["missing"]
            else:
                names.append(name)
                ours = facts if name == "tx" else ours
        if ours is None:
            break  # nothing to compare with
    return names, skipped, ours


@contextmanager
def on_gpu(*names: str) -> Iterator[list[Worker]]:
    """A process for each contender. JAX takes memory as it needs it, not most of it at once."""
    import os

    extra = {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", ""),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    threads = min(8, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        found = []
        for name in names:
            worker = Worker(name, threads, Path(directory), extra, program="benchmarks.gpu_worker")
            stack.callback(worker.close)
            found.append(worker)
        yield found


def _driver() -> str:
    """What nvidia-smi says of driver, clocks and power."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    done = subprocess.run([program, asked, "--format=csv"], capture_output=True, text=True)
    return done.stdout.strip()


# Steps -----------------------------------------------------------------------------------------


class Refused(Exception):
    """A contender that is not timed, and why."""


def measure_steps(run: Run, name: str, names: Sequence[str], changes: Mapping[str, int]) -> None:
    """A work by each contender; each row is in the result as soon as it is known."""
    work = replace((OF_GPUS | WORKS)[name], **changes)
    rows: dict[str, Any] = {}
    run.found["steps"][name] = record = {
        "batch": work.batch,
        "length": work.length,
        "tokens": work.batch * work.length,
        "floor_ms": None,
        "contenders": rows,
    }
    if run.gpu is not None:
        planned = outlook.of_work(name, batch=work.batch, precision=run.precision)
        record["floor_ms"] = round(1e3 * planned.seconds(run.gpu), 4)
    steps = Steps(run, name, changes, work.dropout)
    try:
        for contender in names:
            try:
                rows[contender] = steps.row(contender)
            except Refused as why:
                rows[contender] = {"refused": str(why)}
            else:
                seconds = rows[contender]["median_ms"] / 1e3
                rows[contender]["tokens_per_s"] = round(record["tokens"] / seconds)
            run.say(f"{name}: {contender}: {_line(rows[contender])}")
    finally:
        steps.close()


class Steps:
    """Contenders of one work. Ours stays, so that the others take turns with it."""

    def __init__(self, run: Run, work: str, changes: Mapping[str, int], dropout: float) -> None:
        self._run, self._work, self._changes, self._dropout = run, work, changes, dropout
        self._stack, self._ours = ExitStack(), None
        self._losses: list[float] | None = None  # of the first contender, to which others are held
        self._alone: float | None = None  # our median, with nobody else on the GPU

    def close(self) -> None:
        self._stack.close()
        self._ours = None

    def row(self, name: str) -> dict[str, Any]:
        """The numbers of a contender. Refused with the reason where there are none."""
        if name == "tx":
            row = self._guarded(self._first)
            self._alone = row["median_ms"]
            return row
        if self._alone is not None:
            try:
                return self._guarded(lambda: self._beside(name))
            except Refused as why:
                if not _is_full(str(why)):
                    raise
        self.close()  # perhaps there is room for one
        row = self._guarded(lambda: self._by_itself(name))
        row["alone"] = True
        row["ratio"] = round(row["median_ms"] / self._alone, 3) if self._alone else None
        return row

    def _guarded(self, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What it gives; Refused where a process fails."""
        try:
            return measure()
        except WorkerError as error:
            self.close()
            text = str(error)
            if _is_full(text):
                raise Refused("out of memory") from None
            raise Refused(f"failed: {text.strip().splitlines()[-1]}") from None

    def _first(self) -> dict[str, Any]:
        return self._timed({"tx": self._with_ours()}, "tx")

    def _beside(self, name: str) -> dict[str, Any]:
        ours = self._with_ours()
        with on_gpu(name) as (other,):
            self._prepare(other)
            return self._timed({"tx": ours, name: other}, name)

    def _by_itself(self, name: str) -> dict[str, Any]:
        with on_gpu(name) as (other,):
            self._prepare(other)
            return self._timed({name: other}, name)

    def _with_ours(self) -> Worker:
        if self._ours is None:
            (worker,) = self._stack.enter_context(on_gpu("tx"))
            self._ours = worker
            self._prepare(worker)
        return self._ours

    def _prepare(self, worker: Worker) -> None:
        """Compare its first losses with those of the first contender, and warm it up."""
        sizes = {"work": self._work, "changes": self._changes, "precision": self._run.precision}
        worker.do("train", dropout=0.0, **sizes)
        losses = worker.do("losses", count=CHECKED)
        self._losses = self._losses or losses
        self._apart = max(abs(a - b) / abs(b) for a, b in zip(losses, self._losses, strict=True))
        if not self._apart < LOSSES:  # NaN neither
            raise Refused(f"its losses are others: {losses} where they should be {self._losses}")
        if self._dropout:
            worker.do("train", dropout=self._dropout, **sizes)
        worker.do("timed", count=WARM)

    def _timed(self, found: Mapping[str, Worker], name: str) -> dict[str, Any]:
        apart = self._apart
        runs = {n: _turns(worker) for n, worker in found.items()}
        turns = interleave(runs, self._run.repeats, self._run.turn_s)
        row: dict[str, Any] = summary(turns, "tx" if "tx" in found else name)[name]
        row["host_ms"] = round(1e3 * found[name].do("timed", count=3)["host"], 4)
        row["waits"] = found[name].do("waits", count=WAITING)
        row["held_gb"] = round(found[name].do("held") / 1e9, 3)
        row["losses_apart"] = apart
        return row


def _turns(worker: Worker) -> Callable[[int], list[float]]:
    return lambda count: [worker.do("timed", count=count)["seconds"]]


def _is_full(text: str) -> bool:
    """True if an error is one of memory: CuPy's, PyTorch's, CUDA's or XLA's."""
    text = text.lower()
    return "out of memory" in text or "resource_exhausted" in text or "memoryerror" in text


def _line(row: Mapping[str, Any]) -> str:
    if "refused" in row:
        return str(row["refused"])
    return f"{row['median_ms']:.4g} ms, {row['ratio']} times ours"


# Kernels ---------------------------------------------------------------------------------------


def measure_kernels(run: Run, cases: Sequence[Case], names: Sequence[str]) -> None:
    """Each kernel by each contender."""
    with ExitStack() as stack:
        (*found,) = stack.enter_context(on_gpu(*names))
        workers = dict(zip(names, found, strict=True))
        for case in cases:
            row = _kernel(run, case, workers)
            run.found["kernels"].append(row)
            run.say(f"{case.title}: " + ", ".join(
                f"{name} {_line(x)}" for name, x in row["contenders"].items()
            ))  # fmt: skip


def _kernel(run: Run, case: Case, workers: Mapping[str, Worker]) -> dict[str, Any]:
    """One kernel: results compared, then times."""
    results: dict[str, list[float]] = {}
    rows: dict[str, Any] = {}
    for name, worker in workers.items():
        try:
            worker.do("kernel", name=case.kernel, precision=case.precision, shapes=case.shapes)
            results[name] = worker.do("numbers")
        except WorkerError as error:
            why = str(error).strip().splitlines()[-1]
            rows[name] = {"refused": "out of memory" if _is_full(str(error)) else f"failed: {why}"}
    first = next(iter(results), "")
    for name in list(results):
        apart = _apart(results[name], results[first])
        if not apart < TOLERANCE[case.precision]:
            rows[name] = {"refused": f"its results are others: {apart:.1e} apart"}
            del results[name]
    runs = {name: _turns(workers[name]) for name in results}
    if runs:
        rows |= summary(interleave(runs, run.repeats, run.turn_s), first)
    for name in results:
        host = 1e3 * workers[name].do("timed", count=10)["host"]
        rows[name]["host_ms"] = round(host, 4)
        rows[name]["host_bound"] = host > BEATEN * rows[name]["median_ms"]
    floor = None
    if run.gpu is not None:
        rate = "bf16" if case.precision == "fp16" else case.precision
        floor = round(1e3 * run.gpu.seconds(case.bytes, case.flops, rate), 4)
    return {
        "kernel": case.title,
        "bytes": case.bytes,
        "flops": case.flops,
        "floor_ms": floor,
        "contenders": {name: rows[name] for name in workers},
    }


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest difference, of the largest number."""
    largest = max(map(abs, b), default=0.0) or 1.0
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0) / largest


# What is printed -------------------------------------------------------------------------------


def report(found: Mapping[str, Any], judges: Sequence[str]) -> None:
    for name, work in found["steps"].items():
        floor = f", on paper at least {work['floor_ms']:.4g} ms" if work["floor_ms"] else ""
        columns = ("", "ms", "times tx", "tokens/s", "GB", "waits", "host ms", "loss apart")
        rows = [(n, *_cells(row, len(columns) - 1)) for n, row in work["contenders"].items()]
        show(f"{name}: {work['batch']} x {work['length']}{floor}", columns, rows)
    if not found["kernels"]:
        return
    rows = []
    for kernel in found["kernels"]:
        times = [kernel["contenders"][name] for name in judges]
        cells = [_time(row) for row in times]
        floor = kernel["floor_ms"]
        reached = floor / times[0]["median_ms"] if floor and "median_ms" in times[0] else ""
        rows.append((kernel["kernel"], floor or "", *cells, f"{reached:.0%}" if reached else ""))
    show("kernels, ms (* the host is what takes so long)", ("", "floor", *judges, "of floor"), rows)


def _cells(row: Mapping[str, Any], count: int) -> list[object]:
    if "refused" in row:
        return [row["refused"], *[""] * (count - 1)]
    names = ("median_ms", "ratio", "tokens_per_s", "held_gb", "waits", "host_ms")
    cells = ["?" if row[name] is None else row[name] for name in names]
    if row.get("alone"):
        cells[1] = f"{cells[1]} (alone)"
    return [*cells, f"{row['losses_apart']:.1e}"]


def _time(row: Mapping[str, Any]) -> str:
    if "refused" in row:
        return str(row["refused"])
    return f"{row['median_ms']:.4g}{'*' if row['host_bound'] else ''}"


def _agree(found: Mapping[str, Any]) -> bool:
    """False if somebody was not timed because of what it computed, or failed."""
    rows = [row for work in found["steps"].values() for row in work["contenders"].values()]
    rows += [row for kernel in found["kernels"] for row in kernel["contenders"].values()]
    return all(row.get("refused", "out of memory") == "out of memory" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
