"""benchmarks.gpu: the program as users run it, on tiny sizes; what it says where something
is wrong; and who is timed, refused, or measured alone. Nothing here looks at a clock."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import pytest
from device_case import default_device
from stand_in import environment, stand_in

from benchmarks import gpu, gpu_ours, gpu_turns
from benchmarks.common import ROOT, WorkerError
from benchmarks.gpu_kernels import TINY
from benchmarks.gpu_turns import FULL, Run
from benchmarks.gpu_worker import Actor
from benchmarks.works import WORKS
from tinygrad_tx import backends
from tinygrad_tx.backends import gpus

pytestmark = pytest.mark.gpu
ALONE = ["--tiny", "--against", ""]


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with processes of this one in the environment of the stand-in."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "results"


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu", *ALONE, *arguments, "--out", str(out)]


def result(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == f"gpu-tiny-{found['date']}.json"
    return found


# The program -----------------------------------------------------------------------------------


def test_a_step_and_a_kernel(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32, which is compiled in half the time and compared more closely."""
    arguments = ("--only", "tiny-gpt2,softmax", "--gpu", "a100", "--precision", "fp32")
    done = subprocess.run(
        command(here, *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    progress = done.stderr.splitlines()
    assert [line.partition(": ")[0] for line in progress] == [
        "[1/2] tiny-gpt2",
        "[2/2] softmax 5x9 fp32",
    ]
    for said in ("tiny-gpt2: 4 x 8, on paper at least", "kernels, ms", "│ softmax 5x9 fp32 │"):
        assert said in done.stdout
    assert done.stdout.endswith(f"{next(here.glob('*.json'))}\n")

    found = result(here)
    assert found["command"].startswith("python -m benchmarks.gpu --tiny")
    assert {"name", "memory", "multiprocessors", "cuda_of_driver", "cupy"} <= set(found["gpu"])
    assert found["figures"] == "NVIDIA A100 SXM 80GB" and found["precision"] == "fp32"
    assert found["versions"]["llvmlite"] and not found["skipped"] and not found["others"]

    (work,) = found["steps"].values()
    assert (work["batch"], work["length"], work["tokens"]) == (4, 8, 32) and work["floor_ms"] > 0
    assert set(work["contenders"]) == {"tx"}
    row = work["contenders"]["tx"]
    assert row["waits"] == 0 and row["ratio"] == 1 and row["losses_apart"] == 0
    assert all(row[name] > 0 for name in ("median_ms", "host_ms", "held_gb", "tokens_per_s"))
    monkeypatch.setenv("TX_COMPILE", "0")
    assert row["losses"] == pytest.approx(on_the_cpu("tiny-gpt2"), rel=1e-5)

    (kernel,) = found["kernels"]
    assert kernel["kernel"] == "softmax 5x9 fp32" and kernel["bytes"] == 2 * 4 * 5 * 9
    floor = 1e3 * gpus.gpu("a100").seconds(kernel["bytes"], 0, "fp32")
    assert kernel["floor_ms"] == pytest.approx(floor, abs=1e-4)
    assert {"median_ms", "min_ms", "host_ms", "host_bound"} <= set(kernel["contenders"]["tx"])


def on_the_cpu(name: str) -> list[float]:
    """The first losses of a work of ours, in float32."""
    with default_device("cpu"):
        library, work = gpu_ours.Device("cpu"), WORKS[name]
        step = library.training(work, 0.0, "fp32")
        batches = islice(work.batches(), gpu_turns.CHECKED)
        return [library.sample(step(library.put(batch)), 1)[0] for batch in batches]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_all_of_it(here: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--tiny", "--against", "tx-eager,numpy", "--precision", precision]
    assert gpu.main([*arguments, "--gpu", "h200", "--out", str(here)]) == 0
    said = capsys.readouterr().err
    assert "numpy is left out: it has nothing for a GPU" in said and "[12/12] adamw" in said
    found = result(here)
    assert list(found["steps"]) == list(gpu.TINY_WORKS)
    assert [kernel["kernel"] for kernel in found["kernels"]] == [case.title for case in TINY]
    assert "cupy" in found["others"]["tx-eager"]
    for work in found["steps"].values():
        assert list(work["contenders"]) == ["tx", "tx-eager"] and work["floor_ms"] > 0
        assert all(row["losses_apart"] < 2e-3 for row in work["contenders"].values())
        assert work["contenders"]["tx"]["waits"] == 0
    for kernel in found["kernels"]:
        assert kernel["floor_ms"] > 0
        assert all("median_ms" in row for row in kernel["contenders"].values())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_what_has_been_measured_stays_when_it_is_stopped(here: Path) -> None:
    arguments = command(here, "--only", "linear,attention+grad,softmax")
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert running.stderr.readline().startswith("[1/3] linear ")
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does, to all of its processes
        out, said = running.communicate()
    assert running.returncode == 130, said
    assert "stopped: what has been measured is kept" in said and "Traceback" not in said
    measured = [kernel["kernel"] for kernel in result(here)["kernels"]]
    assert 1 <= len(measured) < 3 and all(title in out for title in measured)


# What is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--only", "gpt3"], "argument --only: gpt3 is none of gpt2-124m, transformer-base, "),
        (["--only", "gpt2-124m"], "argument --only: gpt2-124m goes without --tiny"),
        (["--gpu", "h20"], "argument --gpu: GPU 'h20' is unknown here: did you mean h200?"),
        (["--batch", "0"], "argument --batch: '0' is not a number of 1 or more"),
        (["--batch", "many"], "argument --batch: 'many' is not a number of 1 or more"),
        (["--repeats", "-1"], "argument --repeats: '-1' is not a number of 1 or more"),
        (["--against", "numpy2"], "argument --against: numpy2 is none of tx, "),
    ],
)
def test_a_wrong_argument_is_said_in_a_line(
    wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--tiny", *wrong])
    assert ended.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err.splitlines()[-1]


def test_tiny_works_need_tiny(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--only", "tiny-gpt2"])
    assert "argument --only: tiny-gpt2 needs --tiny" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_known_before(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write_text("a file", encoding="utf-8")
    assert gpu.main([*ALONE, "--only", "softmax", "--out", str(here)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("benchmarks.gpu: --out: ") and str(here) in said


@pytest.mark.parametrize(
    ("missing", "why"), [("driver", "the CUDA driver does not answer"), ("device", "sees no GPU")]
)
def test_a_machine_without_a_gpu(
    missing: str,
    why: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lacking(missing, monkeypatch)
    assert gpu.main([*ALONE, "--out", str(here)]) == 2
    out, said = capsys.readouterr()
    assert said.startswith('benchmarks.gpu needs a GPU: device "cuda": ') and why in said
    assert said.count("\n") == 1 and not out and not here.exists()


def test_a_machine_without_cupy(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'import sys\n\nsys.modules["cupy"] = None\n'
    (here.parent / "sitecustomize.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (here.parent, ROOT))))
    assert gpu.main([*ALONE, "--out", str(here)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith('benchmarks.gpu needs a GPU: device "cuda"') and "pip install" in said


def test_full_memory_is_said_and_is_no_failure(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking("memory", monkeypatch)
    assert gpu.main([*ALONE, "--only", "tiny-gpt2", "--out", str(here)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"tiny-gpt2: tx: {FULL}"
    row = result(here)["steps"]["tiny-gpt2"]["contenders"]["tx"]
    assert row["refused"] == FULL and "Out of memory allocating" in row["details"]


def lacking(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes find a machine that lacks it."""
    if stand_in() != "double":
        pytest.skip("only the double lacks things when it is told to")
    monkeypatch.setenv("CUPY_DOUBLE", what)


# Contenders of made-up numbers -----------------------------------------------------------------


class Numbers:
    """contract.Device: steps have the given losses, the last one for ever, and kernels the given
    results. fails: raises what makes a request fail."""

    def __init__(
        self,
        losses: tuple[float, ...] = (4.0, 3.9, 3.8),
        results: tuple[float, ...] = (1.0, 2.0),
        fails: Callable[[], None] = lambda: None,
    ) -> None:
        self.calls = 0
        self._losses, self._results, self._fails = losses, list(results), fails

    def training(self, *what: object) -> Callable[[Any], list[float]]:
        self._fails()
        losses = chain(self._losses, repeat(self._losses[-1]))

        def step(batch: object) -> list[float]:
            self.calls += 1
            time.sleep(1e-4)
            return [next(losses)]

        return step

    def kernel(self, *what: object) -> Callable[[], list[float]]:
        self._fails()

        def call() -> list[float]:
            time.sleep(1e-4)
            return self._results

        return call

    def put(self, batch: Any) -> Any:
        return batch

    def sample(self, found: list[float], count: int) -> list[float]:
        return found

    def wait(self) -> None: ...

    def forget(self) -> None: ...

    def held(self) -> int:
        return 10**9

    def waits(self, call: Callable[[], Any]) -> int:
        call()
        return 0


class Contenders:
    """Their processes, which are objects here. open: names of those that have not been ended;
    begun: of all that there have been. After a failure a process answers nothing more."""

    def __init__(self, devices: Mapping[str, Any]) -> None:
        self.open: list[str] = []
        self.begun: list[str] = []
        self._devices = devices

    def __call__(self, name: str, *settings: object, program: str) -> Any:
        contenders, device = self, self._devices[name]

        class Process(Actor):
            def __init__(self) -> None:
                super().__init__(name)
                self.name, self._device, self._ended = name, device, False
                contenders.open.append(name)
                contenders.begun.append(name)

            def do(self, what: str, **arguments: Any) -> Any:
                try:
                    if self._ended:
                        raise BrokenPipeError
                    return getattr(self, what)(**arguments)
                except Exception:
                    self._ended = True
                    raise WorkerError(f"{name}:\n{traceback.format_exc()}") from None

            def close(self) -> None:
                if name in contenders.open:
                    contenders.open.remove(name)

        return Process()


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A function that gives contenders these devices, and makes the Run and their processes."""
    made: list[Contenders] = []

    def begin(devices: Mapping[str, Numbers]) -> tuple[Run, Contenders]:
        made.append(Contenders(devices))
        monkeypatch.setattr(gpu_turns, "Worker", made[-1])
        found: dict[str, Any] = {"steps": {}, "kernels": []}
        return Run(1, 0.0, 2, "fp32", None, found, lambda: tmp_path, len(devices)), made[-1]

    yield begin
    assert all(not contenders.open for contenders in made), "a process was not ended"


def steps(run: Run, *names: str) -> dict[str, Any]:
    gpu_turns.steps(run, "tiny-gpt2", names, {"batch": 2})
    assert run.done == len(names)
    rows: dict[str, Any] = run.found["steps"]["tiny-gpt2"]["contenders"]
    return rows


@pytest.mark.parametrize("wrong", [3.85, math.nan])
def test_who_has_other_losses_is_not_timed(
    wrong: float, contest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """By 1.3 percent; 0.8 are let through."""
    other = Numbers((4.0, 3.9, wrong))
    run, contenders = contest({"tx": Numbers(), "torch": other, "jax": Numbers((4.03, 3.9, 3.8))})
    rows = steps(run, "tx", "torch", "jax")
    assert "median_ms" not in rows["torch"] and str(wrong) in rows["torch"]["refused"]
    assert other.calls == gpu_turns.CHECKED
    assert rows["jax"]["losses_apart"] == pytest.approx(0.0075)
    assert rows["jax"]["ratio"] > 0 and "alone" not in rows["jax"]
    assert contenders.begun == ["tx", "torch", "jax"]  # ours has stayed
    assert gpu.report(run.found)
    out, said = capsys.readouterr()
    assert "tiny-gpt2: torch: its losses are [4.0, 3.9, " in said and "7.5e-03" in out


def test_where_ours_is_wrong_the_others_are_measured(contest: Any) -> None:
    run, _ = contest({"tx": Numbers((4.0, math.nan)), "torch": Numbers()})
    rows = steps(run, "tx", "torch")
    assert rows["tx"]["refused"] == "its losses are [4.0, nan, nan]"
    assert rows["torch"]["losses_apart"] == 0 and rows["torch"]["median_ms"] > 0
    assert rows["torch"]["alone"] and rows["torch"]["ratio"] is None
    assert gpu.report(run.found)


def test_who_has_no_room_beside_ours_is_measured_alone(
    contest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def beside() -> None:
        if "tx" in contenders.open:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def never() -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    run, contenders = contest(
        {"tx": Numbers(), "torch": Numbers(fails=beside), "jax": Numbers(fails=never)}
    )
    rows = steps(run, "tx", "torch", "jax")
    assert rows["torch"]["alone"] and rows["torch"]["ratio"] > 0
    assert rows["jax"]["refused"] == FULL and "RESOURCE_EXHAUSTED" in rows["jax"]["details"]
    assert not gpu.report(run.found)
    out, said = capsys.readouterr()
    assert f"tiny-gpt2: jax: {FULL}" in said and " alone" in out


def test_a_process_that_fails_takes_nothing_with_it(contest: Any) -> None:
    def fails() -> None:
        raise RuntimeError("no kernel image is available")

    run, _ = contest({"tx": Numbers(), "torch": Numbers(fails=fails), "jax": Numbers()})
    rows = steps(run, "tx", "torch", "jax")
    assert rows["torch"]["refused"] == "failed: RuntimeError: no kernel image is available"
    assert rows["jax"]["ratio"] > 0


def test_kernels_that_differ_or_fail_are_left_out(
    contest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of both cases is measured for whoever can, by a new process after a failure."""
    failures = iter([RuntimeError("an illegal memory access was encountered")])

    def once() -> None:
        for failure in failures:
            raise failure

    devices = {
        "tx": Numbers(fails=once),
        "tx-eager": Numbers(results=(1.0, 2.01)),
        "torch": Numbers(results=(1.0, math.nan)),
    }
    run, contenders = contest(devices)
    cases = [case for case in TINY if case.kernel in ("softmax", "matmul")]
    gpu_turns.kernels(run, cases, list(devices))
    bf16, fp32 = (kernel["contenders"] for kernel in run.found["kernels"])
    assert bf16["tx"]["refused"].endswith("an illegal memory access was encountered")
    assert bf16["tx-eager"]["ratio"] == 1  # nobody else is left
    assert fp32["tx"]["ratio"] == 1  # 0.5% is too much in fp32, not in bf16
    assert fp32["tx-eager"]["refused"].endswith("its results are 5.0e-03 apart from ours")
    for rows in (bf16, fp32):
        assert rows["torch"]["refused"].endswith("its results are inf apart from ours")
    assert contenders.begun.count("tx") == 2
    assert gpu.report(run.found)
    assert "softmax 5x9 fp32: torch: failed: " in capsys.readouterr().err
