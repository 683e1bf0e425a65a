"""Lists and dicts of modules, what derived classes add to them, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, optim


class Headed(nn.Sequential):
    """A Sequential that sets a module of its own: the last to be called, as in PyTorch."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 2), nn.Dropout(0.5))
        self.head = nn.Linear(2, 1)


NAMES = ["0.weight", "0.bias", "head.weight", "head.bias"]


def test_a_derived_sequential_has_its_own_modules() -> None:
    model = Headed()
    assert [name for name, _ in model.named_parameters()] == NAMES == list(model.state_dict())
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "head"]
    assert len(model) == 3 and model[2] is model.head
    assert not model.eval().head.training and not model[1].training
    assert model.to(tx.float64).head.weight.dtype == tx.float64
    assert "(head): Linear(2, 1, bias=True)" in repr(model)
    x = tx.randn(4, 3, dtype=tx.float64)
    np.testing.assert_array_equal(model(x).numpy(), model.head(model[0](x)).numpy())
    assert model.head(tx.ones(2, dtype=tx.float64)).node.scope == "Headed.head"
    optimizer = optim.SGD(model.parameters(), 0.1)
    before = model.head.weight.numpy().copy()
    model(x).sum().backward()
    optimizer.step()
    assert not np.array_equal(model.head.weight.numpy(), before)


@pytest.mark.parametrize("base", ["Sequential", "ModuleList"])
def test_derived_containers_as_torch(base: str) -> None:
    torch = pytest.importorskip("torch")

    def names(nn: Any) -> tuple[Any, ...]:
        class Derived(getattr(nn, base)):
            def __init__(self) -> None:
                inside = [nn.Linear(2, 2), nn.ReLU()]
                super().__init__(*([inside] if base == "ModuleList" else inside))
                self.head = nn.Linear(2, 1)
                self.append(nn.Linear(1, 1))
                self.tied = self.head

        model = Derived()
        shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
        modules = [(name, type(m).__name__) for name, m in model.named_modules()]
        children = [name for name, _ in model.named_children()]
        return shapes, modules, children, len(model), [type(m).__name__ for m in model]

    assert names(nn) == names(torch.nn)


def test_sequential_of_a_dict_and_a_module_twice() -> None:
    model = nn.Sequential({"a": nn.Linear(2, 2), "b": nn.ReLU()})
    assert list(model.state_dict()) == ["a.weight", "a.bias"]
    layer = nn.Linear(2, 2)
    twice, x = nn.Sequential(layer, layer), tx.randn(2)
    np.testing.assert_array_equal(twice(x).numpy(), layer(layer(x)).numpy())
    assert len(twice) == 2 and len(list(twice.parameters())) == len(list(twice.children())) + 1 == 2


def test_a_list_changes_as_a_list() -> None:
    layers: nn.ModuleList[nn.Linear] = nn.ModuleList(nn.Linear(1, n) for n in (1, 2, 3))
    layers.insert(1, nn.Linear(1, 9))
    layers[3] = nn.Linear(1, 8)
    del layers[0]
    layers.extend([nn.Linear(1, 7)]).append(nn.Linear(1, 6))
    assert [m.out_features for m in layers] == [9, 2, 8, 7, 6]
    assert list(layers.state_dict())[::2] == [f"{i}.weight" for i in range(5)]
    assert layers[-1](tx.ones(1)).node.scope == "ModuleList.4"
    part = layers[1:3]
    assert isinstance(part, nn.ModuleList) and [m.out_features for m in part] == [2, 8]
    assert part[0](tx.ones(1)).node.scope == "ModuleList.1"
    with pytest.raises(IndexError):
        layers[5]


