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


@pytest.mark.parametrize(
    ("name", "compiled"), [(name, name in CAUSAL) for name in OF_CAUSAL] + [("llama", False)]
)
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
    """By the class that it has there, with its head."""
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    said = r"a pickle, .* convert it: python -c .* import LlamaForCausalLM; Llama.*save_pretrained"
    with pytest.raises(UserError, match=said):
        from_pretrained(copy)


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": "x"}, {"rope_parameters": [1]}, {"hidden_act": ["silu"]},
        {"rope_parameters": {"rope_theta": "abc"}}, {"hidden_size": "24"}, {"hidden_size": [16]},
        {"rope_parameters": {"rope_type": ["x"]}}, {"num_hidden_layers": None},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}},
        {"rms_norm_eps": "no"}, {"vocab_size": {}}, {"quantization_config": {"bits": 4}},
    ],
)  # fmt: skip
def test_settings_of_the_wrong_kind_get_one_line(copy: Path, settings: dict[str, Any]) -> None:
    change(copy, **settings)
    with pytest.raises(UserError) as caught:
        from_pretrained(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


def rewrite(root: Path, change_of: Any) -> None:
    """Change the tensors of a directory."""
    tensors = {name: value.numpy() for name, value in tx.load(root / "model.safetensors").items()}
    change_of(tensors)
    tx.save({name: tx.tensor(value) for name, value in tensors.items()}, root / "model.safetensors")


def test_a_head_of_its_own_beside_an_embedding_that_says_it_is_tied(tmp_path: Path) -> None:
    """As transformers 5 writes what 4 had untied; a head that is a copy is none."""
    for name in ("llama-tied", "t5-gated"):
        shutil.copytree(DIRECTORY / name, tmp_path / name)
        wanted, _ = from_pretrained(tmp_path / name)
        words = wanted.shared if hasattr(wanted, "shared") else wanted.embed_tokens
        given = [ids([[3, 4, 5]])] * (2 if name == "t5-gated" else 1)
        same = words.weight.numpy()
        rewrite(tmp_path / name, lambda found, same=same: found.update({"lm_head.weight": same}))
        found, _ = from_pretrained(tmp_path / name)
        assert found.config == wanted.config
        other = np.flip(same, 0).copy()
        rewrite(tmp_path / name, lambda found, x=other: found.update({"lm_head.weight": x}))
        found, _ = from_pretrained(tmp_path / name)
        assert not found.config.tie_embeddings
        np.testing.assert_allclose(
            found(*given).numpy(), wanted(*given).numpy()[..., ::-1], rtol=1e-4, atol=1e-5
        )


def test_a_head_that_cannot_be_there(tmp_path: Path) -> None:
    shutil.copytree(DIRECTORY / "gpt2", tmp_path / "gpt2")
    rewrite(
        tmp_path / "gpt2",
        lambda found: found.update({"lm_head.weight": found["transformer.wte.weight"] + 1}),
    )
    with pytest.raises(UserError, match=r"lm_head\.weight is not transformer\.wte\.weight"):
        from_pretrained(tmp_path / "gpt2")


def test_t5_untied_as_transformers_4_has_it(tmp_path: Path) -> None:
    root = tmp_path / "t5"
    shutil.copytree(DIRECTORY / "t5-gated", root)
    file = root / "config.json"
    settings = json.loads(file.read_text())
    del settings["scale_decoder_outputs"]
    file.write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    with pytest.raises(UserError, match=r"the model lacks lm_head\.weight"):
        from_pretrained(root)
    rewrite(root, lambda found: found.update({"lm_head.weight": found["shared.weight"] * 2}))
    model, _ = from_pretrained(root)
    assert not model.config.tie_embeddings and not model.config.scaled


def test_names_of_old_layer_norms(tmp_path: Path) -> None:
    shutil.copytree(DIRECTORY / "bert", tmp_path / "bert")

    def old(found: dict[str, Any]) -> None:
        for name in [name for name in found if "LayerNorm" in name]:
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            found[new.replace("LayerNorm.bias", "LayerNorm.beta")] = found.pop(name)

    rewrite(tmp_path / "bert", old)
    found, _ = from_pretrained(tmp_path / "bert")
    wanted, _ = from_pretrained(DIRECTORY / "bert")
    given = ids([[3, 4, 5]])
    np.testing.assert_array_equal(found(given).numpy(), wanted(given).numpy())


def test_ids_of_end_tokens(copy: Path, tmp_path: Path) -> None:
    """Several end a text, as generation_config.json says; one of another vocabulary is none."""
    plain, _ = from_pretrained(copy)
    [[long]] = generate(plain, [[5, 6, 7]], max_new_tokens=12, bad_words=[2])
    ends = [2, long.tokens[4]]
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    model, _ = from_pretrained(copy)
    assert (model.config.eos_id, model.config.more_eos_ids) == (2, (ends[1],))
    [[short]] = generate(model, [[5, 6, 7]], max_new_tokens=12, bad_words=[2])
    assert short.tokens == long.tokens[: long.tokens.index(ends[1])]
    model.save_pretrained(tmp_path / "again")
    again, _ = from_pretrained(tmp_path / "again")
    assert again.config == model.config
    (copy / "generation_config.json").unlink()
    change(copy, eos_token_id=50256, pad_token_id=-1)
    model, _ = from_pretrained(copy)
    assert model.config.eos_id is None and model.config.pad_id is None
    shutil.copytree(DIRECTORY / "gpt2", tmp_path / "gpt2")
    change(tmp_path / "gpt2", eos_token_id=[1, 2])
    with pytest.raises(UserError, match=r"eos_token_id is \[1, 2\], and this model has one"):
        from_pretrained(tmp_path / "gpt2")


def test_adapters_are_saved_in_the_weights(tmp_path: Path) -> None:
    for name, target in (
        ("gpt2", "c_attn"),
        ("llama", "qkv_proj"),
        ("bert", "q_proj"),
        ("t5", "q"),
    ):
        model, _ = from_pretrained(DIRECTORY / name)
        adapters = tx.nn.lora(model, 2, target)
        with tx.no_grad():
            for p in adapters.parameters():
                p.assign(p + 0.1)
        with pytest.raises(UserError, match="adapters beside its weights; merge"):
            model.save_pretrained(tmp_path / name)
        adapters.merge()
        model.save_pretrained(tmp_path / name)
        again, _ = from_pretrained(tmp_path / name)
        given = [ids([[3, 4, 5]])] * (2 if name == "t5" else 1)
        np.testing.assert_array_equal(again(*given).numpy(), model(*given).numpy())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; a model is written as a directory"):
        again.save_pretrained(tmp_path / "file")


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
