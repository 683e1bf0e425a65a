"""The command line: what each command prints, and one line and exit code 1 for bad input."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from training_runs import SMALL, rows

from tinygrad_tx.cli import main
from tinygrad_tx.cli.program import COMMANDS
from tinygrad_tx.models import Transformer

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
Capture = pytest.CaptureFixture[str]


def train(*arguments: str | Path) -> int:
    small = [o for o in SMALL if "--max-steps" not in arguments or "max_steps" not in o]
    return main(["train", *map(str, arguments), "--set", *small])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run, with pairs from files."""
    root = tmp_path_factory.mktemp("cli")
    pairs = [(f"the dog sees {n} cats .", f"el perro ve {n} gatos .") for n in range(40)]
    (root / "src").write_text("".join(f"{a}\n" for a, _ in pairs))
    (root / "tgt").write_text("".join(f"{b}\n" for _, b in pairs))
    files = ("--src", root / "src", "--tgt", root / "tgt")
    assert train(*files, "--out", root / "run", "--seed", "3") == 0
    return root / "run"


def fails(capsys: Capture, *arguments: str | Path) -> str:
    """The line that a command fails with."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    *before, last = err.splitlines()
    assert last.startswith("tinygrad-tx: ")
    assert not out and not [line for line in before if "Traceback" in line]
    return last.removeprefix("tinygrad-tx: ")


# Around the commands -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [c.name for c in COMMANDS])
def test_help_shows_examples(capsys: Capture, command: str) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert f"examples:\n  tinygrad-tx {command}" in out
    assert "--device {cpu,cuda}" in out and "--seed N" in out


def test_usage(capsys: Capture) -> None:
    for arguments, code in (
        (["--version"], 0),
        ([], 2),
        (["trian"], 2),
        (["translate"], 2),
        (["train", "--max-steps", "0"], 2),
        (["average", "runs/x"], 2),
        (["doctor", "--device", "tpu"], 2),
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == code, arguments
    assert "usage: tinygrad-tx" in capsys.readouterr().err


def test_help_is_quick_to_load() -> None:
    """The commands import what they need when they run."""
    code = (
        "import sys; from tinygrad_tx.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tokenizers', 'sacrebleu', 'rich', 'matplotlib', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


# train -------------------------------------------------------------------------------------------


def test_train(run: Path, capsys: Capture, tmp_path: Path) -> None:
    limits = ("--max-minutes", "9", "--max-steps", "2")
    assert train("--out", tmp_path / "run", *limits, "--set", "train.seed=5") == 0
    out, err = capsys.readouterr()
    assert "120 pairs" in err and "step      2  loss" in err and "valid loss" in err
    assert "\nreference  " in out and "3 held-out sentences" in out and "BLEU " in out
    assert out.endswith(f"  tinygrad-tx translate --model {tmp_path / 'run'}\n")
    config = (tmp_path / "run" / "config.toml").read_text()
    assert "max_steps = 2" in config and "max_minutes = 9.0" in config and "seed = 5" in config
    config = (run / "config.toml").read_text()
    assert f'src = "{run.parent / "src"}"' in config and "seed = 3" in config
    assert 'corpus = "files"' in config


@pytest.mark.slow
def test_precision(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """A run's is in its configuration; other commands are told."""
    assert train("--out", tmp_path / "run", "--precision", "bf16", "--max-steps", "1") == 0
    assert 'precision = "bf16"' in (tmp_path / "run" / "config.toml").read_text()
    (tmp_path / "text").write_text("the dog sees 3 cats .\n")
    capsys.readouterr()
    found = []
    for precision in ("fp32", "bf16", "fp16"):
        command = ["translate", "--model", str(run), "--n-best", "2", "--precision", precision]
        assert main([*command, str(tmp_path / "text")]) == 0
        found.append([float(line.split("\t")[1]) for line in capsys.readouterr().out.splitlines()])
    assert found[0] != found[1] != found[2] and found[0] == pytest.approx(found[1], rel=0.05)
    for command in ("train", "translate", "evaluate", "embed"):
        model = [] if command == "train" else ["--model", str(run)]
        said = fails(capsys, command, *model, "--precision", "tf32")
        assert said.startswith(
            "precision tf32: products on cpu are not computed in it; choose fp32"
        )


