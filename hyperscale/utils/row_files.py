"""Reads rows of JSONL and Parquet files; errors name the file and the line or row."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hyperscale.errors import HyperscaleError, first_line
from hyperscale.utils.paths import expand_home

Row = dict[str, Any]
#: Rows of a Parquet file that are decoded at a time.
_BATCH_ROWS = 256


class PlacedRow(NamedTuple):
    """A row, and where it stands, for messages: ``data.jsonl line 3`` or ``data.parquet row 3``."""

    place: str
    row: Row


def list_data_files(
    path: Path, suffixes: tuple[str, ...], error: type[HyperscaleError], option: str = "--data"
) -> list[Path]:
    """A file, or a folder's files of the right kinds in the order of their names.

    Args:
        path: The file or folder; a leading ``~`` is the home folder.
        suffixes: Suffixes of the right kinds, with their dots.
        error: Type of the errors.
        option: The option that names it, for the errors.

    Raises:
        HyperscaleError: There is no such path, the file is of another kind, or the folder has no file of these kinds.
    """
    path = expand_home(path)
    kinds = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
        if not files:
            raise error(f"{path} holds no {kinds} file: pass {option} a file or a folder of them")
        return files
    if not path.is_file():
        raise error(f"no file or folder {path}: pass {option} a {kinds} file, or a folder of them")
    if path.suffix not in suffixes:
        raise error(f"{path} is not a {kinds} file: convert it, and name it so")
    return [path]


def describe_left_out(path: Path, suffixes: tuple[str, ...]) -> str:
    """What of a folder `list_data_files` leaves out, in words: ``3 files (.csv, .md), 1 folder``; empty if nothing."""
    path = expand_home(path)
    inside = [each for each in path.iterdir() if not each.name.startswith(".")] if path.is_dir() else []
    folders = [each for each in inside if each.is_dir()]
    files = [each for each in inside if not each.is_dir() and each.suffix not in suffixes]
    kinds = sorted({file.suffix or file.name for file in files})
    parts = [f"{len(files)} file{'s' * (len(files) > 1)} ({', '.join(kinds)})"] if files else []
    parts += [f"{len(folders)} folder{'s' * (len(folders) > 1)}"] if folders else []
    return ", ".join(parts)


def read_rows(file: Path, error: type[HyperscaleError], column: str | None = None) -> Iterator[PlacedRow]:
    """The rows of a ``.jsonl`` or ``.parquet`` file, one after the other; empty lines are skipped.

    Args:
        file: The file; its suffix says which kind it is.
        error: Type of the errors.
        column: Only this column of a Parquet file is decoded, if the file has it.

    Raises:
        HyperscaleError: The file is unreadable or malformed, or a line is not a JSON object.
    """
    return _read_parquet(file, error, column) if file.suffix == ".parquet" else _read_jsonl(file, error)


def _read_parquet(file: Path, error: type[HyperscaleError], column: str | None) -> Iterator[PlacedRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        columns = [column] if column in table.schema_arrow.names else None
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield PlacedRow(f"{file} row {number}", row)
    except (OSError, pyarrow.ArrowException) as cause:
        raise error(f"{file} is not a readable Parquet file: {first_line(cause)}") from None


def _read_jsonl(file: Path, error: type[HyperscaleError]) -> Iterator[PlacedRow]:
    place = str(file)
    try:
        # utf-8-sig: some editors begin a file with a byte order mark, which is not JSON.
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{file} line {number}"
                if not line.strip():
                    continue
                row = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=make_object)
                if not isinstance(row, dict):
                    raise error(f"{place} is not a JSON object: write one object a line")
                yield PlacedRow(place, row)
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{file} cannot be read: {first_line(cause)}") from None
    except (ValueError, RecursionError) as cause:  # nesting without end is a recursion error of the parser
        raise error(f"{place} is not JSON ({first_line(cause)})") from None


def _refuse_constant(name: str) -> Any:
    """JSON has no NaN and no infinities, which Python's reader takes all the same."""
    raise ValueError(f"{name} is no value of JSON")


def make_object(pairs: list[tuple[str, Any]]) -> Row:
    """An object in which no key stands twice: Python's reader would take the last in silence."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return row
