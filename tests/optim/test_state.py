"""What optimizers and schedules remember: steps of each parameter, and states in every order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, optim
from tinygrad_tx.errors import GradError, UserError
from tinygrad_tx.optim import lr_scheduler

Array = np.ndarray[Any, Any]
Make = Callable[[Any], optim.Optimizer]


def parameters(dtype: Any = tx.float64, count: int = 3) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(tx.tensor(rng.standard_normal((2, i + 1)), dtype=dtype))
            for i in range(count)]  # fmt: skip


OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {
    "sgd": lambda o, ps: o.SGD(ps, lr=0.1, weight_decay=0.1),
    "momentum": lambda o, ps: o.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.1),
    "dampened": lambda o, ps: o.SGD(ps, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    "nesterov": lambda o, ps: o.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda o, ps: o.Adam(ps, lr=0.1, weight_decay=0.1),
    "adamw": lambda o, ps: o.AdamW(ps, lr=0.1, weight_decay=0.1),
    "groups": lambda o, ps: o.AdamW(
        [{"params": ps[:1], "lr": 0.3}, {"params": ps[1:], "betas": (0.5, 0.9)}], lr=0.01
    ),
}


# Each parameter has its own steps -----------------------------------------------------------------


def test_the_first_step_is_one_lr_whenever_it_comes() -> None:
    for kind in (optim.Adam, lambda ps, lr: optim.AdamW(ps, lr, weight_decay=0.0)):
        early, late = (nn.Parameter(tx.zeros(1, dtype=tx.float64)) for _ in range(2))
        optimizer = kind([early, late], lr=0.01)
        early.grad = tx.ones(1, dtype=tx.float64)
        for _ in range(999):
            optimizer.step()
        late.grad = tx.full((1,), 3.0, dtype=tx.float64)
        optimizer.step()
        assert late.item() == pytest.approx(-0.01, rel=1e-6)
        assert optimizer.param_groups[0].missed.tolist() == [0, 999]
        assert optimizer.step_count.item() == 1000


# Which of three parameters have a gradient, step by step.
PATTERN = ["100", "110", "000", "011", "111", "101", "010", "111"]


def gradients(seed: int = 1) -> Iterator[list[Array | None]]:
    rng = np.random.default_rng(seed)
    for row in PATTERN:
        yield [rng.standard_normal((2, i + 1)) if on == "1" else None for i, on in enumerate(row)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_that_come_and_go_as_torch(name: str, compiled: bool) -> None:
    torch = pytest.importorskip("torch")
    ps = parameters()
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy().copy())) for p in ps]
    ours, other = OPTIMIZERS[name](optim, ps), OPTIMIZERS[name](torch.optim, theirs)
    step = tx.compile(ours.step) if compiled else ours.step
    for grads in gradients():
        for p, q, g in zip(ps, theirs, grads, strict=True):
            p.grad = None if g is None else tx.tensor(g)
            q.grad = None if g is None else torch.tensor(g)
        step()
        other.step()
        for p, q in zip(ps, theirs, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-11)
    missed = [n for group in ours.param_groups for n in group.missed.tolist()]
    assert ours.step_count.item() == 7 and missed == [2, 2, 3]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_first_step_is_no_first_step(name: str) -> None:
    ps, others = parameters(), parameters()
    for bad, members in ((True, ps), (False, others)):
        optimizer = OPTIMIZERS[name](optim, members)
        for value in [np.nan, 1.0] if bad else [1.0]:
            for p in members:
                p.grad = tx.full(p.shape, value, dtype=p.dtype)
            optimizer.step()
    for p, q in zip(ps, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


# States of optimizers ----------------------------------------------------------------------


def run(optimizer: optim.Optimizer, seed: int) -> None:
    for grads in gradients(seed):
        for p, g in zip(optimizer.parameters, grads, strict=True):
            p.grad = None if g is None else tx.tensor(g, dtype=p.dtype)
        optimizer.step()


def copy_of(ps: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach()) for p in ps]


def assert_same(ps: list[nn.Parameter], others: list[nn.Parameter]) -> None:
    for p, q in zip(ps, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_goes_on_to_the_bit_and_is_a_copy(name: str) -> None:
    first = OPTIMIZERS[name](optim, parameters(tx.float32))
    run(first, 1)
    second = OPTIMIZERS[name](optim, copy_of(first.parameters))
    state = first.state_dict()
    before = {k: v.numpy().copy() for k, v in state.items()}
    second.load_state_dict(state)
    run(first, 2)
    for k, v in state.items():  # neither optimizer changes it
        np.testing.assert_array_equal(v.numpy(), before[k])
    run(second, 2)
    for k, v in state.items():
        np.testing.assert_array_equal(v.numpy(), before[k])
    assert_same(first.parameters, second.parameters)


def before_parameters_counted(state: dict[str, tx.Tensor]) -> dict[str, tx.Tensor]:
    """A state as it was when one count of steps held for all parameters."""
    return {k: v for k, v in state.items() if not k.startswith(("missed.", "initial_lr."))}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_with_one_count_for_all_goes_on_to_the_bit(name: str) -> None:
    first = OPTIMIZERS[name](optim, parameters(tx.float32))
    for i in range(3):
        for p in first.parameters:
            p.grad = tx.ones_like(p) * (i + 1)
        first.step()
    second = OPTIMIZERS[name](optim, copy_of(first.parameters))
    second.load_state_dict(before_parameters_counted(first.state_dict()))
    assert all(set(group.missed.tolist()) == {0} for group in second.param_groups)
    run(first, 2)
    run(second, 2)
    assert_same(first.parameters, second.parameters)


def test_states_take_the_dtype_and_shape_of_what_they_are_loaded_into() -> None:
    wide, narrow = optim.Adam(parameters()), optim.Adam(parameters(tx.float32))
    run(wide, 1)
    narrow.load_state_dict({k: v.numpy() for k, v in wide.state_dict().items()})
    for k, v in wide.state_dict().items():
        got = narrow.state_dict()[k]
        dtype = tx.float32 if k.startswith("exp") else v.dtype
        assert (got.dtype, got.shape) == (dtype, v.shape)
        np.testing.assert_array_equal(got.numpy(), v.to(dtype).numpy())


def grouped(*sizes: int) -> optim.Optimizer:
    ps = iter([nn.Parameter(tx.zeros(2)) for _ in range(3)])
    return optim.Adam([{"params": [next(ps) for _ in range(n)]} for n in sizes])


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (lambda: grouped(2, 1).state_dict(), r"missed.0 is \(2,\), wanted \(1,\)"),
        (lambda: grouped(3).state_dict(), r"missing: lr.1, missed.1"),
        (lambda: {**grouped(1, 2).state_dict(), "missed.2": np.zeros(1)}, r"unexpected: missed.2"),
        (dict, r"missing: step, skipped, lr.0"),
        (lambda: {**grouped(1, 2).state_dict(), "step": None}, r"neither .* step \(NoneType\)"),
        (lambda: [1], r"a dict of Tensors or arrays by name, not a list"),
    ],
)
def test_states_that_do_not_fit(state: Callable[[], Any], text: str) -> None:
    optimizer = grouped(1, 2)
    before = {k: v.numpy().copy() for k, v in optimizer.state_dict().items()}
    with pytest.raises(UserError, match=text):
        optimizer.load_state_dict(state())
    for k, v in optimizer.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), before[k])


# Schedules: in whatever order things are made and loaded -------------------------------------

SCHEDULES: dict[str, Callable[[optim.Optimizer], lr_scheduler.Schedule]] = {
    "noam": lambda o: lr_scheduler.Noam(o, 512, 10),
    "inverse_sqrt": lambda o: lr_scheduler.InverseSqrt(o, 10),
    "constant": lambda o: lr_scheduler.Constant(o, 60),
    "linear": lambda o: lr_scheduler.Linear(o, 200, 10, min_lr=0.01),
    "cosine": lambda o: lr_scheduler.Cosine(o, 200, 60),
}
ORDERS = [
    order
    for order in permutations(["make schedule", "load optimizer", "load schedule"])
    if order.index("make schedule") < order.index("load schedule")
]


def two_groups(first: float = 1.0) -> optim.Optimizer:
    ps = parameters()
    return optim.Adam([{"params": ps[:1], "lr": first}, {"params": ps[1:], "lr": 0.25}])


def rates(optimizer: optim.Optimizer) -> list[float]:
    return [group["lr"].item() for group in optimizer.param_groups]


def test_the_rate_after_a_schedule_was_made_on_a_loaded_optimizer() -> None:
    def make() -> optim.Optimizer:
        return optim.Adam([nn.Parameter(tx.ones(1))], lr=1)

    first = make()
    schedule = lr_scheduler.InverseSqrt(first, 10)
    for _ in range(50):
        schedule.step()
    second = make()
    second.load_state_dict(first.state_dict())
    again = lr_scheduler.InverseSqrt(second, 10)
    again.load_state_dict(schedule.state_dict())
    assert rates(second) == rates(first) == [pytest.approx((10 / 51) ** 0.5)]
    assert rates(second)[0] == pytest.approx(0.4428, abs=5e-5)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_in_any_order(name: str, order: tuple[str, ...]) -> None:
    first = two_groups()
    schedule = SCHEDULES[name](first)
    for _ in range(50):
        schedule.step()
    states = first.state_dict(), schedule.state_dict()
    wanted = [rates(first)]
    for _ in range(30):
        schedule.step()
        wanted.append(rates(first))

    second = two_groups(first=7.0)  # what it was made with is not what it goes on with
    other: Any = None
    for act in order:
        if act == "make schedule":
            other = SCHEDULES[name](second)
        elif act == "load optimizer":
            second.load_state_dict(states[0])
        else:
            other.load_state_dict(states[1])
    step = tx.compile(other.step)
    got = [rates(second)]
    for i in range(30):
        (step if i % 2 else other.step)()
        got.append(rates(second))
    np.testing.assert_allclose(got, wanted, rtol=1e-15)


def test_a_compiled_schedule_sees_a_state_that_is_loaded_later() -> None:
    first, second = two_groups(), two_groups(first=3.0)
    schedules = [lr_scheduler.InverseSqrt(o, 10) for o in (first, second)]
    steps = [tx.compile(s.step) for s in schedules]
    for step in steps:
        step()
    schedules[1].load_state_dict(schedules[0].state_dict())
    for step in steps:
        step()
    assert rates(first) == rates(second) and steps[1].stats()["retraces"] == 0


def test_states_from_before_schedules_kept_the_first_lr() -> None:
    first = two_groups()
    schedule = lr_scheduler.Cosine(first, 100)
    for _ in range(20):
        schedule.step()
    second = two_groups()
    other = lr_scheduler.Cosine(second, 100)
    second.load_state_dict(before_parameters_counted(first.state_dict()))
    other.load_state_dict({"step": schedule.state_dict()["step"]})
    assert rates(first) == rates(second)


def test_a_schedule_made_again_starts_from_the_first_lr() -> None:
    optimizer = two_groups()
    for _ in range(2):  # as a notebook's cell that is run twice
        schedule = lr_scheduler.InverseSqrt(optimizer, 10)
        assert rates(optimizer) == pytest.approx([0.1, 0.025])
    with pytest.raises(UserError, match=r"InverseSqrt: .* missing: initial_lr.1"):
        schedule.load_state_dict({"step": np.array(3), "initial_lr.0": np.array(1.0)})
    with pytest.raises(TypeError, match="Cosine: optimizer must be an Optimizer, not a list"):
        lr_scheduler.Cosine([], 10)


# Optimizers of one's own -------------------------------------------------------------------------


class Sign(optim.Optimizer):
    """The least that an optimizer is: options and an update."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def update(self, p: Any, grad: Any, moments: Any, group: Any, scalars: Any) -> None:
        p.assign(p - scalars["lr"] * grad.sign())


