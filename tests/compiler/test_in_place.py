"""State of compiled functions: what is written over where it lies, and what must never be."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.nn import Parameter


def place(x: tx.Tensor) -> int:
    return int(x._node.array.ctypes.data)


@pytest.fixture(params=["native", "interp", "replay"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TX_COMPILE", request.param)
    return str(request.param)


def incremented(w: tx.Tensor) -> Callable[[], None]:
    """A compiled step that adds 1 to w."""

    @tx.compile
    def step() -> None:
        with tx.no_grad():
            w.assign(w + 1)

    return step


def test_state_that_nobody_else_holds_stays_where_it_lies() -> None:
    w = Parameter(tx.zeros(4, 3))
    m = tx.zeros(4, 3)

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        loss = (x @ w).sum()
        loss.backward()
        with tx.no_grad():
            m.assign(m * 0.5 + w.grad)
            w.assign(w - m)
        w.grad = None
        return loss

    step(tx.ones(2, 4))
    before, nodes = (place(w), place(m)), (id(w._node), id(m._node))
    for _ in range(3):
        step(tx.ones(2, 4))
    assert (place(w), place(m)) == before and (id(w._node), id(m._node)) == nodes
    assert w.requires_grad and w.is_leaf and w._node.owner() is w
    assert m.numpy().tolist() == [[3.75] * 3] * 4


HOLDERS: dict[str, Callable[[tx.Tensor], object]] = {
    "numpy": lambda w: w.numpy(),
    "a view of numpy": lambda w: w.numpy().reshape(-1)[1:],
    "array": lambda w: np.asarray(w),
    "dlpack": lambda w: np.from_dlpack(w),
    "detach": lambda w: w.detach(),
    "clone": lambda w: w.clone(),
    "copy": lambda w: tx.tensor(w),
    "the same node": lambda w: tx.Tensor(w._node),
    "reshape": lambda w: w.detach().reshape(3, 2),
    "slice": lambda w: w.detach()[1:],
    "transpose": lambda w: w.detach().T,
    "assigned": lambda w: tx.zeros(2, 3).assign(w.detach()),
    "parameter": lambda w: Parameter(w),
    "state dict": lambda w: {"w": w.detach()}["w"],
    "graph": lambda w: w * 1,
}


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("grad", [False, True])
def test_what_was_handed_out_keeps_its_values(name: str, grad: bool, mode: str) -> None:
    w = tx.zeros(2, 3, requires_grad=grad)
    step = incremented(w)
    step()
    step()
    held = HOLDERS[name](w)
    step()
    step()
    assert (np.asarray(held) == 2).all() and np.asarray(held).size
    assert (w.numpy() == 4).all() and w.requires_grad is grad


def test_an_eager_graph_keeps_the_values_that_it_has_seen(mode: str) -> None:
    w = tx.full((2,), 3.0, requires_grad=True)
    step = incremented(w)
    step()
    loss = (w * w).sum()
    step()
    loss.backward()
    assert w.grad.tolist() == [8.0, 8.0] and w.tolist() == [5.0, 5.0]


def test_two_states_in_one_array(mode: str) -> None:
    a = tx.zeros(3)
    b, c = a.detach(), tx.zeros(3)
    c.assign(a)

    @tx.compile
    def step() -> tx.Tensor:
        a.assign(a + 1)
        b.assign(b * 2 + 10)
        return a + b + c

    assert [step().tolist()[0] for _ in range(3)] == [11.0, 32.0, 73.0]
    assert (a.tolist(), b.tolist(), c.tolist()) == ([3.0] * 3, [70.0] * 3, [0.0] * 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tx.arange(12.0).reshape(3, 4)[1:],
        lambda: tx.arange(12.0).reshape(4, 3).T[:2],
        lambda: tx.arange(12.0).reshape(3, 4).flip(0)[:2],
        lambda: tx.ones(4).expand(2, 4),
        lambda: tx.from_dlpack(np.arange(8, dtype=np.float32).reshape(2, 4)),
        lambda: tx.from_dlpack(np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::2]),
    ],
)
def test_state_that_is_a_view(make: Callable[[], tx.Tensor], mode: str) -> None:
    w = make()
    wanted = w.numpy().copy()
    step = incremented(w)
    for i in range(4):
        np.testing.assert_array_equal(w.numpy(), wanted + i)
        step()


def test_memory_from_elsewhere_is_never_written(mode: str) -> None:
    array = np.zeros(4, np.float32)
    w = tx.from_dlpack(array)
    step = incremented(w)
    step()
    step()
    assert array.tolist() == [0.0] * 4 and w.tolist() == [2.0] * 4


def test_a_tensor_that_returns_to_an_earlier_node(mode: str) -> None:
    """Swapping weights, as for a moving average, is seen by plans that know either node."""
    w, other = tx.zeros(2), tx.full((2,), 5.0)
    read = tx.compile(lambda: w * 2)
    step = incremented(w)
    mine, theirs = w._node, other._node
    seen = []
    for node in (mine, theirs, mine, theirs, theirs, mine):
        w._node = node
        seen.append(read().tolist()[0])
    assert seen == [0.0, 10.0, 0.0, 10.0, 10.0, 0.0]
    step()
    assert read().tolist() == [2.0, 2.0] and mine.array.tolist() == [0.0, 0.0]
    w._node = theirs
    step()
    assert read().tolist() == [12.0, 12.0] and other.tolist() == [5.0, 5.0]


def test_two_plans_on_the_same_state(mode: str) -> None:
    """A step in place is seen by whoever has packed, or only read, the weights before."""
    w = tx.eye(4)
    step, predict = incremented(w), tx.compile(lambda x: x @ w)
    again = tx.compile(lambda x: x @ w)
    x = tx.ones(1, 4)
    for i in range(4):
        assert predict(x).tolist() == again(x).tolist() == [[1.0 + 4 * i] * 4]
        assert predict(tx.ones(2, 4)).tolist() == [[1.0 + 4 * i] * 4] * 2
        step()


def test_one_function_compiled_twice(mode: str) -> None:
    count = tx.tensor(0)

    def f(x: tx.Tensor) -> tx.Tensor:
        count.assign(count + 1)
        return x * count

    one, two = tx.compile(f), tx.compile(f)
    values = [g(tx.ones(1)).item() for g in (one, two, two, one, one)]
    assert values == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_result_that_is_the_new_state(mode: str) -> None:
    w = tx.zeros(2)

    @tx.compile
    def step() -> tuple[tx.Tensor, tx.Tensor]:
        new = w + 1
        w.assign(new)
        return new, new.reshape(1, 2)

    kept = [step() for _ in range(3)]
    assert [a.tolist() for a, _ in kept] == [[1.0] * 2, [2.0] * 2, [3.0] * 2]
    assert [b.tolist() for _, b in kept] == [[[1.0] * 2], [[2.0] * 2], [[3.0] * 2]]


def test_an_index_outside_leaves_state_that_is_written_first(mode: str) -> None:
    table, w, count = tx.ones(3, 2), tx.zeros(2), tx.tensor(0)

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        count.assign(count + 1)
        w.assign(w + 1)
        out = table[ids]
        table.assign(table * 2)
        return out

    for _ in range(3):
        step(tx.tensor([0, 2]))
    for _ in range(2):
        with pytest.raises(IndexError, match="index 3 is outside the 3"):
            step(tx.tensor([0, 3]))
    assert (count.item(), w.tolist(), table[0].tolist()) == (3, [3.0] * 2, [8.0] * 2)
    assert step(tx.tensor([1])).tolist() == [[8.0, 8.0]] and count.item() == 4


@pytest.mark.parametrize("native", ["native", "interp"])
def test_a_counter_stays_where_it_lies_though_it_is_read_on_and_may_be_forbidden(
    native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was is read after what it becomes is known, and before the last index is checked."""
    monkeypatch.setenv("TX_COMPILE", native)
    table, count, last = tx.arange(40).reshape(10, 4), tx.tensor(0), tx.zeros(1, 4)

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        old = count + 0
        count.assign(count + 1)
        first = table.index_select(0, count.reshape(1))
        found = first + table.index_select(0, first[0, :1] - first[0, :1] + ids)
        last.assign(found.float())
        return found * old

    for ids, wanted in ((3, 0), (4, 1), (9, 2)):
        before = place(count), place(last)
        row = np.arange(4) * 2 + 4 * (wanted + 1 + ids)
        assert step(tx.tensor([ids])).tolist() == [(row * wanted).tolist()]
        assert (place(count), place(last)) == before or wanted == 0
        assert count.item() == wanted + 1 and last.tolist() == [row.tolist()]
    with pytest.raises(IndexError):
        step(tx.tensor([10]))
    assert count.item() == 3 and last.tolist() == [row.tolist()]


