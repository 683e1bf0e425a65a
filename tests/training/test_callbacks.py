"""Callbacks of a run: when they are called, with what, and what happens when one fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import Watch, outcome, rows, small

from tinygrad_tx.errors import UserError
from tinygrad_tx.training import Callback, Event, Stopped, train


class Noting(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Event]] = []

    def on_step(self, event: Event) -> None:
        self.seen.append(("step", event))

    def on_validation(self, event: Event) -> None:
        self.seen.append(("validation", event))

    def on_checkpoint(self, event: Event) -> None:
        assert event.path is not None and event.path.exists()
        self.seen.append(("checkpoint", event))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without callbacks."""
    run = tmp_path_factory.mktemp("plain") / "run"
    train(small(), run, progress=Watch())
    return run


def test_each_moment(tmp_path: Path) -> None:
    noting = Noting()
    train(small(), tmp_path / "run", progress=Watch(), callbacks=[noting])
    at = {m: [e.step for what, e in noting.seen if what == m] for m, _ in noting.seen}
    assert at["step"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert at["validation"] == [4, 8]
    assert at["checkpoint"] == [3, 6, 8]
    first = noting.seen[0][1]
    assert first.values.keys() == {"loss", "lr", "grad_norm", "tokens", "finite"}
    assert first.run == tmp_path / "run" and first.model is noting.seen[-1][1].model
    validation = next(e for what, e in noting.seen if what == "validation")
    row = next(r for r in rows(tmp_path / "run") if r["step"] == 4 and "valid_loss" in r)
    assert validation.values["valid_loss"] == row["valid_loss"]


def test_they_change_nothing(plain: Path, tmp_path: Path) -> None:
    def kept(run: Path) -> list[dict[str, Any]]:
        timed = ("seconds", "tokens_per_s")
        return [{k: v for k, v in row.items() if k not in timed} for row in rows(run)]

    train(small(), tmp_path / "with", progress=Watch(), callbacks=[Noting()])
    assert kept(tmp_path / "with") == kept(plain)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("moment", "step"), [("on_step", 5), ("on_validation", 4), ("on_checkpoint", 3)]
)
def test_what_one_raises_ends_the_run_and_names_it(
    moment: str, step: int, plain: Path, tmp_path: Path
) -> None:
    class Failing:
        pass

    def fail(self: Any, event: Event) -> None:
        if event.step == step:
            raise KeyError("no such\nthing")

    setattr(Failing, moment, fail)
    run = tmp_path / "run"
    with pytest.raises(UserError) as found:
        train(small(), run, progress=Watch(), callbacks=[Failing()])
    said = str(found.value)
    assert said.startswith(f"callback Failing.{moment} at step {step}: KeyError: 'no such")
    assert f"step {step} is saved; go on by: tinygrad-tx train --resume --out " in said
    assert "\n" not in said and isinstance(found.value.__cause__, KeyError)
    # Nothing is lost: it goes on where it was, and ends as one that ran through.
    train(small(), run, resume=True, progress=Watch())
    assert outcome(run) == outcome(plain)


def test_one_may_ask_to_stop(tmp_path: Path) -> None:
    class Enough:
        def on_validation(self, event: Event) -> None:
            raise Stopped

    with pytest.raises(Stopped, match="step 4 is saved"):
        train(small(), tmp_path / "run", progress=Watch(), callbacks=[Enough()])


def test_what_is_no_callback(tmp_path: Path) -> None:
    class Typo:
        def on_steps(self, event: Event) -> None: ...

    for given, text in (
        ([Typo()], r"callback Typo has on_steps; did you mean on_step\?"),
        ([print], "print is no callback: it has none of on_step, on_validation, on_checkpoint"),
        ([Noting], r"callback Noting is a class: give an object of it, Noting\(\)"),
        (Noting(), "callbacks must be a list, not a Noting"),
    ):
        with pytest.raises(TypeError, match=text):
            train(small(), tmp_path / "run", callbacks=given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
