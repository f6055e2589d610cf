"""Gates in training, and their agreement with the engine: what was trained is what decodes."""

import copy
import dataclasses

import pytest
import tiny
import torch
from reference_rules.dmc import DMC

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ModelError
from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig, alpha_logits, attach_gates
from hyperscale.retrofit.attention.masks import PackingMasks
from hyperscale.retrofit.attention.packed_attention import use_packed_attention
from hyperscale.retrofit.gates.gated_model import GONE, GatedModel


def gated(model, mode, kind=GateConfig, **changes):
    """A copy of a model with gates, in training's form."""
    config = dataclasses.replace(kind.from_hf(model.config), **changes)
    student = GatedModel(copy.deepcopy(model), config, attach=False)
    use_packed_attention(student.model)
    student.mode = mode
    return student


def forward(student, ids):
    ids = torch.as_tensor(ids).reshape(1, -1)
    place = torch.arange(ids.shape[1])[None]
    masks = PackingMasks.build(torch.zeros_like(ids), getattr(student.config, "window", 0))
    return student.forward(input_ids=ids, position_ids=place, masks=masks)


@pytest.fixture(scope="module")
def model():
    return tiny.with_gates(tiny.model(heads=4, kv_heads=2, layers=3, seed=1), window=4)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 64, (60,), generator=torch.Generator().manual_seed(2))


def test_off_is_the_plain_model(model, ids):
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    student = gated(model, "off")
    torch.testing.assert_close(forward(student, ids), plain(input_ids=ids[None]).logits, rtol=1e-4, atol=1e-4)
    assert student.alphas == []


def test_off_after_hard_leaves_no_bias_behind(model, ids):
    student = gated(model, "hard")
    hard = forward(student, ids)
    student.mode = "off"
    off = forward(student, ids)
    assert not torch.allclose(hard, off, atol=1e-2)
    assert torch.equal(off, forward(gated(model, "off"), ids))


def test_the_verdict_on_a_token_comes_from_the_next_hidden_state(model, ids):
    student = gated(model, "hard")
    hidden = []
    for layer in student.model.model.layers:
        layer.register_forward_pre_hook(lambda _, args, kwargs: hidden.append(args[0]), with_kwargs=True)
    forward(student, ids)
    assert len(student.alphas) == len(hidden) == 3
    for alpha, states, layer in zip(student.alphas, hidden, student.model.model.layers, strict=True):
        attention = layer.self_attn
        assert alpha.shape == (1, 60, 2)
        for i in range(59):
            verdict = alpha_logits(attention, states[:, i + 1], student.config) > 0
            assert torch.equal(alpha[:, i] > 0, verdict)
        bias = attention.key_bias
        assert torch.equal(bias, alpha * GONE)
        assert 0.1 < alpha[:, :-1].mean() < 0.9


def test_noisy_gates_share_the_verdicts_on_average(model, ids):
    torch.manual_seed(0)
    student = gated(model, "noisy")
    total = 0.0
    for _ in range(300):
        forward(student, ids)
        total = total + student.alphas[0]
    alpha = student.alphas[0]
    assert ((alpha >= 0) & (alpha <= 1)).all()
    attention = student.model.model.layers[0].self_attn
    torch.testing.assert_close(attention.key_bias.exp(), 1 - alpha)
    logits = alpha_logits(attention, student.model.get_input_embeddings()(ids[None]), student.config)[:, 1:]
    # With logistic noise the share evicted is about the logit's sigmoid, whatever the temperature.
    assert (total[:, :-1] / 300 - torch.sigmoid(logits)).abs().max() < 0.12


def test_noisy_gates_learn_and_hard_ones_do_not(model, ids):
    for mode, learns in (("noisy", True), ("hard", False)):
        student = gated(model, mode)
        student.model.requires_grad_(True)
        forward(student, ids).square().sum().backward()
        grads = [p.grad for p in student.gate_parameters()]
        assert len(grads) == 3
        assert all((g is not None and bool(g.any())) == learns for g in grads)
        assert all(p.grad is not None for name, p in student.model.named_parameters() if "dms_" not in name)
    split = student.gate_parameters() + student.weight_parameters()
    assert {id(p) for p in split} == {id(p) for p in student.model.parameters()}
    assert len(split) == len(list(student.model.parameters()))


