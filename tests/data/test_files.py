"""data/files.py: what is read, and the one line that users see when it cannot be."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_tx.data import files, read_lines, read_pairs, read_tsv
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


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_longest_line(write: Write, pack: Callable[[bytes], bytes]) -> None:
    """10,000 characters, however many bytes they take, and not one more."""
    for character in ("x", "ß", "日", "🙂"):
        longest = f"{character * 10_000}\n".encode()
        path = write("long.txt", pack(b"\xef\xbb\xbf" + longest[:-1] + b"\r\n" + longest))
        assert list(read_lines(path)) == [character * 10_000] * 2
        for end in (b"\n", b"", b"\r\n"):
            path = write("longer.txt", pack(b"one\n" + longest[:-1] + b"." + end))
            with pytest.raises(UserError) as error:
                list(read_lines(path))
            assert "longer.txt, line 2: 10,001 characters; a sentence may have 10,000" in message(
                error
            )


def peak(read: Callable[[], object]) -> int:
    """The most bytes that Python objects take meanwhile."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
@pytest.mark.parametrize("unit", [b"word ", "日本".encode(), b"\0", b"a\tb"])
def test_a_line_without_end_is_refused_in_little_memory(
    write: Write, name: str, unit: bytes
) -> None:
    block = unit * ((1 << 16) // len(unit))
    path = write(name, b"")
    with gzip.open(path, "wb", 1) if name == "a.gz" else path.open("wb") as file:
        file.write(b"fine\tfine\n" * 3)
        for _ in range(1600):  # 100 MB
            file.write(block)
    good = write("good", b"x\n" * 9)

    def refused() -> None:
        for lines in (read_lines(path), read_pairs(good, path), read_pairs(path, good)):
            with pytest.raises(UserError) as error:
                list(lines)
            assert f"{name}, line 4: more than 10,000 characters" in message(error)
        with pytest.raises(UserError) as error:
            list(read_tsv(path))
        assert f"{name}, line 4: " in message(error)
        assert "characters; a sentence may have 10,000" in message(error)

    assert peak(refused) < 40 << 20


def test_binary_data_without_lines_are_no_text(write: Write) -> None:
    """What is not UTF-8 is called so, be the line as long as it may."""
    data = bytes(range(128, 256)) * 1000
    with pytest.raises(UserError, match=r"a\.bin, line 2: not valid UTF-8 .* at byte 3\)"):
        list(read_lines(write("a.bin", b"fine\nab" + data)))
    with pytest.raises(UserError, match=r"a\.bin, line 1: not valid UTF-8"):
        list(read_lines(write("a.bin", b"\x00" * 100 + b"\xff" + b"\x00" * 100_000)))


def test_lines_across_blocks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size, and pipes that give few bytes at a time, cut no line and no character."""
    text = "".join(f"{'ñ日🙂' * (i % 9)}{i}{NO_ENDS}\r\n\n" for i in range(200))
    path = write("a.txt", text.encode())
    expected = [part for line in text.split("\n")[:-1] for part in [line.removesuffix("\r")]]
    for size in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr(files, "_BLOCK", size)
        assert list(read_lines(path)) == expected
        with pytest.raises(UserError, match="line 401: not valid UTF-8"):
            list(read_lines(write("b.txt", text.encode() + "日".encode()[:2])))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_read_once_and_can_be_read_again(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(b"one\ntwo\n"),))
    writer.start()
    source = files.rereadable(str(pipe))
    writer.join()
    for _ in range(3):
        assert list(read_lines(source)) == ["one", "two"]
    assert files.digest(source) == files.digest(source)
    assert str(source) == str(pipe)
    plain = tmp_path / "plain"
    plain.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert files.rereadable(str(plain)) == str(plain)
    assert files.digest(plain) == files.digest(source)
    for unreadable in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"is a directory|cannot read"):
            files.digest(files.rereadable(unreadable))


def test_packed_in_several_members(write: Write) -> None:
    """As `cat a.gz b.gz` makes them; what follows them that is none is damage."""
    whole = gzip.compress(b"one\ntw") + gzip.compress(b"o\n") + bytes(7)
    assert list(read_lines(write("a.gz", whole))) == ["one", "two"]
    with pytest.raises(UserError, match="gzip data are damaged"):
        list(read_lines(write("a.gz", whole + b"more")))


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
