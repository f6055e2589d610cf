"""The same scores as kvpress gives to the entries of the same prompt, where it has the same rule."""

import pytest
import tiny
import torch

from hyperscale import methods
from hyperscale.engines.torch import forward_pass
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.base import HostModel, State

pytestmark = pytest.mark.e2e

kvpress = pytest.importorskip("kvpress")

LENGTH, BUDGET = 90, 30


class _Looks(State):
    """Keeps what a method would look at."""

    def __init__(self):
        self.found = []

    def prune_prompt(self, layer, look):
        self.found.append(look)
        return None, None

    def write_slots(self, layer, layer_input):
        raise AssertionError


def looks(model, ids):
    state = _Looks()
    forward_pass.install_hooks(model)
    with torch.inference_mode(), forward_pass.use_own_attention(model):
        forward_pass.run(model, forward_pass.PrefillPass(state, 0), ids, torch.arange(ids.shape[1])[None])
    return state.found


def pressed(model, ids, press_class, **params):
    """Scores of each layer, (kv_heads, P), and the keys that kvpress keeps of it."""
    scores = []

    class Recorded(press_class):
        def score(self, *args, **kwargs):
            found = super().score(*args, **kwargs)
            scores.append(found[0])
            return found

    model.set_attn_implementation("eager")
    with torch.inference_mode(), Recorded(compression_ratio=1 - (BUDGET + 0.5) / LENGTH, **params)(model):
        cache = model(ids, cache_position=torch.arange(LENGTH)).past_key_values
    return scores, [layer.keys[0] for layer in cache.layers]


@pytest.fixture(params=[("llama", 2), ("qwen3", 4), ("qwen3", 1)], ids=str)
def case(request):
    family, kv_heads = request.param
    model = tiny.model(family, heads=4, kv_heads=kv_heads, layers=2, seed=7)
    ids = torch.randint(0, 63, (1, LENGTH), generator=torch.Generator().manual_seed(3))
    return model, ids, looks(model, ids)


def started(model, name, **params):
    """State of a method that keeps BUDGET entries of a prompt of LENGTH, and has room for one more."""
    cr = LENGTH / (BUDGET + 0.5)  # nothing is generated after the prompt
    method = methods.create(name, cr=cr, rule="fixed", pin_prompt=False, **params)
    attentions = [layer.self_attn for layer in model.model.layers]
    heads = model.config.num_key_value_heads
    return method.start(HostModel(attentions, model.config, heads, 1, torch.device("cpu"), model.dtype))


def same_keys(look, kept, theirs):
    for head, keys in enumerate(theirs):
        ours = look.keys[head][kept[head]]
        assert len(ours) == len(keys)
        distance = torch.cdist(ours, keys, compute_mode="donot_use_mm_for_euclid_dist")
        assert sorted(distance.argmin(1).tolist()) == list(range(len(keys)))
        assert float(distance.min(1).values.max()) < 1e-4


def test_snapkv_scores_and_keeps_what_kvpress_does(case):
    model, ids, found = case
    theirs, keys = pressed(model, ids, kvpress.SnapKVPress, window_size=8, kernel_size=5)
    state = started(model, "snapkv", window=8, interval=1)
    for layer, look in enumerate(found):
        state.prune_prompt(layer, look)
        live = torch.ones(1, *look.keys.shape[:2], dtype=torch.bool)
        scores = state.score_rows(layer, RowEntries(look.keys[None], look.values[None], live), None)[0]
        torch.testing.assert_close(scores[:, :-8], theirs[layer][:, :-8], rtol=1e-4, atol=1e-6)
        kept, _ = state.prune_prompt(layer, look)
        same_keys(look, kept, keys[layer])


def test_h2o_sums_what_observed_attention_averages(case):
    model, ids, found = case
    theirs, _ = pressed(model, ids, kvpress.ObservedAttentionPress)
    state = started(model, "h2o")
    seen_by = torch.arange(LENGTH, 0, -1)
    for layer, look in enumerate(found):
        _, scores = state.prune_prompt(layer, look)
        group = len(look.queries) // len(look.keys)
        torch.testing.assert_close(scores / seen_by / group, theirs[layer], rtol=1e-4, atol=1e-6)


def test_tova_keeps_what_kvpress_does(case):
    model, ids, found = case
    _, keys = pressed(model, ids, kvpress.TOVAPress)
    state = started(model, "tova", recent=2)  # kvpress never evicts the last token
    for layer, look in enumerate(found):
        kept, _ = state.prune_prompt(layer, look)
        same_keys(look, kept, keys[layer])


def test_knorm_scores_as_kvpress_does(case):
    model, ids, found = case
    theirs, _ = pressed(model, ids, kvpress.KnormPress)
    state = started(model, "knorm", interval=1)
    for layer, look in enumerate(found):
        live = torch.ones(1, *look.keys.shape[:2], dtype=torch.bool)
        scores = state.score_rows(layer, RowEntries(look.keys[None], look.values[None], live), None)[0]
        torch.testing.assert_close(scores, theirs[layer], rtol=1e-4, atol=1e-6)
