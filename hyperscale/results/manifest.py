"""The description of a run, ``run.json``: how it is read, and how two of them are compared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperscale.errors import ResultsError

SCHEMA = 2
_READABLE = (1, SCHEMA)  # schema 1 differs in samples.jsonl alone
RUN, SAMPLES, POINTS, LOCK = "run.json", "samples.jsonl", "points.csv", ".lock"
_PARTS = ("config", "tasks", "checkpoints", "params")  # of run.json
# Settings that the first versions did not have or did not write, with the values that their runs had.
_ADDED_SETTINGS: dict[str, Any] = {
    "task_params": {},
    "lengths": [],
    "predict": "auto",
    "extend": 0,
    "extend_word": "Wait",
    "force_answer": 0,
    "kv_dtype": "auto",
    "engine": "torch",
}


def read_info(folder: Path) -> dict[str, Any]:
    """Read and check ``run.json``.

    Raises:
        ResultsError: The file is missing, is not JSON, or has another schema version.
    """
    path = folder / RUN
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is unreadable ({error}): restore it, or choose another folder with --out") from None
    if (
        not isinstance(info, dict)
        or not isinstance(info.get("config"), dict)
        or not all(isinstance(info.get(part) or {}, dict) for part in _PARTS)
    ):
        raise ResultsError(f"{path} is not a run's description: restore it, or choose another folder with --out")
    if info.get("schema") not in _READABLE:
        raise ResultsError(
            f"{path} has schema {info.get('schema')!r}, this version reads {SCHEMA}: choose another folder with --out"
        )
    return info


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two runs' descriptions differ, of all that decides their chains: a line with name and both values each.

    A description of an earlier version is the same run's if it lacks what that version did not have: settings that are
    not used, and ``documents``, fingerprints of the problems.
    """
    lines = differences(complete_config(old.get("config") or {}), complete_config(new.get("config") or {}))
    for part in ("tasks", "documents", "checkpoints", "params"):
        if part in old or part != "documents":
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
