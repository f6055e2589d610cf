"""Finished chains without a model: samples with known accuracies and costs, and their points."""

from dataclasses import replace

import numpy as np

from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.results.points import make_points, table
from hyperscale.results.sample_file import format_line
from hyperscale.results.samples import Cut, ForcedAnswer, Sample

LENGTHS = (256, 512, 1024, 2048)


def sample(
    problem="p0",
    chain=0,
    method="vanilla",
    CR=1.0,
    answer="1",
    right=None,
    tokens=300,
    L=2048,
    *,
    prompt_tokens=50,
    logprob=-1.0,
    logprobs=None,
    inserted=None,
    answers=None,
    forced=None,
    **more,
):
    """One chain; the answer appears at its end.

    Args:
        right: Whether the answer is; by default if it is "1".
        tokens: Length at which it ends by itself, if L lets it.
        logprobs: Of each cut; by default unknown but for the last, which has ``logprob``.
        inserted: Of each cut.
        answers: Of each cut, in place of ``answer`` at the last alone; right if they are "1".
        forced: L to a `forced_answer`; the run then forces answers.
    """
    lengths = [n for n in LENGTHS if n < min(tokens, L)] + [min(tokens, L)]
    ended = lengths[-1] == tokens
    last = len(lengths) - 1
    if answers is None:
        answers = [None] * last + [answer if ended else None]
        verdicts = [False] * last + [bool(ended and (answer == "1" if right is None else right))]
    else:
        verdicts = [answer == "1" for answer in answers]
    fields = {
        "model": "mini",
        "params": {},
        "length_invariant": True,
        "engine": "torch",
        "dtype": "float32",
        "kv_dtype": "float32",
        "task": "mini_aime",
        "task_version": "1.0",
        "level": 1,
        "prompt_hash": "0" * 16,
        "seed": 0,
        "seconds": 1.0,
        "kv_entry_bytes": 100,
        "text": "",
        "forces_answers": forced is not None,
    }
    return Sample(
        problem=problem,
        chain=chain,
        method=method,
        CR=CR,
        L=L,
        prompt_tokens=prompt_tokens,
        finish="stop" if ended else "length",
        cuts=tuple(
            Cut(
                L=L if i == last else n,
                tokens=n,
                kv_reads=dense_reads(prompt_tokens, n) / CR,
                peak_kv=dense_peak(prompt_tokens, n) / CR,
                chars=n,
                logprob=logprobs[i] if logprobs else logprob if i == last else None,
                inserted=inserted[i] if inserted else 0,
                answer=answers[i],
                correct=verdicts[i],
                forced=(forced or {}).get(L if i == last else n),
            )
            for i, n in enumerate(lengths)
        ),
        **fields | more,
    )


def forced_answer(L, answer, tokens=6, **more):
    """An answer forced upon a chain of ``sample`` at L; right if it is "1"."""
    fields = {
        "tokens": L + tokens,
        "kv_reads": float(dense_reads(50, L + tokens)),
        "peak_kv": 55.0 + L,
        "logprob": -3.0,
        "inserted": 1,
        "answer": answer,
        "correct": answer == "1",
        "text": "",
        "finish": "stop",
        "seconds": 0.5,
    }
    return ForcedAnswer(**fields | more)


def with_whole(sample, **changes):
    """The sample with other values at its own L."""
    return replace(sample, cuts=(*sample.cuts[:-1], replace(sample.whole, **changes)))


def chains(method, CR, *, problems=40, width=8, task="mini_aime", skill=0.0, seed=0, **more):
    """A method's chains on one task: problems differ in length and difficulty; ``skill`` shifts the accuracy."""
    rng = np.random.default_rng([seed, int(CR), len(method), len(task)])
    samples = []
    for p in range(problems):
        typical = 150 * 2 ** (4 * p / problems)
        for c in range(width):
            tokens = int(min(2048, typical * rng.lognormal(0, 0.4)))
            right = rng.random() < 0.75 + skill
            answer = "1" if right else str(rng.integers(2, 6))
            end = tokens if tokens < 2048 else 4096
            samples.append(sample(f"p{p}", c, method, CR, answer, tokens=end, task=task, seed=seed, **more))
    return samples


def points(samples, run="r", **more):
    """The points of a run with these samples."""
    return make_points(samples, run=run, **more)


def points_table(samples, **more):
    """The rows of ``points.csv`` of a run with these samples."""
    return table(points(samples, **more))


def write_samples(path, samples):
    """Write the samples as a run's file."""
    path.write_bytes(b"".join(map(format_line, samples)))
