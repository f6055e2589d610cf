"""Orders the chains of an arm by how long they are expected to be, for engines that share them out.

What runs last should be short, so that engines end together. A problem's chains are about as long under every method:
those that other arms, or a pilot, have finished tell.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperscale.engines.base import Request
    from hyperscale.results.samples import Sample
    from hyperscale.run.prepare import Problem


def longest_first(
    requests: "Sequence[tuple[Problem, Request]]", samples: "Iterable[Sample]"
) -> "list[tuple[Problem, Request]]":
    """The requests with the longest expected first; those that are expected to be as long stay in their order.

    Args:
        requests: Each with its problem.
        samples: Finished chains of the run, of any arm. A chain is expected to be as long as the mean of its problem's,
            else of its task's, else as its L; at most as its L.
    """
    of_problem: dict[tuple[str, str], list[int]] = {}
    of_task: dict[str, list[int]] = {}
    for sample in samples:
        tokens = sample.whole.tokens
        of_problem.setdefault((sample.task, sample.problem), []).append(tokens)
        of_task.setdefault(sample.task, []).append(tokens)
    means = {key: fmean(values) for key, values in of_problem.items()}
    task_means = {task: fmean(values) for task, values in of_task.items()}

    def expected(pair: "tuple[Problem, Request]") -> float:
        problem, request = pair
        name = problem.task.name
        return min(request.L, means.get((name, problem.doc.id), task_means.get(name, request.L)))

    return sorted(requests, key=lambda pair: -expected(pair))
