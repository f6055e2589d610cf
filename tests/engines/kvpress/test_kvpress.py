"""Presses of kvpress against masked full attention, their counts, and their scores against plain ones."""

import math
import subprocess
import sys
from dataclasses import replace

import dense_reference
import kvpress_reference
import pytest
import tiny
import torch

pytest.importorskip("kvpress", reason="kvpress is not installed (docs/kvpress.md)")

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.kvpress.engine import KVPressEngine
from hyperscale.engines.kvpress.session import PressSession
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import EngineError, MethodError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.kvpress import press_tree

PROMPT, NEW = 13, 40


@pytest.fixture(scope="module", params=["llama", "qwen3", "qwen2"])
def model(request):
    made = tiny.model(request.param, heads=4, kv_heads=2, seed=3)
    for layer in made.model.layers:
        if hasattr(layer.self_attn, "k_norm"):  # weights of one would give all keys the same norm
            layer.self_attn.k_norm.weight.copy_(torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.5)
    return made


def requests(chains=1, new=NEW, cuts=(), forced=()):
    prompt = tuple(range(PROMPT))
    return [Request("p", chain, prompt, new, cuts, forced) for chain in range(chains)]


def forced(seed=7):
    """Tokens that differ from each other and from the prompt's: the same token's keys have the same norm."""
    return tuple((torch.randperm(50, generator=torch.Generator().manual_seed(seed))[:NEW] + PROMPT).tolist())


def clear(reference):
    """Tokens at which no decision of a reference is too close to call: (tokens, logits, expiries)."""
    for seed in range(30):
        margins = []
        logits, _, expiries = reference(forced(seed), margins)
        assert len(margins) > 4
        if min(margins) > 2e-5:
            return forced(seed), logits, expiries
    raise AssertionError("every sequence has scores that are too close to call")


def engine(model, name, cr=4.0, **params):
    return KVPressEngine(model, tiny.Characters(), methods.create(f"kvpress:{name}", cr=cr, **params))


def logprob(logits, prompt, tokens):
    scores = logits.log_softmax(-1)
    return sum(float(scores[prompt - 1 + i, token]) for i, token in enumerate(tokens))


CASES = [
    ("DecodingPress", 1, 8.0),
    ("DecodingPress", 5, 3.0),
    ("CompressionRatioDecodingPress", 1, 2.5),
    ("CompressionRatioDecodingPress", 7, 4.0),
]


@pytest.mark.parametrize("scorer", kvpress_reference.SCORES)
@pytest.mark.parametrize(("press", "interval", "cr"), CASES)
def test_chains_and_counts_are_those_of_masked_full_attention(model, press, interval, cr, scorer):
    size = max(1, math.ceil((PROMPT + NEW) / cr) - interval)
    target = size if press == "DecodingPress" else lambda tokens: max(1, int(tokens * (1 - (1 - 1 / cr))))

    def reference(tokens, margins):
        expiry = kvpress_reference.evicts(model, kvpress_reference.SCORES[scorer], PROMPT, interval, target, margins)
        return dense_reference.forward(model, [*requests()[0].prompt_ids, *tokens], expiry)

    tokens, logits, expiries = clear(reference)
    request = requests(cuts=(1, 2, 9, 30), forced=tokens)[0]
    (chain,) = engine(model, f"{press}:{scorer}", cr, compression_interval=interval).generate([request], Sampling())
    assert chain.logprob == pytest.approx(logprob(logits, PROMPT, request.forced_ids), rel=1e-4)
    rows = sum(len(e) for e in expiries)
    assert chain.trace.lengths == (1, 2, 9, 30, NEW)
    for length, reads, peak in zip(chain.trace.lengths, chain.trace.kv_reads, chain.trace.peak_kv, strict=True):
        assert (reads, peak) == tuple(
            count / rows for count in dense_reference.reads_and_peak(expiries, PROMPT, length)
        )
    assert chain.trace.kv_reads[-1] < dense_reads(PROMPT, NEW)
    assert chain.trace.peak_kv[-1] <= max(PROMPT + interval, size + interval)


