"""explain: a plan in words: its launches with their ops, times and lines of Python, and the fusions
that were refused.

In: a Plan, and the seconds of its waves where they were measured. Out: text of 140 columns. Called
by `compiled.explain()` and TX_DEBUG.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from ...backends.kernels import kinds
from ...backends.kernels.arguments import (
    AttentionArgs,
    AttentionGradArgs,
    AttentionKeyGradArgs,
    AttentionQueryGradArgs,
    GemmArgs,
    GemmEpilogueArgs,
    MatmulArgs,
)
from ...backends.kernels.describe import describe
from ...backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    AttentionKeyGrad,
    AttentionQueryGrad,
    Gemm,
    GemmEpilogue,
    Kernel,
    Matmul,
)
from ...dtypes import ALL
from ..schedule.records import Call, Launch, Loop, Plan, Refusal, View, itemsize
from .origin import named, origin

WIDTH = 140
FLOPS_PER_BYTE = 10  # how the time of a wave is split among its launches in the totals
_HEAD = (
    f"{'wave':>5} {'kernel':13} {'ops':26} {'result':18} {'flop':>6} {'bytes':>6} {'us':>8} "
    f"{'share':>6} {'reached':>9}  where"
)
_LAYER = re.compile(r"\.\d+(?=\.)")


def explained(
    plan: Plan, seconds: Sequence[float], notes: Sequence[str], source: bool = False
) -> str:
    """The whole plan. seconds: of each wave and opaque call, empty where they were not measured.
    notes: on its runs, among them which one was measured. source: with the listing of each
    kernel."""
    launches, calls = plan.launches(), plan.calls()
    results = sum(b.bytes for b in plan.results())
    kept = sum(call.writes[0].buffer.bytes for call in plan.prepacked)
    lines = [
        f"{len(calls)} kernels in {len(launches)} launches and {len(plan.waves())} waves; bytes: "
        f"arena {_number(plan.arena_bytes) or 0}, results {_number(results) or 0}, "
        f"weights kept packed {_number(kept) or 0}",
        *notes,
        "",
        _HEAD,
    ]
    total = sum(seconds)
    times = seconds or [0.0] * len(plan.waves())
    tally: dict[str, _Total] = {}
    for number, (wave, took) in enumerate(zip(plan.waves(), times, strict=True), 1):
        lines += _wave(str(number), wave, took, total)
        _count(wave, took, tally)
    lines += ["", *_totals(tally, total)]
    if plan.refusals:
        lines += ["", "not fused:", *(f"  {line}" for line in refusals(plan.refusals))]
    if source:
        lines += ["", *listings(call.kernel for call in calls)]
    return "\n".join(line.rstrip() for line in lines)


def wave_times(plan: Plan, seconds: Sequence[float]) -> str:
    """Only the waves that were timed, longest first: what TX_DEBUG=2 prints of each run."""
    total = sum(seconds)
    ordered = sorted(enumerate(zip(plan.waves(), seconds, strict=True), 1), key=lambda x: -x[1][1])
    lines = [_HEAD]
    for number, (wave, took) in ordered:
        lines += _wave(str(number), wave, took, total)
    return "\n".join(line.rstrip() for line in lines)


def refusals(given: Sequence[Refusal]) -> list[str]:
    """Those of one kind as one line, with the place of the first, the most frequent ones first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in given:
        groups.setdefault((node.op.name, reason), []).append(named(node))
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [f"{len(at):4} x {op}: {why}  {at[0]}" for (op, why), at in ordered]


def listings(kernels: Iterable[Kernel]) -> list[str]:
    """Each of some kernels in a few lines, and the number of its calls."""
    counted = Counter(kernels).items()
    return [f"{describe(kernel)}\n  called {count} times\n" for kernel, count in counted]


# Work ------------------------------------------------------------------------------------------


def flops(call: Call) -> int:
    """Of the products in a call; elementwise work is measured in bytes."""
    if call.loop:
        return call.loop.rounds * sum(map(flops, _inside(call.loop)))
    match call.kernel, call.args:
        case Matmul() | Gemm(), MatmulArgs(m=m, n=n, k=k) | GemmArgs(m=m, n=n, k=k) as args:
            return 2 * args.b0 * args.b1 * m * n * k
        case GemmEpilogue(), GemmEpilogueArgs(product=args):
            return 2 * args.b0 * args.b1 * args.m * args.n * args.k
        case Attention(causal=causal), AttentionArgs(b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v):
            return 2 * b * h * t * s * (d_k + d_v) // (1 + causal)
        case AttentionGrad(causal=causal), AttentionGradArgs(b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v):
            # The scores again, their gradient, dq, dk and dv.
            return 2 * b * h * t * s * (3 * d_k + 2 * d_v) // (1 + causal)
        case AttentionQueryGrad(causal=causal), AttentionQueryGradArgs(
            b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v
        ):
            return 2 * b * h * t * s * (2 * d_k + d_v) // (1 + causal)
        case AttentionKeyGrad(causal=causal), AttentionKeyGradArgs(
            b=b, h=h, t=t, s=s, d_k=d_k, d_v=d_v
        ):
            return 2 * b * h * t * s * (2 * d_k + 2 * d_v) // (1 + causal)
        case _:
            return 0


def _inside(loop: Loop) -> list[Call]:
    """The calls of one round."""
    return [call for launch in loop.plan.launches() for call in launch.calls]


