"""Configurations: presets hold the published numbers, files give back what was written, and each
way to get one wrong is answered by one line that names the field."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from tinygrad_tx.errors import UserError
from tinygrad_tx.models import Seq2SeqConfig
from tinygrad_tx.models.registry import KINDS
from tinygrad_tx.training.config import PRESETS, Config, apply_overrides, dump, load, preset
from tinygrad_tx.training.schema import DataConfig, ModelConfig, kinds, model_section

TINY = preset("tiny")


def message(*overrides: str) -> str:
    """The error of applying `overrides` to `tiny`."""
    with pytest.raises(UserError) as caught:
        apply_overrides(TINY, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_presets_of_the_paper() -> None:
    base, big = preset("base"), preset("big")
    for config, sizes, steps, averaged in (
        (base, (512, 2048, 8, 6, 6, 0.1), 100_000, 5),
        (big, (1024, 4096, 16, 6, 6, 0.3), 300_000, 20),
    ):
        m = config.model
        layers = (m.n_encoder_layers, m.n_decoder_layers)
        assert (m.d_model, m.d_ff, m.n_heads, *layers, m.dropout) == sizes
        assert (m.norm, m.tie_embeddings, m.positions) == ("post", True, "sinusoidal")
        o = config.optim
        assert (o.name, o.beta1, o.beta2, o.eps) == ("adam", 0.9, 0.98, 1e-9)
        assert (config.schedule.name, config.schedule.warmup_steps) == ("noam", 4000)
        assert (config.train.max_steps, config.train.average_last) == (steps, averaged)
        assert config.train.label_smoothing == 0.1
        assert (config.decode.beam_size, config.decode.length_penalty) == (4, 0.6)
        assert config.data.max_tokens * o.accumulate == 25_000
        assert config.tokenizer.vocab_size == 37_000


def test_the_model_section_is_the_models_configuration() -> None:
    """All of it but what the tokenizer knows, so that the trainer can hand the section over."""
    for kind, (_, its_class, _) in KINDS.items():
        mine, its = ({f.name for f in fields(c)} for c in (model_section(kind), its_class))
        of_vocabulary = {"vocab_size", "src_vocab_size", "pad_id", "bos_id", "eos_id", "mask_id"}
        of_vocabulary |= {"more_eos_ids"}
        assert "vocab_size" in its - mine <= of_vocabulary, kind
        assert mine - its == {"kind"}
    assert model_section("transformer") is ModelConfig
    sections = [config.model for config in PRESETS.values()]
    for name in kinds(ModelConfig)["activation"].choices:
        sections.append(apply_overrides(TINY, [f"model.activation={name}"]).model)
    for section in sections:
        made, said = asdict(section.of_model()), asdict(section)
        assert made | {k: v for k, v in said.items() if k != "kind"} == made


def test_the_kind_decides_what_there_is_to_set(tmp_path: Path) -> None:
    config = apply_overrides(TINY, ["model.cell=gru", "model.kind=seq2seq", "model.d_model=48"])
    wanted = Seq2SeqConfig(100, cell="gru", d_model=48)
    assert config.model.of_model() == wanted and config.data == TINY.data
    dump(config, tmp_path / "run.toml")
    assert load(tmp_path / "run.toml") == config
    (tmp_path / "short.toml").write_text("[model]\nkind = 'seq2seq'\nattention = 'none'\n")
    assert load(tmp_path / "short.toml").model.of_model() == Seq2SeqConfig(100, attention="none")
    again = apply_overrides(config, ["model.kind=transformer", "model.n_heads=2"])
    assert again.model == ModelConfig(n_heads=2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["model.kind=elmo"], "model.kind is 'elmo'; it must be one of transformer, seq2seq"),
        (["model.cell=gru"], "model.cell is a setting of kind seq2seq, not of transformer"),
        (["model.kind=seq2seq", "model.n_heads=2"], "model.n_heads is a setting of kind transf"),
        (["model.kind=seq2seq", "model.cel=gru"], "unknown key model.cel: did you mean model.cell"),
        (["model.kind=seq2seq", "model.cell=grue"], "model.cell = 'grue' must be one of rnn, lstm"),
        (["model.kind=seq2seq", "model.attention=x"], "one of none, bahdanau, luong"),
        (["model.kind=seq2seq", "model.score=x"], "one of dot, general, concat"),
        (["model.kind=seq2seq", "model.d_model=0"], "model.d_model = 0 must be positive"),
    ],
)
def test_settings_of_another_kind_are_refused_by_name(settings: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        apply_overrides(TINY, settings)


def test_only_tiny_has_data_of_its_own() -> None:
    TINY.require_data()
    for name in ("multi30k", "base", "big"):
        with pytest.raises(UserError, match=f"preset {name} has no data of its own: give --src"):
            preset(name).require_data()
    apply_overrides(preset("multi30k"), ["data.src=a", "data.tgt=b"]).require_data()
    apply_overrides(preset("multi30k"), ["data.tsv=a"]).require_data()


def test_unknown_preset_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r"'mutli30k': did you mean multi30k\? .*tiny, multi30k, "):
        preset("mutli30k")


@pytest.mark.parametrize("name", PRESETS)
def test_dump_and_load_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.toml"
    changed = apply_overrides(
        preset(name),
        [
            "data.tsv=/data/señales.tsv",
            "data.corpus=files",
            "optim.lr=3e-4",
            "schedule.name=cosine",
            "train.max_epochs=7",
            "train.compile=false",
        ],
    )
    for config in (preset(name), changed):
        dump(config, path)
        assert load(path) == config


def test_dump_is_complete_and_independent_of_the_preset(tmp_path: Path) -> None:
    """A value that differs from the preset is kept even where it is none or the default."""
    path = tmp_path / "config.toml"
    config = replace(Config(preset="big"), train=replace(TINY.train, max_steps=None, max_epochs=2))
    dump(config, path)
    assert load(path) == config
    assert 'max_steps = "none"' in path.read_text()


def test_a_short_file_builds_on_the_preset_it_names(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('preset = "multi30k"\n[optim]\naccumulate = 2\nweight_decay = 1\n')
    assert load(path) == apply_overrides(
        preset("multi30k"), ["optim.accumulate=2", "optim.weight_decay=1.0"]
    )
    path.write_text("[train]\nseed = 3\n")
    assert load(path) == apply_overrides(TINY, ["train.seed=3"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\nmax_stpes = 3", r"unknown key train.max_stpes: did you mean train.max_steps\?"),
        ("[modle]\nd_model = 3", r"unknown section modle: did you mean model\? .*data, tokenizer"),
        ("d_model = 3", r"unknown key 'd_model': did you mean model.d_model\?"),
        ("model = 3", "model is a section; set one of its keys: kind, d_model"),
        ("'model.d_model' = 3", r"model.d_model must be in a section: write \[model\]"),
        ("preset = 'huge'", "unknown preset 'huge' .the presets are tiny"),
        ("preset = 3", "preset is 3; it must be one of tiny"),
        ("[model]\nd_model = '128'", "model.d_model is '128'; it must be a whole number"),
        ("[model]\nd_model = 128.0", "model.d_model is 128.0; it must be a whole number"),
        ("[model]\nd_model = true", "model.d_model is True; it must be a whole number"),
        ("[model]\ndropout = true", "model.dropout is True; it must be a number"),
        ("[model]\ndropout = inf", "model.dropout is inf; it must be at least 0 and below 1"),
        ("[model]\nnorm = 'none'", "model.norm is 'none'; it must be one of post, pre"),
        ("[data]\nsrc = []", r"data.src is \[\]; it must be a text, or none"),
        ("[model\n", "is not TOML: .*line 1"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"run\.toml.*{says}"):
        load(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent\.toml: No such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(UserError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xf1")
    with pytest.raises(UserError, match=r"latin\.toml is not UTF-8 text: byte 2"):
        load(tmp_path / "latin.toml")


def test_overrides_are_typed_by_the_field() -> None:
    config = apply_overrides(
        TINY,
        [
            "train.max_steps=1_000_000",
            "train.valid_bleu=False",
            "model.dropout=.25",
            "optim.eps=1e-8",
            "optim.weight_decay=1",
            "data.corpus=files",
            "data.src = 12",
            "data.tgt=a=b",
            "train.max_epochs=none",
        ],
    )
    assert config.train.max_steps == 1_000_000
    assert config.train.valid_bleu is False
    assert (config.model.dropout, config.optim.eps) == (0.25, 1e-8)
    assert type(config.optim.weight_decay) is float
    assert (config.data.src, config.data.tgt) == ("12", "a=b")
    assert config.train.max_epochs is None
    assert config.preset == "tiny"


def test_overrides_are_checked_together_and_the_last_of_a_key_counts() -> None:
    config = apply_overrides(TINY, ["model.n_heads=3", "model.d_model=30", "model.d_model=48"])
    assert (config.model.d_model, config.model.n_heads) == (48, 3)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.max_steps", "'train.max_steps' sets nothing: write section.key=value"),
        ("train.max_steps=ten", "train.max_steps is 'ten'; it must be a whole number, or none"),
        ("train.seed=none", "train.seed is 'none'; it must be a whole number"),
        ("train.seed=1.5", "train.seed is '1.5'; it must be a whole number"),
        ("train.compile=1", "train.compile is '1'; it must be true or false"),
        ("optim.lr=fast", "optim.lr is 'fast'; it must be a number, or none"),
        ("optim.name=sgd", "optim.name is 'sgd'; it must be one of adam, adamw"),
        ("train.max_steps=0", "train.max_steps is 0; it must be at least 1"),
        ("train.patience=-1", "train.patience is -1; it must be at least 0"),
        ("model.dropout=1", "model.dropout is 1.0; it must be at least 0 and below 1"),
        ("model.dropout=nan", "model.dropout is nan; it must be at least 0 and below 1"),
        ("optim.eps=0", "optim.eps is 0.0; it must be above 0"),
        ("optim.clip_norm=inf", "optim.clip_norm is inf; it must be at least 0"),
    ],
)
def test_wrong_values(override: str, says: str) -> None:
    assert message(override) == says


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.n_heads=3"], "model.d_model is 128, which model.n_heads 3 does not divide"),
        (["data.src=a"], "data.src and data.tgt go together"),
        (["data.valid_tgt=a"], "data.valid_src and data.valid_tgt go together"),
        (["data.src=a", "data.tgt=b"], "data.corpus is builtin, but files are given"),
        (["data.src=a", "data.tgt=b", "data.tsv=c", "data.corpus=files"], "exclude each other"),
        (["decode.beam_size=1000000"], "at most 1024"),
        (["data.max_len=9000"], "data.max_tokens is 640, less than one sentence of data.max_len"),
        (["optim.lr=1e-3"], "optim.lr is 0.001, but schedule.name noam knows its own peak"),
        (["schedule.name=cosine"], "optim.lr is none, but schedule.name cosine needs a peak"),
        (["schedule.warmup_steps=0"], "schedule.name noam needs 1 or more"),
        (
            ["schedule.name=constant", "optim.lr=1e-4", "schedule.min_lr=1e-3"],
            "schedule.min_lr is 0.001, above optim.lr 0.0001",
        ),
        (
            ["schedule.name=linear", "optim.lr=1e-4", "train.max_steps=none", "train.max_epochs=1"],
            "schedule.name linear must know the last step",
        ),
        (["train.max_steps=none"], "train.max_epochs and train.max_minutes are all none"),
        (["train.max_minutes=0"], "train.max_minutes is 0.0; it must be above 0"),
        (["train.average_last=9"], "train.average_last is 9, but train.keep_last keeps only 5"),
        (["model.positions=learned", "model.max_len=39"], "data.max_len is 40, but model.max_len"),
        (
            ["model.kind=convs2s", "model.max_len=39", "data.max_len=39"],
            "data.max_len is 39, but model.max_len has only 39 positions to learn, of which",
        ),
    ],
)
def test_values_that_contradict_each_other(overrides: list[str], says: str) -> None:
    assert says in message(*overrides)


def test_unknown_keys_name_the_nearest() -> None:
    assert "did you mean model.n_heads?" in message("model.nheads=8")
    assert "did you mean optim.clip_norm?" in message("clip_norm=1")
    assert "did you mean schedule?" in message("shedule.name=noam")
    nowhere = message("decode.qqqq=1")
    assert "did you mean" not in nowhere
    assert "(the keys of decode are beam_size, length_penalty, " in nowhere


def test_sections_made_in_python_are_checked_too() -> None:
    with pytest.raises(UserError, match=r"model\.dropout is 2"):
        ModelConfig(dropout=2)
    assert type(ModelConfig(dropout=0).dropout) is float
    with pytest.raises(UserError, match=r"data\.max_len is -1; it must be at least 1"):
        replace(DataConfig(), max_len=-1)
