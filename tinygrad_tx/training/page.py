"""report.html: how a run goes or went, for a browser. In: a run directory. Out: a page that needs
nothing else (pages.py; its script is viz/report.js). Written by the recorder and by
`tinygrad-tx report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..pages import page, save
from ..viz.curves import thinned
from .history import History, facts
from .profile import facts as measured
from .progress import describe
from .run import RunDirectory

_POINTS = 1000  # of a curve
_VALIDATIONS = 60  # whose samples are shown
_MAPS = 12  # validations whose attention is


def write(run: RunDirectory, path: Path | None = None) -> Path:
    """Write the page of a run, whole or not at all: to `path`, or as report.html into the run.
    UserError if the directory holds no run, or the page cannot be written."""
    history = History.of(run)
    text = page(f"{history.name}: report of a run", ["report.css", "report.js"], content(history))
    return save(path or run.page, text)


def content(history: History) -> dict[str, Any]:
    """All that the page shows."""
    return {
        "name": history.name,
        "status": _status(history),
        "facts": [*facts(history.config), *_took(history), *_scores(history)],
        "panels": [
            {
                "title": panel.title,
                "curves": [
                    {
                        "name": curve.name,
                        "style": curve.style,
                        "points": thinned([*zip(curve.steps, curve.values, strict=True)], _POINTS),
                    }
                    for curve in panel.curves
                ],
            }
            for panel in history.panels()
        ],
        "validations": _validations(history),
        "sittings": history.sittings,
        "config": _config(history),
        "notes": history.notes,
    }


def _status(history: History) -> str:
    step = max((row["step"] for row in history.rows), default=0)
    if any(str(row.get("of", "")).startswith("held-out") for row in history.rows):
        return f"finished after step {step:,}"
    last = history.config.train.max_steps
    return f"at step {step:,}" + (f" of {last:,}" if last is not None else "")


def _took(history: History) -> Iterator[tuple[str, str]]:
    """The time and memory of its last sitting."""
    if history.profile is not None:
        yield from measured(history.profile)


def _scores(history: History) -> list[tuple[str, str]]:
    """The best validation, and the end."""
    validated = [r for r in history.rows if r.get("valid_loss") is not None and "of" not in r]
    found = []
    if validated:
        best = min(validated, key=lambda row: row["valid_loss"])
        found.append(("least loss", describe(best)))
    if bleu := [row for row in validated if row.get("bleu") is not None]:
        found.append(("best BLEU", describe(max(bleu, key=lambda row: row["bleu"]))))
    found += [(str(row["of"]), describe(row)) for row in history.rows if "of" in row]
    return found


def _validations(history: History) -> list[dict[str, Any]]:
    """The samples of validations, spread evenly if there are many; attention of fewer still."""
    lines = thinned(history.samples, _VALIDATIONS)
    mapped = {line["step"] for line in thinned(lines, _MAPS)}
    return [
        {
            **line,
            "samples": [
                sample if line["step"] in mapped else {**sample, "attention": None}
                for sample in line["samples"]
            ],
        }
        for line in lines
    ]


def _config(history: History) -> str:
    file = history.run.config_file
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
