"""Writes answers in words: what a budget buys, what equals the full cache for less, and what is not decided."""

import math
from collections.abc import Sequence

from hyperscale.analysis.answers import TOLERANCE, Answer, Best, Match, Verdict
from hyperscale.analysis.differences import Difference
from hyperscale.methods.names import VANILLA
from hyperscale.results.intervals import MIN_PROBLEMS, AccuracyInterval
from hyperscale.results.points import MeasuredPoint
from hyperscale.utils.quantities import format_quantity

_MOST_PROBLEMS = 100_000  # a larger number of problems that would decide is not a plan


def write_heading(answer: Answer, *, with_model: bool = False) -> str:
    """What an answer is about: task, problems, budget; ``with_model`` where several models are told of."""
    counts = sorted(set(answer.n_problems.values()))
    problems = _problems(counts[-1])
    if len(counts) > 1:
        problems = ", ".join(f"{method} on {_problems(n)}" for method, n in answer.n_problems.items())
    limit = "" if math.isinf(answer.ceiling) else f", at most {format_cost(answer.ceiling, answer.axis)} each"
    return f"{answer.model + ' on ' if with_model else ''}{answer.task}, {problems}{limit}"


def write_sentences(answer: Answer) -> list[str]:
    """An answer in words, a sentence or two each."""
    sentences = [_sentence_of_bests(answer)]
    if answer.base is None:
        missing = "there are no chains of the full cache to compare with: add vanilla to --method, "
        missing += "or run these methods under the name of the model whose full cache has run"
        return [*sentences, missing[0].upper() + missing[1:] + "."]
    if float(answer.base.accuracy.mean()) <= 0:
        sentences.append(f"The full cache has solved none ({answer.base.label}): there is nothing to keep up with.")
    matches = [match for match in answer.matches if match.accuracy > 0 or match.base_accuracy > 0]
    few = {match.method: match.difference.n_problems for match in matches if not match.difference.has_interval}
    named = ""
    for match in matches:
        # What the full cache's best is stands in the first sentence about it, and again where it is another one.
        name = f" ({match.base.label}, {format_share(match.base_accuracy)})"
        base = f"the full cache's best{_describe_overlap(answer, match)}{name if name != named else ''}"
        sentences.append((_measured if match.method in few else _sentence_of_match)(answer, match, base))
        named = name
    if few:
        about = "" if len(few) == len({match.method for match in matches}) else f" of {', '.join(few)}"
        fewest, most = min(few.values()), max(few.values())
        count = f"{fewest} to {most}" if fewest < most else str(most)
        problems = f"{count} problem{'s are' if most > 1 else ' is'}"
        sentences.append(f"Nothing is decided{about}: {problems} too few for intervals, which need {MIN_PROBLEMS}.")
    return sentences


def write_paragraphs(answers: Sequence[Answer]) -> list[tuple[str, list[str]]]:
    """All answers: a heading and its sentences each."""
    with_model = len({answer.model for answer in answers}) > 1
    return [(write_heading(answer, with_model=with_model), write_sentences(answer)) for answer in answers]


def format_cost(value: float, axis: str) -> str:
    """A cost with its axis: ``44.2K kv_reads``."""
    return f"{format_quantity(value)} {axis}"


def format_share(accuracy: float, interval: AccuracyInterval | None = None) -> str:
    """An accuracy as a percentage with its interval: ``83.3 % [80, 86]``."""
    text = f"{100 * accuracy:.1f} %"
    if interval is None or math.isnan(interval.low):
        return text
    return f"{text} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def format_difference(difference: Difference) -> str:
    """A difference in points with its interval: ``+1.2 [-0.3, +2.4]``."""
    value = f"{difference.value:+.1f}"
    return f"{value} [{difference.low:+.1f}, {difference.high:+.1f}]" if difference.has_interval else value


def configuration(point: MeasuredPoint) -> str:
    """A method's point: ``dms 4-1K-8`` is its W-L-CR."""
    return f"{point.series.method} {point.label}"


