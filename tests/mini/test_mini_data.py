"""The split between training and test problems, and the batches made for training."""

import hashlib
from itertools import islice
from random import Random

import pytest
import torch

from hyperscale.errors import TaskError
from hyperscale.mini.benchmarks import GENERATORS, LEVEL_COUNT, generate_problems, generate_training_problem
from hyperscale.mini.problems import aime, gpqa
from hyperscale.mini.problems.worked_problem import TEST_SHARE, is_test
from hyperscale.mini.training.data import KINDS, SHARES, make_batch, stream
from hyperscale.mini.vocab import ASSISTANT, END, END_THINK, ID, THINK, USER, encode

# --- split ---


@pytest.mark.parametrize("kind", KINDS)
def test_test_problems_are_never_training_problems(kind):
    assert all(is_test(encode(problem.prompt)) for problem in generate_problems(kind, 40))
    rng = Random(0)
    assert not any(is_test(generate_training_problem(rng, kind).prompt) for _ in range(200))
    rng = Random(0)
    share = sum(is_test(GENERATORS[kind](rng, 1).prompt) for _ in range(1600)) / 1600
    assert 0.7 / TEST_SHARE < share < 1.3 / TEST_SHARE


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_set_is_a_function_of_its_seed(kind):
    problems = generate_problems(kind, 25)
    assert problems == generate_problems(kind, 25, seed=0)
    assert problems[:7] == generate_problems(kind, 7)
    assert [problem.level for problem in problems] == [i % LEVEL_COUNT + 1 for i in range(25)]
    assert len({problem.id for problem in problems}) == len({problem.prompt for problem in problems}) == 25
    other = generate_problems(kind, 25, seed=1)
    assert not {problem.prompt for problem in other} & {problem.prompt for problem in problems}
    assert not {problem.id for problem in other} & {problem.id for problem in problems}
    assert len(generate_problems(kind)) == 200
    assert all(bool(problem.tests) == (kind == "lcb") for problem in problems)


def test_rewording_the_chains_leaves_the_test_sets_alone(monkeypatch):
    before = {kind: generate_problems(kind, 12) for kind in KINDS}
    chains = {kind: GENERATORS[kind](Random(0), 3).chain for kind in KINDS}
    monkeypatch.setattr(aime, "SLIPS", 0.5)
    monkeypatch.setattr(gpqa, "BREADTH", 1)
    assert GENERATORS["aime"](Random(0), 3).chain != chains["aime"]
    assert GENERATORS["gpqa"](Random(0), 3).chain != chains["gpqa"]
    assert {kind: generate_problems(kind, 12) for kind in KINDS} == before


def test_an_unknown_benchmark_is_named():
    with pytest.raises(TaskError, match="no built-in benchmark 'chess'; there are aime, gpqa, lcb"):
        generate_problems("chess")


# --- batches ---

LENGTH = 768


@pytest.fixture(scope="module")
def batch():
    return make_batch("batch", 12, LENGTH)


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def pieces(batch):
    """(row, slice) of every document."""
    for r, row in enumerate(batch.document):
        for number in range(int(row.max()) + 1):
            places = (row == number).nonzero()[:, 0]
            start, end = int(places[0]), int(places[-1]) + 1
            assert torch.equal(places, torch.arange(start, end))  # one stretch
            yield r, slice(start, end)


def test_a_batch_is_a_function_of_its_seed(batch):
    assert same(batch, make_batch("batch", 12, LENGTH))
    assert not same(batch, make_batch("other", 12, LENGTH))
    state = torch.get_rng_state()
    make_batch("batch", 1, LENGTH)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_shipped_models_batches_are_made_again_bit_for_bit():
    """Digests of the first rows that the shipped base and retrofits were trained on; a change is another recipe."""
    for seed, digest in (("base-0-0", "d19330fe4e7c7f14"), ("dms-0-0", "59eeaf9a3bb4172d")):
        rows = make_batch(seed, 2)
        tensors = (rows.ids, rows.position, rows.document, rows.kind, rows.weight)
        assert hashlib.sha256(b"".join(x.numpy().tobytes() for x in tensors)).hexdigest()[:16] == digest


def test_rows_hold_whole_documents(batch):
    lengths = []
    for r, where in pieces(batch):
        ids = batch.ids[r, where].tolist()
        lengths.append(len(ids))
        assert ids[0] == ID[USER]
        assert batch.position[r, where].tolist() == list(range(len(ids)))
        assert len(set(batch.kind[r, where][:-1].tolist())) == 1
        assert not is_test(ids[1 : ids.index(ID[ASSISTANT])])
        if len(ids) < LENGTH:  # only a document longer than a row is cut
            assert ids[-1] == ID[END]
            assert ids.count(ID[END]) == ids.count(ID[USER]) == ids.count(ID[END_THINK]) == 1
    assert len(set(lengths)) > 5
    padding = batch.document < 0
    assert padding.any()
    assert padding.float().mean() < 0.15
    assert not batch.weight[padding].any()
    assert not batch.ids[padding].any()


def test_the_weight_marks_the_predictions_of_chain_and_reply(batch):
    expected = torch.zeros_like(batch.weight)
    last = torch.zeros_like(batch.weight, dtype=torch.bool)
    for r, where in pieces(batch):
        opening = where.start + batch.ids[r, where].tolist().index(ID[THINK])
        expected[r, opening : where.stop - 1] = 1.0  # the opening mark predicts the chain's first token
        last[r, where.stop - 1] = True
    assert torch.equal(batch.weight, expected)
    assert torch.equal(batch.kind == -1, (batch.document < 0) | last)


def test_a_kind_names_its_documents(batch):
    opening = {"aime": ID["f(n)="], "gpqa": ID["Edges:"], "lcb": ID["Find two steps of"]}
    seen = set()
    for r, where in pieces(batch):
        kind = KINDS[int(batch.kind[r, where.start])]
        assert int(batch.ids[r, where.start + 1]) == opening[kind]
        seen.add(kind)
    assert seen == set(KINDS)


def test_kinds_get_their_shares_of_the_tokens():
    big = make_batch("shares", 60)
    counts = {kind: int((big.kind == i).sum()) for i, kind in enumerate(KINDS)}
    for kind, share in SHARES.items():
        assert counts[kind] / sum(counts.values()) == pytest.approx(share / sum(SHARES.values()), rel=0.2)


def test_the_stream_is_the_same_for_any_number_of_workers():
    alone = list(islice(stream("s", 1, 256), 5))
    assert len({tuple(b.ids.flatten().tolist()) for b in alone}) == 5
    shared = list(islice(stream("s", 1, 256, workers=2), 5))
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert not same(alone[0], next(stream("t", 1, 256)))
