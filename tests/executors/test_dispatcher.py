"""Who generates what, and what becomes of requests whose engine is lost: no processes, no clocks."""

import random
from collections import Counter

import pytest

from hyperscale.engines.base import Request
from hyperscale.executors.dispatcher import Dispatcher


def requests(*problems, chains=1):
    return [Request(problem, chain, (1,), 4) for problem in problems for chain in range(chains)]


def names(taken):
    return [request.problem for request in taken]


def fill(dispatcher, engine, engines):
    """All that an engine is to have, asked for until it has enough."""
    taken = []
    while more := dispatcher.take(engine, engines):
        taken += more
    return taken


def finish(dispatcher, engine, taken):
    for request in taken:
        assert dispatcher.finish(engine, request.problem, request.chain)


def test_requests_go_out_in_the_order_given_and_no_more_than_an_engine_has_use_for():
    dispatcher = Dispatcher(requests(*map(str, range(100))), capacity=8)
    first = fill(dispatcher, "a", 2)
    assert names(first) == list(map(str, range(10)))  # a batch, and a quarter of one more
    assert fill(dispatcher, "a", 2) == []
    assert names(fill(dispatcher, "b", 2)) == list(map(str, range(10, 20)))
    finish(dispatcher, "a", first[:3])
    assert names(fill(dispatcher, "a", 2)) == ["20", "21", "22"]


def test_engines_take_turns_and_chains_of_a_problem_stay_together():
    dispatcher = Dispatcher(requests("long", "longish", "short", chains=3), capacity=8)
    assert names(dispatcher.take("a", 2)) == ["long"] * 3
    assert names(dispatcher.take("b", 2)) == ["longish"] * 3
    assert names(dispatcher.take("a", 2)) == ["short"] * 2  # half of what is unfinished, rounded up
    assert names(dispatcher.take("b", 2)) == ["short"]


def test_few_requests_are_shared_evenly():
    dispatcher = Dispatcher(requests(*map(str, range(10))), capacity=32)
    assert [len(fill(dispatcher, engine, 4)) for engine in "abcd"] == [3, 3, 3, 1]
    assert not dispatcher.has_waiting


def test_requests_of_a_lost_engine_go_first_again():
    dispatcher = Dispatcher(requests(*map(str, range(20))), capacity=4)
    fill(dispatcher, "a", 2)
    kept = fill(dispatcher, "b", 2)
    assert dispatcher.lose("a") == {}
    assert names(fill(dispatcher, "c", 2)) == ["0", "1", "2", "3", "4"]
    finish(dispatcher, "b", kept)
    # What a lost engine still had to tell is not waited for any more, and comes once more from another.
    assert not dispatcher.finish("a", "0", 0)


def test_a_problem_that_takes_engines_with_it_is_run_alone_and_then_given_up():
    dispatcher = Dispatcher(requests("good", "bad", "fine", chains=2), capacity=6)
    fill(dispatcher, "a", 1)
    assert dispatcher.lose("a") == {}
    fill(dispatcher, "b", 1)
    assert dispatcher.lose("b") == {}
    # All of them are suspects now, and each has an engine for itself.
    seen = []
    while not dispatcher.is_done:
        engine = f"engine {len(seen)}"
        taken = fill(dispatcher, engine, 1)
        (problem,) = set(names(taken))
        assert len(taken) == 2
        assert fill(dispatcher, engine, 1) == []  # nobody beside it
        seen.append(problem)
        if problem == "bad":
            assert dispatcher.lose(engine) == {"bad": 2}
        else:
            finish(dispatcher, engine, taken)
    assert seen == ["good", "bad", "fine"]


def test_a_suspect_waits_until_an_engine_has_nothing_else():
    dispatcher = Dispatcher(requests("bad", *map(str, range(6))), capacity=1)
    for engine in ("a", "b"):
        assert "bad" in names(fill(dispatcher, engine, 3))
        dispatcher.lose(engine)
    done = []
    while not dispatcher.is_done:
        taken = fill(dispatcher, "c", 1)
        done += names(taken)
        finish(dispatcher, "c", taken)
    assert done == ["1", "2", "3", "4", "5", "bad", "0"]


def test_a_finished_chain_clears_its_problem():
    dispatcher = Dispatcher(requests("p", chains=5), capacity=4)
    for engine in "ab":
        fill(dispatcher, engine, 1)
        assert dispatcher.lose(engine) == {}
    finish(dispatcher, "c", fill(dispatcher, "c", 1)[:1])
    assert dispatcher.lose("c") == {}
    finish(dispatcher, "d", fill(dispatcher, "d", 1))
    assert dispatcher.is_done


def test_what_is_put_back_has_no_strike():
    dispatcher = Dispatcher(requests("p"), capacity=1)
    for engine in range(10):
        assert names(fill(dispatcher, engine, 1)) == ["p"]
        dispatcher.put_back(engine)
    assert dispatcher.unfinished == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_request_is_done_once_whatever_is_lost(seed):
    draw = random.Random(seed)
    capacity, count = draw.randint(1, 9), draw.randint(1, 5)
    asked = requests(*map(str, range(draw.randint(1, 60))), chains=draw.randint(1, 3))
    poison = {str(n) for n in range(60) if draw.random() < 0.05}
    dispatcher, done, given_up = Dispatcher(asked, capacity), Counter(), Counter()
    held, engines = {}, list(range(count))
    for _ in range(100_000):
        if dispatcher.is_done:
            break
        engine = draw.choice(engines)
        held.setdefault(engine, []).extend(fill(dispatcher, engine, count))
        assert len(held[engine]) <= capacity + max(1, capacity // 4) or len(set(names(held[engine]))) == 1
        # An engine dies of a poison, and now and then for no reason at all.
        innocent = draw.random() < 0.01
        if held[engine] and (innocent or poison & set(names(held[engine]))):
            if innocent:
                dispatcher.put_back(engine)
            else:
                given_up.update(dispatcher.lose(engine))
            engines[engines.index(engine)] = max(engines) + 1
        elif held[engine]:
            request = held[engine].pop(draw.randrange(len(held[engine])))
            assert dispatcher.finish(engine, request.problem, request.chain)
            done[request.problem, request.chain] += 1
    assert dispatcher.is_done
    assert set(done.values()) <= {1}
    assert set(given_up) == poison & {request.problem for request in asked}
    assert done.total() + given_up.total() == len(asked)
