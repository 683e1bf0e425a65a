"""A run directory is safe: one process at a time, nothing begun that cannot go on, damage noticed
and survived, nothing left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_runs import SMALL, Watch, outcome, rows, small

import tinygrad_tx as tx
from tinygrad_tx import atomic, locks, serialize
from tinygrad_tx.cli import main
from tinygrad_tx.data import Batches, Dataset
from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.errors import DamagedError, UserError
from tinygrad_tx.serialize import FORMAT, load_with_metadata
from tinygrad_tx.tokenizer import Tokenizer
from tinygrad_tx.training import Stopped, checkpoint, train

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}"}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps, with checkpoints of steps 3, 6 and 8."""
    out = tmp_path_factory.mktemp("made") / "run"
    train(small(), out, progress=Watch())
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def go_on(run: Path, *overrides: str) -> Watch:
    watch = Watch()
    train(small(*overrides), run, resume=True, progress=watch)
    return watch


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


# One process at a time ---------------------------------------------------------------------------


def test_a_run_at_work_keeps_others_out(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """A second --resume, a new run and `average` are refused, and disturb nothing; looking at the
    run is not refused."""
    said: list[str] = []

    def meddle(step: int) -> None:
        if step == 9:
            for arguments in (
                ["train", "--resume", "--out", str(run)],
                ["average", str(run), "--last", "1"],
            ):
                assert main(arguments) == 1
                said.append(capsys.readouterr().err)
            assert main(["info", str(run)]) == 0

    watch = Watch(on_step=meddle)
    train(small("train.max_steps=10"), run, resume=True, progress=watch)
    for line in said:
        assert line == (
            f"tinygrad-tx: cannot use {run}: process {os.getpid()} on {socket.gethostname()} is at "
            "work there; wait for it, or stop it\n"
        )
    straight = tmp_path / "straight"
    train(small("train.max_steps=10"), straight, progress=Watch())
    assert rows(run) == rows(straight)
    assert files(run) == files(straight)


HOLDER = """
import sys, time
from pathlib import Path
from tinygrad_tx import locks
with locks.held(Path(sys.argv[1]), "no"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    says = rf"^it: process {holder.pid} on .* is at work there"
    with pytest.raises(UserError, match=says), locks.held(lock, "it"):
        pass
    holder.kill()
    holder.wait()
    assert lock.exists(), "killed, it could not remove the file"
    with locks.held(lock, "it") as kept:
        assert kept
        with pytest.raises(UserError, match="is at work"), locks.held(lock, "it"):
            pass
    assert not lock.exists()


def test_without_locks_a_run_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(handle: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    watch = Watch()
    train(small("train.max_steps=1"), tmp_path / "run", progress=watch)
    assert f"{tmp_path / 'run'} is on a file system without locks: see that one" in watch.said[0]
    assert len(watch.losses) == 1


# Nothing is begun before the data could be read --------------------------------------------------


def pairs(root: Path, n: int = 40) -> tuple[Path, Path]:
    src, tgt = root / "src", root / "tgt"
    src.write_text("".join(f"the dog sees {i} cats .\n" for i in range(n)))
    tgt.write_text("".join(f"el perro ve {i} gatos .\n" for i in range(n)))
    return src, tgt


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"src": None}, "cannot read"),
        ({"src": b"a\nol\xe9\n" + 38 * b"a\n"}, "not valid UTF-8"),
        ({"tgt": b"one line\n"}, "40 lines"),
        ({"tsv": b"a\tb\n" * 9 + b"no tab\n"}, "no tab"),
        ({"valid_src": b"", "valid_tgt": b""}, "is empty"),
        ({"settings": ["data.max_len=2"]}, "no sentence pairs to learn from"),
        ({"settings": ["tokenizer.vocab_size=100"]}, "vocab_size 100 is too small"),
        ({"settings": [f"tokenizer.vocab_size={2**40}"]}, "is too large: the most is"),
        ({"settings": [f"tokenizer.vocab_size={2**62}"]}, "is too large: the most is"),
        ({"settings": [f"model.d_model={2**62}"]}, "model.d_model is 4611686018427387904; it must"),
        ({"settings": ["data.max_tokens=64", "data.max_len=64", "tokenizer.kind=char"]}, ""),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_start_that_failed_is_none(
    tmp_path: Path, capsys: Capture, wrong: dict[str, object], says: str, exists: bool
) -> None:
    src, tgt = pairs(tmp_path)
    out = tmp_path / "deep" / "run"
    if exists:
        out.mkdir(parents=True)
        (out / "mine.txt").write_text("notes")
    given = {"src": str(src), "tgt": str(tgt)}
    for key, content in wrong.items():
        if key == "settings":
            continue
        path = tmp_path / f"wrong-{key}"
        if content is not None:
            assert isinstance(content, bytes)
            path.write_bytes(content)
        given = {k: v for k, v in given.items() if not (key == "tsv" and k in ("src", "tgt"))}
        given[key] = str(path)
    flags = [x for k, v in given.items() for x in (f"--{k.replace('_', '-')}", v)]
    settings = wrong.get("settings", [])
    assert isinstance(settings, list)
    arguments = ["train", "--out", str(out), "--set", *SMALL, "train.max_steps=1"]
    code = main([*arguments, *settings, *flags])
    error = capsys.readouterr().err
    if says:
        assert code == 1 and says in error.splitlines()[-1] and "Traceback" not in error
        assert files(tmp_path / "deep") == ({"run/mine.txt"} if exists else set())
        assert (tmp_path / "deep").exists() == exists
        assert main([*arguments, "--src", str(src), "--tgt", str(tgt)]) == 0
    assert rows(out)[-1]["step"] == 1


def test_interrupted_while_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first signal ends it, for there is nothing to save; and nothing is begun."""
    from tinygrad_tx.data import Dataset

    whole = Dataset.from_pairs

    def interrupted(*arguments: object, **more: object) -> Dataset:
        signal.raise_signal(signal.SIGINT)
        return whole(*arguments, **more)  # type: ignore[arg-type]

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "from_pairs", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(small(), out, progress=Watch())
    assert not isinstance(caught.value, Stopped) and not out.exists()
    train(small("train.max_steps=1"), out, progress=Watch())


def test_what_is_left_of_a_run_is_not_trained_over(run: Path) -> None:
    (run / "config.toml").unlink()
    before = outcome(run)
    with pytest.raises(UserError, match=r"holds checkpoints.* of a run, but no config\.toml"):
        train(small(), run, progress=Watch())
    assert outcome(run) == before


def test_a_configuration_that_is_torn(run: Path) -> None:
    text = (run / "config.toml").read_text()
    for kept in ("", text[: text.index("[train]") + 30], "\n\n"):
        (run / "config.toml").write_text(kept)
        with pytest.raises(UserError, match=r"config\.toml is not whole: it has no section"):
            go_on(run)
    (run / "config.toml").write_text(text.replace("seed = 0", "seed = 4"))
    with pytest.raises(UserError, match=r"train\.seed was 0 when .*00008\.safetensors was saved"):
        train(small("train.seed=4"), run, resume=True, progress=Watch())
    (run / "config.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    go_on(run)


# Damage ------------------------------------------------------------------------------------------

DAMAGES = {
    "empty": lambda c: b"",
    "torn": lambda c: c[: len(c) // 2],
    "payload": lambda c: flipped(c, len(c) - 1000),
    "last byte": lambda c: flipped(c, len(c) - 1),
    "state": lambda c: c.replace(b'\\"step\\": 8', b'\\"step\\": 9', 1),
    "name": lambda c: c.replace(b"optimizer.step", b"optimizer.stop", 1),
    "zeros": lambda c: c[:8000] + bytes(4096) + c[12096:],
    "format": lambda c: c.replace(b'\\"format\\":', b'\\"formal\\":', 1),
    "another": lambda c: b"PK\3\4" * 5000,
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_gone_on_from(made: Path, run: Path, damage: str) -> None:
    last = run / "checkpoints" / "step-00000008.safetensors"
    content = last.read_bytes()
    spoilt = DAMAGES[damage](content)
    assert spoilt != content
    last.write_bytes(spoilt)
    with pytest.raises(UserError, match=r"cannot load|is no"):
        tx.models.load(last)
    watch = go_on(run)
    bad, good = watch.said[-2:]
    assert str(last) in bad and bad.endswith("; it is called step-00000008.safetensors.damaged now")
    assert good == f"going on from {run / 'checkpoints' / 'step-00000006.safetensors'}"
    assert len(watch.losses) == 2
    aside = last.with_name("step-00000008.safetensors.damaged")
    assert aside.read_bytes() == spoilt
    aside.unlink()
    assert outcome(run) == outcome(made), "metrics.jsonl was cut back to step 6"


def test_the_second_newest_of_two_damaged_ones(made: Path, run: Path) -> None:
    for step in (6, 8):
        path = run / "checkpoints" / f"step-{step:08}.safetensors"
        path.write_bytes(flipped(path.read_bytes(), 20_000))
    watch = go_on(run)
    assert "step-00000003" in watch.said[-1] and len(watch.losses) == 5
    for path in (run / "checkpoints").glob("*.damaged"):
        path.unlink()
    assert outcome(run) == outcome(made)


def test_a_damaged_checkpoint_is_left_out_of_the_average(run: Path) -> None:
    path = run / "checkpoints" / "step-00000006.safetensors"
    path.write_bytes(flipped(path.read_bytes(), 20_000))
    watch = go_on(run, "train.average_last=3")
    assert [s for s in watch.said if str(path) in s and "left out of the average" in s]
    assert "average of 2 checkpoints" in [row.get("of") for row in rows(run)]


def test_all_damaged_is_one_line(run: Path, capsys: Capture) -> None:
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    before = outcome(run)
    assert main(["train", "--resume", "--out", str(run)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"tinygrad-tx: none of the 3 checkpoints in {run} can be gone on from: ")
    assert outcome(run) == before


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    """Every byte of a small file, one after the other: an error, or the Tensors as they were."""
    path = tmp_path / "x.safetensors"
    wanted = {"a": tx.arange(6).reshape(2, 3), "b": tx.tensor(0.5)}
    tx.save(wanted, path, {"note": "12"})
    content, unnoticed = path.read_bytes(), []
    for at in range(len(content)):
        path.write_bytes(flipped(content, at))
        try:
            found, text = load_with_metadata(path)
        except UserError:
            continue
        unnoticed.append(at)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name].numpy(), value.numpy())
        assert text["note"] == "12"
    # The name of our own entry: without it the file is one of another program.
    assert len(unnoticed) <= len("tinygrad_tx")


def test_a_lost_vocabulary_is_learnt_again(made: Path, run: Path) -> None:
    (run / "tokenizer.json").unlink()
    assert "step-00000008" in go_on(run).said[-1]
    assert outcome(run) == outcome(made)


def test_other_files_than_those_of_the_weights(run: Path, capsys: Capture) -> None:
    tokenizer, config = run / "tokenizer.json", run / "config.toml"
    content, text = tokenizer.read_bytes(), config.read_text()
    tokenizer.write_bytes(flipped(content, len(content) - 500))
    for file in ("", "model.safetensors", "checkpoints/step-00000008.safetensors"):
        with pytest.raises(UserError, match=r"tokenizer\.json is not the one that .* was trained"):
            tx.models.load(run / file)
    with pytest.raises(UserError, match=r"tokenizer\.json is (not the one|damaged)"):
        go_on(run)
    assert main(["average", str(run), "--last", "2"]) == 1
    tokenizer.write_bytes(content)
    config.write_text(text.replace("n_heads = 2", "n_heads = 4"))
    with pytest.raises(UserError, match=r"model\.n_heads was 2, and is 4 there"):
        tx.models.load(run)


# Formats -----------------------------------------------------------------------------------------


def newer(path: Path, key: str) -> None:
    """Raise the number of the format in a safetensors file, and leave all else right."""
    content = path.read_bytes()
    number = f'\\"{key}\\": {FORMAT}'.encode()
    assert number in content
    path.write_bytes(content.replace(number, f'\\"{key}\\": 9'.encode()))


def test_a_newer_format_is_refused(run: Path, capsys: Capture) -> None:
    says = f"is of format 9; this version of tinygrad_tx reads {FORMAT} and older: install a newer"
    config, text = run / "config.toml", (run / "config.toml").read_text()
    assert text.startswith(f"format = {FORMAT}\n")
    last = run / "checkpoints" / "step-00000008.safetensors"
    for path in (run / "model.safetensors", last):
        newer(path, "format")
        with pytest.raises(UserError, match=says):
            tx.load(path)
        with pytest.raises(UserError, match=says):
            tx.models.load(path)
    before = outcome(run)
    assert main(["train", "--resume", "--out", str(run)]) == 1
    assert says in capsys.readouterr().err.splitlines()[-1]
    config.write_text(text.replace(f"format = {FORMAT}", "format = 9"))
    for arguments in (
        ["train", "--resume", "--out", str(run)],
        ["train", str(config), "--out", str(run.parent / "other")],
        ["info", str(run)],
        ["translate", "--model", str(run), os.devnull],
        ["average", str(run), "--last", "1"],
    ):
        assert main(arguments) == 1
        assert says in capsys.readouterr().err.splitlines()[-1]
    config.write_text(text)
    assert outcome(run) == before
    for wrong in ("'two'", "-1", "true", "1.5"):
        config.write_text(text.replace(f"format = {FORMAT}", f"format = {wrong}"))
        with pytest.raises(UserError, match="is no number of a format"):
            go_on(run)


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "x.safetensors"
    for metadata in (None, {"format": "pt"}, {"format": "9", "trained_with": "love"}):
        save_file({"x": np.arange(3.0)}, path, metadata)
        found, text = load_with_metadata(path)
        assert found["x"].tolist() == [0, 1, 2] and text == (metadata or {})
    tx.save({"x": tx.ones(3), "y": tx.tensor([True]), "z": tx.tensor(7)}, path)
    assert {k: v.tolist() for k, v in load_file(path).items()} == {
        "x": [1, 1, 1],
        "y": [True],
        "z": 7,
    }


def test_bfloat16_is_read_in_a_fresh_process(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    tx.save({"x": tx.ones(2).to(tx.bfloat16)}, tmp_path / "x.safetensors")
    code = "import sys, tinygrad_tx as tx; print(tx.load(sys.argv[1])['x'].float().tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.safetensors")],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "[1.0, 1.0]\n", done.stderr


@pytest.mark.parametrize(
    ("state", "metadata", "says"),
    [
        ({"x\udcff": 1}, None, "must be text"),
        ({3: 1}, None, "must be text"),
        ({"x": 1}, {"n": 3}, "must be text, not 3"),
        ({"x": 1}, {"tinygrad_tx": "x"}, "taken by the format"),
        ({"__metadata__": 1}, None, "taken by the format"),
    ],
)
def test_what_cannot_be_saved(
    tmp_path: Path, state: dict[str, int], metadata: dict[str, str] | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        tx.save({k: tx.tensor(v) for k, v in state.items()}, tmp_path / "x", metadata)
    assert not files(tmp_path)


# What is left over -------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import numpy as np
from tinygrad_tx import serialize
write = serialize._bytes
def die(array):
    if array.shape == (7,) and sys._getframe(1).f_code.co_name == "_write":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(array)
serialize._bytes = die
serialize.save({"a": np.zeros(9000), "b": np.zeros(7)}, sys.argv[1])
"""


def kill_in_a_write(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_next_save_removes_what_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tx.save({"x": tx.ones(1)}, path)
    kill_in_a_write(path)
    assert len(files(tmp_path)) == 2
    assert tx.load(path)["x"].tolist() == [1]
    tx.save({"x": tx.zeros(1)}, path)
    assert files(tmp_path) == {"x.safetensors"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_next_start_removes_what_a_kill_left(run: Path) -> None:
    before = outcome(run)
    kill_in_a_write(run / "checkpoints" / "step-00000009.safetensors")
    kill_in_a_write(run / "model.safetensors")
    for directory in (run, run / "checkpoints"):
        (directory / ".tmpAb12yZ").write_bytes(b"of the first format")
    go_on(run)
    assert outcome(run) == before


def test_what_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def writer(temporary: Path) -> None:
        atomic.remove_leftovers(tmp_path)
        atomic.write_bytes(path, b"by another")
        temporary.write_bytes(b"mine")

    atomic.write_with(path, writer)
    assert path.read_bytes() == b"mine" and files(tmp_path) == {"x"}


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_modes_are_those_of_the_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        tx.save({"x": tx.ones(1)}, tmp_path / "x.safetensors")
        train(small("train.max_steps=1"), tmp_path / "run", progress=Watch())
    finally:
        os.umask(old)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


def test_old_checkpoints_without_a_checksum_are_looked_at(run: Path) -> None:
    """Metadata of the first format that make no sense are damage, too."""
    from safetensors.numpy import load_file, save_file

    last = run / "checkpoints" / "step-00000008.safetensors"
    tensors, (_, metadata) = load_file(last), load_with_metadata(last)
    rest = json.loads(metadata["run"]) | {"version": 1}
    data = small().data
    pairs, tokenizer = grammar.pairs("train", data.corpus_size), run / "tokenizer.json"
    dataset = Dataset.from_pairs(pairs, Tokenizer.load(tokenizer), data.max_len)
    batches = Batches(dataset, data.max_tokens)
    spoilt: list[object] = [
        *([], 3, None, "x", {"version": 1}, {**rest, "state": []}, {**rest, "random": 3}),
        *({**rest, "random": {"cpu": ["x", 1]}}, {**rest, "random": {"cpu": 7}}),
        *({**rest, "state": {**rest["state"], "step": "x"}}, {**rest, "batches": {}}),
        *(
            {**rest, "state": {**rest["state"], "more": 1}},
            {**rest, "random": {"a": [], "b": 3}},
        ),
        {**rest, "version": "1"},
    ]
    for value in spoilt:
        save_file(tensors, last, {"run": json.dumps(value)})
        with pytest.raises(DamagedError, match="is no checkpoint that this version can go on from"):
            checkpoint.restore(last, {}, batches)
    save_file(tensors, last, {"run": "[" * 100_000})
    assert "step-00000006" in go_on(run, "train.max_steps=8").said[-1]
    rest = {key: value for key, value in rest.items() if key != "config"}
    save_file(tensors, last, {"run": json.dumps(rest)})
    assert "step-00000008" in go_on(run, "train.max_steps=8").said[-1]


def test_damage_has_its_own_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tx.save({"x": tx.ones(9)}, path)
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 1))
    with pytest.raises(DamagedError, match="its checksum is not that of what was saved"):
        serialize.load(path)


def test_info_of_damaged_metrics(run: Path, capsys: Capture) -> None:
    path = run / "metrics.jsonl"
    content = path.read_bytes()
    assert main(["info", str(run)]) == 0
    whole = capsys.readouterr().out
    for spoilt in (b"\xff", b'{"step": 1', b"[1]", b'{"loss": 2}', b'{"step": "8", "loss": 1}',
                   b'{"step": 8, "loss": "x"}', b'{"step": 8, "skipped": 0.5}', b"[" * 10_000,
                   b'{"step": ' + b"1" * 5000 + b"}", b"", b'{"step": true}', b"null"):  # fmt: skip
        path.write_bytes(spoilt + b"\n" + content)
        assert main(["info", str(run)]) == 0
        note = "damaged              metrics.jsonl, lines 1: left out here\n"
        assert note in (shown := capsys.readouterr().out)
        assert shown.replace(note, "") == whole
    path.write_bytes(b'{"step": 8, "valid_loss": null, "bleu": null}\n')
    assert main(["info", str(run)]) == 0
    for at in range(0, len(content), 41):
        path.write_bytes(flipped(content, at))
        assert main(["info", str(run)]) == 0