def test_an_argument_becomes_a_captured_one_later(mode: str) -> None:
    held = tx.ones(2)

    @tx.compile
    def both(x: tx.Tensor) -> tx.Tensor:
        x += 1
        return held * 10 + x

    assert both(tx.zeros(2)).tolist() == [11.0, 11.0]
    assert both(held).tolist() == [22.0, 22.0]
    assert both(tx.zeros(2)).tolist() == [21.0, 21.0]
    assert both.stats()["retraces"] == 1


def test_state_of_arguments_stays_where_it_lies() -> None:
    @tx.compile
    def write(cache: tuple[tx.Tensor, tx.Tensor], at: tx.Tensor) -> tx.Tensor:
        for part in cache:
            part[:, at] = 1.0
        return cache[0].sum() + cache[1].sum()

    one, two = (tuple(tx.zeros(2, 4) for _ in range(2)) for _ in range(2))
    write(one, tx.tensor(0))
    places = [place(part) for part in one]
    assert [write(one, tx.tensor(i)).item() for i in (1, 2)] == [8.0, 12.0]
    assert write(two, tx.tensor(3)).item() == 4.0
    assert [place(part) for part in one] == places and write.stats()["retraces"] == 0


def test_gradients_accumulate_in_place() -> None:
    w = tx.ones(3, requires_grad=True)

    @tx.compile
    def add(x: tx.Tensor) -> None:
        (w * x).sum().backward()

    add(tx.ones(3))
    add(tx.ones(3))
    grad, before = w.grad, place(w.grad)
    add(tx.ones(3))
    assert w.grad is grad and place(grad) == before and grad.tolist() == [3.0] * 3
    w.grad = grad.clone()
    add(tx.ones(3))
    assert grad.tolist() == [3.0] * 3 and w.grad.tolist() == [4.0] * 3