def moved(call: Call) -> int:
    """The bytes that a call reads and writes: each operand once, in each round of a loop."""
    if call.loop:
        return call.loop.rounds * sum(map(moved, _inside(call.loop)))
    rows = call.gathered
    seen: list[View] = []
    total = 0
    for i, view in enumerate((*call.reads, *call.writes)):
        if any(view.same(other) for other in seen):
            continue
        seen.append(view)
        steps = zip(view.shape, view.strides, strict=True)
        total += prod(n for n, step in steps if step or i in rows) * itemsize(view.dtype)
    return total


# Lines -----------------------------------------------------------------------------------------


def _wave(number: str, wave: Sequence[Launch], took: float, total: float) -> list[str]:
    """A line for each call; launches that look alike in all but the number of their layer as one,
    with how many there are and all of their work. Behind a loop its waves, numbered in it, without
    times; their work is that of one round."""
    alike: dict[tuple[tuple[str, ...], ...], list[Launch]] = {}
    for launch in wave:
        alike.setdefault(tuple(map(_looks, launch.calls)), []).append(launch)
    lines: list[str] = []
    for looks, launches in alike.items():
        times = f" x {len(launches)}" if len(launches) > 1 else ""
        for i, (name, what, outs, where) in enumerate(looks):
            calls = [launch.calls[i] for launch in launches]
            where = where if times else origin(calls[0])
            what = _cut(what, 26 - len(times)) + times
            line = (
                f"{'+' if i else number:>5} {name:13} {what:26} {_cut(outs, 18):18} "
                f"{_number(sum(map(flops, calls))):>6} {_number(sum(map(moved, calls))):>6} "
                f"{_blank() if lines else _times(wave, took, total)}  "
            )
            lines.append(line + _cut(where, WIDTH - len(line), left=True))
    for loop in [launch.loop for launch in wave if launch.loop]:
        for i, inner in enumerate(loop.plan.waves(), 1):
            lines += _wave(f"{number}.{i}", inner, 0.0, 0.0)
    return lines


def _looks(call: Call) -> tuple[str, str, str, str]:
    """The looks of a call: kind, ops, results, origin."""
    outs = [f"{ALL[v.dtype].short}[{','.join(map(str, v.shape))}]" for v in call.writes]
    ops = call.ops
    if isinstance(call.kernel, kinds.Loop) and call.loop:
        ops = f"{call.loop.rounds} x {call.kernel.name}"
    return call.kernel.word, ops, " ".join(outs), _LAYER.sub(".*", origin(call))


def _blank() -> str:
    return f"{'':8} {'':6} {'':9}"


def _times(wave: Sequence[Launch], took: float, total: float) -> str:
    """The time that it took, its share, and the operations or bytes per second."""
    if not took:
        return _blank()
    calls = [call for launch in wave for call in launch.calls]
    work, unit = sum(map(flops, calls)), "GF/s"
    if not work:
        work, unit = sum(map(moved, calls)), "GB/s"
    reached = work / took / 1e9
    rate = f"{reached:.0f} {unit}" if reached >= 100 else f"{reached:.1f} {unit}"
    return f"{took * 1e6:8.1f} {took / total:6.1%} {rate:>9}"


@dataclass
class _Total:
    kernels: int = 0
    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0


def _count(wave: Sequence[Launch], took: float, tally: dict[str, _Total]) -> None:
    """Add a wave to the totals of its kinds."""
    calls = [found for launch in wave for found in calls_run(launch)]
    shares = [n * share(call) for call, n in calls]
    for (call, times), part in zip(calls, shares, strict=True):
        total = tally.setdefault(call.kernel.word, _Total())
        total.kernels += 1
        total.flops += times * flops(call)
        total.bytes += times * moved(call)
        total.seconds += took * part / sum(shares)


def share(call: Call) -> float:
    """How much of the time of a wave is a call's, beside others, as far as its work tells."""
    return 1 + flops(call) / FLOPS_PER_BYTE + moved(call)


def calls_run(launch: Launch, times: int = 1) -> list[tuple[Call, int]]:
    """The calls of a launch and the number of times that each runs; of a loop, those in its
    rounds."""
    if launch.loop is None:
        return [(call, times) for call in launch.calls]
    times *= launch.loop.rounds
    return [x for inner in launch.loop.plan.launches() for x in calls_run(inner, times)]


def _totals(tally: dict[str, _Total], total: float) -> list[str]:
    lines = [f"{'total':13} {'kernels':>7} {'flop':>6} {'bytes':>6} {'us':>9} {'share':>6}"]
    for name, found in sorted(tally.items(), key=lambda item: -item[1].seconds):
        times = f"{found.seconds * 1e6:9.1f} {found.seconds / total:6.1%}" if total else ""
        lines.append(
            f"{name:13} {found.kernels:7} {_number(found.flops):>6} "
            f"{_number(found.bytes):>6} {times}"
        )
    if total:
        lines.append(f"{'all':13} {'':7} {'':6} {'':6} {total * 1e6:9.1f}")
        lines.append("(the time of a wave of several kinds is split by their work)")
    return lines


# Words -----------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """A count in three digits; nothing for nothing."""
    if not value:
        return ""
    power = next(p for p in (3, 2, 1, 0) if value >= 1000**p or not p)
    value /= 1000**power
    digits = f"{value:.0f}" if value >= 100 or not power else f"{value:.1f}"
    return digits + " kMG"[power].strip()


def _cut(text: str, width: int, left: bool = False) -> str:
    if len(text) <= width:
        return text
    return "~" + text[1 - width :] if left else text[: width - 1] + "~"
