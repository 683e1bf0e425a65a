"""The plans of the works that are measured are those that are recorded: a change to the compiler
that is to change none is seen to change none."""

from __future__ import annotations

from pathlib import Path

import plan_fingerprint
import pytest

from tinygrad_tx.backends.kernels.describe import describe

HOW = (
    "if that is meant: python tests/helpers/plan_fingerprint.py write, and say in the commit's "
    "message why and what the benchmarks say; `show CASE` before and after prints what differs"
)


@pytest.mark.parametrize("case", plan_fingerprint.CASES)
def test_plans_are_those_recorded(case: str) -> None:
    recorded = Path(plan_fingerprint.PLANS / f"{case}.txt").read_text(encoding="utf-8")
    now = plan_fingerprint.listing(case)
    for before, after in zip(recorded.splitlines(), now.splitlines(), strict=False):
        assert before == after, HOW
    assert recorded == now, HOW


def test_a_listing_tells_kernels_apart() -> None:
    for plan in plan_fingerprint.plans("W4"):
        kernels = {call.kernel for launch in plan.launches() for call in launch.calls}
        assert len({describe(kernel) for kernel in kernels}) == len(kernels)


def test_cases_are_recorded_and_nothing_else() -> None:
    assert {path.stem for path in plan_fingerprint.PLANS.iterdir()} == set(plan_fingerprint.CASES)
