"""transformers itself, where it is installed (the extra interop): what it saves is read here, and
what is saved here is read by it; both say the same, in logits and in generations."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretrained_cases import CASES, CAUSAL, DIRECTORY, TRANSLATES

import tinygrad_tx as tx
from tinygrad_tx.decoding import generate
from tinygrad_tx.models import BERT, GPT, GPTConfig, from_pretrained
from tinygrad_tx.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("transformers") and find_spec("torch")), reason="needs transformers"
    ),
]
TEXT = [f"{i} dogs see the cat, and {i + 1} cats see the dog." for i in range(200)]


def theirs(root: Path) -> Any:
    """The model of a directory, as transformers makes it from what config.json says."""
    import json

    import transformers

    (name,) = json.loads((root / "config.json").read_text())["architectures"]
    model, said = getattr(transformers, name).from_pretrained(root, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"], said
    return model.eval()


def inputs(model: Any, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], ...]:
    shape, most = (3, 11), model.config.vocab_size - 1
    first = rng.integers(3, most, shape)
    return (first, rng.integers(3, most, (3, 7))) if hasattr(model, "encode") else (first,)


@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_is_read_there(name: str, tmp_path: Path) -> None:
    import torch

    ours, _ = from_pretrained(DIRECTORY / name)
    ours.save_pretrained(tmp_path)
    model, rng = theirs(tmp_path), np.random.default_rng(0)
    given = inputs(ours, rng)
    with torch.no_grad():
        if len(given) == 2:
            src, tgt = map(torch.tensor, given)
            wanted = model(src, decoder_input_ids=tgt).logits
        else:
            said = model(torch.tensor(given[0]))
            wanted = said.logits if hasattr(said, "logits") else said.last_hidden_state
    own = ours.logits if isinstance(ours, BERT) and ours.mlm is not None else ours
    found = own(*map(tx.tensor, given)).numpy()
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", [n for n in CASES if n.split("-")[0] in (*CAUSAL, *TRANSLATES)])
@pytest.mark.parametrize("beam", [1, 4])
def test_generations_in_batches_of_unequal_prompts(name: str, beam: int) -> None:
    """Each alone there, all together here."""
    import torch

    ours, _ = from_pretrained(DIRECTORY / name)
    model, rng = theirs(DIRECTORY / name), np.random.default_rng(1)
    rows = [rng.integers(3, ours.config.vocab_size - 1, n).tolist() for n in (2, 5, 9, 12)]
    causal = not hasattr(ours, "encode")
    bad = [[ours.config.pad_id]] if name == "marian" else None
    found = generate(ours, rows, max_new_tokens=8, beam_size=beam, bad_words=bad or [])
    eos = ours.config.eos_id
    for row, [hypothesis] in zip(rows, found, strict=True):
        ids = torch.tensor([row])
        said = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, num_beams=beam,
            do_sample=False, length_penalty=0.0, bad_words_ids=bad, forced_eos_token_id=None,
        )[0].tolist()  # fmt: skip
        wanted = said[len(row) :] if causal else said[1:]
        end = wanted.index(eos) if eos in wanted else len(wanted)
        tokens = hypothesis.tokens
        assert tokens[: tokens.index(eos) if eos in tokens else len(tokens)] == wanted[:end]


def test_shards(tmp_path: Path) -> None:
    model = theirs(DIRECTORY / "llama")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    found, _ = from_pretrained(tmp_path)
    wanted, _ = from_pretrained(DIRECTORY / "llama")
    for a, b in zip(found.parameters(), wanted.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_half_precision(tmp_path: Path) -> None:
    import torch

    theirs(DIRECTORY / "llama").to(torch.bfloat16).save_pretrained(tmp_path)
    found, _ = from_pretrained(tmp_path)
    assert {p.dtype for p in found.parameters()} == {tx.float32}
    kept, _ = from_pretrained(tmp_path, dtype=tx.bfloat16)
    assert {p.dtype for p in kept.parameters()} == {tx.bfloat16}


def test_a_tokenizer_of_ours_is_read_there(tmp_path: Path) -> None:
    import transformers

    own = Tokenizer.train(TEXT, vocab_size=300)
    config = GPTConfig(own.vocab_size, 1, 2, 8, 16, bias=True, pad_id=own.pad_id, eos_id=own.eos_id)
    GPT(config).save_pretrained(tmp_path, own)
    there = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (there.pad_token_id, there.eos_token_id) == (own.pad_id, own.eos_id)
    for text in (TEXT[7], "unseen wörds, 東京", ""):
        assert there(text, add_special_tokens=False).input_ids == own.encode(text)
    _, again = from_pretrained(tmp_path)
    assert again.decode(again.encode(TEXT[7])).strip() == TEXT[7]


@pytest.mark.skipif(
    not (find_spec("sentencepiece") and find_spec("google")),
    reason="needs sentencepiece and protobuf",
)
def test_sentencepiece(tmp_path: Path) -> None:
    """T5's and Marian's, with models that are learnt here."""
    import json
    import shutil

    import sentencepiece
    import transformers

    from tinygrad_tx.models.pieces import MarianTokenizer, PieceTokenizer

    (tmp_path / "text").write_text("\n".join(TEXT))
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), vocab_size=45,
        minloglevel=2, **ids,
    )  # fmt: skip
    texts = ["3 dogs see the cat.", " the  dog", "<extra_id_0> cats <extra_id_1>", ""]
    config = type("Config", (), {"vocab_size": 145, "pad_id": 0, "bos_id": None, "eos_id": 1})
    own = PieceTokenizer(tmp_path / "spiece.model", config)
    there = transformers.T5Tokenizer.from_pretrained(tmp_path)
    for text in texts[:2]:
        assert own.encode(text) == there(text).input_ids, text
        assert own.decode(own.encode(text)) == there.decode(
            own.encode(text), skip_special_tokens=True
        )
    assert own.encode(texts[2])[0] == there.convert_tokens_to_ids("<extra_id_0>")
    for side in ("source", "target"):
        shutil.copyfile(tmp_path / "spiece.model", tmp_path / f"{side}.spm")
    core = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    pieces = [core.id_to_piece(i) for i in range(45)]
    names = ["</s>", "<unk>", *[p for p in pieces if p not in ("<pad>", "</s>", "<unk>")], "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(names)}))
    config = type("Config", (), {"vocab_size": len(names), "pad_id": len(names) - 1,
                                 "bos_id": len(names) - 1, "eos_id": 0})  # fmt: skip
    marian = MarianTokenizer(tmp_path, config)
    there = transformers.MarianTokenizer(
        str(tmp_path / "source.spm"), str(tmp_path / "target.spm"), str(tmp_path / "vocab.json")
    )
    for text in (texts[0], "the cats"):
        assert marian.encode(text) == there(text).input_ids, text
        assert marian.decode(marian.encode(text)) == there.decode(
            marian.encode(text), skip_special_tokens=True
        )
