"""Families are let in by what their classes need: some in no list run as in transformers, others are refused."""

import architectures
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.config_check import check_config
from hyperscale.engines.families import needs
from hyperscale.engines.families.names import FAMILIES
from hyperscale.engines.families.rope_form import compare_rope, explain_rope_of
from hyperscale.engines.kvpress.provider import KVPressProvider
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.vllm.harness.provider import VllmProvider
from hyperscale.errors import MethodError, ModelError
from hyperscale.retrofit import choices

GREEDY = Sampling(temperature=0)
PROMPT = tuple(torch.randint(0, 63, (50,), generator=torch.Generator().manual_seed(0)).tolist())
#: What the RoPE of a family is, where it is not that of Llama.
OTHER_ROPE = {"cohere": "another form", "glm": "a part of each head", "phi": "a part of each head"}


@pytest.mark.parametrize("family", tiny.UNLISTED)
def test_checkpoints_of_families_in_no_list_give_the_tokens_of_transformers(tmp_path, family):
    assert family not in FAMILIES
    folder = architectures.write(tmp_path, family)
    model, tokenizer = load_model(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    requests = [Request(str(n), 0, PROMPT[:n], 40) for n in (3, 17, 50)]
    made = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1), batch_size=2)
    seen = set()
    for chain in made.generate(requests, GREEDY):
        ids = torch.tensor([[*PROMPT[: int(chain.problem)], *chain.token_ids]])
        with torch.inference_mode():
            best = plain(ids).logits[0, int(chain.problem) - 1 : -1, : len(tokenizer)].argmax(-1)
        assert tuple(best.tolist()) == chain.token_ids
        seen |= set(chain.token_ids)
    assert len(seen) > 3


@pytest.mark.parametrize("family", [*FAMILIES, *tiny.UNLISTED])
def test_methods_that_go_by_rope_run_where_it_is_that_of_llama(family):
    """The comparison with `rotate` is made for families of the list too, which the matrix of methods holds."""
    model = tiny.model(family)
    other = OTHER_ROPE.get(family) or ("layers 1 have none" if family == "smollm3" else "")
    found = compare_rope(model)
    assert other in found
    assert explain_rope_of(model.config) == found
    assert bool(found) == bool(other)
    requests = [Request("p", 0, PROMPT, 12)]
    if other:
        with pytest.raises(MethodError, match=f"triattention needs RoPE in every layer.*{other}"):
            TorchEngine(model, tiny.Characters(), methods.create("triattention", cr=2))
    else:
        made = TorchEngine(model, tiny.Characters(), methods.create("triattention", cr=2))
        (chain,) = made.generate(requests, GREEDY)
        assert len(chain.token_ids) > 2


@pytest.mark.parametrize("family", tiny.UNLISTED)
@pytest.mark.parametrize("name", ["window", "tova", "snapkv", "rkv", "quest"])
def test_methods_without_pressure_give_the_tokens_of_the_full_cache(family, name):
    model = tiny.model(family)
    request = [Request("p", 0, PROMPT[:8], 24)]
    tokens = [
        next(TorchEngine(model, tiny.Characters(), methods.create(each, cr=1)).generate(request, GREEDY)).token_ids
        for each in ("vanilla", name)
    ]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_the_list_would_be_let_in_by_their_needs(family):
    config = tiny.model(family).config
    needs.check_settings(family, config)
    needs.check_class({**config.to_dict(), "model_type": family})


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("gemma2", {}, "sliding-window attention layers and soft-capped attention scores"),
        (
            "gemma2",
            {"layer_types": ["full_attention"] * 26},
            "has soft-capped attention scores, which the engines do not run",
        ),
        ("gemma3_text", {}, "sliding-window attention layers"),
        ("gemma3", {}, "a text model inside a multimodal one and sliding-window attention layers"),
        ("olmo3", {}, "sliding-window"),
        ("starcoder2", {"sliding_window": 4096}, "sliding-window"),
        ("llama4_text", {}, "layers of type chunked_attention"),
        ("qwen3_next", {}, "layers of type linear_attention"),
        ("bloom", {}, "ALiBi"),
        ("mpt", {}, "ALiBi"),
        ("falcon", {"alibi": True}, "ALiBi"),
        ("gpt2", {}, "learned positions"),
        ("opt", {}, "learned positions"),
        ("deepseek_v3", {}, "multi-head latent attention"),
        ("minicpm3", {}, "multi-head latent attention"),
        ("bart", {}, "cross attention"),
        ("mixtral", {}, "mixtures of experts"),
        ("qwen3_moe", {}, "mixtures of experts"),
        ("lfm2", {"layer_types": ["conv"] * 32}, "layers of type conv"),
        ("phi4_multimodal", {"layer_types": None}, "a state beside keys and values"),
        (
            "ministral3",
            {"rope_parameters": {"rope_theta": 1e4, "llama_4_scaling_beta": 0.1}},
            "grows with the position",
        ),
        ("stablelm", {}, "position_ids"),
        ("falcon", {}, "under other names than model.layers"),
        ("gpt_neox", {}, "under other names than model.layers"),
        ("diffllama", {}, "attention once each"),
        ("olmo2", {"is_causal": False}, "attention to later tokens"),
        ("mine", {}, "transformers .* has no decoder of this type"),
        ("clip", {}, "has no decoder of this type"),
    ],
)
def test_what_a_class_needs_and_the_engine_lacks_is_the_reason(family, settings, reason):
    with pytest.raises(ModelError, match=rf"'{family}' are not supported: .*{reason}") as caught:
        check_config({"model_type": family, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "'dynamic'"),
        ({"model_type": "starcoder2", "qk_norm": True}, "qk_norm = True in config.json does not run here"),
        ({"qk_norm": "some"}, "qk_norm = 'some'"),
        ({"logit_scale": 0.5}, "logit_scale = 0.5"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"num_attention_heads": "many"}, "config.json makes no model"),
    ],
)
def test_keys_are_checked_for_families_in_no_list_too(settings, reason):
    check_config({"model_type": "olmo2"})
    with pytest.raises(ModelError, match=reason):
        check_config({"model_type": "olmo2", **settings})


