"""The command line on device "cuda": each task is trained to the CPU's losses, dropout and all; a
run is resumed to the bit, or on the other device; each command says what it says on the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from device_case import DEVICES
from training_runs import SMALL, rows

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.cli.program import main

pytestmark = pytest.mark.gpu
FEW = [
    *("train.log_every=1", "train.valid_every=4", "train.checkpoint_every=2", "train.keep_last=9"),
    *("train.compile=false", "train.valid_bleu=false", "train.valid_sentences=3"),
    "decode.max_extra_tokens=2",
]
PAIRS = ["data.corpus_size=80", "data.valid_size=6", "data.max_tokens=120", *FEW]
TEXT = [*FEW, "data.max_len=16", "data.max_tokens=64", "data.valid_tokens=64"]
WIDE = ["model.d_model=16", "model.n_heads=2", "model.d_ff=24"]


class Run(NamedTuple):
    """A run: flags, settings, and how many steps of it; slow: it is left to `.ci/full`."""

    flags: list[str]
    settings: list[str]
    steps: int = 4
    slow: bool = False


RUNS = {
    "transformer": Run(
        [],
        [*(s for s in SMALL if not s.startswith(("train", "decode"))), *FEW, "model.dropout=0.2",
         "model.attention_dropout=0.1", "model.activation_dropout=0.1", "optim.ema_decay=0.9",
         "train.valid_every=10", "train.checkpoint_every=10"],
        steps=20,
    ),
    "seq2seq": Run(
        [], [*PAIRS, "model.kind=seq2seq", "model.d_model=8", "model.dropout=0.2",
             "optim.accumulate=2"],
        slow=True,
    ),
    "convs2s": Run(
        [], [*PAIRS, "model.kind=convs2s", "model.d_model=8", "model.n_layers=1"], slow=True
    ),
    "t5": Run([], [*PAIRS, *WIDE, "model.kind=t5", "model.n_layers=1", "optim.name=adamw"],
              slow=True),
    "gpt": Run(
        ["--task", "lm"],
        [*TEXT, "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16",
         "model.dropout=0.2"],
    ),
    "llama": Run(
        ["--task", "lm", "--preset", "llama-tiny"],
        [*TEXT, *WIDE, "model.n_layers=1", "model.dropout=0.1", "tokenizer.vocab_size=280"],
        slow=True,
    ),
    "bert": Run(
        ["--task", "mlm"],
        [*TEXT, *WIDE, "model.n_layers=1", "tokenizer.vocab_size=280"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets the default device. On the CPU there is nothing to compile: the runs
    are small."""
    monkeypatch.setenv("TX_COMPILE", "0")
    yield
    tx.set_default_device("cpu")


def kinds(*names: str) -> list[Any]:
    return [pytest.param(n, marks=[pytest.mark.slow] * RUNS[n].slow) for n in names]


def run(*args: object) -> None:
    assert main([str(arg) for arg in args]) == 0


def train(kind: str, device: str, folder: Path, *changes: str) -> Path:
    """The directory of a run on a device."""
    text, out = folder / "input.txt", folder / device
    text.write_text("".join(f"{i} times the dog sees a cat.\n" for i in range(120)))
    flags, settings, steps, _ = RUNS[kind]
    more = ["--text", text] if "--task" in flags else []
    run("train", *flags, *more, "--device", device, "--out", out, "--max-steps", steps,
        "--set", *settings, *changes)  # fmt: skip
    return out


def close(one: Path, other: Path) -> None:
    """What two runs have measured is equal to 1e-5."""
    here, there = rows(one), rows(other)
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if isinstance(value, float):
                assert b[name] == pytest.approx(value, rel=1e-5, abs=1e-6), (name, a, b)
            else:
                assert b[name] == value


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", kinds(*RUNS))
def test_losses(kind: str, tmp_path: Path) -> None:
    close(*(train(kind, device, tmp_path) for device in DEVICES))


@pytest.mark.parametrize("kind", kinds("seq2seq", "gpt"))
def test_a_run_is_resumed(kind: str, tmp_path: Path) -> None:
    """On the device to the bit; what was begun on one goes on on the other to 1e-5."""
    whole, cpu = train(kind, "cuda", tmp_path), train(kind, "cpu", tmp_path)
    for of, then in ((whole, "cuda"), (whole, "cpu"), (cpu, "cuda")):
        half = tmp_path / "half"
        shutil.copytree(of, half)
        (half / "checkpoints" / "step-00000004.safetensors").unlink()
        run("train", "--resume", "--device", then, "--out", half)
        if (of, then) == (whole, "cuda"):
            assert rows(half) == rows(whole)
            a, b = (tx.load(path / "model.safetensors") for path in (half, whole))
            for name, value in a.items():
                np.testing.assert_array_equal(value.numpy(), b[name].numpy(), err_msg=name)
        close(of, half)
        shutil.rmtree(half)


def said(capsys: Any, *args: object) -> list[str]:
    """What a command prints; on each device the same, numbers to 1e-5."""
    found = []
    for device in DEVICES:
        capsys.readouterr()
        run(args[0], "--device", device, *args[1:])
        found.append(capsys.readouterr().out)
    for here, there in zip(*(text.split() for text in found), strict=True):
        if here != there:
            assert float(there) == pytest.approx(float(here), rel=1e-4, abs=1e-5)
    return found[1].splitlines()


@pytest.mark.slow
def test_compiled_steps_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eager = train("gpt", "cuda", tmp_path)
    eager.rename(tmp_path / "eager")
    monkeypatch.delenv("TX_COMPILE")
    close(tmp_path / "eager", train("gpt", "cuda", tmp_path, "train.compile=true"))


@pytest.mark.slow
def test_commands(tmp_path: Path, capsys: Any) -> None:
    # Without dropout, which attention has inside on a GPU: the graphs are the same.
    model = ["--model", train("t5", "cuda", tmp_path, "model.dropout=0")]
    lines, graph = tmp_path / "lines", tmp_path / "graph.dot"
    lines.write_text("the dog\na cat\n")
    assert len(said(capsys, "translate", *model, "--beam", "2", lines)) == 2
    assert said(capsys, "evaluate", *model, "--src", lines, "--ref", lines)
    run("average", "--device", "cuda", model[1], "--last", 2)
    found = []
    for device in DEVICES:
        run("graph", "--device", device, *model, "--out", graph)
        found.append(graph.read_text())
        if find_spec("matplotlib"):
            picture = tmp_path / f"{device}.png"
            run("attention", "--device", device, *model, "the dog", "--png", picture)
            assert picture.read_bytes().startswith(b"\x89PNG")
    assert found[0] == found[1]


def test_commands_of_language(tmp_path: Path, capsys: Any) -> None:
    model, text = ["--model", train("gpt", "cuda", tmp_path)], tmp_path / "input.txt"
    asked = ["generate", *model, "--prompt", "7 times", "--max-new-tokens", 20]
    assert said(capsys, *asked)
    assert said(capsys, *asked, "--stream", "--sample", "--top-p", "0.9", "--seed", 1)
    assert said(capsys, "evaluate", *model, "--text", text)
    shutil.rmtree(model[1])
    model = ["--model", train("bert", "cuda", tmp_path)]
    assert said(capsys, "evaluate", *model, "--text", text)
    assert len(said(capsys, "embed", *model, text)) == 120
