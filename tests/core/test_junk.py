"""Junk for every public function: what comes out is a TypeError or ValueError of one line, and not
what some line deep inside said about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.nn import functional as F  # noqa: N812

JUNK: dict[str, Any] = {
    "None": None,
    "text": "text",
    "object": object(),
    "ragged": [[1], [2, 3]],
    "negative": -1,
    "nan": float("nan"),
    "huge": 10**30,
    "ints": [1, 2],
    "rows": tx.ones(3, 2),  # the text of it has several lines, and it has no truth
    "array": np.zeros((3, 2)),
}
# Python's own words, which name neither the function nor the argument.
DEEP = re.compile(
    "object has no attribute|object is not|unsupported operand|not supported between|could not "
    "convert|invalid literal|cannot be interpreted|can't multiply|must be real number|has no len"
    "|bad operand|only length-1"
)
# What changes the process, or reads and writes files.
ELSEWHERE = {"compile", "manual_seed", "set_default_device", "set_num_threads", "save"}


def sample() -> tx.Tensor:
    return tx.ones(2, 3)


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in set(tx.__all__) - ELSEWHERE:
        if inspect.isfunction(getattr(tx, name)):
            yield f"tx.{name}", getattr(tx, name)
    for module, label in ((F, "F"), (nn.losses, "F"), (nn.init, "nn.init")):
        for name, f in vars(module).items():
            if inspect.isfunction(f) and name[0] != "_" and f.__module__ == module.__name__:
                yield f"{label}.{name}", f
    for name in dir(tx.Tensor):
        method = getattr(tx.Tensor, name)
        if name[0] != "_" and callable(method):
            yield f"Tensor.{name}", lambda *args, method=method: method(sample(), *args)
    for name in nn.__all__:
        if inspect.isclass(getattr(nn, name)):
            yield f"nn.{name}", getattr(nn, name)
    models = tx.models
    small = models.TransformerConfig(9, d_model=4, n_heads=2, d_ff=4, n_encoder_layers=1,
                                     n_decoder_layers=1)  # fmt: skip
    transformer, gpt = models.Transformer(small), models.GPT(models.GPTConfig(9, 1, 2, 4, 8))
    for layer in (nn.Linear(3, 2), nn.Embedding(4, 3), nn.LayerNorm(3), nn.RMSNorm(3), nn.ReLU(),
                  nn.GELU(), nn.Dropout(0.5), nn.MultiHeadAttention(4, 2),
                  nn.Sequential(nn.Linear(3, 2)), transformer, gpt):  # fmt: skip
        yield f"{type(layer).__name__}()", layer
    yield "Transformer.loss", transformer.loss
    yield "GPT.loss", gpt.loss
    for name in ("TransformerConfig", "GPTConfig", "Transformer", "GPT"):
        yield f"models.{name}", getattr(models, name)
    yield "generate", tx.decoding.generate
    yield "generate of a model", lambda *args: tx.decoding.generate(transformer, *args)
    yield "translate", tx.decoding.translate


FUNCTIONS = dict(functions())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.filterwarnings("ignore")
def test_junk(name: str) -> None:
    f = FUNCTIONS[name]
    for label, junk in JUNK.items():
        for before in ((), (sample(),), (sample(), sample())):
            try:
                out = f(*before, junk)
                if inspect.isgenerator(out):
                    next(out, None)
            except (TypeError, ValueError, RuntimeError) as error:  # DeviceError, GradError
                said, where = str(error), f"{name}{(*before, label)}"
                assert "\n" not in said and not DEEP.search(said), f"{where}: {said}"
            except IndexError as error:  # of an index that is out of range
                assert "outside" in str(error) and "\n" not in str(error), f"{name}: {error}"


ROWS = tx.ones(3, 2)
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: tx.zeros(2, dtype=ROWS), "no tensor dtype a Tensor"),
    (lambda: tx.eye(2, dtype=ROWS), "no tensor dtype a Tensor"),
    (lambda: tx.rand(2, dtype=""), "no tensor dtype : convert"),
    (lambda: ROWS.sum(dtype=np.ones((3, 3))), "no tensor dtype a ndarray"),
    (lambda: ROWS.size(1.0), "size: dim must be an int, not 1.0"),
    (lambda: ROWS.sum(keepdim=ROWS), "sum: keepdims must be a bool, not a Tensor"),
    (lambda: tx.set_num_threads(ROWS), r"set_num_threads: n is a Tensor \(3, 2\); it must be a"),
    (lambda: tx.manual_seed("x"), "manual_seed: seed must be an int, not 'x'"),
    (lambda: tx.manual_seed(1.5), "manual_seed: seed must be an int, not 1.5"),
    (lambda: tx.load(ROWS), "load: path must be a str or a Path, not a Tensor"),
    (lambda: tx.ones(1, requires_grad=True).backward(5), "backward: gradient must be a Tensor or"),
    (lambda: setattr(tx.ones(1), "grad", 5), "grad must be a Tensor or None, not 5"),
    (lambda: tx.optim.SGD([tx.ones(1)], lr="x"), "lr must be a number, not 'x'"),
    (lambda: tx.optim.Adam([tx.ones(1)], eps=ROWS), "eps must be a number, not a Tensor"),
    (lambda: nn.Linear(3, 2)([1, 2]), r"Linear: input must be a Tensor, not a list: wrap it in tx"),
    (lambda: nn.ReLU()(3.0), r"ReLU: input must be a Tensor, not 3.0"),
    (lambda: FUNCTIONS["Transformer()"]([[1]], [[1]]), "Transformer: src must be a Tensor"),
    (lambda: FUNCTIONS["GPT()"]([[1, 2]]), "GPT: ids must be a Tensor, not a list: wrap it in tx"),
    (lambda: F.linear(sample(), [[1.0]]), "linear: weight must be a Tensor, not a list"),
    (lambda: nn.Dropout("x"), "Dropout: p must be a number, not 'x'"),
    (lambda: tx.models.GPT(None), "GPT: config must be a GPTConfig, not None"),
    (lambda: tx.decoding.translate(None, None, "one string"), "translate: lines .* one str"),
    (lambda: tx.decoding.translate(None, None, [1]), r"translate: lines\[0\] must be a str"),
    (lambda: tx.decoding.translate(None, None, None), "translate: lines must be a list of str"),
    (lambda: tx.decoding.translate(None, None, ["a"]), "translate: model must be a Transform"),
    (lambda: tx.decoding.translate(FUNCTIONS["GPT()"], None, ["a"]), "translate: tokenizer must"),
    (lambda: tx.decoding.generate(FUNCTIONS["GPT()"], "text"), "generate: ids .* not 'text'"),
    (lambda: tx.decoding.generate(FUNCTIONS["GPT()"], [[1]], beam_size=1.5), "beam_size must"),
    (lambda: tx.decoding.generate(FUNCTIONS["GPT()"], [[1]], top_p="x"), "top_p must be a number"),
    (lambda: tx.decoding.generate(FUNCTIONS["GPT()"], [[1]], max_new_tokens="x"), "max_new_tokens"),
    (lambda: tx.decoding.generate(None, [[1]]), "generate: model must be a Transformer or a GPT"),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_what_is_said(i: int) -> None:
    call, text = WRONG[i]
    with pytest.raises(TypeError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_messages_are_of_one_line_that_are_no_type_errors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tx.save({"x": ROWS}, path)
    for call, text in (
        (lambda: tx.zeros(2, device=ROWS), "no device a Tensor"),
        (lambda: tx.load(path, device=ROWS), "no device a Tensor"),
        (lambda: tx.save({"x": ROWS}, path, {"name": ROWS}), "must be text, not a Tensor"),
        (lambda: tx.grad(lambda x: x)(ROWS), r"must give a scalar Tensor, not tensor\(\["),
        (lambda: ROWS.size(10**30), r"size: dim 1000.* is outside a Tensor \(3, 2\)"),
        (lambda: ROWS.size(2), r"size: dim 2 is outside a Tensor \(3, 2\)"),
    ):
        with pytest.raises((RuntimeError, ValueError, IndexError), match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert "x" not in ROWS and None not in ROWS and 1 in ROWS


def test_errors_of_ones_own_pass() -> None:
    class Net(nn.Module):
        def forward(self, x: tx.Tensor) -> tx.Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Net()(sample())
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Net()()
    with pytest.raises(tx.errors.DTypeError, match="embedding: ids must be int32 or int64, not fl"):
        nn.Embedding(3, 2)(sample())
    with pytest.raises(IndexError, match="index 7 is outside the 3"):
        nn.Embedding(3, 2)(tx.tensor([7]))
    with pytest.raises((TypeError, ValueError), match=r"int64|floating"):
        nn.Linear(3, 2)(tx.ones(2, 3).long())
