"""Columns of text in files of records: .jsonl, .csv and .parquet (the extra `parquet`), streamed.

In: the path of a file, plain or gzipped, and the names of columns. Out: a tuple of texts for each
record. Called by training's corpora; UserErrors name the file, and the line or record at fault.

A record may hold its texts in an object: {"translation": {"de": ..., "en": ...}}, as published
corpora of translations do.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from ..errors import UserError, brief
from .files import MAX_RECORD, Source, read_records

_KINDS = (".jsonl", ".csv", ".parquet")
_NEST = "translation"
_PARQUET = 4096  # records at a time

Record = Mapping[str, Any]


def is_table(path: Source) -> bool:
    """True if the name says that the file has columns with names."""
    return _kind(path) in _KINDS


def format_of(path: Source) -> str:
    """What the name says of how a file is read: ".csv.gz", ".jsonl"; "" and ".gz" for lines."""
    kind = _kind(path) if is_table(path) else ""
    return kind + (".gz" if str(path).lower().endswith(".gz") else "")


def read_columns(path: Source, names: Sequence[str], wanted: int) -> Iterator[tuple[str, ...]]:
    """Those columns of each record, in that order. names: empty for the only columns of text that
    there are, if they are as many as wanted.

    Raises UserError, on the way, for a file that cannot be read, a record that is none, a column
    that is missing, and one that holds no text.
    """
    chosen = tuple(names)
    number = 0
    for number, record in _records(path):
        found = _flat(record)
        if not chosen:
            nested = record.get(_NEST)
            pair = nested if isinstance(nested, dict) and len(nested) == wanted else found
            chosen = _only(str(path), pair, wanted)
        texts = []
        for name in chosen:
            if name not in found:
                known = ", ".join(map(str, found))
                raise UserError(f"{path}, record {number}: no column {name!r} (it has {known})")
            value = found[name]
            if value is not None and not isinstance(value, str):
                raise UserError(
                    f"{path}, record {number}: column {name!r} is {brief(value)}, which is no text"
                )
            texts.append(_text(value or "", f"{path}, record {number}: column {name!r}"))
        yield tuple(texts)
    if not number:
        raise UserError(f"{path} is empty")


def _text(value: str, where: str) -> str:
    """A text that can be encoded."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} has half of a surrogate pair, which is no character") from None
    return value


def _kind(path: Source) -> str:
    return Path(str(path).lower().removesuffix(".gz")).suffix


def _records(path: Source) -> Iterator[tuple[int, Record]]:
    """The records of a file, numbered from 1."""
    kind = _kind(path)
    if kind == ".parquet":
        return enumerate(_parquet(path), 1)
    return enumerate(_json(path) if kind == ".jsonl" else _csv(path), 1)


def _json(path: Source) -> Iterator[Record]:
    for number, line in enumerate(read_records(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: no JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: {brief(record)} is no object with columns")
        yield record


def _csv(path: Source) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD)
    # The end of each line again, for a text in quotes may have several.
    rows = csv.reader((f"{line}\n" for line in read_records(path)), strict=True)
    try:
        head = next(rows, None)
        if head is None:
            return
        if len(set(head)) < len(head):
            raise UserError(f"{path}: two columns have the same name ({', '.join(head)})")
        for row in rows:
            if not row:
                continue
            if len(row) != len(head):
                raise UserError(
                    f"{path}, line {rows.line_num}: {len(row)} columns, and the first line names "
                    f"{len(head)}"
                )
            yield dict(zip(head, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: no CSV ({error})") from None


def _parquet(path: Source) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install 'tinygrad_tx[parquet]'") from None
    try:
        with ParquetFile(str(path)) as file:
            for batch in file.iter_batches(_PARQUET):
                yield from batch.to_pylist()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ArrowException as error:
        raise UserError(f"{path} is damaged or no Parquet: {error}") from None


def _flat(record: Record) -> Record:
    """A record with the columns of a nested translation among its own."""
    nested = record.get(_NEST)
    if not isinstance(nested, dict):
        return record
    return {**{key: value for key, value in record.items() if key != _NEST}, **nested}


def _only(path: str, record: Record, wanted: int) -> tuple[str, ...]:
    """The names of the columns of text, where they are as many as wanted, or the one is `text`."""
    kinds = (str, NoneType)  # what is missing may be a text in other records
    found = tuple(name for name, value in record.items() if isinstance(value, kinds))
    texts = tuple(name for name in found if record[name] is not None)
    found = texts if len(texts) == wanted else found
    if wanted == 1 and "text" in found:
        return ("text",)
    if len(found) != wanted:
        names = "NAME" if wanted == 1 else "SOURCE,TARGET"
        known = ", ".join(found) or "none"
        raise UserError(
            f"{path}: say which columns to read: --columns {names} (those of text: {known})"
        )
    return found
