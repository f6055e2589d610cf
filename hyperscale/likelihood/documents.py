"""Reads texts and cuts them into documents of one length, in tokens of the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from hyperscale.errors import ConfigError, first_line
from hyperscale.utils.paths import expand_home
from hyperscale.utils.row_files import read_rows

COLUMN = "text"
_ROWS = (".jsonl", ".parquet")
_TABLES = (".csv", ".tsv", ".json")


@dataclass(frozen=True)
class Document:
    """A piece of a text.

    Attributes:
        name: File, line or row, and number of the piece: ``notes.txt #3``.
        ids: Token ids, all documents the same number; they begin with what the tokenizer puts before every text.
    """

    name: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Documents:
    """What is to be scored.

    Attributes:
        chosen: The documents, in the order of the files.
        found: How many there were to choose from.
        short: Texts that were too short for one.
        unknown: Share of the chosen documents' tokens that stand for what the tokenizer has no token for.
    """

    chosen: list[Document]
    found: int
    short: int
    unknown: float


def cut_documents(
    files: Sequence[Path], tokenizer: Any, *, length: int, documents: int | None = None, seed: int = 0
) -> Documents:
    """Cut texts into documents of ``length`` tokens; what is left at the end of a text is dropped.

    Args:
        files: JSONL and Parquet files, of which each row's column ``text`` is a text; every other file is one text in
            UTF-8. Of a folder, all files under it that do not begin with a dot, in the order of their names.
        tokenizer: The model's.
        length: Tokens of a document.
        documents: How many to choose; all if None.
        seed: Of the choice.

    Raises:
        ConfigError: A file is missing or cannot be read, or no text is long enough.
    """
    start = tuple(tokenizer.encode("", add_special_tokens=True))
    if len(start) > 1:  # an end of sequence too, or a template: no text follows such tokens
        start = start[:1]
    room = length - len(start)
    if room < 1:
        raise ConfigError(f"--length {length} leaves no room for a text behind the beginning of a sequence: raise it")
    found: list[Document] = []
    short = longest = 0
    for name, text in _read_texts(files):
        ids = tokenizer.encode(text, add_special_tokens=False)
        pieces = len(ids) // room
        short += not pieces
        longest = max(longest, len(ids) + len(start) if ids else 0)
        found += [
            Document(f"{name} #{piece}", (*start, *ids[piece * room : (piece + 1) * room])) for piece in range(pieces)
        ]
    if not longest:
        raise ConfigError(f"{', '.join(map(str, files))}: no text in it, or none that has a letter: pass others")
    if not found:
        raise ConfigError(
            f"no text has {length:,} tokens; the longest has {longest:,}: choose a smaller --length, or longer texts"
        )
    chosen = found
    if documents is not None and documents < len(found):
        chosen = [found[i] for i in sorted(Random(seed).sample(range(len(found)), documents))]
    return Documents(chosen, len(found), short, _share_of_unknown(chosen, tokenizer))


def _share_of_unknown(documents: Sequence[Document], tokenizer: Any) -> float:
    unknown = getattr(tokenizer, "unk_token_id", None)
    # Tokenizers of bytes lack nothing, and name a token for it that means something else.
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        return 0.0
    ids = [number for document in documents for number in document.ids]
    return ids.count(unknown) / len(ids)


def _read_texts(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Names and texts."""
    for path in files:
        root = expand_home(path)
        if not root.exists():
            raise ConfigError(f"no file or folder {root}: pass texts, or JSONL or Parquet files with a column {COLUMN}")
        inside = sorted(file for file in root.rglob("*") if file.is_file() and not _is_hidden(file, root))
        for file in inside if root.is_dir() else [root]:
            yield from _read_file(file)


def _is_hidden(file: Path, root: Path) -> bool:
    """Whether a file, or a folder that it is in, is what tools put beside a user's files."""
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _read_file(file: Path) -> Iterator[tuple[str, str]]:
    if file.suffix in _ROWS:
        for row in read_rows(file, ConfigError, COLUMN):
            text = row.row.get(COLUMN)
            if not isinstance(text, str):
                raise ConfigError(f"{row.place} {_describe_lack(row.row)}")
            yield row.place, text
        return
    if file.suffix in _TABLES:
        raise ConfigError(
            f"{file} would be scored with its quotes and commas: convert it to JSONL or Parquet with a column "
            f"{COLUMN}, or name it .txt to have it scored so"
        )
    try:
        yield str(file), file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read as text ({first_line(error)}): take it out of the folder, or name the files to "
            "score"
        ) from None


def _describe_lack(row: Mapping[str, Any]) -> str:
    chat = isinstance(row.get(COLUMN), list) or (COLUMN not in row and isinstance(row.get("messages"), list))
    if chat:
        return f"holds a chat: write it as one text in a column {COLUMN}, as the model's chat template would"
    if row.get(COLUMN) is not None:
        return f"has no text in its column {COLUMN}: write one, or leave the row out"
    if COLUMN in row:
        return f"has nothing in its column {COLUMN}: leave the row out"
    return f"has no column {COLUMN}, only {', '.join(row) or 'nothing'}: rename the column that has the text"
