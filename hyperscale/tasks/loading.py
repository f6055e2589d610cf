"""Rows of a data set: from a local file or folder, else from the Hugging Face hub through ``datasets``.

Whatever fails ends in one message that names the data set, says whether it is gated and how to log in, and how to pass
a file instead. Without a network that takes a few seconds, not the minutes that retries would.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.errors import TaskError, first_line
from hyperscale.utils.files import data_files
from hyperscale.utils.hub import quiet_hub, reachable

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Source:
    """A data set on the hub.

    Attributes:
        path: Its id, ``owner/name``.
        name: Its configuration, or None.
        split: The split that is read.
        gated: Whether its terms must be accepted before it can be downloaded.
    """

    path: str
    name: str | None
    split: str
    gated: bool = False

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else self.path


def local(path: Path) -> list[Row]:
    """Rows of a JSONL or Parquet file, or of all such files of a folder in the order of their names.

    Raises:
        TaskError: There is no such file, it is neither JSONL nor Parquet, or it is malformed or empty.
    """
    path = path.expanduser()
    files = data_files(path, SUFFIXES, TaskError)
    rows = [row for file in files for row in _rows(file)]
    if not rows:
        raise TaskError(f"{path} holds no rows")
    return rows


def _rows(file: Path) -> list[Row]:
    if file.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        try:
            rows: list[Row] = parquet.read_table(file).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise TaskError(f"{file} is not a readable Parquet file: {first_line(error)}") from None
        return rows
    if file.suffix != ".jsonl":
        raise TaskError(f"{file} is neither JSONL nor Parquet: convert it, and name it *.jsonl or *.parquet")
    found = []
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TaskError(f"{file} line {number} is not a JSON object: write one problem a line")
                found.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read: {first_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{file} line {number} is not JSON ({first_line(error)})") from None
    return found


def hub(source: Source, task: str) -> list[Row]:
    """Rows of a data set on the hub, or of its copy in the local cache.

    Args:
        source: The data set.
        task: Name of the task, for the message.

    Raises:
        TaskError: It cannot be had; the message says what to do.
    """
    online = reachable()
    try:
        with quiet_hub(offline=not online):
            import datasets

            return list(datasets.load_dataset(source.path, source.name, split=source.split))
    except Exception as error:  # datasets and the hub's client raise many kinds, all meaning that there is no data
        raise TaskError(_advice(source, task, online, error)) from None


def _advice(source: Source, task: str, online: bool, error: Exception) -> str:
    why = first_line(error) if online else "the hub cannot be reached and there is no copy in the cache"
    gate = (
        f"it is gated: accept its terms at https://huggingface.co/datasets/{source.path}, then run `hf auth login`; "
        if source.gated
        else "it is not gated and needs no login; "
    )
    return (
        f"{task} needs the data set {source} from the Hugging Face hub ({why}): {gate}"
        f"or pass a JSONL or Parquet file or folder of it with --data {task}=PATH"
    )
