"""describe(): a compiled function as plain data, and explore(): the same as a page."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_cases import CASES, called, mlp, scan

import tinygrad_tx as tx
from tinygrad_tx import backends, nn
from tinygrad_tx.compiler.capture.trace import trace
from tinygrad_tx.compiler.inspect import explore
from tinygrad_tx.compiler.pipeline import STAGES
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.training import outlook
from tinygrad_tx.training.works import begin, work

Data = dict[str, Any]


def row(found: Data, number: int) -> Data:
    """A node's row with its texts."""
    graph = found["graph"]
    made = dict(zip(graph["columns"], graph["rows"][number], strict=True))
    made["module"] = next(m["path"] for m in found["modules"] if m["number"] == made["module"])
    texts = {"op": graph["ops"], "detail": graph["details"], "result": graph["results"]}
    made |= {key: texts[key][made[key]] for key in texts}
    made["phase"] = graph["phases"][made["phase"]]
    for key in ("place", "gradient_of"):
        made[key] = found["places"][made[key]]["text"]
    return made


def stage(found: Data, name: str) -> list[Data]:
    """The rows of what is there after a stage, the first of that name."""
    rows: list[int] = []
    for one in found["graph"]["stages"]:
        rows = rows if one["nodes"] is None else one["nodes"]
        if one["name"] == name:
            break
    return [row(found, number) for number in rows]


def require_sound(found: Data) -> None:
    """Every number names something, and the whole is JSON without what is not finite."""
    assert json.loads(json.dumps(found, allow_nan=False)).keys() == found.keys()
    graph, kernels = found["graph"], found["kernels"]
    calls, buffers = kernels["calls"], found["memory"]["buffers"]
    modules = {m["number"] for m in found["modules"]}
    at = {name: i for i, name in enumerate(graph["columns"])}
    for number, one in enumerate(graph["rows"]):
        for name in ("op", "detail", "result"):
            assert 0 <= one[at[name]] < len(graph[f"{name}s"])
        assert one[at["module"]] in modules and one[at["place"]] < len(found["places"])
        assert all(0 <= src < len(graph["rows"]) for src in one[at["srcs"]])
        assert one[at["inside"]] < number
    assert graph["stages"][0]["nodes"] is not None
    for made in graph["stages"]:
        seen: set[int] = set()
        for number in made["nodes"] or ():
            assert seen.issuperset(graph["rows"][number][at["srcs"]])  # behind what it reads
            seen.add(number)
    for call in calls:
        assert call["module"] in modules and -1 <= call["source"] < len(kernels["sources"])
        assert all(0 <= i < len(buffers) for i in (*call["reads"], *call["writes"]))
        assert all(0 <= i < len(graph["rows"]) for i in call["nodes"])
    listed = [i for wave in kernels["waves"] for numbers in wave["kernels"] for i in numbers]
    assert len(set(listed)) == len(listed) == sum(c["wave"] > 0 and c["loop"] < 0 for c in calls)
    waves = len(kernels["waves"])
    for buffer in buffers:
        assert 0 <= buffer["first"] <= buffer["last"] <= waves
        assert -1 <= buffer["kernel"] < len(calls)
        if buffer["offset"] is not None:
            assert buffer["offset"] + buffer["bytes"] <= found["memory"]["arena_bytes"]
    for refusal in kernels["refusals"]:
        assert -1 <= refusal["kernel"] < len(calls) and refusal["reason"]


@pytest.mark.parametrize("name", CASES)
def test_everything_named_is_there(name: str) -> None:
    found = CASES[name]().describe()
    require_sound(found)
    tops = [m for m in found["modules"] if m["parent"] < 0]
    for key in ("flops", "bytes", "seconds"):
        assert sum(m[key] for m in tops) == pytest.approx(found["totals"][key])
    assert [s["name"] for s in found["graph"]["stages"]] == [
        "as it was traced",
        *(stage for stage, _ in STAGES),
    ]


