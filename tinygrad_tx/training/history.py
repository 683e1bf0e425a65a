"""The history of a run, as far as its directory has it. In: the directory. Out: configuration,
rows, samples and sittings, with a note on what is damaged. Read by the report and by the commands
`report`, `plot` and `info`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..viz.curves import Panel, panels
from . import lines, log
from .profile import Profile
from .profile import load as load_profile
from .run import RunDirectory
from .schema import Config

Line = dict[str, Any]


@dataclass(frozen=True)
class History:
    """rows: of metrics.jsonl. samples: a line for each validation. sittings: a line for each time
    that the run was at work. notes: what is damaged and left out, a sentence each."""

    run: RunDirectory
    config: Config
    rows: list[Line]
    samples: list[Line]
    sittings: list[Line]
    profile: Profile | None
    notes: list[str]

    @classmethod
    def of(cls, run: RunDirectory) -> History:
        """UserError if the directory holds no run, or a file of it cannot be read."""
        config = run.config()
        rows, bad_rows = log.examine(run.metrics)
        samples, bad_samples = lines.examine(run.samples)
        sittings, bad_sittings = lines.examine(run.sittings)
        whole = [line for line in samples if _is_seen(line)]
        notes = [
            f"{path.name}, {_listed(numbers)}: damaged, and left out here"
            for path, numbers in (
                (run.metrics, bad_rows),
                (run.samples, bad_samples),
                (run.sittings, bad_sittings),
            )
            if numbers
        ]
        if lost := len(samples) - len(whole):
            notes.append(f"{run.samples.name}: {lost} lines are not as they were written: left out")
        sittings = [s for s in sittings if _is_sitting(s)]
        return cls(run, config, rows, whole, sittings, load_profile(run.profile), notes)

    @property
    def name(self) -> str:
        return self.run.root.resolve().name

    def panels(self) -> list[Panel]:
        """Its curves."""
        return panels(self.rows, self.config.train.label_smoothing)


def names(histories: list[History]) -> list[str]:
    """Of runs that are shown beside each other: that of the directory, with as many of those above
    it as it takes to tell them apart."""
    paths = [history.run.root.resolve().parts for history in histories]
    depth, longest = 1, max(map(len, paths))
    while len({path[-depth:] for path in paths}) < len(set(paths)) and depth < longest:
        depth += 1
    return [str(Path(*path[-depth:])) for path in paths]


def facts(config: Config) -> Iterator[tuple[str, str]]:
    """What a run is, in words: names, and what they are."""
    data, o, s, t = config.data, config.optim, config.schedule, config.train
    source = data.text or data.tsv or data.src
    yield "preset", config.preset
    if t.init is not None:
        yield "begun with", t.init
    if source is None:
        yield "data", f"built-in corpus, {data.corpus_size:,} pairs"
    else:
        yield "data", source if data.tgt is None else f"{source} -> {data.tgt}"
    yield "tokenizer", f"{config.tokenizer.kind}, at most {config.tokenizer.vocab_size:,} pieces"
    yield "model", f"{config.model.kind}, {config.model.of_model().describe()}"
    rate = f"scale {s.scale}" if o.lr is None else f"lr {o.lr}"
    yield "optimizer", f"{o.name}, {s.name}, {rate}, warmup {s.warmup_steps}"
    limits = {"steps": t.max_steps, "epochs": t.max_epochs, "minutes": t.max_minutes}
    yield "until", " or ".join(f"{n:,} {what}" for what, n in limits.items() if n is not None)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"{'line' if len(numbers) == 1 else 'lines'} {shown}"


def _is_seen(line: Mapping[str, Any]) -> bool:
    """True for a line as the recorder writes it: whatever shows it can rely on that."""
    kinds = [line.get(name) for name in ("samples", "best", "worst")]
    return all(isinstance(kind, list) and all(map(_is_sample, kind)) for kind in kinds)


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, dict):
        return False
    texts = [sample.get("source"), sample.get("output"), sample.get("reference", "")]
    chrf = sample.get("chrf", 0.0)
    return (
        all(isinstance(text, str) for text in texts)
        and type(chrf) in (int, float)
        and ("attention" not in sample or _is_attention(sample["attention"]))
    )


def _is_attention(found: Any) -> bool:
    try:
        queries, keys, layers = found["queries"], found["keys"], found["layers"]
        return (
            all(isinstance(text, str) for text in (*queries, *keys))
            and bool(layers)
            and all(len(layer) == len(queries) for layer in layers.values())
            and all(len(row) == len(keys) for layer in layers.values() for row in layer)
            and all(type(w) is int for layer in layers.values() for row in layer for w in row)
        )
    except (TypeError, KeyError, AttributeError):
        return False


def _is_sitting(line: Mapping[str, Any]) -> bool:
    tables = [line.get("machine"), line.get("versions")]
    return all(isinstance(line.get(key), str) for key in ("date", "command")) and all(
        isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
        for table in tables
    )