def test_untrained_gates_evict_next_to_nothing(ids):
    student = GatedModel(tiny.model(seed=3), GateConfig(window=4))
    use_packed_attention(student.model)
    forward(student, ids)
    assert torch.stack(student.alphas)[:, :, :-1].mean() < 0.02
    student.mode = "hard"
    forward(student, ids)
    assert not torch.stack(student.alphas).any()


# --- training and inference see the same thing ---


VARIANTS = {
    "dms": {},
    "layer": {"per": "layer"},
    "borrowed": {"separate": False},
    "borrowed, layer": {"separate": False, "per": "layer"},
    "fastdms": {"separate": False, "decision_offset": 0, "zeroing": "before_rope"},
    "on the token itself": {"decision_offset": 0},
    "immediate": {"decision_offset": 5},
    "immediate, borrowed": {"separate": False, "decision_offset": 5},
    "never zeroed": {"separate": False, "zeroing": "never"},
}


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("variant", [*list(VARIANTS)[1:], "dmc"])
def test_other_gates_decode_as_they_train(family, variant):
    model = tiny.model(family, heads=4, kv_heads=2, layers=3, seed=7)
    model = DMC.prepare(tiny.with_gates(model, window=4, **VARIANTS.get(variant, {})), 1)
    prompt = tuple(torch.randint(0, 64, (30,), generator=torch.Generator().manual_seed(3)).tolist())
    method = methods.create("dmc" if variant == "dmc" else "dms", cr=2)
    engine = TorchEngine(copy.deepcopy(model), tiny.Characters(65), method)
    (chain,) = engine.generate([Request("p", 0, prompt, 90)], Sampling(temperature=1.0))
    kind = MergeConfig if variant == "dmc" else GateConfig

    def logprob(mode):
        student = gated(model, mode, kind)
        logits = forward(student, [*prompt, *chain.token_ids])[0, 29:-1]
        logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(chain.token_ids)[:, None])
        return logprobs.sum().item(), student.alphas

    total, alphas = logprob("hard")
    assert total == pytest.approx(chain.logprob, abs=2e-3)
    assert 0.1 < torch.stack(alphas).mean() < 0.9
    assert torch.stack(alphas).eq(torch.stack(alphas)[..., :1]).all() == ("layer" in variant)
    assert abs(logprob("off")[0] - chain.logprob) > 0.1


@pytest.mark.parametrize("variant", ["borrowed", "dmc"])
def test_what_decides_inside_learns_from_attention_in_noisy_mode_only_and_from_the_ratio_in_both(ids, variant):
    # Without norms of queries and keys, through which a neuron would reach its neighbours.
    model = DMC.prepare(tiny.with_gates(tiny.model("qwen2", heads=4, kv_heads=2, seed=1), window=4, separate=False), 1)
    for mode in ("noisy", "hard"):
        student = gated(model, mode, MergeConfig if variant == "dmc" else GateConfig)
        student.model.requires_grad_(True)
        logits = forward(student, ids)
        alphas = torch.stack(student.alphas)
        attention = student.model.model.layers[-1].self_attn
        weight = (attention.k_proj if variant == "dmc" else attention.q_proj).weight
        rows = slice(15, None, 16 if variant == "dmc" else 32)
        for result, learns in ((alphas.mean(), True), (logits.square().sum(), mode == "noisy")):
            (grad,) = torch.autograd.grad(result, weight, retain_graph=True)
            assert bool(grad[rows].any()) == learns
        if mode == "hard":
            assert set(alphas.unique().tolist()) == {0.0, 1.0}
        # Weights of DMC, and all else, learn in both modes.
        forward(student, ids).square().sum().backward()
        assert all(p.grad is not None for p in student.model.parameters())


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
@pytest.mark.parametrize("variant", ["borrowed", "dmc"])
def test_faded_neurons_decide_nothing_and_are_not_seen(ids, family, variant):
    model = tiny.model(family, heads=4, kv_heads=2, seed=1)
    config = MergeConfig(alpha_scale=10) if variant == "dmc" else GateConfig(window=4, separate=False)
    student = GatedModel(copy.deepcopy(model), config)
    use_packed_attention(student.model)
    student.mode, student.visible = "off", 1.0
    plain = forward(student, ids)
    torch.testing.assert_close(plain, model(input_ids=ids[None]).logits, rtol=1e-4, atol=1e-4)
    student.scale_neurons(0.5)
    student.scale_neurons(0.0)
    student.visible = 0.0
    off = forward(student, ids)
    assert not torch.allclose(off, plain, atol=1e-2)
    for layer in student.model.model.layers:
        attention = layer.self_attn
        step = 16 if variant == "dmc" else 32
        assert not attention.q_proj.weight[15::step].any()
        assert attention.q_proj.weight[:15].any()
        assert bool(attention.k_proj.weight[15].any()) == (variant == "borrowed")
    student.mode = "hard"
    assert torch.allclose(forward(student, ids), off, atol=1e-4)
    assert not torch.stack(student.alphas).any()


