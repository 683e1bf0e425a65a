"""Configurations of runs: the presets, reading, writing and overriding. In: a preset's name, a
TOML file, `section.key=value` texts. Out: a Config (schema.py says what is in it). Called by the
command line and, for config.toml in a run directory, by the trainer.

A TOML file need not be complete: what it leaves out is that of the preset it names (`preset =
"multi30k"` before the first section), or of `tiny`. What `dump` writes is complete.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..atomic import write_bytes
from ..errors import UserError, brief
from ..models.loading import read_toml
from ..models.registry import KINDS, unknown_setting
from ..serialize import FORMAT
from .schema import (
    Config,
    DataConfig,
    DecodeConfig,
    Kind,
    ModelConfig,
    ModelSection,
    OptimConfig,
    ScheduleConfig,
    Section,
    TokenizerConfig,
    TrainConfig,
    kinds,
    model_section,
)

__all__ = ["PRESETS", "Config", "apply_overrides", "dump", "load", "preset"]

_BASE_MODEL = ModelConfig(
    d_model=512, n_heads=8, d_ff=2048, n_encoder_layers=6, n_decoder_layers=6, dropout=0.1
)
_BASE = Config(
    preset="base",
    data=DataConfig(corpus="files", valid_size=3000, max_len=256, max_tokens=5000),
    tokenizer=TokenizerConfig(vocab_size=37_000),
    model=_BASE_MODEL,
    optim=OptimConfig(clip_norm=0.0, accumulate=5),  # 25,000 tokens a step on either side
    schedule=ScheduleConfig(warmup_steps=4000),
    train=TrainConfig(
        max_steps=100_000,
        log_every=100,
        valid_every=2000,
        checkpoint_every=1000,
        keep_last=5,
        average_last=5,
        valid_sentences=1000,
    ),
    decode=DecodeConfig(beam_size=4, length_penalty=0.6),
)

_TINY = Config(
    preset="tiny",
    data=DataConfig(corpus_size=40_000, max_len=40, max_tokens=640),
    model=ModelConfig(d_ff=256, dropout=0.0),
    schedule=ScheduleConfig(warmup_steps=200, scale=0.5),
    train=TrainConfig(
        max_steps=1050, checkpoint_every=100, keep_last=5, average_last=5, valid_every=350
    ),
)


def _model(kind: str, **settings: Any) -> ModelSection:
    """A [model] section of a kind."""
    section: type[Any] = model_section(kind)
    made: ModelSection = section(**settings)
    return made


_CHAR = Config(
    preset="char",
    data=DataConfig(corpus="files", max_len=64, max_tokens=768),
    tokenizer=TokenizerConfig(kind="char"),
    model=_model("gpt", n_layer=4, n_head=4, n_embd=128, block_size=64, init_std=0.06),
    optim=OptimConfig(
        name="adamw", lr=1e-3, beta2=0.99, eps=1e-8, weight_decay=0.1, decay_vectors=False
    ),
    schedule=ScheduleConfig(name="cosine", warmup_steps=100, min_lr=1e-4),
    train=TrainConfig(
        max_steps=2000, label_smoothing=0.0, log_every=100, valid_every=500, checkpoint_every=250
    ),
)


def _tiny(name: str, kind: str, **settings: Any) -> Config:
    """A preset of another kind of model for the built-in corpus."""
    schedule = replace(_TINY.schedule, scale=1.0)
    return replace(_TINY, preset=name, model=_model(kind, **settings), schedule=schedule)


PRESETS: Mapping[str, Config] = MappingProxyType(
    {
        # The built-in corpus: minutes on two cores.
        "tiny": _TINY,
        # 29,000 image captions, German to English or any other direction.
        # What 45 minutes of two cores can finish; docs/results.md has such a run.
        "multi30k": Config(
            preset="multi30k",
            data=DataConfig(corpus="files", valid_size=1000, max_tokens=4096),
            tokenizer=TokenizerConfig(vocab_size=8000, min_frequency=2),
            model=ModelConfig(
                d_model=128, d_ff=512, n_encoder_layers=4, n_decoder_layers=4, dropout=0.3
            ),
            schedule=ScheduleConfig(warmup_steps=2000, scale=2.0),
            train=TrainConfig(
                max_steps=5500,
                checkpoint_every=50,
                keep_last=10,
                average_last=10,
                patience=10,
                valid_every=500,
            ),
            decode=DecodeConfig(beam_size=4, length_penalty=0.6),
        ),
        # 'Attention Is All You Need' (arXiv 1706.03762), table 3 and sections 5 and 6.1.
        "base": _BASE,
        "big": replace(
            _BASE,
            preset="big",
            model=replace(_BASE_MODEL, d_model=1024, d_ff=4096, n_heads=16, dropout=0.3),
            train=replace(_BASE.train, max_steps=300_000, keep_last=20, average_last=20),
        ),
        # What came before the Transformer, as long as `tiny` takes.
        "tiny-rnn": _tiny("tiny-rnn", "seq2seq", cell="gru", attention="none", d_model=160),
        "tiny-attention": _tiny(
            "tiny-attention", "seq2seq", cell="lstm", attention="luong", d_model=128
        ),
        "tiny-conv": _tiny("tiny-conv", "convs2s", d_model=128, n_layers=2, max_len=256),
        # nanoGPT's on characters for a processor, of which only the initial weights are larger:
        # 2,000 steps of 12 windows of 64 characters.
        "char": _CHAR,
        # GPT-2's smallest, in batches of half a million tokens.
        "gpt2-small": replace(
            _CHAR,
            preset="gpt2-small",
            data=replace(_CHAR.data, max_len=1024, max_tokens=8192),
            tokenizer=TokenizerConfig(vocab_size=50_257),
            model=_model("gpt", n_layer=12, n_head=12, n_embd=768, block_size=1024),
            optim=replace(_CHAR.optim, lr=6e-4, beta2=0.95, accumulate=60),
            schedule=ScheduleConfig(name="cosine", warmup_steps=2000, min_lr=6e-5),
            train=replace(
                _CHAR.train, max_steps=600_000, log_every=10, valid_every=1000, checkpoint_every=500
            ),
        ),
        "llama-tiny": replace(
            _CHAR,
            preset="llama-tiny",
            data=replace(_CHAR.data, max_len=128, max_tokens=2048),
            tokenizer=TokenizerConfig(vocab_size=2000),
            model=_model(
                "llama", d_model=128, n_layers=4, n_heads=4, n_kv_heads=2, d_ff=344, max_len=512,
                tie_embeddings=True, init_std=0.06,
            ),
        ),
        # Masked words.
        "bert-tiny": replace(
            _CHAR,
            preset="bert-tiny",
            data=replace(_CHAR.data, max_len=128, max_tokens=2048),
            tokenizer=TokenizerConfig(vocab_size=2000),
            model=_model(
                "bert", d_model=128, n_layers=4, n_heads=4, d_ff=512, max_len=512, dropout=0.0,
                attention_dropout=0.0,
            ),
            train=replace(_CHAR.train, max_steps=4000),
        ),
    }
)  # fmt: skip


PRESETS_OF: Mapping[str, str] = MappingProxyType(  # what --task alone means
    {"translate": "tiny", "lm": "char", "mlm": "bert-tiny"}
)


def preset(name: str) -> Config:
    """The preset of that name; UserError that lists the names if there is none."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        raise _unknown(f"preset {name!r}", near, f"the presets are {', '.join(PRESETS)}")
    return PRESETS[name]


