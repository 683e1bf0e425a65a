"""A step on several ranks on paper: messages that are hidden and that are not, limits, and that the
bytes are those that a communicator really sends."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.cli import main
from tinygrad_tx.distributed import local, paper, world
from tinygrad_tx.distributed.communicator import SMALL
from tinygrad_tx.distributed.mpi import _LONGEST
from tinygrad_tx.distributed.paper import COMPUTE, NETWORKS, Cost, Event, Network, cost
from tinygrad_tx.training import outlook, works
from tinygrad_tx.training.ranks import Timing, shares

MB = 1 << 20
FAST = Network("fast", 1e15, 0.0, reduce=1e18)
PLAIN = Network("plain", 1e9, 0.0, reduce=1e18)


def step(buckets: int = 10, size: float = 4 * MB) -> list[Event]:
    """A second forward, 2 backward, in which buckets begin one after the other, 0.5 of update,
    which needs the norm of all."""
    found = [Event(COMPUTE, 1.0)]
    for _ in range(buckets):
        found += [Event(COMPUTE, 2.0 / buckets), Event("start_all_reduce", size)]
    return [*found, *[Event("finish_reduce", 8)] * buckets, Event(COMPUTE, 0.5)]


def test_one_rank_sends_nothing() -> None:
    for network in NETWORKS.values():
        found = cost(step(), 1, network)
        assert found[3:] == (0.0, 0.0, 0.0, 0.0)
        assert found.seconds == found.compute == pytest.approx(3.5)


def test_a_sum_goes_in_two_phases() -> None:
    network = Network("", 1e9, 1e-5, reduce=1e10)
    for n in (2, 3, 8):
        part = 8e6 * (n - 1) / n
        seconds, sent = paper.message("start_all_reduce", 8e6, n, network)
        assert seconds == pytest.approx(2 * ((n - 1) * 1e-5 + part / 1e9) + part / 1e10)
        assert sent == pytest.approx(2 * part)
        half, sent = paper.message("reduce_scatter", 8e6, n, network)
        assert half == pytest.approx((seconds + part / 1e10) / 2) and sent == pytest.approx(part)
        # Of small arrays each rank gets all.
        seconds, sent = paper.message("all_reduce", SMALL, n, network)
        assert sent == SMALL * (n - 1)
        assert seconds == pytest.approx((n - 1) * (1e-5 + SMALL / 1e9 + SMALL / 1e10))


def test_what_the_backward_pass_hides() -> None:
    fast = cost(step(), 8, FAST)
    assert fast.seconds == pytest.approx(3.5) and fast.exposed < 1e-6
    each = 0.1  # seconds of a bucket: half of the backward pass, and all but the last are hidden
    network = PLAIN._replace(bandwidth=4 * MB / each)
    some = cost(step(), 2, network)
    assert some.sent == pytest.approx(1.0)
    assert some.exposed == pytest.approx(each)
    assert some.seconds == pytest.approx(3.5 + each)
    assert some.bytes == some.given == 40 * MB
    # Four seconds: the first one begins after a tenth of the backward pass, and none waits then.
    slow = cost(step(), 2, network._replace(bandwidth=network.bandwidth / 4))
    assert slow.seconds == pytest.approx(1.2 + 4.0 + 0.5)


def test_nothing_is_hidden_where_nothing_is_computed_meanwhile() -> None:
    late = [Event(COMPUTE, 3.0), *[Event("all_reduce", 4 * MB)] * 3, Event(COMPUTE, 0.5)]
    found = cost(late, 4, PLAIN)
    assert found.exposed == found.sent and found.seconds == pytest.approx(3.5 + found.sent)


def test_more_ranks_take_no_less_for_the_same_rows() -> None:
    for network in NETWORKS.values():
        costs = [cost(step(), n, network) for n in (1, 2, 3, 8, 64, 128, 1024)]
        for key in ("seconds", "sent", "exposed", "bytes"):
            values = [getattr(c, key) for c in costs]
            assert values == sorted(values), (network.name, key)
        assert max(c.bytes for c in costs) < 2 * costs[0].given + 2 * 40 * MB


@pytest.mark.parametrize(("busy", "slowed"), [(0.25, 0.25), (0.5, 0.5), (1.0, 1.0)])
def test_a_processor_that_sends_computes_less(busy: float, slowed: float) -> None:
    """Work is conserved: what is sent behind computing takes its part of the core."""
    network = PLAIN._replace(busy=busy, bandwidth=4 * MB / 0.05)
    found = cost([*step(), Event(COMPUTE, 9.0)], 2, network)
    hidden = found.sent - found.exposed
    assert found.seconds == pytest.approx(12.5 + slowed * hidden + found.exposed, rel=1e-3)


def test_ranks_of_a_host_share_its_network() -> None:
    inner = Network("inner", 1e12, 0.0)
    alone, shared = (PLAIN._replace(per_host=n, within=inner) for n in (1, 8))
    assert paper.phase(64e6, 64, alone) == pytest.approx(63e-3)
    assert paper.phase(64e6, 64, shared) == pytest.approx(8 * 56e-3)  # all of it, for 8 ranks
    assert paper.phase(64e6, 8, shared) == pytest.approx(7 * 8e6 / 1e12)  # within a host


def test_messages_wait_to_be_seen() -> None:
    looked = PLAIN._replace(look=500e-6, latency=1e-6)
    assert NETWORKS["10gbit"].look == _LONGEST  # that of the engine
    one, many = (paper.phase(64e3, n, looked) for n in (2, 128))
    assert 0 < one - paper.phase(64e3, 2, PLAIN) < 1e-3
    assert 100 * 500e-6 < many < 127 * 600e-6


# Of real plans -----------------------------------------------------------------------------------


def sent(name: str, sharded: bool = False) -> tuple[list[int], int]:
    """On a rank of some: the bytes of each message of one step, and those that its engine sends."""
    ranks, total = world.current(), 0
    exchange, gather = ranks.engine.exchange, ranks.engine.gather

    def counted_exchange(x: Any) -> Any:
        nonlocal total
        before = total  # which may make it of a gather
        found = exchange(x)
        total = before + x.nbytes * (ranks.size - 1) // ranks.size
        return found

    def counted_gather(x: Any) -> Any:
        nonlocal total
        total += x.nbytes * (ranks.size - 1)
        return gather(x)

    table = works.work(name)
    _, taken = works.begin(table)
    shape = (2, table["length"])
    batch = [tx.tensor(np.ones(shape, np.int64)) for _ in range(3)]
    run = tx.compile(lambda weight, *given: taken(*given, weight=weight))
    ranks.engine.exchange = counted_exchange  # type: ignore[method-assign]
    ranks.engine.gather = counted_gather  # type: ignore[method-assign]
    run(tx.tensor(0.5), *batch).item()
    return [span.bytes for span in ranks.spans], total


@pytest.mark.parametrize("name", ["tiny", pytest.param("W2", marks=pytest.mark.slow)])
def test_bytes_are_those_that_are_sent(name: str) -> None:
    """Buckets of the plan on paper, against a communicator's; parts are padded to whole numbers."""
    found = outlook.of_work(name, batch=2, ranks=2)
    given = [w.given for w in found.works if w.given and w.ops != "finish_reduce"]
    for spans, total in local.run(2, lambda: sent(name)):
        assert given == spans
        on_paper = cost(found.events(lambda w: 0.0, 1.0), 2, FAST)
        assert on_paper.given == sum(spans)
        assert on_paper.bytes == pytest.approx(total, abs=32 * len(spans))


