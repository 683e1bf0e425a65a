"""explain: a plan in words: its launches with what they compute, and the fusions that were refused.

In: a Plan. Out: text. Called by `compiled.explain()` and TX_DEBUG.
"""

from __future__ import annotations

from collections.abc import Sequence

from .plan import Plan
from .views import Launch


def explained(plan: Plan, seconds: Sequence[float]) -> str:
    """The whole plan. seconds: of each wave and opaque call, where they were measured."""
    launches = plan.launches()
    kernels = sum(len(x.calls) for x in launches)
    lines = [
        f"{kernels} kernels in {len(launches)} launches, arena {plan.arena_bytes / 2**20:.1f} MiB"
    ]
    number = 0
    for step in plan.steps:
        for wave in [[step]] if isinstance(step, Launch) else step:
            took = f"{seconds[number] * 1e6:9.0f} us" if number < len(seconds) else ""
            number += 1
            lines.append(f"wave {number}{took}")
            for launch in wave:
                lines += _launch(launch, number)
    if plan.refusals:
        lines += ["not fused:", *(f"  {why}" for why in plan.refusals)]
    return "\n".join(lines)


def _launch(launch: Launch, number: int) -> list[str]:
    lines = []
    for i, call in enumerate(launch.calls):
        kind = type(call.kernel).__name__.lower()
        ops = " ".join(dict.fromkeys(node.op.name for node in call.nodes)) or "copy"
        outs = ", ".join(f"{v.dtype}{list(v.shape)}" for v in call.writes)
        node = call.nodes[-1] if call.nodes else None
        where = "  ".join(x for x in (node.scope, node.line) if x) if node else ""
        mark = f"{number:4}" if i == 0 else "   +"
        lines.append(f"{mark}  {kind:13} {ops:40} -> {outs}  {where}".rstrip())
    return lines
