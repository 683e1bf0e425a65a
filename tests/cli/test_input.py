"""What the command line is given: bytes that are no text, numbers of any size, names of any kind,
configurations that nobody would write, data without end. It works, or one line says what is
wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import SMALL, Watch, rows, small

from tinygrad_tx.backends import store as kernels
from tinygrad_tx.cli import main
from tinygrad_tx.data import cache
from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.data.files import Spooled
from tinygrad_tx.errors import UserError, brief
from tinygrad_tx.training import apply_overrides, dump, load, preset, train
from tinygrad_tx.training.schema import DecodeConfig

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    train(small("train.max_steps=1"), out, progress=Watch())
    return out


def fails(capsys: Capture, *arguments: str | Path) -> str:
    """The only line that a command says, with exit code 1."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.startswith("tinygrad-tx: ")
    return err[len("tinygrad-tx: ") : -1]


def misused(capsys: Capture, *arguments: str) -> str:
    """The last line of what argparse says, with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["train", "--out", "caf\udce9"], 3),
        (["train\udcff"], 1),
        (["translate", "--model", "x", "\udc80"], 4),
        (["train", "--set", "data.src=\udce9"], 3),
        (["attention", "--model", "x", "caf\udce9", "--png", "x.png"], 4),
        (["--help\udcff"], 1),
    ],
)
def test_bytes_that_are_no_text(capsys: Capture, arguments: list[str], number: int) -> None:
    """Python reads them as halves of characters."""
    assert fails(capsys, *arguments).startswith(f"argument {number} is not UTF-8 text: ")


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are text there")
def test_bytes_from_outside() -> None:
    command: list[str | bytes] = [sys.executable, "-m", "tinygrad_tx", "info", b"caf\xe9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = "tinygrad-tx: argument 2 is not UTF-8 text: caf\\udce9\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.parametrize("number", ["9" * 20, "9" * 5000, str(2**31), "٩" * 20])
@pytest.mark.parametrize("flag", ["--beam", "--n-best", "--top-k"])
def test_numbers_of_any_size(capsys: Capture, flag: str, number: str) -> None:
    said = misused(capsys, "translate", "--model", "x", flag, number)
    assert said.endswith(f"{flag}: {number[:40]} is too large; the most is 2147483647")


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0x10", "+3", "1_0", " 3", "nan", "²", "1e9"])
def test_what_is_no_number(capsys: Capture, text: str) -> None:
    said = misused(capsys, "translate", "--model", "x", f"--beam={text}")
    assert said.endswith(f"--beam: {text!r} is no whole number of 1 or more")


@pytest.mark.parametrize(
    "arguments",
    [["train", "--preset", ""], ["graph", "--preset", ""], ["train", "--out", ""], ["info", ""]],
)
def test_names_that_are_empty(capsys: Capture, arguments: list[str]) -> None:
    assert misused(capsys, *arguments).endswith("the name is empty")


def test_the_help_of_n_best(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["translate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "above 1: the N best translations of each line, best first, each on a line" in said
    assert "number of the input line, score and text, with tabs between" in said


def test_a_complaint_has_an_end(capsys: Capture) -> None:
    said = fails(capsys, "train", "--set", f"model.{'x' * 100_000}=1")
    assert len(said) < 6000 and said.endswith(" ...")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("TX_DEBUG", value) for value in ("abc", "5", "9" * 5000, "²")),
        *(("TX_COMPILE", value) for value in ("fast", "1", " 0")),
        *(("TX_NUM_THREADS", value) for value in ("abc", "9" * 5000, "-1", "0", "1.0")),
        *(("TX_TARGET", "zzz"), ("TX_HOST_FEATURES", "zzz")),
    ],
)
def test_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str, value: str
) -> None:
    """They are looked at before a run is begun."""
    from tinygrad_tx.backends.cpu.run import team

    monkeypatch.setattr(team, "_asked", None)
    monkeypatch.setattr(team, "get_num_threads", team._default.__wrapped__)
    monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    said = fails(capsys, "train", "--out", out, "--set", *SMALL)
    assert said.startswith(f"{name}={value[:4000]}") and not out.exists()


def test_a_cache_beside_the_data_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG_CACHE_HOME is ignored, as its specification says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TX_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert cache.location() == tmp_path / "home" / ".cache" / "tinygrad_tx" / "tokens"
    assert kernels.cache_info()[0] == tmp_path / "home" / ".cache" / "tinygrad_tx"
    assert not (tmp_path / "here").exists()


# Names of files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("src", "tgt"), [("none", " before and after "), ("a=b", "'"), ("two\nlines", "~")]
)
def test_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, src: str, tgt: str
) -> None:
    """Each is found where it was given, noted in config.toml, and found again by --resume."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"the dog sees {i} cats .\n" for i in range(20))
    try:
        for name in (src, tgt):
            Path(name).write_text(lines)
    except OSError:
        pytest.skip("no name for a file here")
    settings = ["--set", *SMALL, "train.max_steps=1"]
    assert main(["train", f"--src={src}", f"--tgt={tgt}", "--out=run", *settings]) == 0
    found = load("run/config.toml").data
    assert (found.src, found.tgt) == (str(tmp_path / src), str(tmp_path / tgt))
    monkeypatch.chdir("/")
    run = str(tmp_path / "run")
    assert main(["train", "--resume", "--out", run, "--max-steps", "2"]) == 0
    assert rows(tmp_path / "run")[-1]["step"] == 2


