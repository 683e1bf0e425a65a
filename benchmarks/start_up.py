"""From the command to the first step: python -m benchmarks.start_up --help

Pairs are made by drawing sentence pairs of a corpus and joining them. `tinygrad-tx train` is
started on them twice; of each start: the seconds until the first step is done, the CPU seconds, and
the most resident memory. Beside it the `tokenizers` library by itself: training the same vocabulary
on the whole texts, then encoding them, on all cores. Linux only.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .common import RESULTS, ROOT, busy, show, write

EXAMPLES = """\
  python -m benchmarks.start_up --src train.de.gz --tgt train.en.gz
  python -m benchmarks.start_up --src train.de.gz --tgt train.en.gz --pairs 100000 --alone no"""
WORDS = 22  # a pair is joined until its sides have so many on average: 27 then, of Multi30k
VOCABULARY = 8000
CHUNK = 4096
LAST = """
import resource, sys, time
from tinygrad_tx import cli
from tinygrad_tx.training.trainer import Trainer

step = Trainer._step

def first(self):
    step(self)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("FIRST", time.time(), used.ru_utime + used.ru_stime, used.ru_maxrss, flush=True)
    raise KeyboardInterrupt

Trainer._step = first
sys.exit(cli.main(sys.argv[1:]))
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--src", type=Path, required=True, help="sentences, plain or .gz")
    options.add_argument("--tgt", type=Path, required=True, help="their translations")
    options.add_argument("--pairs", type=int, default=1_000_000, metavar="N")
    options.add_argument("--alone", choices=("yes", "no"), default="yes", help="measure it too")
    options.add_argument("--preset", default="multi30k")
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the run")
    options.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    args = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        sides = make(args.src, args.tgt, args.pairs, place)
        found: dict[str, Any] = {"pairs": args.pairs, "busy": busy()}
        for name in ("first", "second"):
            found[name] = started(sides, args.preset, args.set, place, name)
        if args.alone == "yes":
            found["alone"] = alone(sides)
            of_it = found["first"]["seconds"] / found["alone"]["seconds"]
            found["first_over_library"] = round(of_it, 3)
    rows = [(name, *found[name].values()) for name in ("first", "second", "alone") if name in found]
    show(f"{args.pairs:,} pairs: up to step 1", ("", "seconds", "CPU s", "MiB"), rows)
    print(write("start_up", str(args.pairs), ["tx"], found, args.out))
    return 0


def make(source: Path, target: Path, pairs: int, place: Path) -> tuple[Path, Path]:
    """Two aligned files of drawn and joined pairs."""
    lines = [list(islice(texts(path), 10**6)) for path in (source, target)]
    counts = [sum(len(text.split()) for text in pair) for pair in zip(*lines, strict=True)]
    rng = random.Random(0)
    paths = place / "corpus.src", place / "corpus.tgt"
    with paths[0].open("w", encoding="utf-8") as one, paths[1].open("w", encoding="utf-8") as two:
        for _ in range(pairs):
            drawn: list[int] = []
            words = 0
            while words < 2 * WORDS:
                drawn.append(rng.randrange(len(counts)))
                words += counts[drawn[-1]]
            for file, side in zip((one, two), lines, strict=True):
                file.write(" ".join(side[i] for i in drawn) + "\n")
    return paths


def texts(path: Path) -> Iterator[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        yield from (line.rstrip("\n") for line in file)


def started(
    sides: tuple[Path, Path], preset: str, changes: Sequence[str], place: Path, name: str
) -> dict[str, float]:
    """Seconds, CPU seconds and MiB of a start, up to the end of step 1."""
    flags = ["train", "--preset", preset, "--src", str(sides[0]), "--tgt", str(sides[1])]
    flags += ["--out", str(place / name), "--set", f"tokenizer.vocab_size={VOCABULARY}", *changes]
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-c", LAST, *flags],
        env=os.environ | {"TX_CACHE_DIR": str(place / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("FIRST")]
    if not lines:
        sys.exit(f"{name} start: {done.stderr}")
    _, ended, cpu, memory = lines[0]
    shutil.rmtree(place / name)
    return measured(float(ended) - begun, float(cpu), int(memory))


ALONE = """
import json, resource, sys, time
from itertools import islice
from tinygrad_tx import vocabulary as v

paths, size, chunk = sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
from tokenizers import Tokenizer, pre_tokenizers, trainers

def lines(path):
    with open(path, encoding="utf-8") as file:
        yield from (line.rstrip("\\n") for line in file)

begun = time.time()
core = v.pipeline("bpe", False)
trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, special_tokens=list(v.SPECIALS),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
core.train_from_iterator((text for pair in zip(*map(lines, paths)) for text in pair), trainer)
state = json.loads(core.to_str())
state["added_tokens"] = []
core = Tokenizer.from_str(json.dumps(state))
for path in paths:
    texts = lines(path)
    while some := list(islice(texts, chunk)):
        core.encode_batch_fast(some)
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.time() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def alone(sides: tuple[Path, Path]) -> dict[str, float]:
    """The same of the library: learning and encoding, in Rust, on all cores."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, sides), str(VOCABULARY), str(CHUNK)],
        env=os.environ | {"TOKENIZERS_PARALLELISM": "true", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, cpu, memory = done.stdout.split()
    return measured(float(seconds), float(cpu), int(memory))


def measured(seconds: float, cpu: float, kilobytes: int) -> dict[str, float]:
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "mib": round(kilobytes / 1024, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