class Own(optim.Optimizer):
    """Moments, and numbers of its own: for a group, and for each parameter."""

    def moment_names(self, group: Any) -> tuple[str, ...]:
        return ("sum",)

    def scalars(self, group: Any, taken: tx.Tensor) -> dict[str, tx.Tensor]:
        return {"rate": taken * group["lr"] / (self.steps_of(group) + 1), "taken": taken}

    def update(self, p: Any, grad: Any, moments: Any, group: Any, scalars: Any) -> None:
        assert scalars["rate"].shape == () and scalars["rate"].dtype == p.dtype
        moments["sum"].assign(moments["sum"] + grad)
        p.assign(p - scalars["rate"] * moments["sum"])


class Before(optim.Optimizer):
    """Methods under the names that they had before they were public."""

    def _moments(self, group: Any) -> tuple[str, ...]:
        return ("sum",)

    def _scalars(self, group: Any, taken: tx.Tensor) -> dict[str, tx.Tensor]:
        return super()._scalars(group, taken)  # type: ignore[misc]

    def _update(self, p: Any, grad: Any, moments: Any, group: Any, scalars: Any) -> None:
        moments["sum"].assign(moments["sum"] + grad)
        p.assign(p - scalars["lr"] * moments["sum"])


def test_old_names_of_methods_go_on_working() -> None:
    class Halved(optim.lr_scheduler.Schedule):
        def _rate(self, i: int, step: tx.Tensor, base: tx.Tensor) -> tx.Tensor:
            return base / step

    p = nn.Parameter(tx.zeros(1))
    optimizer = Before([p], {"lr": 1.0})
    schedule = Halved(optimizer)
    for _ in range(2):
        p.grad = tx.ones(1)
        optimizer.step()
        schedule.step()
    assert p.tolist() == [-2.0] and schedule.get_last_lr() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("compiled", [False, True])
