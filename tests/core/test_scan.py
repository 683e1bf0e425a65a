"""tx.scan and tx.checkpoint: the values, gradients and effects of the loop that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scan_cases import CELLS, HG, IDS, LOOPS, STATE, TABLE, XG, H, W, X, fresh, gradients, loss
from scan_cases import tensors as all_of

import tinygrad_tx as tx
from tinygrad_tx import random

MODES = ["native", "interp", "replay"]


def arrays(nest: Any) -> list[Any]:
    return [x.numpy().copy() for x in all_of(nest)]


def near(found: list[Any], wanted: list[Any], rtol: float = 1e-4) -> None:
    """Equal but for roundings of the largest element."""
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(initial=0.1))


def python_scan(f: Any, init: Any, xs: tx.Tensor, reverse: bool = False) -> Any:
    carry, ys = init, [None] * len(xs)
    for i in range(len(xs))[:: -1 if reverse else 1]:
        carry, ys[i] = f(carry, xs[i])
    return carry, tx.stack(ys)


@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_the_loop(reverse: bool) -> None:
    def f(c: Any, x: Any) -> Any:
        c = (c @ W + x).tanh()
        return c, c * x

    wanted = arrays(python_scan(f, H, X, reverse))
    for got, right in zip(arrays(tx.scan(f, H, X, None, reverse)), wanted, strict=True):
        assert (got == right).all()


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("mode", MODES)
def test_compiled_it_gives_and_changes_the_same(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)

    def twice(f: Callable[[], Any]) -> list[Any]:
        fresh()
        return [*arrays(f()), *arrays(f()), *arrays(STATE), *random.get_state().values()]

    eager, compiled = twice(LOOPS[name]), twice(tx.compile(LOOPS[name]))
    for a, b in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5)
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"checkpoint": True}], ids=str)
def test_gradients_are_those_of_the_loop(name: str, options: dict[str, bool]) -> None:
    fresh()
    plain = arrays(gradients(loss(name, reverse=options.get("reverse", False))))

    def run() -> list[tx.Tensor]:
        return gradients(loss(name, **options))

    for f in (run, tx.compile(run)) if options else (tx.compile(run),):
        fresh()
        near(arrays(f()), plain)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["tanh", "gates", "swap", "loops inside"])
def test_gradients_of_gradients(name: str, again: bool) -> None:
    f, init, _ = CELLS[name]

    def second(**options: Any) -> tx.Tensor:
        def first(h: tx.Tensor) -> tx.Tensor:
            start = (h, H) if isinstance(init, tuple) else h
            made = all_of(tx.scan(f, start, XG, **options))
            return sum((x * x).sum() for x in made)  # type: ignore[return-value]

        found: tx.Tensor = tx.grad(lambda h: (tx.grad(first)(h) ** 2).sum())(HG)
        return found

    near(arrays([tx.compile(lambda: second(checkpoint=again))()]), arrays([second()]))


def test_a_loop_over_training_steps() -> None:
    start = np.linspace(-1, 1, 8).reshape(4, 2).astype(np.float32)

    def run(compiled: bool) -> list[Any]:
        w = tx.tensor(start).requires_grad_()
        optimizer = tx.optim.Adam([w], lr=0.1)

        def step(_: None, x: tx.Tensor) -> Any:
            loss = ((x @ w) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return None, loss.detach()

        def steps() -> tx.Tensor:
            return tx.scan(step, None, X)[1]

        losses = (tx.compile(steps) if compiled else steps)()
        return arrays([losses, w, optimizer.state_dict()])

    near(run(True), run(False), 1e-5)


def test_an_index_outside_is_told_and_leaves_all_as_it_was() -> None:
    count = tx.tensor(0)

    @tx.compile
    def f(ids: tx.Tensor) -> tx.Tensor:
        def step(c: tx.Tensor, i: tx.Tensor) -> Any:
            count.assign(count + 1)
            return c + TABLE[i], None

        return tx.scan(step, H, ids)[0]

    bad = IDS.numpy().copy()
    bad[3, 1] = 99
    right = f(IDS).numpy()
    for _ in range(2):
        with pytest.raises(IndexError, match="99 is outside"):
            f(tx.tensor(bad))
    assert count.item() == 6
    assert (f(IDS).numpy() == right).all() and count.item() == 12


def test_several_threads() -> None:
    x, h, w = tx.randn(9, 64, 48), tx.randn(64, 48), tx.randn(48, 48)
    before = tx.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            tx.set_num_threads(threads)
            f = tx.compile(lambda: tx.scan(lambda c, x: ((c @ w + x).tanh(), c), h, x))
            found += [arrays(f()) for _ in range(5)]
    finally:
        tx.set_num_threads(before)
    for got in found[1:]:
        assert all((a == b).all() for a, b in zip(got, found[0], strict=True))


def test_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_CHECK", "1")
    compiled = tx.compile(lambda: gradients(loss("gates")))
    near(arrays(compiled()), arrays(gradients(loss("gates"))))


# The plan ----------------------------------------------------------------------------------------


def lstm(length: int, checkpoint: bool = False) -> Any:
    """A compiled step of an LSTM's loop, as a function of its xs."""
    w = tx.randn(16, 64).requires_grad_()

    def cell(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = ((h @ w + x).split(16, 1)[k] for k in range(4))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h, c), h

    @tx.compile
    def step(x: tx.Tensor) -> Any:
        _, ys = tx.scan(cell, (tx.zeros(8, 16), tx.zeros(8, 16)), x, checkpoint=checkpoint)
        (ys**2).sum().backward()
        grad, w.grad = w.grad, None
        return grad

    step(tx.randn(length, 8, 64))
    return step


