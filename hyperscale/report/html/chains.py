"""The report's chains: problems, each with its chains' answers, verdicts and costs, and the texts beside them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hyperscale import tasks
from hyperscale.methods.arm import Arm
from hyperscale.report.html import text_packing
from hyperscale.report.html.questions import Hashed, Question
from hyperscale.report.plots.styles import rank, series_name
from hyperscale.results.folder import Run
from hyperscale.results.samples import Sample
from hyperscale.results.truncation import TruncatedChain, truncate
from hyperscale.scoring.voting import strategies

MOST = 40_000  # chains that can be looked at
ANSWER = 200  # characters of an answer that are kept apart from its text
VERDICTS = ("right", "wrong", "truncated", "no answer")


class Shown(NamedTuple):
    """A chain with what its run says of it: the run's name, and the strategy chosen for its points."""

    sample: Sample
    run: str
    vote: str | None


def collect(
    runs: Sequence[Run], questions: Mapping[Hashed, Question], styles: Mapping[str, Any], room: int
) -> tuple[dict[str, Any], list[str]]:
    """What the chains' browser shows.

    Args:
        runs: The runs.
        questions: Questions that may be shown.
        styles: The frontiers' names.
        room: Bytes for the texts.

    Returns:
        The index (verdicts, arms, problems with their chains, and what was left out), and the texts' blocks, one a
        problem, in the problems' order, or none.
    """
    chains = [Shown(sample, run.name, run.vote) for run in runs for sample in run.samples]
    chains.sort(key=lambda chain: chain.sample.key)
    arms = _arms(chains)
    groups: dict[Hashed, list[Shown]] = defaultdict(list)
    for chain in chains:
        groups[chain.sample.task, chain.sample.problem, chain.sample.prompt_hash].append(chain)
    ordered = sorted(groups.items(), key=lambda item: [natural(part) for part in item[0]])
    kept = {id(chain.sample) for chain in _first(chains)} if len(chains) > MOST else None
    votes = {name: tasks.load(name).strategy for name in {chain.sample.task for chain in chains}}
    problems: list[dict[str, Any]] = []
    shown: list[list[str]] = []
    for asked, group in ordered:
        group.sort(key=lambda chain: (arms[_arm(chain)], chain.sample.seed, chain.sample.key.L, chain.sample.chain))
        part = [chain for chain in group if kept is None or id(chain.sample) in kept]
        shown.append([])
        problems.append(_problem(asked, group, part, arms, questions.get(asked), votes[asked[0]], shown[-1]))
    packed = text_packing.pack(shown, room)
    index = {
        "verdicts": VERDICTS,
        "arms": [_described(arm, arms, styles) for arm in arms],
        "problems": problems,
        "total": len(chains),
        "hidden": len(chains) - sum(len(problem["chains"]) for problem in problems),
        "shortened": packed.n_shortened,
        "limit": packed.limit,
    }
    return index, packed.blocks


def verdict(sample: Sample) -> int:
    """Place in `VERDICTS`: truncated is a chain that L cut off before it gave an answer, as in ``points.csv``."""
    final = _final(sample)
    if final.vote.answer is not None:
        return 0 if final.vote.correct else 1
    return 3 if final.complete else 2


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts p2 before p10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


RunArm = tuple[str, Arm, str]  # model, arm, run


def _arm(chain: Shown) -> RunArm:
    return (chain.sample.model, chain.sample.arm, chain.run)


def _arms(chains: Iterable[Shown]) -> dict[RunArm, int]:
    arms = {_arm(chain) for chain in chains}
    ordered = sorted(arms, key=lambda arm: (arm[0], rank(arm[1].method), arm[1].CR, arm[2]))
    return {arm: i for i, arm in enumerate(ordered)}


def _described(arm: RunArm, arms: Iterable[RunArm], styles: Mapping[str, Any]) -> dict[str, Any]:
    model, method_at_cr, run = arm
    name = str(method_at_cr)
    arms = list(arms)
    if len({each[0] for each in arms}) > 1:
        name += f" ({model})"
    if len({each[2] for each in arms}) > 1:
        name += f", {run}"
    method = method_at_cr.method
    return {"name": name, "series": series_name(method, model, method not in styles)}


