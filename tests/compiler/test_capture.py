"""tx.compile: what is traced, what is state, what is guarded, and what is refused."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import drawing
from tinygrad_tx.backends.cpu.jit import NativeUnavailable
from tinygrad_tx.compiler import MAX_PLANS
from tinygrad_tx.errors import GradError, TraceError
from tinygrad_tx.random import get_state


def array(x: tx.Tensor) -> np.ndarray:
    return x.numpy().copy()


class State:
    """A small regression with momentum and dropout, as free functions of Tensors."""

    def __init__(self) -> None:
        tx.manual_seed(3)
        self.w = tx.randn(4, 3).requires_grad_()
        self.m = tx.zeros(4, 3)
        self.steps = tx.tensor(0)
        self.lr = tx.tensor(0.05)

    def step(self, x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        h = x @ self.w
        h = h.where(drawing.bernoulli_keep(h.shape, 0.25), 0)
        loss = ((h - y) ** 2).mean()
        loss.backward()
        with tx.no_grad():
            self.m.assign(0.9 * self.m + self.w.grad)
            self.w.assign(self.w - self.lr * self.m)
            self.steps += 1
        self.w.grad = None
        return loss


def batch(i: int, rows: int = 5) -> tuple[tx.Tensor, tx.Tensor]:
    rng = np.random.default_rng(i)
    return (
        tx.tensor(rng.standard_normal((rows, 4)).astype("f")),
        tx.tensor(rng.standard_normal((rows, 3)).astype("f")),
    )


@pytest.mark.parametrize("mode", ["native", "interp", "replay"])
def test_a_training_step_equals_eager_and_never_traces_again(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit where the same forwards run op by op; kernels round otherwise."""
    monkeypatch.setenv("TX_COMPILE", mode)
    runs = []
    for compiled in (False, True):
        state = State()
        step = tx.compile(state.step) if compiled else state.step
        losses = []
        for i in range(20):
            if i == 10:
                state.lr.assign(0.01)  # a schedule between steps
            losses.append(step(*batch(i)).item())
        runs.append((losses, array(state.w), array(state.m), state.steps.item(), get_state()))
        if compiled:
            stats = step.stats()
            assert stats["retraces"] == 0 and stats["cache_hits"] == 19
            assert (stats["kernels"] > 20) == (mode == "replay")
            assert stats["peak_bytes"] > 0 and stats["trace_s"] > 0
    eager, traced = runs
    assert eager[3:] == traced[3:]
    for a, b in zip(eager[:3], traced[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0 if mode == "replay" else 2e-5, atol=1e-6)


def test_a_new_shape_is_one_more_plan() -> None:
    state = State()
    step = tx.compile(state.step)
    for rows in (5, 7, 5, 7, 5):
        step(*batch(0, rows))
    assert step.stats()["retraces"] == 1 and step.stats()["cache_hits"] == 3


def test_gradients_accumulate_across_calls() -> None:
    w = tx.ones(3, requires_grad=True)

    @tx.compile
    def add(x: tx.Tensor) -> None:
        (w * x).sum().backward()

    for i in range(1, 4):
        add(tx.full((3,), float(i)))
    assert w.grad is not None and w.grad.tolist() == [6.0, 6.0, 6.0]
    assert add.stats()["retraces"] == 1  # without a gradient, then with one
    first = w.grad
    add(tx.ones(3))
    assert w.grad is first and first.tolist() == [7.0, 7.0, 7.0]
    w.grad = tx.zeros(3)  # another Tensor in its place serves as well
    add(tx.ones(3))
    assert w.grad.tolist() == [1.0, 1.0, 1.0] and first.tolist() == [7.0, 7.0, 7.0]
    assert add.stats()["retraces"] == 1


def test_gradients_of_gradients_inside() -> None:
    w = tx.tensor([0.5, -1.0], requires_grad=True)

    def penalty(x: tx.Tensor) -> tx.Tensor:
        slope = tx.grad(lambda v: (v * w).tanh().sum())(x)
        loss = (slope * slope).sum()
        loss.backward()
        return loss

    x = tx.tensor([0.3, 0.7])
    eager = penalty(x).item()
    wanted = array(w.grad)
    w.grad = None
    assert tx.compile(penalty)(x).item() == pytest.approx(eager, rel=1e-6)
    np.testing.assert_allclose(w.grad.numpy(), wanted, rtol=1e-5)


def test_a_cache_given_as_an_argument_is_written_in_place() -> None:
    traces = []

    @tx.compile
    def write(cache: tx.Tensor, at: tx.Tensor, value: tx.Tensor) -> tx.Tensor:
        traces.append(1)
        cache[:, at] = value
        return cache.sum()

    cache = tx.zeros(2, 4)
    for i in range(4):
        assert write(cache, tx.tensor(i), tx.full((2,), i + 1.0)).item() == (i + 1) * (i + 2)
    assert cache.tolist() == [[1, 2, 3, 4]] * 2 and len(traces) == 1
    other = tx.zeros(2, 4)
    write(other, tx.tensor(0), tx.ones(2))
    assert other.tolist() == [[1, 0, 0, 0]] * 2 and cache.tolist() == [[1, 2, 3, 4]] * 2
    with pytest.raises(IndexError, match="position 9"):
        write(cache, tx.tensor(9), tx.ones(2))
    assert cache.tolist() == [[1, 2, 3, 4]] * 2


def test_an_argument_that_is_captured_too() -> None:
    held = tx.ones(2)

    @tx.compile
    def both(x: tx.Tensor) -> tx.Tensor:
        x += 1
        return held * 10 + x

    assert both(held).tolist() == [22.0, 22.0]  # one Tensor under two names, as in eager code
    assert held.tolist() == [2.0, 2.0]
    other = tx.zeros(2)
    assert both(other).tolist() == [21.0, 21.0]
    assert other.tolist() == [1.0, 1.0] and held.tolist() == [2.0, 2.0]
    assert both(held).tolist() == [33.0, 33.0]


def test_the_same_argument_twice() -> None:
    @tx.compile
    def change(a: tx.Tensor, b: tx.Tensor) -> tx.Tensor:
        a += 1
        return a + b

    x, y = tx.zeros(1), tx.zeros(1)
    assert change(x, y).item() == 1.0
    assert change(x, x).item() == 4.0
    assert change(x, y).item() == 3.0


def test_results_keep_their_structure_and_identity() -> None:
    held = tx.zeros(2)

    @tx.compile
    def many(x: tx.Tensor) -> dict[str, object]:
        twice = x * 2
        return {"list": [twice, (twice, None, 3)], "held": held, "x": x, "text": "a"}

    for _ in range(2):
        x = tx.ones(2)
        out = many(x)
        assert out["list"][0] is out["list"][1][0] and out["list"][1][1:] == (None, 3)
        assert out["held"] is held and out["x"] is x and out["text"] == "a"
        assert out["list"][0].tolist() == [2.0, 2.0]


def test_a_python_counter_is_the_documented_mistake() -> None:
    class Counter:
        calls = 0

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        Counter.calls += 1  # Python: runs while tracing, and is a constant of the plan
        return x * Counter.calls

    assert [step(tx.ones(1)).item() for _ in range(3)] == [1.0, 1.0, 1.0]
    assert Counter.calls == 1
    count = tx.tensor(0)

    @tx.compile
    def right(x: tx.Tensor) -> tx.Tensor:
        count.assign(count + 1)
        return x * count

    assert [right(tx.ones(1)).item() for _ in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.item(),
        lambda x: x.numpy(),
        lambda x: bool(x > 0),
        lambda x: float(x),
        lambda x: x.reshape(1)[x.reshape(1) > 0],
        lambda x: np.asarray(x),
        lambda x: x.tolist(),
    ],
)
def test_values_cannot_be_asked_for(look: object) -> None:
    with pytest.raises(TraceError, match="needs a value"):
        tx.compile(look)(tx.tensor(1.0))