def test_dicts_and_parameters() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.heads = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 2)})
            self.scales = nn.ParameterList([tx.ones(2), nn.Parameter(tx.zeros(3))])
            self.named = nn.ParameterDict({"x": tx.ones(1)})

    model = Model()
    assert list(model.state_dict()) == [
        "heads.a.weight", "heads.a.bias", "heads.b.weight", "heads.b.bias",
        "scales.0", "scales.1", "named.x",
    ]  # fmt: skip
    assert "a" in model.heads and list(model.heads) == ["a", "b"]
    assert list(model.heads.keys()) == ["a", "b"] and len(list(model.heads.items())) == 2
    del model.heads["a"]
    assert [name for name, _ in model.heads.named_children()] == ["b"]
    assert [p.shape for p in model.scales] == [(2,), (3,)] and model.scales[0].requires_grad
    assert "(scales): ParameterList((2,), (3,))" in repr(model)
    other = copy.deepcopy(model)
    assert other.named["x"] is not model.named["x"] and list(other.state_dict())[-1] == "named.x"


def test_modules_come_and_go() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.a: nn.Module | None = nn.Linear(1, 1)
            self.b = nn.Linear(1, 1)

    model = Model()
    model.a = nn.Linear(1, 2)  # another one takes its place
    assert [p.shape for p in model.parameters()] == [(2, 1), (2,), (1, 1), (1,)]
    model.a = None
    del model.b
    assert not model.state_dict()


# What would be ignored without a word ---------------------------------------------------------


def setting(value: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        model = nn.Module()
        model.things = value()

    return run


def filled_later(use: Callable[[nn.Module], Any]) -> Callable[[], Any]:
    def run() -> None:
        model = nn.Module()
        things: list[nn.Module] = []
        model.things = things
        things.append(nn.Linear(1, 1))
        use(nn.Sequential(model))

    return run


def replaced(value: Any) -> Callable[[], Any]:
    def run() -> None:
        layer = nn.Linear(2, 2)
        layer.weight = value

    return run


def cycle() -> None:
    outer = nn.Sequential(nn.Sequential())
    outer[0].outer = outer


LINEAR = nn.Linear(1, 1)
PARAMETER = nn.Parameter(tx.ones(2))
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (setting(lambda: [LINEAR]), TypeError, r"Module.things: .* inside a list: use nn.ModuleList"),
    (setting(lambda: (LINEAR,)), TypeError, r"inside a tuple: use nn.ModuleList"),
    (setting(lambda: {"a": LINEAR}), TypeError, r"inside a dict: use nn.ModuleDict"),
    (setting(lambda: {"a": [("x", PARAMETER)]}), TypeError, r"use nn.ParameterDict"),
    (setting(lambda: [PARAMETER]), TypeError, r"use nn.ParameterList"),
    (filled_later(lambda m: list(m.parameters())), TypeError, r"things: .* use nn.ModuleList"),
    (filled_later(lambda m: m.eval()), TypeError, r"things: .* use nn.ModuleList"),
    (filled_later(lambda m: m.state_dict()), TypeError, r"things: .* use nn.ModuleList"),
    (replaced(tx.ones(2, 2)), TypeError, r"Linear.weight is a Parameter, which a Tensor cannot"),
    (replaced([1.0]), TypeError, r"Linear.weight is a Parameter, which a list cannot"),
    (cycle, ValueError, r"Sequential.outer: a module cannot be inside itself"),
    (lambda: setattr(nn.Module(), "train", LINEAR), TypeError, r'"train" is the name of a method'),
    (lambda: setattr(nn.Module(), "a.b", PARAMETER), TypeError, r'"a.b" is no name'),
    (lambda: nn.ModuleDict({"keys": LINEAR}), TypeError, r'ModuleDict: "keys" is one of its'),
    (lambda: nn.ModuleDict({1: LINEAR}), TypeError, r"ModuleDict: a name is a str, not 1"),
    (lambda: nn.ModuleDict([LINEAR]), TypeError, r"ModuleDict is made of a dict, not of a list"),
    (lambda: nn.ModuleList(LINEAR), TypeError, r"ModuleList is made of a list, not of a Linear"),
    (lambda: nn.ModuleList(3), TypeError, r"ModuleList is made of a list, not of a int"),
    (lambda: nn.ModuleList([tx.ones(1)]), TypeError, r"ModuleList holds Modules, not a Tensor"),
    (lambda: nn.Sequential(LINEAR, [LINEAR]), TypeError, r"Sequential holds Modules, not a list"),
    (lambda: nn.ParameterList([1.0]), TypeError, r"ParameterList holds Parameters, not a float"),
    (lambda: nn.Parameter([1.0]), TypeError, r"Parameter: data must be a Tensor, not list"),
    (lambda: nn.Module()(1), NotImplementedError, r"Module cannot be called: it has no .*forward"),
    (lambda: nn.ModuleList()(1), NotImplementedError, r"ModuleList cannot be called"),
]


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_what_is_refused(i: int) -> None:
    call, kind, text = WRONG[i]
    with pytest.raises(kind, match=text):
        call()


