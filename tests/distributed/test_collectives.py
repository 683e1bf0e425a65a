"""Collective ops on ranks that are forks of this process: values, gradients of first and second
order, compiled, of sizes that do not divide, of nothing, of one number, of 16 bits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import distributed
from tinygrad_tx.distributed import functional, local
from tinygrad_tx.errors import DTypeError, GradError, ShapeError, UserError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are made by fork")

SHAPES = [(), (1,), (7,), (3, 5), (0, 4), (5003,)]  # the last is added up in parts


def given(rank: int, shape: tuple[int, ...], dtype: str = "float64") -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng([7, rank]).normal(size=shape)
    return drawn.astype(dtype) if dtype != "int64" else (10 * drawn).astype(dtype)


def by_rank(how: str, arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What all_reduce promises, in the order that it promises."""
    wide = np.float32 if arrays[0].dtype.itemsize == 2 else arrays[0].dtype
    total = arrays[0].astype(wide)
    of: Any = {"product": np.multiply, "min": np.minimum, "max": np.maximum}.get(how, np.add)
    for array in arrays[1:]:
        total = of(total, array.astype(wide))
    return (total / len(arrays) if how == "avg" else total).astype(arrays[0].dtype)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_values(size: int) -> None:
    hows = ("sum", "avg", "product", "min", "max")
    cases = [(s, "float64", h) for s in SHAPES for h in hows]
    cases += [((7,), "float16", "sum"), ((9000,), "float16", "avg"), ((3, 5), "float32", "sum")]
    cases += [((7,), "int64", "sum"), ((5003,), "int64", "max")]

    def rank() -> list[Any]:
        me, found = distributed.get_rank(), []
        for shape, dtype, how in cases:
            x = tx.tensor(given(me, shape, dtype))
            rows = tx.tensor(np.stack([given(10 * me + i, shape, dtype) for i in range(size)]))
            found.append(
                (
                    functional.all_reduce(x, how).numpy(),
                    functional.stacked(x).numpy(),
                    functional.scattered(rows, how).numpy(),
                    functional.broadcast(x, size - 1).numpy(),
                    functional.reduce(x, 0).numpy(),
                )
            )
        return found

    results = local.run(size, rank)
    for i, (shape, dtype, how) in enumerate(cases):
        arrays = [given(r, shape, dtype) for r in range(size)]
        for me in range(size):
            summed, gathered, scattered, spread, reduced = results[me][i]
            wanted = by_rank(how, arrays)
            assert summed.dtype == wanted.dtype and summed.tobytes() == wanted.tobytes()
            assert gathered.tobytes() == np.stack(arrays).tobytes()
            own = [given(10 * r + me, shape, dtype) for r in range(size)]
            assert scattered.tobytes() == by_rank(how, own).tobytes()
            assert spread.tobytes() == arrays[-1].tobytes()
            at_one = by_rank("sum", arrays) if me == 0 else np.zeros_like(wanted)
            assert reduced.tobytes() == at_one.tobytes()


def test_bfloat16_is_added_in_float32() -> None:
    def rank() -> Any:
        x = tx.tensor([1.0, 2.0**-9, 3.0]).to(tx.bfloat16) * (1 + distributed.get_rank())
        return functional.all_reduce(x).float().numpy()

    for found in local.run(3, rank):
        assert found.tolist() == [6.0, 6 * 2.0**-9, 18.0]


# Every rank's loss, of its own tensor; the sum of all is what is differentiated.
LOSSES: dict[str, Callable[[Any, int], Any]] = {
    "all_reduce": lambda x, size: functional.all_reduce(x * x),
    "avg": lambda x, size: functional.all_reduce(x * x, "avg"),
    "all_gather": lambda x, size: functional.stacked(x * x)[size - 1] * functional.stacked(x)[0],
    "reduce_scatter": lambda x, size: functional.scattered((x * x).reshape(size, -1)),
    "broadcast": lambda x, size: functional.broadcast(x * x, size - 1),
    "reduce": lambda x, size: functional.reduce(x * x, 0),
}


