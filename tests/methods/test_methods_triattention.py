"""TriAttention where generated examples seldom come: a pinned prompt, many heads a group, many prunings."""

import pytest
import tiny
from engine_probe import prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from method_matrix import compare
from reference_rules.triattention import TriAttention

from hyperscale import methods
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import MethodError


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 1000))
def test_scores_of_a_group_are_compared_among_what_may_leave(seed):
    model = tiny.model("qwen3", layers=1, heads=8, kv_heads=2, head_dim=8, seed=seed, width=32, ff=48)
    method = methods.create("triattention", cr=2, interval=4, pin_prompt=True)
    compare(model, method, TriAttention, 2, prompts([(14, 36), (10, 30)], 63, seed))


def test_frequencies_that_follow_the_length_are_refused():
    model = tiny.model()
    model.model.rotary_emb.rope_type = "dynamic"
    with pytest.raises(MethodError, match=r"fixed rotary frequencies.*dynamic"):
        TorchEngine(model, tiny.Characters(64), methods.create("triattention", cr=4))
