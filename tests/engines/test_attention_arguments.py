"""Models whose attention needs more than an engine computes are refused instead of giving other tokens in silence."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig

from hyperscale import methods
from hyperscale.engines.attention_arguments import check_attention_arguments
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.families.names import FAMILIES
from hyperscale.engines.kvpress.engine import KVPressEngine
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ModelError

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 32,
    "vocab_size": 64,
    "layer_types": ["full_attention"] * 2,
    "initializer_range": 0.3,
    "eos_token_id": None,
    "pad_token_id": None,
}
PROMPT, NEW_TOKENS = (1, 2, 3, 4, 5), 6


def random_model(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


def gemma2(softcap):
    return random_model(Gemma2Config(**SIZES, attn_logit_softcapping=softcap, query_pre_attn_scalar=16))


def generate(engine):
    (chain,) = engine.generate([Request("p", 0, PROMPT, NEW_TOKENS)], Sampling(temperature=0))
    return chain.token_ids


def torch_engine(model):
    return TorchEngine(model, tiny.Characters(), methods.create("vanilla", cr=1))


def kvpress_engine(model):
    pytest.importorskip("kvpress")
    return KVPressEngine(model, tiny.Characters(), methods.create("kvpress:DecodingPress:KnormPress", cr=1))


ENGINES = pytest.mark.parametrize("engine_of", [torch_engine, kvpress_engine])


@ENGINES
def test_soft_capping_is_refused(engine_of):
    with pytest.raises(ModelError, match=r"'gemma2'.*soft-capped attention scores"):
        generate(engine_of(gemma2(softcap=5.0)))


@ENGINES
def test_sinks_are_refused(engine_of, monkeypatch):
    """By the attention function, which is the last to see what a family that was let in asks for."""
    monkeypatch.setitem(FAMILIES, "gpt_oss", "GptOss")
    model = random_model(GptOssConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1))
    with pytest.raises(ModelError, match=r"'gpt_oss'.*'s_aux'"):
        generate(engine_of(model))


@ENGINES
def test_without_soft_capping_tokens_are_those_of_transformers(engine_of):
    model = gemma2(softcap=None)
    ids = model.generate(torch.tensor([PROMPT]), max_new_tokens=NEW_TOKENS, do_sample=False)[0, len(PROMPT) :]
    assert generate(engine_of(model)) == tuple(ids.tolist())


@pytest.mark.parametrize("arguments", [{"sliding_window": 16}, {"dropout": 0.1}, {"is_causal": False}, {"new": 0}])
def test_what_changes_attention_is_named(arguments):
    attention = tiny.model("qwen2").model.layers[0].self_attn
    with pytest.raises(ModelError, match=rf"'qwen2'.*{next(iter(arguments))!r}"):
        check_attention_arguments(attention, arguments)


def test_what_changes_nothing_is_accepted():
    attention = tiny.model("qwen3").model.layers[0].self_attn
    harmless = {"sliding_window": None, "softcap": None, "dropout": 0.0, "is_causal": True, "use_cache": False}
    check_attention_arguments(attention, harmless | {"position_ids": torch.arange(3)})
