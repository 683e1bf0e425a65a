"""A step on several ranks on paper: sums that are hidden and not, and the table of them."""

from __future__ import annotations

import json

import pytest

from tinygrad_tx.cli import main
from tinygrad_tx.distributed import paper
from tinygrad_tx.distributed.paper import NETWORKS, Network, Parts, cost, summed

PARTS = Parts(1.0, 2.0, 0.5)
FAST = Network("fast", 1e15, 0.0, reduce=1e18)


def test_one_rank_sends_nothing() -> None:
    for network in NETWORKS.values():
        assert cost(PARTS, 10**9, 1, network) == (1, 3.5, 3.5, 0.0, 0.0, 0.0)


def test_a_sum_goes_in_two_phases() -> None:
    network = Network("", 1e9, 1e-5, reduce=1e10)
    for n in (2, 3, 8):
        part = 8e6 * (n - 1) / n
        expected = 2 * ((n - 1) * 1e-5 + part / 1e9) + part / 1e10
        assert summed(8 * 10**6, n, network) == pytest.approx(expected)


def test_what_the_backward_pass_hides() -> None:
    fast = cost(PARTS, 100 << 20, 8, FAST)
    assert fast.seconds == pytest.approx(PARTS.total) and fast.exposed < 1e-6
    # Half of the backward pass: all but the last bucket is hidden.
    one = 0.04
    network = Network("", paper.BUCKET / one, 0.0, reduce=1e18)
    some = cost(PARTS, 25 * paper.BUCKET, 2, network)
    assert some.sent == pytest.approx(25 * one) and some.exposed == pytest.approx(one)
    # Twice the backward pass: the first one waits for its gradients, then nothing waits.
    slow = cost(PARTS, 25 * paper.BUCKET, 2, network._replace(bandwidth=network.bandwidth / 4))
    assert slow.exposed == pytest.approx(2.0 / 25 + 4.0 - 2.0)
    assert slow.seconds == pytest.approx(PARTS.total + slow.exposed)
    assert slow.bytes == 25 * paper.BUCKET  # 2 (n - 1) / n


def test_a_processor_that_sends_computes_less() -> None:
    network = Network("", 1e9, 0.0, busy=0.5)
    found = cost(PARTS, 10**8, 2, network)
    assert found.compute == pytest.approx(PARTS.total + 0.5 * found.sent)
    assert found.seconds == pytest.approx(found.compute + found.exposed)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", "--work", "tiny", "--gpu", "h100", "--ranks", "1", "2", "8"]
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["network"]["name"] == "10gbit"
    assert [(r["ranks"], r["rows"], r["idle"]) for r in found["ranks"]] == [
        *((1, 4, 0), (2, 2, 0), (8, 1, 4)),
    ]
    one, two, eight = found["ranks"]
    assert one["sent"] == 0 < two["sent"] < eight["sent"] and one["bytes"] == 0
    assert one["seconds"] < two["seconds"]
    assert main([*given, "--weak", "--network", "nvlink"]) == 0
    out = capsys.readouterr().out
    assert "over nvlink" in out and "of ideal" in out and "have no row" not in out
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "from 8 ranks on, some have no row of the batch" in said
    assert "10gbit takes longer than the processors" in said
    assert main([*given, "--network", "token ring"]) == 1
    assert "the networks are 10gbit, 100gbit, nvlink" in capsys.readouterr().err
