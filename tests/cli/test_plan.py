"""`tinygrad-tx plan`: what it prints of works and configurations, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tinygrad_tx as tx
from benchmarks import ours
from benchmarks.works import WORKS
from tinygrad_tx.backends.gpus import LAUNCH, gpu
from tinygrad_tx.cli import main
from tinygrad_tx.compiler.inspect.loads import KINDS
from tinygrad_tx.compiler.inspect.machine import Machine
from tinygrad_tx.training import calibration, config, outlook, works
from tinygrad_tx.training.forecast import forecast

Capture = pytest.CaptureFixture[str]
SMALL = ("model.d_model=16", "model.d_ff=32", "model.n_encoder_layers=1",
         "model.n_decoder_layers=1")  # fmt: skip

LEARNT = Machine(
    "a processor",
    threads=2,
    seconds=dict.fromkeys(KINDS, 0.0) | {"product": 1e-10, "launch": 2e-6},
    wave=3e-6,
    step=1e-4,
    tensor=1e-6,
    bytes=1e8,
    launch_bytes=1e4,
    making_bytes=3e7,
)


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine was measured before: nothing here does, for half a minute."""
    monkeypatch.setattr(calibration, "known", lambda: LEARNT)

    def unasked(say: object) -> Machine:
        raise AssertionError("nobody has asked for it")

    monkeypatch.setattr(calibration, "calibrate", unasked)


