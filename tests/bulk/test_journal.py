"""Outputs that can be gone on with: wherever a process stops, the same command makes the same file;
another command, another input or another process at work there is said in one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tinygrad_tx.bulk import Chunk, Result
from tinygrad_tx.bulk.chunks import Do
from tinygrad_tx.bulk.journal import Journal
from tinygrad_tx.bulk.run import Plan, run
from tinygrad_tx.errors import UserError

FACTS = {"beam": 4, "model": "f00d"}


@dataclass(frozen=True)
class Upper:
    """Lines in capitals. stop_at: a line at which the machine dies."""

    stop_at: str = ""

    def open(self) -> Do:
        def do(chunk: Chunk) -> Result:
            if self.stop_at in chunk.rows:
                raise KeyboardInterrupt
            return Result(
                "".join(f"{row.upper()}é\n" for row in chunk.rows), (len(chunk.rows), 0.5)
            )

        return do


def lines(n: int = 20) -> Iterator[str]:
    return (f"line {i}" for i in range(n))


def plan(file: Path, **facts: object) -> Plan:
    def write(text: str) -> None:
        raise AssertionError("nothing goes to standard output")

    return Plan(3, write, out=file, facts=lambda: {**FACTS, **facts})


EXPECTED = "".join(f"LINE {i}é\n" for i in range(20))


def begun(file: Path, stop_at: str = "line 10") -> None:
    with pytest.raises(KeyboardInterrupt, match="9 lines are done; the same command goes on after"):
        run(Upper(stop_at), lines(), plan(file))


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "out"
    begun(file)
    assert left(tmp_path) == ["out.part", "out.part.log"]
    assert (tmp_path / "out.part").read_text().splitlines() == EXPECTED.splitlines()[:9]
    seen: list[str] = []

    class Seen(Upper):
        def open(self) -> Do:
            do = super().open()
            return lambda chunk: [seen.extend(chunk.rows), do(chunk)][1]  # type: ignore[func-returns-value]

    assert run(Seen(), lines(), plan(file)) == (20, 3.5)
    assert seen == list(lines())[9:]
    assert left(tmp_path) == ["out"] and file.read_text() == EXPECTED


def test_what_a_killed_process_left_half_written_is_cut_off(tmp_path: Path) -> None:
    """At every byte of both files, in the order in which they are written."""
    file = tmp_path / "out"
    part, log = tmp_path / "out.part", tmp_path / "out.part.log"
    begun(file)
    text, log_lines = part.read_bytes(), log.read_bytes()
    ends = [json.loads(line)["size"] for line in log_lines.splitlines()[1:]]
    first = len(log_lines.split(b"\n")[0]) + 1
    for cut in (0, 1, first - 1, first, first + 1, len(log_lines) - 1, len(log_lines)):
        known = max(log_lines[:cut].count(b"\n") - 1, 0)
        for more in (b"", b"LINE 9", b"torn\xff"):
            part.write_bytes(text[: ([0, *ends])[known]] + more)
            log.write_bytes(log_lines[:cut])
            if cut < first and more:  # it may be anything
                said = refused(lambda: run(Upper(), lines(), plan(file)), file)
                assert "out.part is there, and nothing says what it is of" in said
                continue
            assert run(Upper(), lines(), plan(file))[0] == 20
            assert file.read_text() == EXPECTED and left(tmp_path) == ["out"]
            file.unlink()


def content(directory: Path) -> dict[str, bytes]:
    """All files that hold anything."""
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    return {name: data for name, data in found.items() if data}


def refused(make: Callable[[], object], file: Path) -> str:
    """What is said; what was begun stays."""
    before = content(file.parent)
    with pytest.raises(UserError) as error:
        make()
    assert content(file.parent) == before
    return str(error.value)


def test_another_command_or_input_does_not_go_on(tmp_path: Path) -> None:
    file = tmp_path / "out"
    begun(file)
    said = refused(lambda: run(Upper(), lines(), plan(file, beam=8)), file)
    assert "out.part was begun by another command: beam was 4, and is 8; give the same" in said
    assert "seed was None, and is 7" in refused(
        lambda: run(Upper(), lines(), plan(file, seed=7)), file
    )
    said = refused(lambda: run(Upper(), (row + "." for row in lines()), plan(file)), file)
    assert "the first 9 lines of the input are not those that" in said
    said = refused(lambda: run(Upper(), lines(4), plan(file)), file)
    assert "out.part is of 9 lines, and the input has 4" in said
    busy = pytest.raises(UserError, match=r"another process is writing .*out\.part$")
    with Journal(file, FACTS), busy:
        run(Upper(), lines(), plan(file))
    (tmp_path / "out.part").write_bytes(b"LINE")
    assert "is shorter than" in refused(lambda: run(Upper(), lines(), plan(file)), file)


def test_a_run_of_which_nothing_was_done_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("before\n")
    with pytest.raises(KeyboardInterrupt):
        run(Upper("line 0"), lines(), plan(file))
    assert left(tmp_path) == ["out"] and file.read_text() == "before\n"
    assert run(Upper(), lines(0), plan(file)) == ()
    assert left(tmp_path) == ["out"] and not file.read_bytes()


def test_what_was_killed_when_all_was_done_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two names: the log is there, and what it is of has become the output."""
    file = tmp_path / "out"

    class Kill(BaseException):
        pass

    def killed(path: Path, *given: object) -> None:
        raise Kill

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(Kill):
            run(Upper(), lines(), plan(file))
    assert left(tmp_path) == ["out", "out.part.log"] and file.read_text() == EXPECTED
    assert run(Upper(), lines(3), plan(file, beam=8))[0] == 3
    assert left(tmp_path) == ["out"] and file.read_text() == EXPECTED[: len("LINE 0é\n") * 3]