@pytest.mark.parametrize(
    ("family", "window", "offset", "prompt_length"),
    [
        ("qwen3", 4, 0.0, 30),
        ("qwen3", 0, 0.0, 30),
        ("qwen3", 16, -4.0, 5),
        ("qwen3", 7, 3.0, 1),
        ("qwen2", 4, 0.0, 30),
        ("llama", 4, 0.0, 1),
    ],
)
def test_a_hard_forward_pass_is_what_the_engine_decodes(family, window, offset, prompt_length):
    model = tiny.with_gates(tiny.model(family, heads=4, kv_heads=2, layers=3, seed=7), window=window, offset=offset)
    generator = torch.Generator().manual_seed(prompt_length)
    prompt = tuple(torch.randint(0, 64, (prompt_length,), generator=generator).tolist())
    engine = TorchEngine(copy.deepcopy(model), tiny.Characters(65), methods.create("dms", cr=2))
    greedy, sampled = (
        next(engine.generate([Request("p", 0, prompt, 90)], Sampling(temperature=temperature)))
        for temperature in (0.0, 1.0)
    )
    assert greedy.token_ids != sampled.token_ids
    for chain in (greedy, sampled):
        student = gated(model, "hard")
        ids = torch.tensor(chain.token_ids)
        logits = forward(student, [*prompt, *chain.token_ids])[0, prompt_length - 1 : -1]
        logprobs = torch.log_softmax(logits, -1).gather(1, ids[:, None])[:, 0]
        assert logprobs.sum().item() == pytest.approx(chain.logprob, abs=2e-3)
        if chain is greedy:
            assert torch.equal(logits.argmax(-1), ids)
        assert 0.05 < torch.stack(student.alphas).mean() < 0.99
        # The agreement is not for want of an effect.
        full = forward(gated(model, "off"), [*prompt, *chain.token_ids])[0, prompt_length - 1 : -1]
        full = torch.log_softmax(full, -1).gather(1, ids[:, None])[:, 0]
        assert abs(full.sum().item() - chain.logprob) > 0.1


# --- configuration ---


def test_gates_start_at_zero_and_settings_survive_the_checkpoints_config():
    plain = tiny.model()
    modules = attach_gates(plain)
    assert len(modules) == 2
    for module in modules:
        assert module.dms_proj_alpha.weight.shape == (2, 64)
        assert not module.dms_proj_alpha.weight.any()
        logits = alpha_logits(module, torch.randn(1, 5, 64), GateConfig(initial_offset=5.0))
        assert logits.shape == (1, 5, 2)
        assert (logits == -5).all()
    for name, value in GateConfig(window=3, alpha_scale=7.0, initial_offset=2.0, tau=0.3, cr=4.0).to_hf().items():
        setattr(plain.config, name, value)
    assert GateConfig.from_hf(plain.config) == GateConfig(3, 7.0, 2.0, 0.3, 4.0)


def test_configurations_without_gates_or_of_no_sense_are_refused():
    config = tiny.model().config
    with pytest.raises(ModelError, match="not retrofitted with DMS"):
        GateConfig.from_hf(config)
    config.dms_window_size = 16
    # What is missing is as in NVIDIA's code: a neuron is borrowed, the ratio is 8.
    assert GateConfig.from_hf(config) == GateConfig(window=16, cr=8, separate=False)
    config.dms_separate_alpha, config.dms_alpha_per = False, "layer"
    assert GateConfig.from_hf(config) == GateConfig(window=16, cr=8, separate=False, per="layer")
    config.dms_alpha_per = "token"
    with pytest.raises(ModelError, match='"token": it must be "head" or "layer"'):
        GateConfig.from_hf(config)
