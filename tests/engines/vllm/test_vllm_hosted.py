"""Methods that run by their own state in vLLM: chains and costs are the torch engine's, on the built-in model."""

import chain_replay
import pytest
from vllm_engines import needs_vllm, requests, same, torch_chains, torch_engine, vllm_chains

pytestmark = [pytest.mark.e2e, needs_vllm]
CHUNKED = {"max_num_batched_tokens": 24}
CASES = {
    "streaming": ("streaming", 4, ()),
    "streaming, proportional": ("streaming", 4, (("rule", "proportional"), ("recent", 4))),
    "window, prompts not pinned": ("window", 4, (("pin_prompt", False), ("rule", "fixed"))),
    "random, prompts not pinned": ("random", 4, (("pin_prompt", False),)),
    "tova": ("tova", 4, ()),
    "tova by head, pinned": ("tova", 3, (("per", "head"), ("pin_prompt", True), ("rule", "proportional"))),
    "h2o": ("h2o", 4, ()),
    "h2o, pinned": ("h2o", 3, (("pin_prompt", True),)),
    "snapkv": ("snapkv", 4, (("window", 4),)),
    "snapkv, not pinned": ("snapkv", 4, (("window", 4), ("pin_prompt", False), ("interval", 5))),
    "rkv": ("rkv", 4, (("pin_prompt", False),)),
    "keydiff": ("keydiff", 4, ()),
    "keydiff in tokens": ("keydiff", 1, (("budget", 48),)),
    "knorm": ("knorm", 4, ()),
    "triattention": ("triattention", 3, ()),
    "triattention, not pinned": ("triattention", 4, (("pin_prompt", False),)),
    "quest": ("quest", 4, (("dense_layers", 1),)),
    "quest, proportional": ("quest", 4, (("rule", "proportional"), ("page", 5))),
}


#: What runs by default: together one case of each method, in the other ways some.
NEEDED = (
    "streaming",
    "window, prompts not pinned",
    "random, prompts not pinned",
    "tova",
    "h2o",
    "snapkv, not pinned",
    "rkv",
    "keydiff",
    "triattention",
    "quest, proportional",
)
QUICK = ("tova", "snapkv, not pinned")
DEFAULT = {"alone": QUICK, "together": NEEDED, "chunks": (*QUICK, "quest, proportional", "streaming")}
HOW = {"alone": {"batch_size": 1}, "together": {}, "chunks": CHUNKED}
RUNS = [
    pytest.param(case, how, marks=() if case in DEFAULT[how] else pytest.mark.slow)
    for how in HOW
    for case in CASES
    # Equal tokens have keys of equal norm in the first layer: with knorm the rounding of sums decides between them.
    if how == "alone" or case != "knorm"
]


@pytest.mark.parametrize(("case", "how"), RUNS)
def test_hosted_methods_equal_torch(case, how):
    method, cr, params = CASES[case]
    wanted = torch_chains("base", method, cr, params, count=1, length=120)
    found = vllm_chains("base", method, cr, params, count=1, length=120, **HOW[how])
    if method == "knorm":  # which of two equal tokens' entries leaves changes no cost
        for problem, chain in wanted.items():
            tokens = min(len(chain.token_ids), len(found[problem].token_ids))
            cuts = sum(length < tokens for length in chain.trace.lengths)
            assert found[problem].trace.kv_reads[:cuts] == chain.trace.kv_reads[:cuts]
            assert found[problem].trace.peak_kv[:cuts] == chain.trace.peak_kv[:cuts]
        return
    # Requests that share a product, and prompts in chunks, round their sums otherwise than a prompt alone, and a
    # decision between two scores that nearly tie may fall the other way: in one chain, but not in most.
    alike = {problem: chain for problem, chain in wanted.items() if found[problem].token_ids == chain.token_ids}
    assert len(alike) >= (len(wanted) if how == "alone" else len(wanted) - 1)
    same(alike, {problem: found[problem] for problem in alike})
    chain_replay.hold(torch_engine("base", method, cr, params), requests(1, 120), found, spared=int(how != "alone"))
