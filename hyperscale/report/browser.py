"""The report's chains: problems, each with its chains' answers, verdicts and costs, and the texts beside them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hyperscale import tasks
from hyperscale.report import texts
from hyperscale.report.numbers import rank
from hyperscale.report.questions import Hashed, Question
from hyperscale.scoring import voting

MOST = 40_000  # chains that can be looked at
ANSWER = 200  # characters of an answer that are kept apart from its text
_CUTS = ("lengths", "kv_reads", "peak_kv", "chars", "answers", "correct")
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
    problems, shown = [], []
    for asked, group in ordered:
        group.sort(key=lambda s: (arms[_arm(s)], s["seed"], s["max_new_tokens"] if _fixed(s) else 0, s["chain"]))
        part = [sample for sample in group if kept is None or id(sample) in kept]
        problems.append(_problem(asked, group, part, arms, questions.get(asked)))
        shown.append([sample["text"] for sample in part])
    packed = texts.pack(shown, room)
    index = {
        "verdicts": VERDICTS,
        "arms": [_described(arm, arms, styles) for arm in arms],
        "problems": problems,
        "total": len(samples),
        "hidden": sum(len(group) for group in groups.values()) - sum(map(len, shown)),
        "shortened": packed.shortened,
        "limit": packed.limit,
    }
    return index, packed.blocks


def verdict(sample: Sample) -> int:
    """Place in `VERDICTS`: truncated is a chain that L cut off before it gave an answer, as in ``points.csv``."""
    if sample["answers"][-1] is not None:
        return 0 if sample["correct"][-1] else 1
    return 2 if sample.get("finish") == "length" else 3


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
    return {"name": name, "series": method if method in styles else f"{method} ({model})"}


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
    asked: Hashed, group: Sequence[Sample], shown: Sequence[Sample], arms: Mapping[Arm, int], question: Question | None
) -> dict[str, Any]:
    strategy = tasks.load(asked[0]).strategy
    counts = [
        [arm, sum(map(_right, part)), len(part), _voted(part, strategy)]
        for arm, part in _split(group, lambda sample: arms[_arm(sample)]).items()
    ]
    answers: dict[str, int] = {}
    chains = [_chain(sample, arms, answers) for sample in shown]
    return {
        "task": asked[0],
        "id": asked[1],
        "level": group[0].get("level"),
        "question": question and question.prompt,
        "target": question and question.target,
        "arms": counts,
        "disagree": len({voted for *_, voted in counts}) > 1,
        "answers": [a if len(a) <= ANSWER else f"{a[:ANSWER]} …" for a in answers],
        "chains": chains,
    }


def _chain(sample: Sample, arms: Mapping[Arm, int], answers: dict[str, int]) -> list[Any]:
    """[arm, seed, chain, L, verdict, why it ended, prompt tokens, and the costs and answer at each cut]."""

    def place(answer: str | None) -> int | None:
        return None if answer is None else answers.setdefault(answer, len(answers))

    return [
        arms[_arm(sample)],
        sample["seed"],
        sample["chain"],
        sample["max_new_tokens"],
        verdict(sample),
        str(sample.get("finish", "")),
        sample["prompt_tokens"],
        [
            [tokens, round(reads, 1), round(peak, 1), chars, place(a), +ok]
            for tokens, reads, peak, chars, a, ok in zip(*(sample[name] for name in _CUTS), strict=True)
        ],
    ]


def _right(sample: Sample) -> bool:
    return verdict(sample) == 0


def _voted(part: Sequence[Sample], strategy: str) -> bool:
    """Whether all of an arm's chains, each at its full length, vote for the right answer in most seeds."""
    wins = []
    for chains in _split(part, lambda sample: sample["seed"]).values():
        if strategy == "majority":
            winner = voting.majority([sample["answers"][-1] for sample in chains])
            wins.append(any(_right(s) for s in chains if winner is not None and s["answers"][-1] == winner))
        else:
            wins.append(any(map(_right, chains)))
    return 2 * sum(wins) > len(wins)


def _split(samples: Iterable[Sample], by: Any) -> dict[Any, list[Sample]]:
    parts: dict[Any, list[Sample]] = defaultdict(list)
    for sample in samples:
        parts[by(sample)].append(sample)
    return dict(parts)