def kernels(step: Any) -> set[Any]:
    return {call.kernel for call in step._last.plan.calls()}


def test_another_length_makes_no_kernel_and_no_larger_plan() -> None:
    step = lstm(5)
    first, count = kernels(step), step.stats()["kernels"]
    step(tx.randn(50, 8, 64))
    assert step.stats()["retraces"] == 1
    assert kernels(step) == first and step.stats()["kernels"] == count
    assert len(step._last.plan.steps) == 1, "no Python between rounds"


def test_a_round_is_a_product_and_one_row_program() -> None:
    loops = [
        [[c.kernel.word for x in wave for c in x.calls] for wave in call.loop.plan.waves()]
        for launch in lstm(5)._last.plan.launches()
        for call in launch.calls
        if call.loop
    ]
    forward, backward = loops
    assert forward == [["matmul"], ["rows"]]
    assert backward == [["rows"], ["matmul"]], "the weight's gradient is one product after it"


def test_a_checkpoint_takes_less_memory() -> None:
    kept, again = lstm(40), lstm(40, checkpoint=True)
    assert again.stats()["peak_bytes"] < 0.7 * kept.stats()["peak_bytes"]


# tx.checkpoint -----------------------------------------------------------------------------------


def test_checkpoint_gives_what_the_call_gives() -> None:
    net = tx.nn.Sequential(tx.nn.Linear(4, 16), tx.nn.ReLU(), tx.nn.Dropout(0.3))
    leaves = (*net.parameters(), XG)

    def run(wrap: Callable[[Any], Any]) -> list[Any]:
        f = wrap(lambda x, *, scale: {"y": net(x) * scale, "n": 3})
        made = f(XG, scale=HG.sum())
        ((made["y"] ** 2).sum() * made["n"]).backward()
        found = [made["y"].detach(), *(x.grad for x in leaves)]
        for x in (*leaves, HG):
            x.grad = None
        return found

    fresh()
    plain = [*arrays(run(lambda f: f)), random.get_state()]
    for f in (run, tx.compile(run)):
        fresh()
        again = [*arrays(f(tx.checkpoint)), random.get_state()]
        assert again.pop() == plain[-1]
        near(again, plain[:-1], 1e-5)