def test_a_log_of_nothing_is_not_in_the_way(tmp_path: Path) -> None:
    """That of a command that was killed before its first chunk was done."""
    (tmp_path / "out.part").touch()
    (tmp_path / "out.part.log").write_text('{"format": 1, "beam": 99}\n')
    assert run(Upper(), lines(), plan(tmp_path / "out"))[0] == 20
    assert left(tmp_path) == ["out"]


def test_a_refusal_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "out.part").write_text("of something else\n")
    assert "nothing says what it is of" in refused(
        lambda: run(Upper(), lines(), plan(tmp_path / "out")), tmp_path / "out"
    )
    (tmp_path / "other.part.log").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        run(Upper(), lines(), plan(tmp_path / "other"))
    assert left(tmp_path) == ["other.part.log", "out.part"]


@pytest.mark.skipif(os.name == "nt", reason="no open file is renamed there")
@pytest.mark.parametrize("end", ["finished", "nothing done"])
def test_the_next_command_waits_for_no_file_that_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Whoever opens FILE.part just before it is renamed, or removed, takes a new one."""
    file = tmp_path / "out"
    first = Journal(file, FACTS).__enter__()
    open_it, opened = Journal._open, []

    def late(self: Journal, path: Path) -> object:
        found = open_it(self, path)
        if not opened and end == "finished":
            first.add(Chunk(0, 1, ["a"], 0), Result("A\n"), ())
            first.finish()
        if not opened:
            first.__exit__()
        opened.append(path)
        return found

    monkeypatch.setattr(Journal, "_open", late)
    with Journal(file, FACTS) as second:
        second.add(Chunk(0, 1, ["b"], 0), Result("B\n"), ())
        assert left(tmp_path) == [*(["out"] * (end == "finished")), "out.part", "out.part.log"]
        second.finish()
    assert len(opened) == 3, "the first, a new one, the log"
    assert file.read_text() == "B\n" and left(tmp_path) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="no links without a privilege, no modes")
def test_links_lead_to_the_file_which_keeps_its_mode(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "private").touch(mode=0o600)
    (tmp_path / "out").symlink_to(there / "private")
    run(Upper(), lines(), plan(tmp_path / "out"))
    assert (tmp_path / "out").is_symlink() and left(there) == ["private"]
    assert (there / "private").read_text() == EXPECTED
    assert (there / "private").stat().st_mode & 0o777 == 0o600


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is no regular file"):
        run(Upper(), lines(), plan(tmp_path))
    with pytest.raises(UserError, match=r"cannot write .*part: No such file or directory"):
        run(Upper(), lines(), plan(tmp_path / "none" / "out"))


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before stays, and is gone on with when there is room."""
    file, synced = tmp_path / "out", 0

    def sync(handle: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 7:  # of the fourth chunk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(UserError, match=r"cannot write .*out\.part: No space left on device$"):
        run(Upper(), lines(), plan(file))
    assert left(tmp_path) == ["out.part", "out.part.log"]
    assert run(Upper(), lines(), plan(file))[0] == 20
    assert file.read_text() == EXPECTED


def test_a_log_that_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "out"
    begun(file)
    for content in (b"[]\n", b"no JSON\n"):
        (tmp_path / "out.part.log").write_bytes(content)
        assert "out.part.log is damaged; remove it and" in refused(
            lambda: run(Upper(), lines(), plan(file)), file
        )
