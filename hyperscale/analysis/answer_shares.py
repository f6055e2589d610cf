"""Says where most chains of a run give no answer: its accuracies then measure something else than the model."""

from collections.abc import Sequence

from hyperscale.methods.arm import Arm
from hyperscale.results.points import MeasuredPoint, SeriesKey

MOST = 0.5
"""Share of chains without an answer above which a run says so."""


def answer_notes(points: Sequence[MeasuredPoint]) -> list[str]:
    """A sentence for each task and arm of which more than half of the chains have no answer, at the largest L it has.

    At smaller L many chains are cut off in every run.
    """
    longest: dict[SeriesKey, MeasuredPoint] = {}
    for point in points:
        other = longest.get(point.series)
        # Of the widths, the smallest: there every problem counts that has a chain.
        if other is None or (point.L, -point.W) > (other.L, -other.W):
            longest[point.series] = point
    return [_sentence(point) for point in longest.values() if point.truncated + point.no_answer > MOST]


def _sentence(point: MeasuredPoint) -> str:
    series = point.series
    arm = Arm(series.method, series.CR, kv_budget=series.kv_budget)
    if point.truncated >= point.no_answer:
        advice = "choose a larger --length, or let chains answer at L with --force-answer K (a larger K if they do)"
    else:
        advice = "see in `hyperscale report` what they write instead, and in docs/graders.md what an answer is"
    return (
        f"{series.task}, {arm}: at L = {point.L:,}, {point.truncated:.0%} of the chains were cut off before an answer "
        f"and {point.no_answer:.0%} ended without one: {advice}"
    )
