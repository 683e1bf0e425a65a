"""What a user sees of bulk work: lines now and then, or a bar; what fails ends nothing."""

from __future__ import annotations

import io
import os
import re

import pytest

from tinygrad_tx.bulk import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, total: int | None) -> str:
    show = progress.for_stream(total, stream=stream)
    show.begin(1000, 5000)
    show.add(500, 2500)
    show.say("a worker died")
    show.add(500, 2500)
    show.end()
    show.close()
    return stream.getvalue()


def test_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown(io.StringIO(), 10_000).splitlines()
    assert found[0] == "a worker died" and len(found) == 2
    assert re.fullmatch(r"2,000 lines, 0:0\d, [\d,.]+ lines/s", found[1])
    monkeypatch.setattr(progress, "_OFTEN", 0.0)
    first, _, second, _ = shown(io.StringIO(), 10_000).splitlines()
    assert first.startswith("1,500 lines (75%), ") and second.startswith("2,000 lines (100%), ")
    assert "%" not in shown(io.StringIO(), None)


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    for total in (10_000, None):
        found = shown(Terminal(), total)
        assert "a worker died" in found and "2,000 lines  " in found
        assert ("100%" in found) == (total is not None)
    monkeypatch.setitem(os.environ, "TERM", "dumb")
    assert len(shown(Terminal(), 10_000).splitlines()) == 2


def test_a_stream_that_cannot_be_written() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    assert shown(Full(), 10_000) == ""
