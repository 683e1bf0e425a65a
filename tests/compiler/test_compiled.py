"""What tx.compile takes, which calls of a compiled function share a plan, and what they give."""

from __future__ import annotations

import asyncio
import copy
import enum
import functools
import math
import os
import pickle
import signal
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.compiler.keys import key, same
from tinygrad_tx.errors import GradError, TraceError

# Keys --------------------------------------------------------------------------------------------


class Level(enum.IntEnum):
    ONE = 1


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass(frozen=True)
class Config:
    rate: float
    size: int = 1


@dataclass
class Changing:
    rate: float


NAN = float("nan")
APART: list[tuple[Any, Any]] = [
    (0.0, -0.0),
    (1, True),
    (1, 1.0),
    (0, False),
    (1.0, True),
    (1, Level.ONE),
    (1, np.int64(1)),
    (1.0, np.float64(1.0)),
    (np.float32(0.0), np.float32(-0.0)),
    (np.float32(1), np.float64(1)),
    (np.float16(0.0), np.float16(-0.0)),
    (complex(0.0, 0.0), complex(0.0, -0.0)),
    (complex(0.0, 1.0), complex(-0.0, 1.0)),
    (np.complex64(complex(0, 0.0)), np.complex64(complex(0, -0.0))),
    (NAN, 1.0),
    (math.inf, -math.inf),
    (1e16, 10**16),
    (Decimal("0"), Decimal("-0")),
    (Decimal("1.0"), Decimal("1.00")),
    ((0.0, 1), (-0.0, 1)),
    ((1, 2), [1, 2]),
    ((1, 2), Pair(1, 2)),
    ([1, [2, 0.0]], [1, [2, -0.0]]),
    ({"a": 0.0}, {"a": -0.0}),
    ({1: "a"}, {True: "a"}),
    ({1: "a"}, {1.0: "a"}),
    ({"a": 1}, {"b": 1}),
    (frozenset([0.0]), frozenset([-0.0])),
    (frozenset([1]), frozenset([True])),
    (slice(0, 2), slice(0, 2, 1)),
    (slice(0.0), slice(-0.0)),
    (range(3), slice(3)),
    (Config(0.0), Config(-0.0)),
    (Config(1), Config(1.0)),
    (None, False),
    (None, 0),
    ("", None),
    ("1", 1),
    ("a", b"a"),
    (Colour.RED, Colour.BLUE),
    (Colour.RED, 1),
    (tx.float32, tx.float64),
    (tx.float32, "float32"),
    (np.dtype("float32"), np.float32),
    (float, int),
]
TOGETHER: list[Callable[[], Any]] = [
    lambda: float("nan"),
    lambda: np.float32("nan"),
    lambda: np.float64("nan"),
    lambda: complex(float("nan"), -0.0),
    lambda: Decimal("NaN"),
    lambda: (float("nan"), [float("nan")]),
    lambda: {"a": float("nan")},
    lambda: frozenset([float("nan")]),
    lambda: Config(float("nan")),
    lambda: -0.0,
    lambda: 10**30,
    lambda: "".join(["a", "b"]),
    lambda: slice(None, int("3")),
    lambda: Pair(1, (2.5, None)),
    lambda: Colour.RED,
    lambda: np.dtype("int64"),
    lambda: tx.float32,
    lambda: None,
]


@pytest.mark.parametrize(("a", "b"), APART)
def test_what_a_function_may_tell_apart_has_plans_of_its_own(a: Any, b: Any) -> None:
    assert key(a) != key(b) and not same(a, b)
    seen: list[Any] = []

    @tx.compile
    def f(x: tx.Tensor, value: Any) -> tx.Tensor:
        seen.append(value)
        return x + len(seen)

    x = tx.zeros(2)
    assert [f(x, v).tolist()[0] for v in (a, b, a, b)] == [1, 2, 1, 2]
    assert repr(seen) == repr([a, b])


