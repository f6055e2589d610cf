"""Makes the stored record of a chain that an engine has just finished: graded, and without what must not be stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hyperscale.results import grading
from hyperscale.results.samples import Cut, ForcedAnswer, Sample, ScoredOption

if TYPE_CHECKING:
    from hyperscale.engines.base import Branch, Chain
    from hyperscale.scoring.graders.base import Grader


def record(
    chain: "Chain",
    L: int,
    grader: "Grader",
    target: Any,
    hide: Callable[..., str] | None = None,
    **identity: Any,
) -> Sample:
    """The sample of a finished chain.

    Args:
        chain: The chain.
        L: The most new tokens that it was allowed.
        grader: Grader of its task.
        target: The problem's target.
        hide: Redacts what must not be stored, as `redaction.redact`; answers are read before. None for nothing.
        identity: The fields of `Sample` that the chain does not tell.
    """
    trace = chain.trace
    forced = {branch.at: _forced_answer(branch) for branch in chain.branches}
    last = len(trace.lengths) - 1
    # First without answers: the grader reads the texts that the sample's cuts delimit.
    sample = Sample(
        L=L,
        chain=chain.chain,
        prompt_tokens=chain.prompt_tokens,
        finish=chain.finish,
        seconds=round(chain.seconds, 4),
        text=chain.text,
        kept=chain.kept,
        prefill_kv=trace.prefill_kv,
        prefill_reads=trace.prefill_reads,
        cuts=tuple(
            Cut(
                L=L if i == last else tokens,
                tokens=tokens,
                kv_reads=trace.kv_reads[i],
                peak_kv=trace.peak_kv[i],
                chars=trace.chars[i],
                logprob=trace.logprobs[i],
                inserted=trace.inserted[i],
                answer=None,
                correct=False,
                forced=forced.get(tokens),
            )
            for i, tokens in enumerate(trace.lengths)
        ),
        **identity,
    )
    # Answers are read from the text as the model wrote it, before anything is blacked out.
    answers = grading.extract_answers(grader, sample)
    verdicts = [answer is not None and grader.correct(answer, target) for answer in answers]
    sample = grading.with_verdicts(sample, answers, verdicts)
    if hide is None:
        return sample
    hidden = _hidden(sample, hide)
    # What is left must say the same: then the stored chain can be graded again.
    if grading.extract_answers(grader, hidden) == answers:
        return hidden
    return _hidden(sample, partial(hide, keep_small=True))


def record_options(
    chains: "Sequence[Chain | None]",
    options: Sequence[tuple[str, int]],
    L: int,
    grader: "Grader",
    target: Any,
    **identity: Any,
) -> Sample:
    """The sample of a problem that was scored by likelihood.

    Args:
        chains: For each option the chain of its tokens; None where it has none, and nothing was to be scored.
        options: Each option's text, and the tokens of its context.
        L: The most tokens that a problem of the task has, over all its options.
        grader: Grader of its task.
        target: The problem's target.
        identity: As for `record`.
    """
    scored = tuple(
        ScoredOption(
            text=text,
            prompt_tokens=prompt_tokens,
            tokens=len(chain.token_ids) if chain else 0,
            logprob=chain.logprob if chain else 0.0,
            greedy=chain.greedy if chain else True,
            kv_reads=chain.trace.kv_reads[-1] if chain else 0.0,
            peak_kv=chain.trace.peak_kv[-1] if chain else 0.0,
        )
        for chain, (text, prompt_tokens) in zip(chains, options, strict=True)
    )
    text = "\n".join(f"{option.logprob:10.3f}  {option.text}" for option in scored)
    traces = [chain.trace for chain in chains if chain]
    held = [trace.prefill_kv for trace in traces if trace.prefill_kv is not None]
    reads = [trace.prefill_reads for trace in traces if trace.prefill_reads is not None]
    whole = Cut(
        L=L,
        tokens=sum(option.tokens for option in scored),
        kv_reads=sum(option.kv_reads for option in scored),
        peak_kv=max(option.peak_kv for option in scored),
        chars=len(text),
        logprob=sum(option.logprob for option in scored),
        inserted=0,
        answer=None,
        correct=False,
    )
    sample = Sample(
        L=L,
        chain=0,
        prompt_tokens=max(option.prompt_tokens for option in scored),
        finish="stop",
        seconds=round(sum(chain.seconds for chain in chains if chain), 4),
        text=text,
        cuts=(whole,),
        options=scored,
        prefill_kv=max(held, default=None),
        prefill_reads=sum(reads) if reads and len(reads) == len(traces) else None,
        **identity,
    )
    answers = grading.extract_answers(grader, sample)
    return grading.with_verdicts(
        sample, answers, [answer is not None and grader.correct(answer, target) for answer in answers]
    )


def _forced_answer(branch: "Branch") -> ForcedAnswer:
    return ForcedAnswer(
        tokens=branch.at + len(branch.token_ids),
        kv_reads=branch.kv_reads,
        peak_kv=branch.peak_kv,
        logprob=branch.logprob,
        inserted=branch.inserted,
        answer=None,
        correct=False,
        text=branch.text,
        finish=branch.finish,
        seconds=round(branch.seconds, 4),
    )


def _hidden(sample: Sample, hide: Callable[..., str]) -> Sample:
    """The sample without what ``hide`` blacks out; a forced answer is looked at together with what it follows."""

    def hidden_cut(cut: Cut) -> Cut:
        if cut.forced is None:
            return cut
        text = hide(sample.text[: cut.chars] + cut.forced.text)[cut.chars :]
        return replace(cut, forced=replace(cut.forced, text=text))

    return replace(sample, text=hide(sample.text), cuts=tuple(hidden_cut(cut) for cut in sample.cuts))