def test_a_failed_trace_changes_nothing() -> None:
    w = tx.ones(2, requires_grad=True)
    w.grad = tx.full((2,), 5.0)
    cache = tx.zeros(3)
    tx.manual_seed(0)  # else the first number drawn seeds
    before = get_state()

    @tx.compile
    def fails(x: tx.Tensor) -> None:
        cache[0] = 1.0
        (w * x * tx.rand(2)).sum().backward()
        with tx.no_grad():
            w.assign(w * 2)
        w.grad = None
        raise KeyError("no")

    with pytest.raises(KeyError):
        fails(tx.ones(2))
    assert w.tolist() == [1.0, 1.0] and w.requires_grad and w.is_leaf
    assert w.grad.tolist() == [5.0, 5.0] and cache.tolist() == [0.0, 0.0, 0.0]
    assert get_state() == before


def test_a_failed_run_changes_nothing() -> None:
    table, calls = tx.ones(3, 2), tx.tensor(0)

    @tx.compile
    def look_up(ids: tx.Tensor) -> tx.Tensor:
        calls.assign(calls + 1)
        return table[ids]

    look_up(tx.tensor([0, 2]))
    with pytest.raises(IndexError, match="index 3 is outside the 3"):
        look_up(tx.tensor([0, 3]))
    assert calls.item() == 1


