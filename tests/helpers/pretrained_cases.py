"""Small models of `transformers` with random weights, and what they say: written by this script
where transformers and torch are installed, read by tests/models/test_pretrained.py, which needs
neither.

    python tests/helpers/pretrained_cases.py

A case is a directory in tests/fixtures/pretrained, as save_pretrained makes it, with expected.json:
inputs, logits, losses with the norms of gradients, and generations.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "fixtures" / "pretrained"
VOCAB, PAD, BOS, EOS = 40, 0, 1, 2
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "intermediate_size": 24, "max_position_embeddings": 64, "vocab_size": VOCAB}
TOKENS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32},
}  # fmt: skip


def _causal(lib: Any, name: str, **settings: Any) -> Any:
    config = getattr(lib, f"{name}Config")(**settings)
    return getattr(lib, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)


def _llama(lib: Any, **more: Any) -> Any:
    return _causal(lib, "Llama", **{**LLAMA, **TOKENS, **more})


def _t5(lib: Any, **more: Any) -> Any:
    config = lib.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_decoder_layers=2,
        num_heads=4, relative_attention_num_buckets=8, relative_attention_max_distance=12,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, dropout_rate=0.1, **more,
    )  # fmt: skip
    return lib.T5ForConditionalGeneration(config)


def _marian(lib: Any) -> Any:
    config = lib.MarianConfig(
        vocab_size=VOCAB, d_model=16, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=24,
        decoder_ffn_dim=24, max_position_embeddings=64, activation_function="swish",
        scale_embedding=True, pad_token_id=VOCAB - 1, eos_token_id=0, forced_eos_token_id=0,
        decoder_start_token_id=VOCAB - 1, init_std=0.3,
    )  # fmt: skip
    return lib.MarianMTModel(config)


def _bert(lib: Any, name: str = "Bert", head: str = "ForMaskedLM", **more: Any) -> Any:
    settings = {**SMALL, "intermediate_size": 24, "vocab_size": VOCAB, **more}
    settings.setdefault("max_position_embeddings", 24)
    return getattr(lib, name + head)(getattr(lib, f"{name}Config")(**settings))


# A name: how the model is made.
CASES: Mapping[str, Callable[[Any], Any]] = {
    "gpt2": lambda lib: _causal(
        lib, "GPT2", vocab_size=VOCAB, n_positions=48, n_embd=16, n_layer=2, n_head=4, **TOKENS
    ),
    "llama": lambda lib: _llama(lib, num_key_value_heads=2, rope_theta=500.0),
    "llama-tied": lambda lib: _llama(
        lib,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        head_dim=6,
    ),
    **{
        f"llama-{name}": lambda lib, rope=rope: _llama(
            lib, rope_parameters={**rope, "rope_theta": 100.0}
        )
        for name, rope in ROPES.items()
    },
    "bert": lambda lib: _bert(lib),
    "bert-model": lambda lib: _bert(lib, head="Model"),
    "roberta": lambda lib: _bert(
        lib, "Roberta", type_vocab_size=1, pad_token_id=1, max_position_embeddings=26
    ),
    "t5": lambda lib: _t5(lib),
    "t5-gated": lambda lib: _t5(lib, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "marian": _marian,
}
CAUSAL = ("gpt2", "llama")
TRANSLATES = ("t5", "marian")


def main() -> None:
    import torch
    import transformers

    shutil.rmtree(DIRECTORY, ignore_errors=True)
    for name, make in CASES.items():
        torch.manual_seed(7)
        model = make(transformers).eval()
        with torch.no_grad():
            for each, p in model.named_parameters():  # published ones differ more than new ones
                if "embed_positions" in each:
                    continue  # Marian's are computed
                if p.ndim > 1:
                    p.mul_(2)
                else:
                    p.add_(0.2 * torch.randn_like(p))
        out = DIRECTORY / name
        model.save_pretrained(out)
        for spare in ("generation_config.json",):
            (out / spare).unlink(missing_ok=True)
        found = json.dumps(_expected(torch, name, model), separators=(",", ":"))
        (out / "expected.json").write_text(found + "\n")


def _expected(torch: Any, name: str, model: Any) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(3)

    def ids(*shape: int) -> Any:
        return torch.randint(3, VOCAB - 1, shape, generator=rng)

    kind = name.split("-")[0]
    if kind in CAUSAL:
        return _of_causal(torch, model, ids(2, 11))
    if kind in TRANSLATES:
        return _of_translation(torch, model, ids(2, 9), ids(2, 7))
    return _of_encoder(torch, model, ids(2, 9), hasattr(model, "lm_head") or hasattr(model, "cls"))


def _gradients(model: Any, loss: Any) -> dict[str, float]:
    """The norm of the gradient of each parameter, by its name there."""
    model.zero_grad()
    loss.backward()
    return {
        name: round(float(p.grad.norm()), 7)
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def _numbers(x: Any) -> Any:
    return [round(v, 6) for v in x.detach().double().flatten().tolist()]


def _of_causal(torch: Any, model: Any, ids: Any) -> dict[str, Any]:
    found = model(ids, labels=ids)
    prompts = [ids[0, :4].tolist(), ids[1, :7].tolist()]
    return {
        "ids": ids.tolist(),
        "logits": _numbers(found.logits),
        "loss": float(found.loss),
        "gradients": _gradients(model, found.loss),
        "prompts": prompts,
        "greedy": [_generated(torch, model, p) for p in prompts],
        "beam": [_generated(torch, model, p, num_beams=3, length_penalty=0.0) for p in prompts],
        "penalised": [_generated(torch, model, p, repetition_penalty=1.7) for p in prompts],
    }


def _generated(torch: Any, model: Any, prompt: list[int], **more: Any) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, **more
    )
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


def _of_translation(torch: Any, model: Any, src: Any, tgt: Any) -> dict[str, Any]:
    config = model.config
    src[1, 6:] = config.pad_token_id
    mask = (src != config.pad_token_id).long()
    start = torch.full((2, 1), config.decoder_start_token_id)
    given = torch.cat([start, tgt[:, :-1]], 1)
    found = model(src, attention_mask=mask, decoder_input_ids=given)
    loss = torch.nn.functional.cross_entropy(found.logits.flatten(0, 1), tgt.flatten())
    bad = [[config.pad_token_id]] if model.config.model_type == "marian" else None

    def said(**more: Any) -> list[list[int]]:
        out = model.generate(
            src, attention_mask=mask, max_new_tokens=10, do_sample=False, bad_words_ids=bad,
            forced_eos_token_id=None, **more,
        )  # fmt: skip
        return [row[1:].tolist() for row in out]

    return {
        "src": src.tolist(),
        "tgt_in": given.tolist(),
        "tgt_out": tgt.tolist(),
        "logits": _numbers(found.logits),
        "loss": float(loss),
        "gradients": _gradients(model, loss),
        "bad": bad or [],
        "greedy": said(),
        "beam": said(num_beams=3, length_penalty=0.0),
    }


def _of_encoder(torch: Any, model: Any, ids: Any, head: bool) -> dict[str, Any]:
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = model.config.pad_token_id, 0
    kinds = torch.zeros_like(ids)
    if model.config.type_vocab_size > 1:
        kinds[:, 4:] = 1
    base = getattr(model, model.base_model_prefix, model)
    hidden = base(ids, attention_mask=mask, token_type_ids=kinds)
    found = {"ids": ids.tolist(), "mask": mask.tolist(), "kinds": kinds.tolist()}
    found["hidden"] = _numbers(hidden.last_hidden_state)
    if hidden.pooler_output is not None:
        found["pooled"] = _numbers(hidden.pooler_output)
    if head:
        labels = ids.clone()
        labels[:, ::2] = -100
        said = model(ids, attention_mask=mask, token_type_ids=kinds, labels=labels)
        found |= {
            "logits": _numbers(said.logits), "labels": labels.tolist(), "loss": float(said.loss),
            "gradients": _gradients(model, said.loss),
        }  # fmt: skip
    return found


if __name__ == "__main__":
    main()