def _sentence_of_bests(answer: Answer) -> str:
    """What the budget buys with each method."""
    reached = [best for best in answer.bests if best.point is not None]
    parts = [_describe_best(best, answer) for best in sorted(reached, key=_order)]
    verb = "Measured at best" if math.isinf(answer.ceiling) else "The budget buys"
    text = f"{verb}: {'; '.join(parts)}." if parts else ""
    missing = [
        f"No point of {best.method} is within the budget: its cheapest costs {format_cost(best.cost, answer.axis)}."
        for best in answer.bests
        if best.point is None
    ]
    return " ".join(filter(None, [text, *missing]))


def _order(best: Best) -> tuple[bool, float]:
    """The full cache first, then the most accurate."""
    assert best.point is not None
    return best.method != VANILLA, -float(best.point.accuracy.mean())


def _describe_best(best: Best, answer: Answer) -> str:
    assert best.point is not None
    name = f"{best.method} (the full cache)" if best.method == VANILLA else best.method
    accuracy = format_share(float(best.point.accuracy.mean()), best.interval)
    return f"{name} {accuracy} at {best.point.label} with {format_cost(best.cost, answer.axis)}"


def _sentence_of_match(answer: Answer, match: Match, base: str) -> str:
    """A method beside the full cache's best, which is called ``base``."""
    difference = f"{format_difference(match.difference)} points"
    if match.verdict is Verdict.EQUAL:
        name = configuration(match.point)
        equals = f"{name} keeps up with {base}: {difference}, so at most {TOLERANCE:g} below"
        exceeds = f"{name} is more accurate than {base}, by {difference}"
        return f"{exceeds if match.difference.low > 0 else equals}. It has {_describe_cost(answer, match)}."
    if match.verdict is Verdict.BELOW:
        return f"{match.method} stays below {base}: {difference} at its own best, {match.point.label}."
    return (
        f"Not decided: whether {configuration(match.point)} keeps up with {base}: {difference}{_remedy(match)}. "
        f"It has {_describe_cost(answer, match)}."
    )


def _measured(answer: Answer, match: Match, base: str) -> str:
    """A method beside the full cache's best, where nothing can be decided."""
    verb = "measured no lower than" if match.difference.value >= 0 else "measured lower than"
    return f"{configuration(match.point)} {verb} {base}: {_describe_cost(answer, match)}."


def _problems(count: int) -> str:
    """So many problems, in words."""
    return f"{count} problem{'s' * (count != 1)}"


def _describe_overlap(answer: Answer, match: Match) -> str:
    """Which problems a comparison rests on, where the two were run on unlike ones."""
    shared = match.difference.n_problems
    return (
        ""
        if {answer.n_problems[match.method], answer.n_problems[VANILLA]} == {shared}
        else f" on the {_problems(shared)} of both"
    )


def _describe_cost(answer: Answer, match: Match) -> str:
    """A configuration's accuracy and cost, and what the full cache needs for that, or for the most it reaches."""
    own = f"{format_share(match.accuracy, match.interval)} with {format_cost(match.cost, answer.axis)}"
    # Nothing right is to be had for nothing: what the cheapest point of the full cache costs is no comparison.
    if match.accuracy <= 0 or match.cost <= 0 or not math.isfinite(match.base_cost):
        return own
    factor = match.base_cost / match.cost
    times = f"{factor:.2g}" if factor < 99.5 else f"{factor:,.0f}"  # two digits of 99.6 would be 1e+02
    cost = f"{'' if factor > 1 else 'only '}{format_quantity(match.base_cost)}"
    if match.exceeds_base:
        return f"{own}; the full cache does not reach that: its best costs {cost} ({times}×)"
    return f"{own}; the full cache needs {cost} for that ({times}×)"


def _remedy(match: Match) -> str:
    """How many problems would decide."""
    if match.more_problems is None or match.more_problems > _MOST_PROBLEMS:
        return ""
    return f"; about {match.more_problems:,} problems would tell, if nothing else changes"
