"""The engine watched from inside: every decode step's logits, and the keys that each row held at its end."""

import torch

from hyperscale.engines.torch import forward_pass


def watch(engine, requests, sampling):
    """Generate, keeping each decode step's logits and the keys each row held at the end of it.

    Returns chains by problem, logits {problem: [per step]}, held {problem: [per step [layer][head] keys]}.
    """
    logits, held, chains = {}, {}, {}
    state = engine.start_batch(sampling)
    decode = state._decode

    def recorded():
        out = decode()
        for index, chain in enumerate(state._chains):
            problem = chain.request.problem
            logits.setdefault(problem, []).append(out[index].clone())
            rows = [
                [state.cache.row(layer, index, head)[0].clone() for head in range(state.cache.kv_heads)]
                for layer in range(state.cache.layers)
            ]
            held.setdefault(problem, []).append(rows)
        return out

    state._decode = recorded
    waiting = iter(requests)
    while True:
        with torch.inference_mode(), forward_pass.use_own_attention(engine.model):
            finished = state.advance(waiting)
        if finished is None:
            return chains, logits, held
        chains.update({chain.problem: chain for chain in finished})


def prompts(lengths, vocab, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        (f"problem {i}", tuple(torch.randint(0, vocab, (prompt,), generator=generator).tolist()), new)
        for i, (prompt, new) in enumerate(lengths)
    ]


def same_logits(got, want):
    """Whether a step's logits are those wanted, within float32 rounding of the largest of them.

    Every logit sums the same numbers, large and small, so the small ones are not rounded any finer.
    """
    torch.testing.assert_close(got, want, rtol=0, atol=2e-4 * float(want.abs().max()))


def same_entries(row, want):
    """Whether a row's keys are those wanted, entry for entry, each once, in any order."""
    assert len(row) == len(want)
    distance = torch.cdist(row, want, compute_mode="donot_use_mm_for_euclid_dist")
    assert sorted(distance.argmin(1).tolist()) == list(range(len(want)))
    assert float(distance.min(1).values.max()) < 1e-3
