"""Each method against masked full attention: logits, live entries and the ledger, over generated shapes."""

import tiny
from dense_reference import at_random, dms, forward, keep_all, live, oldest, pinned, reads_and_peak
from engine_probe import prompts, same_entries, same_logits, watch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.utils import counter_rng

SHAPES = {
    "family": st.sampled_from(["qwen3", "qwen2", "llama"]),
    "layers": st.integers(1, 3),
    "kv_heads": st.sampled_from([1, 2, 3]),
    "group": st.sampled_from([1, 2, 4]),
    "head_dim": st.sampled_from([4, 8, 16]),
    "lengths": st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=5),
    "batch_size": st.integers(1, 6),
    "seed": st.integers(0, 1000),
}


def compare(model, method, batch_size, items, reference, pending=1):
    """Run the engine and hold every step of every chain against ``reference(problem, ids, prompt, new, chain)``."""
    engine = TorchEngine(model, tiny.Characters(64), method, batch_size=batch_size)
    requests = [Request(problem, 0, ids, new, tuple(range(1, new + 1, 7))) for problem, ids, new in items]
    chains, logits, held = watch(engine, requests, Sampling(temperature=1.0, seed=5))
    rows = model.config.num_hidden_layers * model.config.num_key_value_heads
    for problem, ids, new in items:
        chain, prompt = chains[problem], len(ids)
        # One token more: the verdict on the last key in the cache comes from the hidden state after it.
        whole = [*ids, *chain.token_ids]
        dense, keys, expiries = reference(problem, whole, prompt, new)
        steps = len(chain.token_ids) - 1
        for step in range(steps):
            query = prompt + step
            same_logits(logits[problem][step], dense[query])
            for layer, (k, expiry) in enumerate(zip(keys, expiries, strict=True)):
                for head, visible in enumerate(live(expiry, query)):
                    same_entries(held[problem][step][layer][head], k[head][visible])
        trace = chain.trace
        for length, reads, peak in zip(trace.lengths, trace.kv_reads, trace.peak_kv, strict=True):
            assert (reads, peak) == tuple(count / rows for count in reads_and_peak(expiries, prompt, length, pending))
        assert set(range(1, len(chain.token_ids), 7)) < set(trace.lengths)
        if not method.prefills_densely:  # others are held against their own rule in the matrix
            seen = [sum(int(live(expiry, q).sum()) for expiry in expiries) for q in range(prompt)]
            assert trace.prefill_reads == sum(seen) / rows


@settings(max_examples=40, deadline=None)
@given(
    **SHAPES,
    window=st.integers(0, 20),
    offset=st.sampled_from([-60.0, 0.0, 60.0]),
    separate=st.booleans(),
    per=st.sampled_from(["head", "layer"]),
    later=st.sampled_from([0, 1, "immediate"]),
    zeroing=st.sampled_from(["before_and_after_rope", "before_rope", "never"]),
)
def test_dms(
    family, layers, kv_heads, group, head_dim, lengths, batch_size, seed, window, offset, separate, per, later, zeroing
):
    model = tiny.model(
        family, layers=layers, heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim, seed=seed, width=32, ff=48
    )
    later = window + 1 if later == "immediate" else later
    settings = {"separate": separate, "per": per, "decision_offset": later, "zeroing": zeroing}
    tiny.with_gates(model, window=window, seed=seed, offset=offset, **settings)

    def reference(problem, ids, prompt, new):
        margins = []
        result = forward(model, ids, dms(model, margins), borrowed=not separate, zeroing=zeroing)
        assume(min(margins) > 1e-3)  # a logit this close to 0 may fall on either side by rounding alone
        return result

    compare(model, methods.create("dms", cr=8), batch_size, prompts(lengths, 63, seed), reference, later)


@settings(max_examples=15, deadline=None)
@given(**SHAPES)
def test_vanilla(family, layers, kv_heads, group, head_dim, lengths, batch_size, seed):
    model = tiny.model(
        family, layers=layers, heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim, seed=seed, width=32, ff=48
    )

    def reference(problem, ids, prompt, new):
        return forward(model, ids, keep_all(kv_heads))

    compare(model, methods.create("vanilla", cr=1), batch_size, prompts(lengths, 63, seed), reference)


@settings(max_examples=30, deadline=None)
@given(
    **SHAPES,
    name=st.sampled_from(["window", "random"]),
    rule=st.sampled_from(["proportional", "fixed"]),
    recent=st.integers(1, 20),
    cr=st.sampled_from([1.0, 1.5, 2.0, 8.0]),
)
def test_pinned(family, layers, kv_heads, group, head_dim, lengths, batch_size, seed, name, rule, recent, cr):
    model = tiny.model(
        family, layers=layers, heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim, seed=seed, width=32, ff=48
    )
    method = methods.create(name, cr=cr, rule=rule, recent=recent)

    def reference(problem, ids, prompt, new):
        key = counter_rng.key(5, problem, 0)
        victim = oldest(prompt) if name == "window" else at_random(prompt, recent, kv_heads, key)
        gone = pinned(method, prompt, len(ids), new, layers, kv_heads, victim)
        return forward(model, ids, lambda layer, hidden: gone[layer])

    compare(model, method, batch_size, prompts(lengths, 63, seed), reference)