def test_a_file_called_none_in_a_configuration(tmp_path: Path) -> None:
    """There "none" means that there is no file: "./none" is that one."""
    config = apply_overrides(preset("multi30k"), ["data.src=./none", "data.tgt= tgt "])
    dump(config, tmp_path / "c.toml")
    assert load(tmp_path / "c.toml").data.src == "./none"
    assert load(tmp_path / "c.toml").data.tgt == " tgt "


def test_a_checkpoint_from_where_it_lies(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "in").write_text("the dog\n")
    monkeypatch.chdir(made / "checkpoints")
    for name in ("step-00000001.safetensors", "./step-00000001.safetensors", "."):
        code = main(["translate", "--model", name, str(tmp_path / "in")])
        assert code == 0, capsys.readouterr().err
    assert len(capsys.readouterr().out.splitlines()) == 3


# Configurations ----------------------------------------------------------------------------------

HEX = "0x" + "f" * 4000  # Python reads it, but does not write it in decimal


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = " + "[" * 50_000, "it is nested too deep"),
        ("x = " + "{a=" * 10_000, "it is nested too deep"),
        (
            "[model]\nd_model = " + "[" * 99 + "]" * 99,
            "model.d_model is [[[[[[[...]]]]]]]; it must",
        ),
        ("[model]\nd_model = " + "9" * 5000, "it is not TOML: Exceeds the limit"),
        ("[model]\nd_model = " + "9" * 4000, "model.d_model is a number of 13288 bits; it must be"),
        (f"[model]\nd_model = {HEX}", "model.d_model is a number of 16000 bits; it must be"),
        (f"[model]\nd_model = [{HEX}]", "model.d_model is [a number of 16000 bits]; it must be"),
        (f"[optim]\nlr = {HEX}", "optim.lr is a number of 16000 bits; it must be a number"),
        (f"preset = {HEX}", "preset is a number of 16000 bits; it must be one of"),
        (f"format = {HEX}", "is of format a number of 16000 bits; this version"),
        ("format = 0", "0 is no number of a format"),
        ("format = 1979-05-27", "datetime.date(1979, 5, 27) is no number of a format"),
        (
            "[decode]\nbeam_size = 4611686018427387904",
            "decode.beam_size is 4611686018427387904; it",
        ),
        ("[decode]\nmax_extra_tokens = 1099511627776", "it must be at least 0 and at most 1048576"),
        ("a." * 40_000 + "b = 1", "65536 bytes and more are no configuration"),
        ("\0" * 9, "it is not TOML"),
    ],
)
def test_configurations(tmp_path: Path, capsys: Capture, text: str, says: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    assert says in fails(capsys, "train", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    shutil.copytree(path.parent, tmp_path / "run", ignore=lambda *_: {"run"})
    (tmp_path / "run" / "c.toml").rename(tmp_path / "run" / "config.toml")
    fails(capsys, "info", tmp_path / "run")
    fails(capsys, "train", "--resume", "--out", tmp_path / "run")


def test_a_configuration_without_end(capsys: Capture) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero")
    assert "are no configuration" in fails(capsys, "train", "/dev/zero")


def test_values_are_shown_in_a_few_words() -> None:
    assert brief(-7) == "-7" and brief(2**62) == str(2**62) and brief(True) == "True"
    assert brief(-(10**5000)) == "a number of 16610 bits"
    assert len(brief("x" * 10_000)) < 250 and len(brief([[1] * 99] * 99)) < 250


def test_the_built_in_corpus_has_an_end(capsys: Capture, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4000001 pairs of the built-in corpus are too many"):
        grammar.pairs("train", 4_000_001)
    for key in ("corpus_size", "valid_size"):
        flags = ["--set", f"data.{key}={2**62}", "data.corpus_size=9"][: 3 if "v" in key else 2]
        said = fails(capsys, "train", "--out", tmp_path / "run", *flags)
        assert said.startswith(f"{2**62} pairs of the built-in corpus are too many: the most is ")


def test_searches_that_no_memory_holds() -> None:
    """They are known before training, not after it."""
    for key, most in (("beam_size", 1024), ("max_extra_tokens", 2**20)):
        with pytest.raises(UserError, match=f"decode.{key} is .*; it must be .* at most {most}"):
            DecodeConfig(**{key: 2**62})


# Data without end --------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_devices_without_end(tmp_path: Path, capsys: Capture) -> None:
    """They are no lines: nothing is copied to the disk until it is full."""
    (tmp_path / "tgt").write_text("x\n")
    flags = ["--out", tmp_path / "run", "--tgt", tmp_path / "tgt"]
    assert "line 1: more than 1,000,000 characters" in fails(
        capsys, "train", "--src", "/dev/zero", *flags
    )
    assert "not valid UTF-8" in fails(capsys, "train", "--src", "/dev/urandom", *flags)
    with pytest.raises(UserError, match="/dev/zero, line 1: more than"):
        Spooled("/dev/zero")


@pytest.mark.parametrize("prefix", ["", "valid_"])
def test_flags_replace_the_other_form_in_a_file(tmp_path: Path, prefix: str) -> None:
    from tinygrad_tx.cli.train import COMMAND, _with_flags
    from tinygrad_tx.training import config as configs

    files = {name: tmp_path / name for name in ("a.tsv", "src", "tgt")}
    for path in files.values():
        path.write_text("one\ttwo\n")
    parser = argparse.ArgumentParser()
    COMMAND.arguments(parser)
    parser.set_defaults(seed=None)
    settings = tmp_path / "x.toml"
    settings.write_text(
        f'preset = "tiny"\n[data]\ncorpus = "files"\ntsv = "{files["a.tsv"]}"\n'
        + (f'{prefix}tsv = "{files["a.tsv"]}"\n' if prefix else "")
    )
    flag = "--" + prefix.replace("_", "-")
    args = parser.parse_args([f"{flag}src", str(files["src"]), f"{flag}tgt", str(files["tgt"])])
    data = _with_flags(configs.load(settings), args).data
    assert getattr(data, f"{prefix}tsv") is None
    assert getattr(data, f"{prefix}src") == str(files["src"].resolve())
