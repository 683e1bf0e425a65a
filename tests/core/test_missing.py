"""Attributes that are not there: one line that says what is near, and nothing paid by others."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import mistakes, nn
from tinygrad_tx.nn import functional as F  # noqa: N812


class Net(nn.Module):
    def __init__(self) -> None:
        self.encoder = nn.Linear(3, 3)

    @property
    def broken(self) -> Any:
        return self.encoder.wieght

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        return self.encodr(x)  # type: ignore[no-any-return]


def x() -> Any:
    return tx.ones(3)


COMPILED: Any = tx.compile(Net())
CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: x().sigmod(), "Tensor has no attribute 'sigmod'; did you mean sigmoid"),
    (lambda: x().reshap(3), "did you mean reshape"),
    (lambda: x().unSqueeze(0), "did you mean unsqueeze"),
    (lambda: tx.backends.get("cpu").tanhh, "xp of cpu has no attribute 'tanhh'; did you mean tanh"),
    (lambda: x().zzzzzz, "Tensor has no attribute 'zzzzzz'$"),
    (lambda: Net().encoder.wieght, r"Net.encoder has no attribute 'wieght'; did you mean weight\?"),
    (lambda: Net()(x()), r"Net has no attribute 'encodr'; did you mean encoder\?"),
    (lambda: Net().broken, "Net.encoder has no attribute 'wieght'; did you mean weight"),
    (lambda: COMPILED.explian(), r"the compiled Net has no .* did you mean explain\?"),
    (lambda: COMPILED.encodr, r"the compiled Net has no .* did you mean encoder\?"),
    (lambda: COMPILED.broken, "Net.encoder has no attribute 'wieght'; did you mean weight"),
    (lambda: tx.zeroes, "module 'tinygrad_tx' has no attribute 'zeroes'; did you mean zeros"),
    (lambda: tx.nn.relu, r"'tinygrad_tx.nn' has no attribute 'relu'; did you mean ReLU\?"),
    (lambda: F.gelo, "did you mean gelu"),
    (lambda: tx.optim.AdmW, "did you mean AdamW"),
    (lambda: tx.optim.lr_scheduler.CosineAnealing, "did you mean CosineAnnealingLR"),
    (lambda: tx.models.Transformr, "did you mean Transformer"),
    (lambda: tx.data.DataLoadr, "did you mean DataLoader"),
    (lambda: tx.decoding.genrate, "did you mean generate"),
    (lambda: tx.optim.SGD([nn.Parameter(x())]).stpe(), "did you mean step"),
]


@pytest.mark.parametrize("i", range(len(CALLS)))
def test_a_missing_name_is_near_to_another(i: int) -> None:
    call, text = CALLS[i]
    with pytest.raises(AttributeError, match=text) as found:
        call()
    assert "\n" not in str(found.value)
    assert str(found.value).count("did you mean") <= 1


def test_names_are_compared_when_something_is_missing_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Probing is common (copy, pickle, NumPy, hasattr): private names are not compared, others
    once."""
    asked: list[str] = []

    def count(name: str, *args: Any, **kwargs: Any) -> list[str]:
        asked.append(name)
        return []

    monkeypatch.setattr(mistakes, "get_close_matches", count)
    mistakes._nearest.cache_clear()
    net = Net()
    net.encoder(x())
    copy.deepcopy(net)
    pickle.loads(pickle.dumps(x()))
    assert not hasattr(x(), "__no_such_protocol__")
    assert asked == []
    for _ in range(3):
        assert not hasattr(x(), "no_such_method")
    assert asked == ["no_such_method"]
    mistakes._nearest.cache_clear()


def test_an_optional_attribute_is_found_or_not() -> None:
    assert getattr(x(), "nope", 3) == 3
    assert getattr(Net(), "nope", 4) == 4
    assert not hasattr(COMPILED, "nope")
