"""benchmarks/: works are what they say, programs run on tiny ones and write whole results, and all
contenders that are installed do the same work. Nothing here looks at a clock."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from benchmarks import (
    common,
    compile_time,
    contenders,
    decode,
    eager,
    first_step,
    gpu,
    gpu_kernels,
    gpu_ours,
    gpu_turns,
    kernels,
    memory,
    ours,
    paired,
    plan,
    recurrent,
    scaling,
    train_step,
)
from benchmarks.common import interleave, present, summary
from benchmarks.works import (
    BOS,
    DECODINGS,
    EOS,
    FIRST_WORD,
    MEASURED,
    PAD,
    RECURRENT,
    WORKS,
    TransformerWork,
    weights,
)
from tinygrad_tx.compiler.inspect.loads import KINDS
from tinygrad_tx.compiler.inspect.machine import Machine
from tinygrad_tx.training import calibration

TINY = ("tiny", "tiny-gpt")
PROGRAMS = (train_step, plan, recurrent, decode, compile_time, memory, kernels, eager, gpu)
ALONE = ["--against", ""]


def result(directory: Path) -> dict[str, Any]:
    """The one result in a directory; it says where, with what and when it was measured."""
    (path,) = directory.glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == f"{found['benchmark']}-{found['what']}-{found['date']}.json"
    assert found["machine"]["cpu"] and found["machine"]["cores"] >= 1
    assert found["versions"]["numpy"] and found["versions"]["tinygrad_tx"]
    return found


# Works -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WORKS if name != "W3"])  # W3 is W2, larger
def test_weights_are_those_of_our_models(name: str) -> None:
    training = ours.Training(WORKS[name], dropout=0.0, shared=True)
    state = training.model.state_dict()
    shared = weights(WORKS[name])
    assert {k: t.shape for k, t in state.items()} == {k: x.shape for k, x in shared.items()}
    assert all((state[k].numpy() == x).all() for k, x in shared.items())


def test_flops_are_those_that_the_goals_were_set_by() -> None:
    floor = {name: WORKS[name].flops() / 500e9 * 1e3 for name in MEASURED}  # ms at 500 GFLOP/s
    known = {"W1": 22, "W2": 189, "W3": 606, "W4": 7.9, "W4b": 290}
    assert floor == pytest.approx(known, rel=0.02)


@pytest.mark.parametrize("name", WORKS)
def test_batches(name: str) -> None:
    work = WORKS[name]
    batch = next(work.batches())
    assert all((a == b).all() for a, b in zip(batch, next(work.batches()), strict=True))
    assert any((a != b).any() for a, b in zip(batch, next(work.batches(seed=1)), strict=True))
    assert all(x.shape == (work.batch, work.length) and x.dtype == np.int64 for x in batch)
    if not isinstance(work, TransformerWork):
        ids, targets = batch
        assert (ids[:, 1:] == targets[:, :-1]).all()
        return
    src, tgt_in, tgt_out = batch
    for x in batch:
        lengths = (x != PAD).sum(1)
        assert lengths.max() == work.length and lengths.min() >= work.length // 2
        assert ((x != PAD) == (np.arange(work.length) < lengths[:, None])).all()
    assert (src[src != PAD] >= FIRST_WORD).all()
    for given, wanted in zip(tgt_in, tgt_out, strict=True):
        n = (wanted != PAD).sum()
        assert given[0] == BOS and wanted[n - 1] == EOS
        assert (given[1:n] == wanted[: n - 1]).all() and (given[n:] == PAD).all()


def test_a_translation_has_more_than_one_word() -> None:
    case = DECODINGS["tiny"]
    found = ours.Translator(case)(case.sources())
    assert found.tokens.shape == (case.batch, case.new_tokens)
    assert len(set(found.tokens[0])) > 1 and EOS not in found.tokens
    scores = ours.rescore(case, found.tokens).sum(1)
    assert found.scores == pytest.approx(scores, abs=1e-3)


# Turns and arguments ---------------------------------------------------------------------------


def test_contenders_are_what_they_are_called() -> None:
    for c in contenders.CONTENDERS.values():
        for role in (c.training, c.translator, c.kernel, c.recurrent, c.embedder, c.gpu):
            module, _, name = role.partition(":")
            assert bool(module) == bool(name)
    eager = contenders.CONTENDERS["tx-eager"]
    assert eager.environment == {"TX_COMPILE": "0"} and not eager.recurrent


def test_a_result_says_by_which_command_it_was_made() -> None:
    program = str(Path(common.__file__).parent / "recurrent.py")
    found = common.command_line([program, "--work", "lstm", "--out", "/some/where"])
    assert found == "python -m benchmarks.recurrent --work lstm --out where"
    assert common.command_line(["pytest", "-q"]) == ""


def test_turns_are_interleaved_and_paired() -> None:
    order: list[str] = []

    def run(name: str, times: list[float]) -> Any:
        def seconds(count: int) -> list[float]:
            order.append(name)
            return [times[min(order.count(name), len(times)) - 1]] * count

        return seconds

    noisy = [1.0, 1.0, 9.0, 1.0]  # of the first, untimed turn and three others
    runs = {"tx": run("tx", noisy), "other": run("other", [2 * t for t in noisy])}
    turns = interleave(runs, repeats=3)
    assert order == ["tx", "other"] * 4
    assert [len(turn) for turn in turns["tx"]] == [3, 3, 3]
    found = summary(turns, "tx")
    assert found["other"] == {"median_ms": 2000.0, "min_ms": 2000.0, "ratio": 2.0}
    assert found["tx"]["ratio"] == 1.0


def test_who_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "installed", lambda package: None if package == "torch" else "1")
    assert present(["torch", "jax", "tx", "ctranslate2"], "training") == ["tx", "jax"]
    said = capsys.readouterr().err
    assert "torch is not installed" in said and "ctranslate2 has no training" in said


@pytest.mark.parametrize("program", (*PROGRAMS, scaling))
def test_help_has_examples(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    assert ended.value.code == 0
    assert f"python -m {program.__name__}" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--against", "nobody"], ["--threads", "0"]])
@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_arguments(program: Any, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(wrong)
    assert ended.value.code == 2


def test_a_process_that_has_ended_is_an_error_and_can_be_closed(tmp_path: Path) -> None:
    worker = common.Worker("tx", 1, tmp_path, program="benchmarks.nobody")
    for _ in range(2):
        with pytest.raises(common.WorkerError, match=r"^tx: its process"):
            worker.do("facts")
    worker.close()


def test_tuned_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = contenders.tuned_environment(tmp_path)
    assert "LD_PRELOAD" not in found and found["MALLOC_MMAP_MAX_"] == "0"


# Programs --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("work", ["tiny", "tiny-gpt"])
def test_train_step(work: str, tmp_path: Path) -> None:
    arguments = ["--work", work, "--repeats", "2", "--threads", "1,2", "--out", str(tmp_path)]
    assert train_step.main([*ALONE, *arguments]) == 0
    found = result(tmp_path)
    assert [run["threads"] for run in found["runs"]] == [1, 2]
    for run in found["runs"]:
        assert run["agree"]
        times = run["contenders"]["tx"]
        assert set(times) == {"median_ms", "min_ms", "ratio", "gflops", "loss_apart"}
        assert len(run["losses_without_dropout"]["tx"]) == train_step.CHECKED_STEPS


@pytest.mark.slow
@pytest.mark.slow  # a compiled step by one process, and by two
@pytest.mark.skipif(find_spec("mpi4py") is None, reason="mpi4py is missing")
@pytest.mark.skipif(
    not (Path(sys.executable).parent / "mpiexec").exists() or find_spec("mpi4py") is None,
    reason='mpi4py or mpiexec is missing: pip install "tinygrad_tx[mpi]"',
)
def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks take the steps of one, and send what is on paper."""
    kinds = dict.fromkeys(KINDS, 0.0) | {"product": 1e-10}
    machine = Machine("a processor", 1, kinds, 3e-6, 1e-4, 1e-6, 1e8, 1e4, 3e7)
    monkeypatch.setattr(calibration, "calibrate", lambda say: machine)
    monkeypatch.setattr(scaling, "SECONDS", 0.0)
    threads = tx.get_num_threads()
    given = ["--work", "tiny", "--ranks", "1,2", "--repeats", "1", "--out", str(tmp_path)]
    try:
        assert scaling.main(given) == 0
        with pytest.raises(common.WorkerError, match="take fewer ranks"):
            scaling.main(["--work", "tiny", "--ranks", "5"])
    finally:
        tx.set_num_threads(threads)
    [run] = result(tmp_path)["runs"]
    one, two = run["rows"]
    assert run["agree"] and two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert one["losses"][0] != one["losses"][1]
    assert one["given_mb"] == one["paper_given_mb"] == one["exposed_ms"] == 0
    assert two["given_mb"] == two["paper_given_mb"] > 0 < two["network"]["bandwidth"]