def test_a_gradient_that_is_also_reached_by_itself(mode: str) -> None:
    """Captured before or after it is read as a gradient, handed in, or shared by two leaves."""

    def run(compiled: bool) -> list[list[float]]:
        w, u = tx.ones(2, requires_grad=True), tx.ones(2, requires_grad=True)
        held = tx.full((2,), 3.0)

        def first() -> tx.Tensor:
            held.assign(held + 1)
            (w * 2).sum().backward()
            return held * 10

        def second() -> tx.Tensor:
            (w * 2).sum().backward()
            held.assign(held + 1)
            return w.grad * 10

        def given(g: tx.Tensor) -> tx.Tensor:
            (w * 2).sum().backward()
            g += 1
            return w.grad * 10

        def both() -> tx.Tensor:
            (w * 2).sum().backward()
            (u * 3).sum().backward()
            return w.grad * 10

        fs = [first, second, lambda: given(held), both]
        if compiled:
            handed = tx.compile(given)
            fs = [tx.compile(first), tx.compile(second), lambda: handed(held), tx.compile(both)]
        seen = []
        for grads in ((held, None), (held.clone(), None), (held, held), (held, None)):
            w.grad, u.grad = grads
            for f in (*fs, *fs):
                seen.append(f().tolist())
                seen += [t.tolist() for t in (held, w.grad, u.grad) if t is not None]
        return seen

    assert run(True) == run(False)


def test_asking_for_gradients_inside_is_kept(mode: str) -> None:
    w = tx.ones(2)

    @tx.compile
    def ask() -> None:
        w.requires_grad_()

    ask()
    assert w.requires_grad and w.is_leaf
    (w * 2).sum().backward()
    assert w.grad.tolist() == [2.0, 2.0]


