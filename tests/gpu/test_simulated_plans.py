"""Whole plans for a GPU on the simulator: what is compiled for it is what eager code computes, and
what the processor's kernels compute, mostly to the bit.

An ordinary run takes 200 random graphs; `TX_FUZZ=2000 pytest tests/gpu/test_simulated_plans.py -k
fuzzer` takes that many new ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")
import ptxas
from random_graphs import PROGRAMS, SMALL, Machine, Program, kept, require_same, sizes
from simulator.device import NAME, Simulator, apart, install

import tinygrad_tx as tx
from benchmarks import ours
from benchmarks.works import WORKS
from tinygrad_tx import drawing, random
from tinygrad_tx.backends.kernels.kinds import Gemm, Scored
from tinygrad_tx.compiler.compiled import Compiled
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.nn import functional as F  # noqa: N812

MANY = int(os.environ.get("TX_FUZZ", "0"))


@pytest.fixture(scope="module", autouse=True)
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with mock.patch.dict(os.environ, TX_CACHE_DIR=str(tmp_path_factory.mktemp("cache"))):
        yield install()


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    yield
    tx.set_default_device("cpu")


# Random graphs ---------------------------------------------------------------------------------


@given(PROGRAMS, st.booleans(), st.booleans())
@settings(
    max_examples=MANY or 200,
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_fuzzer(program: Program, small: bool, alone: bool) -> None:
    """small: with small limits of fusing. alone: each value in memory of its own."""
    program = kept(program)
    tx.set_default_device("cpu")
    wanted = Machine(program).run(compiled=False)
    tx.set_default_device(NAME)
    try:
        with sizes(SMALL if small else {}), apart() if alone else nullcontext():
            found = Machine(program).run(compiled=True)
    finally:
        tx.set_default_device("cpu")
    require_same(found, wanted, program, "simulated")


@pytest.mark.parametrize("inner", [(3,), (2, 5), (64,)])
def test_masks_of_some_rows_of_a_batch(inner: tuple[int, ...]) -> None:
    tx.manual_seed(5)
    whole = drawing.bernoulli_keep((9, *inner), 0.3).numpy()
    tx.set_default_device(NAME)
    for first, count in ((4, 2), (5, 4)):
        tx.manual_seed(5)
        with random.drawing_for(random.Rows(first, count, 9)):
            part = tx.compile(lambda n=count: drawing.bernoulli_keep((n, *inner), 0.3))()
        assert (part.numpy() == whole[first : first + count]).all()


# Steps of training -------------------------------------------------------------------------------


def steps(model: tx.nn.Module, loss: Callable[..., tx.Tensor], count: int, *given: Any) -> Any:
    """The losses of some steps, the state after them, and the compiled step."""
    device = next(iter(model.parameters())).device
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-2)

    @tx.compile
    def step(*batch: tx.Tensor) -> tx.Tensor:
        optimizer.zero_grad()
        found = loss(model, *batch)
        found.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return found

    batch = [tx.tensor(x, device=device) for x in given]
    losses = [step(*batch).item() for _ in range(count)]
    return losses, {n: p.numpy() for n, p in model.state_dict().items()}, step


def both(make: Callable[[], tx.nn.Module], loss: Any, count: int, *given: Any) -> list[Any]:
    """The same on the processor and on the simulator."""
    found = []
    for device in ("cpu", NAME):
        tx.manual_seed(5)
        found.append(steps(make().to(device), loss, count, *given))
    return found


def runs_kernels(step: Compiled) -> bool:
    return isinstance(step._plan(), Execution)


def test_a_step_has_the_bits_of_the_processors() -> None:
    """Maps, reductions of rows and columns, products with epilogues, dropout, checked indices,
    updates of several parameters in one launch: all that is exact."""

    def make() -> tx.nn.Module:
        layers = tx.nn.Linear(20, 33), tx.nn.GELU(), tx.nn.LayerNorm(33), tx.nn.Dropout(0.1)
        return tx.nn.Sequential(*layers, tx.nn.Linear(33, 7))

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 20)).astype("f"), rng.integers(0, 7, 9)
    ours = both(make, lambda model, x, y: F.cross_entropy(model(x), y), 4, x, y)
    (losses, state, _), (found, other, step) = ours
    assert losses == found and runs_kernels(step)
    for name, value in state.items():
        np.testing.assert_array_equal(other[name], value, name)


def test_a_gpt_trains_as_on_the_processor(simulator: Simulator) -> None:
    config = tx.models.GPTConfig(23, 2, 2, 24, 16, dropout=0.1)
    ids = np.random.default_rng(0).integers(0, 23, (3, 11))

    def loss(model: Any, ids: tx.Tensor) -> tx.Tensor:
        return model.loss(ids[:, :-1], ids[:, 1:])

    (losses, state, _), (found, other, step) = both(lambda: tx.models.GPT(config), loss, 3, ids)
    assert runs_kernels(step)
    np.testing.assert_allclose(found, losses, rtol=2e-6)
    for name, value in state.items():
        np.testing.assert_allclose(other[name], value, atol=3e-5, err_msg=name)
    words = [call.kernel.word for call in step._plan().plan.calls()]
    assert {"gemm", "gemm+", "attention", "attentionquerygrad", "attentionkeygrad"} <= set(words)
    before = simulator.launches
    step(tx.tensor(ids, device=NAME)).item()
    assert simulator.launches - before < len(words)  # updates of parameters share launches


def test_attention_draws_its_dropout() -> None:
    """Its streams are counted on the host, and no mask of the size of the scores is in memory."""
    rng = np.random.default_rng(0)
    x, padding = rng.standard_normal((2, 9, 16)).astype("f"), np.arange(9) < [[9], [6]]

    def loss(model: Any, x: tx.Tensor, padding: tx.Tensor) -> tx.Tensor:
        return (model(x, x, x, padding.reshape(2, 1, 1, 9)) ** 2).sum()

    def make() -> tx.nn.Module:
        return tx.nn.MultiHeadAttention(16, 2, dropout=0.3)

    (losses, state, _), (found, other, step) = both(make, loss, 3, x, padding)
    np.testing.assert_allclose(found, losses, rtol=2e-6)
    for name, value in state.items():
        np.testing.assert_allclose(other[name], value, atol=3e-5, err_msg=name)
    words = [call.kernel.word for call in step._plan().plan.calls()]
    assert "attentionkeygrad" in words and "keep" not in words


@pytest.mark.parametrize("inside", [True, False])
def test_tf32(inside: bool) -> None:
    """Products and attention, and those of their gradients, round their operands, wherever the
    gradient is taken."""
    rng = np.random.default_rng(0)
    given = rng.standard_normal((2, 6, 12)).astype("f")

    class Model(tx.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm = tx.nn.Conv1d(12, 12, 3, padding=1), tx.nn.LSTM(12, 16)
            self.attention = tx.nn.MultiHeadAttention(16, 2)

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            x = self.lstm(self.conv(x.mT).mT)[0]
            return (self.attention(x, x, x) ** 2).mean()

    tx.manual_seed(3)
    model = Model()
    wanted = model(tx.tensor(given))
    wanted.backward()
    grads = {name: p.grad.numpy() for name, p in model.named_parameters()}
    model.to(NAME).zero_grad()

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        with tx.autocast("tf32"):
            loss = model(x)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        return loss

    found = step(tx.tensor(given, device=NAME)).item()
    assert runs_kernels(step) and found == pytest.approx(wanted.item(), rel=5e-3)
    assert found != pytest.approx(wanted.item(), rel=1e-6)
    for name, p in model.named_parameters():
        most = abs(grads[name]).max()
        np.testing.assert_allclose(p.grad.numpy(), grads[name], atol=5e-3 * most, err_msg=name)
    kernels = [getattr(x, "product", x) for x in (c.kernel for c in step._plan().plan.calls())]
    multiplying = [x for x in kernels if isinstance(x, (Gemm, Scored))]
    assert len(multiplying) > 10 and all(x.tf32 for x in multiplying)


def test_a_loop_has_the_bits_of_the_processors() -> None:
    """A recurrent cell: launches of every round, with words of their own."""
    found = []
    for device in ("cpu", NAME):
        tx.manual_seed(1)
        cell = tx.nn.LSTM(6, 8).to(device)

        @tx.compile
        def step(x: tx.Tensor, cell: Any = cell) -> tx.Tensor:
            out, _ = cell(x)
            loss = (out * out).sum()
            loss.backward()
            return loss

        x = np.random.default_rng(2).standard_normal((2, 9, 6)).astype("f")
        loss = step(tx.tensor(x, device=device))
        assert runs_kernels(step)
        found.append([loss.numpy(), *(p.grad.numpy() for p in cell.parameters())])
    for wanted, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [tx.float32, tx.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("columns", [1, 1024, 1025, 2048, 2049, 4097, 9000])
def test_rows_of_any_length_have_the_bits_of_the_processors(columns: int, dtype: tx.DType) -> None:
    """Of a part of a block of sums, of one, of some; of a warp, of all warps of a block. With two
    results for each column, and with so many that there is room for one column at a time."""

    @tx.compile
    def few(x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        return x.sum(-1), x.max(-1)[0], x.argmax(-1), x - x.sum(-1, keepdim=True), (x * x).sum(-1)

    @tx.compile
    def many(x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        scaled = [x * i for i in range(1, 13)]
        return (*scaled, *(y.sum(-1) for y in scaled))

    x = np.random.default_rng(0).standard_normal((3, columns))
    x[:, : columns // 3] = -0.0
    for f in (few, many):
        found = [[y.numpy() for y in f(tx.tensor(x, dtype, device=d))] for d in ("cpu", NAME)]
        assert runs_kernels(f)
        for wanted, got in zip(*found, strict=True):
            assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("dtype", [tx.float32, tx.float64], ids=lambda d: d.name)
def test_more_operands_than_registers_keep(dtype: tx.DType, rows: int) -> None:
    """Their addresses are read in each row: of blocks with several rows, strides and broadcasting;
    with a result that is written in the middle of another Tensor."""
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((rows, 33)) for _ in range(11)]
    shapes = [(33,), (rows, 1), (rows, 33), (1, 33)] * 3

    @tx.compile
    def f(cache: tx.Tensor, at: tx.Tensor, *xs: tx.Tensor) -> tuple[tx.Tensor, ...]:
        total, made = xs[0], []
        for x in xs[1:]:
            total = (total * x).tanh() + x
            made.append(total)
        cache[at] = total[0]
        return (*made[::3], total.sum(-1), cache.clone())

    others = [rng.standard_normal(shape) for shape in shapes]
    found = []
    for device in ("cpu", NAME):
        given = [tx.tensor(x, dtype, device=device) for x in (*arrays, *others)]
        cache = tx.zeros(4, 33, dtype=dtype, device=device)
        found.append([y.numpy() for y in f(cache, tx.tensor(2, device=device), *given)])
    assert runs_kernels(f)
    for wanted, got in zip(*found, strict=True):
        assert got.tobytes() == wanted.tobytes()


def decoded(device: str) -> list[list[int]]:
    tx.manual_seed(3)
    model = tx.models.GPT(tx.models.GPTConfig(23, 2, 2, 24, 32)).eval().to(device)
    found = tx.decoding.generate(model, [[3, 4, 5], [7]], max_new_tokens=6)
    return [best.tokens for best, *_ in found]


def test_words_are_drawn_and_decoded_as_on_the_processor() -> None:
    assert decoded(NAME) == decoded("cpu")


# Works of the benchmarks -------------------------------------------------------------------------


def worked(name: str, batch: int) -> list[list[float]]:
    """The losses of two steps of a work on the processor and on the simulator."""
    work, found = replace(WORKS[name], batch=batch), []
    for device in ("cpu", NAME):
        tx.set_default_device(device)
        tx.manual_seed(0)
        training = ours.Training(work, getattr(work, "dropout", 0.0), shared=True)
        batches = work.batches()
        found.append([training(next(batches)) for _ in range(2)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), [("W1", 4), ("W4", 2)])
def test_a_work_is_that_of_the_processor(name: str, batch: int) -> None:
    with apart():
        wanted, found = worked(name, batch)
    np.testing.assert_allclose(found, wanted, rtol=2e-6)


@contextmanager
def unrun() -> Iterator[list[ptxas.Case]]:
    """Plans are made, but nothing is computed and no result is looked at. Gives their kernels, each
    once."""
    cases: dict[ptxas.Case, None] = {}

    def load(self: Simulator, *case: Any) -> None:
        cases[case] = None

    nothing = {"load": load, "launch": lambda *args: None}
    unseen = mock.patch.dict(globals(), require_same=lambda *args: None)
    with mock.patch.multiple(Simulator, **nothing), unseen:
        found: list[ptxas.Case] = []
        yield found
        found += cases


@pytest.mark.ptxas
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ptxas.ARCHITECTURES)
def test_ptxas_takes_every_kernel_of_plans(architecture: str, tmp_path: Path) -> None:
    """Those of all graphs of the fuzzer, of W1 and W4 as above, of a decoding step."""
    ptxas.find()
    with unrun() as cases:
        test_fuzzer()
        worked("W1", 4)
        worked("W4", 2)
        decoded(NAME)
    assert len(cases) > 400
    for start in range(0, len(cases), 40):
        ptxas.require(cases[start : start + 40], architecture, tmp_path)


# Indices that are outside ------------------------------------------------------------------------


def test_state_is_as_it_was_after_an_index_outside() -> None:
    """Nobody waits for a run: three are given after the one that fails."""
    table, count = tx.ones(4, 2, device=NAME), tx.zeros(1, device=NAME)
    kept = tx.zeros(3000, device=NAME)

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        count.assign(count + 1)
        found = F.embedding(ids, table).sum()
        table.assign(table * 2)
        kept.assign(kept + found)
        return found

    def given(*ids: int) -> tx.Tensor:
        return tx.tensor(list(ids), device=NAME)

    def state() -> list[Any]:
        return [x.numpy().tolist() for x in (count, table, kept[:1])]

    assert step(given(1, 2)).item() == 4
    before = state()
    with pytest.raises(IndexError, match=r"^take: index -5 is outside the 4 entries"):
        for ids in ((1, -5), (1, 2), (0, 0), (3, 9)):
            lost = step(given(*ids))
        lost.item()
    assert state() == before
    assert step(given(1, 2)).item() == 8 and count.item() == 2


def test_the_steps_before_it_stay() -> None:
    state = tx.zeros(2000, device=NAME)
    holder = [state.detach()]  # so that the first run makes it anew

    @tx.compile
    def step(i: tx.Tensor) -> tx.Tensor:
        found = state[i]
        state.assign(state + 1)
        return found

    good, bad = (tx.tensor([i], device=NAME) for i in (7, 2000))
    with pytest.raises(IndexError, match="index 2000 is outside the 2000 entries"):
        for i in (good, good, good, bad, good):
            last = step(i)
        last.item()
    assert state[5].item() == 3 and holder[0].numpy().sum() == 0


def test_an_index_outside_in_a_round_of_loops() -> None:
    """The error names what that round has looked at."""
    table, x = tx.ones(4, device=NAME), tx.zeros(3, device=NAME)

    @tx.compile
    def f(ids: tx.Tensor) -> tx.Tensor:
        def outer(c: tx.Tensor, row: tx.Tensor) -> Any:
            return tx.scan(lambda c, i: (c + table[i], None), c, row)[0], None

        return tx.scan(outer, x, ids)[0]

    ids = np.zeros((2, 5, 3), np.int64)
    assert f(tx.tensor(ids, device=NAME)).tolist() == [10, 10, 10]
    assert runs_kernels(f)
    ids[1, 3, 2] = 7
    lost = f(tx.tensor(ids, device=NAME))
    with pytest.raises(IndexError, match=r"^take: index 7 is outside the 4 entries"):
        lost.numpy()
