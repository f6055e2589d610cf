"""A stored chain cut to some L: what a run with that maximum would have given, in answer, score and cost."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hyperscale.errors import ResultsError
from hyperscale.kv.trace import dense_reads
from hyperscale.scoring.voting.strategies import LOGPROB, Vote

Sample = Mapping[str, Any]


class Cut(NamedTuple):
    """A chain cut to some L.

    Attributes:
        vote: Its answer, verdict and score.
        complete: Whether the chain ended by itself.
        costs: kv_reads, peak_kv, peak_bytes, tokens, seconds.
        dense: Reads that an uncompressed cache would have needed.
    """

    vote: Vote
    complete: bool
    costs: tuple[float, ...]
    dense: float


def eligible(sample: Sample, length: int) -> bool:
    """Whether a run with maximum ``length`` would have had this chain: it ran that far, under a rule that is the same.

    An eligible chain that `cut` returns None for was not looked at there: then no point of that L can be made, as the
    chains that ended before are no random choice.
    """
    limit = sample["max_new_tokens"]
    return bool(limit == length or (limit > length and sample.get("length_invariant", True)))


def cut(sample: Sample, length: int, scorer: str | None = None) -> Cut | None:
    """The chain as a run with maximum ``length`` would have given it, or None if the sample cannot tell.

    Where the run forced answers, a chain that had not ended at L stands there with its branch: the branch's answer, and
    the costs of the first L tokens and the branch together. So no chain is cut where it would have been answered.

    Args:
        sample: A line of ``samples.jsonl``.
        length: L.
        scorer: Scorer of best-of-n, whose scores are asked for; None for none.

    Raises:
        ResultsError: The sample lacks the scores.
    """
    lengths = sample["lengths"]
    if not eligible(sample, length):
        return None
    if "branches" in sample and (lengths[-1] > length or sample["finish"] == "length"):
        for branch in sample["branches"]:
            if branch["at"] == length:
                return _branch(sample, branch, scorer)
        return None
    if length >= lengths[-1]:
        i = len(lengths) - 1
    elif length in lengths:
        i = list(lengths).index(length)
    else:
        return None
    answer = sample["answers"][i]
    score = None if answer is None or scorer is None else _score(sample, i, scorer)
    vote = Vote(answer, answer is not None and bool(sample["correct"][i]), score)
    complete = i == len(lengths) - 1 and sample["finish"] != "length"
    reads, peak, seconds = sample["kv_reads"][i], sample["peak_kv"][i], _seconds(sample, lengths[i])
    return _cut(sample, vote, complete, reads, peak, lengths[i], seconds)


def _branch(sample: Sample, branch: Mapping[str, Any], scorer: str | None) -> Cut:
    score = None
    if branch["answer"] is not None and scorer == LOGPROB:
        score = _mean(branch["logprob"], branch["tokens"] - branch["inserted"])
    elif branch["answer"] is not None and scorer is not None:
        score = _found(sample, branch.get("scores", {}).get(scorer), scorer)
    vote = Vote(branch["answer"], branch["answer"] is not None and bool(branch["correct"]), score)
    seconds = _seconds(sample, branch["at"]) + branch["seconds"]
    complete = branch["finish"] != "length"
    return _cut(sample, vote, complete, branch["kv_reads"], branch["peak_kv"], branch["tokens"], seconds)


def _cut(sample: Sample, vote: Vote, complete: bool, reads: float, peak: float, tokens: int, seconds: float) -> Cut:
    costs = (reads, peak, peak * sample["kv_entry_bytes"], tokens, seconds)
    return Cut(vote, complete, costs, dense_reads(sample["prompt_tokens"], tokens))


def _seconds(sample: Sample, tokens: int) -> float:
    """A chain's seconds up to some token: in proportion."""
    return float(sample["seconds"] * tokens / max(sample["lengths"][-1], 1))


def _score(sample: Sample, i: int, scorer: str) -> float:
    """The score of a chain cut at its checkpoint number ``i``, where it has an answer."""
    if scorer != LOGPROB:
        scores = sample.get("scores", {}).get(scorer)
        return _found(sample, None if scores is None else scores[i], scorer)
    tokens = sample["lengths"][i]
    if "logprobs" in sample:
        return _mean(sample["logprobs"][i], tokens - sample["inserted"][i])
    if i == len(sample["lengths"]) - 1:
        return _mean(sample["logprob"], tokens)
    raise ResultsError(
        f"the chains of {sample['run']} are from a version that kept no log-probability at L = {tokens}: "
        "choose another --vote, or generate them anew"
    )


def _mean(logprob: float, drawn: int) -> float:
    return float(logprob) / max(drawn, 1)


def _found(sample: Sample, score: float | None, scorer: str) -> float:
    if score is None:
        raise ResultsError(
            f"chains of {sample['run']} have no score by {scorer}: run `hyperscale score` on its folder again "
            "with --vote best-of-n and the --scorer it was, or with another --vote"
        )
    return float(score)
