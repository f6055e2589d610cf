"""Methods that run by their own state in vLLM: chains and costs are the torch engine's, on the built-in model."""

import pytest
from vllm_engines import needs_vllm, same, torch_chains, vllm_chains

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


IN_CHUNKS = ("tova", "snapkv, not pinned", "quest, proportional")  # of the quick tests
RUNS = [
    pytest.param(case, how, marks=() if how == "whole prompts" or case in IN_CHUNKS else pytest.mark.slow)
    for how in ("whole prompts", "chunks")
    for case in CASES
]


@pytest.mark.parametrize(("case", "how"), RUNS)
def test_hosted_methods_equal_torch(case, how):
    method, cr, params = CASES[case]
    if method == "knorm" and how == "chunks":
        pytest.skip("equal tokens have keys of equal norm in the first layer, so the rounding of sums decides")
    more = CHUNKED if how == "chunks" else {}
    wanted = torch_chains("base", method, cr, params, count=1, length=120)
    found = vllm_chains("base", method, cr, params, count=1, length=120, **more)
    same(wanted, found, name="base", method="vanilla")
