"""Reading what a retrofit trains on: texts or chats, from JSONL, Parquet or plain text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.errors import RetrofitError, first_line
from hyperscale.utils.files import data_files

SUFFIXES = (".jsonl", ".parquet", ".txt")
COLUMNS = ("messages", "text")
"""Columns that are looked for, in this order."""


@dataclass(frozen=True)
class Source:
    """Entries of a file or folder, not tokenised.

    Attributes:
        path: Where they were read.
        column: The column they were in; "text" for plain text.
        entries: Texts, or chats as lists of messages.
    """

    path: Path
    column: str
    entries: list[Any]


def read(path: Path, column: str | None = None) -> Source:
    """Read a file, or all files of a folder in the order of their names; a plain text file is one entry.

    Args:
        path: A .jsonl, .parquet or .txt file, or a folder of them.
        column: The column with the texts or chats; by default ``messages`` if the first file has it, else ``text``.

    Raises:
        RetrofitError: There is no such file, it is of another kind, malformed or empty, or it lacks the column.
    """
    path = path.expanduser()
    files = data_files(path, SUFFIXES, RetrofitError)
    found: list[Any] = []
    for file in files:
        if file.suffix == ".txt":
            column = column or "text"
            found.append(_text(file))
            continue
        column = column or _column(file)
        for where, row in _rows(file, column):
            if row.get(column) is None:
                raise RetrofitError(_lacks(where, column, row))
            found.append(row[column])
    if not found:
        raise RetrofitError(f"{path} holds no rows")
    assert column is not None, "every file settles it"
    return Source(path, column, found)


def _column(file: Path) -> str:
    """The column of a file's first row that is looked for."""
    where, row = next(_rows(file, None), (str(file), {}))
    found = next((name for name in COLUMNS if row.get(name) is not None), None)
    if found is None and row:
        raise RetrofitError(_lacks(where, " or ".join(COLUMNS), row))
    return found or COLUMNS[-1]


def _lacks(where: str, column: str, row: dict[str, Any]) -> str:
    has = ", ".join(name for name, value in row.items() if value is not None) or "nothing"
    return f"{where} has no column {column}, only {has}: pass --column NAME, or rename the column"


def _rows(file: Path, column: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows, each with the words that say where it is; of Parquet only the column, if it is known."""
    if file.suffix == ".jsonl":
        yield from _lines(file)
        return
    if file.suffix != ".parquet":
        raise RetrofitError(f"{file} is none of {', '.join(SUFFIXES)}: convert it, and name it so")
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        known = column is not None and column in table.schema_arrow.names
        batches = table.iter_batches(batch_size=256, columns=[column] if known else None)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"row {number} of {file}", row
    except (OSError, pyarrow.ArrowException) as error:
        raise RetrofitError(f"{file} is not a readable Parquet file: {first_line(error)}") from None


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise RetrofitError(f"{file} line {number} is not a JSON object: write one document a line")
                yield f"{file} line {number}", row
    except (OSError, UnicodeDecodeError) as error:
        raise RetrofitError(f"{file} cannot be read: {first_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise RetrofitError(f"{file} line {number} is not JSON ({first_line(error)})") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RetrofitError(f"{file} cannot be read: {first_line(error)}") from None