def plan(capsys: Capture, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main(["plan", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def described(capsys: Capture, *arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(capsys, *arguments, "--json"))
    return found


def test_a_work_in_words(capsys: Capture) -> None:
    """Titles, the slowest launches first and together, totals."""
    out = plan(capsys, "--work", "tiny-gpt", "--gpu", "h100")
    assert max(map(len, out.splitlines())) <= 140
    title, _, heads, *rows = out.splitlines()
    assert title == (
        "tiny-gpt: a step of training, a batch of 4 x 8, 3,888 parameters, bf16, on paper on "
        "NVIDIA H100 SXM"
    )
    assert heads.split() == [
        *("kernel", "ops", "result", "where", "launches", "bytes", "flop", "us", "share", "bound")
    ]
    times = [float(row.split()[-3]) for row in rows[:20]]
    assert times == sorted(times, reverse=True)
    assert rows[20].startswith("others")
    totals = outlook.of_work("tiny-gpt", precision="bf16")
    assert f"a step    {totals.launches} launches" in out and "tokens/s" in out
    assert "memory " in out and "weights 15.6kB" in out
    every = plan(capsys, "--work", "tiny-gpt", "--gpu", "h200", "--all").splitlines()
    assert len(every) > totals.launches and not any(row.startswith("others") for row in every)


def test_a_work_as_json(capsys: Capture) -> None:
    """Sums are those of the launches, times a roofline of each."""
    found = described(capsys, "--work", "tiny", "--gpu", "a100", "--precision", "tf32")
    a100, launches = gpu("a100"), found["works"]
    assert found["gpu"]["name"] == a100.name and found["gpu"]["launch"] == LAUNCH
    assert found["precision"] == "tf32" and found["tokens_per_second"] > 0
    for total in ("bytes", "flops", "seconds"):
        assert found[total] == pytest.approx(sum(w["times"] * w[total] for w in launches))
    assert found["launches"] == sum(w["times"] for w in launches)
    for w in launches:
        needs = max(w["bytes"] / a100.bandwidth, w["flops"] / a100.tf32)
        assert w["seconds"] == pytest.approx(needs + LAUNCH)
    memory = found["memory"]
    assert memory.pop("peak") == sum(memory.values())
    assert memory["weights"] == 4 * found["parameters"]
    assert {"gemm+", "attention"} <= {w["kernel"] for w in launches}


def test_a_work_is_the_step_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On paper and on the processor: the same kernels, here and in the benchmarks."""
    monkeypatch.setenv("TX_COMPILE", "interp")
    for name in ("tiny", "tiny-gpt"):
        work = WORKS[name]
        training = ours.Training(work, works.work(name)["dropout"], shared=False)
        training(next(work.batches()))
        found = outlook.of_work(name, device="cpu")
        kernels = [kernel for w in found.works for kernel in w.kernel.split(" + ")]
        assert len(kernels) == training.stats()["kernels"]
        assert found.parameters == sum(p.numel() for p in training.model.parameters())


def test_a_configuration(capsys: Capture, tmp_path: Path) -> None:
    """A preset, a file, a run directory, with changes; a full batch is what the file says."""
    file = tmp_path / "mine.toml"
    made = config.apply_overrides(config.preset("tiny"), [*SMALL, "data.max_tokens=320"])
    config.dump(made, file)
    config.dump(made, tmp_path / "config.toml")
    for given in ((file,), (tmp_path,), ("tiny", "--set", *SMALL, "data.max_tokens=320")):
        found = described(capsys, *given, "--gpu", "h200")
        assert (found["name"], found["batch"], found["length"]) == ("tiny", 8, 40)
    sizes = ("--batch", "2", "--length", "10", "--vocab", "50")
    smaller = described(capsys, file, *sizes, "--gpu", "h200")
    assert (smaller["batch"], smaller["length"]) == (2, 10)
    assert found["parameters"] - smaller["parameters"] == 16 * (2000 - 50)


def test_several_batches_a_step(capsys: Capture) -> None:
    """The first makes the gradients, the others add to them, and the last call takes the step."""
    shape = ("--batch", "2", "--length", "8")
    found = described(capsys, "tiny", "--set", *SMALL, "optim.accumulate=5", *shape)
    once = described(capsys, "tiny", "--set", *SMALL, *shape)
    assert found["accumulate"] == 5
    assert {w["times"] for w in found["works"]} == {1, 4}
    assert found["flops"] == 5 * once["flops"]
    assert found["memory"]["gradients"] >= found["memory"]["weights"]


def test_a_work_on_this_machine(capsys: Capture) -> None:
    """Times are those of the loads of launches, and what a step takes beside them; memory is the
    program's and the plan's."""
    found = described(capsys, "--work", "tiny")
    here = outlook.of_work("tiny", here=True)
    assert found["precision"] == "fp32" and found["machine"]["name"] == "a processor"
    for row, work in zip(found["works"], here.works, strict=True):
        assert work.load is not None and work.load.launches >= 1 <= work.load.tasks
        amounts = dict(zip(KINDS, work.load.amounts, strict=True))
        assert amounts["product"] == work.flops or "attention" in work.kernel
        share = -(-work.load.tasks // 2) / work.load.tasks
        busy = 1e-10 * amounts["product"] + 2e-6
        assert row["seconds"] == pytest.approx(share * busy + 3e-6 / work.load.launches)
    beside = 1e-4 + 1e-6 * here.parts[0][1].tensors
    total = beside + sum(row["times"] * row["seconds"] for row in found["works"])
    assert found["seconds"] == found["predicted"]["seconds"] == pytest.approx(total)
    own = 1e8 + 1e4 * len(here.works) + 3e7 * here.fresh
    assert found["predicted"]["peak_bytes"] == pytest.approx(own + found["memory"]["peak"])
    out = plan(capsys, "--work", "tiny")
    assert "fp32, on this machine as it was measured (a processor; 2 threads)" in out
    assert "bound" not in out and "memory    " in out and ": program 1" in out


def test_an_epoch_on_this_machine(capsys: Capture) -> None:
    """Of the batches that there are: the mean of their sizes' times."""
    few = ("data.corpus_size=60", "tokenizer.vocab_size=300", "data.max_tokens=200")
    given = ("tiny", "--set", *SMALL, *few)
    epoch = described(capsys, *given)["predicted"]["epoch"]
    assert epoch["steps"] > 1 <= epoch["shapes"] and epoch["peak_bytes"] > 1e8
    assert epoch["seconds_per_epoch"] == pytest.approx(epoch["steps"] * epoch["seconds"])
    out = plan(capsys, *given)
    assert f"an epoch  {epoch['steps']} steps in batches of {epoch['shapes']} shapes, " in out
    changes = [*given[2:], "optim.accumulate=2"]
    twice = forecast(config.apply_overrides(config.preset("tiny"), changes), LEARNT)
    assert twice.steps == -(-epoch["steps"] // 2) and twice.seconds > epoch["seconds"]
    assert "an epoch  is not known: preset char has no data" in plan(capsys, "char")


def test_a_machine_is_measured_once(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was learnt is kept, for this machine and its threads, until --calibrate; --check says
    how far off it was."""
    monkeypatch.undo()
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    asked: list[str] = []

    def measured(table: Any, cache: str = "") -> dict[str, Any]:
        asked.append(f"{table['width']} {bool(cache)}")
        load = [[1.0] * len(KINDS), 4, 1]
        samples = [[[load], [1e-3], 6e-4]]
        took = {
            "seconds": 0.02,
            "rest": 1e-3,
            "peak": 10**9,
            "threads": calibration.get_num_threads(),
        }
        return {**took, "made": bool(cache), "launches": 9, "tensors": 5, "samples": samples}

    monkeypatch.setattr(calibration, "measured", measured)
    monkeypatch.setattr(calibration, "SIZES", (("tiny", {"batch": 2}), ("tiny-gpt", {})))
    assert calibration.known() is None
    first = described(capsys, "--work", "tiny")
    measured_once = len(calibration.SIZES) + 1  # one again, whose code is there
    assert len(asked) == measured_once and asked[1] == asked[-1]
    assert [x.endswith("True") for x in asked] == [True] + [False] * (len(asked) - 1)
    assert described(capsys, "--work", "tiny") == first and len(asked) == measured_once
    described(capsys, "--work", "tiny", "--calibrate")
    assert len(asked) == 2 * measured_once
    out = plan(capsys, "--work", "tiny", "--check")
    assert "checked   a step took 20.00 ms (the prediction is" in out
    sent: list[Any] = []
    monkeypatch.setattr(calibration, "measured", lambda t: sent.append(t) or measured(t))
    plan(capsys, "--work", "tiny", "--check", "--batch", "2", "--precision", "bf16")
    assert (sent[0]["batch"], sent[0]["precision"]) == (2, "bf16"), "the same step"
    (file,) = (tmp_path / "cache").glob("machine-*.json")
    for damaged in ("", "[]", "{}", file.read_text().replace('"threads": ', '"threads": 9')):
        file.write_text(damaged)
        assert calibration.known() is None


@pytest.mark.slow
def test_memory_is_predicted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Within a tenth, after a calibration."""
    monkeypatch.undo()
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    machine = calibration.calibrate()
    assert machine.seconds["product"] > 0 and calibration.known() == machine
    for name in ("W1", "W4"):
        found = outlook.of_work(name, here=True)
        peak = found.memory_on(machine)
        assert abs(peak / calibration.measured(works.work(name))["peak"] - 1) < 0.1


@pytest.mark.parametrize("name", ["tiny-attention", "tiny-conv", "llama-tiny", "bert-tiny"])
def test_every_kind_of_model(name: str) -> None:
    small = {"batch": 2, "length": 6, "vocab": 30}
    tx.manual_seed(3)
    found = outlook.of_config(config.preset(name), **small)
    assert tx.random.get_state() == {"cpu": (3, 0)}
    assert found.flops > 0 and not found.opaque
    assert tx.get_default_device() == "cpu"
    if name == "tiny-attention":  # its recurrent layers are loops
        assert max(work.times for work in found.works) >= 5


def test_a_model_that_does_not_fit_is_said_to(capsys: Capture) -> None:
    out = plan(capsys, "tiny", "--batch", "100000", "--gpu", "4090", "--set", *SMALL)
    assert ": more than the 24.0GB of the GPU" in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "plan needs one of CONFIG and --work, such as: tinygrad-tx plan --work W1"),
        (("tiny", "--work", "W1"), "plan needs one of CONFIG and --work"),
        (("--work", "W9"), "work 'W9' is unknown: did you mean W4"),
        (("--work", "step"), "the works are W1, W2, W3, W4, W4b, tiny, tiny-gpt, tiny-gpt2, gpt2-"),
        (("--work", "W1", "--gpu", "h20"), "GPU 'h20' is unknown here: did you mean h200?"),
        (("--work", "W1", "--set", "a=b"), "--set and --vocab are for a CONFIG"),
        (("tiny", "--gpu", "h100", "--calibrate"), "are of this machine: leave out --gpu"),
        (("tiny", "--check"), "--check is for a --work; what a run took beside its plan, info"),
        (("--work", "W4", "--length", "0x"), "is no whole number"),
        (("tinny",), "unknown preset 'tinny': did you mean tiny?"),
        (("nothing.toml",), "cannot read nothing.toml: No such file"),
        ((".",), "holds no run: there is no config.toml in it"),
        (("tiny", "--set", "model.d_mdel=3"), "unknown key model.d_mdel"),
        (("char", "--length", "100"), "a length of 100, but this model has 64 positions"),
    ],
)
def test_errors(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                arguments: tuple[str, ...], said: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code: object = main(["plan", *arguments])
    except SystemExit as left:
        code = left.code
    assert code in (1, 2)
    assert said in capsys.readouterr().err.splitlines()[-1]
