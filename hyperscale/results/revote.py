"""Another strategy for the chains of a run: scores them where it needs scores, and makes the points anew."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyperscale.errors import ConfigError
from hyperscale.results import grading
from hyperscale.results.manifest import read_info
from hyperscale.results.regrade import doc_of, problems, require_chains
from hyperscale.results.samples import Sample
from hyperscale.results.store import Store
from hyperscale.scoring.voting import reward_models, strategies
from hyperscale.tasks.datasets import data_by_task

if TYPE_CHECKING:
    from hyperscale.results.points import MeasuredPoint

TASK = "task"


def choose(vote: str, scorer: str | None) -> str | None:
    """The name of a strategy as it is kept with a run, from what a user asks for.

    Args:
        vote: Name of a strategy, or "task" for each task's own.
        scorer: "logprob", or folder or hub id of a reward model; for best-of-n alone.

    Returns:
        The name; None for each task's own.

    Raises:
        ConfigError: There is no such strategy, or it takes no scorer.
        ModelError: There is no such scorer.
    """
    strategy = None if vote.strip().lower() == TASK else _find_strategy(vote)
    if scorer is not None and (strategy is None or strategy.scorer is None or ":" in vote):
        raise ConfigError(f"--scorer goes with --vote best-of-n, not with {vote}")
    if strategy is not None and scorer is not None:
        judge = reward_models.get(scorer)
        strategy = strategies.BestOfN(judge.name if judge else strategies.LOGPROB)
    return None if strategy is None else strategy.name


def _find_strategy(vote: str) -> strategies.Strategy:
    """A strategy that may be chosen for finished chains."""
    try:
        strategy = strategies.get(vote)
    except ConfigError as error:
        raise ConfigError(f"--vote: {error}, or {TASK} for each task's own") from None
    if isinstance(strategy, strategies.Likelihood):  # a task's own, which takes no vote
        raise ConfigError(f"--vote {vote}: only tasks scored by likelihood have it: choose another, or {TASK}")
    return strategy


def revote(
    folder: Path,
    vote: str,
    scorer: str | None = None,
    *,
    device: str = "cpu",
    data: Mapping[str, str] | None = None,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> "list[MeasuredPoint]":
    """Make the points of a run with another strategy, from the chains it has; the choice is kept in its run.json.

    A reward model scores every text that has an answer, of cut chains and forced answers too, and the scores are stored
    with the chains. In runs on gated tasks it reads the stored text, in which quotations of the question are blacked
    out.

    Args:
        folder: The run's folder.
        vote: See `choose`.
        scorer: See `choose`.
        device: Where a reward model runs.
        data: As for `regrade.regrade`.
        step: Told how many chains of how many are scored.

    Raises:
        ConfigError, ModelError: See `choose`; or the reward model cannot be used.
        ResultsError: The folder holds no run, is in use or corrupt, or its chains lack what the strategy needs.
        TaskError: The problems that a reward model has to see are missing.
    """
    strategy = choose(vote, scorer)
    info = read_info(folder)  # before the store, which would make a folder that is not there
    require_chains(folder)
    with Store(folder, info) as store:
        if strategy is not None and all(sample.options for sample in store.samples()):
            raise ConfigError(
                f"--vote {vote}: all problems of {folder} were scored by likelihood, one verdict each, so nothing votes"
            )
        judge = reward_models.get(scorer, device) if scorer else None
        if judge is not None:
            names = tuple(dict.fromkeys(sample.task for sample in store.samples()))
            files = {**(info.get("data") or {}), **data_by_task(dict(data or {}), names)}
            docs = {name: {doc.id: doc for doc in problems(name, info, files.get(name))[1]} for name in names}

            def scored() -> Iterator[Sample]:
                for count, sample in enumerate(store.samples(), start=1):
                    prompt = doc_of(sample, docs[sample.task]).prompt
                    yield grading.with_scores(sample, judge.name, partial(judge.score, prompt))
                    step(count, len(store))

            store.replace(scored())
        # The choice is kept only if its points can be made: the strategy may need scores that the chains lack.
        before = store.vote
        store.set_vote(strategy)
        try:
            return store.write_points()
        except BaseException:
            store.set_vote(before)
            raise