@pytest.mark.parametrize("mode", ["interp", "replay"])
def test_other_ways_to_run(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    found = mlp().describe()
    require_sound(found)
    assert found["kind"] == ("ops" if mode == "replay" else "kernels")
    assert found["timed"] == 3 and found["totals"]["seconds"] > 0
    assert all(call["seconds"] > 0 for call in found["kernels"]["calls"] if call["wave"])
    assert found["why"] == ("TX_COMPILE=replay" if mode == "replay" else "")


def test_modules() -> None:
    found = mlp().describe()
    outside, whole, *inner = found["modules"]
    assert [m["path"] for m in inner] == [f"Sequential.{i}" for i in range(3)]
    assert [m["title"].partition("(")[0] for m in inner] == ["Linear", "GELU", "Linear"]
    assert [m["parameters"] for m in (outside, whole, *inner)] == [0, 65, 48, 0, 17]
    assert [t["name"] for t in inner[0]["tensors"]] == ["weight", "bias"]
    assert all(m["parent"] == 1 for m in inner)
    # 8 rows: x @ W forward; by the weights and, but for the first layer's input, by x backward.
    products = [2 * 8 * 2 * 16, 2 * 8 * 16]
    assert [m["phases"].get("forward", {}).get("flops") for m in inner] == [
        products[0], 0, products[1],
    ]  # fmt: skip
    assert [m["phases"]["backward"]["flops"] for m in inner] == [products[0], 0, 2 * products[1]]
    totals = found["totals"]
    for key in ("flops", "seconds"):
        assert outside[key] + whole[key] == pytest.approx(totals[key])
        assert sum(m[key] for m in inner) <= whole[key] * 1.001
    assert whole["kept"] > 0 and outside["phases"]["update"]["bytes"] > 0


def test_the_graph_after_each_stage() -> None:
    found = mlp().describe()
    traced, lifted, lowered = (stage(found, s) for s in ("as it was traced", "cse", "lower"))
    assert "adam" in {n["op"] for n in lifted} - {n["op"] for n in lowered}
    assert len(lifted) < len(traced) < len(lowered)
    inputs = {n["detail"] for n in lifted if n["op"] == "input"}
    assert {"x", "wanted", "Sequential.0.weight", "Sequential.2.bias"} <= inputs
    gelu = next(n for n in lifted if n["op"] == "gelu")
    assert (gelu["phase"], gelu["module"]) == ("forward", "Sequential.1")
    assert gelu["place"] == "loss = ((model(x) - wanted) ** 2).mean()"
    backward = [n for n in lowered if n["phase"] == "backward" and n["module"] == "Sequential.1"]
    assert backward and {n["gradient_of"] for n in backward} == {gelu["place"]}
    assert {n["place"] for n in backward} >= {"loss.backward()"}
    updates = {n["place"] for n in lowered if n["phase"] == "update"}
    assert "optimizer.step()" in updates
    assert {n["op"] for n in stage(found, "fuse")} <= {"rows", "columns", "matmul", "pack", "index"}


def test_kernels() -> None:
    step = mlp()
    found = step.describe()
    calls, sources = found["kernels"]["calls"], found["kernels"]["sources"]
    assert len([c for c in calls if c["wave"]]) == step.stats()["kernels"]
    total = sum(c["seconds"] for c in calls if c["wave"])
    assert total == pytest.approx(found["totals"]["seconds"])
    assert total == pytest.approx(sum(w["seconds"] for w in found["kernels"]["waves"]))
    assert len(sources) < len(calls) and len({s["listing"] for s in sources}) == len(sources)
    assert sum(s["calls"] for s in sources) == len(calls)
    assert all("define" in s["code"] for s in sources)
    gelu = next(c for c in calls if "gelu" in c["ops"])
    assert "for each row:" in sources[gelu["source"]]["listing"]
    assert "gelu" in {row(found, i)["op"] for i in gelu["nodes"]}
    made = {i for c in calls for i in c["writes"]}
    assert all(i in made for i, b in enumerate(found["memory"]["buffers"]) if b["role"] == "arena")


def test_no_two_buffers_share_a_place_but_one_that_takes_over_from_another() -> None:
    buffers = [b for b in mlp().describe()["memory"]["buffers"] if b["role"] == "arena"]
    assert len(buffers) > 5
    for a, b in combinations(sorted(buffers, key=lambda x: x["first"]), 2):
        apart = a["offset"] + a["bytes"] <= b["offset"] or b["offset"] + b["bytes"] <= a["offset"]
        assert apart or a["last"] <= b["first"]


def test_loops() -> None:
    found = scan().describe()
    merged = stage(found, "merge scans")
    assert [n["detail"] for n in merged if n["op"] == "scan"] == ["6 rounds", "6 rounds"]
    assert any(n["inside"] >= 0 and n["op"] == "tanh" for n in merged)
    calls = found["kernels"]["calls"]
    inside = [c for c in calls if c["loop"] >= 0]
    assert {c["times"] for c in inside} == {6}
    assert {calls[c["loop"]]["kind"] for c in inside} == {"loop"}
    known = [c["seconds"] for c in calls if c["kind"] != "loop" and c["wave"]]
    assert sum(known) == pytest.approx(found["totals"]["seconds"])
    assert found["modules"][0]["path"] == "" and len(found["modules"]) == 1


def test_refusals_name_the_kernel_that_does_it_instead() -> None:
    f = called(tx.compile(lambda x: (x * 2).sort()[0] + 1), tx.ones(4, 5))
    found = f.describe()
    refusal = next(r for r in found["kernels"]["refusals"] if "no kernel" in r["reason"])
    assert refusal["op"] == "argsort"
    assert found["kernels"]["calls"][refusal["kernel"]]["kind"] == "opaque"
    assert row(found, refusal["node"])["op"] == "argsort"


def test_the_plan_that_ran_last_is_described() -> None:
    f = tx.compile(lambda x: x.exp() + 1)
    for n in (3, 4, 3):
        f(tx.ones(n))
    assert {n["result"] for n in stage(f.describe(), "cse") if n["op"] == "exp"} == {"f32[3]"}


def test_names_of_arguments() -> None:
    def f(x: tx.Tensor, pair: Any, *rest: tx.Tensor, scale: tx.Tensor) -> tx.Tensor:
        return x + pair["a"][1] + rest[0] * scale

    g = tx.compile(f)
    one = [tx.full((3,), float(i)) for i in range(4)]
    g(one[0], {"a": [1, one[1]]}, one[2], scale=one[3])
    inputs = {n["detail"] for n in stage(g.describe(), "cse") if n["op"] == "input"}
    assert inputs == {"x", "pair['a'][1]", "rest[0]", "scale"}
    linear = tx.compile(nn.Linear(2, 3))
    linear(tx.ones(1, 2))
    inputs = {n["detail"] for n in stage(linear.describe(), "cse") if n["op"] == "input"}
    assert inputs == {"input", "Linear.weight", "Linear.bias"}


def test_names_of_what_is_kept_from_step_to_step() -> None:
    buffers = CASES["mlp"]().describe()["memory"]["buffers"]
    names = [b["name"] for b in buffers]
    assert "exp_avg of Sequential.0.weight" in names and "Adam: step" in names
    assert "a captured Tensor" not in names
    new = buffers[names.index("new exp_avg of Sequential.0.weight")]
    assert names[new["over"]] == "exp_avg of Sequential.0.weight"
    assert all(b["over"] < 0 for b in buffers if not b["name"].startswith("new "))


def test_names_of_variables() -> None:
    factor, unset = tx.ones(2), None

    def f(x: tx.Tensor) -> tx.Tensor:
        return x * factor if unset is None else later  # type: ignore[unreachable]

    compiled = called(tx.compile(f), tx.ones(2))
    later = tx.ones(2)
    names = [b["name"] for b in compiled.describe()["memory"]["buffers"]]
    assert names[:2] == ["x", "factor"] and later is not factor


def test_to_look_changes_nothing(tmp_path: Path) -> None:
    def losses(look: Callable[[Any], object]) -> list[float]:
        tx.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

        @tx.compile
        def step(x: tx.Tensor) -> tx.Tensor:
            loss = (model(x) ** 2).mean()
            loss.backward()
            with tx.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
            return loss

        found = []
        for _ in range(5):
            found.append(step(tx.ones(4, 3)).item())
            look(step)
        return found

    def everything(step: Any) -> None:
        step.describe()
        step.explore(tmp_path / "step.html")
        step.trace(tmp_path / "step.json")

    np.testing.assert_array_equal(losses(everything), losses(lambda step: None))


def test_a_page_holds_all_of_it(tmp_path: Path) -> None:
    step = mlp()
    path = step.explore(tmp_path / "a page.html")
    text = path.read_text(encoding="utf-8")
    for outside in ("http://", "https://", "src=", "@import", "url(http"):
        assert outside not in text.replace("http://www.w3.org/2000/svg", "")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    plan, code = (json.loads(zlib.decompress(b64decode(data[key]))) for key in ("plan", "code"))
    found = step.describe()
    assert code == [source["code"] for source in found["kernels"]["sources"]]
    assert plan["modules"] == json.loads(json.dumps(found["modules"]))
    assert plan["graph"]["rows"] == found["graph"]["rows"]


def test_before_the_first_call() -> None:
    f = tx.compile(lambda x: x)
    for look in (f.describe, lambda: f.explore("x.html"), lambda: f.trace("x.json")):
        with pytest.raises(tx.errors.TraceError, match="before its first call"):
            look()


def test_what_runs_as_it_is_written_has_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", "0")
    f = called(tx.compile(lambda x: x + 1), tx.ones(2))
    with pytest.raises(tx.errors.TraceError, match="runs as it is written: it has no plan"):
        f.explain()


@pytest.mark.slow
def test_the_page_of_a_large_step(tmp_path: Path) -> None:
    """W3's step, planned and not run: over 5,000 nodes in less than 3 MB."""
    table = dict(work("W3"))
    _, step = begin(table)
    inputs = outlook._ids(3, table["batch"], table["length"])
    recording = Execution(trace(step, inputs, {}), backends.target_of("cpu"))
    found = recording.describe()
    require_sound(found)
    assert found["timed"] is None and found["totals"]["nodes"] > 4000
    assert explore.save(found, tmp_path / "w3.html").stat().st_size < 3e6