@pytest.mark.parametrize("make", TOGETHER)
def test_what_is_the_same_shares_a_plan(make: Callable[[], Any]) -> None:
    assert key(make()) == key(make()) and hash(key(make())) == hash(key(make()))
    f = tx.compile(lambda x, value, other=None: x + 1)
    for _ in range(3):
        f(tx.zeros(2), make(), other=make())
    assert f.stats()["retraces"] == 0


def test_dividing_by_a_zero_with_a_sign() -> None:
    f = tx.compile(lambda x, s: x / s)
    x = tx.ones(2)
    for s in (0.0, -0.0, 0.0, -0.0):
        assert f(x, s).tolist() == [math.copysign(math.inf, s)] * 2
    assert all(math.isnan(v) for _ in range(3) for v in f(x, float("nan")).tolist())
    assert f.stats()["retraces"] == 2


@pytest.mark.parametrize("value", [np.zeros(2), Changing(0.5), {1, 2}, bytearray(b"a"), iter([1])])
def test_what_could_change_unseen_is_no_argument(value: Any) -> None:
    f = tx.compile(lambda x, value: x + 1)
    with pytest.raises(TraceError, match=r"^argument 1 of a compiled function is an? [^\n]*$"):
        f(tx.zeros(1), value)


def test_a_parameter_and_a_tensor_have_plans_of_their_own() -> None:
    f = tx.compile(lambda x: x + isinstance(x, tx.nn.Parameter))
    plain, parameter = tx.zeros(2, requires_grad=True), tx.nn.Parameter(tx.zeros(2))
    assert (f(plain).tolist(), f(parameter).tolist()) == ([0, 0], [1, 1])


def test_a_tensor_within_an_argument_is_that_tensor() -> None:
    f = tx.compile(lambda x, config: x * config.rate)
    a, b, c = tx.tensor([2.0, 3.0]), tx.tensor([2.0, 3.0]), tx.tensor(5.0)
    for _ in range(2):
        assert f(tx.ones(2), Config(a)).tolist() == [2.0, 3.0]
        assert f(tx.ones(2), Config(b)).tolist() == [2.0, 3.0]
        assert f(tx.ones(2), Config(c)).tolist() == [5.0, 5.0]
    b += 1
    assert f(tx.ones(2), Config(b)).tolist() == [3.0, 4.0]
    assert f(tx.ones(2), Config(a)).tolist() == [2.0, 3.0]
    assert f.stats()["retraces"] == 2


def test_a_retrace_names_the_values(caplog: pytest.LogCaptureFixture) -> None:
    f = tx.compile(lambda x, value: x + 1)
    with caplog.at_level("INFO", logger="tinygrad_tx.compiler"):
        for value in (0.0, -0.0, "a", tx.zeros(1), Config(2.5)):
            f(tx.zeros(2), value)
    messages = [record.message.partition("traced again: ")[2] for record in caplog.records]
    assert messages[:2] == ["argument 1 was 0.0, is -0.0", "argument 1 was -0.0, is 'a'"]
    assert messages[2] == "argument 1 was 'a', is a Tensor"
    assert messages[3].startswith("argument 1 was a Tensor, is ") and "2.5" in messages[3]


def test_a_guarded_value_is_compared_as_an_argument_is() -> None:
    from tinygrad_tx.context import guarded

    class Settings:
        scale: Any = float("nan")

    settings = Settings()
    f = tx.compile(lambda x: x / guarded(settings, "scale"))
    x = tx.ones(1)
    for _ in range(3):
        settings.scale = float("nan")
        assert math.isnan(f(x).item())
    assert f.stats()["retraces"] == 0
    for scale in (0.0, -0.0, 0.0, 1, True, 1.0):
        settings.scale = scale
        np.testing.assert_array_equal(f(x).numpy(), (x / scale).numpy())
    assert f.stats()["retraces"] == 5


# What is compiled --------------------------------------------------------------------------------


def generator(x: tx.Tensor) -> Iterator[tx.Tensor]:
    yield x + 1


async def coroutine(x: tx.Tensor) -> tx.Tensor:
    return x + 1


async def async_generator(x: tx.Tensor) -> AsyncIterator[tx.Tensor]:
    yield x + 1