@pytest.mark.parametrize("cr", [1.5, 2.5])
def test_our_tova_is_the_same_rule(model, cr):
    """Cut to one entry less after every step, so that a step reads as many; the prompt is shorter than the budget."""
    asked = requests(3, cuts=(2, 20))
    # Both TOVAs keep the newest entry, but kvpress also the one before it while it makes room for the newest.
    want = TorchEngine(model, tiny.Characters(), methods.create("tova", cr=cr, recent=2), batch_size=1)
    made = engine(model, "DecodingPress:TOVAPress", cr, compression_interval=1)
    for ours, theirs in zip(want.generate(asked, Sampling()), made.generate(asked, Sampling()), strict=True):
        assert ours.token_ids == theirs.token_ids
        assert (ours.trace.lengths, ours.trace.kv_reads) == (theirs.trace.lengths, theirs.trace.kv_reads)
        assert ours.trace.peak_kv == theirs.trace.peak_kv
        assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-4)
        assert len(ours.token_ids) < NEW or ours.trace.kv_reads[-1] < dense_reads(PROMPT, NEW)


@pytest.mark.parametrize("scorer", [*kvpress_reference.SCORES, "SnapKVPress"])
def test_scores_are_those_of_a_plain_rule_on_the_same_tensors(model, scorer):
    """The place to hold a rule of our own against a press: same module, same hidden states, same keys."""
    attention = model.model.layers[1].self_attn
    hidden = torch.randn(1, 23, model.config.hidden_size, generator=torch.Generator().manual_seed(2))
    normed = model.model.layers[1].input_layernorm(hidden)
    queries, keys = kvpress_reference.projections(model, 1, hidden)
    embeddings = model.model.rotary_emb(hidden, torch.arange(23)[None])
    options = {"window_size": 5, "kernel_size": 3} if scorer == "SnapKVPress" else {}
    press = getattr(press_tree.package(), scorer)(**options)
    found = press.score(attention, normed, keys[None], keys[None], None, {"position_embeddings": embeddings})[0]
    if scorer == "SnapKVPress":
        want = snapkv(keys, queries, attention.scaling, **options)
    else:
        want = kvpress_reference.SCORES[scorer](keys, queries[:, -1], attention.scaling)
    newest = {"TOVAPress": 22, "SnapKVPress": 18}.get(scorer, 23)  # of those after it all stay
    torch.testing.assert_close(found[:, :newest], want[:, :newest], rtol=1e-4, atol=1e-5)
    assert (found[:, newest:] > found[:, :newest].max()).all()


