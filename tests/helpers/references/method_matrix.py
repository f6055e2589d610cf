"""One row a method: its slow reference, and the settings that examples are drawn from."""

from dataclasses import dataclass, field

import tiny
import torch
from engine_probe import same_entries, same_logits, watch
from hypothesis import strategies as st
from reference_rules.dmc import DMC
from reference_rules.h2o import H2O
from reference_rules.keydiff import KeyDiff
from reference_rules.knorm import Knorm
from reference_rules.quest import Quest
from reference_rules.random_eviction import Random
from reference_rules.recent import Streaming, Window
from reference_rules.rkv import RKV
from reference_rules.snapkv import SnapKV
from reference_rules.tova import TOVA
from reference_rules.triattention import TriAttention

from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.families.names import FAMILIES
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.utils import counter_rng

#: A decision closer than this, relative to the numbers compared, may fall either way by rounding alone.
CLEAR = 1e-4


BUDGET = {
    "cr": st.sampled_from([1.0, 1.5, 2.0, 4.0, 8.0]),
    "rule": st.sampled_from(["proportional", "fixed"]),
    "pin_prompt": st.booleans(),
    "budget": st.sampled_from([None, None, 1, 12, 40]),  # half of the time by ratio
}


BUDGETED = {**BUDGET, "recent": st.integers(1, 6)}


INTERVAL = {**BUDGET, "interval": st.sampled_from([1, 3, 128])}


OBSERVED = {**INTERVAL, "window": st.integers(1, 12), "kernel": st.sampled_from([1, 3, 7])}


@dataclass(frozen=True)
class Row:
    """A method's reference and its settings."""

    rule: type
    params: dict = field(default_factory=dict)
    examples: int = 25
    families: tuple[str, ...] = tuple(FAMILIES)


ROWS = {
    "window": Row(Window, BUDGETED),
    "streaming": Row(Streaming, {**BUDGETED, "sinks": st.integers(0, 6)}),
    "random": Row(Random, BUDGETED),
    "dmc": Row(DMC, {"cr": st.just(2.0)}, families=("qwen2", "qwen3", "llama", "mistral")),
    "tova": Row(TOVA, {**BUDGETED, "per": st.sampled_from(["layer", "head"])}),
    "quest": Row(
        Quest,
        {
            "cr": BUDGETED["cr"],
            "rule": BUDGETED["rule"],
            "budget": BUDGETED["budget"],
            "page": st.integers(1, 12),
            "dense_layers": st.integers(0, 2),
        },
    ),
    "keydiff": Row(KeyDiff, {**BUDGETED, "interval": st.integers(1, 10)}),
    "knorm": Row(Knorm, {**BUDGETED, "interval": st.integers(1, 10)}),
    "triattention": Row(
        TriAttention,
        {**BUDGETED, "interval": st.integers(1, 10), "horizon": st.sampled_from([1, 30, 65536])},
        15,
        tuple(family for family in FAMILIES if family != "smollm3"),  # which has layers without RoPE
    ),
    "h2o": Row(H2O, {**BUDGET, "heavy": st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0])}),
    "snapkv": Row(SnapKV, {**OBSERVED, "pooling": st.sampled_from(["avg", "max"])}),
    "rkv": Row(
        RKV,
        {
            **OBSERVED,
            "mix_lambda": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
            "threshold": st.sampled_from([0.1, 0.5]),
            "retain": st.integers(0, 3),
        },
    ),
}


def compare(model, method, rule, batch_size, items):
    """Hold every chain against its reference; returns False, at the first of them, if a decision was too close."""
    engine = TorchEngine(model, tiny.Characters(64), method, batch_size=batch_size)
    requests = [Request(problem, 0, ids, new, tuple(range(1, new + 1, 7))) for problem, ids, new in items]
    chains, logits, held = watch(engine, requests, Sampling(temperature=1.0, seed=5))
    config = model.config
    rows = config.num_hidden_layers * config.num_key_value_heads
    for problem, ids, new in items:
        chain, prompt = chains[problem], len(ids)
        reference = rule(
            method, prompt, new, config.num_hidden_layers, config.num_key_value_heads, counter_rng.key(5, problem, 0)
        )
        with torch.inference_mode():
            reference_logits, live, read = reference.run(model, [*ids, *chain.token_ids[:-1]], prompt)
        if min(reference.margins, default=1.0) <= CLEAR:
            return False
        before = sum(len(row) for layer in reference.start for row in layer)
        for step, expected in enumerate(reference_logits):
            same_logits(logits[problem][step], expected)
            for layer, heads in enumerate(live[step]):
                for head, row in enumerate(heads):
                    same_entries(held[problem][step][layer][head], reference.keys[layer][head][row])
        sizes = [sum(len(row) for layer in step for row in layer) for step in live]
        for length, reads, peak in zip(chain.trace.lengths, chain.trace.kv_reads, chain.trace.peak_kv, strict=True):
            assert reads == sum(read[: length - 1]) / rows
            assert peak == max([before, *sizes[: length - 1]]) / rows
        assert chain.trace.prefill_kv == before / rows
        if method.prefills_densely:  # query q of the prompt sees the q in front of it and itself
            assert chain.trace.prefill_reads == sum(range(1, prompt + 1))
        allowed = method.allowance(prompt, len(chain.token_ids), new)
        if allowed is not None:
            most = max(read, default=0) if method.kind == "selector" else max(sizes, default=0)
            assert most <= allowed * rows
    return True
