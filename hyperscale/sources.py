"""Rows of a data set: from a local file or folder, else from the Hugging Face hub through ``datasets``.

Whatever fails ends in one message that names the data set, says whether it is gated and how to log in, and how to pass
a file instead. Without a network that takes a few seconds, not the minutes that retries would.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale.errors import TaskError, first_line
from hyperscale.utils.files import data_files

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".parquet")
_PROBE_SECONDS = 3.0


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


def reachable() -> bool:
    """Whether the hub answers, whatever it answers; a few seconds at most."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_PROBE_SECONDS):
            return True
    except HTTPError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def quiet_hub(*, offline: bool) -> Iterator[None]:
    """Keep the hub's libraries from drawing bars and, offline, from trying again and again."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    bars = datasets.is_progress_bar_enabled()
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        if bars:
            datasets.enable_progress_bars()
