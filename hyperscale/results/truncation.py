"""Cuts a stored chain to a shorter L: what a run with that maximum would have given, in answer, score and cost."""

from math import nan
from typing import NamedTuple

from hyperscale.errors import ResultsError
from hyperscale.kv.trace import dense_reads
from hyperscale.results.samples import Ending, Sample
from hyperscale.scoring.voting.strategies import LOGPROB, Vote


class TruncatedChain(NamedTuple):
    """A chain cut to some L.

    Attributes:
        vote: Its answer, verdict and score.
        complete: Whether the chain, or the answer forced upon it, ended by itself.
        costs: kv_reads, peak_kv, peak_bytes, tokens, seconds, read_bytes.
        dense_reads: Reads that an uncompressed cache would have needed.
        prompt: Of its prompt: tokens, entries left after prefill, reads of prefill; NaN where a sample does not say.
    """

    vote: Vote
    complete: bool
    costs: tuple[float, ...]
    dense_reads: float
    prompt: tuple[float, float, float] = (nan, nan, nan)


def is_eligible(sample: Sample, L: int) -> bool:
    """Whether a run with maximum L would have had this chain: it ran that far, under a rule that is the same.

    An eligible chain that `truncate` returns None for was not recorded there: then no point of that L can be made, as
    the chains that ended before are no random choice.
    """
    return sample.L == L or (sample.L > L and sample.length_invariant)


def truncate(sample: Sample, L: int, scorer: str | None = None) -> TruncatedChain | None:
    """The chain as a run with maximum L would have given it, or None if the sample cannot tell.

    Where the run forced answers, a chain that had not ended at L stands there with the answer forced upon it: with its
    verdict, and the costs of the first L tokens and the answer together.

    Args:
        sample: A sample.
        L: The most new tokens.
        scorer: Scorer of best-of-n, whose scores are asked for; None for none.

    Raises:
        ResultsError: The sample lacks the scores.
    """
    # Three cases: the chain had ended by L; L cuts it off, and it stands as it is; L cuts it off, and it was made to
    # answer there. In the last, a cut without its answer was not recorded as a run with that maximum would have it.
    cut = sample.cut_at(L) if is_eligible(sample, L) else None
    if cut is None:
        return None
    ended = cut is sample.whole and sample.finish == "stop"
    seconds = sample.seconds * cut.tokens / max(sample.tokens, 1)  # up to the cut: in proportion
    if ended or not sample.forces_answers:
        return _truncated(sample, cut, ended, seconds, scorer)
    if cut.forced is None:
        return None
    return _truncated(sample, cut.forced, cut.forced.finish == "stop", seconds + cut.forced.seconds, scorer)


def _truncated(sample: Sample, ending: Ending, complete: bool, seconds: float, scorer: str | None) -> TruncatedChain:
    score = None if ending.answer is None or scorer is None else _score(sample, ending, scorer)
    vote = Vote(ending.answer, ending.answer is not None and ending.correct, score)
    size = sample.kv_entry_bytes
    reads, peak = ending.kv_reads, ending.peak_kv
    costs = (reads, peak, peak * size, ending.tokens, seconds, reads * size)
    # What was scored is whole, whatever its L.
    sequences = sample.sequences if sample.options else [(sample.prompt_tokens, ending.tokens)]
    left, read = (nan if value is None else value for value in (sample.prefill_kv, sample.prefill_reads))
    dense = sum(dense_reads(prompt, tokens) for prompt, tokens in sequences)
    return TruncatedChain(vote, complete, costs, dense, (sample.prompt_tokens, left, read))


def _score(sample: Sample, ending: Ending, scorer: str) -> float:
    """The scorer's score of an ending that has an answer; that of the log-probability is the mean of a drawn token."""
    name = f"chain {sample.chain} of {sample.task}/{sample.problem}"
    if scorer != LOGPROB:
        if scorer not in ending.scores:
            raise ResultsError(
                f"{name} has no score by {scorer}: run `hyperscale score` on its folder again with --vote best-of-n "
                "and the --scorer it was, or with another --vote"
            )
        return ending.scores[scorer]
    if ending.logprob is None:
        raise ResultsError(
            f"{name} is from a version that kept no log-probability at L = {ending.tokens}: choose another --vote, or "
            "generate the chains anew"
        )
    return ending.logprob / max(ending.tokens - ending.inserted, 1)