def test_an_optimizer_of_ones_own(compiled: bool) -> None:
    p = nn.Parameter(tx.tensor([1.0, -1.0]))
    optimizer = Sign([p])
    step = tx.compile(optimizer.step) if compiled else optimizer.step
    for grad in ([2.0, -0.5], [np.nan, 1.0]):
        p.grad = tx.tensor(grad)
        step()
    np.testing.assert_allclose(p.numpy(), [0.9, -0.9], rtol=1e-6)
    assert (optimizer.step_count.item(), optimizer.skipped.item()) == (1, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    ps = [nn.Parameter(tx.zeros(1)) for _ in range(2)]
    own = Own([{"params": ps[:1], "lr": 1.0}, {"params": ps[1:], "lr": 2.0}], {"lr": 0.0})
    step = tx.compile(own.step) if compiled else own.step
    for _ in range(2):
        for p in ps:
            p.grad = tx.ones(1)
        step()
    assert [p.item() for p in ps] == [-2.0, -4.0]  # 1 + 2 / 2


class Forgetful(optim.Optimizer):
    pass


P = nn.Parameter(tx.ones(2))
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Forgetful([P], {"lr": 0.1}), TypeError, r"Forgetful must define update\(self, p"),
    (lambda: Own([P], {"rate": 0.1}), UserError, r'Own: its options, rate, lack "lr"'),
    (lambda: optim.Adam([P], lr="fast"), TypeError, "lr must be a number, not 'fast'"),
    (lambda: optim.Adam([P], lr=tx.ones(2)), TypeError, r"lr must be one number, not .*\(2,\)"),
    (lambda: optim.Adam([P], lr=float("nan")), UserError, "lr is nan; it must be 0 or more"),
    (lambda: optim.Adam([P], lr=tx.tensor(-1.0)), UserError, "lr is -1.0; it must be 0 or more"),
    (lambda: optim.Adam([P], betas=0.9), UserError, "betas is 0.9; it must be two numbers"),
    (lambda: optim.Adam([P], betas=("a", 1)), TypeError, "betas must be a number, not 'a'"),
    (lambda: optim.Adam([P], eps=None), TypeError, "eps must be a number, not None"),
    (lambda: optim.AdamW([P], weight_decay="no"), TypeError, "weight_decay must be a number"),
    (lambda: optim.SGD([P], momentum=[1]), TypeError, "momentum must be a number, not a list"),
    (lambda: optim.SGD([P], 0.1, 0.9, 0.1, 0.0, True), UserError, "nesterov .* undampened"),
    (lambda: optim.SGD(None), TypeError, "SGD: params must be Tensors or dicts, not None"),
    (lambda: optim.SGD(P), TypeError, "SGD: params must be a list of Tensors or dicts, not one"),
    (lambda: optim.SGD("abc"), TypeError, "SGD: params must be Tensors or dicts, not 'abc'"),
    (lambda: optim.SGD([P, 3]), TypeError, "SGD: a parameter must be a Tensor, not 3"),
    (lambda: optim.SGD([{"params": 3}]), TypeError, "SGD: params must be Tensors or dicts, not 3"),
    (lambda: optim.SGD([tx.arange(3)]), tx.errors.DTypeError, "SGD: .* floating dtype, not int64"),
    (lambda: optim.EMA([1]), TypeError, "EMA: a parameter must be a Tensor, not 1"),
    (lambda: optim.EMA(None), TypeError, "EMA: params must be Tensors, not None"),
    (lambda: optim.EMA([P], decay="x"), TypeError, "decay must be a number, not 'x'"),
    (lambda: optim.clip_grad_norm_(3, 1.0), TypeError, "clip_grad_norm_: .* Tensors, not 3"),
    (lambda: optim.clip_grad_norm_([P], "x"), TypeError, "max_norm must be a number, not 'x'"),
    (lambda: optim.clip_grad_norm_([P], 1.0, "x"), TypeError, "norm_type must be a number"),
    (lambda: Own([P], None), TypeError, "Own: its options must be a dict, not None"),
    (lambda: optim.SGD([P]).step(3), TypeError, "step: closure must be a function or None, not 3"),
    (lambda: optim.SGD([P]).load_state_dict({1: P}), UserError, "SGD: .* has the key 1"),
    (lambda: lr_scheduler.Noam(Sign([P]), 4).load_state_dict({1: P}), UserError, "has the key 1"),
    (lambda: optim.clip_grad_norm_([3], 1.0), TypeError, "clip_grad_norm_: a parameter must"),
    (lambda: lr_scheduler.Noam(Sign([P]), "x"), TypeError, "d_model must be a number, not 'x'"),
    (lambda: lr_scheduler.Cosine(Sign([P]), None), TypeError, "total_steps must be a number"),
    (lambda: lr_scheduler.InverseSqrt(Sign([P]), [1]), TypeError, "warmup must be a number"),
]


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_errors_say_what_is_wrong(i: int) -> None:
    call, kind, text = WRONG[i]
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


