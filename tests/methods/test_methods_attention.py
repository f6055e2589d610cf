"""Corner cases of the rules that look at attention, on top of the comparison in `test_methods_matrix`."""

import pytest
import tiny
import torch
from engine_probe import watch

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import MethodError
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods import rkv
from hyperscale.methods.rkv import redundancy

NAMES = ["tova", "h2o", "snapkv", "rkv"]
WINDOWED = ["snapkv", "rkv"]


def engine(name, batch_size=8, **params):
    method = methods.create(name, **params)
    return TorchEngine(tiny.model(heads=4, kv_heads=2, seed=9), tiny.Characters(65), method, batch_size=batch_size)


def prompt(length, seed=0):
    return tuple(torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def held(name, ids, tokens, **params):
    """Entries of every row during each decode step; all rows of a step must hold equally many."""
    _, _, rows = watch(engine(name, **params), [Request("p", 0, ids, tokens)], Sampling(temperature=1.0))
    lens = [{len(keys) for layer in step for keys in layer} for step in rows["p"]]
    assert all(len(step) == 1 for step in lens)
    return [step.pop() for step in lens]


@pytest.mark.parametrize("rule", ["proportional", "fixed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_ratio_of_one_is_the_full_cache_bit_for_bit(name, rule):
    asked = [Request("p", chain, prompt(40), 60, (10, 60)) for chain in range(3)]
    sampling = Sampling(temperature=1.0, seed=2)
    made = engine(name, cr=1, rule=rule, pin_prompt=False).generate(asked, sampling)
    full = engine("vanilla", cr=1).generate(asked, sampling)
    assert [(c.token_ids, c.logprob, c.trace) for c in made] == [(c.token_ids, c.logprob, c.trace) for c in full]


@pytest.mark.parametrize("pin_prompt", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_chains_that_share_a_prefill_are_those_that_prefill_alone(name, pin_prompt, monkeypatch):
    prefills = []

    class Counted(forward_pass.PrefillPass):
        def __init__(self, *args):
            prefills.append(self)
            super().__init__(*args)

    monkeypatch.setattr(forward_pass, "PrefillPass", Counted)
    params = {"cr": 4, "rule": "fixed", "pin_prompt": pin_prompt}
    asked = [Request("p", chain, prompt(90), 50, (20, 50)) for chain in range(7)]
    sampling = Sampling(temperature=1.0, seed=2)
    # Three at a time: later chains start from a prefill that is long past.
    together = {c.chain: (c.token_ids, c.trace) for c in engine(name, 3, **params).generate(asked, sampling)}
    assert len(prefills) == 1
    for request in asked:
        (alone,) = engine(name, 1, **params).generate([request], sampling)
        assert together[request.chain] == (alone.token_ids, alone.trace)
    assert len(set(together.values())) == len(asked)


@pytest.mark.parametrize("name", WINDOWED)
def test_rows_fill_to_the_budget_and_are_cut_at_intervals(name):
    # (20 + 60) / 2 = 40 entries; a pruning leaves 36, and the new entry makes 37.
    assert held(name, prompt(20), 60, cr=2, rule="fixed", pin_prompt=False, interval=4)[:27] == [
        *range(21, 41),
        *(37, 38, 39, 40),
        *(37, 38, 39),
    ]
    # No more than an eighth of the budget at a time.
    assert held(name, prompt(20), 60, cr=2, rule="fixed", pin_prompt=False)[19:27] == [40, 36, 37, 38, 39, 40, 36, 37]
    # A long prompt is pruned once, like any row that is full.
    assert held(name, prompt(80), 20, cr=2, rule="fixed", pin_prompt=False)[:8] == [*range(45, 51), 45, 46]
    # Above pinned entries and the window, 35, there is room for what a pruning takes, 5.
    assert held(name, prompt(30), 40, cr=8, window=5)[:14] == [*range(31, 41), 36, 37, 38, 39]


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_longer_than_the_prompt_keeps_all_of_it_until_it_is_older(name):
    params = {"cr": 8, "rule": "fixed", "pin_prompt": False, "window": 12}
    assert held(name, prompt(3), 30, **params) == [*range(4, 13), *[13] * 20]


def test_h2o_halves_its_budget():
    ids, tokens = prompt(10), 60
    _, _, rows = watch(engine("h2o", cr=5), [Request("p", 0, ids, tokens)], Sampling(temperature=1.0))
    # 14 entries, of which the newest 7 live: a row holds the keys that its last 7 steps wrote.
    for step in range(20, len(rows["p"])):
        for layer, heads in enumerate(rows["p"][step]):
            for head, keys in enumerate(heads):
                assert len(keys) == 14
                for age in range(7):
                    written = rows["p"][step - age][layer][head]
                    before = rows["p"][step - age - 1][layer][head]
                    new = [k for k in written if not (before == k).all(1).any()]
                    assert len(new) == 1
                    assert (keys == new[0]).all(1).any()


def test_of_entries_alike_the_most_recent_is_the_least_redundant():
    keys = torch.randn(1, 1, 32, 16, generator=torch.Generator().manual_seed(0))
    keys[..., [3, 9, 20], :] = keys[..., [3], :] * torch.tensor([1.0, 2.0, 3.0])[:, None]
    live = (torch.arange(32) < 25).expand(1, 1, 32)
    found = redundancy(RowEntries(keys, keys, live), 0.9, 1)[0, 0]
    assert found[25:].eq(0).all()
    assert found.sum() == pytest.approx(1)
    # 3 and 9 leave out 20, and 20 leaves out 9: each is left with the likenesses of the others.
    expected = keys[0, 0, :25] / keys[0, 0, :25].norm(dim=-1, keepdim=True)
    links = (expected @ expected.T).fill_diagonal_(0)
    links[3, 20] = links[9, 20] = links[20, 9] = 0
    torch.testing.assert_close(found[:25], (links.sum(0) / 25).softmax(0))
    assert found[3] > found[9] > found[20]


def test_redundancy_is_the_same_row_by_row(monkeypatch):
    keys = torch.randn(5, 3, 64, 8, generator=torch.Generator().manual_seed(0))
    live = (torch.arange(64) < torch.tensor([[64], [40], [33], [50], [64]]))[:, None].expand(5, 3, 64)
    together = redundancy(RowEntries(keys, keys, live), 0.3, 1)
    monkeypatch.setattr(rkv, "_PAIRS", 2 * 64 * 64)
    assert torch.equal(redundancy(RowEntries(keys, keys, live), 0.3, 1), together)
    monkeypatch.setattr(rkv, "_PAIRS", 10 * 64)  # not even one row at once
    torch.testing.assert_close(redundancy(RowEntries(keys, keys, live), 0.3, 1), together)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("h2o", {"heavy": 1.5}, "heavy of h2o must be a share"),
        ("h2o", {"recent": 3}, "no parameter 'recent'"),
        ("snapkv", {"kernel": 4}, "kernel of snapkv must be odd"),
        ("snapkv", {"pooling": "sum"}, "'avg' or 'max'"),
        ("snapkv", {"window": 0}, "window of snapkv must be at least 1"),
        ("rkv", {"interval": 0}, "interval of rkv must be at least 1"),
        ("rkv", {"mix_lambda": 2}, "mix_lambda of rkv must be between 0 and 1"),
        ("rkv", {"threshold": -1}, "threshold of rkv must be between 0 and 1"),
        ("rkv", {"retain": -1}, "retain of rkv must not be negative"),
    ],
)
def test_errors(name, params, message):
    with pytest.raises(MethodError, match=message):
        methods.create(name, cr=4, **params)
