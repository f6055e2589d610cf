"""Families of the torch engine: logits, checkpoints, methods that need RoPE, and what is refused and why."""

import architectures
import commandline
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.config_check import check_config
from hyperscale.engines.families.names import FAMILIES, IN_EVERY_ENGINE
from hyperscale.engines.kvpress.provider import KVPressProvider
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.provider import TorchProvider
from hyperscale.engines.vllm.harness.provider import VllmProvider
from hyperscale.errors import MethodError, ModelError
from hyperscale.retrofit import choices

NEW = [family for family in FAMILIES if family not in IN_EVERY_ENGINE]
GREEDY = Sampling(temperature=0)
PROMPT = tuple(torch.randint(0, 63, (50,), generator=torch.Generator().manual_seed(0)).tolist())


def engine(model, name="vanilla", **params):
    return TorchEngine(model, tiny.Characters(), methods.create(name, **params), batch_size=3)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family):
    model = tiny.model(family)
    made = engine(model, cr=1)
    current = forward_pass.PrefillPass(made.start_batch(GREEDY)._state, 60)
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        with forward_pass.use_own_attention(model):
            logits = forward_pass.run(model, current, ids, torch.arange(len(PROMPT))[None])
        wanted = model(ids).logits[:, -1]
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    assert wanted.std() > 0.1


@pytest.mark.parametrize("family", NEW)
def test_checkpoints_load_and_give_the_tokens_of_transformers(tmp_path, family):
    folder = architectures.write(tmp_path, family)
    model, tokenizer = load_model(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    made = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1), batch_size=2)
    requests = [Request(str(n), 0, PROMPT[:n], 40) for n in (3, 17, 50)]
    for chain in made.generate(requests, GREEDY):
        ids = torch.tensor([[*PROMPT[: int(chain.problem)], *chain.token_ids]])
        with torch.inference_mode():
            best = plain(ids).logits[0, int(chain.problem) - 1 : -1, : len(tokenizer)].argmax(-1)
        assert tuple(best.tolist()) == chain.token_ids
        assert len(set(chain.token_ids)) > 3


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize("name", ["window", "tova", "h2o", "snapkv", "rkv", "keydiff", "quest"])
def test_methods_without_pressure_give_the_tokens_of_the_full_cache(family, name):
    """A budget above the chain's length: nothing is evicted, so the rule must not change a token."""
    model = tiny.model(family)
    request = [Request("p", 0, PROMPT[:8], 24)]
    (full,) = engine(model, cr=1).generate(request, GREEDY)
    (chain,) = engine(model, name, cr=1).generate(request, GREEDY)
    assert chain.token_ids == full.token_ids


