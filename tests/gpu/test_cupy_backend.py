"""The CuPy backend: what it needs and says when that is missing, where it waits for the device,
indices that are outside, orders, and where CuPy's meaning is not NumPy's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in
from device_models import MODELS
from training_runs import SMALL

import tinygrad_tx as tx
from tinygrad_tx import backends, nn
from tinygrad_tx.backends.arrays.numpy_backend import NumpyBackend
from tinygrad_tx.errors import DeviceError
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
DOUBLE = Path(__file__).parent / "double"


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.fixture
def waits() -> Callable[[], int]:
    """How often the host has waited for the device."""
    return stand_in.waits


def cuda(values: Any, dtype: str = "float32") -> tx.Tensor:
    return tx.tensor(np.asarray(values, dtype), device="cuda")


# What is needed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("driver", r"driver does not answer \(cudaErrorInsufficientDriver: .*update the NVIDIA"),
        ("device", r"the driver sees no GPU; if there is one, is CUDA_VISIBLE_DEVICES empty\?"),
        ("nvrtc", r"cannot compile a kernel \(ImportError: .*libnvrtc.*tinygrad_tx\[cuda13\]"),
        ("cublas", r"cannot multiply matrices \(ImportError: .*libcublas.*tinygrad_tx\[cuda13\]"),
        ("full", r"the memory of the GPU is full \(Out of memory allocating 512 bytes.*another"),
        ("version=13.6.0", r"needs CuPy 14 or newer, and 13.6.0 is installed: pip install"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    missing: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinygrad_tx.backends.arrays import cupy_backend

    if not hasattr(cupy_backend.cupy, "counts"):
        pytest.skip("only the double lacks things when it is told to")
    monkeypatch.setenv("CUPY_DOUBLE", missing)
    if missing.startswith("version"):
        monkeypatch.setattr(cupy_backend.cupy, "__version__", missing.partition("=")[2])
    with pytest.raises(DeviceError, match=f'^device "cuda".*{message}') as raised:
        cupy_backend.load()
    assert "\n" not in str(raised.value)


def on_a_machine_without(missing: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinygrad_tx", *command],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(DOUBLE), str(ROOT)]),
            "CUPY_DOUBLE": missing,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_doctor_runs_a_kernel_of_ours() -> None:
    done = on_a_machine_without("", "doctor")
    assert "device cuda   ready (CupyBackend)" in done.stdout, done.stdout + done.stderr
    assert "code on cuda  ready (PTX for sm_90)" in done.stdout


def test_doctor_is_never_ready_where_a_kernel_would_fail() -> None:
    done = on_a_machine_without("nvrtc", "doctor")
    assert done.returncode == 0, done.stderr
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("device cuda")]
    assert "not available: " in line and "libnvrtc" in line and "ready" not in line


@pytest.mark.parametrize(
    ("missing", "message"), [("device", "sees no GPU"), ("memory", "out of memory")]
)
def test_the_command_line_says_it_in_one_line(missing: str, message: str) -> None:
    done = on_a_machine_without(
        missing, "train", "--device", "cuda", "--max-steps", "1", "--set", *SMALL
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("tinygrad-tx: ")
    assert message in done.stderr.splitlines()[-1]


def test_the_extras_bring_what_a_kernel_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert extras["cuda12"] == ["cupy-cuda12x[ctk]>=14.0"]
    assert extras["cuda13"] == ["cupy-cuda13x[ctk]>=14.0"]


def test_a_method_of_a_backend_comes_before_the_shared_function() -> None:
    class Own(NumpyBackend):
        def where(self, condition: Any, x: Any, y: Any) -> str:
            return "own"

    assert Own().where(True, 1, 2) == "own"  # type: ignore[comparison-overlap]
    assert NumpyBackend().where is np.where


# Waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_training_step_waits_once_and_for_its_loss(
    waits: Callable[[], int], compiled: bool
) -> None:
    tx.manual_seed(0)
    config = tx.models.GPTConfig(20, 2, 2, 16, 8, dropout=0.1)
    model = tx.models.GPT(config).to("cuda")
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-2)

    def step(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        loss = model.loss(ids, targets)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = tx.compile(step) if compiled else step
    ids = cuda([[3, 4, 5, 6]], "int64")
    run(ids, ids).item()
    before = waits()
    loss = run(ids, ids)
    assert waits() == before
    loss.item()
    assert waits() - before == 1


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_a_model_does_not_wait(waits: Callable[[], int], name: str) -> None:
    case, rng = MODELS[name], np.random.default_rng(0)
    model = case.make().to("cuda")
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = tx.optim.AdamW(learnt)
    batch = [tx.tensor(a, device="cuda") for a in case.batch(rng)]
    for _ in range(2):  # its constants are there after the first
        before = waits()
        loss = model.loss(*batch)
        loss.backward()
        tx.optim.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert waits() == before
    assert loss.isfinite().item()


def test_gathers_and_writes_do_not_wait(waits: Callable[[], int]) -> None:
    x, i = cuda(np.arange(12.0).reshape(4, 3)), cuda([1, -1, 1], "int64")
    v, j = cuda(np.ones((3, 3))), cuda([[0, 2, 1]], "int64")
    p = tx.tensor(2, device="cuda")
    before = waits()
    y = x[i]
    y = y + x[:3].gather(1, j.expand(3, 3))
    z = x * 1
    z[i] = v
    z[i, i * 0] = v[:, 0]
    cache = tx.ops.UPDATE(z, v[:2], p, axis=0)
    tx.ops.INDEX_ADD(z, i, v, axis=0), tx.ops.SCATTER_ADD(j, v[:1], shape=(1, 5), axis=1)
    assert waits() == before
    assert cache.tolist() == [[0, 1, 2], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert waits() == before + 1


# Indices that are outside ------------------------------------------------------------------------


def test_the_error_comes_with_the_next_wait_and_names_the_first_entry() -> None:
    x = cuda(np.arange(4.0))
    y = x[cuda([1, 7, -9], "int64")]
    z = x[cuda([5], "int64")] + y.sum()
    with pytest.raises(
        IndexError, match=r"^take: index 7 is outside the 4 entries it chooses from"
    ):
        z.numpy()
    assert x.tolist() == [0, 1, 2, 3]  # and the device goes on


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, i: x[i], "take: index 99 is outside the 4 entries"),
        (lambda x, i: x.gather(0, i), "take_along: index 99 is outside the 4 entries"),
        (lambda x, i: tx.ops.INDEX_ADD(x, i, x[:1], axis=0), "index_add: index 99 is"),
        (lambda x, i: tx.ops.INDEX_PUT(x, i, x[:1], axis=0), "index_put: index 99 is"),
        (lambda x, i: tx.ops.SCATTER_ADD(i, x[:1], shape=(4,), axis=0), "scatter_add: index 99"),
        (lambda x, i: tx.ops.UPDATE(x, x[:2], i[0], axis=0), "update: a write of 2 at position 99"),
        (lambda x, i: F.cross_entropy(x.reshape(1, 4), i), "cross_entropy: index 99 is outside"),
        (lambda x, i: F.embedding(i, x.reshape(4, 1)), "take: index 99 is outside"),
        (lambda x, i: x.reshape(2, 2)[i * 0, i], "wrap_index: index 99 is outside the 2 entries"),
        (lambda x, i: x[:0][i], "take: index 99 is outside the 0 entries"),
        (
            lambda x, i: nn.GRU(1, 2).to("cuda")(x.reshape(4, 1, 1), lengths=i)[0],
            "GRU: lengths: index 99 is outside the 5 entries",
        ),
    ],
)
def test_each_op_names_itself(call: Callable[..., tx.Tensor], message: str) -> None:
    with pytest.raises(IndexError, match=f"^{message}"):
        call(cuda(np.arange(4.0)), cuda([99], "int64")).numpy()


def test_a_negative_id_is_outside_where_it_does_not_count_from_the_end() -> None:
    with pytest.raises(IndexError, match=r"^take: index -1 is outside the 4 entries"):
        F.embedding(cuda([0, -1], "int64"), cuda(np.ones((4, 2)))).numpy()


def test_nothing_is_written_to_places_that_are_not_there() -> None:
    x = cuda(np.arange(4.0))
    x[cuda([99], "int64")] = 7.0
    with pytest.raises(IndexError):
        tx.zeros(1, device="cuda").numpy()
    assert x.tolist() == [0, 1, 2, 3]


def test_a_compiled_step_that_is_refused_changes_nothing() -> None:
    table, count = cuda(np.ones((4, 2))), tx.zeros(1, device="cuda")

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        count.assign(count + 1)
        table.assign(table * 2)
        return F.embedding(ids, table).sum()

    assert step(cuda([1, 2], "int64")).item() == 8
    for _ in range(2):
        lost = step(cuda([1, 4], "int64"))  # nobody waits for it
        with pytest.raises(IndexError, match=r"^take: index 4 is outside the 4 entries"):
            lost.item()
        assert count.tolist() == [1] and table.tolist() == [[2, 2]] * 4
    step(cuda([1, 4], "int64"))
    with pytest.raises(IndexError, match=r"^take: index 4 is outside the 4 entries"):
        step(cuda([1, 2], "int64"))  # the next call knows, at the latest where the host waits
        backends.get("cuda").synchronize()
    assert count.tolist() == [1] and table.tolist() == [[2, 2]] * 4
    assert step(cuda([1, 2], "int64")).item() == 16


def test_many_checks_before_a_wait() -> None:
    x = cuda(np.arange(4.0))
    for _ in range(700):
        x = x[cuda([1, 2, 3, 0], "int64")]
    assert x.tolist() == [0, 1, 2, 3]
    x = x[cuda([1, 2, 3, 4], "int64")]
    with pytest.raises(IndexError, match="index 4 is outside"):
        for _ in range(700):
            x = x[cuda([1, 2, 3, 0], "int64")]


def test_each_thread_hears_of_its_own_indices() -> None:
    heard: dict[str, Any] = {}
    barrier = threading.Barrier(2)

    def work(name: str, index: int) -> None:
        x = cuda(np.arange(4.0))[cuda([index], "int64")]
        barrier.wait()
        try:
            heard[name] = x.tolist()
        except IndexError as error:
            heard[name] = str(error)

    threads = [threading.Thread(target=work, args=a) for a in (("good", 2), ("bad", 9))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard["good"] == [2.0] and "index 9 is outside" in heard["bad"]


# Where CuPy's meaning is not NumPy's -----------------------------------------------------------

NAN = {"float32": ("u4", 0xFFC00000), "float64": ("u8", 0xFFF8 << 48), "float16": ("u2", 0xFE00)}


def with_nans(dtype: str) -> np.ndarray[Any, Any]:
    """1, -NaN, -1, NaN, inf, -0, 0, -inf."""
    word, bits = NAN[dtype]
    negative = np.array([bits], word).view(dtype)[0]
    return np.array([1, negative, -1, np.nan, np.inf, -0.0, 0, -np.inf], dtype)


@pytest.mark.parametrize("dtype", NAN)
def test_a_nan_with_a_sign_is_sorted_last(dtype: str) -> None:
    given = with_nans(dtype)
    for x in (tx.tensor(given, device="cuda"), tx.tensor(given[None], device="cuda")):
        assert x.argsort(-1).reshape(-1).tolist() == [7, 2, 5, 6, 0, 4, 1, 3]
        assert x.argsort(-1, descending=True).reshape(-1).tolist() == [1, 3, 4, 0, 5, 6, 2, 7]
        assert x.topk(3, -1)[1].reshape(-1).tolist() == [1, 3, 4]


def test_bfloat16_is_chosen_and_sorted() -> None:
    x = tx.tensor([1.0, float("nan"), -2.0, 3.0], dtype=tx.bfloat16, device="cuda")
    assert x.argsort().tolist() == [2, 0, 3, 1] and x.topk(2)[1].tolist() == [1, 3]
    y = tx.where(x > 0, x, 0.0)
    assert y.dtype == tx.bfloat16 and y.tolist() == [1, 0, 0, 3]
    for f in (F.gelu, F.silu, F.relu, tx.Tensor.sigmoid, tx.Tensor.exp, lambda t: t.clip(-1, 1)):
        here, there = f(x.to("cpu")), f(x)
        assert there.dtype == tx.bfloat16
        np.testing.assert_allclose(
            there.float().numpy(), here.float().numpy(), rtol=1e-2, atol=1e-2
        )


@pytest.mark.parametrize(
    ("a", "b", "dtype", "quotient", "rest"),
    [
        ([1.0, 7.0], [0.1, 0.1], "float64", [9.0, 69.0], [1 - 9 * 0.1 - 2**-54, None]),
        ([5.0, -5.0], [np.inf, np.inf], "float32", [0.0, -1.0], [5.0, np.inf]),
        ([1e8, 123456792.0], [0.1, 7.0], "float32", [999999984.0, 17636684.0], [None, 4.0]),
        ([5, -5], [0, 0], "int64", [0, 0], [0, 0]),
        ([5.0, -5.0], [0.0, 0.0], "float32", [np.inf, -np.inf], [np.nan, np.nan]),
        ([7, -7, 7, -7], [2, 2, -2, -2], "int32", [3, -4, -4, 3], [1, 1, -1, -1]),
    ],
)
def test_quotients(a: Any, b: Any, dtype: str, quotient: Any, rest: Any) -> None:
    here = [tx.tensor(np.array(v, dtype)) for v in (a, b)]
    there = [t.to("cuda") for t in here]
    for f in (lambda x, y: x // y, lambda x, y: x % y):
        np.testing.assert_array_equal(f(*there).numpy(), f(*here).numpy())
    np.testing.assert_array_equal((there[0] // there[1]).numpy(), np.array(quotient, dtype))
    known = [i for i, r in enumerate(rest) if r is not None]
    got = (there[0] % there[1]).numpy()[known]
    np.testing.assert_allclose(got, np.array([rest[i] for i in known], dtype), rtol=1e-12)


def test_negative_powers_of_integers() -> None:
    x, p = np.array([2, 1, -1, -1, 3]), np.array([-1, -1, -1, -2, 3])
    want = (tx.tensor(x) ** tx.tensor(p)).tolist()
    assert want == [0, 1, -1, 1, 27]
    assert (tx.tensor(x, device="cuda") ** tx.tensor(p, device="cuda")).tolist() == want


def test_floats_as_integers() -> None:
    given = np.array([np.nan, np.inf, -np.inf, 1e20, -1e20, 3e9, 2.9, -2.9], "float32")
    for dtype in (tx.int32, tx.int64, tx.bool_):
        there = tx.tensor(given, device="cuda").to(dtype).tolist()
        assert there == tx.tensor(given).to(dtype).tolist()


def test_pictures_leave_out_which_stream_is_next() -> None:
    """The number goes to the device for attention, which drops inside."""
    drop, x = nn.Dropout(0.5), tx.ones(1, 2, 3, 4, device="cuda")

    def attend(x: tx.Tensor) -> tx.Tensor:
        return drop(F.scaled_dot_product_attention(drop(x), x, x, dropout_p=0.5)).sum()

    drawn = tx.viz.graph(attend, x).dot
    assert "attention" in drawn and "int64 ()" not in drawn
