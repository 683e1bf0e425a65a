"""The profile of a run: what a step took, what memory the process had at most, and what each module
did. In: the trainer's steps. Out: profile.json. Written at the end of each sitting;
read by `info` and the report.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from ..atomic import write_bytes
from ..backends.cpu import library
from ..backends.cpu.run.team import get_num_threads
from ..compiler.compiled import Compiled
from ..compiler.inspect.describe import modules_of_execution
from ..compiler.run.execution import Execution
from ..errors import UserError
from .step import Trainable

T = TypeVar("T")
_STEPS = 1000  # the last of which are remembered


@dataclass(frozen=True)
class ModuleProfile:
    """A module with all inside it, in one step. path: "" of what is in no module, such as the
    optimizer; title: its class and options; depth: how many modules it is in. forward, backward:
    FLOPs; activations: bytes that the forward pass leaves for the backward one; seconds: of all."""

    path: str
    title: str
    depth: int
    parameters: int
    forward: float
    backward: float
    activations: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """seconds: of a step, the median of `steps`, from batch to batch; tokens: in a step, the
    median; peak_bytes: the most memory that the process had, None where the system does not say;
    device, threads: on what; made: whether code of kernels was made, rather than found;
    data_bytes: of memory that the data took; vocab: of the model; plans: that were made of a
    step, one for each shape of batches; shapes: of the most frequent batches, usual: the seconds
    of a step on them, 0 where batches add up to a step; modules: what they do in it. Empty, all
    three, where no kernels ran. expected, expected_bytes: what was predicted of usual and
    peak_bytes, 0 where this machine was not measured."""

    seconds: float
    steps: int
    tokens: float
    peak_bytes: int | None
    device: str
    threads: int
    made: bool = False
    data_bytes: int = 0
    vocab: int = 0
    plans: int = 0
    shapes: list[list[int]] = field(default_factory=list)
    usual: float = 0.0
    expected: float = 0.0
    expected_bytes: float = 0.0
    modules: list[ModuleProfile] = field(default_factory=list)


class Stopwatch:
    """The steps of a sitting."""

    def __init__(self, trainable: Trainable, data_bytes: int = 0) -> None:
        """data_bytes: what the data take."""
        self._trainable, self._data_bytes = trainable, data_bytes
        self._steps: deque[tuple[float, int, int]] = deque(maxlen=_STEPS)

    def step(self, seconds: float, tokens: int) -> None:
        """A step is done that did not compile: one that did says nothing of the others."""
        ran = [id(step._last) for step in _compiled(self._trainable)]
        self._steps.append((seconds, tokens, ran[0] if ran else 0))

    def save(self, path: Path, complete: Callable[[Profile], Profile] = lambda x: x) -> None:
        """Write the profile, completed, if there was a step; one that cannot be written is left
        out."""
        if not self._steps:
            return
        found = self._profile()
        with suppress(UserError):  # it is one of its own, whatever becomes of a prediction
            found = complete(found)
        with suppress(OSError, UserError):
            write_bytes(path, json.dumps(asdict(found), indent=1).encode())

    def _profile(self) -> Profile:
        seconds, tokens, ran = zip(*self._steps, strict=True)
        steps = _compiled(self._trainable)
        found = Profile(
            median(seconds),
            len(seconds),
            median(tokens),
            peak_bytes(),
            self._trainable.optimizer.step_count.device,
            get_num_threads(),
            library.stats()["compiled"] > 0,
            self._data_bytes,
            self._trainable.model.config.vocab_size,
            sum(len(plans) for plans in steps[0]._plans.values()) if steps else 0,
        )
        run = _busiest(steps)
        if run is None:
            return found
        modules = [*map(_module, modules_of_execution(run))]
        usual = [t for t, plan in zip(seconds, ran, strict=True) if plan == id(run)]
        # Where batches add up to a step they have several shapes: no step is one of the most
        # frequent.
        parts = steps[0] is self._trainable._part
        shapes = _shapes(run)
        of_them = median(usual) if usual and not parts else 0.0
        return replace(found, shapes=shapes, usual=of_them, modules=modules)


def load(path: Path) -> Profile | None:
    """The profile that a file holds; None where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
        modules = [ModuleProfile(**row) for row in found.pop("modules")]
        profile = Profile(**found, modules=modules)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    numbers = [profile.seconds, profile.steps, profile.tokens, profile.peak_bytes or 0]
    numbers += [profile.vocab, profile.data_bytes, profile.plans, profile.usual, profile.threads]
    numbers += [profile.expected, profile.expected_bytes]
    numbers += [n for shape in profile.shapes for n in shape]
    for m in modules:
        numbers += [m.depth, m.parameters, m.forward, m.backward, m.activations, m.seconds]
    texts = [profile.device, *(x for m in modules for x in (m.path, m.title))]
    whole = all(isinstance(x, (int, float)) for x in numbers) and profile.seconds > 0
    whole &= bool(profile.shapes) or not profile.usual
    return profile if whole and all(isinstance(x, str) for x in texts) else None


