"""Reads the texts or chats that a retrofit trains on, from JSONL, Parquet or plain text files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hyperscale.errors import RetrofitError, first_line
from hyperscale.utils.paths import expand_home
from hyperscale.utils.row_files import PlacedRow, list_data_files, read_rows

SUFFIXES = (".jsonl", ".parquet", ".txt")
CHATS = "messages"
"""Column of chats."""
IDS = "ids"
"""Column of documents that are tokenised already, as a model's own texts are kept."""
TEXT_COLUMNS = (CHATS, "text")
COLUMNS = (*TEXT_COLUMNS, IDS)
"""Columns that are looked for if none is named, in this order."""


class TextEntry(NamedTuple):
    """A text or a chat, and where it stands, for messages.

    Attributes:
        place: File, and line or row.
        content: A text, or a chat as a list of messages; not checked.
    """

    place: str
    content: Any


class TokenIds(NamedTuple):
    """A document that is tokenised already.

    Attributes:
        ids: Its token ids.
        start: Place of the first one that the loss predicts, at least 1.
    """

    ids: list[int]
    start: int


@dataclass(frozen=True)
class TextSource:
    """Entries of a file or folder, not tokenised.

    Attributes:
        path: Where they were read.
        column: The column they were in; "text" for plain text.
        entries: The texts or chats, or documents that are tokenised (`TokenIds`).
        notes: What else the record says of them.
    """

    path: Path
    column: str
    entries: list[TextEntry]
    notes: dict[str, str] = field(default_factory=dict)


def read_texts(path: Path, column: str | None = None) -> TextSource:
    """Read a file, or all files of a folder in the order of their names; a plain text file is one entry.

    Args:
        path: A .jsonl, .parquet or .txt file, or a folder of them.
        column: The column with the texts or chats; by default the first of `COLUMNS` that the first file
            with rows has.

    Raises:
        RetrofitError: There is no such file, it is of another kind, malformed or empty, or it lacks the column.
    """
    path = expand_home(path)
    entries: list[TextEntry] = []
    for file in list_data_files(path, SUFFIXES, RetrofitError):
        if file.suffix == ".txt":
            column = column or "text"
            entries.append(TextEntry(str(file), read_text(file)))
            continue
        # The first file with rows decides; the others must have the same column.
        column = column or _choose_column(file)
        if column is None:
            continue
        for row in read_rows(file, RetrofitError, None if column == IDS else column):
            if row.row.get(column) is None:
                raise RetrofitError(_describe_lack(row, (column,)))
            content = _read_ids(row) if column == IDS else row.row[column]
            if column == CHATS:
                require_parsed(content, row.place)
            require_whole_characters(content, row.place)
            entries.append(TextEntry(row.place, content))
    if not entries:
        raise RetrofitError(f"{path} holds no rows")
    assert column is not None, "every file leaves a column"
    return TextSource(path, column, entries)


def _choose_column(file: Path) -> str | None:
    """The first of `COLUMNS` that the file's first row has; None if it has no rows."""
    row = next(read_rows(file, RetrofitError), None)
    if row is None:
        return None
    for name in COLUMNS:
        if row.row.get(name) is not None:
            return name
    raise RetrofitError(_describe_lack(row, COLUMNS))


def _describe_lack(row: PlacedRow, wanted: Sequence[str]) -> str:
    if empty := [name for name in wanted if name in row.row]:
        return (
            f"{row.place} has nothing in its column {' and '.join(empty)} (null): drop the row, or pass --column NAME"
        )
    column = " or ".join(wanted)
    columns = ", ".join(name for name, value in row.row.items() if value is not None) or "nothing"
    return f"{row.place} has no column {column}, only {columns}: pass --column NAME, or rename the column"


def _read_ids(row: PlacedRow) -> TokenIds:
    """Token ids, and ``start`` beside them, 1 if there is none."""
    ids, start = row.row[IDS], row.row.get("start", 1)
    if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
        raise RetrofitError(f"{row.place}: ids must be a list of token ids, whole numbers of at least 0")
    if type(start) is not int or start < 1:
        raise RetrofitError(f"{row.place}: start is {start!r}, and must be a whole number of at least 1")
    return TokenIds(ids, start)


def require_parsed(content: Any, place: str) -> None:
    """Refuse a chat that is kept as text, which would be trained on as it stands, brackets and all.

    Args:
        content: What the column `CHATS` has, whose form is not checked.
        place: Where it stands, for the message.

    Raises:
        RetrofitError: It is a text that lists objects of JSON.
    """
    if not isinstance(content, str) or not content.lstrip().startswith("["):
        return
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):  # a text that begins with a bracket
        return
    if isinstance(parsed, list) and parsed and isinstance(parsed[0], dict):
        raise RetrofitError(
            f"{place}: {CHATS} holds the chat as a text of JSON: parse it into a list of messages {{role, content}}, "
            "or pass --column NAME for another column"
        )


def find_half_character(content: Any) -> str | None:
    """Half of a character (a lone surrogate) in a text or a chat, whose form is not checked; None if all are whole.

    JSON may name such a half; no tokenizer takes it.
    """
    messages = [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []
    for text in (content, *(message.get(key) for message in messages for key in ("role", "content"))):
        if not isinstance(text, str):
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return text[error.start]
    return None


def require_whole_characters(content: Any, place: str) -> None:
    """Refuse text with half of a character.

    Args:
        content: A text, or a chat, whose form is not checked.
        place: Where it stands, for the message.

    Raises:
        RetrofitError: There is such a half.
    """
    if (half := find_half_character(content)) is not None:
        raise RetrofitError(
            f"{place} has half of a character ({half!a}, a lone surrogate) in its text: mend or drop this entry"
        )


def read_text(file: Path) -> str:
    """A plain text file, in UTF-8.

    Raises:
        RetrofitError: It cannot be read, or is in another encoding.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RetrofitError(f"{file} cannot be read: {first_line(error)}") from None