class Returning(optim.Optimizer):
    """What a derived class may do wrong, by the name of the mistake."""

    def __init__(self, params: Any, mistake: str) -> None:
        self.mistake = mistake
        if mistake != "no init":
            super().__init__(params, {"lr": 0.1})

    def moment_names(self, group: Any) -> Any:
        return "sum" if self.mistake == "moments" else ()

    def scalars(self, group: Any, taken: Any) -> Any:
        return {"lr": 0.1} if self.mistake == "scalars" else super().scalars(group, taken)

    def update(self, p: Any, grad: Any, moments: Any, group: Any, scalars: Any) -> Any:
        return p - group["momentum"] if self.mistake == "option" else p - scalars["lr"] * grad


@pytest.mark.parametrize(
    ("mistake", "kind", "text"),
    [
        ("no init", TypeError, r"Returning: its __init__ must call super\(\).__init__"),
        ("moments", TypeError, "Returning: moment_names must give a tuple of names, not 'sum'"),
        ("scalars", TypeError, "Returning: scalars must give a dict of Tensors, not"),
        ("option", KeyError, 'the optimizer has no option "momentum"; it has lr'),
        ("result", TypeError, "Returning: update must assign to the parameter"),
    ],
)
def test_mistakes_of_a_derived_class(mistake: str, kind: type[Exception], text: str) -> None:
    p = nn.Parameter(tx.ones(1))
    p.grad = tx.ones(1)
    with pytest.raises(kind, match=text):
        Returning([p], mistake).step()


