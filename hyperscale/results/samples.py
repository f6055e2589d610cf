"""The on-disk store of a run: what was asked, every finished chain, and the points derived from them.

A run is a folder: ``run.json`` (resolved configuration, versions, hardware, seeds), ``samples.jsonl`` (append-only, one
finished chain a line, on the disk before the next) and ``points.csv`` (derived, can always be rebuilt). A chain is
known by its key; a store opened again holds every chain that was ever finished, so a killed run resumes without loss.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ResultsError
from hyperscale.results.manifest import RUN, SCHEMA

if TYPE_CHECKING:
    from hyperscale.engines.base import Branch, Chain
    from hyperscale.scoring.graders.base import Grader
from hyperscale.results.grading import Sample, graded, start, texts

Key = tuple[str, str, str, float, int, int, int]
_TEXTS = ("task", "problem", "method", "text")
_NUMBERS = ("CR", "seed", "chain", "max_new_tokens", "prompt_tokens", "tokens", "seconds", "kv_entry_bytes")
_OPTIONAL = ("logprobs", "inserted")  # which samples of the first versions lack
_COSTS, _VERDICTS = ("lengths", "kv_reads", "peak_kv", "chars"), ("answers", "correct")


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
        and sound(sample)
    )


def _amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def fields(chain: "Chain", grader: "Grader", target: Any, hide: Callable[[str], str] | None, branched: bool) -> Sample:
    """What ``samples.jsonl`` holds of a chain's text: its cuts, its branches, their answers and verdicts.

    Args:
        chain: The chain.
        grader: Grader of its task.
        target: The problem's target.
        hide: Blacks out what must not be stored, at the same length; answers are read before. None for nothing.
        branched: Whether the run forces answers, so that every chain says which branches it has.
    """
    sample: Sample = {
        "chars": list(chain.trace.chars),
        "logprobs": list(chain.trace.logprobs),
        "inserted": list(chain.trace.inserted),
        "answers": [],
        "correct": [],
        "text": chain.text,
    }
    if branched:
        sample["branches"] = [_stored(branch) for branch in chain.branches]
    cut = {**sample, "lengths": chain.trace.lengths}
    said = [grader.extract(text) for text in texts(cut)]
    sample = graded(sample, said, [answer is not None and grader.correct(answer, target) for answer in said])
    if hide is not None:
        for branch in sample.get("branches", []):
            before = start(cut, branch["at"])
            branch["text"] = hide(chain.text[:before] + branch["text"])[before:]
        sample["text"] = hide(chain.text)
    return sample


def _stored(branch: "Branch") -> Sample:
    return {
        "at": branch.at,
        "tokens": branch.at + len(branch.token_ids),
        "finish": branch.finish,
        "logprob": branch.logprob,
        "inserted": branch.inserted,
        "seconds": round(branch.seconds, 4),
        "kv_reads": branch.kv_reads,
        "peak_kv": branch.peak_kv,
        "text": branch.text,
    }


def sound(sample: Mapping[str, Any]) -> bool:
    """Whether a line's branches have the fields, of the types, that points are made of."""
    found = sample.get("branches", [])
    numbers = ("tokens", "inserted", "seconds", "kv_reads", "peak_kv")
    return isinstance(found, list) and all(
        isinstance(branch, dict)
        and branch.get("at") in sample["lengths"]
        and all(isinstance(branch.get(name), int | float) and branch[name] >= 0 for name in numbers)
        and isinstance(branch.get("logprob"), int | float)
        and isinstance(branch.get("text"), str)
        and isinstance(branch.get("finish"), str)
        and isinstance(branch.get("answer", 0), str | None)
        and isinstance(branch.get("correct"), bool)
        for branch in found
    )
