"""Kinds of model that users register: what is asked of them, and what is said where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tinygrad_tx import models, nn
from tinygrad_tx.errors import UserError
from tinygrad_tx.models import registry


@dataclass(frozen=True)
class Config:
    d_model: int = 8
    max_len: int = 16
    vocab_size: int = 10

    @property
    def n_positions(self) -> int:
        return self.max_len

    def describe(self) -> str:
        return f"width {self.d_model}"


class Own(nn.Module):
    def __init__(self, config: Config) -> None:
        self.config = config

    def loss(self) -> None: ...
    def start(self) -> None: ...
    def step(self) -> None: ...
    def room(self) -> None: ...


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    before = dict(registry._KINDS)
    yield
    registry._KINDS.clear()
    registry._KINDS.update(before)


def test_a_registered_kind_is_built_by_its_name() -> None:
    models.register("own", Own, Config, task="lm")
    model = registry.build({"kind": "own", "d_model": 4}, registry.Tokens(vocab_size=33))
    assert type(model) is Own and model.config == Config(4, 16, 33)
    assert registry.described(model.config) == {"kind": "own", "d_model": 4, "max_len": 16}
    models.register("own", Own, Config)  # again
    with pytest.raises(UserError, match=r"must be one of transformer, .*own"):
        registry.kind_of("none")


@dataclass
class Sizeless:
    vocab_size: int = 3


class Mute(nn.Module):
    pass


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: models.register("gpt", Own, Config), ValueError, '"gpt" is a kind of model of the li'),
    (lambda: models.register("a b", Own, Config), ValueError, "name must be a word, not 'a b'"),
    (lambda: models.register("x", Own, Config, "l"), ValueError, "no task 'l'; did you mean|there"),
    (lambda: models.register("x", Config, Config), TypeError, "model must be a class of Modules"),
    (lambda: models.register("x", Own, Own), TypeError, "config must be a dataclass"),
    (lambda: models.register("x", Own, Sizeless), TypeError, "Sizeless has no d_model"),
    (
        lambda: models.register("x", Mute, Config, "lm"),
        TypeError,
        'for task "lm", Mute needs the method loss: derive it from models.LanguageModel',
    ),
]


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_what_cannot_be_a_kind(i: int) -> None:
    call, kind, text = WRONG[i]
    with pytest.raises(kind, match=text):
        call()