def snapkv(keys, queries, scale, window_size, kernel_size):
    """Attention of the last queries to what precedes them, mean over queries, smoothed, mean over the group."""
    kv_heads, tokens, _ = keys.shape
    group, before = len(queries) // len(keys), tokens - window_size
    scores = torch.ones(kv_heads, tokens)
    for head in range(kv_heads):
        smoothed = torch.zeros(group, before)
        for member in range(group):
            mean = torch.zeros(before)
            for q in range(before, tokens):
                weights = (queries[head * group + member, q] @ keys[head, : q + 1].T * scale).softmax(-1)
                mean += weights[:before] / window_size
            for k in range(before):
                near = [mean[i] for i in range(k - kernel_size // 2, k + kernel_size // 2 + 1) if 0 <= i < before]
                smoothed[member, k] = sum(near) / kernel_size
        scores[head, :before] = smoothed.mean(0)
    return scores


def session(model, name, cr=4.0, **params):
    method = methods.create(f"kvpress:{name}", cr=cr, **params)
    return PressSession(model, method.make_press(PROMPT, NEW), 5, str(method))


def test_a_mask_is_not_attended_to_and_frees_nothing(model):
    window, prompt = 6, requests()[0].prompt_ids
    norms = torch.cat(
        [k.norm(dim=-1).flatten() for k in dense_reference.forward(model, prompt, dense_reference.keep_all(2))[1]]
    )
    middle = norms.sort().values[len(norms) // 2 :][:2]
    threshold = -float(middle.mean())

    def reference(tokens, margins):
        return dense_reference.forward(
            model, [*prompt, *tokens], kvpress_reference.thresholded(model, PROMPT, window, threshold, margins)
        )

    tokens, logits, expiries = clear(reference)
    press = session(model, "DMSPress:KnormPress", threshold=threshold, sliding_window_size=window)
    rows = sum(len(e) for e in expiries)
    with torch.inference_mode(), press.open():
        torch.testing.assert_close(press.forward(list(prompt))[0], logits[PROMPT - 1], rtol=2e-4, atol=2e-4)
        assert press.entries_held == rows * PROMPT
        for q, token in enumerate(tokens, PROMPT):
            torch.testing.assert_close(press.forward([token])[0], logits[q], rtol=2e-4, atol=2e-4)
            assert press.entries_read == sum(int(dense_reference.live(e, q).sum()) for e in expiries)
            assert press.entries_held == rows * (q + 1)
    assert press.entries_read < press.entries_held * 0.8
    request = requests(cuts=(1, 2, 9, 30), forced=tokens)[0]
    params = {"threshold": threshold, "sliding_window_size": window}
    (chain,) = engine(model, "DMSPress:KnormPress", **params).generate([request], Sampling())
    assert chain.logprob == pytest.approx(logprob(logits, PROMPT, tokens), rel=1e-4)
    for length, reads, peak in zip(chain.trace.lengths, chain.trace.kv_reads, chain.trace.peak_kv, strict=True):
        assert reads == dense_reference.reads_and_peak(expiries, PROMPT, length)[0] / rows
        assert peak == dense_peak(PROMPT, length)


@pytest.mark.parametrize("scorer", ["KeyDiffPress", "TOVAPress"])
def test_a_press_over_all_heads_masks_as_many_as_it_says(model, scorer):
    """AdaKV prunes over all heads of a layer at once; what it masks holds nothing up, whatever its values are."""
    press = session(model, f"DecodingPress:AdaKVPress:{scorer}", cr=2, compression_interval=8)
    prompt, tokens, size = requests()[0].prompt_ids, forced(), math.ceil((PROMPT + NEW) / 2) - 8
    layers, heads = model.config.num_hidden_layers, model.config.num_key_value_heads
    masked = 0
    with torch.inference_mode(), press.open():
        press.forward(list(prompt))
        for step, token in enumerate(tokens, 1):
            press.forward([token])
            assert press.entries_held == layers * heads * (PROMPT + step)
            assert press.entries_held - press.entries_read == masked
            if step % 8 == 0 and PROMPT + step > size:
                masked = layers * heads * (PROMPT + step - size)
        assert masked
        snapshot = press.take_snapshot()
        before = press.forward([9])
        for (_, values), mask in zip(snapshot.layers, snapshot.masks, strict=True):
            values[tuple(torch.as_tensor(part) for part in mask)] = 100.0
        press.restore(snapshot)
        torch.testing.assert_close(press.forward([9]), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [{}, {"top_k": 9, "min_p": 0.01, "repetition_penalty": 1.4}], ids=["plain", "shaped"])
def test_a_ratio_of_one_evicts_nothing(model, shape):
    sampling = Sampling(seed=2, **shape)
    vanilla = TorchEngine(model, tiny.Characters(), methods.create("vanilla", cr=1), batch_size=1)
    for name in ("DecodingPress:KeyDiffPress", "CompressionRatioDecodingPress:TOVAPress", "CAMPress:KnormPress"):
        found = list(engine(model, name, cr=1).generate(requests(2), sampling))
        for chain, want in zip(found, vanilla.generate(requests(2), sampling), strict=True):
            assert (chain.token_ids, chain.text, chain.finish) == (want.token_ids, want.text, want.finish)
            assert chain.trace.kv_reads == want.trace.kv_reads
            assert chain.trace.peak_kv == want.trace.peak_kv == (dense_peak(PROMPT, len(chain.token_ids)),)


RANDOM = ["DecodingPress:RandomPress", "CAMPress:RandomPress", "PrefillDecodingPress:RandomPress:CAMPress:KeyDiffPress"]


@pytest.mark.parametrize("name", RANDOM)
def test_a_chain_depends_on_its_seed_alone(model, name):
    """Presses that draw at random, draw the same whatever ran before, and leave torch's own noise alone."""
    made = engine(model, name, compression_interval=3)
    state = torch.random.get_rng_state()
    first = {chain.chain: chain for chain in made.generate(requests(3), Sampling(seed=1))}
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    again = {chain.chain: chain for chain in made.generate(requests(3)[::-1], Sampling(seed=1))}
    for index, chain in first.items():
        assert replace(chain, seconds=0) == replace(again[index], seconds=0)
    other = [chain.token_ids for chain in made.generate(requests(3), Sampling(seed=2))]
    assert other != [first[index].token_ids for index in range(3)]


def test_nothing_of_it_stays_on_the_model(model):
    before = model.config._attn_implementation
    ids = torch.tensor([requests()[0].prompt_ids])
    want = model(input_ids=ids).logits
    for _ in engine(model, "DecodingPress:AdaKVPress:KnormPress").generate(requests(), Sampling()):
        assert model.config._attn_implementation == before
        assert not any(layer.self_attn._forward_hooks for layer in model.model.layers)
    torch.testing.assert_close(model(input_ids=ids).logits, want, rtol=0, atol=0)


@pytest.mark.e2e
def test_our_attention_survives_the_import_of_kvpress():
    """kvpress wraps every attention function that it finds when it is imported."""
    program = """
import sys; sys.path.insert(0, "tests/helpers/models")
import tiny
from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine
engine = TorchEngine(tiny.model(), tiny.Characters(), methods.create("vanilla", cr=1))
run = lambda: [chain.token_ids for chain in engine.generate([Request("p", 0, (1, 2, 3), 9)], Sampling())]
before = run()
methods.create("kvpress:DecodingPress:KnormPress", cr=4)
assert "kvpress" in sys.modules and run() == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_length_invariance_is_kept(model):
    """A chain cut at 17 is the chain of a run with L = 17."""
    for name, params in (
        ("CompressionRatioDecodingPress:RandomPress", {"compression_interval": 4}),
        ("DMSPress:RandomPress", {"threshold": 0.5, "sliding_window_size": 5}),
    ):
        made = engine(model, name, **params)
        assert made.method.length_invariant
        for long, short in zip(
            made.generate(requests(2, 40, (17,)), Sampling()), made.generate(requests(2, 17), Sampling()), strict=True
        ):
            cut = min(17, len(long.token_ids))
            assert long.token_ids[:17] == short.token_ids
            assert (long.trace.lengths[0], long.trace.kv_reads[0]) == (cut, short.trace.kv_reads[-1])


def test_what_a_press_cannot_do_is_an_error_of_one_line(model):
    for name, message in (
        ("DecodingPress:SnapKVPress", "should be greater than the window size 64"),
        ("DecodingPress:LeverageScorePress", "only supports prefill"),
        ("DecodingPress:ObservedAttentionPress", "eager"),
    ):
        with pytest.raises(EngineError, match=f"kvpress:{name} does not work here: kvpress says: .*{message}"):
            list(engine(model, name).generate(requests(), Sampling()))
    (chain,) = engine(model, "DecodingPress:KnormPress").generate(requests(), Sampling())  # the model is as before
    assert chain.token_ids
    with pytest.raises(EngineError, match="needs a prompt"):
        list(engine(model, "DecodingPress:KnormPress").generate([replace(requests()[0], prompt_ids=())], Sampling()))
    with pytest.raises(MethodError, match="hyperscale run"):
        TorchEngine(model, tiny.Characters(), methods.create("kvpress:DecodingPress:KnormPress", cr=4))


def test_a_request_beyond_the_context_is_refused(model):
    """As in the torch engine, and a prompt of another vocabulary likewise."""
    made = engine(model, "DecodingPress:KnormPress")
    with pytest.raises(EngineError, match=r"may need 4,097 tokens; the model's context has 4,096"):
        next(made.generate(requests(new=4097 - PROMPT), Sampling(temperature=0)))
    with pytest.raises(EngineError, match="token 99, and the model's embedding has 64 rows"):
        next(made.generate([Request("p", 0, (1, 99), 4)], Sampling(temperature=0)))