def test_a_leaked_tensor_says_so() -> None:
    kept = []
    tx.compile(lambda x: kept.append(x * 2))(tx.ones(2))
    with pytest.raises(TraceError, match="after its trace"):
        kept[0] + 1
    with pytest.raises(TraceError):
        kept[0].numpy()
    with pytest.raises(TraceError, match="after its trace"):
        tx.compile(lambda x: x + kept[0])(tx.ones(2))


def test_backward_belongs_inside() -> None:
    w = tx.ones(2, requires_grad=True)
    loss = tx.compile(lambda: (w * 2).sum())()
    with pytest.raises(GradError, match="inside"):
        loss.backward()
    outside = w * 2
    with pytest.raises(TraceError, match="computed outside"):
        tx.compile(lambda: (outside * 3).sum().backward())()


def test_gradients_go_through_where_a_history_is_wanted() -> None:
    def cube(x: tx.Tensor) -> tx.Tensor:
        return (x * x * x).sum()

    f, slope, at = tx.compile(cube), tx.compile(tx.grad(cube)), tx.tensor([1.0, 2.0])
    for _ in range(2):
        assert tx.grad(f)(at).tolist() == [3.0, 12.0]
        assert tx.value_and_grad(f)(at)[0].item() == 9.0
        assert tx.grad(lambda x: f(x) + x.sum())(at).tolist() == [4.0, 13.0]
        assert tx.compile(tx.grad(f))(at).tolist() == [3.0, 12.0]
        assert tx.grad(lambda x: slope(x).sum())(at).tolist() == [6.0, 12.0]
        assert f(at).item() == 9.0
    x = tx.tensor([1.0, 2.0], requires_grad=True)
    (f(x * 2) + x.sum()).backward()  # 8 x^3 + x
    assert x.grad is not None and x.grad.tolist() == [25.0, 97.0]
    runs = f.stats()["cache_hits"]
    with tx.no_grad():
        assert f(x * 2).item() == f(x.detach() * 2).item() == 72.0
    assert f.stats()["cache_hits"] > runs
    assert tx.gradcheck(f, tx.randn(3, dtype=tx.float64))


def test_guards() -> None:
    w = tx.ones(2)
    traces = []

    @tx.compile
    def f(x: tx.Tensor, *, scale: float = 1.0) -> tx.Tensor:
        traces.append(1)
        return x * w * scale

    x = tx.ones(2)
    f(x)
    f(x)
    assert len(traces) == 1
    f(x, scale=2.0)
    assert len(traces) == 2
    f(tx.ones(2, dtype=tx.float64))
    assert len(traces) == 3
    w.requires_grad_()
    f(x)
    assert len(traces) == 4
    with tx.no_grad():
        f(x)
    assert len(traces) == 5
    f(tx.ones(1))
    assert len(traces) == 6
    f(x)
    f(x, scale=2.0)  # w requires a gradient now
    assert len(traces) == 7
    with pytest.raises(TraceError, match="NumPy array"):
        f(np.ones(2))
    with pytest.raises(TraceError, match="argument 1"):
        f(x, scale={1, 2})


def test_a_static_bool_is_not_an_int() -> None:
    f = tx.compile(lambda x, flag: x + 1 if flag is True else x)
    assert f(tx.zeros(1), 1).item() == 0.0 and f(tx.zeros(1), True).item() == 1.0


