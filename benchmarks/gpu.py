"""Steps of training and kernels on a GPU, ours beside others': python -m benchmarks.gpu --help

Steps: GPT-2 124M (32 rows of 1,024 tokens), and the Transformer base and big of "Attention Is All
You Need" (392 pairs of 64 tokens on either side, which is 25,088, padded from half to full length;
dropout 0.1 and 0.3): forward, backward, clipping to norm 1, and AdamW or Adam, in bf16 with float32
weights. Batches lie on the GPU before. Each contender is a process. First all take three steps
without dropout from the same weights; whose losses are more than 1% from ours is not timed. Then 8
steps to warm up (compiling, capturing graphs). Then it and ours take turns of a second: as many
steps, one behind the other, between two waits for the GPU. No more than two are on the GPU at a
time; one that finds no room beside ours is measured alone, and the result says so.

Kernels: ours, those that ours are eagerly (CuPy), and PyTorch's, if they give the same; beside them
the least time that any kernel needs for it on this GPU: its bytes over the bandwidth or its
operations over the rate, whichever is longer.

Columns: `times tx` is the median over the turns of how many times as long as ours it took; `GB` the
most memory that the library has had of the GPU; `waits` how often the host waits for it in a step;
`host ms` how long a step takes the host, which is less where it is ahead of the GPU; `loss apart`
how far the first losses are from ours, of these.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from tinygrad_tx.backends import gpus
    from tinygrad_tx.errors import UserError

    from .common import commit, installed, names_of, parser, positive, show, write
except ModuleNotFoundError as missing:
    sys.exit(f'{missing.name} is not installed: pip install -e ".[bench,cuda13]" (or cuda12)')
from .contenders import CONTENDERS
from .gpu_kernels import CASES, KERNELS, TINY, Case
from .gpu_turns import FULL, Run, kernels, on_gpu, steps
from .works import OF_GPUS

EXAMPLES = """\
  python -m benchmarks.gpu                          all of it: about half an hour
  python -m benchmarks.gpu --quick                  about ten minutes: shorter turns, fewer kernels
  python -m benchmarks.gpu --only gpt2-124m --batch 16 --against torch,torch-compile
  python -m benchmarks.gpu --only attention,attention+grad --gpu h100
  python -m benchmarks.gpu --tiny                   whether the benchmark itself works"""
OPPONENTS = tuple(name for name, c in CONTENDERS.items() if c.gpu and name != "tx")
WITH_KERNELS = ("tx", "tx-eager", "torch")
TINY_WORKS = ("tiny-gpt2", "tiny")
INSTALL = {"torch": "pip install torch", "jax": 'pip install "jax[cuda13]" (or jax[cuda12])'}


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments()
    args = options.parse_args(argv)
    works = [name for name in (TINY_WORKS if args.tiny else OF_GPUS) if _wanted(args, name)]
    cases = [case for case in (TINY if args.tiny else CASES) if _wanted(args, case.kernel)]
    cases = [case for case in cases if case.quick or args.tiny or not args.quick]
    if not works and not cases:
        other = "goes without --tiny" if args.tiny else "needs --tiny"
        options.error(f"argument --only: {', '.join(args.only)} {other}")
    try:
        return _run(args, works, cases)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace, works: Sequence[str], cases: Sequence[Case]) -> int:
    """Measure works and kernels; the exit status."""
    facts, skipped = _contenders(args.against)
    names = list(facts)
    if not names:
        print(f"benchmarks.gpu needs a GPU: {skipped['tx']}", file=sys.stderr)
        return 2
    for name, why in skipped.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    ours = facts.pop("tx")
    machine = args.gpu or gpus.recognised(ours["name"])
    if machine is None:
        print(f"there are no figures of {ours['name']}: no floors (--gpu NAME)", file=sys.stderr)
    found: dict[str, Any] = {
        "gpu": ours,
        "others": facts,
        "driver": _driver(),
        "commit": commit(),
        "figures": machine.name if machine else "",
        "precision": args.precision,
        "skipped": skipped,
        "steps": {},
        "kernels": [],
    }
    what = "tiny" if args.tiny else "-".join(ours["name"].lower().split())
    run = Run(
        repeats=args.repeats or (1 if args.tiny else 3 if args.quick else 10),
        turn_s=0.0 if args.tiny else 0.4 if args.quick else 1.0,
        warm=4 if args.tiny else 8,
        precision=args.precision,
        gpu=machine,
        found=found,
        save=lambda: write("gpu", what, names, found, args.out),
        total=len(works) * len(names) + len(cases),
    )
    try:
        run.save()
    except OSError as error:
        print(f"benchmarks.gpu: --out: {error}", file=sys.stderr)
        return 2
    stopped = False
    try:
        for name in works:
            steps(run, name, names, {"batch": args.batch} if args.batch else {})
        if cases:
            kernels(run, cases, [name for name in WITH_KERNELS if name in names])
    except KeyboardInterrupt:
        print("stopped: what has been measured is kept", file=sys.stderr)
        stopped = True
    failures = report(found)
    print(run.save())
    return 130 if stopped else int(failures)


def _arguments() -> argparse.ArgumentParser:
    options = parser(
        "Training steps and kernels on a GPU, beside their floor, PyTorch and JAX.",
        EXAMPLES,
        ",".join(OPPONENTS),
        threads=False,
    )
    options.add_argument(
        "--only",
        type=names_of((*OF_GPUS, *KERNELS, *TINY_WORKS)),
        default=[],
        metavar="NAME,...",
        help=f"of {', '.join((*OF_GPUS, *KERNELS))} (default: all)",
    )
    options.add_argument(
        "--batch", type=positive, metavar="N", help="rows of a batch of each work (GPT-2: 32)"
    )
    options.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="of steps (default: bf16)"
    )
    options.add_argument(
        "--gpu",
        type=_figures,
        metavar="NAME",
        help=f"whose figures make the floor, of {', '.join(gpus.GPUS)} (default: this GPU's)",
    )
    options.add_argument("--quick", action="store_true", help="minutes instead of tens of them")
    options.add_argument("--tiny", action="store_true", help="tiny sizes: times say nothing")
    options.add_argument(
        "--repeats",
        type=positive,
        metavar="N",
        help="turns of each contender (default: 10; 3 with --quick, 1 with --tiny)",
    )
    return options


def _figures(name: str) -> gpus.GPU:
    try:
        return gpus.gpu(name)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _wanted(args: argparse.Namespace, name: str) -> bool:
    return not args.only or name in args.only


def _contenders(against: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Those that can run here, ours first, with what each knows of the GPU and of itself; and why
    others cannot. Where ours cannot, nobody is asked."""
    found: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(("tx", *against)):
        package = CONTENDERS[name].packages[0]
        if not CONTENDERS[name].gpu:
            skipped[name] = "it has nothing for a GPU"
        elif package in INSTALL and installed(package) is None:
            skipped[name] = f"{package} is not installed: {INSTALL[package]}"
        else:
            with on_gpu(name) as workers:
                facts = workers[name].do("facts")
            if "missing" in facts:
                skipped[name] = facts["missing"]
            else:
                found[name] = facts
        if not found:
            break
    return found, skipped


