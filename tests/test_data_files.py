"""data/files.py: what is read, and the one line that users see when it cannot be."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_tx.data import read_lines, read_pairs, read_tsv
from tinygrad_tx.errors import UserError

Write = Callable[[str, bytes], Path]

# None of these ends a line, though str.splitlines would say so.
NO_ENDS = "a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg\rh"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def message(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\n\r\ntwo\r\n", ["one", "", "two"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        (" eñe \t·\n".encode(), [" eñe \t·"]),
        # None of these ends a line, though str.splitlines would say so.
        (
            "a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg\rh\n".encode(),
            ["a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg\rh"],
        ),
    ],
)
def test_lines(write: Write, data: bytes, lines: list[str]) -> None:
    assert list(read_lines(write("plain.txt", data))) == lines
    assert list(read_lines(str(write("packed.txt.gz", gzip.compress(data))))) == lines
    assert list(read_lines(write("packed.txt", gzip.compress(data)))) == lines


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("uno\r\ndos\x85\n".encode())))
    assert list(read_lines("-")) == ["uno", "dos\x85"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"uno\n\xff\n")))
    with pytest.raises(UserError) as error:
        list(read_lines("-"))
    assert message(error).startswith("standard input, line 2: not valid UTF-8")


def test_files_are_streamed(write: Write) -> None:
    """The first lines are there although the last cannot be read."""
    lines = read_lines(write("a.txt", b"one\n" * 3 + b"\xff\n"))
    assert [next(lines) for _ in range(3)] == ["one"] * 3
    with pytest.raises(UserError, match="line 4"):
        next(lines)


def test_a_very_long_line(write: Write) -> None:
    long = "palabra " * 12_500
    path = write("long.txt", (long + "\n").encode())
    assert list(read_pairs(path, path)) == [(long, long)]


def test_pairs(write: Write) -> None:
    source = write("a.de.gz", gzip.compress(b"eins\n\nzwei\x0c drei\n"))
    target = write("a.en", b"one\nblank\ntwo\xe2\x80\xa8three\n")
    expected = [("eins", "one"), ("", "blank"), ("zwei\x0c drei", "two\u2028three")]
    assert list(read_pairs(source, target)) == expected


@pytest.mark.parametrize(("one", "other"), [(3, 5), (5, 3), (1, 2)])
def test_unequal_line_counts(write: Write, one: int, other: int) -> None:
    source, target = write("a.de", b"x\n" * one), write("a.en", b"y\n" * other)
    pairs = read_pairs(source, target)
    assert [next(pairs) for _ in range(min(one, other))] == [("x", "y")] * min(one, other)
    with pytest.raises(UserError) as error:
        next(pairs)
    assert f"a.de has {one} lines" in message(error)
    assert f"a.en has {other}" in message(error)


def test_empty_files(write: Write) -> None:
    full, empty = write("full.txt", b"x\n"), write("empty.txt", b"")
    for pairs in (
        read_pairs(full, empty),
        read_pairs(empty, full),
        read_pairs(empty, empty),
        read_tsv(empty),
        read_tsv(write("empty.gz", b"")),
    ):
        with pytest.raises(UserError) as error:
            list(pairs)
        assert "is empty" in message(error)
        assert "empty." in message(error)


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    good = write("good.txt", b"x\n")
    packed = gzip.compress(b"line\n" * 1000)
    cases = {
        tmp_path / "missing.txt": "No such file",
        tmp_path: "is a directory",
        good / "below": "Not a directory",
        write("fake.gz", b"plain text\n"): "gzip data are damaged",
        write("cut.gz", packed[:-20]): "gzip data are damaged",
        write("bad.gz", packed[:12] + b"\xff" * 4 + packed[16:]): "gzip data are damaged",
    }
    for path, expected in cases.items():
        for read in (read_lines(path), read_tsv(path), read_pairs(good, path)):
            with pytest.raises(UserError) as error:
                list(read)
            assert expected in message(error)
            assert str(path) in message(error)


@pytest.mark.parametrize("data", [b"caf\xe9\n", "à".encode("utf-16"), b"\xed\xa0\x80\n", b"\xc3\n"])
def test_invalid_utf8_names_file_and_line(write: Write, data: bytes) -> None:
    good, bad = write("good.txt", b"x\n" * 3), write("bad.txt", b"fine\nfine\n" + data)
    with pytest.raises(UserError) as error:
        list(read_pairs(good, bad))
    assert "bad.txt, line 3: not valid UTF-8" in message(error)


def test_tsv(write: Write) -> None:
    path = write("a.tsv", b"hola\thello\r\n\nuno dos\tone two\tby Ana\n\tempty\n")
    assert list(read_tsv(path)) == [
        ("hola", "hello"),
        ("", ""),
        ("uno dos", "one two"),
        ("", "empty"),
    ]
    with pytest.raises(UserError) as error:
        list(read_tsv(write("b.tsv", b"a\tb\nno tab here\n")))
    assert "b.tsv, line 2: no tab" in message(error)
