"""Models of language on the command line: train, resume, evaluate, generate, embed, --init."""

from __future__ import annotations

import io
import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_runs import rows

import tinygrad_tx as tx
from tinygrad_tx.cli import main
from tinygrad_tx.training import preset
from tinygrad_tx.training.config import apply_overrides
from tinygrad_tx.training.texts import load_texts

TEXT = "".join(f"{i} times the dog sees a cat.\n" for i in range(120))
FEW = [
    *("train.max_steps=4", "train.valid_every=2", "train.checkpoint_every=1"),
    *("train.log_every=2", "data.max_len=16", "data.max_tokens=64", "train.compile=false"),
]
GPT = ["model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.block_size=16"]
LLAMA = ["model.d_model=8", "model.n_layers=1", "model.n_heads=4", "model.d_ff=16"]
BERT = ["model.d_model=8", "model.n_layers=1", "model.n_heads=2", "model.d_ff=16"]
BPE = ["tokenizer.vocab_size=280"]


STAGES = ("learning the vocabulary", "making token ids")  # told, unless they are found in the cache


def run(*args: object) -> None:
    assert main([str(arg) for arg in args]) == 0


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([str(arg) for arg in args]) == 1
    *_, said = lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("tinygrad-tx: ") for line in lines].count(True) == 1
    assert all(line.startswith(STAGES) for line in lines[:-1])
    return said


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "input.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("task", "flags", "settings"),
    [
        ("lm", [], GPT),
        ("lm", ["--preset", "llama-tiny"], [*LLAMA, *BPE]),
        ("mlm", [], [*BERT, *BPE]),
    ],
    ids=["char", "llama-tiny", "bert-tiny"],
)
def test_a_run(
    task: str,
    flags: list[str],
    settings: list[str],
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    run("train", "--task", task, *flags, "--text", text, "--out", whole, "--set", *FEW, *settings)
    said = capsys.readouterr().out
    assert "held-out tokens" in said and "perplexity" in said
    assert (whole / "samples.txt").read_text().strip() in said

    shutil.copytree(whole, half)
    (half / "checkpoints" / "step-00000004.safetensors").unlink()
    run("train", "--resume", "--out", half)
    assert rows(half) == rows(whole)
    model, tokenizer = tx.models.load(whole)
    again, _ = tx.models.load(half)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy())
    capsys.readouterr()

    (tmp_path / "test.txt").write_text(TEXT[:300])
    run("evaluate", "--model", whole, "--text", tmp_path / "test.txt", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    if task == "lm":
        assert found["tokens"] == len(tokenizer.encode(TEXT[:300])) - 1
        bits = found["loss"] * found["tokens"] / np.log(2) / 300
        assert found["bits_per_byte"] == pytest.approx(bits)
    run("info", whole)
    assert str(text) in capsys.readouterr().out
    run("average", whole, "--last", 2)
    run("graph", "--model", whole, "--out", tmp_path / "graph.dot")


def test_generate(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    run("train", "--task", "lm", "--text", text, "--out", out, "--set", *FEW, *GPT)
    capsys.readouterr()
    run("attention", "--model", out, "7 times", "--out", str(tmp_path / "heads.svg"))
    assert "head 1" in (tmp_path / "heads.svg").read_text(encoding="utf-8")
    run("check", out)
    capsys.readouterr()
    asked = ["generate", "--model", out, "--prompt", "7 times"]

    def said(*more: object) -> str:
        run(*asked, *more)
        return capsys.readouterr().out

    greedy = said("--max-new-tokens", 5)
    assert len(greedy) == 6 and greedy[-1] == "\n"
    model, tokenizer = tx.models.load(out)
    [[wanted]] = tx.decoding.generate(model, [tokenizer.encode("7 times")], max_new_tokens=5)
    assert greedy == tokenizer.decode(wanted.tokens) + "\n"
    assert said("--max-new-tokens", 5, "--stream") == greedy
    beyond = said("--max-new-tokens", 40)  # the model has 16 positions
    assert beyond.startswith(greedy[:-1]) and len(beyond) == 41
    drawn = [said("--sample", "--seed", seed, "--max-new-tokens", 9) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    until = greedy[: greedy.index(greedy[2:4])]
    assert said("--max-new-tokens", 5, "--stop", greedy[2:4]) == until + "\n"

    assert "go with --sample" in fails(capsys, *asked, "--top-k", 3)
    assert "an empty prompt" in fails(capsys, "generate", "--model", out, "--prompt", "")
    assert "does not translate" in fails(capsys, "translate", "--model", out, text)


def test_embed(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bert"
    run("train", "--task", "mlm", "--text", text, "--out", out, "--set", *FEW, *BERT, *BPE)
    capsys.readouterr()
    run("attention", "--model", out, "7 times", "--rollout", "--out", str(tmp_path / "heads.svg"))
    run("check", out)
    capsys.readouterr()
    said = fails(capsys, "generate", "--model", out, "--prompt", "x")
    assert "BERT, which does not go on with texts" in said

    (tmp_path / "lines").write_text("the dog\n\na cat sees the dog and the cat\n")
    run("embed", "--model", out, tmp_path / "lines")
    vectors = np.loadtxt(capsys.readouterr().out.splitlines())
    assert vectors.shape == (3, 8)
    np.testing.assert_allclose((vectors**2).sum(1), [1, 0, 1], rtol=1e-5)  # no token, no vector
    model, tokenizer = tx.models.load(out)
    hidden = model(tx.tensor([tokenizer.encode("the dog")])).numpy()[0].mean(0)
    np.testing.assert_allclose(vectors[0], hidden / np.linalg.norm(hidden), rtol=1e-4, atol=1e-5)


def test_init(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a run, and from a pretrained directory: the weights and the vocabulary are kept."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    run(
        "train",
        "--task",
        "lm",
        "--text",
        text,
        "--out",
        first,
        "--set",
        *FEW,
        *GPT,
        "model.bias=true",
    )
    other = tmp_path / "other.txt"
    other.write_text("a cat sees 7 dogs.\n" * 60)
    run("train", "--init", first, "--text", other, "--out", second, "--max-steps", 2)
    assert (second / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert rows(second)[-1]["valid_loss"] < 4
    before, tokenizer = tx.models.load(first)
    before.save_pretrained(tmp_path / "saved", tokenizer)
    run("train", "--init", tmp_path / "saved", "--text", other, "--out", third, "--max-steps", 1,
        "--set", "optim.lr=1e-12", "data.max_len=16", "data.max_tokens=64")  # fmt: skip
    after, own = tx.models.load(third)
    assert own.encode("7 dogs", special=False) == tokenizer.encode("7 dogs")
    shutil.rmtree(third / "checkpoints")  # as if killed before the first one
    (third / "metrics.jsonl").unlink()
    run("train", "--resume", "--out", third)
    for model in (after, tx.models.load(third)[0]):
        for name, value in before.state_dict().items():
            np.testing.assert_allclose(model.state_dict()[name].numpy(), value.numpy(), atol=1e-6)
    run("train", "--resume", "--out", third, "--max-steps", 2)
    capsys.readouterr()
    run("generate", "--model", third, "--prompt", "7 dogs", "--max-new-tokens", 4)
    said = capsys.readouterr().out
    assert len(said) <= 5 and "<" not in said
    said = fails(capsys, "train", "--init", first, "--resume", "--out", third)
    assert "--init is for a new run" in said


def test_tables(tmp_path: Path) -> None:
    documents, pairs = tmp_path / "documents.jsonl", tmp_path / "pairs.jsonl"
    documents.write_text(
        "".join(json.dumps({"n": i, "text": f"{i} dogs see a cat."}) + "\n" for i in range(60))
    )
    run("train", "--task", "lm", "--text", documents, "--out", tmp_path / "lm", "--set", *FEW, *GPT)
    model, tokenizer = tx.models.load(tmp_path / "lm")
    assert model.config.eos_id == tokenizer.eos_id
    pairs.write_text(
        "".join(
            json.dumps({"translation": {"en": f"{i} dogs", "es": f"{i} perros"}}) + "\n"
            for i in range(60)
        )
    )
    small = ["model.d_model=8", "model.n_heads=2", "model.d_ff=16", "train.max_steps=1"]
    run("train", "--tsv", pairs, "--columns", "en,es", "--out", tmp_path / "mt", "--set", *small,
        "tokenizer.kind=word", "train.compile=false")  # fmt: skip
    assert "perros" in (tmp_path / "mt" / "tokenizer.json").read_text()


def test_what_is_wrong(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(*args: object) -> str:
        return fails(capsys, "train", "--out", tmp_path / "run", *args)

    assert "has no data of its own: give --text FILE" in wrong("--task", "lm")
    assert "whose task is translate" in wrong("--task", "lm", "--preset", "tiny")
    assert "data.text is for models of language" in wrong("--text", text)
    assert "exclude each other" in wrong("--task", "lm", "--text", text, "--tsv", text)
    (tmp_path / "short.txt").write_text("ab")
    said = wrong("--task", "lm", "--text", tmp_path / "short.txt")
    assert "too short for one window of 64" in said
    (tmp_path / "empty.txt").write_text("")
    assert "is empty" in wrong("--task", "lm", "--text", tmp_path / "empty.txt")
    (tmp_path / "bytes.txt").write_bytes(b"abc \xff def" * 50)
    assert "not valid UTF-8" in wrong("--task", "lm", "--text", tmp_path / "bytes.txt")
    assert "no such" in wrong("--task", "lm", "--text", tmp_path / "none.txt").lower()
    said = wrong("--task", "lm", "--text", text, "--set", "data.max_len=65", "data.max_tokens=99")
    assert "only 64 positions; lower data.max_len" in said
    assert not (tmp_path / "run").exists()


def test_presets_are_of_their_task() -> None:
    assert preset("char").model.task == preset("llama-tiny").model.task == "lm"
    assert preset("bert-tiny").model.task == "mlm" and preset("tiny").model.task == "translate"


def test_a_bert_keeps_its_mask_where_it_is_saved(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, saved = tmp_path / "bert", tmp_path / "saved"
    run("train", "--task", "mlm", "--text", text, "--out", out, "--set", *FEW, *BERT, *BPE)
    model, tokenizer = tx.models.load(out)
    model.save_pretrained(saved, tokenizer)
    _, again = tx.models.load(saved)
    assert again.mask_id == model.config.mask_id
    assert again.encode("the dog [MASK]", special=False)[-1] == model.config.mask_id
    capsys.readouterr()
    run("evaluate", "--model", saved, "--text", text, "--json")
    assert json.loads(capsys.readouterr().out)["loss"] > 0
    run("train", "--init", saved, "--text", text, "--out", tmp_path / "on", "--max-steps", 1,
        "--set", "data.max_len=16", "data.max_tokens=64", "train.compile=false")  # fmt: skip

    headless = tx.models.BERT(replace(model.config, mlm=False))
    headless.save_pretrained(tmp_path / "headless", tokenizer)
    capsys.readouterr()
    for command in (
        ("evaluate", "--model", tmp_path / "headless", "--text", text),
        ("graph", "--model", tmp_path / "headless", "--out", tmp_path / "graph.dot"),
    ):
        assert "no head for masked words" in fails(capsys, *command)
    new = tmp_path / "new"
    said = fails(capsys, "train", "--init", tmp_path / "headless", "--text", text, "--out", new)
    assert "without a head for masked words" in said and not new.exists()


def test_going_on_with_other_data(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the first run's files is left, and what does not fit is named."""
    first, table = tmp_path / "first", tmp_path / "docs.jsonl"
    table.write_text("".join(json.dumps({"body": f"{i} dogs"}) + "\n" for i in range(60)))
    run("train", "--task", "lm", "--text", table, "--columns", "body", "--valid-text", table,
        "--out", first, "--set", *FEW, *GPT, "tokenizer.vocab_size=300")  # fmt: skip
    second = tmp_path / "second"
    run("train", "--init", first, "--text", text, "--out", second, "--max-steps", 1)
    config = tomllib.loads((second / "config.toml").read_text())
    assert config["data"]["valid_text"] == config["data"]["columns"] == "none"
    capsys.readouterr()
    third = ("train", "--init", first, "--out", tmp_path / "third")
    said = fails(capsys, *third, "--src", text, "--tgt", text)
    assert "--src, but" in said and "is a gpt, whose task is lm; give it --text FILE" in said
    said = fails(capsys, *third, "--text", text, "--set", "tokenizer.kind=bpe")
    assert "--init keeps the tokenizer" in said
    said = fails(capsys, *third, "--text", text, "--valid-tsv", text)
    assert "--valid-src is not for a gpt" in said
    assert "has no columns" in fails(capsys, *third, "--text", text, "--columns", "body")


def test_texts_that_are_none(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    lm = ("train", "--task", "lm", "--out", out, "--set", *FEW, *GPT, "--text")
    (tmp_path / "half.jsonl").write_text('{"text":"ab \\ud800 cd"}\n' * 40)
    assert "record 1: column 'text' has half of a surr" in fails(
        capsys, *lm, tmp_path / "half.jsonl"
    )
    (tmp_path / "one.txt").write_text("a")
    said = fails(capsys, *lm, text, "--valid-text", tmp_path / "one.txt")
    assert "the held-out text has 1 tokens, too few to be measured" in said and not out.exists()
    run(*lm, text)
    capsys.readouterr()
    bad = io.TextIOWrapper(io.BytesIO(b"ab \xff"), "utf-8")
    monkeypatch.setattr("sys.stdin", bad)
    said = fails(capsys, "generate", "--model", out, "--prompt", "-")
    assert "standard input" in said
    long = "7 times the dog sees a cat."  # more than 16 positions: it goes on from the last of them
    run("generate", "--model", out, "--prompt", long, "--max-new-tokens", 3)
    assert len(capsys.readouterr().out) == 4
    said = fails(capsys, "evaluate", "--model", out, "--text", text, "--beam", 2)
    assert "go with --src and --ref" in said


def test_another_format_is_another_text(tmp_path: Path) -> None:
    """The same bytes, by another name."""
    lines = "".join(json.dumps({"text": f"hello world {i}"}) + "\n" for i in range(60))
    sizes = []
    for name in ("k.csv", "k.jsonl"):
        (tmp_path / name).write_text(lines)
        config = replace(preset("char").data, text=str(tmp_path / name))
        found = load_texts(replace(preset("char"), data=config), None)
        sizes.append(len(found.train.ids))
    assert sizes[0] != sizes[1]


def test_another_kind_of_model_begins_small() -> None:
    for kind in ("llama", "gpt", "bert"):
        model = apply_overrides(preset("char"), [f"model.kind={kind}"]).model.of_model()
        assert model.d_model <= 256


def test_a_part_of_a_long_text_is_measured(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, part = tmp_path / "run", tmp_path / "part"
    run("train", "--task", "lm", "--text", text, "--valid-text", text, "--out", out, "--set", *FEW,
        *GPT)  # fmt: skip
    whole = rows(out)[-1]
    run("train", "--task", "lm", "--text", text, "--valid-text", text, "--out", part, "--set", *FEW,
        *GPT, "data.valid_tokens=600")  # fmt: skip
    some = rows(part)[-1]
    assert some["valid_loss"] != whole["valid_loss"]
    assert some["bits_per_byte"] == pytest.approx(some["valid_loss"] / np.log(2), rel=0.05)
    assert "640 held-out tokens" in capsys.readouterr().out