def _driver() -> str:
    """What nvidia-smi says of driver, clocks and power."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    done = subprocess.run(
        [program, asked, "--format=csv"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


# What is printed -------------------------------------------------------------------------------


def report(found: Mapping[str, Any]) -> bool:
    """Print the tables, and who was not timed; True if somebody failed, or computes something else,
    for memory that is full is no failure."""
    unsaid = []
    for name, work in found["steps"].items():
        floor = f", on paper at least {work['floor_ms']:.4g} ms" if work["floor_ms"] else ""
        columns = ("", "ms", "times tx", "tokens/s", "GB", "waits", "host ms", "loss apart")
        rows = [(contender, *_cells(row)) for contender, row in work["contenders"].items()]
        show(f"{name}: {work['batch']} x {work['length']}{floor}", columns, rows)
        unsaid += [(f"{name}: {n}", row) for n, row in work["contenders"].items()]
    if found["kernels"]:
        names = list(found["kernels"][0]["contenders"])
        title = "kernels, ms (* of which the host takes most)"
        show(title, ("", "floor", *names, "tx reaches"), [_kernel(k) for k in found["kernels"]])
        for kernel in found["kernels"]:
            unsaid += [(f"{kernel['kernel']}: {n}", x) for n, x in kernel["contenders"].items()]
    refused = [(who, row["refused"]) for who, row in unsaid if "refused" in row]
    for who, why in refused:
        print(f"{who}: {why}", file=sys.stderr)
    return any(why != FULL for _, why in refused)


def _cells(row: Mapping[str, Any]) -> list[object]:
    if "refused" in row:
        return ["-"] * 7
    names = ("median_ms", "ratio", "tokens_per_s", "held_gb", "waits", "host_ms")
    cells = ["?" if row[name] is None else row[name] for name in names]
    if row.get("alone"):
        cells[1] = f"{cells[1]} alone"
    return [*cells, f"{row['losses_apart']:.1e}"]


def _kernel(kernel: Mapping[str, Any]) -> list[object]:
    rows, floor = kernel["contenders"], kernel["floor_ms"]
    cells = [
        "-" if "refused" in row else f"{row['median_ms']:.4g}{'*' if row['host_bound'] else ''}"
        for row in rows.values()
    ]
    ours = rows["tx"].get("median_ms")
    reached = f"{floor / ours:.0%}" if floor and ours else ""
    return [kernel["kernel"], floor or "", *cells, reached]


if __name__ == "__main__":
    sys.exit(main())