def load(path: Path | str) -> Config:
    """The configuration in a TOML file; UserError that says what is wrong with the file."""
    path = Path(path)
    tables = read_toml(path)
    try:
        name = tables.pop("preset", "tiny")
        if not isinstance(name, str):
            raise UserError(f"preset is {brief(name)}; it must be one of {', '.join(PRESETS)}")
        base = preset(name)
        changes: dict[str, dict[str, Any]] = {}
        described = tables.get("model")
        model = described.get("kind", base.model.kind) if isinstance(described, dict) else ""
        known = _kinds(model or base.model.kind)
        for section, table in tables.items():
            if not isinstance(table, dict):
                _kind_of(section, known)  # raises, with a hint where the key belongs
                head = section.split(".")[0]
                raise UserError(f"{section} must be in a section: write [{head}] above the key")
            if section not in _sections(base):
                raise _unknown_section(section)
            for key, value in table.items():
                kind = _kind_of(f"{section}.{key}", known)
                changes.setdefault(section, {})[key] = _none_if_meant(value, kind)
        return _changed(base, changes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def dump(config: Config, path: Path | str) -> None:
    """Writes every field to a TOML file that `load` turns into the same Config again; a file of the
    name "none" is written as "./none"."""
    import tomli_w

    def shown(value: object) -> object:
        return "none" if value is None else "./none" if value == "none" else value

    known = _kinds(config.model.kind)
    tables: dict[str, Any] = {"format": FORMAT, **asdict(config)}
    for section in _sections(config):
        table = tables[section]
        tables[section] = {
            key: shown(v) if known[f"{section}.{key}"].optional else v for key, v in table.items()
        }
    write_bytes(path, tomli_w.dumps(tables).encode())


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """`config` with texts such as `train.max_steps=10` applied, all before anything is checked.

    The field decides what a text means: numbers as Python reads them, true or false, and none
    where the field may be None. UserError names an unknown key's nearest known one.
    """
    changes: dict[str, dict[str, Any]] = {}
    settings: list[tuple[str, str]] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if name != name.rstrip():  # written as "key = value"
            text = text.lstrip()
        name = name.strip()
        if not equals:
            raise UserError(f"{override!r} sets nothing: write section.key=value")
        settings.append((name, text))
    known = _kinds(dict(settings).get("model.kind", config.model.kind))
    for name, text in settings:
        kind = _kind_of(name, known)
        section, key = name.split(".")
        changes.setdefault(section, {})[key] = _none_if_meant(_parsed(text, kind), kind)
    return _changed(config, changes)


def _sections(config: Config) -> dict[str, Section]:
    found = {f.name: getattr(config, f.name) for f in fields(config)}
    return {name: value for name, value in found.items() if isinstance(value, Section)}


def _kinds(model: str) -> dict[str, Kind]:
    """The values that each key accepts, by section.key, for a kind of model."""
    classes = {name: type(value) for name, value in _sections(_BASE).items()}
    classes["model"] = model_section(model)
    return {f"{name}.{key}": kind for name, c in classes.items() for key, kind in kinds(c).items()}


def _changed(config: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    sections: dict[str, Any] = _sections(config)
    for name, values in changes.items():
        if name == "model" and values.get("kind", config.model.kind) != config.model.kind:
            sections[name] = _begun(values["kind"], values)
        else:
            sections[name] = replace(sections[name], **values)
    return replace(config, **sections)


def _begun(kind: str, values: Mapping[str, Any]) -> ModelSection:
    """The section of another kind of model: by its own defaults, or a model of language as small as
    the preset that has one, for published ones are larger than many machines."""
    own = (
        p.model for p in PRESETS.values() if p.model.kind == kind and p.model.task != "translate"
    )
    if (small := next(own, None)) is not None:
        return replace(small, **values)
    return model_section(kind)(**values)


def _none_if_meant(value: object, kind: Kind) -> object:
    return None if value == "none" and kind.optional else value


def _parsed(text: str, kind: Kind) -> object:
    """The text as the kind's type; the text itself where it is none, which the check reports."""
    if kind.type is str and not kind.choices:
        return text  # a file's name, in which blanks count
    text = text.strip()
    if kind.type is dict:
        return _table(text)
    if kind.type is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind.type(text)
    except ValueError:
        return text


def _table(text: str) -> object:
    """A table as TOML writes it in one line; the text where it is none."""
    try:
        return tomllib.loads(f"it = {text}")["it"]
    except tomllib.TOMLDecodeError:
        return text


def _kind_of(name: str, kinds: Mapping[str, Kind]) -> Kind:
    """The values that the key `section.key` accepts; UserError with the nearest key if there is no
    such. kinds: those of all keys."""
    if name in kinds:
        return kinds[name]
    sections = _sections(_BASE)
    section, _, key = name.rpartition(".")
    if section and section not in sections:
        raise _unknown_section(section)
    if name in sections:
        raise UserError(f"{name} is a section; set one of its keys: {_keys_of(name, kinds)}")
    if section == "model" and any(key in other.settings for other in KINDS.values()):
        raise unknown_setting(key, kinds["model.kind"].choices[0])
    # The whole name first; then the key alone, which finds a key that lacks its section.
    by_key = {known.split(".")[1]: known for known in kinds}
    near = get_close_matches(name, kinds, 1) if section else []
    near = near or [by_key[k] for k in get_close_matches(key, by_key, 1)]
    if section:
        raise _unknown(f"key {name}", near, f"the keys of {section} are {_keys_of(section, kinds)}")
    raise _unknown(f"key {name!r}", near, "write section.key, such as train.max_steps")


def _keys_of(section: str, kinds: Mapping[str, Kind]) -> str:
    return ", ".join(known.split(".")[1] for known in kinds if known.startswith(f"{section}."))


def _unknown_section(name: str) -> UserError:
    sections = _sections(_BASE)
    near = get_close_matches(name, sections, 1)
    return _unknown(f"section {name}", near, f"the sections are {', '.join(sections)}")


def _unknown(what: str, near: list[str], known: str) -> UserError:
    hint = f": did you mean {near[0]}?" if near else ""
    return UserError(f"unknown {what}{hint} ({known})")
