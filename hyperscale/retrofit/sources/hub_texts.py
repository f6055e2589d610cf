"""Streams a data set of the hub into a file: chats, texts, or the verified traces of OpenR1-Math-220k."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hyperscale.errors import RetrofitError, first_line
from hyperscale.retrofit.sources.settings import HUB
from hyperscale.retrofit.sources.text_files import (
    CHATS,
    TEXT_COLUMNS,
    TextSource,
    find_half_character,
    read_texts,
    require_parsed,
)
from hyperscale.utils.files import write_atomic

#: Characters that are read for each token the training will see; texts have about 3 to 5.
CHARS_PER_TOKEN = 6
_MESSAGE_KEYS = ("role", "content")
_OPENR1_FIELDS = ("problem", "generations", "correctness_math_verify", "is_reasoning_complete")


def fetch_hub_texts(
    data: str, column: str | None, tokens: int, length: int, file: Path, report: Callable[[str], None]
) -> TextSource:
    """Read as much of a data set as the training will see, into a file; one that is there already is read instead.

    Args:
        data: ``hub:owner/name`` or ``hub:owner/name:configuration``; its split is "train".
        column: The column to take; by default ``messages`` or ``text``, or, of a data set with the fields of
            OpenR1-Math-220k, the traces that verify.
        tokens: Tokens that the training will see.
        length: Tokens of a row, after which a chat is cut.
        file: Where the rows go, JSONL; written whole or not at all.
        report: Called with a line where rows were left out, which nobody but the data set's owner could mend.

    Raises:
        RetrofitError: The data set cannot be read, or has none of these columns.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, _make_lines(data, column, tokens * CHARS_PER_TOKEN, length * CHARS_PER_TOKEN, report))
    source = read_texts(file)
    return TextSource(Path(data), source.column, source.entries, {"file": str(file)})


def _make_lines(
    data: str, column: str | None, most_chars: int, chars_of_chat: int, report: Callable[[str], None]
) -> Iterator[bytes]:
    chars, left_out = 0, Counter[str]()
    for entry in _stream_entries(data, column):
        if isinstance(entry, str):
            left_out[entry] += 1
            continue
        line = json.dumps(entry, ensure_ascii=False, default=str) + "\n"  # what is no chat is refused when it is read
        yield line.encode()
        # Texts are split, chats are cut: what stands behind a row's end is not trained on.
        chars += min(len(line), chars_of_chat) if "messages" in entry else len(line)
        if chars > most_chars:
            break
    for reason, count in left_out.items():
        report(f"{count:,} {'entry' if count == 1 else 'entries'} of {data} left out: {reason}")
    if not chars:
        raise RetrofitError(f"{data} has no row to train on: nothing in it passes the filter, or it is empty")


def _stream_entries(data: str, column: str | None) -> Iterator[dict[str, Any] | str]:
    """What each row gives: nothing, a text, a chat, or several chats; or why an entry of it is left out."""
    for number, row in enumerate(_stream_rows(data), start=1):
        place = f"{data} row {number}"
        if column is None and all(name in row for name in _OPENR1_FIELDS):
            # A row without verdicts has no trace that is known to be right.
            if all(row[name] is not None for name in _OPENR1_FIELDS):
                yield from map(_whole_entry, verified_traces(row, place))
            continue
        present = [name for name in ((column,) if column else TEXT_COLUMNS) if name in row]
        chosen = next((name for name in present if row[name] is not None), None)
        if present and chosen is None:
            yield "no text in it (null)"
            continue
        if chosen is None:
            names = ", ".join(row) or "nothing"
            wanted = (
                column or f"{' or '.join(TEXT_COLUMNS)}, nor those of OpenR1-Math-220k ({', '.join(_OPENR1_FIELDS)})"
            )
            raise RetrofitError(f"{place} has no column {wanted}, only {names}: pass --column NAME")
        if not isinstance(row[chosen], str | list):
            kind = type(row[chosen]).__name__
            raise RetrofitError(f"{place}: {chosen} holds no text and no chat ({kind}): pass --column NAME for another")
        if chosen == CHATS:
            require_parsed(row[chosen], place)
        yield _whole_entry({"text" if isinstance(row[chosen], str) else "messages": row[chosen]})


def _whole_entry(entry: dict[str, Any]) -> dict[str, Any] | str:
    """An entry as it is written, its messages without what trainings do not read; or why it is left out."""
    content = entry.get("text", entry.get("messages"))
    if find_half_character(content) is not None:
        return "half of a character (a lone surrogate) in the text"
    if isinstance(content, list):  # data sets keep times and scores beside a message, which JSON may not know
        return {"messages": [_plain_message(message) for message in content]}
    return entry


def _plain_message(message: Any) -> Any:
    return {key: message[key] for key in _MESSAGE_KEYS if key in message} if isinstance(message, dict) else message


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
    name, _, configuration = data.removeprefix(HUB).partition(":")
    try:
        from datasets import load_dataset

        yield from load_dataset(name, configuration or None, split="train", streaming=True)
    except Exception as error:  # whatever the hub, the network or a reader of files raises
        raise RetrofitError(
            f"the data set {name} cannot be read ({first_line(error)}): check its name and the network, or pass --data "
            "a file or folder, or --data self"
        ) from None
