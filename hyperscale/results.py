"""The on-disk store of a run: what was asked, every finished chain, and the points derived from them.

A run is a folder: ``run.json`` (resolved configuration, versions, hardware, seeds), ``samples.jsonl`` (append-only, one
finished chain a line, on the disk before the next) and ``points.csv`` (derived, can always be rebuilt). A chain is
known by its key; a store opened again holds every chain that was ever finished, so a killed run resumes without loss.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperscale import branches
from hyperscale.errors import ResultsError

SCHEMA = 1
RUN, SAMPLES, POINTS, LOCK = "run.json", "samples.jsonl", "points.csv", ".lock"

Key = tuple[str, str, str, float, int, int, int]
_PARTS = ("config", "tasks", "checkpoints", "params")  # of run.json
_TEXTS = ("task", "problem", "method", "text")
_NUMBERS = ("CR", "seed", "chain", "max_new_tokens", "prompt_tokens", "tokens", "seconds", "kv_entry_bytes")
_OPTIONAL = ("logprobs", "inserted")  # which samples of the first versions lack
_COSTS, _VERDICTS = ("lengths", "kv_reads", "peak_kv", "chars"), ("answers", "correct")


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        folder: The run folder.
        info: Contents of ``run.json``.
        samples: Every finished chain, in the order they finished.
    """

    folder: Path
    info: dict[str, Any]
    samples: list[dict[str, Any]]


def key(sample: dict[str, Any]) -> Key:
    """What makes a chain itself: (task, problem, method, CR, seed, chain, L).

    L counts only for methods whose rule depends on it, which run once per L; for the others it is 0.
    """
    length = 0 if sample.get("length_invariant", True) else int(sample["max_new_tokens"])
    return (
        sample["task"],
        sample["problem"],
        sample["method"],
        float(sample["CR"]),
        int(sample["seed"]),
        int(sample["chain"]),
        length,
    )


def read(folder: Path | str) -> list[Run]:
    """Read a run folder, or every run folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run, or a file in it is corrupt.
    """
    found = folders(folder)
    try:
        return [Run(path, read_info(path), list(iterate(path / SAMPLES))) for path in found]
    except OSError as error:
        raise ResultsError(f"cannot read {error.filename} ({error.strerror}): mend its permissions") from None


def folders(folder: Path | str) -> list[Path]:
    """A run's folder, or every run's folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"no folder {folder}: pass the folder of a run, or one that holds runs")
    found = [folder] if (folder / RUN).is_file() else sorted(p.parent for p in folder.glob(f"*/{RUN}"))
    if not found:
        raise ResultsError(f"{folder} holds no run (no {RUN} in it or one folder down): make one with `hyperscale run`")
    return found


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
    if info.get("schema") != SCHEMA:
        raise ResultsError(
            f"{path} has schema {info.get('schema')!r}, this version reads {SCHEMA}: choose another folder with --out"
        )
    return info


def iterate(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a ``samples.jsonl``; an unfinished last line is left out.

    A sample's ``run`` is the folder's name now: chains from before and after a folder was renamed are one run's. Its
    ``vote`` is the strategy that was chosen for the run, if one was.

    Raises:
        ResultsError: Any other line is corrupt; the message names it.
    """
    if not path.exists():
        return
    name, vote = path.resolve().parent.name, _vote(path.parent)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                sample = json.loads(line)
            except ValueError:
                sample = None
            if not isinstance(sample, dict) or "schema" not in sample or not _sound(sample):
                raise ResultsError(
                    f"{path} line {number} is corrupt: delete that line (the same command generates its chain again) "
                    "or restore the file"
                )
            if sample["schema"] != SCHEMA:
                raise ResultsError(f"{path} line {number} has schema {sample['schema']!r}, this version reads {SCHEMA}")
            sample["run"] = name
            yield sample if vote is None else {**sample, "vote": vote}


def _vote(folder: Path) -> str | None:
    """The strategy in a folder's run.json; None if there is none, or no sound file to say so."""
    try:
        info = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    vote = info.get("vote") if isinstance(info, dict) else None
    return vote if isinstance(vote, str) else None


def _sound(sample: dict[str, Any]) -> bool:
    """Whether the fields that points are made of have the types and lengths that they need."""
    lists = [sample.get(name) for name in (*_COSTS, *_VERDICTS)]
    return (
        all(isinstance(sample.get(name), str) for name in _TEXTS)
        and all(_amount(sample.get(name)) for name in _NUMBERS)
        and all(isinstance(each, list) and 0 < len(each) == len(sample["lengths"]) for each in lists)
        and all(_amount(value) for name in _COSTS for value in sample[name])
        and all(answer is None or isinstance(answer, str) for answer in sample["answers"])
        and all(len(sample.get(name, sample["lengths"])) == len(sample["lengths"]) for name in _OPTIONAL)
        and branches.sound(sample)
    )


def _amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf
