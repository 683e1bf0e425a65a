"""Products of compiled functions by cuBLASLt: a stand-in for the library takes part in launches and
in captured graphs on CuPy's stand-ins. On a GPU the first test runs the library itself."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from fake_cublaslt import FakeCublasLt

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.backends.gpu import cublaslt
from tinygrad_tx.backends.gpu.cublaslt import FastPath
from tinygrad_tx.backends.kernels.kinds import Gemm
from tinygrad_tx.compiler.compiled import Compiled
from tinygrad_tx.errors import UserError
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu
N = 64  # rows and columns: large here
Use = Callable[..., Any]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    backends.get("cuda")
    monkeypatch.setattr(cublaslt, "_LEAST", N**3)
    monkeypatch.delenv("TX_CUBLASLT", raising=False)


def enqueue() -> Callable[[Callable[[], None]], None] | None:
    """What has a stand-in's stream do something; None on a GPU."""
    import cupy

    if hasattr(cupy, "counts"):
        return cupy._device.enqueue  # type: ignore[no-any-return]
    on_cpu = sys.modules.get("cupy_on_cpu")
    return on_cpu.enqueue if on_cpu else None


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Has functions that are compiled from now on use a FastPath that looks for a library anew."""
    from tinygrad_tx.backends.gpu import cupy_device

    def use(find: Callable[[], Any] = cublaslt.find) -> FastPath:
        driver: Any = cupy_device.host().driver
        path = FastPath(cupy_device.CupyProducts(driver), find)
        monkeypatch.setattr(driver, "products", path)
        return path

    return use


@pytest.fixture
def library(use: Use) -> FakeCublasLt:
    """The stand-in, which is used. Where it does something is in `products`."""
    stream = enqueue()
    if stream is None:
        pytest.skip("the stand-in for cuBLASLt reads no GPU's memory")
    found = FakeCublasLt(enqueue=stream)
    use(lambda: found)
    return found


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A graph for each capture."""
    from tinygrad_tx.backends.gpu.cupy_device import CupyTable

    made: list[Any] = []
    capture = CupyTable._captured

    def noted(*args: Any) -> Any:
        made.append(capture(*args))
        return made[-1]

    monkeypatch.setattr(CupyTable, "_captured", noted)
    return made


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host hears of an index where it waits, as it may on a GPU, not before the next run."""
    from tinygrad_tx.backends.gpu.cupy_device import CupyReports

    monkeypatch.setattr(CupyReports, "_arrived", lambda self: False)


@pytest.fixture
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def cuda(seed: int, *shape: int, dtype: Any = tx.bfloat16) -> tx.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype("f")
    return tx.tensor(values, device="cuda").to(dtype)


def product_of(*tensors: tx.Tensor) -> np.ndarray[Any, Any]:
    x, y = (t.float().numpy() for t in tensors)
    return x @ y


def near(found: Any, wanted: Any, rounding: float = 2.0**-7) -> bool:
    """Within one rounding to 16 bits of the largest number."""
    return bool(np.max(abs(found - wanted)) <= rounding * np.max(abs(wanted)))


def sums(w: tx.Tensor) -> Compiled:
    """A large product that lies in the arena, of a matrix that is given, and more."""

    @tx.compile
    def f(x: tx.Tensor, more: tx.Tensor) -> tx.Tensor:
        return (x @ w).float().sum(-1) + more

    return f


# Results -----------------------------------------------------------------------------------------


def trained(precision: str) -> tuple[list[float], list[Any], str]:
    """The losses of four steps on other inputs, the weights after them, and what is said of it."""
    tx.manual_seed(0)
    layers = (tx.nn.Linear(N, 2 * N, bias=False), tx.nn.Linear(2 * N, N, bias=False))
    model = tx.nn.Sequential(layers[0], tx.nn.GELU(), layers[1]).to("cuda")
    optimizer = tx.optim.SGD(model.parameters(), lr=10.0)

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            y = model(x).float()
        loss = ((y - x) * (y - x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(cuda(i, 2 * N, N, dtype=tx.float32)).item() for i in range(4)]
    return losses, [p.numpy() for p in model.parameters()], step.explain()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_is_that_of_our_own_kernels(
    precision: str, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = enqueue()
    fake = FakeCublasLt(enqueue=stream) if stream else None
    if fake is None and cublaslt.find() is None:
        pytest.skip("cuBLASLt is not there")
    path = use((lambda: fake) if fake else cublaslt.find)
    losses, weights, said = trained(precision)
    assert not path.off and "runs as a CUDA graph, captured once" in said
    assert "cuBLASLt makes 3 of its products" in said
    assert fake is None or fake.products == 4 * 3 + 4  # four are trials
    monkeypatch.setenv("TX_CUBLASLT", "0")
    ours, wanted, said = trained(precision)
    assert "cuBLASLt" not in said
    np.testing.assert_allclose(losses, ours, rtol=2e-3)
    for found, weight in zip(weights, wanted, strict=True):
        assert near(found, weight, 1e-3)


def test_exact_products_are_ours(library: FakeCublasLt) -> None:
    x, w = (cuda(i, N, N, dtype=tx.float32) for i in range(2))

    @tx.compile
    def f(x: tx.Tensor) -> tx.Tensor:
        return x @ w

    assert near(f(x).numpy(), product_of(x, w), 1e-5)
    assert not library.calls and "cuBLASLt" not in f.explain()


@pytest.mark.usefixtures("no_warnings")
def test_it_can_be_switched_off(library: FakeCublasLt, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, more = cuda(0, N, N), cuda(1, N, N), cuda(2, N, dtype=tx.float32)
    monkeypatch.setenv("TX_CUBLASLT", "0")
    for _ in range(3):
        assert near(sums(w)(x, more).numpy(), product_of(x, w).sum(-1) + more.numpy())
    assert not library.calls
    monkeypatch.setenv("TX_CUBLASLT", "1")
    sums(w)(x, more)
    assert library.products
    monkeypatch.setenv("TX_CUBLASLT", "no")
    with pytest.raises(UserError, match=r"^TX_CUBLASLT=no: it must be 0 or 1$"):
        sums(w)(x, more)


@pytest.mark.usefixtures("no_warnings")
def test_without_the_library_products_are_ours_and_it_is_said(use: Use) -> None:
    use(lambda: None)
    x, w, more = cuda(0, N, N), cuda(1, N, N), cuda(2, N, dtype=tx.float32)
    f = sums(w)
    assert near(f(x, more).numpy(), product_of(x, w).sum(-1) + more.numpy())
    assert "cuBLASLt makes none of its products: it is not installed" in f.explain()


# Graphs ------------------------------------------------------------------------------------------


def test_a_graph_is_captured_for_addresses_that_come_again(
    library: FakeCublasLt, captures: list[Any]
) -> None:
    w = cuda(9, N, N)
    xs, mores = [cuda(i, N, N) for i in range(11)], [cuda(i, N, dtype=tx.float32) for i in range(4)]
    f = sums(w)

    def run(i: int, more: int = 0) -> int:
        """The graphs that have been captured, after a run."""
        before = library.products
        found = f(xs[i], mores[more]).numpy()
        assert library.products == before + (1 if before else 5)  # four are trials
        assert near(found, product_of(xs[i], w).sum(-1) + mores[more].numpy())
        return len(captures)

    assert run(0) == 0 and library.streams == {0}
    assert [run(0), run(0)] == [1, 1]  # the third run is timed, as single launches
    assert library.streams > {0}  # the one that is captured
    assert [run(0, 1), run(0, 2), run(0, 3)] == [1, 1, 1]  # what our own kernels read moves
    assert [run(1), run(0), run(1)] == [1, 1, 2]
    assert [run(i) for i in (0, 1, 0, 1, 1, 0)] == [2] * 6
    assert "captured 2 times" in f.explain() and "cuBLASLt makes 1 of its" in f.explain()
    assert [run(i) for i in (*range(2, 11), *range(2, 11))] == [2] * 18  # too many to be kept
    assert [run(10), run(10)] == [3, 3]


def test_addresses_that_do_not_come_again(library: FakeCublasLt, captures: list[Any]) -> None:
    w, more = cuda(9, N, N), cuda(1, N, dtype=tx.float32)
    f, xs = sums(w), [cuda(i, N, N) for i in range(3)]
    f(xs[0], more)
    assert "as yet: the second run makes a CUDA graph" in f.explain()
    for x in xs[1:]:
        assert near(f(x, more).numpy(), product_of(x, w).sum(-1) + more.numpy())
    assert "single launches: products of cuBLASLt's have other addresses in" in f.explain()
    assert not captures and library.products == 4 + 3  # four are trials


def test_a_graph_without_such_products_is_captured_once(
    library: FakeCublasLt, captures: list[Any]
) -> None:
    w = cuda(9, N, N // 2)  # narrow
    f, more = sums(w), cuda(1, N, dtype=tx.float32)
    for i in range(6):
        x = cuda(i, N, N)
        assert near(f(x, more).numpy(), product_of(x, w).sum(-1) + more.numpy())
    assert len(captures) == 1 and not library.calls


# A library that fails ----------------------------------------------------------------------------


def test_a_library_that_disagrees_is_left_with_one_warning(library: FakeCublasLt) -> None:
    library.error = 0.5
    x, w, more = cuda(0, N, N), cuda(1, N, N), cuda(2, N, dtype=tx.float32)
    f, g = sums(w), sums(w)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(5):
            found = f(x, more), g(x, more)
            for y in found:
                assert near(y.numpy(), product_of(x, w).sum(-1) + more.numpy())
    (warning,) = [x for x in said if "cuBLASLt" in str(x.message)]
    assert "products are our own code's from now on" in str(warning.message)
    assert "makes none of its products: cuBLASLt's products of bfloat16 differ" in f.explain()
    assert library.products == 1  # of the trial


@pytest.mark.parametrize("capturing", [False, True])
def test_a_library_that_fails_later(
    capturing: bool, library: FakeCublasLt, captures: list[Any]
) -> None:
    x, w, more = cuda(0, N, N), cuda(1, N, N), cuda(2, N, dtype=tx.float32)
    f, wanted = sums(w), product_of(x, w).sum(-1) + more.numpy()
    assert near(f(x, more).numpy(), wanted) and library.products == 5
    library.statuses["cublasLtMatmul"] = 13
    other = x if capturing else cuda(3, N, N)
    with pytest.warns(UserWarning, match="cublasLtMatmul could not run"):
        y = f(other, more)
    assert near(y.numpy(), product_of(other, w).sum(-1) + more.numpy())
    for _ in range(4):
        assert near(f(x, more).numpy(), wanted)
    assert library.products == 5 and "could not run" in f.explain()
    assert len(captures) == 1 + capturing  # ours alone, at last


# Indices that are outside ------------------------------------------------------------------------


def looked_up() -> Compiled:
    table = cuda(0, 4, 2)

    @tx.compile
    def look(ids: tx.Tensor) -> tx.Tensor:
        return F.embedding(ids, table).sum()

    return look


def ids(*values: int) -> tx.Tensor:
    return tx.tensor(list(values), device="cuda")


@pytest.mark.usefixtures("late")
def test_state_is_as_it_was_after_an_index_outside(library: FakeCublasLt) -> None:
    """Products over state are ours; the library goes on with others, and nobody sees them."""
    x, w, look = cuda(1, N, N), cuda(2, N, N), looked_up()
    whole, part, more = (tx.zeros(N, N, dtype=tx.bfloat16, device="cuda") for _ in range(3))

    @tx.compile
    def write(scale: tx.Tensor) -> None:
        whole.assign((x * scale) @ w)  # written where it lies
        y = (w * scale) @ x
        part.assign(part + y.float().sum(-1, keepdim=True).to(tx.bfloat16))

    @tx.compile
    def both(i: tx.Tensor, scale: tx.Tensor) -> tx.Tensor:
        row = F.embedding(i, x)
        more.assign((w * scale) @ w)
        return row.sum()

    def state() -> list[Any]:
        return [t.float().numpy() for t in (whole, part, more)]

    one, two = (tx.tensor(v, dtype=tx.bfloat16, device="cuda") for v in (1.0, 2.0))
    for _ in range(3):
        write(one), both(ids(1), one), look(ids(1))
    assert written(write) == {"state", "arena"} and written(both) & {"state", "result"}
    before, products = state(), library.products
    assert near(before[0], product_of(x, w)) and near(before[2], product_of(w, w))
    with pytest.raises(IndexError, match="index 7 is outside the 4 entries"):
        look(ids(7))
        for _ in range(3):
            write(two), both(ids(1), two)
        backends.get("cuda").synchronize()
    assert library.products >= products + 3  # nothing has held it back
    for found, wanted in zip(state(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(IndexError, match="index 99 is outside the 64 entries"):
        both(ids(99), two).item()
    for found, wanted in zip(state(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    write(two), both(ids(1), two)
    assert near(state()[0], 2 * product_of(x, w)) and near(state()[2], 2 * product_of(w, w))


def written(f: Compiled) -> set[str]:
    """The roles of what products write."""
    plan: Any = f._plan()
    calls = [call for call in plan.plan.calls() if isinstance(call.kernel, Gemm)]
    return {plan.plan.roles[view.buffer] for call in calls for view in call.writes}


@pytest.mark.usefixtures("late")
def test_the_library_is_tried_behind_a_run_that_has_failed(library: FakeCublasLt, use: Use) -> None:
    """Our own kernels do nothing then, but for those of the trial."""
    x, w, more, look = cuda(0, N, N), cuda(1, N, N), cuda(2, N, dtype=tx.float32), looked_up()
    look(ids(1)).item()
    path, f = use(lambda: library), sums(w)
    with pytest.raises(IndexError, match="index 7 is outside the 4 entries"):
        look(ids(7))
        f(x, more)
        backends.get("cuda").synchronize()
    assert not path.off and library.products
    assert near(f(x, more).numpy(), product_of(x, w).sum(-1) + more.numpy())