def test_where_a_run_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("".join(f"a {n}\tb {n}\n" for n in range(30)))
    (tmp_path / "my.toml").write_text('preset = "multi30k"\n[data]\ntsv = "pairs.tsv"\n')
    assert train("my.toml", "--max-steps", "1") == 0
    [found] = (tmp_path / "runs").iterdir()
    assert found.name.startswith("multi30k-20")
    assert f'tsv = "{tmp_path}/pairs.tsv"' in (found / "config.toml").read_text()


def test_resume(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """By the same command line with --resume, or by --resume and --out alone."""
    out = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.copytree(run, tmp_path / "other")
    parent = run.parent
    for file in ("tokenizer.json", "model.safetensors"):
        (out / file).unlink()
    shutil.copy(run / "tokenizer.json", out)
    (out / "checkpoints" / "step-00000008.safetensors").unlink()
    files = ("--src", parent / "src", "--tgt", parent / "tgt")
    assert train(*files, "--out", out, "--seed", "3", "--resume") == 0
    assert "going on from" in capsys.readouterr().err
    assert rows(out) == rows(run)
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert main(["train", "--resume", "--out", str(tmp_path / "other"), "--max-steps", "9"]) == 0
    assert rows(tmp_path / "other")[-1]["step"] == 9


def test_train_refuses(run: Path, tmp_path: Path, capsys: Capture) -> None:
    out = ("--out", tmp_path / "out")
    src, tgt = run.parent / "src", run.parent / "tgt"
    assert "holds a run already" in fails(capsys, "train", "--out", run)
    assert "--resume needs --out DIR" in fails(capsys, "train", "--resume")
    assert "holds no run" in fails(capsys, "train", "--resume", *out)
    assert "was begun with preset tiny, not base" in fails(
        capsys, "train", "--resume", "--out", run, "--preset", "base"
    )
    assert "model.d_model was 16" in fails(
        capsys, "train", "--resume", "--out", run, "--set", "model.d_model=32"
    )
    assert "unknown preset 'tniy': did you mean tiny?" in fails(capsys, "train", "--preset", "tniy")
    assert "did you mean model.d_model?" in fails(capsys, "train", "--set", "model.dmodel=3")
    assert "give --src FILE --tgt FILE, or --tsv FILE" in fails(
        capsys, "train", "--preset", "multi30k", *out
    )
    assert fails(capsys, "train", "--src", src, "--tgt", tgt, "--tsv", src) == (
        "--tsv and --src, --tgt exclude each other: give one kind"
    )
    assert "--valid-src and --valid-tgt go together" in fails(capsys, "train", "--valid-src", src)
    assert "--preset tiny and my.toml exclude each other" in fails(
        capsys, "train", "my.toml", "--preset", "tiny"
    )
    assert "cannot read my.toml: No such file" in fails(capsys, "train", "my.toml")
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_used(run: Path, tmp_path: Path, capsys: Capture) -> None:
    good = run.parent / "src"
    contents = {
        "short": b"one line\n",
        "empty": b"",
        "latin": b"a\nol\xe9\n" + 38 * b"a\n",
        "long": b"a\n" * 39 + b"x " * 50_000,
        "torn.gz": b"\x1f\x8b\x08\x00 nothing",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    said = {
        "absent": "cannot read",
        "short": "line i of one must translate line i of the other",
        "empty": "is empty",
        "latin": "line 2: not valid UTF-8",
        "long": "line 40: 100,000 characters",
        "torn.gz": "damaged",
        ".": "is a directory, not a file",
    }
    for name, message in said.items():
        for n, pair in enumerate(((tmp_path / name, good), (good, tmp_path / name))):
            out = ("--out", tmp_path / f"{name}{n}-out")
            assert message in fails(capsys, "train", "--src", pair[0], "--tgt", pair[1], *out)
    for name, message in said.items():
        if name == "short" or name == "empty":
            continue
        assert message in fails(capsys, "translate", "--model", run, tmp_path / name)
        assert message in fails(
            capsys, "evaluate", "--model", run, "--src", tmp_path / name, "--ref", tmp_path / name
        )
    assert "is empty" in fails(
        capsys, "evaluate", "--model", run, "--src", tmp_path / "empty", "--ref", good
    )


def test_a_directory_that_cannot_be_made(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert "cannot make the directory" in fails(capsys, "train", "--out", tmp_path / "file" / "run")


LIMITED = """
import resource, sys
sys.dont_write_bytecode = True  # it would be cut off without a word, and kept
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
from tinygrad_tx.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(find_spec("resource") is None, reason="no limits")
def test_a_full_disk(run: Path, tmp_path: Path) -> None:
    """The save that fails is said in one line, and the run goes on from the one before."""
    out = Path(shutil.copytree(run, tmp_path / "run"))
    before = {p.name: p.read_bytes() for p in (out / "checkpoints").iterdir()}
    assert min(map(len, before.values())) > 40_000
    arguments = ["train", "--resume", "--out", str(out), "--max-steps", "10"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"tinygrad-tx: cannot write {out}/checkpoints/step-00000009.safetensors: File too large; "
        "what was there is unchanged"
    )
    assert {p.name: p.read_bytes() for p in (out / "checkpoints").iterdir()} == before
    assert main(arguments) == 0
    assert rows(out)[-1]["step"] == 10


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupted(tmp_path: Path) -> None:
    """A real SIGINT of a real process: it saves, says how to go on, and exits with 130."""
    out = tmp_path / "run"
    arguments = ["train", "--out", str(out), "--set", *SMALL, "train.max_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_tx", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "loss" in line:
            break
    process.send_signal(2)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and not stdout
    assert f"is saved; go on by: tinygrad-tx train --resume --out {out}" in stderr
    assert list((out / "checkpoints").glob("step-*.safetensors"))


# translate, evaluate -----------------------------------------------------------------------------


def test_translate(
    run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "the dog sees 3 cats .\n\n   \nthe dog\r\nunseen wörds 日本\n"
    (tmp_path / "in").write_text(text, newline="")
    assert main(["translate", "--model", str(run), str(tmp_path / "in")]) == 0
    out, err = capsys.readouterr()
    lines = out.split("\n")
    assert len(lines) == 6 and lines[1] == lines[2] == lines[5] == "" and not err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["translate", "--model", str(run)]) == 0
    assert capsys.readouterr().out == out
    (tmp_path / "nothing").touch()
    assert main(["translate", "--model", str(run), str(tmp_path / "nothing")]) == 0
    assert capsys.readouterr().out == ""
    checkpoint = next((run / "checkpoints").iterdir())
    assert main(["translate", "--model", str(checkpoint), str(tmp_path / "in")]) == 0
    assert len(capsys.readouterr().out.split("\n")) == 6


def test_n_best(run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").write_text("the dog\n\nthe cats .\n")
    arguments = ["translate", "--model", str(run), "--n-best", "2", str(tmp_path / "in")]
    assert main([*arguments, "--beam", "3", "--length-penalty", "0.6"]) == 0
    found = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in found] == ["1", "1", "2", "3", "3"]
    assert found[2] == ["2", "0.0000", ""]
    assert float(found[0][1]) >= float(found[1][1]) and all(len(row) == 3 for row in found)
    assert main(arguments) == 0, "the beam is widened to hold them"
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_sampling(run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").write_text("the dog sees 3 cats .\n" * 4)
    start = ["translate", "--model", str(run), str(tmp_path / "in"), "--sample", "--top-k", "50"]
    found = []
    for seed in ("1", "1", "2"):
        assert main([*start, "--temperature", "2", "--top-p", "0.9", "--seed", seed]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] != found[2]
    assert "--top-k, --top-p and --temperature go with --sample" in fails(
        capsys, "translate", "--model", run, "--top-k", "3"
    )
    assert "--sample and --beam exclude" in fails(
        capsys, "translate", "--model", run, "--sample", "--beam", "3"
    )


def test_evaluate(run: Path, capsys: Capture) -> None:
    files = ["--src", str(run.parent / "src"), "--ref", str(run.parent / "tgt")]
    assert main(["evaluate", "--model", str(run), *files, "--json", "--lowercase"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sentences"] == 40 and found["beam"] == 1
    assert 0 <= found["bleu"] <= 100 and "case:lc" in found["bleu_signature"]
    assert main(["evaluate", "--model", str(run), *files, "--beam", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("BLEU ") and "tok:13a" in first and second.startswith("chrF ")


@pytest.mark.parametrize("command", ["translate", "evaluate", "attention", "graph"])
def test_models_that_are_none(command: str, run: Path, tmp_path: Path, capsys: Capture) -> None:
    more = {
        "evaluate": ["--src", str(run.parent / "src"), "--ref", str(run.parent / "tgt")],
        "attention": ["a dog", "--png", str(tmp_path / "x.png")],
    }.get(command, [])
    assert "there is no" in fails(capsys, command, "--model", tmp_path / "absent", *more)
    assert "holds no model" in fails(capsys, command, "--model", tmp_path, *more)
    spoilt = Path(shutil.copytree(run, tmp_path / "spoilt"))
    content = (spoilt / "model.safetensors").read_bytes()
    (spoilt / "model.safetensors").write_bytes(content[:-9])
    assert "or a damaged one" in fails(capsys, command, "--model", spoilt, *more)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_has_enough(run: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"yes 'the dog' | head -2000 | {sys.executable} -m tinygrad_tx translate "
         f"--model {run} | head -1; echo ${{PIPESTATUS[2]}}"],
        env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr


# The others --------------------------------------------------------------------------------------


def test_average(run: Path, capsys: Capture, tmp_path: Path) -> None:
    assert main(["average", str(run), "--last", "2"]) == 0
    averaged = run / "averaged.safetensors"
    assert f"tinygrad-tx translate --model {averaged}" in capsys.readouterr().out
    (tmp_path / "in").write_text("the dog\n")
    assert main(["translate", "--model", str(averaged), str(tmp_path / "in")]) == 0
    assert "holds 3 checkpoints, not 9: lower --last" in fails(
        capsys, "average", run, "--last", "9"
    )
    assert "holds no run" in fails(capsys, "average", tmp_path, "--last", "1")
    averaged.unlink()


def test_info(run: Path, capsys: Capture, tmp_path: Path) -> None:
    assert main(["info", str(run)]) == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert shown["preset"] == "tiny" and "d_model 16, 2 heads" in shown["model"]
    assert shown["checkpoints"] == "steps 3, 6, 8" and "valid loss" in shown["best"]
    assert {"a", "memory", "module", "Transformer", "encoder:"} <= shown.keys()
    assert "holds no run" in fails(capsys, "info", tmp_path)


def test_doctor(capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("python", "numpy", "BLAS", "processor", "device cpu", "device cuda"):
        assert f"\n{name} " in f"\n{out}"
    assert "ready (NumpyBackend)" in out


def test_doctor_clears_the_kernel_cache(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path))
    (tmp_path / f"{'0' * 64}.o").write_bytes(b"code")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\nnative code " in out
    assert f"kernel cache  1 compiled kernels, 0.0 MiB in {tmp_path}\n" in out
    assert main(["doctor", "--clear-cache"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("cleared       1 compiled kernels\n")
    assert f"kernel cache  0 compiled kernels, 0.0 MiB in {tmp_path}\n" in out
    assert not list(tmp_path.iterdir())


def test_attention(run: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "heads.png"
    arguments = ["attention", "--model", str(run), "the dog sees", "--png", str(picture)]
    assert main(arguments) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in capsys.readouterr().out
    assert "blank" in fails(capsys, "attention", "--model", run, " ", "--png", picture)


def test_the_choice_of_attention(run: Path, tmp_path: Path, capsys: Capture) -> None:
    see, page = ["attention", "--model", str(run), "the dog sees"], tmp_path / "heads.html"
    picture = tmp_path / "heads.svg"
    for flags, shown, hidden in (
        (["--layer", "cross_attn", "--head", "2"], "head 2", "self_attn"),
        (["--layer", "decoder.layers.0", "--mean", "--arcs"], "mean of", "head 1"),
        (["--rollout"], "rollout", "mean of"),
    ):
        assert main([*see, "--out", str(picture), "--html", str(page), *flags]) == 0
        assert str(page) in capsys.readouterr().out
        for text in (picture.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")):
            assert shown in text
        assert hidden not in picture.read_text(encoding="utf-8")
    assert "must end in" in fails(capsys, *see, "--png", "x.txt")
    assert "a page's name ends in .html" in fails(capsys, *see, "--html", "x.svg")
    assert "give --out FILE" in fails(capsys, *see)
    assert "no layer is called" in fails(capsys, *see, "--out", picture, "--layer", "7")
    assert "has no head 9" in fails(capsys, *see, "--out", picture, "--head", "9")


def test_a_picture_for_each_line(
    run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines"
    lines.write_text("the dog sees 3 cats .\n\nthe dog\n")
    command = ["translate", "--model", str(run), str(lines)]
    assert main(command) == 0
    wanted = capsys.readouterr().out
    looks = tmp_path / "new" / "looks"
    assert main([*command, "--attention", str(looks)]) == 0
    out, err = capsys.readouterr()
    assert out == wanted and err == f"pictures: 2, of attention, in {looks}\n"
    assert sorted(p.name for p in looks.iterdir()) == ["000001.svg", "000003.svg"]
    first = (looks / "000001.svg").read_text(encoding="utf-8")
    assert "decoder.layers.0.cross_attn" in first and ">dog<" in first and "mean of" in first
    assert "this is a file" in fails(capsys, *command, "--attention", lines)


def test_check(run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "check.svg"
    assert main(["check", str(run), "--out", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "ok    no output depends on a later position of target\n" in out
    assert out.endswith(f"drawn in {picture}\n") and "(a tiny copy of it)" in out
    monkeypatch.setattr(Transformer, "source_mask", lambda self, src, lengths=None: None)
    assert main(["check", str(run)]) == 1
    out, err = capsys.readouterr()
    assert "LEAK  output 0 of row 0 depends on source[3], which is padding" in out
    assert err == f"tinygrad-tx: {run}: 1 leak, as told above\n"
    assert "must end in" in fails(capsys, "check", run, "--out", "x.txt")
    assert "there is no" in fails(capsys, "check", tmp_path / "absent")


def test_graph(run: Path, tmp_path: Path, capsys: Capture) -> None:
    for arguments in (["--preset", "tiny", "--depth", "2"], ["--model", str(run)], []):
        picture = tmp_path / "graph.dot"
        assert main(["graph", *arguments, "--out", str(picture)]) == 0
        text = picture.read_text()
        assert text.startswith("digraph") and "encoder" in text and "cross_entropy" in text
        assert "backward" not in text and "tgt_out" in text
        picture.unlink()
    for arguments in (["--preset", "tiny"], ["--model", str(run)]):
        picture = tmp_path / "step.svg"
        assert main(["graph", *arguments, "--step", "--out", str(picture)]) == 0
        text = picture.read_text(encoding="utf-8")
        assert ">backward<" in text and "self.scaler.step(self.optimizer)" in text
        assert "folded: --depth" in capsys.readouterr().out
        picture.unlink()
    assert "unknown preset" in fails(capsys, "graph", "--preset", "tny")
    assert "must end in" in fails(capsys, "graph", "--out", "graph.gif")


def test_graph_as_a_page(run: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "step.html"
    before = (run / "model.safetensors").read_bytes()
    assert main(["graph", "--model", str(run), "--html", str(page)]) == 0
    assert str(page) in capsys.readouterr().out and not Path("graph.svg").exists()
    assert "explorer" in page.read_text(encoding="utf-8")
    assert (run / "model.safetensors").read_bytes() == before
    assert "there is no" in fails(capsys, "graph", "--model", tmp_path / "none", "--html", page)


def test_cuda_is_missing_in_one_line(run: Path, capsys: Capture) -> None:
    from tinygrad_tx import backends
    from tinygrad_tx.errors import DeviceError

    try:
        backends.get("cuda")
    except DeviceError:
        assert 'device "cuda"' in fails(capsys, "info", run, "--device", "cuda")
    else:
        pytest.skip("there is a GPU")


def test_a_command_imports_what_it_needs() -> None:
    """Not the compiler, for --help; the library itself is NumPy's time."""
    code = (
        "import sys, tinygrad_tx.cli.program\nprint('tinygrad_tx.compiler.compiled' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
