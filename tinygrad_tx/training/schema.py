"""The description of a run: one frozen dataclass per section of config.toml, and `Config` of them
all. In: plain values. Out: checked, immutable descriptions. Made by config.py, read by the trainer.

Every field says in its type what it accepts; a section checks its fields when it is made, so no
object of these classes holds a value that cannot be trained with. In fields that count or measure
something that can be left out, 0 means off; None (in TOML and on the command line: "none") means
that there is no such thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..autocast import Precision
from ..data.batches import round_up
from ..errors import UserError, brief
from ..models import registry


@dataclass(frozen=True)
class Rule:
    """A range of numbers: `holds` decides, `says` completes the sentence 'it must be ...'."""

    says: str
    holds: Callable[[float], bool]


Count = Annotated[int, Rule("at least 1", lambda v: v >= 1)]
Size = Annotated[int, Rule(f"at least 1 and at most {2**20}", lambda v: 1 <= v <= 2**20)]
Beam = Annotated[int, Rule("at least 1 and at most 1024", lambda v: 1 <= v <= 1024)]
CountOrOff = Annotated[int, Rule("at least 0", lambda v: v >= 0)]
SizeOrOff = Annotated[int, Rule(f"at least 0 and at most {2**20}", lambda v: 0 <= v <= 2**20)]
Positive = Annotated[float, Rule("above 0", lambda v: 0 < v < math.inf)]
PositiveOrOff = Annotated[float, Rule("at least 0", lambda v: 0 <= v < math.inf)]
Rate = Annotated[float, Rule("at least 0 and below 1", lambda v: 0 <= v < 1)]


@dataclass(frozen=True)
class Kind:
    """The values that one field accepts, read off its annotation."""

    type: type
    optional: bool = False
    choices: tuple[str, ...] = ()
    rule: Rule | None = None

    @property
    def says(self) -> str:
        """The expected type in words, for error messages."""
        names = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "a text",
            dict: "a table",
        }
        said = "one of " + ", ".join(self.choices) if self.choices else names[self.type]
        return f"{said}, or none" if self.optional else said

    def check(self, name: str, value: object) -> object:
        """`value`, a whole number made a float where one is due; UserError if it does not fit."""
        if value is None and self.optional:
            return None
        if self.type is float and type(value) is int and abs(value) <= _LARGEST:
            value = float(value)
        if type(value) is not self.type or (self.choices and value not in self.choices):
            raise UserError(f"{name} is {_shown(value)}; it must be {self.says}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise UserError(f"{name} is {_shown(value)}; it must be at most {_LARGEST}")
        if isinstance(value, str) and (fault := _fault(value)):
            raise UserError(f"{name} is {_shown(value)}; {fault}")
        if self.rule is not None and isinstance(value, int | float) and not self.rule.holds(value):
            raise UserError(f"{name} is {value}; it must be {self.rule.says}")
        return value


_LARGEST = 2**63 - 1  # whole number


def _shown(value: object) -> str:
    return "'none'" if value is None else brief(value)


def _fault(text: str) -> str | None:
    """The fault of a file's name, in words; None if it has none."""
    if not text:
        return "the name is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it must be text in UTF-8"
    return "a name cannot hold the character NUL" if "\0" in text else None


def _kind(hint: Any) -> Kind:
    """Reads an annotation: bool, int, float, str, a Mapping, a Literal of texts or an Annotated
    one, or any of these `| None`."""
    arms = [arm for arm in get_args(hint) if arm is not NoneType]
    if get_origin(hint) is Mapping:
        return Kind(dict)
    if get_origin(hint) is Literal:
        return Kind(str, choices=tuple(arms))
    if get_origin(hint) is Annotated:
        return Kind(arms[0], rule=arms[1])
    if arms:
        inner = _kind(arms[0])
        return Kind(inner.type, True, inner.choices, inner.rule)
    return Kind(hint)


def kinds(section: type[Section]) -> dict[str, Kind]:
    """The kind of value that each field of a section's class accepts, in the order of the
    fields."""
    hints = get_type_hints(section, include_extras=True)
    return {f.name: _kind(hints[f.name]) for f in fields(section)}


