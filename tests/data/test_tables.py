"""data/tables.py: columns of .jsonl, .csv and .parquet, and what is said of files without."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tinygrad_tx.data.tables import is_table, read_columns
from tinygrad_tx.errors import UserError

ROWS = [{"id": 1, "de": "ein Hund", "en": 'a "dog"'}, {"id": 2, "de": "zwei,\nHunde", "en": "ü"}]
PAIRS = [("ein Hund", 'a "dog"'), ("zwei,\nHunde", "ü")]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(path: Path, rows: list[object]) -> Path:
    return written(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def test_json_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", list(ROWS))
    assert list(read_columns(path, ("de", "en"), 2)) == PAIRS
    assert list(read_columns(path, (), 2)) == PAIRS
    assert list(read_columns(path, ("en",), 1)) == [(en,) for _, en in PAIRS]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_columns(tmp_path / "a.jsonl.gz", ("de", "en"), 2)) == PAIRS
    assert is_table(tmp_path / "A.JSONL.gz") and not is_table("a.json") and not is_table("a.tsv")


def test_nested_translations(tmp_path: Path) -> None:
    rows: list[object] = [
        {"id": i, "translation": {"de": d, "en": e}} for i, (d, e) in enumerate(PAIRS)
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    assert list(read_columns(path, ("en", "de"), 2)) == [(e, d) for d, e in PAIRS]
    assert list(read_columns(path, (), 2)) == PAIRS


def test_csv(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", '\ufeffid,de,en\n1,ein Hund,"a ""dog"""\n\n2,"zwei,\nHunde",ü\n'
    )
    assert list(read_columns(path, ("de", "en"), 2)) == PAIRS


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(read_columns(tmp_path / "a.parquet", ("de", "en"), 2)) == PAIRS
    rows = [{"translation": {"de": d, "en": e}} for d, e in PAIRS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert list(read_columns(tmp_path / "b.parquet", (), 2)) == PAIRS
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"c\.parquet is damaged or no Parquet"):
        list(read_columns(tmp_path / "c.parquet", (), 2))


def test_the_column_called_text_is_the_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"url": "x", "text": "one"}, {"url": "y", "text": None}])
    assert list(read_columns(path, (), 1)) == [("one",), ("",)]


@pytest.mark.parametrize(
    ("name", "text", "columns", "said"),
    [
        ("a.jsonl", '{"a": "x"}\n{"b": "x"}\n', ("a",), "record 2: no column 'a' .it has b"),
        ("a.jsonl", '{"a": 3}\n', ("a",), "record 1: column 'a' is 3, which is no text"),
        ("a.jsonl", '{"a": "x"}\n{a}\n', ("a",), "line 2: no JSON"),
        ("a.jsonl", "[1]\n", ("a",), "line 1: .1. is no object"),
        ("a.jsonl", "", ("a",), "is empty"),
        ("a.jsonl", '{"a": "x", "b": "y"}\n', (), "--columns NAME .those of text: a, b"),
        ("a.csv", "a,b\nx\n", ("a",), "line 2: 1 columns, and the first line names 2"),
        ("a.csv", 'a,b\n"x,y\n', ("a",), "no CSV"),
        ("a.csv", "a,b\n", ("a",), "is empty"),
    ],
)
def test_what_is_wrong(
    name: str, text: str, columns: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        list(read_columns(written(tmp_path / name, text), columns, 1))


def test_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'tinygrad_tx\[parquet\]'"):
        list(read_columns(tmp_path / "a.parquet", (), 1))


def test_what_is_missing_in_the_first_record(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": null}\n{"text": "a"}\n')
    assert list(read_columns(file, (), 1)) == [("",), ("a",)]
    file.write_text('{"id": "x", "translation": {"de": "ja", "en": null}}\n')
    assert list(read_columns(file, (), 2)) == [("ja", "")]
    file.write_text('{"id": "x", "translation": {"de": "ja", "en": "yes"}}\n')
    assert list(read_columns(file, (), 2)) == [("ja", "yes")]
    (tmp_path / "a.csv").write_text("a,a\n1,2\n")
    with pytest.raises(UserError, match=r"two columns have the same name \(a, a\)"):
        list(read_columns(tmp_path / "a.csv", ("a",), 1))