def weights(rank: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape) * (1 + rank)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str, compiled: bool) -> None:
    """Against central differences of the sum of all ranks' losses; and the gradient of a gradient
    against those of the gradient."""
    size, shape, h = 2, (2, 3), 1e-5

    def loss(x: Any) -> Any:
        y = LOSSES[name](x, size)
        return (y * y * tx.tensor(weights(distributed.get_rank(), y.shape))).sum()

    def gradient(x: Any) -> Any:
        return tx.autograd.grad(loss(x), [x], create_graph=True)[0]

    def second(x: Any) -> Any:
        g = gradient(x)
        return g.detach(), tx.autograd.grad((g * g).sum(), [x])[0]

    def rank() -> Any:
        me = distributed.get_rank()
        start = given(me, shape)
        wrap = tx.compile if compiled else lambda f: f
        first, twice = wrap(second)(tx.tensor(start, requires_grad=True))
        value, of_gradient = wrap(loss), wrap(lambda x: (gradient(x) ** 2).sum())
        slopes = []  # of all ranks' numbers, one after the other
        for number in range(size * start.size):
            found = []
            for step in (h, -h):
                moved = start.copy()
                if number // start.size == me:
                    moved.flat[number % start.size] += step
                x = tx.tensor(moved, requires_grad=True)
                found.append([value(x).item(), of_gradient(x).item()])
            slopes.append((np.array(found[0]) - np.array(found[1])) / (2 * h))
        return first.numpy(), twice.numpy(), np.array(slopes)

    results = local.run(size, rank)
    total = sum(slopes for *_, slopes in results)
    for me, (first, twice, _) in enumerate(results):
        mine = total[me * first.size : (me + 1) * first.size].T.reshape(2, *shape)
        np.testing.assert_allclose(first, mine[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(twice, mine[1], rtol=1e-5, atol=1e-5)


def test_no_gradient_of_a_maximum() -> None:
    x = tx.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GradError, match="all_reduce with max has no gradient"):
        functional.all_reduce(x, "max").sum().backward()


def test_the_names_of_torch() -> None:
    """Those that write into what they are given."""

    def rank() -> Any:
        me, size = distributed.get_rank(), distributed.get_world_size()
        x = tx.tensor([1.0, 2.0]) * (me + 1)
        assert distributed.is_initialized()
        every = [tx.zeros(2) for _ in range(size)]
        distributed.all_gather(every, x)
        side = tx.zeros(size * 2)
        distributed.all_gather_into_tensor(side, x)
        mine, tensor = tx.zeros(2), tx.zeros(2)
        distributed.reduce_scatter(mine, every)
        distributed.reduce_scatter_tensor(tensor, side, op=distributed.ReduceOp.MAX)
        other = x.clone()
        distributed.broadcast(other, src=1)
        objects = [{"of": me}]
        distributed.broadcast_object_list(objects, src=1)
        distributed.barrier()
        distributed.all_reduce(x)
        return [t.tolist() for t in (x, *every, side, mine, tensor, other)], objects

    first, second = local.run(2, rank)
    same = [[3.0, 6.0], [1.0, 2.0], [2.0, 4.0], [1.0, 2.0, 2.0, 4.0]]
    assert first == ([*same, [2.0, 4.0], [1.0, 2.0], [2.0, 4.0]], [{"of": 1}])
    assert second == ([*same, [4.0, 8.0], [2.0, 4.0], [2.0, 4.0]], [{"of": 1}])


def test_alone() -> None:
    """Without a launcher there is one rank, and every call works."""
    distributed.init_process_group()
    assert (distributed.get_rank(), distributed.get_world_size()) == (0, 1)
    assert not distributed.is_initialized()
    x = tx.tensor([1.0, 2.0])
    distributed.all_reduce(x)
    assert x.tolist() == [1.0, 2.0]
    assert [t.tolist() for t in functional.all_gather(x)] == [[1.0, 2.0]]
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x: functional.all_reduce(x, "mean"), UserError, "no 'mean'; there are sum, avg"),
        (lambda x: functional.all_reduce(x > 0), DTypeError, "no sum of bool"),
        (lambda x: functional.all_reduce(x.to(tx.int64), "avg"), DTypeError, "no avg of int64"),
        (lambda x: functional.broadcast(x, 1), UserError, "src is 1; it must be a rank, from 0 to"),
        (lambda x: functional.scattered(x), ShapeError, "first axis must be the ranks', 1"),
        (lambda x: functional.all_reduce([1.0]), TypeError, "a Tensor is wanted, not a list"),
        (lambda x: distributed.all_gather([], x), ShapeError, "must be 1 Tensors, one for each"),
        (lambda x: distributed.init_process_group("gloo"), UserError, 'must be "mpi", or None'),
    ],
)
def test_mistakes(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call(tx.tensor([1.0, 2.0]))


def test_an_error_of_one_rank_ends_the_others() -> None:
    def rank() -> None:
        if distributed.get_rank() == 1:
            raise ValueError("a fault")
        distributed.barrier()

    with pytest.raises(UserError, match="ValueError: a fault"):
        local.run(2, rank)


def test_buckets_go_while_the_backward_pass_runs(tmp_path: Path) -> None:
    """In the plan, a bucket is begun before gradients of earlier layers are computed, and waited
    for after all of them; all ranks begin them in one order, whatever their shapes."""

    def rank() -> Any:
        me = distributed.get_rank()
        tx.manual_seed(0)
        layers = [tx.nn.Linear(32, 32) for _ in range(4)]
        model = tx.nn.Sequential(*layers)
        x = tx.tensor(given(me, (3 + 9 * me, 32), "float32"))

        @tx.compile
        def step(x: Any) -> Any:
            for p in model.parameters():
                p.grad = None
            loss = (model(x) ** 2).sum()
            loss.backward()
            distributed.all_reduce_gradients(model.parameters(), bucket_bytes=4000)
            return loss

        step(x)
        found = [p.grad.numpy() for p in model.parameters()]
        step(x)
        again = [p.grad.numpy() for p in model.parameters()]
        assert all((a == b).all() for a, b in zip(found, again, strict=True))
        calls = [
            (call.ops, [w.shape for w in call.writes])
            for launch in step._last.plan.launches()
            for call in launch.calls
        ]
        assert "start_all_reduce" in step.explain()
        step(x)
        events = json.loads(step.trace(tmp_path / f"{me}.json").read_text())["traceEvents"]
        sent = [e for e in events if e.get("cat") == "communication"]
        assert [e["name"] for e in sent] == ["all_reduce"] * 4
        for p in model.parameters():
            p.grad = None
        (model(x) ** 2).sum().backward()
        return calls, found, [p.grad.numpy() for p in model.parameters()]

    results = local.run(2, rank)
    for calls, found, _ in results:
        names = [ops for ops, _ in calls]
        begun = [i for i, name in enumerate(names) if name == "start_all_reduce"]
        ended = [i for i, name in enumerate(names) if name == "finish_reduce"]
        products = [i for i, (name, w) in enumerate(calls) if name == "matmul" and w == [(32, 32)]]
        assert len(begun) == len(ended) == 4
        assert all(start < min(ended) for start in (*begun, *products))
        assert [sum(p > start for p in products) for start in begun] == [3, 2, 1, 0]
        for i, grad in enumerate(found):
            whole = results[0][2][i] + results[1][2][i]
            np.testing.assert_allclose(grad, whole, rtol=1e-6, atol=1e-6)
            assert grad.tobytes() == results[0][1][i].tobytes()  # on all ranks, to the bit