def test_keys_that_the_class_reads_are_its_own():
    check_config({"model_type": "cohere", "logit_scale": 0.0625, "use_qk_norm": True})
    check_config({"model_type": "olmo", "clip_qkv": 8.0})


def test_norms_of_queries_and_keys_that_the_class_always_has_may_be_asked_for():
    """Published files of Apertus ask for them, and its configuration in transformers has no such key."""
    for family in ("apertus", "olmo2"):
        check_config({"model_type": family, "qk_norm": True, "post_norm": False})


def test_a_class_that_computes_otherwise_than_it_asks_is_caught_by_the_trial(monkeypatch):
    """Scores that fall with the distance, inside the class's own attention function: nothing that it asks for tells."""
    from transformers.models.olmo2 import modeling_olmo2

    eager = modeling_olmo2.eager_attention_forward

    def distant(module, query, key, value, attention_mask, scaling, **kwargs):
        places = torch.arange(key.shape[2], dtype=query.dtype)
        return eager(module, query, key, value, attention_mask + 0.3 * places, scaling, **kwargs)

    model = tiny.model("olmo2")
    model.set_attn_implementation("eager")
    assert isinstance(model.model.layers[0].self_attn, Olmo2Attention)
    monkeypatch.setattr(modeling_olmo2, "eager_attention_forward", distant)
    with pytest.raises(ModelError, match=r"'olmo2' do not run here: .* differ from those of transformers by"):
        TorchEngine(model, tiny.Characters(), methods.create("vanilla", cr=1))
    monkeypatch.undo()
    TorchEngine(model, tiny.Characters(), methods.create("vanilla", cr=1))


def test_a_class_that_fails_at_what_it_let_pass_without_weights_is_a_line(monkeypatch):
    """Ministral's masks need a window even where no layer has one."""
    words = architectures.tokenizer()
    settings = {"sliding_window": None, "layer_types": ["full_attention"] * 2, "head_dim": 16}
    monkeypatch.setitem(tiny.UNLISTED, "ministral", settings)
    model = tiny.model("ministral", vocab=len(words), eos=words.eos_token_id)
    check_config({**model.config.to_dict(), "model_type": "ministral"})
    with pytest.raises(ModelError, match=r"'ministral' do not run here: transformers' class fails on .*sliding_window"):
        TorchEngine(model, words, methods.create("vanilla", cr=1))


def test_engines_with_classes_of_their_own_refuse_them(tmp_path):
    config = {"model_type": "olmo2", "head_dim": 64}
    with pytest.raises(ModelError, match="'olmo2' do not run in vLLM, which has qwen2, qwen3, llama"):
        VllmProvider().check_model("path", config, ["vanilla"], "cuda")
    with pytest.raises(ModelError, match="'olmo2' do not run in the engine of presses"):
        KVPressProvider().check_model("path", config, ["a-press"], "cuda")
    folder = architectures.write(tmp_path, "olmo2")
    with pytest.raises(ModelError, match="'olmo2' do not run in hyperscale retrofit"):
        choices.read_config(str(folder))


@pytest.mark.e2e
def test_every_decoder_of_transformers_is_let_in_or_refused_with_a_reason():
    """No class of the library's ends in another error than ours, whatever it is made of."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    let_in, messages = [], []
    for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            check_config({"model_type": family})
            let_in.append(family)
        except ModelError as error:
            messages.append(str(error))
    assert not [message for message in messages if "\n" in message]
    assert {"llama", "olmo", "olmo2", "cohere", "glm", "starcoder2", "seed_oss"} <= set(let_in)
    assert not {"gemma2", "bloom", "gpt2", "deepseek_v3", "mixtral", "mamba", "stablelm"} & set(let_in)
    assert len(messages) > len(let_in)
