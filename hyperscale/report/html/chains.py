"""Collects the report's chains: problems, each with its chains' answers, verdicts and costs, and their texts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hyperscale import tasks
from hyperscale.methods.names import rank
from hyperscale.models import thinking
from hyperscale.report.html import text_packing
from hyperscale.report.html.failures import UNEXPLAINED, Explanation
from hyperscale.report.html.questions import ProblemKey, Question
from hyperscale.report.html.shares import RunArm, collect_shares
from hyperscale.report.html.text_folder import TextFolder
from hyperscale.report.plots.styles import series_name
from hyperscale.results.folder import Run, RunChain
from hyperscale.results.points import MeasuredPoint, candidates_of, name_cache, series_of
from hyperscale.results.samples import Sample
from hyperscale.results.truncation import TruncatedChain, truncate
from hyperscale.scoring.voting import strategies
from hyperscale.utils.sorting import natural_order

MAX_CHAINS = 40_000  # that the page lists
MAX_ANSWER = 200  # characters of an answer in the list; its text has all of it
VERDICTS = ("right", "wrong", "truncated", "no answer")


def collect_chains(
    runs: Sequence[Run],
    questions: Mapping[ProblemKey, Question],
    room: int,
    points: Sequence[MeasuredPoint] = (),
    explanation: Explanation = UNEXPLAINED,
    folder: TextFolder | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The data of the page's browser of problems and chains.

    Args:
        runs: The runs.
        questions: Questions that may be shown.
        room: Bytes for the texts.
        points: The runs' points, in the order of the page and with the names that their series have in the runs.
        explanation: Why programs are wrong.
        folder: Where texts are written that do not fit into the room; None to shorten them.

    Returns:
        The index (verdicts, arms, problems with their chains, points with the problems that they are right on, and what
        was left out), and the texts' blocks, one a
        problem, in the problems' order, or none.
    """
    chains = [RunChain(sample, run) for run in runs for sample in run.samples]
    chains.sort(key=lambda chain: chain.sample.key)
    arms = _arms(chains)
    groups: dict[ProblemKey, list[RunChain]] = defaultdict(list)
    for chain in chains:
        groups[chain.sample.task, chain.sample.problem, chain.sample.question_hash].append(chain)
    in_order = sorted(groups.items(), key=lambda item: [natural_order(part) for part in item[0]])
    listed = {id(chain.sample) for chain in _select_first(chains)} if len(chains) > MAX_CHAINS else None
    votes = {name: tasks.load(name).strategy for name in {chain.sample.task for chain in chains}}
    failures = explanation.failures
    problems: list[dict[str, Any]] = []
    texts: list[list[str]] = []  # of each problem, read together when it is opened
    for problem, group in in_order:
        group.sort(key=lambda chain: (arms[_arm(chain)], chain.sample.seed, chain.sample.key.L, chain.sample.chain))
        part = [chain for chain in group if listed is None or id(chain.sample) in listed]
        texts.append([])
        problems.append(_problem(problem, group, part, arms, questions.get(problem), votes[problem[0]], texts[-1]))
        problems[-1]["failures"] = {
            place: failures[problem, answer]
            for answer, place in problems[-1].pop("programs").items()
            if (problem, answer) in failures
        }
    beside = folder is not None and room > 0 and not text_packing.fit_whole(texts, room)
    if folder is not None and beside:
        folder.write(texts)
    blocks = text_packing.PackedTexts([], None, 0) if beside else text_packing.pack_texts(texts, room)
    index = {
        "verdicts": VERDICTS,
        "arms": _describe_arms(arms, chains, points),
        "problems": problems,
        "unexplained": explanation.note,
        "points": collect_shares(points, arms, problems),
        "total": len(chains),
        "hidden": len(chains) - sum(len(problem["chains"]) for problem in problems),
        "shortened": blocks.n_shortened,
        "limit": blocks.limit,
        "beside": {"folder": folder.path.name, "files": folder.files} if folder is not None and beside else None,
    }
    return index, blocks.blocks


def verdict_index(sample: Sample) -> int:
    """Place in `VERDICTS`: truncated is a chain that L cut off before it gave an answer, as in ``points.csv``."""
    final = _final(sample)
    if final.vote.answer is not None:
        return 0 if final.vote.correct else 1
    return 3 if final.complete else 2


def _arm(chain: RunChain) -> RunArm:
    return (chain.sample.model, chain.sample.arm, chain.run.name)


def _arms(chains: Iterable[RunChain]) -> dict[RunArm, int]:
    """The arms' places in the order of the page."""
    arms = sorted({_arm(chain) for chain in chains}, key=lambda arm: (arm[0], rank(arm[1].method), arm[1], arm[2]))
    return {arm: i for i, arm in enumerate(arms)}


def _describe_arms(
    arms: Iterable[RunArm], chains: Iterable[RunChain], points: Iterable[MeasuredPoint]
) -> list[dict[str, Any]]:
    """Each arm's name, with type of cache, model and run where there are several, and the name of its frontier.

    And whether its chains, cut to a shorter L, are those of that L.
    """
    types = {_arm(chain): series_of(chain.run.name, chain.sample).kv_dtype for chain in chains}
    # What there are several of is told by the points, whose frontiers' names these have to be.
    all_types = {point.series.kv_dtype for point in points}
    with_model = len({point.series.model for point in points}) > 1
    with_run = len({run for *_, run in arms}) > 1
    described = []
    for model, arm, run in arms:
        method = name_cache(arm.method, types[model, arm, run], all_types)
        name = series_name(str(replace(arm, method=method)), model, with_model)
        described.append(
            {
                "name": f"{name}, {run}" if with_run else name,
                "series": series_name(method, model, with_model),
                "length_invariant": arm.length_invariant,
            }
        )
    return described


