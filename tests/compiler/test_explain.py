"""What one is told of a plan: explain(), stats() and TX_DEBUG."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from explorer_cases import mlp

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.compiler.inspect import debug, explain
from tinygrad_tx.compiler.pipeline import STAGES
from tinygrad_tx.compiler.schedule.records import Refusal
from tinygrad_tx.errors import UserError
from tinygrad_tx.node import Node
from tinygrad_tx.op import OPS

F = nn.functional


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a width of its own, wherever the tests run."""
    monkeypatch.setenv("COLUMNS", str(explain.WIDTH))


class Net(nn.Module):
    def __init__(self) -> None:
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        h = self.norm(x)
        h = F.scaled_dot_product_attention(h, h, h)
        return self.down(self.up(h).relu())


def compiled(calls: int) -> tx.compiler.Compiled:
    model = Net()
    optimizer = tx.optim.SGD(model.parameters(), lr=0.1)

    @tx.compile
    def train_step(x: tx.Tensor) -> tx.Tensor:
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for _ in range(calls):
        train_step(tx.ones(4, 8, 16))
    return train_step


def test_explain_tells_work_times_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # paths are told from there, and long ones are cut
    step = compiled(3)
    text = step.explain()
    lines = text.splitlines()
    assert max(map(len, lines)) <= explain.WIDTH
    assert "train_step: " in lines[0] and f"{step.stats()['kernels']} kernels" in lines[0]
    assert "arena" in lines[0] and "results 4" in lines[0]
    assert "run 3 of 3" in lines[1]
    place = re.compile(r" matmul +matmul .*up  .*test_explain.py:\d")
    product = next(line for line in lines if place.search(line))
    assert f"{2 * 32 * 16 * 32 / 1e3:.1f}k" in product  # 32 rows, 16 times 32
    (attention,) = [line for line in lines if re.search(r" attention +attention", line)]
    assert f"{2 * 4 * 8 * 8 * (16 + 16) / 1e3:.1f}k" in attention
    assert "GF/s" in text and "GB/s" in text
    assert re.search(r"^all +\d+\.\d$", text, re.MULTILINE)
    totals = re.findall(r"^(\w+) +\d+ .* (\d+\.\d)%$", text, re.MULTILINE)
    assert {"matmul", "rows", "attention"} <= {name for name, _ in totals}
    assert sum(float(share) for _, share in totals) == pytest.approx(100, abs=1)


def test_the_slowest_kernels_stand_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = compiled(3).explain().splitlines()
    first = next(i for i, line in enumerate(lines) if re.match(r"the 10 slowest of \d+:$", line))
    found = [re.match(r" +(\d+\.\d) +\d+\.\d%  +#\d+  \w+: \S", x) for x in lines[first + 2 :][:10]]
    times = [float(match[1]) for match in found if match]
    assert len(times) == 10 and times == sorted(times, reverse=True)
    assert first < next(i for i, line in enumerate(lines) if line.startswith(" wave kernel"))


def test_a_place_stands_in_its_row_where_there_is_room() -> None:
    slowest, _, _ = mlp().explain().partition(" wave kernel")
    assert slowest.startswith("train_step: ") and "Sequential.0  " in slowest
    assert not re.findall(r"^ {8}\S", slowest, re.MULTILINE)  # places on lines of their own


def test_kernels_have_the_numbers_of_their_listings() -> None:
    text = compiled(3).explain(source=True)
    listed = dict(re.findall(r"^#(\d+) (\w+)", text, re.MULTILINE))
    table = re.findall(r"^ *[\d.+]+ (\w+) .* #(\d+)(?:  .*)?$", text, re.MULTILINE)
    assert {number for _, number in table} == set(listed) and len(listed) > 5
    for kind, number in table:
        assert {"attentiongrad": "attention_grad"}.get(kind, kind) == listed[number]
    assert sum(map(int, re.findall(r"called (\d+) times", text))) == len(
        compiled(1)._plan().plan.calls()
    )


class Deep(nn.Module):
    def __init__(self) -> None:
        self.a_layer_of_a_rather_long_name_to_be_read = nn.Linear(4, 4)

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        return self.a_layer_of_a_rather_long_name_to_be_read(x)


