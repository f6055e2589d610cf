"""The report's chains: problems, each with its chains' answers, verdicts and costs, and the texts beside them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hyperscale import tasks
from hyperscale.report.html import text_packing
from hyperscale.report.html.frontiers import plain
from hyperscale.report.html.questions import Hashed, Question
from hyperscale.report.plots.styles import rank, series_name
from hyperscale.results.truncation import Cut, cut
from hyperscale.scoring.voting import strategies

MOST = 40_000  # chains that can be looked at
ANSWER = 200  # characters of an answer that are kept apart from its text
VERDICTS = ("right", "wrong", "truncated", "no answer")

Sample = Mapping[str, Any]


def collect(
    samples: Sequence[Sample], questions: Mapping[Hashed, Question], styles: Mapping[str, Any], room: int
) -> tuple[dict[str, Any], list[str]]:
    """What the chains' browser shows.

    Args:
        samples: Lines of ``samples.jsonl``.
        questions: Questions that may be shown.
        styles: The frontiers' names.
        room: Bytes for the texts.

    Returns:
        The index (verdicts, arms, problems with their chains, and what was left out), and the texts' blocks, one a
        problem, in the problems' order, or none.
    """
    arms = _arms(samples)
    groups: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample["task"], sample["problem"], str(sample.get("prompt_hash", ""))].append(sample)
    ordered = sorted(groups.items(), key=lambda item: [natural(part) for part in item[0]])
    kept = {id(sample) for sample in _first(samples)} if len(samples) > MOST else None
    votes = {name: tasks.load(name).strategy for name in {sample["task"] for sample in samples}}
    problems: list[dict[str, Any]] = []
    shown: list[list[str]] = []
    for asked, group in ordered:
        group.sort(key=lambda s: (arms[_arm(s)], s["seed"], s["max_new_tokens"] if _fixed(s) else 0, s["chain"]))
        part = [sample for sample in group if kept is None or id(sample) in kept]
        shown.append([])
        problems.append(_problem(asked, group, part, arms, questions.get(asked), votes[asked[0]], shown[-1]))
    packed = text_packing.pack(shown, room)
    index = {
        "verdicts": VERDICTS,
        "arms": [_described(arm, arms, styles) for arm in arms],
        "problems": problems,
        "total": len(samples),
        "hidden": len(samples) - sum(len(problem["chains"]) for problem in problems),
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


Arm = tuple[str, str, float, str]  # model, method, CR, run


def _arm(sample: Sample) -> Arm:
    return (str(sample["model"]), sample["method"], float(sample["CR"]), str(sample["run"]))


def _arms(samples: Iterable[Sample]) -> dict[Arm, int]:
    found = sorted({_arm(sample) for sample in samples}, key=lambda arm: (arm[0], rank(arm[1]), *arm[2:]))
    return {arm: i for i, arm in enumerate(found)}


def _described(arm: Arm, arms: Iterable[Arm], styles: Mapping[str, Any]) -> dict[str, Any]:
    model, method, cr, run = arm
    name = f"{method} {cr:g}×" if cr != 1 else method
    arms = list(arms)
    if len({each[0] for each in arms}) > 1:
        name += f" ({model})"
    if len({each[3] for each in arms}) > 1:
        name += f", {run}"
    return {"name": name, "series": series_name(method, model, method not in styles)}


def _fixed(sample: Sample) -> bool:
    return not sample.get("length_invariant", True)


def _first(samples: Iterable[Sample]) -> list[Sample]:
    """The chains to look at where there are too many: every problem's and arm's first, then the second ones."""
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    turns: list[tuple[int, int, Sample]] = []
    for sample in samples:
        asked = (sample["task"], sample["problem"], *_arm(sample))
        turns.append((seen[asked], len(turns), sample))
        seen[asked] += 1
    return [sample for _, _, sample in sorted(turns, key=lambda turn: turn[:2])[:MOST]]


def _problem(
    asked: Hashed,
    group: Sequence[Sample],
    shown: Sequence[Sample],
    arms: Mapping[Arm, int],
    question: Question | None,
    vote: str,
    pages: list[str],
) -> dict[str, Any]:
    """One problem; the texts of its chains go to ``pages``, and behind them those of forced answers."""
    counts = [
        [arm, sum(verdict(sample) == 0 for sample in part), len(part), _together(part, vote)]
        for arm, part in _split(group, lambda sample: arms[_arm(sample)]).items()
    ]
    answers: dict[str, int] = {}
    pages += [sample["text"] for sample in shown]
    chains = [_chain(sample, arms, answers, pages) for sample in shown]
    return {
        "task": asked[0],
        "id": asked[1],
        "level": plain(group[0].get("level")),
        "question": question and question.prompt,
        "target": question and question.target,
        "arms": counts,
        "disagree": len({right for *_, right in counts}) > 1,
        "answers": [a if len(a) <= ANSWER else f"{a[:ANSWER]} …" for a in answers],
        "chains": chains,
    }


def _chain(sample: Sample, arms: Mapping[Arm, int], answers: dict[str, int], pages: list[str]) -> list[Any]:
    """[arm, seed, chain, L, verdict, why it ended, prompt tokens, stops].

    A stop is what cutting the chain there gives: [tokens of the chain, tokens, KV reads and peak KV with those of a
    forced answer, characters of the text, place of the answer, whether it is right, place of the forced answer's text].
    """
    forced = {branch["at"]: branch["text"] for branch in sample.get("branches") or ()}
    limits = [*sample["lengths"][:-1], sample["max_new_tokens"]]
    stops = []
    for at, limit, chars in zip(sample["lengths"], limits, sample["chars"], strict=True):
        there = _final(sample) if limit == limits[-1] else cut(sample, limit)
        if there is None:  # no answer was forced there, or the method's rule depends on L
            continue
        answer, reads, peak, tokens = there.vote.answer, there.costs[0], there.costs[1], there.costs[3]
        place = None if answer is None else answers.setdefault(answer, len(answers))
        page = None
        if tokens > at:
            page = len(pages)
            pages.append(forced[at])
        stops.append([at, tokens, round(reads, 1), round(peak, 1), chars, place, +there.vote.correct, page])
    fields = (sample["seed"], sample["chain"], sample["max_new_tokens"], verdict(sample))
    return [arms[_arm(sample)], *fields, str(sample.get("finish", "")), sample["prompt_tokens"], stops]


def _final(sample: Sample, scorer: str | None = None) -> Cut:
    """The chain at its own L, with the answer that was forced there, if one was."""
    limit = sample["max_new_tokens"]
    found = cut(sample, limit, scorer) or cut({k: v for k, v in sample.items() if k != "branches"}, limit, scorer)
    assert found is not None, "a chain gives its own L"
    return found


def _together(part: Sequence[Sample], vote: str) -> bool:
    """Whether all of an arm's chains, each at its own L, come to the right verdict in most seeds."""
    strategy = strategies.get(part[0].get("vote") or vote)
    seeds = _split(part, lambda sample: sample["seed"]).values()
    wins = [strategy.accuracy([[_final(s, strategy.scorer).vote for s in c]], len(c))[0] for c in seeds]
    return bool(sum(wins) > len(wins) / 2)


def _split(samples: Iterable[Sample], by: Any) -> dict[Any, list[Sample]]:
    parts: dict[Any, list[Sample]] = defaultdict(list)
    for sample in samples:
        parts[by(sample)].append(sample)
    return dict(parts)
