"""Loads rows of problems: from a local file or folder, or from the Hugging Face hub through ``datasets``.

Every failure ends in one message that names the data set, says whether it is gated and how to log in, and how to pass
a file instead. Without a network that takes a few seconds, because the hub's own retries are switched off.
"""

from dataclasses import dataclass
from pathlib import Path

from hyperscale.errors import TaskError, first_line
from hyperscale.utils.hub import quiet_datasets, reachable
from hyperscale.utils.row_files import PlacedRow, list_data_files, read_rows

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class HubDataset:
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


def read_local(path: Path) -> list[PlacedRow]:
    """Rows of a JSONL or Parquet file, or of all such files of a folder in the order of their names.

    Raises:
        TaskError: There is no such file, it is neither JSONL nor Parquet, or it is malformed or empty.
    """
    files = list_data_files(path, SUFFIXES, TaskError)
    rows = [row for file in files for row in read_rows(file, TaskError)]
    if not rows:
        raise TaskError(f"{path} holds no rows")
    return rows


def download(dataset: HubDataset, task: str) -> list[PlacedRow]:
    """Rows of a data set on the hub, or of its copy in the local cache.

    Args:
        dataset: The data set.
        task: Name of the task, for the message.

    Raises:
        TaskError: It cannot be loaded; the message says what to do.
    """
    online = reachable()
    try:
        with quiet_datasets(offline=not online):
            import datasets

            rows = list(datasets.load_dataset(dataset.path, dataset.name, split=dataset.split))
    except Exception as error:  # datasets and the hub's client raise many kinds, all meaning that there is no data
        raise TaskError(_describe_failure(dataset, task, online, error)) from None
    return [PlacedRow(f"{dataset} row {number}", row) for number, row in enumerate(rows, start=1)]


def _describe_failure(dataset: HubDataset, task: str, online: bool, error: Exception) -> str:
    """What failed, and the two ways out: logging in, or a file."""
    reason = first_line(error) if online else "the hub cannot be reached and there is no copy in the cache"
    access = (
        f"it is gated: accept its terms at https://huggingface.co/datasets/{dataset.path}, then run `hf auth login`; "
        if dataset.gated
        else "it is not gated and needs no login; "
    )
    return (
        f"{task} needs the data set {dataset} from the Hugging Face hub ({reason}): {access}"
        f"or pass a JSONL or Parquet file or folder of it with --data {task}=PATH"
    )