class Model:
    def generate(self, x: tx.Tensor) -> Iterator[tx.Tensor]:
        yield x

    async def answer(self, x: tx.Tensor) -> tx.Tensor:
        return x


class Stream:
    def __call__(self, x: tx.Tensor) -> Iterator[tx.Tensor]:
        yield x


class Yielding(tx.nn.Module):
    def forward(self, x: tx.Tensor) -> Iterator[tx.Tensor]:
        yield x


REFUSED: list[tuple[Any, str]] = [
    (generator, "generator is a generator function"),
    (coroutine, "coroutine is an async function"),
    (async_generator, "async_generator is an async generator function"),
    (functools.partial(generator), "generator is a generator function"),
    (functools.partial(functools.partial(coroutine)), "coroutine is an async function"),
    (Model().generate, "Model.generate is a generator function"),
    (Model().answer, "Model.answer is an async function"),
    (Stream(), "Stream is a generator function"),
    (Yielding(), "Yielding is a generator function"),
    (lambda x: (yield x), "<lambda> is a generator function"),
    (tx.nn.Linear, "Linear is a class"),
    (Model, "Model is a class"),
    (staticmethod(generator), "write @staticmethod above @tx.compile"),
    (classmethod(generator), "write @classmethod above @tx.compile"),
    (property(generator), "write @property above @tx.compile"),
    (tx.zeros(2), "not a Tensor"),
    (3, "not int"),
    ("step", "not str"),
    ([generator], "not list"),
]


@pytest.mark.parametrize(("f", "words"), REFUSED)
def test_what_is_no_function_of_tensors_is_refused(f: Any, words: str) -> None:
    with pytest.raises(TypeError) as found:
        tx.compile(f)
    assert words in str(found.value) and "\n" not in str(found.value)
    assert str(found.value).startswith("tx.compile")


def wrapped(x: tx.Tensor) -> Any:
    return coroutine(x)


LATE: list[tuple[Callable[[tx.Tensor], Any], str]] = [
    (lambda x: (x + i for i in range(3)), "generator"),
    (lambda x: map(abs, [x]), "map"),
    (lambda x: zip([x], [x], strict=True), "zip"),
    (lambda x: iter([x]), "list_iterator"),
    (lambda x: {"a": [x, reversed([x])]}, "list_reverseiterator"),
    (lambda x: generator(x), "generator"),
    (lambda x: async_generator(x), "async_generator"),
    (wrapped, "coroutine"),
]


@pytest.mark.parametrize(("f", "kind"), LATE)
def test_what_computes_later_is_not_returned(f: Callable[[tx.Tensor], Any], kind: str) -> None:
    compiled = tx.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(TraceError, match=rf"returned a {kind}, [^\n]*$"):
                compiled(tx.zeros(2))


def test_a_wrapper_that_waits_for_its_coroutine_is_a_function() -> None:
    @functools.wraps(coroutine)
    def run(x: tx.Tensor) -> Any:
        return asyncio.run(coroutine(x))

    assert tx.compile(run)(tx.zeros(2)).tolist() == [1, 1]


def test_as_a_decorator_with_and_without_parentheses() -> None:
    @tx.compile
    def one(x: tx.Tensor) -> tx.Tensor:
        """Adds one."""
        return x + 1

    @tx.compile()
    def two(x: tx.Tensor) -> tx.Tensor:
        return x + 2

    assert one(tx.zeros(1)).item() == 1 and two(tx.zeros(1)).item() == 2
    assert (one.__doc__, two.__name__) == ("Adds one.", "two")
    assert isinstance(two, tx.compiler.Compiled)
    with pytest.raises(TypeError, match="mode"):
        tx.compile(one, mode="max-autotune")  # type: ignore[call-overload]


def test_what_is_compiled_already_is_given_back() -> None:
    f = tx.compile(lambda x: x + 1)
    assert tx.compile(f) is f and tx.compile()(f) is f


