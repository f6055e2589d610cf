"""Finished chains without a model: lines of samples.jsonl with known accuracies and costs."""

import numpy as np

from hyperscale.kv.trace import dense_peak, dense_reads

LENGTHS = (256, 512, 1024, 2048)


def sample(problem="p0", chain=0, method="vanilla", CR=1.0, answer="1", right=None, tokens=300, limit=2048, **more):
    """One line; the answer appears at the chain's end. ``right`` defaults to answer == "1"."""
    lengths = [n for n in LENGTHS if n < min(tokens, limit)] + [min(tokens, limit)]
    prompt = more.pop("prompt_tokens", 50)
    done = [n == tokens for n in lengths]
    right = answer == "1" if right is None else right
    line = {
        "schema": 1,
        "run": "r",
        "model": "mini",
        "method": method,
        "params": {},
        "CR": CR,
        "engine": "torch",
        "task": "mini_aime",
        "task_version": "1.0",
        "problem": problem,
        "level": 1,
        "prompt_hash": "0" * 16,
        "seed": 0,
        "chain": chain,
        "max_new_tokens": limit,
        "prompt_tokens": prompt,
        "tokens": lengths[-1],
        "finish": "stop" if done[-1] else "length",
        "logprob": -1.0,
        "seconds": 1.0,
        "text": "",
        "lengths": lengths,
        "kv_reads": [dense_reads(prompt, n) / CR for n in lengths],
        "peak_kv": [dense_peak(prompt, n) / CR for n in lengths],
        "chars": lengths,
        "answers": [answer if d else None for d in done],
        "correct": [bool(right and d) for d in done],
        "kv_entry_bytes": 100,
    }
    return {**line, **more}


def chains(method, CR, *, problems=40, width=8, task="mini_aime", skill=0.0, seed=0, **more):
    """A method's chains on one task: problems differ in length and difficulty; ``skill`` shifts the accuracy."""
    rng = np.random.default_rng([seed, int(CR), len(method), len(task)])
    lines = []
    for p in range(problems):
        typical = 150 * 2 ** (4 * p / problems)
        for c in range(width):
            tokens = int(min(2048, typical * rng.lognormal(0, 0.4)))
            right = rng.random() < 0.75 + skill
            answer = "1" if right else str(rng.integers(2, 6))
            cut = tokens if tokens < 2048 else 4096
            lines.append(sample(f"p{p}", c, method, CR, answer, tokens=cut, task=task, seed=seed, **more))
    return lines