def test_a_refused_attribute_is_not_set() -> None:
    model = nn.Module()
    with pytest.raises(TypeError):
        model.things = [LINEAR]
    assert "things" not in vars(model)


def test_a_list_of_what_is_found_anyway_is_none_of_our_business() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.a, self.w = nn.Linear(1, 1), nn.Parameter(tx.ones(1))
            self.both = [self.a, self.w]
            self.numbers = [1, "two", tx.ones(3)]
            self.loop: list[Any] = []
            self.loop.append(self.loop)

    assert list(Model().state_dict()) == ["w", "a.weight", "a.bias"]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({1: tx.ones(1, 1)}, "Linear: a state is a dict of .* by name; this one has the key 1"),
        ([1, 2], "Linear: a state is a dict of Tensors or arrays by name, not a list"),
        ({"weight": [[1.0]], "bias": None}, r"neither .* weight \(list\), bias \(NoneType\)"),
        ({"weight": np.array([["a"]]), "bias": np.ones(1)}, r"neither .* weight \(ndarray\)"),
    ],
)
def test_a_state_of_something_else_changes_nothing(state: Any, text: str) -> None:
    layer = nn.Linear(1, 1)
    before = layer.bias.numpy().copy() if layer.bias is not None else None
    with pytest.raises(tx.errors.UserError, match=text):
        layer.load_state_dict(state)
    assert layer.bias is not None and layer.bias.numpy() == before


def test_an_index_means_the_same_member_everywhere() -> None:
    class Headed(nn.Sequential):
        def __init__(self, *layers: nn.Module) -> None:
            self.head = nn.ReLU()
            super().__init__(*layers)

    a, b, c = nn.GELU(), nn.Dropout(), nn.ReLU()
    named = nn.Sequential({"a": a, "b": b})
    named.insert(1, c)
    assert list(named) == [a, c, b] and named[1] is c
    del named[0]
    assert list(named) == [c, b] and named.b is b
    headed = Headed(a, b)
    head = headed[0]
    assert head is headed.head
    del headed[1]
    assert list(headed) == [head, b] and headed[1] is b
    headed.insert(0, c)
    assert list(headed) == [c, head, b] and headed.head is head
    del headed[1:]
    assert list(headed) == [c] and not hasattr(headed, "head")


def test_a_compiled_module_is_not_lost_in_another() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"Sequential.extra: .*see into a compiled Module"):
        model.extra = tx.compile(nn.Linear(2, 2))
    assert len(list(model.parameters())) == 2


def test_errors_of_users_modules_are_their_own() -> None:
    class Model(nn.Module):
        def __init__(self, width: int) -> None:
            if not isinstance(width, int):
                raise ValueError("no width")

        def forward(self, x: tx.Tensor, scale: float) -> tx.Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Model(2)(tx.ones(2), tx.ones(2))
    with pytest.raises(ValueError, match="no width"):
        Model("wide")