def test_partial_functions_and_lambdas_and_builtins() -> None:
    f = tx.compile(functools.partial(lambda a, b, c: a * b + c, tx.full((2,), 3.0), c=1))
    assert f(tx.full((2,), 2.0)).tolist() == [7, 7]
    assert tx.compile(abs)(tx.full((2,), -2.0)).tolist() == [2, 2]
    assert "<lambda>" in f.explain()


class Counter:
    def __init__(self, start: float) -> None:
        self.total, self.done = tx.full((), start), tx.tensor(False)

    @tx.compile
    def add(self, x: tx.Tensor) -> tx.Tensor:
        self.total.assign(self.total + x)
        self.done.assign(self.total > 9)
        return self.total * 1

    @classmethod
    @tx.compile
    def double(cls, x: tx.Tensor) -> tx.Tensor:
        return x * 2

    @staticmethod
    @tx.compile
    def triple(x: tx.Tensor) -> tx.Tensor:
        return x * 3

    def plain(self, x: tx.Tensor) -> tx.Tensor:
        return x + self.total


def test_methods() -> None:
    a, b, one = Counter(0.0), Counter(5.0), tx.ones(())
    assert [a.add(one).item(), b.add(one).item(), a.add(one).item()] == [1, 6, 2]
    assert (a.double(one).item(), Counter.triple(one).item(), a.triple(one).item()) == (2, 3, 3)
    assert a.add.repeat(100, a.done, one) == 8 and a.total.item() == 10
    assert "Counter.add" in a.add.explain() and a.add.stats()["cache_hits"] >= 1
    assert tx.compile(a.plain)(one).item() == 11
    assert tx.compile(a.add)(one).item() == 11


def test_modules() -> None:
    model = tx.nn.Sequential(tx.nn.Linear(3, 2), tx.nn.Dropout(0.9))
    compiled = tx.compile(model)
    x = tx.ones(4, 3)
    assert [p is q for p, q in zip(compiled.parameters(), model.parameters(), strict=True)]
    compiled.eval()
    np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=1e-6)
    compiled.train()
    assert (compiled(x).numpy() == 0).mean() > 0.3
    compiled(x).sum()
    model.eval()
    with tx.no_grad():
        model[0].weight.assign(tx.zeros(2, 3))
    np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy())
    assert compiled.explain().startswith("Sequential: ")
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = compiled.nothing_such


@pytest.mark.parametrize(
    ("times", "until", "words"),
    [
        ("3", tx.tensor(False), "times must be a whole number, not str"),
        (2.0, tx.tensor(False), "times must be a whole number, not float"),
        (True, tx.tensor(False), "times must be a whole number, not bool"),
        (3, False, "until must be a 0-d Tensor"),
        (3, tx.zeros(2), "until must be a 0-d Tensor"),
    ],
)
def test_wrong_kinds_in_repeat(times: Any, until: Any, words: str) -> None:
    f = tx.compile(lambda: tx.zeros(1))
    with pytest.raises(TypeError, match=words):
        f.repeat(times, until)


