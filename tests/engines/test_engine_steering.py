"""Extended thinking and forced answers, against a reference that runs every L by itself over the whole sequence."""

from dataclasses import replace

import dense_reference
import pytest
import tiny
import torch
from reference_rules.dmc import DMC
from steered_tokenizer import END, EOS, SIZE, WORD, Marks

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling, Steering
from hyperscale.engines.sampling import draw_tokens, mark_tokens
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import EngineError
from hyperscale.mini.vocab import build_tokenizer
from hyperscale.utils import counter_rng

pytestmark = pytest.mark.e2e

LENGTHS = (8, 20, 45)


CASES = {
    "free": Steering(),
    "extend": Steering(extend=2, word=WORD),
    "one token": Steering(extend=1, word=Marks().decode([7])),
    "answer": Steering(answer=5),
    "both": Steering(extend=1, word=WORD, answer=5),
}


def reference(model, expiry, request, limit, sampling):
    """One run with maximum length ``limit``, every token from a pass over everything before it.

    Returns: (ids of the thinking's part, ids of the answer's part, finish, logprob, inserted tokens, reads, peak).
    """
    steering, prompt = sampling.steering, list(request.prompt_ids)
    key = torch.tensor([counter_rng.key(sampling.seed, request.problem, request.chain)])
    ids, logprob, inserted = [], 0.0, 0

    def drawn():
        logits, _, _ = dense_reference.forward(model, prompt + ids, expiry)
        present = torch.zeros(1, SIZE + 1, dtype=torch.bool)
        mark_tokens(present, torch.tensor([prompt + ids]))
        token, score = draw_tokens(logits[-1:], key, torch.tensor([len(ids)]), sampling, present[:, :SIZE])
        return int(token), float(score)

    def costs():
        _, _, expiries = dense_reference.forward(model, prompt + ids, expiry)
        reads, peak = dense_reference.reads_and_peak(expiries, len(prompt), len(ids))
        rows = sum(len(e) for e in expiries)
        return reads / rows, peak / rows

    replaced, waiting = 0, []
    while len(ids) < limit and (not ids or ids[-1] != EOS):
        if waiting:
            ids.append(waiting.pop(0))
            inserted += 1
            continue
        token, score = drawn()
        if token in (END, EOS) and END not in ids and replaced < steering.extend:
            replaced += 1
            waiting = Marks().encode(steering.word)
            ids.append(waiting.pop(0))
            inserted += 1
        else:
            ids.append(token)
            logprob += score
    thought = len(ids)
    if steering.answer and ids[-1] != EOS:
        if END not in ids:
            ids.append(END)
            inserted += 1
        for _ in range(steering.answer):
            token, score = drawn()
            ids.append(token)
            logprob += score
            if token == EOS:
                break
    return ids[:thought], ids[thought:], "stop" if ids[-1] == EOS else "length", logprob, inserted, *costs()


def make(name):
    model = DMC.prepare(tiny.with_gates(tiny.model(seed=8, vocab=SIZE, eos=EOS, heads=4, kv_heads=2), window=5), 1)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.5)  # flatter, so that every case occurs
    return model, {"vanilla": dense_reference.keep_all(2), "dms": dense_reference.dms(model)}.get(name)


