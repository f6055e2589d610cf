"""The texts of a stored chain that graders and scorers look at: the chain cut at each L, and each branch of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperscale.engines.base import Branch, Chain
    from hyperscale.scoring.graders.base import Grader

Sample = dict[str, Any]


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


def texts(sample: Mapping[str, Any]) -> list[str]:
    """The texts that may hold an answer: the chain up to each of its lengths, then each branch with what it follows."""
    return [sample["text"][:end] for end in sample["chars"]] + [
        sample["text"][: start(sample, branch["at"])] + branch["text"] for branch in sample.get("branches") or ()
    ]


def start(sample: Mapping[str, Any], at: int) -> int:
    """Characters of the chain's text in front of a branch that leaves it after ``at`` tokens."""
    return int(sample["chars"][list(sample["lengths"]).index(at)])


def answers(sample: Mapping[str, Any]) -> list[str | None]:
    """The stored answers, in the order of `texts`."""
    return [*sample["answers"], *(branch["answer"] for branch in sample.get("branches") or ())]


def verdicts(sample: Mapping[str, Any]) -> list[bool]:
    """The stored verdicts, in the order of `texts`."""
    return [*sample["correct"], *(branch["correct"] for branch in sample.get("branches") or ())]


def graded(sample: Sample, found: Sequence[str | None], correct: Sequence[bool]) -> Sample:
    """The sample with other answers and verdicts, in the order of `texts`."""
    n = len(sample["chars"])
    made = {**sample, "answers": list(found[:n]), "correct": list(correct[:n])}
    if "branches" in sample:
        rest = zip(sample["branches"], found[n:], correct[n:], strict=True)
        made["branches"] = [{**branch, "answer": answer, "correct": right} for branch, answer, right in rest]
    return made


def scored(sample: Sample, name: str, score: Callable[[str], float]) -> Sample:
    """The sample with a scorer's score of every text that has an answer; None for the others.

    Args:
        sample: A line of ``samples.jsonl``.
        name: The scorer's name.
        score: The score of a text; a text that occurs twice is scored once.
    """
    known: dict[str, float] = {}
    scores: list[float | None] = []
    for text, answer in zip(texts(sample), answers(sample), strict=True):
        if answer is not None and text not in known:
            known[text] = score(text)
        scores.append(None if answer is None else known[text])
    n = len(sample["chars"])
    made = {**sample, "scores": {**sample.get("scores", {}), name: scores[:n]}}
    if "branches" in sample:
        made["branches"] = [
            {**branch, "scores": {**branch.get("scores", {}), name: one}}
            for branch, one in zip(sample["branches"], scores[n:], strict=True)
        ]
    return made


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
