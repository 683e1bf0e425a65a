"""timeline: when each wave of a run ran, and what each thread did in it.

In: the times that a run has measured of itself. Out: a Timeline; its Chrome trace, a JSON file for
chrome://tracing, Perfetto (ui.perfetto.dev) and Speedscope. Kept by run/execution.py and
run/replay.py, called by `compiled.trace(path)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import atomic
from ...backends.target import Done
from ...distributed.communicator import Span
from ...errors import UserError
from ...node import Node
from ..schedule.records import Launch
from .origin import named, origin
from .work import flops, moved

if TYPE_CHECKING:  # both import this file
    from ..run.execution import Execution
    from ..run.replay import Replay

TIMED = 3  # the run whose waves are timed, for explain(): the first that finds everything warm
_PROCESS = 1  # Chrome's name for what has threads
_WAVES = 0  # the row of the waves; that of a thread is one more than its number


class Did(NamedTuple):
    """Tasks of a launch that a thread did one after the other, in seconds since the run began."""

    launch: Launch
    thread: int
    tasks: int
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """A run that was timed. run: its number, from 1; seconds: of each wave and opaque call, or of
    each op where no kernels run; did: what each thread did, as far as that is known. waves, nodes:
    what was run, in the order of `seconds`; one of them is empty. sent: what went between ranks, in
    seconds since the run began."""

    run: int
    seconds: tuple[float, ...]
    did: tuple[Did, ...] = ()
    waves: Sequence[Sequence[Launch]] = ()
    nodes: Sequence[Node] = ()
    sent: Sequence[Span] = ()

    @classmethod
    def of(
        cls,
        run: int,
        seconds: Sequence[float],
        done: Sequence[tuple[float, Sequence[tuple[Launch, Done]]]],
        waves: Sequence[Sequence[Launch]],
        sent: Sequence[Span] = (),
    ) -> Timeline:
        """done: of each segment, when it began and what it has noted. Between two segments, time
        that is no part of a wave is left out."""
        did = [
            Did(launch, x.thread, x.tasks, begun + x.begin, begun + x.end)
            for begun, notes in done
            for launch, x in notes
        ]
        return cls(run, tuple(seconds), tuple(did), waves, sent=sent)

    @property
    def total(self) -> float:
        return sum(self.seconds)

    def busy(self) -> dict[Launch, float]:
        """The seconds of all threads together in each launch, where they are known."""
        found: dict[Launch, float] = {}
        for x in self.did:
            found[x.launch] = found.get(x.launch, 0.0) + x.end - x.begin
        return found


def save(recording: Execution | Replay, name: str, path: str | Path) -> Path:
    """Write the Chrome trace of a plan's last timed run, and give its path back. UserError where no
    run was timed, which says why."""
    timeline = recording.timeline
    if timeline is None:
        raise UserError(f"trace: no run of {name} was timed yet: {recording.untimed()}")
    events = _of_ops(timeline, name) if timeline.nodes else _of_waves(timeline, name)
    text = json.dumps(
        {
            "traceEvents": list(events),
            "displayTimeUnit": "ns",
            "otherData": {"function": name, "run": timeline.run},
        },
        separators=(",", ":"),
    )
    path = Path(path)
    atomic.write_bytes(path, text.encode())
    return path


def _of_waves(timeline: Timeline, name: str) -> Iterator[Any]:
    """The events of a run of kernels: a row of waves, and one for each thread."""
    threads, waves = sorted({x.thread for x in timeline.did}), timeline.waves
    yield from _names(name, timeline, threads)
    at = 0.0
    for i, (wave, took) in enumerate(zip(waves, timeline.seconds, strict=False), 1):
        words = dict.fromkeys(call.kernel.word for launch in wave for call in launch.calls)
        about = {
            "launches": len(wave),
            "kernels": [_kernel(launch) for launch in wave[:20]],
            "flops": sum(flops(call) for launch in wave for call in launch.calls),
            "bytes": sum(moved(call) for launch in wave for call in launch.calls),
        }
        yield _event(f"wave {i}: {' '.join(words)}", "wave", _WAVES, at, took, about)
        at += took
    number = {id(launch): i for i, wave in enumerate(waves, 1) for launch in wave}
    for x in timeline.did:
        last = x.launch.calls[-1]
        about = {"ops": last.ops, "where": origin(last), "tasks": x.tasks}
        if id(x.launch) in number:  # one in a loop is in none of these waves
            about["wave"] = number[id(x.launch)]
        kind = " + ".join(call.kernel.word for call in x.launch.calls)
        yield _event(kind, "kernel", 1 + x.thread, x.begin, x.end - x.begin, about)
    if timeline.sent:
        row = 2 + max(threads, default=0)
        yield _meta("thread_name", row, "between ranks")
        for name, size, begin, end in timeline.sent:
            yield _event(name, "communication", row, begin, end - begin, {"bytes": size})


def _of_ops(timeline: Timeline, name: str) -> Iterator[Any]:
    """The events of a run op by op."""
    yield from _names(name, timeline, ())
    at = 0.0
    for node, took in zip(timeline.nodes, timeline.seconds, strict=True):
        about = {
            "shape": " ".join(f"{s.dtype.name}{list(s.shape)}" for s in node.specs),
            "where": named(node),
        }
        yield _event(node.op.name, "op", _WAVES, at, took, about)
        at += took


def _kernel(launch: Launch) -> str:
    return "; ".join(f"{call.kernel.word}: {call.ops}" for call in launch.calls)


def _names(name: str, timeline: Timeline, threads: Sequence[int]) -> Iterator[Any]:
    rows = {_WAVES: "waves" if timeline.did else "in their order"}
    rows |= {1 + i: f"thread {i}" + (" (the caller)" if i == 0 else "") for i in threads}
    yield _meta("process_name", _WAVES, f"{name}, run {timeline.run}")
    for row, text in rows.items():
        yield _meta("thread_name", row, text)
        yield {**_meta("thread_sort_index", row, ""), "args": {"sort_index": row}}


def _meta(what: str, row: int, text: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": row, "args": {"name": text}}


def _event(
    name: str, kind: str, row: int, begin: float, took: float, about: dict[str, Any]
) -> dict[str, Any]:
    """A span of time, in microseconds as Chrome has them."""
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": _PROCESS,
        "tid": row,
        "ts": round(begin * 1e6, 3),
        "dur": round(max(took, 0.0) * 1e6, 3),
        "args": about,
    }