def test_checkpoints_take_less_memory_in_a_plan() -> None:
    blocks = [tx.nn.Sequential(tx.nn.Linear(32, 512), tx.nn.GELU(), tx.nn.Linear(512, 32))
              for _ in range(4)]  # fmt: skip
    parameters = [p for block in blocks for p in block.parameters()]
    x = tx.randn(256, 32)

    def peak(wrap: Callable[[Any], Any]) -> int:
        @tx.compile
        def step() -> list[Any]:
            h = x
            for block in blocks:
                h = h + wrap(block)(h)
            (h * h).mean().backward()
            grads = [p.grad for p in parameters]
            for p in parameters:
                p.grad = None
            return grads

        step()
        found: int = step.stats()["peak_bytes"]
        return found

    assert peak(tx.checkpoint) < 0.65 * peak(lambda f: f)


def test_a_checkpoint_whose_weights_have_changed() -> None:
    w = tx.ones(3).requires_grad_()
    y = tx.checkpoint(lambda x: (x * w).exp())(tx.ones(3)).sum()
    with tx.no_grad():
        w += 1
    with pytest.raises(tx.errors.GradError, match="checkpoint: a Tensor that f reads was changed"):
        y.backward()


def test_what_a_checkpoint_changes_is_changed_once() -> None:
    """Also by what has a gradient, and inside another checkpoint."""
    found = []
    for wrap in (lambda f: f, tx.checkpoint, lambda f: tx.checkpoint(tx.checkpoint(f))):
        tx.manual_seed(5)
        norm, count = tx.nn.BatchNorm1d(4), tx.tensor(0.0)
        leaf = HG.detach().requires_grad_()

        def f(x: tx.Tensor) -> tx.Tensor:
            count.assign(count + 1)  # noqa: B023
            return (norm(x) * leaf).exp() * count + tx.rand(3, 4)  # noqa: B023

        (wrap(f)(wrap(f)(H)) ** 2).sum().backward()
        found.append(arrays([leaf.grad, norm.weight.grad, count, *norm.buffers()]))
    assert found[0][2] == 2
    for other in found[1:]:
        near(other, found[0], 1e-5)


def test_a_hook_in_a_loop_reads_what_the_function_does_not() -> None:
    scale = tx.tensor(0.25)

    def cell(h: tx.Tensor, x: tx.Tensor) -> Any:
        h = (x + h @ W).tanh()
        h.register_hook(lambda g: g * scale)
        return h, h

    def run() -> list[tx.Tensor]:
        return gradients(tx.scan(cell, H, X)[1].sum())

    near(arrays(tx.compile(run)()), arrays(run()))


def test_a_leafs_hook_is_called_once_for_all_rounds() -> None:
    with W.register_hook(lambda g: g.clip(-0.5, 0.5)):
        found = arrays(tx.compile(lambda: gradients(loss("tanh")))())
        near(found, arrays(gradients(loss("tanh"))))
    assert abs(found[1]).max() == 0.5


def test_an_opaque_op_runs_in_each_round() -> None:
    calls = []

    def forward(xp: Any, x: Any) -> Any:
        calls.append(1)
        return x * len(calls)

    op = tx.Op("test_counted", forward=forward, rule=lambda op, x: x.spec)
    tx.compile(lambda: tx.scan(lambda c, x: (c + (op(H) * 2).tanh(), None), H, X)[0])()
    assert len(calls) == len(X)


def test_nothing_comes_of_nothing() -> None:
    assert tx.compile(lambda: tx.checkpoint(lambda: 3)())() == 3
    assert tx.scan(lambda c, _: (None, None), None, None, 0) == (None, None)