def test_the_reason_of_a_retrace_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    f = tx.compile(lambda x: x + 1)
    with caplog.at_level("INFO", logger="tinygrad_tx.compiler"):
        f(tx.zeros(2))
        f(tx.zeros(3))
        f(tx.zeros(3, dtype=tx.int32))
    assert "shape (2,), is (3,)" in caplog.text and "dtype float32, is int32" in caplog.text


def test_the_number_of_plans_is_bounded() -> None:
    f = tx.compile(lambda x: x + 1)
    for n in range(1, MAX_PLANS + 10):
        f(tx.zeros(n))
    assert sum(map(len, f._plans.values())) == MAX_PLANS
    traces = f.stats()["retraces"]
    f(tx.zeros(MAX_PLANS + 5))
    assert f.stats()["retraces"] == traces
    f(tx.zeros(1))
    assert f.stats()["retraces"] == traces + 1


def test_what_numpy_and_detach_handed_out_stays() -> None:
    w = tx.zeros(2)
    step = tx.compile(lambda: w.assign(w + 1))
    step()
    seen, same = w.numpy(), w.detach()
    step()
    assert seen.tolist() == [1.0, 1.0] and same.tolist() == [1.0, 1.0]
    assert w.tolist() == [2.0, 2.0]


def test_a_function_inside_another_and_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tx.compile(lambda x: x * 2)
    outer = tx.compile(lambda x: inner(x) + 1)
    assert outer(tx.ones(1)).item() == 3.0
    assert inner.stats()["kernels"] == 0
    monkeypatch.setenv("TX_COMPILE", "0")
    eager = tx.compile(lambda x: x.item())
    assert eager(tx.ones(1)) == 1.0


def test_methods() -> None:
    class Model:
        def __init__(self, scale: float) -> None:
            self.w = tx.tensor(scale)

        @tx.compile
        def __call__(self, x: tx.Tensor) -> tx.Tensor:
            return x * self.w

    a, b = Model(2.0), Model(3.0)
    assert [m(tx.ones(1)).item() for m in (a, b, a)] == [2.0, 3.0, 2.0]


def test_constants_made_inside_start_anew_at_each_call() -> None:
    @tx.compile
    def f(x: tx.Tensor) -> tx.Tensor:
        total = tx.tensor([0.0, 1.0])
        total += x
        total[0] = total[0] * 2
        return total

    assert [f(tx.ones(2)).tolist() for _ in range(3)] == [[2.0, 2.0]] * 3


def test_arguments_are_not_kept_alive() -> None:
    f = tx.compile(lambda x: x * 2)
    x = tx.ones(1000)
    ref = weakref.ref(x)
    f(x)
    f(tx.ones(1000))
    del x
    gc.collect()
    assert ref() is None


