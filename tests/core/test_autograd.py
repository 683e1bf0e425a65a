"""backward() and what is recorded: rules, errors, and memory. (tx.grad is in test_grad.py.)"""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from op_case import double, leaf

import tinygrad_tx as tx
from tinygrad_tx.errors import DTypeError, GradError, ShapeError
from tinygrad_tx.node import Graph
from tinygrad_tx.op import OPS


@pytest.fixture
def scratch_ops() -> Iterator[None]:
    """Ops made by a test are forgotten after it."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


# Every family of methods, to second order ---------------------------------------------------------

_MASK = tx.tensor([[True, False, True, True], [False, True, True, False], [True] * 4])
_INDEX = tx.tensor([2, 0, 2])
METHODS: dict[str, Callable[[tx.Tensor, tx.Tensor], Any]] = {
    "arithmetic": lambda x, y: (x + y) * (x - 2) / (3 - y * y / 9) + 1 / (x * x + 1),
    "in place": lambda x, y: _in_place(x, y),
    "powers": lambda x, y: x**2 + x**3 + (x * x + 1) ** y + 2**x + (x * x + 1) ** 0.5,
    "roots": lambda x, y: (x * x + 1).sqrt() + (y * y + 1).rsqrt() + (x * x + 2).reciprocal(),
    "exponentials": lambda x, y: x.exp() + (y * y).log1p() + x.expm1() + (x * x + 1).log(),
    "waves": lambda x, y: x.sin() * y.cos() + x.tanh() * y.sigmoid() + (x * y).erf(),
    "kinks": lambda x, y: (x * 9).relu() + x.abs() * y + x.clip(-5, 5) * y.maximum(9) + x.square(),
    "choice": lambda x, y: x.where(_MASK, y) * y.masked_fill(_MASK, 0.5) + tx.where(_MASK, x, 1.0),
    "sums": lambda x, y: x.sum(0) * y.mean(0) + x.sum() + x.mean((0, 1)) + x.cumsum(1).sum(0),
    "spread": lambda x, y: x.var(1) + y.std(1, keepdim=True).sum() + x.norm() + y.var(0, 0).sum(),
    "extremes": lambda x, y: x.max(1).values + y.min(1).values + x.amax() + y.amin(1) + x.max(),
    "softmaxes": lambda x, y: x.softmax(1) + y.log_softmax(0) + x.logsumexp(1, keepdim=True),
    "order": lambda x, y: x.sort(1).values * y.topk(4, 1).values + x.sort(0, True).values,
    "shapes": lambda x, y: (
        x.reshape(2, -1).flatten().view(4, 3) * y.T + y.unsqueeze(1).squeeze().mT.contiguous()
    ),
    "stretching": lambda x, y: x[:1].expand(3, -1) * y + x[0, 0].broadcast_to((3, 4)),
    "turning": lambda x, y: x.permute(1, 0).flip(0) + y.transpose(0, 1).flip(0, 1),
    "pieces": lambda x, y: (
        x.split(3, 1)[0] * y.chunk(2, 1)[1].sum() + x.split([1, 3], 1)[1] + next(iter(y))[:3]
    ),
    "joining": lambda x, y: tx.cat([x, y * 2, x], 1).sum(1) * tx.stack([x, y], 2)[0, 0, 0],
    "gather": lambda x, y: x[_INDEX] * y.index_select(0, _INDEX) + x[[1, 1, 0]] * x[_INDEX[0]],
    "along": lambda x, y: x.gather(0, tx.tensor([[2, 1, 0, 0]])) * y.take_along_dim(_index(x), 1),
    "scatter": lambda x, y: x.index_add(0, _INDEX, y * y) * x,
    "masks": lambda x, y: x[_MASK] * y[_MASK],
    "products": lambda x, y: x @ y.T @ x + (x[0] @ y[0]) + (x @ y[0]).sum() + (y[0] @ x.T).sum(),
    "batches": lambda x, y: tx.stack([x, y]) @ tx.stack([x, y]).mT @ y.unsqueeze(0),
    "triangles": lambda x, y: tx.tril(x) * y + tx.triu(y, 1) * x,
    "casts": lambda x, y: x.double() * y.clone().to(tx.float64),
}


def _in_place(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
    z = x * y
    z += y
    z *= z
    z[1:, ::2] = x[:2, :2] * 3
    z[0] -= y[2]
    z[_INDEX[0]] = y[0] * x[0]
    z[_MASK] = 0.25
    z /= 3 + x * x
    return z


def _index(x: tx.Tensor) -> tx.Tensor:
    return tx.tensor(np.random.default_rng(5).integers(-4, 4, x.shape))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_gradients(name: str) -> None:
    assert tx.gradcheck(METHODS[name], (double(3, 4, seed=1), double(3, 4, seed=2)), order=2)


# backward() ---------------------------------------------------------------------------------------


def test_gradients_accumulate_in_the_same_tensor() -> None:
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    grad = x.grad
    assert grad is not None and grad.tolist() == [2, 4] and not grad.requires_grad
    (x * 3).sum().backward()
    assert x.grad is grad and grad.tolist() == [5, 7]
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3, 3] and grad.tolist() == [5, 7]


def test_what_numpy_has_seen_of_a_gradient_stays() -> None:
    x = leaf(1.0)
    x.backward()
    seen = x.grad.numpy()
    x.backward()
    assert (seen.item(), x.grad.item()) == (1, 2)


def test_leaves_never_share_a_gradient() -> None:
    a, b, given = leaf(1.0, 1.0), leaf(1.0, 1.0), tx.tensor([1.0, 2.0])
    (a + b).backward(given)
    a.grad *= 10
    assert (a.grad.tolist(), b.grad.tolist(), given.tolist()) == ([10, 20], [1, 2], [1, 2])


def test_a_graph_used_twice() -> None:
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    (y * y).backward()
    assert x.grad.item() == 6 + 4 * 27
    with pytest.raises(GradError, match="released by an earlier backward"):
        y.backward()
    with pytest.raises(GradError, match="retain_graph=True"):
        (y + 1).backward()


def test_released_parts_of_another_graph() -> None:
    x = leaf(3.0)
    shared = x.exp()
    one, two = shared * 2, shared * 3
    one.backward()
    with pytest.raises(GradError, match="released"):
        two.backward()
    (leaf(1.0) * shared.detach()).backward()


def test_diamonds_are_passed_once() -> None:
    x = leaf(1.0)
    y = x * 1.0
    for _ in range(200):  # 2^200 paths
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1


def test_create_graph() -> None:
    x = leaf(2.0)
    (x**3.0).backward(create_graph=True)
    first = x.grad
    assert first.requires_grad and first.item() == 12
    x.grad = None
    first.backward(create_graph=True)
    assert x.grad.item() == 12
    x.grad.backward()
    assert x.grad.item() == 12 + 6


def test_a_tensor_that_is_not_a_scalar() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(GradError, match=r"Tensor \(2,\) needs gradient="):
        (x * x).backward()
    (x * x).backward(tx.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2, 40]
    for wrong in (tx.ones(3), tx.tensor(1.0), tx.ones(2, dtype=tx.float64)):
        with pytest.raises(GradError, match=r"must be float32 \(2,\)"):
            (x * x).backward(wrong)
    x.grad = None
    x.backward(tx.tensor([3.0, 4.0]))  # of a leaf itself
    assert x.grad.tolist() == [3, 4]


def test_backward_of_what_depends_on_nothing() -> None:
    for constant in (tx.tensor(1.0), tx.tensor(1.0) * 2, leaf(1.0).detach() * 2):
        with pytest.raises(GradError, match="requires no gradient: no input had requires_grad"):
            constant.backward()
    with tx.no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(GradError, match="under no_grad"):
        y.backward()


def test_unreachable_leaves() -> None:
    x, y, z = leaf(1.0), leaf(2.0), leaf(3.0)
    (x * y.detach() + (z > 1).float() + z.floor()).backward()
    assert x.grad.item() == 2 and y.grad is None and z.grad.item() == 0


def test_mixed_dtypes() -> None:
    x, y = leaf(1.0, 2.0), tx.tensor([3.0, 4.0], dtype=tx.float64, requires_grad=True)
    (x * y + x.half()).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (tx.float32, tx.float64)
    assert (x.grad.tolist(), y.grad.tolist()) == ([4, 5], [1, 2])


def test_the_gradient_belongs_to_the_tensor_not_to_its_value() -> None:
    x = leaf(2.0)
    y = x * x
    with tx.no_grad():
        x.assign(5.0)
    y.backward()
    assert x.grad.item() == 4 and (x * x).item() == 25  # y saw the 2


def test_gradients_that_are_set() -> None:
    x = leaf(1.0, 2.0)
    x.grad = tx.tensor([1.0, 1.0])
    (x * x).sum().backward()
    assert x.grad.tolist() == [3, 5]
    for wrong in (tx.ones(3), tx.ones(2, dtype=tx.float64)):
        with pytest.raises(ShapeError, match=r"on cpu does not fit a Tensor of float32 \(2,\)"):
            x.grad = wrong


def test_threads_do_not_share_no_grad() -> None:
    seen = []
    with tx.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tx.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# What is recorded ---------------------------------------------------------------------------------


def test_no_grad() -> None:
    x = leaf(2.0)

    @tx.no_grad()
    def power(n: int) -> tx.Tensor:
        assert not tx.is_grad_enabled()
        return x if n == 1 else x * power(n - 1)

    assert not power(4).requires_grad and tx.is_grad_enabled()
    with tx.no_grad():
        with tx.no_grad():
            pass
        assert not tx.is_grad_enabled() and not (x * x).requires_grad
    with pytest.raises(ZeroDivisionError), tx.no_grad():
        raise ZeroDivisionError
    assert tx.is_grad_enabled() and (x * x).requires_grad
    assert power.__name__ == "power"


def test_only_what_gradients_need_is_kept() -> None:
    plain = tx.ones(2) * 2
    with tx.no_grad():
        quiet = leaf(1.0) * 2
    for y in (plain, quiet, leaf(1.0) > 0, leaf(1.0).detach() * 3):
        assert y.is_leaf and not y.requires_grad and y.node.srcs == ()
    assert not (leaf(1.0) * 2).is_leaf


def test_requires_grad_rules() -> None:
    with pytest.raises(DTypeError, match="requires_grad needs a floating dtype, not int64"):
        tx.tensor([1, 2], requires_grad=True)
    y = leaf(1.0) * 2
    with pytest.raises(GradError, match="leaf Tensors only"):
        y.requires_grad = False
    assert y.requires_grad_() is y
    x = tx.tensor([1.0])
    assert x.requires_grad_() is x and x.requires_grad and x.is_leaf
    before = x * 2
    x.requires_grad = False
    assert not (x * 2).requires_grad and before.requires_grad
    shared = tx.tensor([1.0])
    one, two = shared.detach().requires_grad_(), shared.detach()
    assert one.requires_grad and not two.requires_grad and not shared.requires_grad


def test_a_leaf_is_not_changed_in_place() -> None:
    x, index = leaf(1.0, 2.0), 0

    def add(x: tx.Tensor) -> None:
        x += 1

    def write(x: tx.Tensor) -> None:
        x[index] = 5.0

    for change in (add, write, lambda x: x.assign(0.0)):
        with pytest.raises(GradError, match=r"in place: do it inside `with tx.no_grad\(\):`"):
            change(x)
        assert x.tolist() == [1, 2]
        with tx.no_grad():
            change(x.detach().requires_grad_())
    with tx.no_grad():
        add(x)
        write(x)
    assert x.is_leaf and x.requires_grad and x.tolist() == [5, 3]
    (x * x).sum().backward()
    assert x.grad.tolist() == [10, 6]


def test_changing_a_recorded_tensor_keeps_its_history() -> None:
    x = leaf(3.0)
    y = x * 2
    z = y * y
    y += 1
    (z + y).backward()
    assert x.grad.item() == 2 * 6 * 2 + 2
    buffer = tx.zeros(3)
    buffer[1] = x
    assert buffer.requires_grad and not buffer.is_leaf
    x.grad = None
    (buffer * 5).sum().backward()
    assert x.grad.item() == 5
    with tx.no_grad():
        buffer.assign(x)
    assert not buffer.requires_grad


def test_assigning_a_leaf_links_to_it() -> None:
    x, y = leaf(3.0), tx.tensor(0.0)
    y.assign(x)
    (y * y).backward()
    assert x.grad.item() == 6 and y.grad is None and not y.is_leaf
    copy = x.reshape(())
    copy += 1
    assert x.item() == 3 and copy.item() == 4


# Vjps of one's own --------------------------------------------------------------------------------


@pytest.mark.usefixtures("scratch_ops")
@pytest.mark.parametrize(
    ("vjp", "message"),
    [
        (lambda g, y, x: g, "bad: the vjp must give a tuple with one gradient for each of its 1"),
        (lambda g, y, x: (g, g), "bad: the vjp must give a tuple"),
        (lambda g, y, x: (g[:2],), r"bad: the vjp gave a gradient \(2,\) for an input \(3,\)"),
        (lambda g, y, x: (g.double(),), "bad: the vjp gave a gradient of type float64"),
        (lambda g, y, x: (g.numpy(),), "bad: the vjp gave a gradient of type ndarray"),
    ],
)
def test_a_bad_vjp_is_named(vjp: Any, message: str) -> None:
    bad = tx.Op("bad", kind="map", forward=lambda xp, x: x * 2, vjp=vjp)
    with pytest.raises(GradError, match=message):
        bad(leaf(1.0, 2.0, 3.0)).sum().backward()


@pytest.mark.usefixtures("scratch_ops")
def test_gradcheck_finds_wrong_gradients() -> None:
    first = tx.Op("cube", kind="map", forward=lambda xp, x: x * x * x,
                  vjp=lambda g, y, x: (g * 3.001 * x * x,))  # fmt: skip
    second = tx.Op("cube", kind="map", forward=lambda xp, x: x * x * x,
                   vjp=lambda g, y, x: (g * 3 * x * x.detach(),))  # fmt: skip
    nan = tx.Op("cube", kind="map", forward=lambda xp, x: x, vjp=lambda g, y, x: (g / (x - x),))
    with pytest.raises(GradError, match="the first derivative is"):
        tx.gradcheck(first, double(5))
    assert tx.gradcheck(second, double(5))
    with pytest.raises(GradError, match="the second derivative is"):
        tx.gradcheck(second, double(5), order=2)
    with pytest.raises(GradError, match="nan"):
        tx.gradcheck(nan, double(5))
    with pytest.raises(GradError, match="at least one input must be float64"):
        tx.gradcheck(nan, tx.ones(2))
    with pytest.raises(GradError, match="gave no float64 Tensor"):
        tx.gradcheck(lambda x: x > 0, double(2))


@pytest.mark.usefixtures("scratch_ops")
def test_an_op_with_a_decomposition_alone_is_differentiated() -> None:
    swish = tx.Op("swish", kind="map", forward=lambda xp, x, b: x / (1 + xp.exp(-b * x)),
                  decompose=lambda x, b: x * (b * x).sigmoid())  # fmt: skip
    x = double(4)
    assert tx.gradcheck(lambda x: swish(x, x), x, order=2)
    assert tx.gradcheck(swish, (x, double(4, seed=2)), order=2)


# Depth and memory ---------------------------------------------------------------------------------


def test_deep_chains() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1
    y.backward(retain_graph=True)
    assert x.grad.item() == 1
    node = weakref.ref(y.node)
    del y  # freed without recursion
    assert node() is None


def test_deep_chains_to_second_order() -> None:
    x = tx.tensor(1.0, dtype=tx.float64, requires_grad=True)
    y = x
    for _ in range(3_000):
        y = y * 1.0001
    (y * y).backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.backward()
    assert x.grad.item() == pytest.approx(2 * 1.0001**6_000)


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Memory goes by reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_gc")
def test_a_graph_frees_its_arrays() -> None:
    x = double(50).requires_grad_()
    h = x.exp()
    z = (h * h).sin()
    loss = z.sum()
    kept = [weakref.ref(t.node.array) for t in (h, z)]
    del h, z
    assert all(a() is not None for a in kept)
    loss.backward()  # lets go of all but the loss itself
    assert [a() for a in kept] == [None, None] and loss.node.srcs == ()
    h = x.exp()
    z = (h * h).sin()
    loss = z.sum()
    kept = [weakref.ref(t.node.array) for t in (h, z)]
    del h, z, loss  # never differentiated
    assert [a() for a in kept] == [None, None]


@pytest.mark.usefixtures("no_gc")
def test_nothing_outlives_functional_gradients() -> None:
    seen: list[weakref.ref[Any]] = []

    def f(x: tx.Tensor) -> tx.Tensor:
        h = x.exp()
        seen.append(weakref.ref(h.node.array))
        return (h * h).sum()

    x = double(5)
    value, gradient = tx.value_and_grad(f)(x)
    hessian = tx.grad(lambda x: (tx.grad(f)(x) ** 2).sum())(x)
    x.requires_grad_()
    (tx.grad(f)(x) ** 2).sum().backward()
    assert [ref() for ref in seen] == [None] * 3
    assert value.shape == () and gradient.shape == hessian.shape == (5,)


@pytest.mark.usefixtures("no_gc")
def test_create_graph_leaves_no_cycles() -> None:
    x = double(5).requires_grad_()
    h = x.exp()
    array = weakref.ref(h.node.array)
    (h * h).sum().backward(create_graph=True)
    del h
    assert array() is not None  # x.grad's graph needs it
    x.grad = None
    assert array() is None


@pytest.mark.usefixtures("no_gc", "scratch_ops")
def test_backward_frees_as_it_goes() -> None:
    """When a node's turn comes, the arrays that only later nodes read are gone."""
    later: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def vjp(g: tx.Tensor, y: tx.Tensor, x: tx.Tensor) -> tuple[tx.Tensor]:
        alive.append(sum(array() is not None for array in later))
        return (g,)

    probe = tx.Op("probe", kind="map", forward=lambda xp, x: x + 0, vjp=vjp)
    x = double(50).requires_grad_()
    y = probe(x)
    for _ in range(10):
        y = y.exp().sin() * 2
        later.append(weakref.ref(y.node.array))
    loss = y.sum()
    del y
    loss.backward(retain_graph=True)
    loss.backward()
    assert alive == [10, 0]