def test_a_step_of_several_ranks_is_planned_as_it_runs() -> None:
    one, two = (outlook.of_work("tiny", ranks=n) for n in (1, 2))
    assert not any(w.given for w in one.works)
    names = [w.ops for w in two.works if w.given]
    assert names == ["start_all_reduce", "finish_reduce"]
    assert world.current().size == 1
    with pytest.raises(ValueError), world.pretended(4):
        assert world.current().size == 4
        raise ValueError
    assert world.current().size == 1


def test_buckets_begin_while_the_backward_pass_runs() -> None:
    found = outlook.of_work("W2", ranks=2)
    phases = [w.ops if w.given else w.phase for w in found.works]
    begun = [i for i, what in enumerate(phases) if what == "start_all_reduce"]
    assert len(begun) > 3
    assert phases[begun[0] :].count("backward") > 50
    weights = found.memory.weights
    assert sum(w.given for w in found.works if w.ops == "start_all_reduce") == weights


def test_strong_and_weak() -> None:
    asked: list[tuple[int, int]] = []

    def planned(rows: int, ranks: int) -> outlook.Outlook:
        asked.append((rows, ranks))
        return outlook.of_work("tiny", batch=rows, ranks=ranks)

    timing = Timing(lambda w: 1e-6, lambda found: 1e-6 * found.launches)
    strong = list(shares(planned, 4, [1, 2, 8, 16], PLAIN, timing))
    assert asked == [(4, 1), (2, 2), (1, 2)]
    assert [(s.rows, s.idle, s.tokens) for s in strong] == [
        *((4, 0, 32), (2, 0, 32), (1, 4, 32), (1, 12, 32)),
    ]
    weak = list(shares(planned, 4, [1, 2, 8], PLAIN, timing, weak=True))
    assert [(s.rows, s.idle, s.tokens) for s in weak] == [(4, 0, 32), (4, 0, 64), (4, 0, 256)]
    asked.clear()
    list(shares(planned, 4, [2, 4], PLAIN, timing, weak=True, sharded=True))
    assert asked == [(4, 2), (4, 4)]