SET: list[tuple[Callable[[], optim.Optimizer], str, Any, str]] = [
    (lambda: optim.Adam([P]), "betas", 0.9, "betas is 0.9"),
    (lambda: optim.Adam([P]), "eps", "x", "eps must be a number, not 'x'"),
    (lambda: optim.Adam([P]), "weight_decay", -1, "weight_decay is -1"),
    (lambda: optim.SGD([P]), "dampening", None, "dampening must be a number"),
    (lambda: optim.SGD([P]), "nesterov", True, "nesterov is True; it must be used with momentum"),
    (lambda: optim.SGD([P]), "momentum", 0.9, "momentum was switched on .*: make a new one"),
]


@pytest.mark.parametrize("i", range(len(SET)))
@pytest.mark.parametrize("compiled", [False, True])
def test_an_option_that_is_set_later_is_looked_at(i: int, compiled: bool) -> None:
    make, name, value, text = SET[i]
    optimizer = make()
    step: Any = tx.compile(lambda: optimizer.step()) if compiled else optimizer.step
    P.grad = tx.ones(2)
    step()
    optimizer.param_groups[0][name] = value
    with pytest.raises((TypeError, UserError), match=text):
        step()


def test_what_is_learnt_is_fixed() -> None:
    """Another parameter in a group was passed over, or took the moments of the next one."""
    optimizer, other = optim.Adam([P]), nn.Parameter(tx.ones(2))
    with pytest.raises(UserError, match="parameters of an optimizer cannot be exchanged"):
        optimizer.param_groups[0]["params"] = [other]
    with pytest.raises(AttributeError, match="'tuple' object has no attribute 'append'"):
        optimizer.param_groups[0]["params"].append(other)
    assert isinstance(optimizer.param_groups, tuple)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_a_compiled_step_sees_an_option_that_is_set_later(make: Any) -> None:
    found = []
    for compiled in (False, True):
        p = nn.Parameter(tx.ones(2))
        optimizer = make([p], lr=0.1, weight_decay=0.5)
        step: Any = tx.compile(lambda o=optimizer: o.step()) if compiled else optimizer.step
        for decay in (0.5, 0.5, 0.0, 2.0):
            optimizer.param_groups[0]["weight_decay"] = decay
            optimizer.param_groups[0]["maximize"] = decay == 2.0
            p.grad = tx.tensor([1.0, -0.5])
            step()
        found.append(p.numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    assert step.stats()["retraces"] == 2  # a value that is set, but is the same, changes nothing


def test_setting_lr_takes_one_number() -> None:
    group = optim.SGD([P]).param_groups[0]
    for value in ("x", None, -1.0, float("nan"), tx.ones(3)):
        with pytest.raises((TypeError, UserError), match="lr"):
            group["lr"] = value
    group["lr"] = tx.tensor([0.5]).sum()
    assert group["lr"].item() == 0.5
    group["lr"] = tx.tensor([0.25])
    assert group["lr"].item() == 0.25 and group["lr"].shape == ()


def test_options_that_make_no_sense_change_no_group() -> None:
    one, two = (tx.ones(2, requires_grad=True) for _ in range(2))
    optimizer = tx.optim.Adam([{"params": [one]}, {"params": [two]}])
    one.grad, two.grad = tx.ones(2), tx.ones(2)
    optimizer.param_groups[1]["betas"] = (2.0, 2.0)
    before = {name: t.tolist() for name, t in optimizer.state_dict().items()}
    with pytest.raises(UserError, match="betas"):
        optimizer.step()
    assert one.tolist() == [1, 1]
    assert {name: t.tolist() for name, t in optimizer.state_dict().items()} == before


def test_a_state_whose_numbers_do_not_fit_changes_nothing() -> None:
    optimizer = tx.optim.SGD([tx.ones(2, requires_grad=True)], lr=0.5)
    state = {name: t.numpy().copy() for name, t in optimizer.state_dict().items()}
    state["step"] = np.array(7)
    state["lr.0"] = np.array(3.0)
    state["missed.0"] = np.array([np.nan])
    with pytest.raises(tx.errors.RangeError):
        optimizer.load_state_dict(state)
    assert optimizer.step_count.item() == 0 and optimizer.param_groups[0]["lr"].item() == 0.5


def test_a_group_that_is_added() -> None:
    first, second = parameters(count=2)
    optimizer = optim.Adam([first], 0.1)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)

    @tx.compile
    def step() -> None:
        for p in (first, second):
            p.grad = tx.ones_like(p)
        optimizer.step()
        schedule.step()

    for _ in range(3):
        step()
    before, retraces = second.detach(), step.stats()["retraces"]
    optimizer.add_param_group({"params": second, "lr": 0.4, "betas": (0.5, 0.5)})
    assert optimizer.param_groups[1].missed.tolist() == [3]
    assert optimizer.defaults["lr"] == 0.1 and len(optimizer.parameters) == 2
    step()
    np.testing.assert_allclose((before - second).numpy(), 0.4, rtol=1e-6)
    assert step.stats()["retraces"] == retraces + 1
    assert schedule.get_last_lr() == pytest.approx([0.1 / 16, 0.4 / 16])
    assert optim.Adam([{"params": first}, {"params": second}]).state_dict().keys() == {
        k for k in optimizer.state_dict() if not k.startswith("initial_lr")
    }


def test_groups_that_cannot_be_added() -> None:
    first, second = parameters(count=2)
    optimizer = optim.SGD([first])
    for group, message in [
        ({"params": first}, "a parameter is given twice"),
        ({"params": second, "beta": 1}, "SGD has no option 'beta'"),
        ({"lr": 1}, 'must be a dict with "params"'),
        ([second], "a parameter group is a dict, not a list"),
        ({"params": second, "lr": -1}, "lr is -1; it must be 0 or more"),
        ({"params": second * 1}, "only leaf Tensors can be changed"),
    ]:
        with pytest.raises((UserError, TypeError, GradError), match=message):
            optimizer.add_param_group(group)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="belongs outside of a compiled function"):
        tx.compile(lambda: optimizer.add_param_group({"params": second}))()
    assert len(optimizer.param_groups) == 1 and not optimizer.moments[1:]
