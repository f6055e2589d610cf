"""The comparison by which chains of another engine are held against the torch engine, with the latter for both.

It lets near ties pass, of tokens always, of a method's decisions in a few chains, and nothing else.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import chain_replay
import pytest
import torch
from vllm_engines import GREEDY, loaded, requests, torch_chains, torch_engine

from hyperscale import methods
from hyperscale.engines.base import Sampling, Steering
from hyperscale.engines.torch.engine import TorchEngine

LENGTH = 120
ASKED = requests(2, LENGTH)
CASES = {
    "vanilla": ("base", "vanilla", 1, ()),
    "dms": ("dms8", "dms", 8, ()),
    "window": ("base", "window", 3, (("recent", 3),)),
    "random": ("base", "random", 4, (("pin_prompt", False),)),
    "tova of a fixed budget": ("base", "tova", 4, (("rule", "fixed"),)),
    "snapkv": ("base", "snapkv", 4, (("window", 4), ("pin_prompt", False))),
    "quest": ("base", "quest", 4, (("dense_layers", 1),)),
}
#: Rules that are as near to the right one as a mistake might be.
WRONG = {
    "another ratio": (("base", "tova", 4, ()), ("base", "tova", 4.2, ())),
    "one score for each head": (("base", "tova", 4, ()), ("base", "tova", 4, (("per", "head"),))),
    "a window off by one": (("base", "window", 3, (("recent", 3),)), ("base", "window", 3, (("recent", 4),))),
    "one sink less": (("base", "streaming", 4, ()), ("base", "streaming", 4, (("sinks", 3),))),
    "one query less": (
        ("base", "snapkv", 4, (("window", 4), ("pin_prompt", False))),
        ("base", "snapkv", 4, (("window", 3), ("pin_prompt", False))),
    ),
    "one dense layer more": (
        ("base", "quest", 4, (("dense_layers", 1),)),
        ("base", "quest", 4, (("dense_layers", 2),)),
    ),
    "another method": (("base", "h2o", 4, ()), ("base", "tova", 4, ())),
    "nothing evicted": (("base", "keydiff", 4, ()), ("base", "vanilla", 1, ())),
}
#: Larger mistakes than others here, which are found by default.
LARGE = ("another ratio", "another method", "nothing evicted")
SPARED = 2  # as many as a test of whole CUDA graphs spares


def chains(case):
    name, method, cr, params = case
    return torch_chains(name, method, cr, params, length=LENGTH)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in ("window", "random") else ()) for case in CASES]
)
def test_equal_chains_hold(case):
    chain_replay.hold(torch_engine(*CASES[case]), ASKED, chains(CASES[case]))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in LARGE else ()) for case in WRONG]
)
def test_a_wrong_rule_does_not(case):
    right, wrong = WRONG[case]
    with pytest.raises(AssertionError):
        chain_replay.hold(torch_engine(*right), ASKED, chains(wrong), spared=SPARED)


def test_a_window_of_dms_off_by_one_does_not():
    model, tokenizer = loaded("dms8")
    wrong = deepcopy(model)
    wrong.config.dms_window_size += 1
    engine = TorchEngine(wrong, tokenizer, methods.create("dms", cr=8), batch_size=8)
    found = {chain.problem: chain for chain in engine.generate(ASKED, GREEDY)}
    with pytest.raises(AssertionError, match="kv_reads"):
        chain_replay.hold(torch_engine(*CASES["dms"]), ASKED, found, spared=SPARED)


def nudged(amount):
    """Engines whose output layer has a token twice, as good as the other up to a part of it, one way and the other."""
    model, tokenizer = loaded("base")
    frequent = Counter(chains(CASES["vanilla"])[ASKED[0].problem].token_ids).most_common(1)[0][0]
    double = len(tokenizer) - 1
    engines = []
    for sign in (-1, 1):
        mine = deepcopy(model)
        mine.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        mine.lm_head.weight.data[double] = model.lm_head.weight[frequent] * (1 + sign * amount)
        engines.append(TorchEngine(mine, tokenizer, methods.create("tova", cr=4), batch_size=8))
    return engines


@pytest.mark.parametrize(("amount", "holds"), [(1e-6, True), (3e-3, False)])
def test_chains_that_part_at_a_near_tie_of_tokens_hold(amount, holds):
    """To their ends, which have nothing in common; where the two tokens are further apart, they do not."""
    one, other = ({c.problem: c for c in each.generate(ASKED, GREEDY)} for each in nudged(amount))
    assert sum(one[problem].token_ids != other[problem].token_ids for problem in one) >= 2
    reference = nudged(amount)[0]
    if holds:
        chain_replay.hold(reference, ASKED, other)
    else:
        with pytest.raises(AssertionError, match="nats below another"):
            chain_replay.hold(reference, ASKED, other, spared=SPARED)


def changed(chain, field, index, amount):
    values = list(getattr(chain.trace, field))
    values[index] += amount
    return replace(chain, trace=replace(chain.trace, **{field: tuple(values)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda chain: changed(chain, "kv_reads", 1, 1 / 24), "kv_reads .*, at 50 tokens"),
        (lambda chain: changed(chain, "peak_kv", 0, -1 / 24), "peak_kv .*, at 1 tokens"),
        (lambda chain: changed(chain, "logprobs", 2, 0.02), "log-probability .*, at 100 tokens"),
        (lambda chain: replace(chain, trace=replace(chain.trace, prefill_kv=chain.trace.prefill_kv + 1)), "prefill_kv"),
        (lambda chain: replace(chain, text=chain.text[:-1] + "?"), "text"),
        (lambda chain: replace(chain, token_ids=chain.token_ids[:-1]), "mini_aime-0-0"),
        (lambda chain: replace(chain, token_ids=(*chain.token_ids[:-1], 9)), "after 119 tokens: the next token is"),
    ],
    ids=["reads", "peak", "log-probability", "prompt", "text", "an end too early", "the last token"],
)
def test_a_difference_in_one_number_of_one_chain_is_seen(change, message):
    found = dict(chains(CASES["tova of a fixed budget"]))
    first = ASKED[0].problem
    assert len(found[first].token_ids) == LENGTH
    found[first] = change(found[first])
    with pytest.raises(AssertionError, match=message):
        chain_replay.hold(torch_engine(*CASES["tova of a fixed budget"]), ASKED, found)


def test_a_turned_decision_is_excused_where_it_was_close():
    """A chain of another rule in place of one of the right one: only a close decision before makes up for it."""
    right, wrong = WRONG["one score for each head"]
    engine, found = torch_engine(*right), chains(right)
    closeness = {r: chain_replay.closeness(engine, r, found[r.problem].token_ids[:50]) for r in ASKED}
    close, clear = min(ASKED, key=closeness.get), max(ASKED, key=closeness.get)
    assert closeness[close] < 0.5 < 2 < closeness[clear]
    chain_replay.hold(engine, ASKED, found | {close.problem: chains(wrong)[close.problem]}, spared=1)
    with pytest.raises(AssertionError, match="no decision was closer"):
        chain_replay.hold(engine, ASKED, found | {clear.problem: chains(wrong)[clear.problem]}, spared=1)
    # Not at all where the method's costs follow from lengths and differ.
    costly = changed(found[close.problem], "kv_reads", -1, 1)
    with pytest.raises(AssertionError, match="kv_reads"):
        chain_replay.hold(engine, ASKED, found | {close.problem: costly}, spared=1)


STEERED = Sampling(temperature=0, steering=Steering(extend=2, word="\n n03:", answer=8), marks=(" D)", "!"))


@pytest.mark.parametrize("case", [("dms8", "dms", 8, ()), ("base", "tova", 4, (("rule", "fixed"),))])
def test_steered_chains_hold(case):
    engine, asked = torch_engine(*case), ASKED[:2]
    found = {chain.problem: chain for chain in engine.generate(asked, STEERED)}
    assert any(chain.trace.inserted[-1] for chain in found.values())
    chain_replay.hold_steered(engine, asked, STEERED, found)
    (first, *_) = (chain for chain in found.values() if chain.branches)
    for change in ({"kv_reads": first.branches[0].kv_reads + 1 / 24}, {"token_ids": (9,) * 8}):
        branches = (replace(first.branches[0], **change), *first.branches[1:])
        with pytest.raises(AssertionError):
            chain_replay.hold_steered(engine, [asked[0]], STEERED, {first.problem: replace(first, branches=branches)})
