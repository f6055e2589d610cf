"""The far end of an engine on a cluster, to which Ray may bring orders in any order."""

from itertools import permutations
from time import monotonic

import pytest
from scripted_engine import ScriptedProvider, chain_of

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.provider import EngineSpec
from hyperscale.executors.messages import FinishedChain, Job, Order
from hyperscale.executors.ray import RayActor


def take_chains(actor, count, seconds=20.0):
    """That many chains by job, or those that came in that time."""
    found, end = [], monotonic() + seconds
    while len(found) < count and monotonic() < end:
        found += [event for event in actor.take(0.1).events if isinstance(event, FinishedChain)]
    return found


@pytest.mark.parametrize("arrival", permutations(range(3)))
def test_orders_that_overtake_each_other_are_followed_as_given(arrival, tmp_path):
    # As a pool gives them: some, some more, and the word that this was all; the batch has room for more than these.
    spec = EngineSpec(str(tmp_path), methods.create("vanilla", cr=1), batch_size=8)
    job = Job(1, ScriptedProvider(), spec, spec, Sampling())
    requests = [Request(str(i), 0, (1, 2, i), 5) for i in range(4)]
    orders = [Order(job, tuple(requests[:2]), False), Order(job, tuple(requests[2:]), False), Order(job, (), True)]
    actor = RayActor()
    try:
        for i in arrival:
            actor.give(i + 1, orders[i])
        found = take_chains(actor, 4)
    finally:
        actor.close(10.0)
    expected = sorted((chain_of(request, Sampling()) for request in requests), key=lambda chain: chain.problem)
    assert sorted((event.chain for event in found), key=lambda chain: chain.problem) == expected


@pytest.mark.parametrize("arrival", permutations(range(3)))
def test_a_late_word_about_the_job_before_does_not_bring_it_back(arrival, tmp_path):
    spec = EngineSpec(str(tmp_path), methods.create("vanilla", cr=1), batch_size=8)
    first, second = (Job(number, ScriptedProvider(), spec, spec, Sampling()) for number in (1, 2))
    one, other = (Request(name, 0, (1, 2, 3), 5) for name in ("one", "other"))
    actor = RayActor()
    try:
        actor.give(1, Order(first, (one,), True))
        assert [event.job for event in take_chains(actor, 1)] == [1]
        orders = [Order(first, (), True), Order(second, (other,), False), Order(second, (), True)]
        for i in arrival:
            actor.give(i + 2, orders[i])
        assert [(event.job, event.chain.problem) for event in take_chains(actor, 1)] == [(2, "other")]
    finally:
        actor.close(10.0)
