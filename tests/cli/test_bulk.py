"""Commands for large inputs: by workers of Dask, killed or not, the output is that of one process,
to the byte; what was stopped goes on; what is wrong is one line."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deadly_work import Deadly
from training_runs import Watch, small

from tinygrad_tx.backends.cpu.run import team
from tinygrad_tx.bulk import chunked, cluster, in_order, model, run
from tinygrad_tx.cli import main
from tinygrad_tx.errors import UserError
from tinygrad_tx.training import train

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tinygrad_tx"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
Capture = pytest.CaptureFixture[str]

with_dask = pytest.mark.skipif(not find_spec("distributed"), reason="no Dask: the extra `dask`")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and pairs beside it: src and ref."""
    root = tmp_path_factory.mktemp("bulk")
    train(small("train.max_steps=2"), root / "run", progress=Watch())
    write(root / "src", 50)
    write(root / "ref", 50, "the cat and {} birds")
    return root / "run"


def write(file: Path, count: int, line: str = "the dog sees {} cats .") -> Path:
    """Lines of several lengths, every seventh of them blank."""
    lines = [line.format(" ".join(str(n % 9) * (n % 5))) if n % 7 else "" for n in range(count)]
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def says(capsys: Capture, *arguments: str | Path) -> str:
    """What a command prints."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def fails(capsys: Capture, *arguments: str | Path) -> str:
    """The line that a command fails with; there is no other."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1, err
    return err.removeprefix("tinygrad-tx: ").rstrip("\n")


