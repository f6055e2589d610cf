"""Answers, verdicts and scores of a stored chain: of the chain cut at each L, and of each answer forced there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hyperscale.errors import ResultsError
from hyperscale.models import thinking
from hyperscale.results.redaction import as_words
from hyperscale.results.samples import Cut, Ending, ForcedAnswer, Sample
from hyperscale.scoring.graders.likelihood import LikelihoodGrader

if TYPE_CHECKING:
    from hyperscale.scoring.graders.base import Grader

E = TypeVar("E", bound=Ending)


class _Edit(Protocol):
    """Makes another ending of one and the text up to there."""

    def __call__(self, ending: E, text: str) -> E: ...


def endings(sample: Sample) -> list[tuple[Ending, str]]:
    """Every way in which a chain can end, and the text up to there: each cut, followed by the answer forced there."""
    pairs: list[tuple[Ending, str]] = []
    for cut in sample.cuts:
        text = sample.text[: cut.chars]
        pairs.append((cut, text))
        if cut.forced is not None:
            pairs.append((cut.forced, text + cut.forced.text))
    return pairs


def extract_answers(grader: "Grader", sample: Sample) -> list[str | None]:
    """What a grader finds in the texts that may hold an answer, in the order of `endings`.

    It reads what the prompt opened, and what was written; what is blacked out there counts as words. Of a problem that
    was scored by likelihood it is the option that a grader of likelihood chooses.

    Raises:
        ResultsError: Another grader is to grade what was scored.
    """
    if sample.options:
        if not isinstance(grader, LikelihoodGrader):
            raise ResultsError(
                f"{sample.task} was scored by likelihood, and {grader.name} grades it now: give the task another name"
            )
        return [grader.choose(sample.options)]
    return [
        grader.extract(
            sample.opened + thinking.in_table_marks(as_words(text), sample.marks), finished=_finished(sample, ending)
        )
        for ending, text in endings(sample)
    ]


def _finished(sample: Sample, ending: Ending) -> bool:
    """Whether the model itself ended the text there."""
    finish = ending.finish if isinstance(ending, ForcedAnswer) else sample.finish
    return finish == "stop" and (isinstance(ending, ForcedAnswer) or ending is sample.whole)


def answers(sample: Sample) -> list[str | None]:
    """The answers, in the order of `endings`."""
    return [ending.answer for ending, _ in endings(sample)]


def verdicts(sample: Sample) -> list[bool]:
    """The verdicts, in the order of `endings`."""
    return [ending.correct for ending, _ in endings(sample)]


def with_verdicts(sample: Sample, answers: Sequence[str | None], verdicts: Sequence[bool], **changes: Any) -> Sample:
    """The sample with other answers and verdicts, one for each of its `endings`, and other changes of its fields."""
    pairs = iter(zip(answers, verdicts, strict=True))  # consumed as `_edit_endings` comes to each ending

    def grade(ending: E, text: str) -> E:
        answer, correct = next(pairs)
        return replace(ending, answer=answer, correct=correct)

    return _edit_endings(sample, grade, **changes)


def with_scores(sample: Sample, scorer: str, score: Callable[[str], float]) -> Sample:
    """The sample with a scorer's score of every text that has an answer.

    Args:
        sample: A sample.
        scorer: The scorer's name.
        score: The score of a text; a text that occurs twice is scored once.
    """
    score_of: dict[str, float] = {}

    def add_score(ending: E, text: str) -> E:
        if ending.answer is None:
            return ending
        if text not in score_of:
            score_of[text] = score(text)
        return replace(ending, scores={**ending.scores, scorer: score_of[text]})

    return _edit_endings(sample, add_score)


def _edit_endings(sample: Sample, edit: _Edit, **changes: Any) -> Sample:
    """The sample with every ending edited, in the order of `endings`."""

    def edit_cut(cut: Cut) -> Cut:
        text = sample.text[: cut.chars]
        whole = edit(cut, text)  # before its forced answer: the order of `endings`
        return replace(whole, forced=cut.forced and edit(cut.forced, text + cut.forced.text))

    return replace(sample, cuts=tuple(edit_cut(cut) for cut in sample.cuts), **changes)