@dataclass(frozen=True)
class Section:
    """The common part of all sections: the fields are checked against their annotations."""

    def __post_init__(self) -> None:
        name = type(self).__name__.removesuffix("Config").lower()
        for key, kind in kinds(type(self)).items():
            value = kind.check(f"{name}.{key}", getattr(self, key))
            object.__setattr__(self, key, value)  # the way to set a field while it is being made


@dataclass(frozen=True)
class DataConfig(Section):
    """What is learnt from, and how it is put into batches: sentence pairs, by models that
    translate; running text, by models of language. Paths are of files, plain or .gz: src and tgt
    have one sentence a line; a tsv has both sides of a pair, on a line or in columns of a .jsonl,
    .csv or .parquet; a text is taken as it is, or has a document in each record of such a
    table."""

    corpus: Literal["builtin", "files"] = "builtin"
    corpus_size: Count = 20_000  # built-in corpus: pairs to train on
    valid_size: Count = 500  # held-out pairs, of the built-in corpus or split off the files
    src: str | None = None
    tgt: str | None = None
    tsv: str | None = None
    valid_src: str | None = None
    valid_tgt: str | None = None
    valid_tsv: str | None = None
    text: str | None = None
    valid_text: str | None = None  # by default the last tenth of the text is held out
    valid_tokens: CountOrOff = 2**20  # of a held-out text that are measured each time; 0: all
    columns: str | None = None  # NAME of a text's, or SOURCE,TARGET, where there are several
    # Tokens on either side of a pair; longer ones are left out of training. Of a text, in a window.
    max_len: Count = 100
    max_tokens: Count = 2048  # in a batch, on its longer side, padding included

    def __post_init__(self) -> None:
        super().__post_init__()
        for prefix, src, tgt, tsv in (
            ("", self.src, self.tgt, self.tsv),
            ("valid_", self.valid_src, self.valid_tgt, self.valid_tsv),
        ):
            names = f"data.{prefix}src and data.{prefix}tgt"
            if (src is None) != (tgt is None):
                raise UserError(f"{names} go together: give both or neither")
            if src is not None and tsv is not None:
                raise UserError(f"{names} and data.{prefix}tsv exclude each other: give one kind")
            if self.corpus == "builtin" and (src or tsv or self.text) is not None:
                raise UserError("data.corpus is builtin, but files are given; set it to files")
        if self.text is not None and (self.src or self.tsv) is not None:
            raise UserError("data.text and sentence pairs exclude each other: give one kind")
        if self.columns is not None and not all(name.strip() for name in self.column_names):
            raise UserError(f"data.columns is {self.columns!r}; it must be NAME or SOURCE,TARGET")
        if self.max_tokens < self.max_len:
            raise UserError(
                f"data.max_tokens is {self.max_tokens}, less than one sentence of data.max_len "
                f"{self.max_len}; raise the one or lower the other"
            )

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names in `columns`."""
        return () if self.columns is None else tuple(self.columns.split(","))


@dataclass(frozen=True)
class TokenizerConfig(Section):
    """The vocabulary, one for both languages, learnt from what is trained on; or, of the kind
    "pretrained", that of a model which the run begins with, whose ids are as they are there."""

    kind: Literal["bpe", "word", "char", "pretrained"] = "bpe"
    vocab_size: Count = 2000  # at most
    lowercase: bool = False
    min_frequency: Count = 1  # of a word or of a pair that BPE merges
    pad_id: CountOrOff | None = None  # of a pretrained one, as are the next three
    bos_id: CountOrOff | None = None
    eos_id: CountOrOff | None = None
    mask_id: CountOrOff | None = None


@dataclass(frozen=True)
class ModelSection(Section):
    """The kind of model, and settings in the names of its configuration class; sizes of
    vocabularies and special ids are the tokenizer's. model_section() has the class of each kind."""

    kind: str = "transformer"

    @property
    def task(self) -> str:
        """What such a model is trained to do."""
        return registry.kind_of(self.kind).task

    def of_model(self) -> Any:
        """The configuration of the model itself, for some vocabulary."""
        return registry.configured(asdict(self), registry.Tokens())

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.of_model()
        except UserError as error:
            raise UserError(f"model.{error}") from error