def _first(chains: Iterable[Shown]) -> list[Shown]:
    """The chains to look at where there are too many: every problem's and arm's first, then the second ones."""
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    turns: list[tuple[int, int, Shown]] = []
    for chain in chains:
        asked = (chain.sample.task, chain.sample.problem, *_arm(chain))
        turns.append((seen[asked], len(turns), chain))
        seen[asked] += 1
    return [chain for _, _, chain in sorted(turns, key=lambda turn: turn[:2])[:MOST]]


def _problem(
    asked: Hashed,
    group: Sequence[Shown],
    shown: Sequence[Shown],
    arms: Mapping[RunArm, int],
    question: Question | None,
    vote: str,
    pages: list[str],
) -> dict[str, Any]:
    """One problem; the texts of its chains go to ``pages``, and behind them those of forced answers."""
    counts = [
        [arm, sum(verdict(chain.sample) == 0 for chain in part), len(part), _together(part, vote)]
        for arm, part in _split(group, lambda chain: arms[_arm(chain)]).items()
    ]
    answers: dict[str, int] = {}
    pages += [chain.sample.text for chain in shown]
    chains = [_chain(chain.sample, arms[_arm(chain)], answers, pages) for chain in shown]
    return {
        "task": asked[0],
        "id": asked[1],
        "level": group[0].sample.level,
        "question": question and question.prompt,
        "target": question and question.target,
        "arms": counts,
        "disagree": len({right for *_, right in counts}) > 1,
        "answers": [a if len(a) <= ANSWER else f"{a[:ANSWER]} …" for a in answers],
        "chains": chains,
    }


def _chain(sample: Sample, arm: int, answers: dict[str, int], pages: list[str]) -> list[Any]:
    """[arm, seed, chain, L, verdict, why it ended, prompt tokens, stops].

    A stop is what cutting the chain there gives: [tokens of the chain, tokens, KV reads and peak KV with those of a
    forced answer, characters of the text, place of the answer, whether it is right, place of the forced answer's text].
    """
    stops = []
    for cut in sample.cuts:
        there = _final(sample) if cut is sample.whole else truncate(sample, cut.L)
        if there is None:  # no answer was forced there, or the method's rule depends on L
            continue
        answer, reads, peak, tokens = there.vote.answer, there.costs[0], there.costs[1], there.costs[3]
        place = None if answer is None else answers.setdefault(answer, len(answers))
        page = None
        if cut.forced is not None and tokens > cut.tokens:
            page = len(pages)
            pages.append(cut.forced.text)
        stops.append([cut.tokens, tokens, round(reads, 1), round(peak, 1), cut.chars, place, +there.vote.correct, page])
    fields = (sample.seed, sample.chain, sample.L, verdict(sample))
    return [arm, *fields, sample.finish, sample.prompt_tokens, stops]


def _final(sample: Sample, scorer: str | None = None) -> TruncatedChain:
    """The chain at its own L, with the answer that was forced there, if one was."""
    whole = truncate(sample, sample.L, scorer) or truncate(replace(sample, forces_answers=False), sample.L, scorer)
    assert whole is not None, "a chain gives its own L"
    return whole


def _together(part: Sequence[Shown], vote: str) -> bool:
    """Whether all of an arm's chains, each at its own L, come to the right verdict in most seeds."""
    strategy = strategies.get(part[0].vote or vote)
    seeds = _split(part, lambda chain: chain.sample.seed).values()
    votes = [[_final(chain.sample, strategy.scorer).vote for chain in group] for group in seeds]
    wins = [strategy.accuracy([group], len(group))[0] for group in votes]
    return bool(sum(wins) > len(wins) / 2)


def _split(chains: Iterable[Shown], by: Any) -> dict[Any, list[Shown]]:
    parts: dict[Any, list[Shown]] = defaultdict(list)
    for chain in chains:
        parts[by(chain)].append(chain)
    return dict(parts)
