"""Generates the built-in test sets from fixed seeds; a hash of the prompt keeps them apart from all training data."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.mini.problems import aime, gpqa, lcb
from hyperscale.mini.problems.worked_problem import WorkedProblem, is_test
from hyperscale.mini.vocab import decode

Generator = Callable[[Random, int | None], WorkedProblem]
GENERATORS: dict[str, Generator] = {"aime": aime.generate, "gpqa": gpqa.generate, "lcb": lcb.generate}
LEVEL_COUNT = 5


@dataclass(frozen=True)
class BenchmarkProblem:
    """One test problem.

    Attributes:
        id: Unique name, a function of kind, seed and place.
        prompt: The user message.
        answer: The expected answer: an integer, a letter, or the names of the two steps.
        tests: Hidden tests of a program (``input`` and ``output`` lists), else empty.
        level: Difficulty, 1 to 5; levels take turns, so any first n problems are balanced.
    """

    id: str
    prompt: str
    answer: str
    tests: list[dict[str, Any]]
    level: int


def generate_problems(kind: str, n: int = 200, seed: int = 0) -> list[BenchmarkProblem]:
    """The first ``n`` test problems of a benchmark.

    Args:
        kind: "aime", "gpqa" or "lcb".
        n: Number of problems; a smaller set is a prefix of a larger one.
        seed: Another seed gives another test set.

    Raises:
        TaskError: Unknown kind.
    """
    if kind not in GENERATORS:
        raise TaskError(f"no built-in benchmark '{kind}'; there are {', '.join(GENERATORS)}")
    problems: list[BenchmarkProblem] = []
    prompts: set[str] = set()
    for draw in count():
        if len(problems) == n:
            break
        # Each draw has a random generator of its own, and draws its prompt first: a change in how chains are written
        # leaves the test set as it is.
        level = len(problems) % LEVEL_COUNT + 1
        problem = GENERATORS[kind](Random(f"hyperscale-{kind}-{seed}-{draw}"), level)
        prompt = decode(problem.prompt)
        if is_test(problem.prompt) and prompt not in prompts:
            prompts.add(prompt)
            name = f"mini_{kind}-{seed}-{len(problems)}"
            problems.append(BenchmarkProblem(name, prompt, problem.answer, problem.tests, level))
    return problems


def generate_training_problem(rng: Random, kind: str) -> WorkedProblem:
    """A random problem that is not in the test split."""
    while True:
        problem = GENERATORS[kind](rng, None)
        if not is_test(problem.prompt):
            return problem