@dataclass(frozen=True)
class ModelConfig(ModelSection):
    """The Transformer, which has limits and defaults of its own here."""

    kind: Literal["transformer"] = "transformer"
    d_model: Size = 128
    n_heads: Size = 4
    d_ff: Size = 512
    n_encoder_layers: Size = 2
    n_decoder_layers: Size = 2
    dropout: Rate = 0.1
    attention_dropout: Rate = 0.0
    activation_dropout: Rate = 0.0
    norm: Literal["post", "pre"] = "post"
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu"
    attention_bias: bool = False
    tie_embeddings: bool = True
    output_bias: bool = False
    positions: Literal["sinusoidal", "sinusoidal_halves", "learned"] = "sinusoidal"
    max_len: Size = 1024  # positions that are learned; sinusoids know no longest length
    layer_norm_eps: Positive = 1e-5
    tensor_parallel: bool = False  # ranks share feed-forwards and vocabulary

    def __post_init__(self) -> None:
        Section.__post_init__(self)
        if self.d_model % self.n_heads:
            raise UserError(
                f"model.d_model is {self.d_model}, which model.n_heads {self.n_heads} does not "
                "divide; each head takes an equal part"
            )


def shares_a_model(section: ModelSection) -> bool:
    """True if several ranks would share one model: model.tensor_parallel, of kinds that can."""
    return bool(getattr(section, "tensor_parallel", False))


def model_section(kind: str) -> type[ModelSection]:
    """The class of [model] for a kind: the fields and defaults of its model's configuration."""
    return ModelConfig if kind == "transformer" else _section_of(kind, registry.kind_of(kind))


@cache
def _section_of(kind: str, found: registry.Kind) -> type[ModelSection]:
    hints, own = get_type_hints(found.config), {f.name: f for f in fields(found.config)}
    settings = [(key, hints[key], field(default=own[key].default)) for key in found.settings]
    of_kind = ("kind", Literal[kind], field(default=kind))
    made: type[ModelSection] = make_dataclass(
        ModelConfig.__name__, [of_kind, *settings], bases=(ModelSection,), frozen=True
    )
    return made


