"""Which class each `model.kind` is: the kinds of model that `train` trains and `load` loads.

In: a kind and the settings of a [model] section. Out: a model. Called by loading.py, by training's
schema and by the commands. Another kind is one entry of KINDS: the class of a model, the
dataclass of its settings, and what it is trained to do; users add theirs by `register`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from ..arguments import shown
from ..errors import UserError
from ..mistakes import near
from ..nn import Module
from .bert import BERT, BERTConfig
from .convs2s import ConvS2S, ConvS2SConfig
from .gpt import GPT, GPTConfig
from .llama import Llama, LlamaConfig
from .seq2seq import Seq2Seq, Seq2SeqConfig
from .t5 import T5, T5Config
from .transformer import Transformer, TransformerConfig


class Kind(NamedTuple):
    """A model's class, and that of its configuration, which has those fields of `Vocabulary` that
    the model must know, attributes d_model, max_len (the most tokens of a source or a text) and
    n_positions (those that it has; None: any number), and describe(). task: what it is trained to
    do: "translate", for an EncoderDecoder; "lm", the next token, for a LanguageModel; "mlm",
    masked words."""

    model: type[Any]
    config: type[Any]
    task: str = "translate"

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of what a [model] section says: all but the vocabularies."""
        return tuple(f.name for f in fields(self.config) if f.name not in _OF_VOCABULARY)


class Vocabulary(Protocol):
    """What a model must know of its tokens, as a Tokenizer does."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def mask_id(self) -> int | None: ...


class Tokens(NamedTuple):
    """A vocabulary in the place of a tokenizer's, for what is the same with any."""

    vocab_size: int = 100
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    mask_id: int | None = None


_OF_VOCABULARY = ("src_vocab_size", "more_eos_ids", *Tokens._fields)

_KINDS = {
    "transformer": Kind(Transformer, TransformerConfig),
    "seq2seq": Kind(Seq2Seq, Seq2SeqConfig),
    "convs2s": Kind(ConvS2S, ConvS2SConfig),
    "t5": Kind(T5, T5Config),
    "gpt": Kind(GPT, GPTConfig, "lm"),
    "llama": Kind(Llama, LlamaConfig, "lm"),
    "bert": Kind(BERT, BERTConfig, "mlm"),
}
KINDS: Mapping[str, Kind] = MappingProxyType(_KINDS)
_OURS = frozenset(_KINDS)
_ASKED = {  # by its task, what is asked of a model besides forward
    "translate": ("loss", "start", "step", "room"),
    "lm": ("loss", "start", "step", "room"),
    "mlm": ("loss",),
}


def register(name: str, model: type[Any], config: type[Any], task: str = "translate") -> None:
    """Make a kind of model known as `model.kind = name`: training trains it, models.load() loads
    it, and the commands know it, in every program that has registered it.

    model: a Module, made of a config; config: a dataclass; task: "translate", "lm" or "mlm"; Kind
    says what each must have. A name of one's own may be registered again. TypeError or ValueError
    for what does not fit.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"register: name must be a word, not {shown(name)}")
    if name in _OURS:
        raise ValueError(f'register: "{name}" is a kind of model of the library; choose another')
    if task not in _ASKED:
        raise ValueError(f"register: no task {shown(task)}{near(task, _ASKED)}")
    if not isinstance(model, type) or not issubclass(model, Module):
        raise TypeError(f"register: model must be a class of Modules, not {shown(model)}")
    if not isinstance(config, type) or not is_dataclass(config):
        raise TypeError(f"register: config must be a dataclass, not {shown(config)}")
    if lost := [m for m in _ASKED[task] if not callable(getattr(model, m, None))]:
        base = "models.LanguageModel" if task == "lm" else "models.EncoderDecoder"
        raise TypeError(
            f'register: for task "{task}", {model.__name__} needs the method {lost[0]}: derive it '
            f"from {base}, which has it"
        )
    names = {field.name for field in fields(config)}
    if lost := [n for n in ("d_model", "max_len") if n not in names and not hasattr(config, n)]:
        raise TypeError(f"register: {config.__name__} has no {lost[0]}")
    _KINDS[name] = Kind(model, config, task)


def kind_of(name: object) -> Kind:
    """The kind of that name; UserError that lists the names if there is none."""
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"model.kind is {name!r}; it must be one of {', '.join(KINDS)}")
    return KINDS[name]


def configured(section: Mapping[str, Any], vocabulary: Vocabulary) -> Any:
    """The configuration of a model from a [model] section. UserError for a kind that is unknown,
    and for a setting that its kind has not."""
    settings = dict(section)
    name = settings.pop("kind", "transformer")
    kind = kind_of(name)
    for key in settings:
        if key not in kind.settings:
            raise unknown_setting(key, name)
    known = {field.name for field in fields(kind.config)}
    ids = {field: getattr(vocabulary, field) for field in Tokens._fields if field in known}
    if "mask_id" in ids and ids["mask_id"] is None:  # no text has it: one more than there are
        ids |= {"mask_id": vocabulary.vocab_size, "vocab_size": vocabulary.vocab_size + 1}
    return kind.config(**ids, **settings)


def unknown_setting(key: str, kind: str) -> UserError:
    """The error for a setting that a kind of model has not."""
    known = ", ".join(("kind", *KINDS[kind].settings))
    others = [name for name, other in KINDS.items() if key in other.settings]
    if others:
        of = " and ".join(others)
        return UserError(
            f"model.{key} is a setting of kind {of}, not of {kind} (the keys of model are {known})"
        )
    return UserError(f"model.{key} is unknown to this version (the keys of model are {known})")


def described(config: Any) -> dict[str, Any]:
    """The [model] section of a model with this configuration."""
    name = next(name for name, kind in KINDS.items() if kind.config is type(config))
    return {"kind": name, **{key: getattr(config, key) for key in KINDS[name].settings}}


def build(section: Mapping[str, Any], vocabulary: Vocabulary) -> Any:
    """A new model of the kind and sizes in a [model] section for a vocabulary."""
    config = configured(section, vocabulary)
    return kind_of(section.get("kind", "transformer")).model(config)
