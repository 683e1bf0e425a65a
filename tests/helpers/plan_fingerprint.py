"""Plans of the benchmarks' works as short listings, to see that a change to the compiler changes
none of them, or which ones.

    python tests/helpers/plan_fingerprint.py write       the listings in tests/fixtures/plans
    python tests/helpers/plan_fingerprint.py show W1     one of them, in full: to compare commits

A line is a launch: its wave, the kinds of its kernels, a digest of what they compute (as explain()
says it) and one of their arguments. Nothing in it depends on the processor.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.cpu.target import Interpreted
from tinygrad_tx.backends.kernels.arguments import Place, words
from tinygrad_tx.backends.kernels.describe import describe
from tinygrad_tx.compiler import compiled
from tinygrad_tx.compiler.capture.trace import Traced
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.compiler.run.replay import Replay
from tinygrad_tx.compiler.schedule.records import Buffer, Call, Plan

sys.path.insert(0, str(Path(__file__).parents[2]))  # for benchmarks/

from benchmarks import ours
from benchmarks.works import DECODINGS, WORKS, TransformerWork

PLANS = Path(__file__).parents[1] / "fixtures" / "plans"
AVX512, AVX2 = Interpreted(Processor("avx512", 64)), Interpreted(Processor("avx2", 32))


class Planned(Exception):  # noqa: N818 - the end of a call that is not to be run
    pass


def training(name: str) -> Callable[[], object]:
    work = WORKS[name]
    dropout = work.dropout if isinstance(work, TransformerWork) else 0.0
    return lambda: ours.Training(work, dropout, shared=False)(next(work.batches()))


def decoding(name: str) -> Callable[[], object]:
    case = DECODINGS[name]
    return lambda: ours.Translator(case)(case.sources())


# A name: what is called, for which target, and how many plans are wanted of it.
CASES = {
    "W1": (training("W1"), AVX512, 1),
    "W1-avx2": (training("W1"), AVX2, 1),
    "W2": (training("W2"), AVX512, 1),
    "W4": (training("W4"), AVX512, 1),
    "greedy-1": (decoding("greedy-1"), AVX512, 2),
    "beam-4": (decoding("beam-4"), AVX512, 2),
}


def plans(name: str) -> list[Plan]:
    """The plans that a case makes, in their order. All but the last are run, op by op."""
    call, target, wanted = CASES[name]
    found: list[Plan] = []

    def planned(traced: Traced) -> Replay:
        found.append(Execution(traced, target).plan)
        if len(found) == wanted:
            raise Planned
        return Replay(traced, "")

    with _patched(planned):
        try:
            call()
        except Planned:
            return found
    raise AssertionError(f"{name} made {len(found)} plans, not {wanted}")


@contextmanager
def _patched(planned: Callable[[Traced], Any]) -> Iterator[None]:
    before = compiled._plan
    compiled._plan = planned
    try:
        yield
    finally:
        compiled._plan = before


def listing(name: str, *, full: bool = False) -> str:
    """full: what kernels compute and their arguments in words instead of digests."""
    return "\n".join(line for plan in plans(name) for line in _lines(plan, full)) + "\n"


def _lines(plan: Plan, full: bool) -> Iterator[str]:
    names = _Names(plan)
    launches = [(w, launch) for w, wave in enumerate(plan.waves()) for launch in wave]
    lines = []
    for wave, launch in launches:
        what = "\n".join(describe(call.kernel) for call in launch.calls)
        arguments = "\n".join(map(names.arguments, launch.calls))
        kinds = "+".join(describe(call.kernel).split(maxsplit=1)[0] for call in launch.calls)
        if full:
            lines.append(f"wave {wave}: {kinds}\n{what}\n{arguments}")
        else:
            lines.append(f"{wave:3} {kinds:28} {_digest(what)} {_digest(arguments)}")
    kept = ["prepacked " + names.arguments(call) for call in plan.prepacked]
    ends = [
        f"{names.name(view.buffer)} {view.shape} {view.strides} {view.offset}"
        for view in plan.places.values()
    ]
    roles = Counter(names.role(buffer) for buffer in plan.roles)
    yield f"{len(launches)} launches, arena {plan.arena_bytes} bytes"
    yield "buffers: " + ", ".join(f"{n} {role}" for role, n in sorted(roles.items()))
    yield from lines
    for what, said in (("prepacked", kept), ("ends", ends), ("memory", names.table())):
        yield f"{what}\n" + "\n".join(said) if full else f"{what} {_digest(chr(10).join(said))}"


class _Names:
    """Buffers by role and number, counted as launches come to them."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._numbers = plan, dict[Buffer, int]()

    def role(self, buffer: Buffer) -> str:
        return "input" if buffer.kind == "input" else self._plan.roles[buffer]

    def name(self, buffer: Buffer) -> str:
        buffer = self._plan.aliases.get(buffer, buffer)
        return f"{self.role(buffer)}#{self._numbers.setdefault(buffer, len(self._numbers))}"

    def arguments(self, call: Call) -> str:
        said = (
            f"{self.name(a.buffer)}+{a.offset}" if isinstance(a, Place) else str(a)
            for a in words(call.args)
        )
        return " ".join(said)

    def table(self) -> list[str]:
        """Every buffer that was named: its elements, and its place in the arena."""
        place = self._plan.offsets
        return [
            f"{self.name(b)}: {b.size} {b.dtype}" + (f" at {place[b]}" if b in place else "")
            for b in list(self._numbers)
        ]


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write"]:
            PLANS.mkdir(exist_ok=True)
            for case_name in CASES:
                (PLANS / f"{case_name}.txt").write_text(listing(case_name), encoding="utf-8")
        case ["show", case_name] if case_name in CASES:
            print(listing(case_name, full=True), end="")
        case _:
            sys.exit(f"{__doc__}\ncases: {', '.join(CASES)}")
