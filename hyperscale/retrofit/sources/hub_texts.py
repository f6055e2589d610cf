"""Streams a data set of the hub into a file: chats, texts, or the verified traces of OpenR1-Math-220k."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperscale.errors import RetrofitError, first_line
from hyperscale.retrofit.sources.text_files import (
    CHATS,
    TEXT_COLUMNS,
    TextSource,
    read_texts,
    require_parsed,
    require_whole_characters,
)
from hyperscale.utils.files import write_atomic

PREFIX = "hub:"
#: Characters that are read for each token the training will see; texts have about 3 to 5.
CHARS_PER_TOKEN = 6
_OPENR1_FIELDS = ("problem", "generations", "correctness_math_verify", "is_reasoning_complete")


def fetch_hub_texts(data: str, column: str | None, tokens: int, length: int, file: Path) -> TextSource:
    """Read as much of a data set as the training will see, into a file; one that is there already is read instead.

    Args:
        data: ``hub:owner/name`` or ``hub:owner/name:configuration``; its split is "train".
        column: The column to take; by default ``messages`` or ``text``, or, of a data set with the fields of
            OpenR1-Math-220k, the traces that verify.
        tokens: Tokens that the training will see.
        length: Tokens of a row, after which a chat is cut.
        file: Where the rows go, JSONL; written whole or not at all.

    Raises:
        RetrofitError: The data set cannot be read, or has none of these columns.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, _make_lines(data, column, tokens * CHARS_PER_TOKEN, length * CHARS_PER_TOKEN))
    source = read_texts(file)
    return TextSource(Path(data), source.column, source.entries, {"file": str(file)})


def _make_lines(data: str, column: str | None, most_chars: int, chars_of_chat: int) -> Iterator[bytes]:
    chars = 0
    for entry in _stream_entries(data, column):
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        yield line.encode()
        # Texts are split, chats are cut: what stands behind a row's end is not trained on.
        chars += min(len(line), chars_of_chat) if "messages" in entry else len(line)
        if chars > most_chars:
            return
    if not chars:
        raise RetrofitError(f"{data} has no row to train on: nothing in it passes the filter, or it is empty")


def _stream_entries(data: str, column: str | None) -> Iterator[dict[str, Any]]:
    """What each row gives: nothing, a text, a chat, or several chats."""
    for number, row in enumerate(_stream_rows(data), start=1):
        place = f"{data} row {number}"
        if column is None and all(name in row for name in _OPENR1_FIELDS):
            # A row without verdicts has no trace that is known to be right.
            if all(row[name] is not None for name in _OPENR1_FIELDS):
                for chat in verified_traces(row, place):
                    require_whole_characters(chat["messages"], place)
                    yield chat
            continue
        chosen = column or next((name for name in TEXT_COLUMNS if row.get(name) is not None), None)
        if chosen is None or row.get(chosen) is None:
            names = ", ".join(row) or "nothing"
            wanted = (
                column or f"{' or '.join(TEXT_COLUMNS)}, nor those of OpenR1-Math-220k ({', '.join(_OPENR1_FIELDS)})"
            )
            raise RetrofitError(f"{place} has no column {wanted}, only {names}: pass --column NAME")
        if chosen == CHATS:
            require_parsed(row[chosen], place)
        require_whole_characters(row[chosen], place)
        yield {"text" if isinstance(row[chosen], str) else "messages": row[chosen]}


def verified_traces(row: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    """The chats of a row of OpenR1-Math-220k: each trace that is complete and whose answer Math-Verify accepts.

    That is the paper's filter ("only traces whose answer verifies"); the verdicts of a language model
    (``correctness_llama``) do not count.

    Args:
        row: With ``problem`` (text) and, one for each trace, ``generations`` (texts), ``correctness_math_verify`` and
            ``is_reasoning_complete`` (truth values).
        place: For messages.

    Raises:
        RetrofitError: The lists differ in length.
    """
    traces, verified, complete = (row[name] for name in _OPENR1_FIELDS[1:])
    if not len(traces) == len(verified) == len(complete):
        raise RetrofitError(
            f"{place} has {len(traces)} generations, {len(verified)} verdicts in correctness_math_verify and "
            f"{len(complete)} in is_reasoning_complete: each trace needs one of both"
        )
    for trace, is_right, is_whole in zip(traces, verified, complete, strict=True):
        if is_right and is_whole:
            yield {"messages": [{"role": "user", "content": row["problem"]}, {"role": "assistant", "content": trace}]}


def _stream_rows(data: str) -> Iterator[dict[str, Any]]:
    name, _, configuration = data.removeprefix(PREFIX).partition(":")
    try:
        from datasets import load_dataset

        yield from load_dataset(name, configuration or None, split="train", streaming=True)
    except Exception as error:  # whatever the hub, the network or a reader of files raises
        raise RetrofitError(
            f"the data set {name} cannot be read ({first_line(error)}): check its name and the network, or pass --data "
            "a file or folder, or --data self"
        ) from None