def facts(profile: Profile) -> Iterator[tuple[str, str]]:
    """What a step took, and how far off its prediction was, in words: names, and what they are."""
    on = f"{profile.device}, {profile.threads} threads"
    rate = f"{profile.tokens / profile.seconds:,.0f} tokens/s"
    yield "a step", f"{duration(profile.seconds)} (median of {profile.steps:,}, {on}), {rate}"
    if profile.peak_bytes:
        yield "memory", f"{profile.peak_bytes / 1e6:,.0f} MB at the peak, of the whole process"
    yield from compared(profile)


def compared(profile: Profile) -> Iterator[tuple[str, str]]:
    """What a run took beside what was predicted for its most frequent batches, as far as it was."""
    if profile.expected and profile.usual:
        size = " x ".join(map(str, profile.shapes[0]))
        yield (
            "time predicted",
            f"{duration(profile.expected)} on batches of {size}, took {duration(profile.usual)}: "
            f"{off(profile.expected, profile.usual)}",
        )
    expected, peak = profile.expected_bytes, profile.peak_bytes
    if expected and peak:
        yield (
            "memory predicted",
            f"{expected / 1e6:,.0f} MB for data and steps, the process took {peak / 1e6:,.0f} MB: "
            f"{off(expected, peak)}",
        )


def off(predicted: float, measured: float) -> str:
    """How far a prediction was from what was measured, in words."""
    part = predicted / measured - 1
    return (
        f"{abs(part):.0%} too {'much' if part > 0 else 'little'}" if abs(part) >= 0.005 else "right"
    )


def duration(seconds: float) -> str:
    """Of a step, in the unit that fits."""
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def peak_bytes() -> int | None:
    """The most memory that this process has had so far."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def weighed(make: Callable[..., T], *args: Any) -> tuple[T, int]:
    """What make(*args) gives, and by how many bytes it made this process larger; 0 where the system
    does not say."""
    before = _resident()
    made = make(*args)
    return made, max(_resident() - before, 0)


def _resident() -> int:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError):  # it is no Linux
        return 0


def _compiled(trainable: Trainable) -> list[Compiled]:
    """The functions that make a step, as far as they are compiled."""
    steps = (trainable._whole, trainable._shared, trainable._part, trainable._end)
    return [step for step in steps if isinstance(step, Compiled) and step._last is not None]


def _busiest(steps: Sequence[Compiled]) -> Execution | None:
    """The plan of a step, or of a batch's part of it, that ran most often."""
    for step in steps:
        plans = [plan for found in step._plans.values() for plan in found]
        timed = [p for p in plans if isinstance(p, Execution) and p.timeline is not None]
        if timed:
            return max(timed, key=lambda plan: plan.runs)
    return None


def _shapes(run: Execution) -> list[list[int]]:
    """Of a batch's arrays; the weight of a part of one is a number."""
    inputs = enumerate(run.traced.inputs)
    shapes = [list(x.signature.shape) for i, x in inputs if i in run.arguments]
    return [shape for shape in shapes if shape]


def _module(row: dict[str, Any]) -> ModuleProfile:
    phases = row["phases"]
    path = row["path"]
    return ModuleProfile(
        path,
        row["title"],
        path.count("."),
        row["parameters"],
        phases.get("forward", {}).get("flops", 0.0),
        phases.get("backward", {}).get("flops", 0.0),
        row["kept"],
        row["seconds"],
    )