def test_recurrent(tmp_path: Path) -> None:
    arguments = ["--work", "tiny-lstm", "--repeats", "1", "--threads", "1", "--out", str(tmp_path)]
    assert recurrent.main([*ALONE, *arguments]) == 0
    (run,) = result(tmp_path)["runs"]
    assert run["agree"] and run["contenders"]["tx"]["loss_apart"] == 0
    shared, state = weights(RECURRENT["tiny-lstm"]), ours.RecurrentTraining(RECURRENT["tiny-lstm"])
    assert list(shared) == list(state.model.state_dict())


def test_decode(tmp_path: Path) -> None:
    assert decode.main([*ALONE, "--case", "tiny", "--repeats", "1", "--out", str(tmp_path)]) == 0
    (run,) = result(tmp_path)["runs"]
    assert run["agree"] and set(run["contenders"]) == {"tx"}


def test_differences_are_judged() -> None:
    class Judge:
        def do(self, what: str, case: str, tokens: list[list[int]]) -> list[list[float]]:
            return [[-t for t in row] for row in tokens]  # the log-probability of token t is -t

    a, b = ({"tokens": [[1, 2], [1, last]]} for last in (3, 4))
    judge: Any = Judge()
    assert decode.differences("greedy-32", judge, a, a) == []
    (found,) = decode.differences("greedy-32", judge, a, b)
    assert found == {"row": 1, "place": 1, "gap": 1, "near_tie": False}


