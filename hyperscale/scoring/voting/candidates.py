r"""Finds the candidates of a vote: equal answers are one, in whatever form they are written.

What is equal, the grader says (`Grader.equal_many`): ``\frac14`` and ``0.25`` are one candidate in mathematics, and two
programs are two.
"""

from collections.abc import Sequence

from hyperscale.scoring.graders.base import Grader
from hyperscale.scoring.voting.strategies import Vote

_MAX_COMPARED = 64  # wrong candidates of a problem; so many already decide no vote
_MAX_REMEMBERED = 200_000  # pairs of answers


class Candidates:
    """Unites the equal answers of a task's chains.

    Args:
        grader: The task's grader; None for one that is not known, whose answers are compared as texts.
    """

    def __init__(self, grader: Grader | None) -> None:
        self._grader = grader
        self._equal: dict[tuple[str, str], bool] = {}

    def unite(self, votes: Sequence[Vote]) -> list[Vote]:
        """The votes of a problem's chains, each answer written as its candidate's first occurring one.

        Right answers are one candidate, as each is equal to the target. A wrong answer joins the first of the wrong
        candidates, in order of occurrence, that its grader finds it equal to.

        Args:
            votes: In chain order.
        """
        if self._grader is None or not self._grader.compares_values:
            return list(votes)
        name: dict[tuple[str, bool], str] = {}
        wrong: list[str] = []  # the first answer of each wrong candidate
        right: str | None = None
        for answer, correct in dict.fromkeys((vote.answer, vote.correct) for vote in votes):
            if answer is None:
                continue
            if correct:
                right = answer if right is None else right
                name[answer, correct] = right
            else:
                same = self._find(answer, wrong[:_MAX_COMPARED])
                if same is None:
                    wrong.append(answer)
                name[answer, correct] = same or answer
        return [
            vote if vote.answer is None else vote._replace(answer=name[vote.answer, vote.correct]) for vote in votes
        ]

    def _find(self, answer: str, candidates: Sequence[str]) -> str | None:
        """The first candidate that an answer is equal to."""
        assert self._grader is not None
        pairs = [(candidate, answer) for candidate in candidates]
        if len(self._equal) > _MAX_REMEMBERED:
            self._equal.clear()
        unknown = [pair for pair in pairs if pair not in self._equal]
        if unknown:
            self._equal.update(zip(unknown, self._grader.equal_many(unknown), strict=True))
        return next((candidate for candidate, _ in pairs if self._equal[candidate, answer]), None)