def requests(count=4, chains=3, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    made = []
    for p in range(count):
        ids = tuple(torch.randint(0, 20, (3 + 9 * p,), generator=generator).tolist())
        made += [Request(f"p{p}", c, ids, lengths[-1], lengths) for c in range(chains)]
    return made


#: Settings for which a chain is the beginning of a longer one, with prompts that are cut.
SETTINGS = {
    "vanilla": {"cr": 1},
    "dms": {"cr": 4},
    "window": {"cr": 4},
    "random": {"cr": 4},
    "streaming": {"cr": 2, "rule": "proportional"},
    "keydiff": {"cr": 2, "rule": "proportional"},
    "knorm": {"cr": 2, "rule": "proportional"},
    "triattention": {"cr": 2, "rule": "proportional", "pin_prompt": False},
    "h2o": {"cr": 4, "rule": "proportional"},
    "snapkv": {"cr": 4},
    "rkv": {"cr": 4},
    "quest": {"cr": 2, "rule": "proportional", "page": 4, "dense_layers": 1},
    "dmc": {"cr": 2},
}


def engine(model, name, batch_size=5):
    return TorchEngine(model, Marks(), methods.create(name, **SETTINGS[name]), batch_size=batch_size)


def at(chain, length):
    """What the chain says a run with this maximum length gives, in the reference's order."""
    for branch in chain.branches:
        if branch.at == length:
            first = chain.token_ids[:length]
            numbers = (branch.logprob, branch.inserted, branch.kv_reads, branch.peak_kv)
            return (list(first), list(branch.token_ids), branch.finish, *numbers)
    trace = chain.trace
    n = min(length, trace.lengths[-1])
    i = trace.lengths.index(n)
    finish = "length" if n < trace.lengths[-1] else chain.finish
    numbers = (trace.logprobs[i], trace.inserted[i], trace.kv_reads[i], trace.peak_kv[i])
    return (list(chain.token_ids[:n]), [], finish, *numbers)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("vanilla", "one token"),
        ("vanilla", "answer"),
        ("vanilla", "both"),
        ("dms", "free"),
        ("dms", "extend"),
        ("dms", "both"),
        *(pytest.param("vanilla", case, marks=pytest.mark.slow) for case in ("free", "extend")),
        *(pytest.param("dms", case, marks=pytest.mark.slow) for case in ("one token", "answer")),
    ],
)
def test_one_run_gives_what_the_reference_gives_for_every_length(name, case):
    model, expiry = make(name)
    sampling = Sampling(temperature=1.0, seed=5, steering=CASES[case])
    asked = {(r.problem, r.chain): r for r in requests(chains=6)}
    seen = set()
    for chain in engine(model, name).generate(asked.values(), sampling):
        for length in LENGTHS:
            wanted = reference(model, expiry, asked[chain.problem, chain.chain], length, sampling)
            got = at(chain, length)
            assert got[:3] == wanted[:3]
            assert got[3] == pytest.approx(wanted[3], abs=1e-3)
            assert got[4] == wanted[4]
            assert got[5:] == pytest.approx(wanted[5:])
            seen |= {("stop", wanted[2]), ("inserted", wanted[4]), ("closed", END in wanted[0], bool(wanted[1]))}
    steering = CASES[case]
    assert {("stop", "stop"), ("stop", "length")} <= seen
    most = max(n for kind, n, *_ in seen if kind == "inserted")
    assert most == {"free": 0, "extend": 6, "one token": 1, "answer": 1, "both": 4}[case]
    if steering.answer:  # branches from open thinking, branches from begun answers, and chains that need none
        assert {("closed", False, True), ("closed", True, True), ("closed", True, False)} <= seen


SHAPED = Sampling(temperature=1.0, seed=5, top_k=15, min_p=0.01, repetition_penalty=1.5, steering=CASES["both"])


@pytest.mark.parametrize("name", ["vanilla", "dms"])
def test_a_penalty_counts_the_prompt_the_chain_and_what_steering_inserted(name):
    model, expiry = make(name)
    asked = {(r.problem, r.chain): r for r in requests()}
    kinds = set()
    for chain in engine(model, name).generate(asked.values(), SHAPED):
        for length in LENGTHS:
            wanted = reference(model, expiry, asked[chain.problem, chain.chain], length, SHAPED)
            got = at(chain, length)
            assert got[:3] == wanted[:3]
            assert got[3] == pytest.approx(wanted[3], abs=1e-3)
            kinds |= {("inserted", wanted[4]), ("branch", bool(wanted[1])), ("long", len(wanted[0]) > LENGTHS[1])}
    assert {("inserted", 3), ("inserted", 1), ("branch", True), ("branch", False), ("long", True)} <= kinds


@pytest.mark.parametrize("name", ["vanilla", "dms"])
def test_penalised_chains_are_bitwise_the_same_in_any_batch_and_order(name):
    model, _ = make(name)
    count = len(requests())
    alone = chains(model, name, 1, range(count), SHAPED)
    for batch_size in (3, 7, 16):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(batch_size)).tolist()
        assert chains(model, name, batch_size, order, SHAPED) == alone
    assert alone != chains(model, name, 1, range(count), replace(SHAPED, repetition_penalty=1.0))


def chains(model, name, batch_size, order, sampling):
    # Tables that methods keep per chain widen while chains are set aside.
    made = [replace(r, L=r.L + 9 * int(r.problem[1:])) for r in requests()]
    found = engine(model, name, batch_size).generate((made[i] for i in order), sampling)
    plain = {}
    for c in found:
        branches = [
            (b.at, b.token_ids, b.text, b.finish, b.logprob, b.inserted, b.kv_reads, b.peak_kv) for b in c.branches
        ]
        plain[c.problem, c.chain] = (c.token_ids, c.text, c.finish, c.logprob, c.trace, branches)
    assert len(plain) == len(made)
    return plain