@pytest.mark.parametrize("mode", ["", "interp", "replay"])
def test_no_gradient_is_a_part_only(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiled function gives has no history, and whoever adds to it is told."""
    monkeypatch.setenv("TX_COMPILE", mode)
    w, x = tx.ones(2, requires_grad=True), tx.tensor([3.0, 4.0])
    f = tx.compile(lambda x: (x * w, (x * w).argmax(), x * 2))
    scaled, place, free = f(x)
    best = scaled.reshape(1, 2).topk(1)
    for part in (scaled, scaled[0] * 2, scaled.sum(), scaled.cumsum(0), best[0][0]):
        with pytest.raises(GradError, match=r"compiled function.*detach"):
            (part + w).sum().backward()
    assert w.grad is None
    with tx.no_grad():
        outside = f(x)[0], scaled * 2
    for part in (*outside, scaled.detach(), scaled.argmax(), place, best[1][0], free, scaled > 1):
        (part * w).sum().backward()
    assert not scaled.requires_grad and scaled.is_leaf
    assert copy.deepcopy(scaled).tolist() == pickle.loads(pickle.dumps(scaled)).tolist() == [3, 4]
    w.grad = None
    hits, retraces = f.stats()["cache_hits"], f.stats()["retraces"]
    assert f(scaled)[0].tolist() == [3, 4]  # an argument like any other
    assert (f.stats()["cache_hits"], f.stats()["retraces"]) == (hits + 1, retraces)


@pytest.mark.parametrize("mode", ["", "interp", "replay"])
def test_lost_history_is_known_further_on(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through other compiled functions and through state, whether it is written in place or not."""
    monkeypatch.setenv("TX_COMPILE", mode)
    w, state = tx.tensor([1.0, 2.0], requires_grad=True), tx.zeros(2)
    twice, thrice = tx.compile(lambda x: x * 2), tx.compile(lambda x: (x * 3, x.argmax()))

    @tx.compile
    def remember(x: tx.Tensor) -> None:
        state.assign(x * w)

    later, place = thrice(twice(w))
    for _ in range(3):
        remember(tx.ones(2))
        for part in (later, state):
            with pytest.raises(GradError, match="compiled function"):
                (part * w).sum().backward()
    fed = tx.zeros(2)
    tx.compile(lambda x: fed.assign(x + 1))(twice(w))
    with pytest.raises(GradError, match="compiled function"):
        (fed * w).sum().backward()
    assert w.grad is None
    for _ in range(2):  # plans that take turns on the same state
        with tx.no_grad():
            remember(tx.ones(2))
        (state * w).sum().backward()
        w.grad = None
        remember(tx.ones(2))
        with pytest.raises(GradError, match="compiled function"):
            (state * w).sum().backward()
    with tx.no_grad():
        remember(tx.ones(2))
        inside = thrice(twice(w))[0]
        fed.assign(twice(w))
    for part in (state, inside, fed, place, thrice(tx.ones(2))[0]):
        w.grad = None
        (part * w).sum().backward()
        assert w.grad is not None and w.grad.tolist() == (part * tx.ones(2)).tolist()


def test_lost_history_is_no_matter_to_a_functions_own_gradient() -> None:
    w = tx.tensor([1.0, 2.0], requires_grad=True)
    target = tx.compile(lambda x: x * 2)(w)
    value, slope = tx.value_and_grad(lambda x: ((x - target) ** 2).sum())(tx.ones(2))
    assert (value.item(), slope.tolist()) == (10.0, [-2.0, -6.0])


def test_settings_of_a_compiled_module_are_the_modules() -> None:
    model = tx.compile(tx.nn.Dropout(0.5))
    model.training = False
    assert 0 not in model(tx.ones(50)).tolist()
    model.training = True
    assert 0 in model(tx.ones(50)).tolist()


def test_a_compiled_method_is_an_argument_like_a_bound_one() -> None:
    class Scale:
        def __init__(self, by: float) -> None:
            self.by = by

        @tx.compile
        def apply(self, x: tx.Tensor) -> tx.Tensor:
            return x * self.by

    two, three = Scale(2.0), Scale(3.0)
    f = tx.compile(lambda x, of: of(x))
    assert [f(tx.ones(1), s.apply).item() for s in (two, two, three, two)] == [2, 2, 3, 2]
    assert f.stats()["retraces"] == 1
    assert two.apply == two.apply != three.apply


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_a_process_that_traces_may_trace() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(x: tx.Tensor) -> tx.Tensor:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            go_on.wait(30)
        return x + 1

    f = tx.compile(slow)
    thread = threading.Thread(target=f, args=(tx.ones(1),))
    thread.start()
    assert begun.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if not child:
        signal.alarm(20)  # ends the child where it waits for ever
        os._exit(0 if f(tx.ones(2)).tolist() == [2, 2] else 1)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_the_order_of_a_dict_is_told_apart() -> None:
    first = tx.compile(lambda x, d: x * next(iter(d["of"].values())))
    x = tx.ones(1)
    assert first(x, {"of": {"m": 2, "a": 1}}).item() == 2
    assert first(x, {"of": {"a": 1, "m": 2}}).item() == 1
    assert key({"m": 2, "a": 1}) != key({"a": 1, "m": 2})