def misused(capsys: Capture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(["translate", "--model", "x", *arguments])
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# One process -------------------------------------------------------------------------------------


def test_arguments_that_are_none(capsys: Capture) -> None:
    for text in ("0", "-1", "two", "1.5"):
        assert "is no whole number of 1 or more" in misused(capsys, f"--workers={text}")
    assert "100000 is too large; the most is 1024" in misused(capsys, "--workers", "100000")
    assert "not allowed with argument --workers" in misused(
        capsys, "--workers", "2", "--scheduler", "tcp://a:1"
    )
    for text in (
        "localhost:8786",
        "tcp://host",
        "tcp://host:0",
        "tcp://host:99999",
        "http://a:1",
        "",
    ):
        said = misused(capsys, "--scheduler", text)
        assert "is no address such as tcp://HOST:8786" in said, text
    assert "is no whole number of 1 or more" in misused(capsys, "--chunk", "0")


def test_options_that_do_not_go_together(made: Path, capsys: Capture) -> None:
    start = ("translate", "--model", made, made.parent / "src")
    assert "--sample and --chunk exclude" in fails(capsys, *start, "--sample", "--chunk", "3")
    assert "needs --seed N" in fails(capsys, *start, "--sample", "--out", made.parent / "x")
    assert "--attention draws by one" in fails(capsys, *start, "--attention", "x", "--workers", "2")
    text = ("evaluate", "--model", made, "--text", made.parent / "src")
    assert "--out and --chunk go with --src and --ref" in fails(capsys, *text, "--out", "x")
    assert "is the input; give the" in fails(capsys, *start, "--out", made.parent / "src")
    assert (made.parent / "src").read_text().startswith("\nthe dog")


def test_dask_that_is_not_installed(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    start = ("translate", "--model", made, made.parent / "src", "--out", tmp_path / "out")
    for which in (("--workers", "2"), ("--scheduler", "tcp://127.0.0.1:8786")):
        said = fails(capsys, *start, *which)
        assert said.endswith('which is not installed: pip install "tinygrad_tx[dask]"')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [("--beam", "3", "--n-best", "2"), ("--sample", "--seed", "7")])
def test_an_output_file_is_what_is_printed(
    made: Path, tmp_path: Path, capsys: Capture, options: tuple[str, ...]
) -> None:
    start = ("translate", "--model", made, made.parent / "src", *options)
    printed = says(capsys, *start)
    assert len(printed.splitlines()) >= 50
    assert says(capsys, *start, "--out", tmp_path / "out") == ""
    assert (tmp_path / "out").read_text() == printed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if "--sample" not in options:
        assert says(capsys, *start, "--chunk", "4") == printed


def stopped_after(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Let the next run of bulk work be interrupted when so many chunks are written."""
    add = run.Journal.add

    def stopping(self: run.Journal, *given: Any) -> None:
        add(self, *given)
        if self.done.chunks == chunks:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(run.Journal, "add", stopping)


def test_what_was_stopped_goes_on(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = tmp_path / "out", tmp_path / "out.part"
    start = ["translate", "--model", str(made), str(made.parent / "src"), "--out", str(out)]
    stopped_after(monkeypatch, 3)
    assert main([*start, "--chunk", "5"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("interrupted: 15 lines are done; the same command goes on after them")
    assert len(part.read_text().splitlines()) == 15
    assert "begun by another command: beam was None, and is 3" in fails(
        capsys, *start, "--beam", "3"
    )
    other = write(tmp_path / "other", 50, "a cat {}")
    assert "input are not those" in fails(capsys, "translate", "--model", made, other, "--out", out)
    assert main([*start, "--chunk", "20"]) == 0
    assert capsys.readouterr().err.startswith(f"going on after line 15, with {part}\n")
    assert out.read_text() == says(capsys, *start[:-2])
    assert not part.exists()


def test_an_evaluation_that_was_stopped_goes_on(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("--src", made.parent / "src", "--ref", made.parent / "ref", "--json")
    start = ("evaluate", "--model", made, *files, "--beam", "2")
    whole = says(capsys, *start)
    out = ("--out", tmp_path / "out", "--chunk", "7")
    stopped_after(monkeypatch, 4)
    assert main([str(a) for a in (*start, *out)]) == 130
    assert says(capsys, *start, *out) == whole
    translated = says(capsys, "translate", "--model", made, files[1], "--beam", "2")
    assert (tmp_path / "out").read_text() == translated
    from tinygrad_tx.training.metrics import score

    references = (made.parent / "ref").read_text().split("\n")[:-1]
    scores = score(translated.split("\n")[:-1], references)
    assert json.loads(whole)["bleu"] == scores.bleu and json.loads(whole)["chrf"] == scores.chrf
    assert json.loads(whole)["bleu_signature"] == scores.bleu_signature


ODD = {
    "empty": b"",
    "one line": b"the dog sees 3 cats .\n",
    "no end": b"the dog\nthe cat",
    "carriage returns": b"the dog\r\nthe cat\r\n",
    "blank": b"\n\n  \n\t\nthe dog\n\n",
    "NUL": b"the\0dog\nthe cat\n",
    "no line ends": "\ufefftab\there \x0b \x0c \x85 \u2028 x\ny\rz\n".encode(),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A line for a line, whatever is in them; the same from a pipe, into a file, and of a chunk of
    one line."""
    data = ODD[name]
    count = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    file, out = tmp_path / "in", tmp_path / "out"
    file.write_bytes(data)
    for command in (["translate", "--beam", "2"], ["tokenize", "--pieces"], ["tokenize"]):
        start = (*command, "--model", made)
        printed = says(capsys, *start, file)
        assert printed.count("\n") == count and printed.endswith("\n") is bool(count)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert says(capsys, *start, "--chunk", "1", "--out", out) == ""
        assert out.read_bytes() == printed.encode()
    scored = ["score", "--model", str(made), "--src", str(file), "--ref", str(file)]
    if data:
        assert says(capsys, *scored).count("\n") == count
    else:
        assert fails(capsys, *scored) == f"{file} is empty"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_input_that_is_no_text_further_on(made: Path, tmp_path: Path, capsys: Capture) -> None:
    """All before its chunk is written; mended, the same command goes on."""
    file, out = write(tmp_path / "in", 30), tmp_path / "out"
    text = file.read_bytes()
    file.write_bytes(text + b"the \xff dog\nthe cat\n")
    arguments = ("tokenize", "--model", made, file, "--chunk", "4", "--out", out)
    said = fails(capsys, *arguments)
    assert said.startswith(f"{file}, line 31: not valid UTF-8 (invalid start byte at byte 5); ")
    assert len((tmp_path / "out.part").read_text().splitlines()) == 28
    file.write_bytes(text + b"the other dog\n")
    assert main([str(a) for a in arguments]) == 0
    assert capsys.readouterr().err.startswith("going on after line 28, ")
    assert out.read_text() == says(capsys, *arguments[:4])


def test_a_line_that_is_too_long(made: Path, tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path / "in", 30)
    with file.open("a") as opened:
        opened.write("7 3 " * 600 + "\n" + "the cat\n")
    arguments = ["translate", "--model", str(made), str(file), "--chunk", "4"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert err.startswith("tinygrad-tx: line 31 has ") and len(err.splitlines()) == 1
    assert len(out.splitlines()) == 28, "the chunks before it"


def test_token_ids_of_lines(made: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "in"
    file.write_text("the dog\n\nthe  cats\n")
    from tinygrad_tx.models.loading import tokenizer_of

    tokenizer = tokenizer_of(made, None)
    found = says(capsys, "tokenize", "--model", made, file).split("\n")
    assert [list(map(int, line.split())) for line in found[:-1]] == [
        tokenizer.encode(text) for text in ("the dog", "", "the  cats")
    ]
    special = says(capsys, "tokenize", "--model", made, file, "--special").split("\n")
    assert special[0] == f"{found[0]} 2" and special[1] == "2"
    pieces = says(capsys, "tokenize", "--model", made, file, "--pieces", "--chunk", "1")
    assert pieces.split("\n")[0].replace(" ·", "") == "the dog"


def test_the_models_of_a_journal_are_told_by_their_content(made: Path, tmp_path: Path) -> None:
    found = model.of(str(made))
    assert found == model.of(str(made / "model.safetensors"))
    assert found != model.of(str(next((made / "checkpoints").iterdir())))


# Dask --------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@with_dask
def test_a_scheduler_that_is_not_there(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_CONNECT", 0.5)
    address = f"tcp://127.0.0.1:{closed_port()}"
    out = ("--out", tmp_path / "out")
    start = ("translate", "--model", made, made.parent / "src", *out, "--scheduler", address)
    assert fails(capsys, *start).startswith(f"no Dask scheduler answers at {address} (")
    assert not list(tmp_path.iterdir())


@contextmanager
def scheduler() -> Iterator[Any]:
    """A scheduler with an address of its own, and no workers."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", dashboard_address=None, silence_logs=50
    ) as found:
        yield found


@with_dask
def test_workers_of_a_scheduler(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In threads of this process, for speed."""
    monkeypatch.setattr(team, "_asked", team._asked)  # which workers set
    monkeypatch.setattr(cluster, "_ALONE", 0.0)
    monkeypatch.setattr(cluster, "_LOOK", 0.1)
    files = ("--src", made.parent / "src", "--ref", made.parent / "ref")
    commands: list[tuple[str | Path, ...]] = [
        ("translate", "--model", made, made.parent / "src", "--beam", "3", "--n-best", "2"),
        ("evaluate", "--model", made, *files, "--beam", "2"),
        ("score", "--model", made, *files),
        ("tokenize", "--model", made, made.parent / "src"),
    ]
    language = tmp_path / "language"
    settings = ["model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.block_size=16"]
    settings += ["train.max_steps=1", "data.max_len=16", "data.max_tokens=64"]
    text = ("--text", made.parent / "ref")
    says(capsys, "train", "--task", "lm", *text, "--out", language, "--set", *settings)
    losses = ("evaluate", "--model", language, *text, "--json")
    expected = [says(capsys, *command) for command in (*commands, losses)]
    with scheduler() as there:
        more = ("--scheduler", there.scheduler_address, "--chunk", "4")

        from threading import Timer

        begun = Timer(1.0, lambda: there.scale(2))
        begun.start()
        assert main([str(a) for a in (*commands[0], *more)]) == 0
        out, err = capsys.readouterr()
        assert out == expected[0] and "has no workers: begin one by `dask worker`" in err
        for command, found in zip(commands[1:], expected[1:-1], strict=True):
            assert says(capsys, *command, *more) == found
        assert says(capsys, *losses, *more[:2]) == expected[-1]
        begun.join()

        monkeypatch.setattr(model, "of", lambda path, of=model.of: of(path) + os.urandom(2).hex())
        said = fails(capsys, *commands[0], *more)
        assert (
            said.startswith("the worker on ")
            and "is not the model that the command began with" in said
        )
        monkeypatch.setattr(cluster, "__version__", "0.0.0")
        said = fails(capsys, *commands[0], *more)
        assert said.startswith("the worker on ") and said.endswith(", and here it is 0.0.0")


def children(pid: int) -> list[int]:
    """The workers of a command: processes below it that are no resource trackers."""
    import psutil

    found = psutil.Process(pid).children(recursive=True)
    return [p.pid for p in found if "spawn_main" in " ".join(p.cmdline())]


def started(*arguments: str | Path, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, **more
    )


def until(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What is there at last, while the process runs."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"it ended with {process.poll()}: {process.communicate()[1]}")


@with_dask
def test_two_workers_write_what_one_process_writes(made: Path, capsys: Capture) -> None:
    start = ("translate", "--model", made, made.parent / "src", "--sample", "--seed", "5")
    expected = says(capsys, *start)
    assert says(capsys, *start, "--workers", "2") == expected


@pytest.mark.slow
@with_dask
def test_a_line_that_kills_its_workers(tmp_path: Path) -> None:
    """Three times, and it is done; each time, and it is named when all before it is written."""
    said: list[str] = []
    for line, deaths in (("dies 3", 3), ("dies 99", 4)):
        rows = [f"line {i}" for i in range(20)]
        rows[13] = line
        found: list[str] = []
        work = Deadly(tmp_path)
        chunks = chunked(iter(rows), 2)
        with cluster.local(work, 2, said.append) as executor:
            if deaths == 4:
                with pytest.raises(UserError, match=r"^lines 13 to 14: .* died, 4 times"):
                    found.extend(r.text for _, r in in_order(chunks, executor, say=said.append))
            else:
                found.extend(r.text for _, r in in_order(chunks, executor, say=said.append))
        upper = "".join(f"{row.upper()}\n" for row in rows[: 20 if deaths == 3 else 12])
        assert "".join(found) == upper
        assert len(list(tmp_path.glob(f"{line}.*"))) == deaths
    own = [line for line in said if "13 to 14" in line]
    assert [line[-2] for line in own] == ["1", "2", "3"] * 2
    assert own[0] == "a worker died; its lines 13 to 14 are given to another one (death 1)"
    assert not any("death 3" in line for line in said if line not in own)


def test_workers_that_were_given_up_are_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's cluster as it is left: one worker is there, one has failed, one was forgotten."""

    scaled: list[int] = []
    left = SimpleNamespace(
        loop=SimpleNamespace(add_callback=lambda call: call()),
        scheduler_info={"workers": {"tcp://1": {}}},
        workers={
            n: SimpleNamespace(status=SimpleNamespace(name=state))
            for n, state in enumerate(("running", "failed", "starting", "closed"))
        },
        scale=scaled.append,
    )
    local = cluster._Local(left, 5)
    local.restore()
    assert list(left.workers) == [0, 2] and scaled == [5]
    left.scheduler_info = {"workers": dict.fromkeys("abcde")}
    local.restore()
    assert scaled == [5], "all are there"
    left.scheduler_info = {"workers": {}}
    local.restore()
    monkeypatch.setattr(cluster, "_PATIENCE", 0.0)
    with pytest.raises(UserError, match="no worker has begun for 0 seconds; is there too little"):
        local.restore()


@pytest.mark.slow
@with_dask
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Neither here nor in the scheduler is a chunk kept that is done."""
    import tracemalloc

    held: list[int] = []
    tracemalloc.start()
    try:
        with cluster.local(Deadly(tmp_path), 1, print) as executor:
            for chunk, _ in in_order(chunked(("a" * 250_000 for _ in range(100)), 1), executor):
                if chunk.number in (19, 99):
                    gc.collect()
                    held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 4e6, "of 20 MB that came between"


@pytest.mark.slow
@with_dask
def test_workers_that_die_before_they_have_begun(
    made: Path, tmp_path: Path, capsys: Capture
) -> None:
    """All of them, again and again: when it stops, the command goes on."""
    file, out = write(tmp_path / "in", 3000), tmp_path / "out"
    start = ("tokenize", "--model", made, file)
    process = started(*start, "--workers", "2", "--chunk", "20", "--out", out)
    part = tmp_path / "out.part"
    until(lambda: part.exists() and part.stat().st_size, process)
    end, killed = time.monotonic() + 8, 0
    while time.monotonic() < end:
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
            killed += 1
        time.sleep(0.4)
    assert killed >= 8 and process.poll() is None
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.read_text() == says(capsys, *start)


@pytest.mark.slow
@with_dask
def test_workers_that_are_killed_cost_nothing(made: Path, tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path / "in", 3000)
    out, part = tmp_path / "out", tmp_path / "out.part"
    start = ("translate", "--model", made, file, "--beam", "2", "--n-best", "2")
    process = started(*start, "--workers", "2", "--chunk", "50", "--out", out)
    for lines in (100, 1500, 3000):
        until(lambda n=lines: part.exists() and part.read_bytes().count(b"\n") >= n, process)
        for pid in until(lambda: children(process.pid), process)[: 2 if lines == 1500 else 1]:
            os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err.count("a worker died; its lines ") >= 3 and "Traceback" not in err
    assert out.read_text() == says(capsys, *start)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.slow
@with_dask
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_goes_on(
    made: Path, tmp_path: Path, capsys: Capture, number: signal.Signals
) -> None:
    """Ctrl-C goes to all processes of a terminal; a kill to one, whose workers then end."""
    file = write(tmp_path / "in", 2000)
    out, part = tmp_path / "out", tmp_path / "out.part"
    start = ("translate", "--model", made, file, "--beam", "2")
    more = ("--workers", "2", "--chunk", "50", "--out", out)
    process = started(*start, *more, start_new_session=True)
    until(lambda: part.exists() and part.read_bytes().count(b"\n") >= 200, process)
    workers = children(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err.count("\n") == 1 and "the same command goes on after them" in err, err
    end = time.monotonic() + 30
    import psutil

    while any(map(psutil.pid_exists, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))
    again = started(*start, *more)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0 and err.startswith("going on after line "), err
    assert out.read_text() == says(capsys, *start)


@pytest.mark.slow
@with_dask
def test_a_scheduler_that_dies(made: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "in", 5000)
    port = closed_port()
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT}
    there = subprocess.Popen([*dask, "--no-dashboard", "--host", "127.0.0.1"], **quiet)
    address = f"tcp://127.0.0.1:{port}"
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"], **quiet
    )
    try:
        out, part = tmp_path / "out", tmp_path / "out.part"
        process = started(
            "translate",
            "--model",
            made,
            file,
            "--scheduler",
            address,
            "--chunk",
            "20",
            "--out",
            out,
        )
        until(lambda: part.exists() and part.stat().st_size, process)
        there.kill()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err == f"tinygrad-tx: the Dask scheduler at {address} is gone\n"
    finally:
        for one in (worker, there):
            one.kill()
            one.wait()