@dataclass(frozen=True)
class OptimConfig(Section):
    """The optimizer's step."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Positive | None = None  # at the peak of the schedule; none for noam, which knows its own
    beta1: Rate = 0.9
    beta2: Rate = 0.98
    eps: Positive = 1e-9
    weight_decay: PositiveOrOff = 0.0
    decay_vectors: bool = True  # biases and the weights of norms decay, too
    clip_norm: PositiveOrOff = 1.0  # the gradient's greatest norm
    accumulate: Size = 1  # batches per step
    ema_decay: Rate = 0.0  # of the weights' moving average
    shard: bool = False  # each of several ranks keeps the moments of its part of the weights
    max_bad_steps: Count = 20  # steps in a row with a gradient that is not finite: then it stops


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """The learning rate over the steps."""

    name: Literal["noam", "inverse_sqrt", "cosine", "linear", "constant"] = "noam"
    warmup_steps: CountOrOff = 4000  # cosine, linear: at most half of a run that is no longer
    scale: Positive = 1.0  # noam: a factor on the paper's rate
    min_lr: PositiveOrOff = 0.0  # cosine, linear: where they end


@dataclass(frozen=True)
class TrainConfig(Section):
    """The loop: its length, its intervals, and the checkpoints kept."""

    seed: CountOrOff = 0
    max_steps: Count | None = 1000
    max_epochs: Count | None = None
    max_minutes: Positive | None = None  # of steps, validations and checkpoints, all sittings
    label_smoothing: Rate = 0.1
    log_every: Count = 50  # steps, as are the next two
    valid_every: Count = 250
    checkpoint_every: Count = 250
    keep_last: Count = 3  # checkpoints
    patience: CountOrOff = 0  # validations without a better score before it stops
    average_last: CountOrOff = 0  # checkpoints averaged into the final model
    compile: bool = True
    precision: Precision = "fp32"  # of products; weights, sums and norms are float32 in any
    valid_bleu: bool = True
    valid_sentences: Count = 200  # that are translated for BLEU
    samples: CountOrOff = 5  # sentences that report.html shows as each validation has found them
    tensorboard: bool = False  # event files, too
    init: str | None = None  # the directory of a run, or of a pretrained model, to begin with

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise UserError(
                "train.max_steps, train.max_epochs and train.max_minutes are all none; set one of "
                "them"
            )
        if self.average_last > self.keep_last:
            raise UserError(
                f"train.average_last is {self.average_last}, but train.keep_last keeps only "
                f"{self.keep_last} checkpoints; raise train.keep_last"
            )


@dataclass(frozen=True)
class DecodeConfig(Section):
    """The search of `translate` and of the final evaluation, unless told otherwise."""

    beam_size: Beam = 1
    length_penalty: PositiveOrOff = 0.0
    max_extra_tokens: SizeOrOff = 50  # beyond the source's length
    batch_size: Count = 32  # sentences


@dataclass(frozen=True)
class Config:
    """A whole run. `preset` is the name of the preset that it began with."""

    preset: str = "tiny"
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelSection = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    def __post_init__(self) -> None:
        schedule, lr = self.schedule.name, self.optim.lr
        if self.optim.shard and shares_a_model(self.model):
            raise UserError(
                "optim.shard and model.tensor_parallel are both true: ranks that share a model "
                "have the moments of their parts already; set one of them"
            )
        if schedule == "noam" and lr is not None:
            raise UserError(
                f"optim.lr is {lr}, but schedule.name noam knows its own peak; set schedule.scale "
                "instead, or choose another schedule"
            )
        if schedule != "noam" and lr is None:
            raise UserError(
                f"optim.lr is none, but schedule.name {schedule} needs a peak; set optim.lr"
            )
        if lr is not None and self.schedule.min_lr > lr:
            raise UserError(f"schedule.min_lr is {self.schedule.min_lr}, above optim.lr {lr}")
        if schedule in ("noam", "inverse_sqrt") and self.schedule.warmup_steps == 0:
            raise UserError(f"schedule.warmup_steps is 0; schedule.name {schedule} needs 1 or more")
        if schedule in ("cosine", "linear") and self.train.max_steps is None:
            raise UserError(
                f"train.max_steps is none, but schedule.name {schedule} must know the last step"
            )
        positions, even = self.model.of_model().n_positions, self.model.task == "translate"
        longest = round_up(self.data.max_len) if even else self.data.max_len
        if positions is not None and longest > positions:
            limit = "block_size" if self.model.kind == "gpt" else "max_len"
            of = f" to learn, of which batches use an even number; raise model.{limit}"
            raise UserError(
                f"data.max_len is {self.data.max_len}, but model.{limit} has only {positions} "
                f"positions{of if even else '; lower data.max_len'}"
            )

    def require_data(self) -> None:
        """UserError unless there is what the model is to be trained on: presets for files come
        without any."""
        data, task, kind = self.data, self.model.task, self.model.kind
        if task == "translate" and data.text is not None:
            raise UserError(
                f"data.text is for models of language, and a {kind} translates: give --src FILE "
                "--tgt FILE, or --tsv FILE; or --task lm"
            )
        if task != "translate" and (data.src or data.tsv) is not None:
            raise UserError(
                f"sentence pairs are for models that translate, and a {kind} does not: give "
                "--text FILE"
            )
        wanted = 1 if data.text is not None else 2
        if len(data.column_names) not in (0, wanted):
            names = "NAME" if wanted == 1 else "SOURCE,TARGET"
            raise UserError(f"data.columns is {data.columns!r}; it must be {names}")
        given = data.text if task != "translate" else data.src or data.tsv or data.corpus
        if given in (None, "files"):
            files = "--text FILE" if task != "translate" else "--src FILE --tgt FILE, or --tsv FILE"
            raise UserError(f"preset {self.preset} has no data of its own: give {files}")