def test_the_peak_of_backward_is_that_of_the_graph() -> None:
    steps, size = 40, 1 << 17
    x = tx.zeros(size, dtype=tx.float64, requires_grad=True)
    tracemalloc.start()
    y = x
    for _ in range(steps):
        y = y.sin()
    loss = y.sum()
    del y
    held = tracemalloc.get_traced_memory()[0]
    assert held > steps * size * 8
    tracemalloc.reset_peak()
    loss.backward()
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < held + 5 * size * 8  # a gradient or two, and what one vjp makes
    assert left < 2 * size * 8


def test_an_op_without_a_gradient_says_so(scratch_ops: None) -> None:
    halve = tx.Op("halve", kind="map", forward=lambda xp, x: x / 2)
    x = leaf(1.0, 2.0)
    with pytest.raises(GradError, match="halve has no gradient: give its Op a vjp="):
        (halve(x) + x).sum().backward()
    (halve(x.detach()) + x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0]


def test_inputs_that_are_no_leaves_get_their_gradient() -> None:
    x = tx.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    for times in (1, 2):
        (y * y).sum().backward(inputs=[y], retain_graph=True)
        assert y.grad is not None and y.grad.tolist() == [4 * times, 8 * times] and x.grad is None
    with pytest.raises(GradError, match=r"inputs\[1\] requires no gradient"):
        y.sum().backward(inputs=[x, tx.ones(2)])


def test_nodes_of_a_gradient_say_what_they_are_the_gradient_of() -> None:
    x = tx.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    z = (y * y).sum()
    assert all(node.gradient_of is None for node in Graph([z.node]))
    (g,) = tx.autograd.grad(z, [x], create_graph=True)
    places = {node.place for node in Graph([z.node])}
    made = [n for n in Graph([g.node]) if n.place > z.node.place]
    assert made and all(n.gradient_of in places for n in made)
    assert g.node.gradient_of in (x.node.place, y.node.place)


def test_nodes_know_the_line_that_made_them() -> None:
    x = tx.tensor([1.0], requires_grad=True)
    y = x.exp()
    assert y.node.line.endswith(f"test_autograd.py:{sys._getframe().f_lineno - 1}")
    z = x.detach().exp()
    assert z.node.line.endswith(f"test_autograd.py:{sys._getframe().f_lineno - 1}")
