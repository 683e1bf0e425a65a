"""Directories of `transformers`: small random models that were written by it, with their logits,
losses, gradients and generations; and what is said of directories that cannot be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretrained_cases import CASES, CAUSAL, DIRECTORY, TRANSLATES

import tinygrad_tx as tx
from tinygrad_tx.decoding import generate
from tinygrad_tx.errors import UserError
from tinygrad_tx.models import formats, from_pretrained
from tinygrad_tx.models.formats.base import Format

TOLERANCE = 1e-4
OF_CAUSAL = [name for name in CASES if name.split("-")[0] in CAUSAL]
OF_TRANSLATION = [name for name in CASES if name.split("-")[0] in TRANSLATES]
OF_ENCODER = [name for name in CASES if name not in (*OF_CAUSAL, *OF_TRANSLATION)]


def case(name: str) -> tuple[Any, dict[str, Any]]:
    """The model of a case, and what it is to say."""
    model, tokenizer = from_pretrained(DIRECTORY / name)
    assert tokenizer is None and not model.training
    return model, json.loads((DIRECTORY / name / "expected.json").read_text())


def ids(rows: list[list[int]]) -> tx.Tensor:
    return tx.tensor(np.array(rows))


def close(found: tx.Tensor, wanted: list[float]) -> None:
    np.testing.assert_allclose(found.numpy().ravel(), wanted, rtol=0, atol=TOLERANCE)


def format_of(name: str) -> Format:
    kind = json.loads((DIRECTORY / name / "config.json").read_text())["model_type"]
    return formats.FORMATS[kind]


def check_gradients(name: str, model: Any, wanted: dict[str, float]) -> None:
    """Norms of gradients, by the names there."""
    form, found = format_of(name), {}
    for own, p in model.named_parameters():
        grad = np.zeros(p.shape) if p.grad is None else p.grad.numpy()
        begin = 0
        for theirs, rows in form.theirs(own, p.shape[0], model.config):
            name = theirs if theirs in wanted else theirs.removeprefix(form.prefix)
            found[name] = float(np.linalg.norm(grad[begin : begin + rows]))
            begin += rows
    assert found.keys() == wanted.keys()
    for theirs, norm in found.items():
        assert norm == pytest.approx(wanted[theirs], rel=1e-3, abs=1e-5), theirs


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OF_CAUSAL)
def test_language_models(name: str, compiled: bool) -> None:
    model, wanted = case(name)
    given = ids(wanted["ids"])
    close((tx.compile(model) if compiled else model)(given), wanted["logits"])
    targets = np.full(given.shape, -100)
    targets[:, :-1] = given.numpy()[:, 1:]
    step = tx.compile(model.loss) if compiled else model.loss
    loss = step(given, tx.tensor(targets))
    assert loss.item() == pytest.approx(wanted["loss"], abs=TOLERANCE)
    model.loss(given, tx.tensor(targets)).backward()
    check_gradients(name, model, wanted["gradients"])


@pytest.mark.parametrize("name", OF_CAUSAL)
def test_language_models_generate(name: str) -> None:
    """Prompts of unequal length in one batch say what each says alone there."""
    model, wanted = case(name)
    for what, settings in (
        ("greedy", {}),
        ("beam", {"beam_size": 3}),
        ("penalised", {"repetition_penalty": 1.7}),
    ):
        found = generate(model, wanted["prompts"], max_new_tokens=10, **settings)
        assert [ended(row[0].tokens, model) for row in found] == [
            ended(row, model) for row in wanted[what]
        ], what


def ended(tokens: list[int], model: Any) -> list[int]:
    """Up to the end token."""
    eos = model.config.eos_id
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


@pytest.mark.parametrize("name", OF_TRANSLATION)
def test_models_that_translate(name: str) -> None:
    model, wanted = case(name)
    src, tgt_in, tgt_out = (ids(wanted[key]) for key in ("src", "tgt_in", "tgt_out"))
    close(model(src, tgt_in), wanted["logits"])
    close(tx.compile(model)(src, tgt_in), wanted["logits"])
    loss = model.loss(src, tgt_in, tgt_out)
    assert loss.item() == pytest.approx(wanted["loss"], abs=TOLERANCE)
    loss.backward()
    check_gradients(name, model, wanted["gradients"])
    for what, settings in (("greedy", {}), ("beam", {"beam_size": 3})):
        found = generate(
            model, wanted["src"], max_new_tokens=10, bad_words=wanted["bad"], **settings
        )
        assert [ended(row[0].tokens, model) for row in found] == [
            ended(row, model) for row in wanted[what]
        ], what


@pytest.mark.parametrize("kind", ["int", "bool"])
@pytest.mark.parametrize("name", OF_ENCODER)
def test_encoders(name: str, kind: str) -> None:
    model, wanted = case(name)
    mask = ids(wanted["mask"])
    given = ids(wanted["ids"]), mask if kind == "int" else mask != 0, ids(wanted["kinds"])
    seen = np.repeat(mask.numpy().ravel() > 0, model.config.d_model)
    hidden = model(*given).numpy().ravel()
    np.testing.assert_allclose(hidden[seen], np.array(wanted["hidden"])[seen], atol=TOLERANCE)
    if "pooled" in wanted:
        close(model.pooled(*given), wanted["pooled"])
    if "logits" not in wanted:
        with pytest.raises(tx.errors.ShapeError, match="no head for masked words"):
            model.logits(*given)
        return
    seen = np.repeat(mask.numpy().ravel() > 0, model.config.vocab_size)
    logits = model.logits(*given).numpy().ravel()
    np.testing.assert_allclose(logits[seen], np.array(wanted["logits"])[seen], atol=TOLERANCE)
    loss = model.loss(given[0], ids(wanted["labels"]), *given[1:])
    assert loss.item() == pytest.approx(wanted["loss"], abs=TOLERANCE)
    loss.backward()
    check_gradients(name, model, wanted["gradients"])


@pytest.mark.parametrize("name", CASES)
def test_saved_and_read_again(name: str, tmp_path: Path) -> None:
    model, _ = case(name)
    model.save_pretrained(tmp_path / "a")
    again, _ = from_pretrained(tmp_path / "a")
    assert again.config == model.config
    for (key, a), (other, b) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert key == other and np.array_equal(a.numpy(), b.numpy())


# What cannot be read -----------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(DIRECTORY / "llama", tmp_path / "llama")
    return tmp_path / "llama"


def change(root: Path, **settings: Any) -> None:
    file = root / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; those that there are: gpt2, llama"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; those that there are: relu"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope_type is 'spiral'"),
        ({"pretraining_tp": 2}, "pretraining_tp is 2, and this library knows 1 alone"),
        ({"hidden_size": None}, "config.json has no hidden_size"),
        ({"num_hidden_layers": 1}, "has, and this model has not, model.layers.1."),
        ({"num_hidden_layers": 3}, "lacks model.layers.2."),
        ({"intermediate_size": 32}, "has of another shape model.layers.0.mlp"),
    ],
)
def test_what_is_not_there_is_named(copy: Path, settings: dict[str, Any], message: str) -> None:
    change(copy, **settings)
    with pytest.raises(UserError) as caught:
        from_pretrained(copy)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_pickle_is_refused_with_what_converts_it(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"a pickle, .* convert it: python -c .*save_pretrained"):
        from_pretrained(copy)


def test_weights_in_several_files(copy: Path) -> None:
    whole = tx.load(copy / "model.safetensors")
    names = sorted(whole)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        tx.save({name: whole[name] for name in own}, copy / file)
    (copy / "model.safetensors").unlink()
    places = {name: file for file, own in parts.items() for name in own}
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    model, _ = from_pretrained(copy)
    wanted, _ = from_pretrained(DIRECTORY / "llama")
    for a, b in zip(model.parameters(), wanted.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
    index.write_text(json.dumps({"weight_map": {names[0]: "../x.safetensors"}}))
    with pytest.raises(UserError, match="which is no file there"):
        from_pretrained(copy)
