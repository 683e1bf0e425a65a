"""What the benchmarks share: worker processes, turns, facts about the machine, results, tables.

Called by the programs in this directory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tinygrad_tx.backends.cpu import host

from .contenders import CONTENDERS, environment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
TURN_S = 0.4  # how long a contender's turn lasts, about


class WorkerError(Exception):
    """A worker failed; the message is its traceback."""


class Worker:
    """A contender's process. worker.do(name, ...) sends a request and waits for the answer; between
    requests the process sleeps."""

    def __init__(
        self,
        name: str,
        threads: int,
        directory: Path,
        extra: Mapping[str, str] | None = None,
        root: Path = ROOT,
        program: str = "benchmarks.worker",
    ) -> None:
        """directory: for what the environment needs. extra: more environment variables. root: the
        checkout whose code runs, program: of it."""
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", program, name, str(threads)],
            cwd=root,
            env=environment(CONTENDERS[name], threads, directory) | dict(extra or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"do": what, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise WorkerError(f"{self.name}: its process has ended") from error
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name}: its process ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}:\n{answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # of a request that nobody has read
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def workers(
    names: Sequence[str], threads: int, extra: Mapping[str, str] | None = None
) -> Iterator[list[Worker]]:
    """A process for each contender."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        found = []
        for name in names:
            worker = Worker(name, threads, Path(directory), extra)
            stack.callback(worker.close)
            found.append(worker)
        yield found


# Turns -----------------------------------------------------------------------------------------

Turns = dict[str, list[list[float]]]


def interleave(
    runs: Mapping[str, Callable[[int], list[float]]], repeats: int, turn_s: float | None = None
) -> Turns:
    """Let contenders take turns, one at a time, so that all of them see the same machine.

    runs: for each name what runs a number of times and gives the seconds of each. Out: for each
    name its turns. A turn lasts about turn_s (TURN_S), or three runs. The first, untimed one
    settles how many runs those are.
    """
    counts = {}
    for name, run in runs.items():
        least = TURN_S if turn_s is None else turn_s
        counts[name] = max(3, min(1000, math.ceil(least / median(run(3)))))
    turns: Turns = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            turns[name].append(run(counts[name]))
    return turns


def summary(turns: Turns, ours: str) -> dict[str, dict[str, float]]:
    """For each name the median and the least in milliseconds, and `ratio`, the median over the
    rounds of how many times as long as `ours` it took in the same round."""
    middles = {name: [median(turn) for turn in found] for name, found in turns.items()}
    return {
        name: {
            "median_ms": round(1e3 * median(x for turn in found for x in turn), 4),
            "min_ms": round(1e3 * min(x for turn in found for x in turn), 4),
            "ratio": round(
                median(a / b for a, b in zip(middles[name], middles[ours], strict=True)), 3
            ),
        }
        for name, found in turns.items()
    }