def test_calls_from_threads_are_serialised() -> None:
    total = tx.tensor(0)

    @tx.compile
    def add(x: tx.Tensor) -> None:
        total.assign(total + x)

    def work() -> None:
        for _ in range(50):
            add(tx.tensor(1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert total.item() == 200


def test_other_threads_see_nothing_of_a_trace() -> None:
    w = tx.ones(2)
    started, seen = threading.Event(), threading.Event()
    values = []

    def other() -> None:
        started.wait(5)
        values.append((w + 1).tolist())
        seen.set()

    def f() -> tx.Tensor:
        w.assign(w * 5)
        started.set()
        seen.wait(5)
        return w + 0

    thread = threading.Thread(target=other)
    thread.start()
    out = tx.compile(f)()
    thread.join()
    assert values == [[2.0, 2.0]] and out.tolist() == [5.0, 5.0]


def test_explain_and_graph_name_ops_and_lines() -> None:
    f = tx.compile(lambda x: (x @ x.T).exp().sum())
    with pytest.raises(TraceError, match="first call"):
        f.explain()
    f(tx.ones(3, 2))
    text = f.explain()
    assert "matmul" in text and "f32[3,3]" in text and "test_capture.py" in text
    assert [n.op.name for n in f.graph()][-1] == "reshape"


def test_random_numbers_go_on_where_eager_code_left() -> None:
    f = tx.compile(lambda: (tx.rand(3), tx.randn(2), tx.randint(0, 10, (4,))))

    def draw(fn: object) -> list[list[float]]:
        tx.manual_seed(11)
        return [t.tolist() for _ in range(3) for t in (*fn(), tx.rand(2))]

    eager = draw(f.__wrapped__)
    assert draw(f) == eager
    assert draw(f) == eager and f.stats()["retraces"] == 0


def test_two_leaves_never_share_a_gradient_tensor() -> None:
    a, b = tx.ones(2, requires_grad=True), tx.ones(2, requires_grad=True)

    def f() -> None:
        (a + b).sum().backward()

    for run in (f, tx.compile(f)):
        a.grad = b.grad = None
        run()
        run()
        assert a.grad is not b.grad
        assert a.grad.tolist() == b.grad.tolist() == [2.0, 2.0]


def test_without_llvmlite_kernels_run_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NativeUnavailable("llvmlite is missing")

    monkeypatch.delenv("TX_TARGET", raising=False)
    monkeypatch.setattr("tinygrad_tx.backends.cpu.jit.host_target", missing)
    f = tx.compile(lambda x: (x @ x).softmax(-1).sum())
    with pytest.warns(UserWarning, match="llvmlite is missing; kernels run in NumPy"):
        assert f(tx.ones(3, 3)).item() == pytest.approx(3.0)
    assert f(tx.ones(3, 3)).item() == pytest.approx(3.0) and f.stats()["cache_hits"] == 1
    monkeypatch.setenv("TX_TARGET", "sparc")  # asked for by name: an error
    with pytest.raises(NativeUnavailable):
        tx.compile(lambda x: x + 1)(tx.ones(1))


# Again and again ---------------------------------------------------------------------------------


class Counter:
    """Adds up numbers until there are enough."""

    def __init__(self, limit: int) -> None:
        self.total, self.steps = tx.zeros(3), tx.tensor(0)
        self.enough, self.limit = tx.tensor(False), limit

    def step(self, x: tx.Tensor) -> tx.Tensor:
        self.total.assign(self.total + x * self.steps)
        self.steps.assign(self.steps + 1)
        self.enough.assign(self.steps >= self.limit)
        return self.total.sum()


@pytest.mark.parametrize("mode", ["native", "interp", "replay", "0"])
def test_repeat_is_so_many_calls(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    for times, limit, wanted in ((5, 99, 5), (9, 4, 4), (1, 1, 1), (3, 1, 1)):
        ours, eager = Counter(limit), Counter(limit)
        step, x = tx.compile(ours.step), tx.tensor([1.0, 2.0, 0.5])
        assert step.repeat(times, ours.enough, x) == wanted
        for _ in range(wanted):
            eager.step(x)
        assert ours.total.tolist() == eager.total.tolist() and ours.steps.item() == wanted
        assert step(x).item() == eager.step(x).item()


def test_repeat_runs_one_after_the_other_without_a_look() -> None:
    counter = Counter(1000)
    step, x = tx.compile(counter.step), tx.ones(3)
    step(x)
    assert step.repeat(50, counter.enough, x) == 50
    assert step.stats()["cache_hits"] == 1  # one look for all of them
    assert counter.steps.item() == 51


def test_repeat_leaves_alone_what_others_hold() -> None:
    counter = Counter(1000)
    step, x = tx.compile(counter.step), tx.ones(3)
    step.repeat(3, counter.enough, x)
    seen, kept = counter.total.numpy(), counter.total.detach()
    step.repeat(4, counter.enough, x)
    assert seen.tolist() == kept.tolist() == [3.0] * 3
    assert counter.total.tolist() == [21.0] * 3


def test_repeat_of_what_makes_new_gradients_calls_each_time() -> None:
    ours = State()
    assert tx.compile(ours.step).repeat(4, tx.tensor(False), *batch(0)) == 4
    eager = State()
    for _ in range(4):
        eager.step(*batch(0))
    np.testing.assert_allclose(ours.w.numpy(), eager.w.numpy(), rtol=1e-5, atol=1e-6)
    assert ours.steps.item() == 4


def test_repeat_wants_at_least_one() -> None:
    with pytest.raises(ValueError, match="times is 0; it must be 1 or more"):
        tx.compile(lambda: None).repeat(0, tx.tensor(True))
