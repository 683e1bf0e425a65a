"""Records of ops that do not hold together, and ops called wrongly: one line, by the op's name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from modes import running

import tinygrad_tx as tx
from tinygrad_tx.errors import GradError, OpError, ShapeError
from tinygrad_tx.op import OPS


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Ops made here are forgotten afterwards."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def same(xp: Any, x: Any) -> Any:
    return x


def like(op: Any, x: Any) -> tx.Spec:
    return tx.Spec(x.shape, x.dtype)


def op(**record: Any) -> tx.Op:
    return tx.Op("mine", **{"kind": "map", "forward": same, **record})


RECORDS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: op(kind="mapp"), ValueError, r'Op "mine": no kind \'mapp\'; did you mean map\?'),
    (lambda: op(kind=None), ValueError, r'Op "mine": no kind None; '),
    (lambda: op(kind="elementwise"), ValueError, r"no kind 'elementwise'; there are map, reduce"),
    (lambda: op(forward=None), TypeError, r'Op "mine": forward= must be a function, not None'),
    (lambda: op(kind="leaf", rule=like), ValueError, r"no kind 'leaf'; there are map, reduce"),
    (lambda: op(kind="scan", rule=like), ValueError, r"no kind 'scan'; there are map, reduce"),
    (lambda: op(promote=0), TypeError, r'Op "mine": promote= must be a tuple of ints, not 0'),
    (lambda: op(vjp=(1,)), TypeError, r'Op "mine": vjp= must be a function, not \(1,\)'),
    (lambda: op(rule=3), TypeError, r'Op "mine": rule= must be a function, not 3'),
    (lambda: tx.Op("", forward=same), TypeError, "Op: a name is a str, not ''"),
    (lambda: tx.Op("add", kind="map", forward=same), ValueError, r'Op "add": a built-in op has'),
    (lambda: tx.Op("softmax", kind="map", forward=same), ValueError, r'Op "softmax": a built-in'),
]


@pytest.mark.parametrize("i", range(len(RECORDS)))
def test_a_wrong_record_is_refused(i: int) -> None:
    call, kind, text = RECORDS[i]
    before = dict(OPS)
    with pytest.raises(kind, match=text):
        call()
    assert before == OPS


def broken_forwards() -> dict[str, tuple[Callable[..., Any], str]]:
    """Forwards that make something else than float32 (3,), and what is said of it."""
    return {
        "a part": (lambda xp, x: x[:1], r"made float32 \(1,\)"),
        "an element": (lambda xp, x: x[0], r"made float32 \(\)"),
        "a sum": (lambda xp, x: xp.sum(x, (0,)), r"made float32 \(1,\)"),
        "float64": (lambda xp, x: x.astype("float64"), r"made float64 \(3,\)"),
        "bool": (lambda xp, x: x > 0, r"made bool \(3,\)"),
        "a number": (lambda xp, x: 2.0, r"made float64 \(\)"),
        "None": (lambda xp, x: None, r"made object \(\)"),
        "two": (lambda xp, x: (x, x), r"made float32 \(2, 3\)"),
    }


@pytest.mark.parametrize("way", ["eager", "native", "interp", "replay"])
@pytest.mark.parametrize("kind", ["map", "opaque"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_forward_is_held_to_its_rule(kind: str, way: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("TX_COMPILE", way)
    x = tx.tensor([1.0, 2.0, 3.0])
    for forward, text in broken_forwards().values():
        mine = op(forward=forward, kind=kind, rule=like)
        call = mine if way == "eager" else tx.compile(lambda x, mine=mine: mine(x) * 1)
        with pytest.raises(ShapeError, match=f"mine: the forward {text}, its rule promises fl"):
            call(x)


@pytest.mark.parametrize("way", ["native", "interp", "replay"])
def test_a_forward_is_held_to_its_rule_at_every_call(way: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("TX_COMPILE", way)
    mine = op(forward=lambda xp, x: x[x > 0], kind="opaque", rule=like)
    step = tx.compile(lambda x: mine(x))
    for _ in range(3):
        assert step(tx.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    with pytest.raises(ShapeError, match=r"made float32 \(1,\), its rule promises float32 \(2,\)"):
        step(tx.tensor([1.0, -2.0]))


def test_a_reduction_that_drops_its_axis_is_refused_compiled_too() -> None:
    drops = op(kind="reduce", forward=lambda xp, x, axis: x.sum(axis))
    with pytest.raises(ShapeError, match=r"made float32 \(2,\), its rule promises .* \(2, 1\)"):
        tx.compile(lambda x: drops(x, axis=1))(tx.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_a_map_with_two_results_is_called_as_it_is() -> None:
    two = op(forward=lambda xp, x: (x * 2, x * 3), rule=lambda op, x: (like(op, x),) * 2)
    a, b = tx.compile(lambda x: two(x))(tx.tensor([1.0]))
    assert (a.tolist(), b.tolist()) == ([2.0], [3.0])


def test_what_an_opaque_op_makes_of_constants_is_made_at_every_call() -> None:
    calls: list[int] = []

    def forward(xp: Any, x: Any) -> Any:
        calls.append(1)
        return x + np.float32(len(calls))

    counting = op(kind="opaque", forward=forward, rule=like)
    step = tx.compile(lambda x: x + counting(tx.zeros(1)))
    found = [step(tx.zeros(1)).item() for _ in range(3)]
    assert found[1] == found[0] + 1 and found[2] == found[1] + 1


def writes(xp: Any, x: Any) -> Any:
    x[...] = 0
    return x


def adds_to(xp: Any, x: Any) -> Any:
    x += 1
    return x


CALLS: list[tuple[Callable[[], tx.Op], dict[str, Any], str]] = [
    (lambda: op(forward=lambda xp, x: xp.arctan(x)), {},
     r"mine: its forward asks xp for arctan, which it has not"),
    (lambda: op(forward=lambda xp, x: xp.logaddexp1(x)), {}, r"asks xp for logaddexp1"),
    (lambda: op(forward=lambda xp, x: xp.tanhh(x)), {}, r"xp for tanhh, .* did you mean tanh"),
    (lambda: op(forward=lambda xp, x, width: x), {},
     r"mine: its forward is written for \(xp, x, width\), .* missing a required argument: 'width'"),
    (op, {"width": 1.0}, r"mine: its forward .* width=1.0: got an unexpected keyword"),
    (lambda: op(forward=lambda x: x), {}, r"mine: its forward is written for \(x\), but called"),
    (lambda: op(rule=lambda op: tx.Spec((), tx.float32)), {}, r"mine: its rule is written for"),
    (lambda: op(rule=lambda op, x: tx.Spec((-1,), x.dtype)), {}, r"mine: its rule gave Spec"),
    (lambda: op(rule=lambda op, x: tx.Spec((3.0,), x.dtype)), {}, r"mine: its rule gave Spec"),
    (lambda: op(rule=lambda op, x: x.shape), {}, r"mine: its rule gave \(3,\); it must give"),
    (lambda: op(rule=lambda op, x: None), {}, r"mine: its rule gave None; it must give tx.Spec"),
    (lambda: op(rule=lambda op, x: tx.Spec([3], x.dtype)), {}, r"mine: its rule gave Spec"),
    (lambda: op(rule=lambda op, x: tx.Spec((3,), "float32")), {}, r"mine: its rule gave Spec"),
    (lambda: op(rule=lambda op, x: tx.Spec(x.sizes, x.dtype)), {}, r"rule asks a node for sizes"),
    (lambda: op(forward=writes), {}, r"mine: its forward writes into one of its inputs"),
    (lambda: op(forward=adds_to), {}, r"mine: its forward writes into one of its inputs"),
    (lambda: op(forward=adds_to, kind="opaque", rule=like), {}, r"mine: its forward writes into"),
]  # fmt: skip


@pytest.mark.parametrize("way", ["eager", "compiled", "recorded"])
@pytest.mark.parametrize("i", range(len(CALLS)))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_wrong_call_is_explained(i: int, way: str) -> None:
    make, attrs, text = CALLS[i]
    mine = make()
    x = tx.tensor([1.0, 2.0, 3.0], requires_grad=way == "recorded")
    call = tx.compile(lambda x: mine(x, **attrs)) if way == "compiled" else mine
    with pytest.raises(OpError, match=text) as caught:
        call(x, **({} if way == "compiled" else attrs))
    assert "\n" not in str(caught.value)
    assert x.tolist() == [1.0, 2.0, 3.0]


def shifts_all_names(xp: Any, x: Any) -> Any:
    y = xp.abs(x)
    z = y
    z -= 1
    return y * z


WRITERS: list[tuple[Callable[..., Any], Any]] = [
    (adds_to, None),  # what is refused
    (lambda xp, x: x.__imul__(2), None),
    (lambda xp, x: x.__itruediv__(2), None),
    (lambda xp, x: [x := x * 1, x.__ipow__(2)][1], [1.0, 4.0, 9.0]),
    (shifts_all_names, [0.0, 1.0, 4.0]),  # y is changed, too
]


@pytest.mark.parametrize("dtype", [tx.float32, tx.float16, tx.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("mode", ["eager", "native", "interp", "replay"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_writing_in_place_is_numpys_in_every_mode(mode: str, dtype: tx.DType) -> None:
    for forward, wanted in WRITERS:
        mine = op(forward=forward)
        x = tx.tensor([1.0, -2.0, 3.0], dtype=dtype)
        call = running(lambda x, mine=mine: mine(x), mode)
        if wanted is None:
            with pytest.raises(OpError, match="mine: its forward writes into one of its inputs"):
                call(x)
        else:
            assert call(x).tolist() == call(x).tolist() == wanted
        assert x.tolist() == [1.0, -2.0, 3.0]


def test_a_replayed_forward_cannot_write_at_a_later_call_either() -> None:
    mine = op(forward=lambda xp, x: x.__iadd__(1) if x[0] > 0 else x * 1, kind="opaque", rule=like)
    call = running(lambda x: mine(x), "replay")
    assert call(tx.tensor([-1.0])).tolist() == [-1.0]
    x = tx.tensor([1.0])
    with pytest.raises(OpError, match="mine: its forward writes into one of its inputs"):
        call(x)
    assert x.tolist() == [1.0]


VJPS: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (lambda g, y: (g,), OpError, r"mine: its vjp is written for \(g, y\), but called with 3"),
    (
        lambda g, y, x, width: (g,),
        OpError,
        r"mine: its vjp .* missing a required argument: 'width'",
    ),
    (lambda g, y, x: (g * x.sine(),), OpError, r"mine: its vjp asks a Tensor for sine.* mean sin"),
    (lambda g, y, x: (g.frobnicate,), OpError, r"mine: its vjp asks a Tensor for frobnicate"),
    (lambda g, y, x: (g, g), GradError, r"mine: the vjp must give a tuple with one gradient"),
    (lambda g, y, x: (lambda z: g,), OpError, r"mine: its vjp \(a gradient given as a function\)"),
    (lambda g, y, x: (g.numpy(),), GradError, r"mine: the vjp gave a gradient of type ndarray"),
]


@pytest.mark.parametrize("i", range(len(VJPS)))
def test_a_wrong_vjp_is_explained(i: int) -> None:
    vjp, kind, text = VJPS[i]
    mine = op(vjp=vjp)
    x = tx.tensor([1.0, 2.0, 3.0], requires_grad=True)
    with pytest.raises(kind, match=text) as caught:
        mine(x).sum().backward()
    assert "\n" not in str(caught.value)
    second = op(vjp=lambda g, y, x: (op(vjp=vjp)(x) * g,))  # the mistake is in the second order
    grad = tx.grad(lambda x: second(x).sum())
    assert grad(x).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(kind, match=text):
        tx.grad(lambda x: grad(x).sum())(x)


def test_a_wrong_decomposition_is_explained() -> None:
    x = tx.ones(2, requires_grad=True)
    with pytest.raises(OpError, match=r"mine: its decompose is written for \(\), but called"):
        op(decompose=lambda: x)(x).sum().backward()
    for decompose in (lambda x: 3, lambda x: x.sum(), lambda x: (x, x)):
        with pytest.raises(GradError, match=r"mine: its decompose must give Tensors \[\(2,\)\]"):
            op(decompose=decompose)(x).sum().backward()


def test_what_has_no_inputs_needs_a_device() -> None:
    made = op(kind="create", forward=lambda xp, device: xp.zeros(2), rule=lambda op, device: None)
    with pytest.raises(OpError, match='mine: without inputs it needs device=, such as device="cpu'):
        made()


def test_several_results_are_counted() -> None:
    two = tx.Op("two", rule=lambda op, x: (like(op, x),) * 2, forward=lambda xp, x: (x,))
    with pytest.raises(ShapeError, match="two: the forward made 1 results, its rule promises 2"):
        two(tx.ones(2))
    half = tx.ones(2, dtype=tx.float16)
    for forward, count in ((lambda xp, x: (x,) * 3, "3"), (same, "no tuple of")):
        two = op(rule=lambda op, x: (like(op, x),) * 2, forward=forward)
        with pytest.raises(ShapeError, match=f"the forward made {count} results"):
            two(half)
    with pytest.raises(ShapeError, match=r"the forward made float32 \(2, 2\), its rule promises"):
        op(forward=lambda xp, x: (x, x))(half)
    two = tx.Op("two", rule=lambda op, x: (like(op, x),) * 2, forward=same)
    with pytest.raises(ShapeError, match="two: the forward made no tuple of results"):
        two(tx.ones(2))


def test_other_errors_are_a_users_own_and_name_the_op_in_a_note() -> None:
    def fails(xp: Any, x: Any) -> Any:
        raise KeyError("mine alone")

    with pytest.raises(KeyError, match="mine alone") as caught:
        op(forward=fails)(tx.ones(2))
    assert caught.value.__notes__ == ["in the forward of the op mine"]


def test_a_forward_may_return_what_it_was_given() -> None:
    x = tx.ones(2)
    y = op()(x)
    y += 1
    assert x.tolist() == [1.0, 1.0] and y.tolist() == [2.0, 2.0]


def test_a_map_that_is_none_is_called_as_it_is_and_says_so() -> None:
    centred = op(forward=lambda xp, x: x - xp.max(x, (1,)))
    x = tx.tensor([[1.0, 3.0], [2.0, 0.0]])
    step = tx.compile(lambda x: centred(x) * 2)
    with pytest.warns(
        UserWarning, match=r"the map op mine is called as it is.*xp.max has no scalar"
    ):
        np.testing.assert_array_equal(step(x).numpy(), (centred(x) * 2).numpy())
    assert "xp.max has no scalar expression" in step.explain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx.compile(lambda x: op(forward=lambda xp, x: xp.tanh(x))(x))(x)


def test_scalars_that_are_kept_are_told_apart() -> None:
    x = tx.tensor([1.0])
    for value in (0.0, -0.0, 1, 1.0, True, 2.0, float("nan")):
        for dtype in (tx.float32, tx.float64):
            got = (x.to(dtype) * value).numpy()
            want = x.to(dtype).numpy() * np.array(value, dtype.np)
            assert got.tobytes() == want.tobytes() and got.dtype == want.dtype
    assert (x / -0.0).item() == -np.inf and (x / 0.0).item() == np.inf
    assert (x + True).item() == 2.0 and (tx.tensor([1]) + True).dtype == tx.int64