def test_constants_are_let_go_that_only_invariant_values_read() -> None:
    big = tx.randn(100, 40)

    def peak(inside: bool) -> int:
        def run() -> tx.Tensor:
            values = big * 2 + 1
            total = values.exp().sum()
            return tx.scan(
                lambda c, x: (c + x * (values.exp().sum() if inside else total), None), H, X
            )[0]

        compiled = tx.compile(run)
        compiled()
        found: int = compiled.stats()["peak_bytes"]
        return found

    assert peak(True) <= peak(False) + 64


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: tx.scan(lambda c, x: (c, c), H), ValueError, "without xs it needs length="),
        (lambda: tx.scan(lambda c, x: (c, c), H, (X, X[:4])), ValueError,
         r"xs has \(6, 3, 4\), and xs has \(4, 3, 4\)"),
        (lambda: tx.scan(lambda c, x: (c, c), H, X, length=5), ValueError, "length is 5, and xs"),
        (lambda: tx.scan(lambda c, x: (c, c), H, X, length=-1), ValueError, "length is -1"),
        (lambda: tx.scan(lambda c, x: (c, c), H, X, length=2.5), TypeError, "must be an int"),
        (lambda: tx.scan(lambda c, x: (c, c), H, tx.tensor(1.0)), ValueError, "0-d"),
        (lambda: tx.scan(lambda c, x: (c, c), H, 3), TypeError, "xs holds 3"),
        (lambda: tx.scan(lambda c, x: (c, c), "h", X), TypeError, "init holds"),
        (lambda: tx.scan(3, H, X), TypeError, "f must be a function"),
        (lambda: tx.scan(lambda c, x: c, H, X), TypeError, r"must give \(carry, y\)"),
        (lambda: tx.scan(lambda c, x: ((c, c), c), H, X), ValueError,
         r"must give a carry as init is, Tensor, not \(Tensor, Tensor\)"),
        (lambda: tx.scan(lambda c, x: (c[:2], c), H, X), ValueError,
         r"float32 \(3, 4\) and becomes float32 \(2, 4\)"),
        (lambda: tx.scan(lambda c, x: (c.to(tx.float64), c), H, X), TypeError,
         r"float32 \(3, 4\) and becomes float64 \(3, 4\)"),
        (lambda: tx.checkpoint(3), TypeError, "f must be a function"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compiled", [False, True])
def test_errors(
    call: Callable[[], Any], kind: type[Exception], message: str, compiled: bool
) -> None:
    with pytest.raises(kind, match=message):
        tx.compile(call)() if compiled else call()


def test_a_gradient_left_behind_is_told() -> None:
    w = tx.ones(4).requires_grad_()

    def step(c: tx.Tensor, x: tx.Tensor) -> Any:
        ((c + x) * w).sum().backward()
        return c, None

    with pytest.raises(tx.errors.TraceError, match=r"use tx\.grad inside"):
        tx.compile(lambda: tx.scan(step, H, X))()
    assert w.grad is None


def test_dropout_in_a_loop_is_that_of_the_loop() -> None:
    def step(c: tx.Tensor, x: tx.Tensor) -> Any:
        return c, tx.nn.functional.dropout(tx.ones(40), 0.5)

    fresh()
    wanted = tx.scan(step, H, X)[1].numpy()
    fresh()
    assert (tx.compile(lambda: tx.scan(step, H, X)[1])().numpy() == wanted).all()
    assert len(np.unique(wanted, axis=0)) == len(X), "each round draws anew"


def test_a_function_is_traced_once() -> None:
    """Also where the first carry has no gradient and later ones have, and for its gradient."""
    calls = []

    def cell(h: tx.Tensor, x: tx.Tensor) -> Any:
        calls.append(h.shape)
        h = (x + h @ W).tanh()
        return h, h

    compiled = tx.compile(lambda x: gradients(tx.scan(cell, tx.zeros(3, 4), x)[1].sum()))
    for _ in range(3):
        compiled(X)
    assert len(calls) == 1