@pytest.mark.slow
def test_compile_time(tmp_path: Path) -> None:
    assert compile_time.main([*ALONE, "--work", "tiny", "--out", str(tmp_path)]) == 0
    (run,) = result(tmp_path)["runs"]
    found = run["contenders"]["tx"]
    assert {"cold_s", "warm_s", "new_shape_s"} <= set(found)
    for which in ("stats_cold", "stats_warm", "stats_new_shape"):
        assert {"trace_s", "rewrite_s", "compile_s"} <= set(found[which])
    assert found["stats_new_shape"]["retraces"] == 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="VmHWM is Linux's")
def test_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that is said to be known, held to real steps."""
    kinds = dict.fromkeys(KINDS, 0.0) | {"product": 1e-10}
    machine = Machine("a processor", 2, kinds, 3e-6, 1e-4, 1e-6, 1e8, 1e4, 3e7)
    monkeypatch.setattr(calibration, "calibrate", lambda say: machine)
    assert plan.main(["--work", "tiny-gpt", "--out", str(tmp_path)]) == 0
    [row] = result(tmp_path)["runs"]
    assert row["work"] == "tiny-gpt" and row["median_ms"] > 0 < row["peak_mb"]
    off = row["predicted_ms"] / row["median_ms"] - 1
    assert row["time_off"] == pytest.approx(off, rel=0.1, abs=0.01)


def test_memory(tmp_path: Path) -> None:
    assert memory.main([*ALONE, "--work", "tiny", "--steps", "2", "--out", str(tmp_path)]) == 0
    (run,) = result(tmp_path)["runs"]
    assert run["growth_mib"]["tx"] > 0


def test_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = (
        kernels.gemm(8, 6, 4),
        kernels.gemm_bt(8, 6, 4),
        kernels.softmax(5, 7),
        kernels.layer_norm(5, 7),
        kernels.attention(2, 2, 5, 4),
        kernels.attention_grad(2, 2, 5, 4),
    )
    assert {case.kernel for case in small} == set(kernels.KERNELS)
    monkeypatch.setattr(kernels, "CASES", small)
    monkeypatch.setattr(common, "TURN_S", 0.0)
    arguments = ["--against", "numpy", "--repeats", "1", "--out", str(tmp_path)]
    assert kernels.main(arguments) == 0
    (run,) = result(tmp_path)["runs"]
    assert all(set(row["contenders"]) == {"tx", "numpy"} for row in run["kernels"])


# Peers, where they are installed ---------------------------------------------------------------


@pytest.mark.parametrize("work", TINY)
@pytest.mark.parametrize(("package", "module"), [("torch", "peers_torch"), ("jax", "peers_jax")])
def test_peers_take_the_same_steps(package: str, module: str, work: str) -> None:
    pytest.importorskip(package)
    peer = import_module(f"benchmarks.{module}")
    training = [kind(WORKS[work], 0.0, True) for kind in (ours.Training, peer.Training)]
    batches = WORKS[work].batches()
    for _ in range(4):
        batch = next(batches)
        a, b = (step(batch) for step in training)
        assert a == pytest.approx(b, rel=1e-5)


def test_peers_take_the_same_recurrent_steps() -> None:
    pytest.importorskip("torch")
    peer = import_module("benchmarks.peers_torch")
    work = RECURRENT["tiny-lstm"]
    training = [kind(work) for kind in (ours.RecurrentTraining, peer.RecurrentTraining)]
    for batch, _ in zip(work.batches(), range(3), strict=False):
        a, b = (step(batch) for step in training)
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize(
    ("package", "module", "apart"),
    [("torch", "peers_torch_decoding", 1e-3), ("ctranslate2", "peers_ctranslate2", 0.2)],
)
def test_peers_translate_alike(
    package: str, module: str, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    case = DECODINGS["tiny"]
    a = ours.Translator(case)(case.sources())
    b = import_module(f"benchmarks.{module}").Translator(case)(case.sources())
    assert (a.tokens == b.tokens).all()
    assert a.scores == pytest.approx(b.scores, abs=apart)


ON_GPUS = [
    pytest.param("torch", "gpu_torch", "Device", id="torch"),
    pytest.param(
        "torch", "gpu_torch", "CompiledDevice", id="torch-compile", marks=pytest.mark.slow
    ),
    pytest.param("jax", "gpu_jax", "Device", id="jax", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-5), ("bf16", 1e-3)])
@pytest.mark.parametrize("work", gpu.TINY_WORKS)
@pytest.mark.parametrize(("package", "module", "kind"), ON_GPUS)
def test_peers_on_a_gpu_take_the_same_steps(
    package: str, module: str, kind: str, work: str, precision: str, close: float
) -> None:
    """Their code, on the CPU; that of ours on a GPU is in tests/gpu/test_benchmark.py."""
    pytest.importorskip(package)
    devices = (gpu_ours.Device, getattr(import_module(f"benchmarks.{module}"), kind))
    ours, theirs = (losses(device("cpu"), work, precision) for device in devices)
    assert theirs == pytest.approx(ours, rel=close)


def losses(device: Any, work: str, precision: str) -> list[float]:
    """Those of the first steps."""
    step = device.training(WORKS[work], 0.0, precision)
    batches = islice(WORKS[work].batches(), 4)
    return [number for batch in batches for number in device.sample(step(device.put(batch)), 1)]


@pytest.mark.parametrize("case", gpu_kernels.TINY, ids=lambda case: case.title)
def test_peers_kernels_on_a_gpu_give_the_same(case: gpu_kernels.Case) -> None:
    """In float32, and in its own precision as closely as the benchmark demands; on the CPU."""
    pytest.importorskip("torch")
    devices = (gpu_ours.Device("cpu"), import_module("benchmarks.gpu_torch").Device("cpu"))
    arrays = gpu_kernels.inputs(case.kernel, case.shapes)
    for precision, close in (("fp32", 1e-5), (case.precision, gpu_kernels.TOLERANCE["bf16"])):
        ours, theirs = (
            device.sample(device.kernel(case.kernel, precision, arrays)(), 500)
            for device in devices
        )
        assert len(ours) > 1 and gpu_turns._apart(theirs, ours) < close


@pytest.mark.slow
def test_two_checkouts_take_turns(tmp_path: Path) -> None:
    arguments = ["--before", str(common.ROOT), "--work", "tiny", "--case", "", "--repeats", "2"]
    assert paired.main([*arguments, "--out", str(tmp_path)]) == 0
    times = result(tmp_path)["runs"][0]["contenders"]
    assert times.keys() == {"before", "now"} and times["now"]["ratio"] == 1
    with pytest.raises(SystemExit):
        paired.main(["--before", str(tmp_path)])


@pytest.mark.slow
def test_eager(tmp_path: Path) -> None:
    before = str(Path(__file__).parents[1])  # a checkout beside itself
    arguments = [*ALONE, "--repeats", "1", "--before", before, "--out", str(tmp_path)]
    assert eager.main(arguments) == 0
    found = result(tmp_path)
    assert list(found["cases"]) == list(eager.CASES)
    assert all(set(row) == {"tx", "before"} for row in found["cases"].values())


@pytest.mark.slow
def test_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Phases of a cold, a warm and a new shape's first step."""
    assert first_step.main(["--work", "tiny"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("tiny: CPU seconds") and len(rows) == 3
    for name in ("cold       now", "warm       now", "new shape  now"):
        (row,) = (r for r in rows if r.strip().startswith(name))
        assert len(row.split()[-5:]) == 5 and float(row.split()[-1]) > 0
