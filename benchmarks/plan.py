"""What `tinygrad-tx plan` predicts of this machine, held to what steps take: python -m
benchmarks.plan --help

The machine is measured anew first. Then, work by work, a step is predicted, and steps are taken in
a process of their own, whose time and memory are compared with the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_tx.compiler.inspect.machine import Machine
from tinygrad_tx.training import calibration, outlook
from tinygrad_tx.training.works import sized

from .common import add_choice, busy, command, parser, show, write
from .works import WORKS

EXAMPLES = """\
  python -m benchmarks.plan
  python -m benchmarks.plan --work W1,W4"""
MEASURED = tuple(name for name in WORKS if not name.startswith("tiny"))


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Time and memory of a step, predicted and measured.", EXAMPLES, "", False)
    add_choice(options, "--work", WORKS, MEASURED, default=list(MEASURED))
    args = options.parse_args(argv)
    others = busy()
    machine = calibration.calibrate(print)
    rows = [measure(name, machine) for name in args.work]
    show(
        f"on {machine.name}, {machine.threads} threads",
        ("", "predicted ms", "took ms", "off", "predicted MB", "took MB", "off"),
        [
            (
                row["work"],
                *(row["predicted_ms"], row["median_ms"], f"{row['time_off']:+.0%}"),
                *(row["predicted_mb"], row["peak_mb"], f"{row['memory_off']:+.0%}"),
            )
            for row in rows
        ],
    )
    found = {"threads": machine.threads, "busy_cores_before": others, "runs": rows}
    print(write("plan", "works", ["tx"], found, args.out))
    return 0


def measure(name: str, machine: Machine) -> dict[str, Any]:
    """A work's step, predicted and taken."""
    found = outlook.of_work(name, here=True)
    seconds, peak = found.on(machine), found.memory_on(machine)
    took = calibration.measured(sized(name))
    return {
        "work": name,
        "predicted_ms": round(1e3 * seconds, 4),
        "median_ms": round(1e3 * took["seconds"], 4),
        "time_off": round(seconds / took["seconds"] - 1, 3),
        "predicted_mb": round(peak / 1e6, 1),
        "peak_mb": round(took["peak"] / 1e6, 1),
        "memory_off": round(peak / took["peak"] - 1, 3),
    }


if __name__ == "__main__":
    command(main)