@pytest.mark.parametrize("name", ["triattention", "dmc", "dms"])
def test_methods_that_go_by_rope_refuse_layers_without_it(name):
    """Gates with a projection of their own do not go by it, so they run."""
    model = tiny.model("smollm3")
    if name == "dmc":
        model.config.dmc_cr = 2.0
    if name == "dms":
        tiny.with_gates(model, separate=False)
    refusal = pytest.raises(MethodError, match=rf"{name}.* needs RoPE in every layer.*layers 1 have none")
    with refusal:
        engine(model, name, cr=2.0)
    config = {**model.config.to_dict(), "model_type": "smollm3"}
    with refusal:  # as a run asks before it loads the weights
        TorchProvider().check_rules([methods.create(name, cr=2.0)], "path", config, "auto")
    if name == "dms":
        separate = {**config, "dms_separate_alpha": True}
        TorchProvider().check_rules([methods.create(name, cr=2.0)], "path", separate, "auto")
        made = engine(tiny.with_gates(tiny.model("smollm3")), "dms", cr=2.0)
        (chain,) = made.generate([Request("p", 0, PROMPT, 20)], GREEDY)
        assert len(chain.token_ids) == 20


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("settings", "options", "fault"),
    [
        (
            {"family": "smollm3"},
            ("--method", "vanilla,triattention", "--cr", "4"),
            "triattention needs RoPE in every layer, and this model's layers 1 have none",
        ),
        (
            {"family": "llama", "head_dim": 18},
            ("--kv-dtype", "int4"),
            "int4 needs heads of a multiple of 4 channels, not 18",
        ),
    ],
)
def test_a_run_refuses_what_an_arm_cannot_do_before_it_has_a_folder(
    tmp_path, monkeypatch, capsys, settings, options, fault, dry
):
    words = architectures.tokenizer()
    model = tiny.model(**settings, vocab=len(words), eos=words.eos_token_id)
    for part in (model, words):
        part.save_pretrained(tmp_path / "model")
    run = commandline.caller(monkeypatch, capsys, tmp_path)
    command = ("run", "--model", "model", "--task", "mini_aime", "--limit", 1, "--length", 32, "--out", "out", *options)
    commandline.fails(run(*command, *(["--dry-run"] if dry else [])), fault)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, ("sliding-window", "sliding_window = 4096", "null")),
        ({"model_type": "mistral"}, ("sliding_window = 4096", "where the key is missing")),
        (
            {"model_type": "mistral", "sliding_window": 8, "layer_types": ["full_attention"]},
            ("sliding_window = 8",),
        ),
        ({"model_type": "phi3", "sliding_window": 2047}, ("sliding-window", "2047")),
        ({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, ("longrope", "batch")),
        ({"model_type": "phi3", "rope_scaling": {"type": "yarn", "factor": 2.0}}, ("'yarn'", "'phi3'")),
        ({"model_type": "phi3", "partial_rotary_factor": 0.75}, ("partial_rotary_factor",)),
        ({"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 8}, ("sliding-window",)),
        ({"model_type": "gemma", "sliding_window": 8}, ("sliding-window",)),
        ({"model_type": "gemma", "use_bidirectional_attention": True}, ("use_bidirectional_attention",)),
        ({"model_type": "gemma", "attn_logit_softcapping": 50.0}, ("attn_logit_softcapping",)),
        (
            {"model_type": "gemma2", "sliding_window": 4096, "attn_logit_softcapping": 50.0},
            ("'gemma2'", "sliding-window attention layers and soft-capped attention scores"),
        ),
        ({"model_type": "gemma3_text", "sliding_window": 512}, ("'gemma3_text'", "sliding-window")),
        ({"model_type": "gemma3", "text_config": {"sliding_window": 1024}}, ("'gemma3'", "sliding-window")),
    ],
)
def test_windows_soft_caps_and_other_rope_are_refused_with_the_reason(config, texts):
    with pytest.raises(ModelError) as caught:
        check_config(config)
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "gemma", "hidden_act": "gelu", "head_dim": 256},
        {"model_type": "granite", "attention_multiplier": 0.0078125, "logits_scaling": 8.0, "rope_scaling": None},
        {"model_type": "smollm3", "use_sliding_window": False, "sliding_window": None, "no_rope_layer_interval": 4},
        {"model_type": "phi3", "sliding_window": None, "rope_scaling": None, "partial_rotary_factor": 1.0},
    ],
)
def test_configurations_as_they_are_published_pass(config):
    check_config(config)


@pytest.mark.parametrize("family", NEW)
def test_a_retrofit_refuses_families_that_it_does_not_train(tmp_path, family):
    folder = architectures.write(tmp_path, family)
    with pytest.raises(ModelError, match=rf"'{family}' do not run in hyperscale retrofit"):
        choices.read_config(str(folder))


def test_engines_without_a_family_say_so():
    for provider, text in ((VllmProvider(), "leave --engine vllm out"), (KVPressProvider(), "leave a-press out")):
        for family in NEW:
            config = {"model_type": family, "head_dim": 64}
            with pytest.raises(ModelError, match=rf"'{family}' do not run in .*: {text}"):
                provider.check_model("path", config, ["a-press"], "cuda")
        for family in IN_EVERY_ENGINE:
            provider.check_model("path", {"model_type": family, "head_dim": 64}, ["vanilla"], "cuda")


@pytest.mark.parametrize(
    ("dim", "method", "refused"),
    [
        (16, "vanilla", "one of 32, 64, 80"),
        (48, "vanilla", "one of 32, 64, 80"),
        (80, "vanilla", None),
        (80, "dms", "a multiple of 32"),
        (288, "dms", "one of 32, 64, 80"),
        (128, "dms", None),
    ],
)
def test_heads_that_vllm_has_no_kernel_for_on_a_cpu_are_refused(dim, method, refused):
    config = {"model_type": "qwen3", "head_dim": dim}
    if refused is None:
        VllmProvider().check_model("path", config, [method], "cpu")
    else:
        with pytest.raises(ModelError, match=rf"heads in vLLM .*{refused}.* path have {dim}: leave --engine vllm out"):
            VllmProvider().check_model("path", config, [method], "cpu")