def busy() -> float:
    """How many cores others keep busy, to be asked before a measurement: with several threads that
    spoils it, so it is said, and noted in the result. 0 where there is no /proc/stat."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0

    def idle() -> int:  # hundredths of a second, of all cores
        numbers = stat.read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(numbers[4]) + int(numbers[5])

    before = idle()
    time.sleep(1.0)
    found = max(0.0, round((os.cpu_count() or 1) - (idle() - before) / 100, 2))
    if found > 0.3:
        print(f"others keep {found} cores busy: these times say little", file=sys.stderr)
    return found


def each(
    benchmark: str,
    whats: Sequence[str],
    names: Sequence[str],
    args: argparse.Namespace,
    measure: Callable[[str, Sequence[str], int, int], dict[str, Any]],
    report: Callable[[str, dict[str, Any]], None],
) -> int:
    """Measure and report each work or case at each number of threads; 0 where all contenders agree,
    else 1. measure: gets it, the contenders, threads and repeats, and says `agree` in its result.
    """
    agree = True
    for what in whats:
        runs = []
        for threads in args.threads:
            run = measure(what, names, threads, args.repeats)
            report(what, run)
            runs.append(run)
            agree = agree and run["agree"]
        print(write(benchmark, what, names, {"runs": runs}, args.out))
    return 0 if agree else 1


def command(main: Callable[[], int]) -> None:
    """Run a benchmark's main as the program; a worker's failure is its last words."""
    try:
        sys.exit(main())
    except WorkerError as error:
        sys.exit(str(error))


# Results ---------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The processor, how many of its cores this process may use, and the system."""
    facts, kind = host.cpuinfo(), os.environ.get("TX_HOST_FEATURES", "")
    flags = facts.get("flags", facts.get("Features", "")).split()
    vectors = ("avx512f", "amx_tile", "avx2", "fma", "asimd", "sve")
    return {
        "cpu": facts["model name"],
        "vendor": facts.get("vendor_id", ""),
        "cores": host.cores(),
        "vectors": [name for name in vectors if name in flags and host.has(kind, name)],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def commit(root: Path = ROOT) -> str:
    """The commit of a checkout, with a mark where it was changed since; empty where there is no
    repository."""
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def versions(names: Sequence[str]) -> dict[str, str]:
    """The version of Python, and of each package that the contenders name."""
    found = {"python": platform.python_version()}
    for package in dict.fromkeys(p for name in names for p in CONTENDERS[name].packages):
        found[package] = installed(package) or "not installed"
    return found


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write(
    benchmark: str, what: str, names: Sequence[str], found: dict[str, Any], out: Path
) -> Path:
    """Put a result, with machine, versions and date, where docs and later runs find it: in a file
    of its own name in the directory `out`, or in `out`, if that is the name of a .json file."""
    today = date.today().isoformat()
    record = {
        "benchmark": benchmark,
        "what": what,
        "date": today,
        "machine": machine(),
        "versions": versions(names),
        "tuned": tuned_note(names),
        "command": command_line(sys.argv),
        **found,
    }
    path = out if out.suffix == ".json" else out / f"{benchmark}-{what}-{today}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def command_line(argv: Sequence[str]) -> str:
    """The command by which a program of this directory was run, as another machine may have it;
    empty where it was called from Python."""
    program = Path(argv[0])
    if program.parent.absolute() != Path(__file__).parent:
        return ""
    words = [Path(word).name if Path(word).is_absolute() else word for word in argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{program.stem}", *words])


def tuned_note(names: Sequence[str]) -> dict[str, str]:
    """The environment variables of tuned contenders, if there are any among these."""
    tuned = [name for name in names if CONTENDERS[name].tuned]
    if not tuned:
        return {}
    with tempfile.TemporaryDirectory() as directory:
        bare = environment(CONTENDERS["numpy"], 1, Path(directory))
        full = environment(CONTENDERS[tuned[0]], 1, Path(directory))
    added = {name: value for name, value in full.items() if bare.get(name) != value}
    if "LD_PRELOAD" in added:
        added["LD_PRELOAD"] = "a library in which mkl_serv_intel_cpu_true returns 1"
    return added


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column is text, the others are numbers."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        table.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row))
    console = Console()
    console.print(title, highlight=False)
    console.print(table)


# Arguments -------------------------------------------------------------------------------------


def parser(
    description: str, examples: str, against: str, threads: bool = True
) -> argparse.ArgumentParser:
    """A parser with what every benchmark understands. threads: whether their number is chosen."""
    found = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    contenders = names_of(CONTENDERS)
    found.add_argument(
        "--against",
        type=contenders,
        default=contenders(against),
        metavar="NAME,...",
        help=f"whom to measure beside tx, of {', '.join(n for n in CONTENDERS if n != 'tx')} "
        f"(default: {against}); those that are not installed are left out, '' is nobody",
    )
    if threads:
        found.add_argument(
            "--threads", type=counts, default=[2], metavar="N,...", help="threads (default: 2)"
        )
    found.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR", help="where results are written"
    )
    return found


def add_choice(
    options: argparse.ArgumentParser,
    flag: str,
    known: Iterable[str],
    every: Sequence[str],
    default: Sequence[str] | None = None,
) -> None:
    """An option that is a list of known names; `all` stands for `every`, which is the default where
    there is no other."""
    said = "the default" if default is None else f"default: {','.join(default)}"
    options.add_argument(
        flag,
        type=names_of(known, every),
        default=list(every if default is None else default),
        metavar="NAME,...",
        help=f"{', '.join(known)}, or all ({', '.join(every)}; {said})",
    )


def add_repeats(options: argparse.ArgumentParser, default: int) -> None:
    options.add_argument(
        "--repeats",
        type=positive,
        default=default,
        metavar="N",
        help=f"turns of each contender (default: {default})",
    )


def names_of(known: Iterable[str], every: Iterable[str] = ()) -> Callable[[str], list[str]]:
    """The type of an argument that is a list of known names; `all` stands for `every`."""
    known, every = list(known), list(every)

    def parse(text: str) -> list[str]:
        chosen = every if text == "all" and every else [name for name in text.split(",") if name]
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return chosen

    return parse


def positive(text: str) -> int:
    """The type of an argument that is a positive number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def counts(text: str) -> list[int]:
    """The type of an argument that is a list of positive numbers."""
    return [positive(part) for part in text.split(",")]


def present(names: Sequence[str], role: str) -> list[str]:
    """tx and those of the names that are installed and play the role; says who is left out."""
    chosen = []
    for name in dict.fromkeys(("tx", *names)):
        contender = CONTENDERS[name]
        if not getattr(contender, role):
            print(f"{name} has no {role}: left out", file=sys.stderr)
        elif installed(contender.packages[0]) is None:
            print(f"{contender.packages[0]} is not installed: {name} left out", file=sys.stderr)
        else:
            chosen.append(name)
    return chosen
