"""The texts of a stored chain that graders and scorers look at: the chain cut at each L, and each branch of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

Sample = dict[str, Any]


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
