"""Chains that engines share out begin with those that are expected to be long."""

from types import SimpleNamespace

from hyperscale.engines.base import Request
from hyperscale.run.request_order import longest_first


def pair(task, problem, L, chain=0):
    of = SimpleNamespace(task=SimpleNamespace(name=task), doc=SimpleNamespace(id=problem))
    return of, Request(f"{task}/{problem}", chain, (1,), L)


def sample(task, problem, tokens):
    return SimpleNamespace(task=task, problem=problem, whole=SimpleNamespace(tokens=tokens))


def names(pairs):
    return [f"{request.problem}/{request.chain}" for _, request in pairs]


def test_a_problem_is_as_long_as_its_finished_chains_and_no_longer_than_allowed():
    pairs = [pair("t", "short", 900), pair("t", "long", 900), pair("t", "long", 50, chain=1), pair("t", "mid", 900)]
    samples = [sample("t", "short", 10), sample("t", "long", 700), sample("t", "long", 500), sample("t", "mid", 300)]
    assert names(longest_first(pairs, samples)) == ["t/long/0", "t/mid/0", "t/long/1", "t/short/0"]


def test_without_its_own_chains_a_problem_is_as_long_as_its_task_and_without_any_as_allowed():
    pairs = [pair("t", "new", 900), pair("u", "other", 100), pair("t", "known", 900)]
    samples = [sample("t", "known", 60)]
    assert names(longest_first(pairs, samples)) == ["u/other/0", "t/new/0", "t/known/0"]
    assert names(longest_first(pairs, [])) == ["t/new/0", "t/known/0", "u/other/0"]
