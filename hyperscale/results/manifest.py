"""The description of a run, ``run.json``: how it is read, and how two of them are compared."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from hyperscale.errors import ResultsError
from hyperscale.tasks.own import sources
from hyperscale.utils.files import write_atomic
from hyperscale.utils.validation import validate

SCHEMA = 2
_READABLE = (1, SCHEMA)  # schema 1 differs in samples.jsonl alone
RUN_FILE, SAMPLES, POINTS, LOCK = "run.json", "samples.jsonl", "points.csv", ".lock"
_REMEDY = "restore it, or choose another folder with --out"
# Settings that the first versions did not have or did not write, with the values that their runs had.
_ADDED_SETTINGS: dict[str, Any] = {
    "task_params": {},
    "lengths": [],
    "predict": "auto",
    "extend": 0,
    "extend_word": "Wait",
    "force_answer": 0,
    "kv_dtype": "auto",
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "engine": "torch",
    "system_prompt": None,
    "template_args": {},
    "chat_template": None,
}


class _Group(BaseModel):
    """A group of tasks with a mean."""

    tasks: list[str]
    weight_by_size: bool


class _Info(BaseModel):
    """The parts of ``run.json`` that are read; other parts are for people."""

    model_config = ConfigDict(extra="allow", strict=True)

    config: dict[str, Any]
    tasks: dict[str, str] | None = None
    checkpoints: dict[str, Any] | None = None
    weights: dict[str, str] | None = None
    params: dict[str, dict[str, Any]] | None = None
    documents: dict[str, str] | None = None
    prompts: dict[str, str] | None = None
    date: str | None = None
    data: dict[str, str] | None = None
    task_files: dict[str, dict[str, str]] | None = None
    task_groups: dict[str, "_Group"] | None = None
    hardware: dict[str, Any] | None = None
    versions: dict[str, str] | None = None
    vote: str | None = None
    widths: list[Annotated[int, Field(ge=1)]] | None = None
    batch_sizes: list[int] | None = None


def read_info(folder: Path) -> dict[str, Any]:
    """Read and check ``run.json``.

    Raises:
        ResultsError: The file is missing, is not JSON, has another schema version, or a part of another kind.
    """
    path = folder / RUN_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is unreadable ({error}): {_REMEDY}") from None
    if not isinstance(info, dict):
        raise ResultsError(f"{path} is not a run's description: {_REMEDY}")
    if info.get("schema") not in _READABLE:
        raise ResultsError(
            f"{path} has schema {info.get('schema')!r}, this version reads {' and '.join(map(str, _READABLE))}: "
            "choose another folder with --out"
        )
    validate(_Info, info, ResultsError, str(path), _REMEDY)
    sources.restore(info.get("task_files") or {})  # whoever reads the run finds its tasks by their names
    return info


def read_date(folder: Path) -> datetime | None:
    """What the prompts of a folder's run take for the present; None if there is no run.

    Runs of earlier versions took the day on which they were rendered: that on which their description was written.

    Raises:
        ResultsError: The description cannot be read.
    """
    path = folder / RUN_FILE
    if not path.exists():
        return None
    date = read_info(folder).get("date")
    try:
        return datetime.fromisoformat(date) if date else datetime.fromtimestamp(int(path.stat().st_mtime))
    except ValueError:
        raise ResultsError(f"{path}: date {date!r} is none: {_REMEDY}") from None


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Put another description in the place of a run's.

    One of an earlier version gets the date that `read_date` finds, which the new file's own time would change.

    Raises:
        OSError: The disk is full or fails; the old one stays.
        ResultsError: The old one cannot be read.
    """
    date = None if info.get("date") else read_date(folder)
    complete = {**info, **({"date": date.isoformat()} if date else {})}
    write_atomic(folder / RUN_FILE, json.dumps(complete, indent=1) + "\n")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two runs' descriptions differ, of all that decides their chains: a line with name and both values each.

    A description of an earlier version is the same run's if it lacks what that version did not have: settings that are
    not used, and ``documents``, ``prompts`` and ``weights``, fingerprints of the problems, of what the model reads of
    them, and of all weights.
    """
    lines = differences(complete_config(old.get("config") or {}), complete_config(new.get("config") or {}))
    for part in ("tasks", "documents", "prompts", "checkpoints", "weights", "params"):
        if part in old or part not in ("documents", "prompts", "weights"):
            lines += differences(old.get(part) or {}, new.get(part) or {}, f"{part}.")
    return lines


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a description, of any version, with every setting that decides chains."""
    return _ADDED_SETTINGS | dict(config)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names and both values of the entries in which two configurations differ."""
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            lines += differences(before, now, f"{prefix}{name}.")
        elif before != now:
            lines.append(f"{prefix}{name} was {json.dumps(before)}, now {json.dumps(now)}")
    return lines
