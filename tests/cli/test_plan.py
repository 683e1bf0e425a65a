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
from tinygrad_tx.training import config, outlook, works

Capture = pytest.CaptureFixture[str]
SMALL = ("model.d_model=16", "model.d_ff=32", "model.n_encoder_layers=1",
         "model.n_decoder_layers=1")  # fmt: skip


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
    every = plan(capsys, "--work", "tiny-gpt", "--all").splitlines()
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
        found = described(capsys, *given)
        assert (found["name"], found["batch"], found["length"]) == ("tiny", 8, 40)
    smaller = described(capsys, file, "--batch", "2", "--length", "10", "--vocab", "50")
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