# The command -------------------------------------------------------------------------------------


def costs(capsys: pytest.CaptureFixture[str], *given: str) -> list[dict[str, Any]]:
    assert main(["plan", *given, "--gpu", "h100", "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["ranks"]
    return found


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--work", "tiny", "--ranks", "1,2,8,1024", "--network"]
    found = costs(capsys, *given, "100gbit")
    assert set(Cost._fields) < set(found[0])
    assert [(r["ranks"], r["rows"], r["idle"], r["messages"]) for r in found] == [
        *((1, 4, 0, 0), (2, 2, 0, 1), (8, 1, 4, 1), (1024, 1, 1020, 1)),
    ]
    assert [r["sent"] for r in found] == sorted(r["sent"] for r in found)
    slow, near = costs(capsys, *given, "10gbit"), costs(capsys, *given, "10gbit", "--per-host", "8")
    assert slow[2]["exposed"] > found[2]["exposed"] > 0 and near[2]["sent"] < slow[2]["sent"]
    arguments = ["plan", *given, "nvlink", "--gpu", "h100"]
    assert main([*arguments, "--weak"]) == 0
    out = capsys.readouterr().out
    assert "over nvlink" in out and "of ideal" in out and "have no row" not in out
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "from 8 ranks on, some have no row of the batch" in said
    assert "nvlink takes longer than the processors" in said


def test_moments_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """A run with optim.shard: sums of parts, and the weights gathered behind the update."""
    given = ["tiny", "--batch", "4", "--length", "8", "--network", "nvlink", "--ranks", "2"]
    [whole] = costs(capsys, *given)
    [parts] = costs(capsys, *given, "--set", "optim.shard=true")
    assert parts["bytes"] == pytest.approx(whole["bytes"], rel=0.01)
    assert parts["messages"] > whole["messages"]
    assert parts["exposed"] > whole["exposed"]  # nothing hides that the weights are gathered


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--network", "token ring"], "the networks are 10gbit, 100gbit, nvlink"),
        (["--network", "nvlink", "--per-host", "8"], "--per-host is of hosts with a network"),
    ],
)
def test_wrong_networks(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--work", "tiny", "--ranks", "2", *given]) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize("wrong", ["0", "two", "1,,2", ""])
def test_wrong_ranks(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--work", "tiny", "--ranks", wrong])
    assert "argument --ranks: " in capsys.readouterr().err