@pytest.mark.parametrize("name", SETTINGS)
def test_bitwise_the_same_in_any_batch_and_order(name):
    model, _ = make(name)
    sampling = Sampling(temperature=1.0, top_p=0.97, seed=2, steering=CASES["both"])
    count = len(requests())
    alone = chains(model, name, 1, range(count), sampling)
    for batch_size in (3, 7, 16):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(batch_size)).tolist()
        assert chains(model, name, batch_size, order, sampling) == alone
    assert sum(len(branches) for *_, branches in alone.values()) > count


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", [pytest.param("extend", marks=pytest.mark.slow), "both"])
def test_a_run_with_a_shorter_maximum_is_bitwise_what_the_long_run_says_of_it(name, case):
    model, _ = make(name)
    sampling = Sampling(temperature=1.0, seed=3, steering=CASES[case])
    long = {(c.problem, c.chain): c for c in engine(model, name).generate(requests(), sampling)}
    for length in LENGTHS:
        for chain in engine(model, name).generate(requests(lengths=(length,)), sampling):
            assert at(chain, length) == at(long[chain.problem, chain.chain], length)


@pytest.mark.parametrize("name", SETTINGS)
def test_branches_change_nothing_of_the_chain_they_leave(name):
    model, _ = make(name)
    with_branches = chains(model, name, 4, range(12), Sampling(temperature=1.0, steering=CASES["both"]))
    extended = chains(model, name, 4, range(12), Sampling(temperature=1.0, steering=Steering(extend=1, word=WORD)))
    for key, (*chain, branches) in with_branches.items():
        assert (*chain, []) == extended[key]
        assert branches or chain[2] == "stop"


def test_the_text_of_a_branch_follows_the_chains_text():
    model, _ = make("vanilla")
    found = list(engine(model, "vanilla").generate(requests(), Sampling(temperature=1.0, steering=CASES["both"])))
    for chain in found:
        for branch in chain.branches:
            end = chain.trace.chars[chain.trace.lengths.index(branch.at)]
            whole = Marks().decode([*chain.token_ids[: branch.at], *branch.token_ids])
            assert chain.text[:end] + branch.text == whole
            assert "</think>" in whole


def test_a_rule_that_knows_the_maximum_answers_at_the_maximum():
    model, _ = make("vanilla")
    method = methods.create("window", cr=4, rule="fixed")
    asked = [Request("p", c, tuple(range(20)), 30, (30,)) for c in range(6)]
    sampling = Sampling(temperature=1.0, steering=Steering(answer=4))
    together = list(TorchEngine(model, Marks(), method, batch_size=6).generate(asked, sampling))
    assert {branch.at for chain in together for branch in chain.branches} == {30}
    for chain in TorchEngine(model, Marks(), method, batch_size=1).generate(asked, sampling):
        twin = next(c for c in together if c.chain == chain.chain)
        assert at(chain, 30) == at(twin, 30)


def test_forced_tokens_are_not_steered():
    model, _ = make("vanilla")
    ids = (1, END, 2, EOS, 3)
    request = Request("p", 0, (4, 5), len(ids), forced_ids=ids)
    (steered,) = engine(model, "vanilla").generate([request], Sampling(0, steering=CASES["both"]))
    (plain,) = engine(model, "vanilla").generate([request], Sampling(0))
    assert steered.token_ids == ids
    assert (steered.logprob, steered.trace, steered.branches) == (plain.logprob, plain.trace, ())


def test_words_that_the_tokenizer_cannot_write_are_refused():
    model, _ = make("vanilla")
    for steering, said in (
        (Steering(extend=1, word="Wait"), "cannot write the continuation word 'Wait'.*--extend-word, e.g. "),
        (Steering(extend=1, word=""), "cannot write"),
        (Steering(extend=1, word="</think>"), "ends the thinking"),
        (Steering(extend=-1), "negative"),
        (Steering(answer=-1), "negative"),
    ):
        with pytest.raises(EngineError, match=said):
            list(engine(model, "vanilla").generate(requests(), Sampling(steering=steering)))
    mini = TorchEngine(model, build_tokenizer(), methods.create("vanilla", cr=1))
    with pytest.raises(EngineError, match="cannot write the continuation word 'Wait'"):
        list(mini.generate(requests(), Sampling(steering=Steering(extend=1))))
    markless = TorchEngine(model, Marks(), methods.create("vanilla", cr=1))
    markless.tokenizer.encode = lambda text, add_special_tokens: [1, 2]
    with pytest.raises(EngineError, match="cannot write '</think>', behind which a forced answer stands"):
        list(markless.generate(requests(), Sampling(steering=Steering(answer=1))))