def _select_first(chains: Iterable[RunChain]) -> list[RunChain]:
    """The chains to list where there are too many: every problem's and arm's first, then the second ones."""
    counts: dict[tuple[Any, ...], int] = defaultdict(int)
    turns: list[tuple[int, int, RunChain]] = []  # which of its problem's and arm's chains it is, then its place
    for chain in chains:
        key = (chain.sample.task, chain.sample.problem, *_arm(chain))
        turns.append((counts[key], len(turns), chain))
        counts[key] += 1
    return [chain for _, _, chain in sorted(turns, key=lambda turn: turn[:2])[:MAX_CHAINS]]


def _problem(
    key: ProblemKey,
    group: Sequence[RunChain],
    listed: Sequence[RunChain],
    arms: Mapping[RunArm, int],
    question: Question | None,
    vote: str,
    texts: list[str],
) -> dict[str, Any]:
    """One problem, counted over all of its chains, with those that are listed.

    The texts of the listed chains are appended to ``texts``, and behind them those of forced answers.
    """
    counts = [
        [arm, sum(verdict_index(chain.sample) == 0 for chain in part), len(part), _vote_is_right(part, vote)]
        for arm, part in _split(group, lambda chain: arms[_arm(chain)]).items()
    ]
    answers: dict[str, int] = {}
    texts += [chain.sample.text for chain in listed]
    chains = [_chain(chain.sample, arms[_arm(chain)], answers, texts) for chain in listed]
    return {
        "task": key[0],
        "id": key[1],
        "level": group[0].sample.level,
        "question": question and question.prompt,
        "target": question and question.target,
        "arms": counts,
        "disagree": len({right for *_, right in counts}) > 1,
        "programs": answers,  # until their failures have been found
        "answers": [a if len(a) <= MAX_ANSWER else f"{a[:MAX_ANSWER]} …" for a in answers],
        "chains": chains,
    }


def _chain(sample: Sample, arm: int, answers: dict[str, int], texts: list[str]) -> list[Any]:
    """[arm, seed, chain, L, verdict, why it ended, prompt tokens, thought, cuts], as the page's script reads it.

    A cut is what the chain gives when it is cut there: [tokens of the chain, tokens, KV reads and peak KV with those of
    a forced answer, characters of the text, place of the answer, whether it is right, place of the forced answer's
    text]. Thought is how many of the first characters are thinking: of the chain's text, then of each forced answer's.
    """
    cuts, thought = [], [_thought(sample, "", sample.text)]
    for cut in sample.cuts:
        chain = _final(sample) if cut is sample.whole else truncate(sample, cut.L)
        if chain is None:  # no answer was forced there, or the method's rule depends on L
            continue
        answer, (reads, peak, _, tokens, *_) = chain.vote.answer, chain.costs
        place = None if answer is None else answers.setdefault(answer, len(answers))
        forced = None
        if cut.forced is not None and tokens > cut.tokens:
            forced = len(texts)
            texts.append(cut.forced.text)
            thought.append(_thought(sample, sample.text[: cut.chars], cut.forced.text))
        right = int(chain.vote.correct)
        cuts.append([cut.tokens, tokens, round(reads, 1), round(peak, 1), cut.chars, place, right, forced])
    fields = (sample.seed, sample.chain, sample.L, verdict_index(sample))
    return [arm, *fields, sample.finish, sample.prompt_tokens, thought, cuts]


def _thought(sample: Sample, before: str, text: str) -> int:
    """How many of a text's first characters are thinking, given what stands before it."""
    answer = thinking.answer_text(sample.opened + thinking.in_table_marks(before + text, sample.marks))
    return len(text) if answer is None else max(0, len(text) - len(answer))


def _final(sample: Sample, scorer: str | None = None) -> TruncatedChain:
    """The chain at its own L, with the answer that was forced there, if one was."""
    whole = truncate(sample, sample.L, scorer) or truncate(replace(sample, forces_answers=False), sample.L, scorer)
    assert whole is not None, "a chain gives its own L"
    return whole


def _vote_is_right(part: Sequence[RunChain], vote: str) -> bool:
    """Whether all of an arm's chains, each at its own L, come to the right verdict in most seeds."""
    strategy = strategies.get(part[0].run.vote or vote)
    seeds = _split(part, lambda chain: chain.sample.seed).values()
    votes = [[_final(chain.sample, strategy.scorer).vote for chain in group] for group in seeds]
    if strategy.compares_answers:
        votes = [candidates_of(part[0].sample.task).unite(group) for group in votes]
    wins = [strategy.accuracy([group], len(group))[0] for group in votes]
    return bool(sum(wins) > len(wins) / 2)


def _split(chains: Iterable[RunChain], by: Any) -> dict[Any, list[RunChain]]:
    parts: dict[Any, list[RunChain]] = defaultdict(list)
    for chain in chains:
        parts[by(chain)].append(chain)
    return dict(parts)