@pytest.mark.parametrize("width", [20, 80, 100, 140, 200])
def test_the_width_of_the_terminal_cuts_no_name(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(Path(__file__).parent)
    f = tx.compile(Deep())
    for _ in range(3):
        f(tx.ones(8, 4))
    lines = f.explain().splitlines()
    assert max(map(len, lines[1:])) <= max(width, 80)
    name = "Deep.a_layer_of_a_rather_long_name_to_be_read"
    assert sum(name in line for line in lines) >= 3
    assert any("flop" in line and "wave" in line for line in lines) == (width >= 100)


def test_an_explanation_shows_itself() -> None:
    f = tx.compile(lambda x: x + 1)
    f(tx.ones(3))
    text = f.explain()
    assert isinstance(text, str) and repr(text) == str(text) == f"{text}"
    shown = text._repr_html_()
    assert shown.startswith("<pre") and "&lt;lambda&gt;" in shown and "<lambda>" not in shown
    assert "reached: work in this time" in text  # a legend


def test_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    f = tx.compile(lambda x: (x.exp() * 2).sort()[0])
    f(tx.ones(3))
    text = f.explain(source="asm")
    plain = f.explain(source=True)
    assert re.search(r"^  \s+retq?$", text, re.MULTILINE)
    assert "  kernel:" in text and "kernel:" not in plain and "for each row:" in text
    assert "no machine code: it is called as it is" in text
    with pytest.raises(UserError, match="explain: source must be False, True or \"asm\", not 'C'"):
        f.explain(source="C")
    monkeypatch.setenv("TX_COMPILE", "interp")
    f = tx.compile(lambda x: x + 1)
    f(tx.ones(3))
    assert "no machine code: kernels run in NumPy" in f.explain(source="asm")


def test_before_the_timed_run_there_are_no_times() -> None:
    text = compiled(2).explain()
    assert "no times: run 3 of a plan is timed, and there were 2" in text
    assert "GF/s" not in text and "matmul" in text


def test_explain_shows_what_kernels_compute() -> None:
    f = tx.compile(lambda x: x.exp().sum())
    f(tx.ones(3))
    assert "for each row:" not in f.explain()
    assert "for each row:" in f.explain(source=True)


def test_interpreted_and_replayed_plans_explain_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", "interp")
    assert "matmul" in compiled(3).explain()
    monkeypatch.setenv("TX_COMPILE", "replay")
    text = compiled(1).explain()
    assert "nothing fused: TX_COMPILE=replay" in text and "test_explain.py" in text


def test_why_there_are_no_kernels() -> None:
    f = tx.compile(lambda x: x.sum(0))
    f(tx.ones(0, 3))
    assert "nothing fused: a value has no elements" in f.explain()
    f(tx.ones(0, 3, device="meta"))
    assert "nothing fused" in f.explain()


def test_refusals_are_grouped() -> None:
    node = tx.ones(3)._node

    def refused(name: str, scope: str, line: int, reason: str) -> Refusal:
        made = Node(OPS[name], (node,), {}, node.spec, "cpu", at=f"/x/y/model.py:{line}")
        made.scope = scope
        return Refusal(made, reason)

    given = [refused("sum", f"net.{n}", 3, "it is too wide") for n in (1, 2)]
    given.append(refused("argsort", "", 9, "called as it is: no kernel"))
    assert explain.refusals(given) == [
        "   2 x sum: it is too wide  net.1  model.py:3",
        "   1 x argsort: called as it is: no kernel  model.py:9",
    ]


def test_an_opaque_call_is_timed_and_named() -> None:
    f = tx.compile(lambda x: (x * 2).sort()[0] + 1)
    for _ in range(3):
        f(tx.ones(4, 5))
    text = f.explain()
    assert re.search(r"opaque +\S*sort.* \d+\.\d%", text)
    assert "called as it is" in text


def test_stats() -> None:
    step = compiled(3)
    stats = step.stats()
    assert set(stats) == {
        *("trace_s", "rewrite_s", "compile_s", "kernels", "peak_bytes", "cache_hits", "retraces"),
        "stages",
    }
    assert list(stats["stages"]) == list(dict(STAGES)) and min(stats["stages"].values()) > 0
    assert (stats["cache_hits"], stats["retraces"]) == (2, 0)
    assert min(stats["trace_s"], stats["rewrite_s"], stats["compile_s"]) > 0
    step(tx.ones(2, 8, 16))
    assert (step.stats()["cache_hits"], step.stats()["retraces"]) == (2, 1)
    assert 4 <= step.stats()["peak_bytes"] < stats["peak_bytes"]


# TX_DEBUG --------------------------------------------------------------------------------------


def told(level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed for three calls and one of another shape."""
    monkeypatch.setenv("TX_DEBUG", level)

    def work(x: tx.Tensor) -> tx.Tensor:
        return (x.exp() * 2).sum()

    f = tx.compile(work)
    for n in (3, 3, 4):
        f(tx.ones(n))
    return capsys.readouterr().err


def test_each_level_tells_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [told(str(i), monkeypatch, capsys) for i in range(5)]
    assert texts[0] == ""
    retraces = [line for line in texts[1].splitlines() if line]
    assert len(retraces) == 1 and "shape (3,), is (4,)" in retraces[0]
    marks = [
        "work: traced again: ",
        "work: run 1, ",
        "work: after fuse:\n  %0 input 3: given",
        "define void @kernel(",
    ]
    for level, text in enumerate(texts):
        assert [mark in text for mark in marks] == [level > i for i in range(4)]
    assert texts[2].count("GB/s") >= 3 and "work: run 2, " in texts[2]
    assert "work: not fused:" in texts[3] and "work: not fused:" not in texts[2]
    for name, _ in STAGES:
        assert f"work: after {name}:" in texts[3]
    assert "work: after chunk the loss: (unchanged)\n" in texts[3]
    assert "work: after memory:\n  arena of " in texts[3]
    assert "exp(%" in texts[3] and "test_explain.py:" in texts[3]
    assert "for each row:" in texts[4]


def test_a_level_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_DEBUG", "all")
    with pytest.raises(UserError, match="TX_DEBUG=all"):
        tx.compile(lambda x: x + 1)(tx.ones(1))
    monkeypatch.setenv("TX_DEBUG", "")
    assert debug.level() == 0


def test_a_function_that_computes_nothing() -> None:
    @tx.compile
    def f(x: tx.Tensor) -> tx.Tensor:
        return x

    x = tx.ones(2)
    assert f(x) is x and "nothing fused: it computes nothing" in f.explain()