def test_a_function_that_sets_what_it_has_read(mode: str) -> None:
    model = tx.nn.Dropout(0.5)

    @tx.compile
    def f(x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        first = model(x)
        model.eval()
        return first, model(x)

    x = tx.ones(100)
    assert f(x)[0].tolist() != [1.0] * 100 and f(x)[0].tolist() == [1.0] * 100


def test_threads_that_run_different_functions() -> None:
    weights = [tx.zeros(64, 64) for _ in range(3)]
    steps = [incremented(w) for w in weights]

    def work(step: Callable[[], None]) -> None:
        for _ in range(40):
            step()

    threads = [threading.Thread(target=work, args=(s,)) for s in (*steps, *steps)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((w.numpy() == 80).all() for w in weights)


def test_threads_that_share_state_between_functions() -> None:
    total = tx.tensor(0)

    def add(x: tx.Tensor) -> None:
        total.assign(total + x)

    adds = [tx.compile(add) for _ in range(3)]

    def work(add: Callable[[tx.Tensor], None]) -> None:
        for _ in range(60):
            add(tx.tensor(1))

    threads = [threading.Thread(target=work, args=(add,)) for add in adds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert total.item() == 180


def test_an_op_that_calls_a_compiled_function() -> None:
    """It runs eagerly there: the memory for plans is in use."""
    inner = tx.compile(lambda x: (x * 2).exp().sum())
    op = tx.Op(
        "calls_inner",
        forward=lambda xp, x: np.full(x.shape, inner(tx.tensor(x)).item(), x.dtype),
        rule=lambda op, x: tx.Spec(x.shape, x.dtype),
    )
    f = tx.compile(lambda x: (x.tanh() * 3).cumsum(0) + op(x) + x.tanh())
    x = tx.tensor([0.5, 0.25])
    wanted = np.cumsum(np.tanh(x.numpy()) * 3) + np.exp(x.numpy() * 2).sum() + np.tanh(x.numpy())
    for _ in range(2):
        np.testing.assert_allclose(f(x).numpy(), wanted, rtol=1e-6)


def _in_a_child(step: Callable[[tx.Tensor], tx.Tensor], out: object) -> None:
    out.put(step(tx.ones(32, 32)).sum().item())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_has_memory_of_its_own() -> None:
    step = tx.compile(lambda x: (x * 2).softmax(-1) @ x.exp().T)
    wanted = step(tx.ones(32, 32)).sum().item()
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    child = context.Process(target=_in_a_child, args=(step, out))
    child.start()
    assert out.get(timeout=30) == wanted
    child.join(30)
    assert step(tx.ones(32, 32)).sum().item() == wanted


def test_two_states_that_become_one_value(mode: str) -> None:
    a, b, c = tx.ones(3), tx.zeros(3), tx.arange(3.0)

    @tx.compile
    def step() -> None:
        v = (a + b) * 2
        a.assign(v)
        b.assign(v)
        a[0] = a[1] * 0.5
        c.assign(a)

    step()
    assert [x.tolist() for x in (a, b, c)] == [[1, 2, 2], [2, 2, 2], [1, 2, 2]]
    step()
    assert [x.tolist() for x in (a, b, c)] == [[4, 8, 8], [6, 8, 8], [4, 8, 8]]


def test_a_concatenation_is_not_written_over_what_is_read_of_its_parts(mode: str) -> None:
    def joined(a: tx.Tensor, b: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        part = a.exp()
        whole = tx.cat([part, b], 0)
        whole[0] = 7.0
        return whole, part.sum(0)

    def stacked(a: tx.Tensor, b: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        part = a.softmax(-1)
        whole = tx.stack([part, a])
        whole[0] = 0.0
        return whole, part @ part.T

    def cached(a: tx.Tensor, b: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        new = a * 2
        cache = tx.cat([new, b])
        cache[tx.tensor(0)] = 0.0
        return cache, new

    a, b = tx.arange(6.0).reshape(3, 2), tx.zeros(1, 2)
    for f in (joined, stacked, cached):
        for found, wanted in zip(tx.compile(f)(a, b), f(a, b), strict=True):
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6)
