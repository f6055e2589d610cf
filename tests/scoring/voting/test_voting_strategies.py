"""Strategies as columns of points: what each makes of the same stored chains, and forced answers in their places."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from synthetic_samples import forced_answer, points, points_table, sample, with_whole

from hyperscale.errors import ConfigError, ResultsError
from hyperscale.kv.trace import dense_reads
from hyperscale.scoring.voting import strategies

ANSWERS = {"a": ["1", "2", "1", None, "1"], "b": ["3", "1", "2", "2", "1"]}
LOGPROBS = {"a": [-9.0, -1.0, -2.0, -0.1, -5.0], "b": [-3.0, -2.0, -4.0, -1.0, -8.0]}


def lines(**more):
    return [
        sample(p, c, answer=x, tokens=100 + 10 * c, logprob=LOGPROBS[p][c], **more)
        for p, xs in ANSWERS.items()
        for c, x in enumerate(xs)
    ]


def accuracies(vote, made=None, L=2048):
    table = points_table(made or lines(), strategy_of_task={"mini_aime": vote})
    table = table[table.L == L]
    return dict(zip(table.W, table.accuracy / 100, strict=True)), set(table.vote)


def subsets(rule, W):
    return np.mean([[rule(p, s) for s in combinations(range(5), W)] for p in ANSWERS])


def test_pass_and_mean():
    def right(p, chains):
        return [ANSWERS[p][c] == "1" for c in chains]

    for name in ("pass", "pass@k"):
        found, vote = accuracies(name)
        assert found == pytest.approx({W: subsets(lambda p, s: any(right(p, s)), W) for W in (1, 2, 4)})
        assert vote == {"pass@k"}
    assert accuracies("pass@all") == ({5: 1.0}, {"pass@all"})
    found, vote = accuracies("mean@k")
    assert found == pytest.approx({W: subsets(lambda p, s: np.mean(right(p, s)), W) for W in (1, 2, 4)})
    assert vote == {"mean@k"}


def test_best_of_n_takes_the_chain_with_the_highest_mean_log_probability():
    def best(p, chains):
        stated = [c for c in chains if ANSWERS[p][c] is not None]
        return bool(stated) and ANSWERS[p][max(stated, key=lambda c: LOGPROBS[p][c] / (100 + 10 * c))] == "1"

    found, vote = accuracies("best-of-n")
    assert found == pytest.approx({W: subsets(best, W) for W in (1, 2, 4)})
    assert vote == {"best-of-n:logprob"}


def test_a_chain_cut_short_is_scored_by_what_it_had_drawn_until_then():
    early = sample(
        "a", 0, tokens=600, L=1024, logprobs=[-256.0, -300.0, -400.0], inserted=[128, 0, 0], answers=["2", "2", "1"]
    )
    late = sample("a", 1, tokens=500, L=1024, logprobs=[-300.0, -650.0], inserted=[0, 0], answers=["1", "1"])
    # At 256 the means are -256/128 and -300/256; at 512, -300/512 and -650/500; at the end, -400/600.
    for L, accuracy in ((256, 1.0), (512, 0.0), (1024, 1.0)):
        assert accuracies("best-of-n", [early, late], L)[0][2] == accuracy


def test_chains_of_the_first_versions_have_the_log_probability_of_the_whole_alone():
    early = sample("a", 0, tokens=600, L=1024, answers=["2", "2", "1"])
    late = sample("a", 1, tokens=500, L=1024, answers=["1", "1"])
    with pytest.raises(ResultsError, match=r"chain 0 of mini_aime/a .* no log-probability at L = 256"):
        points([early, late], strategy_of_task={"mini_aime": "best-of-n"})
    early = sample("a", 0, tokens=600, L=1024, answer="3")
    late = sample("a", 1, tokens=500, L=1024)
    assert accuracies("best-of-n", [early, late], 1024)[0][2] == 0.0  # -1 / 600 against -1 / 500
    assert accuracies("best-of-n", [with_whole(early, logprob=-2.0), late], 1024)[0][2] == 1.0


def test_scores_of_a_reward_model_are_read_from_the_samples():
    made = [with_whole(line, scores={"judge": float(line.chain)}) for line in lines()]
    found, vote = accuracies("best-of-n:judge", made)
    assert vote == {"best-of-n:judge"}
    assert found[4] == pytest.approx(subsets(lambda p, s: ANSWERS[p][max(c for c in s if ANSWERS[p][c])] == "1", 4))
    with pytest.raises(ResultsError, match="no score by other"):
        points(made, strategy_of_task={"mini_aime": "best-of-n:other"})


def test_the_vote_of_a_run_stands_in_for_the_tasks_own():
    assert set(points_table(lines(), vote="mean@k").vote) == {"mean@k"}
    assert set(points_table(lines(), vote=None).vote) == {"majority"}


def test_unknown_strategies_are_refused():
    for name in ("luck", "best-of-n:", "majority:x", ""):
        with pytest.raises(ConfigError, match=r"unknown strategy.*of majority, pass@k, pass@all, mean@k, best-of-n"):
            strategies.get(name)


def test_a_forced_answer_stands_where_a_chain_was_cut():
    ended = sample("a", 0, tokens=300, L=1024, forced={256: forced_answer(256, "2")})
    forced = {
        256: forced_answer(256, None, finish="length"),
        512: forced_answer(512, "1"),
        1024: forced_answer(1024, "3"),
    }
    never = sample("a", 1, tokens=4096, L=1024, forced=forced)
    table = points_table([ended, never], strategy_of_task={"mini_aime": "mean@k"}).query("W == 1").set_index("L")
    assert list(table.accuracy) == [0, 100, 50]
    assert list(table.tokens) == [262, (300 + 518) / 2, (300 + 1030) / 2]
    assert table.kv_reads[256] == dense_reads(50, 262)
    assert table.peak_kv[512] == (349 + 567) / 2
    assert table.seconds[256] == pytest.approx((256 / 300 + 256 / 1024) / 2 + 0.5)
    assert list(table.truncated) == [50, 0, 0]
    assert list(table.no_answer) == [0, 0, 0]
    assert (table.realised_cr == 1).all()


def test_a_cut_without_its_forced_answer_makes_no_point():
    made = [sample("a", 0, tokens=4096, L=1024, forced={512: forced_answer(512, "1")})]
    assert set(points_table(made, strategy_of_task={"mini_aime": "mean@k"}).L) == {512}
    ended_at_the_limit = sample("a", 0, answer="1", tokens=1024, L=1024, forced={})
    assert list(points_table([ended_at_the_limit], strategy_of_task={"mini_aime": "mean@k"}).L) == [1024]


def with_forced(line, **changes):
    return with_whole(line, forced=replace(line.whole.forced, **changes))


def test_forced_answers_are_scored_by_what_was_drawn():
    first = sample("a", 0, tokens=4096, L=256, forced={256: forced_answer(256, "1", logprob=-26.0, inserted=2)})
    other = sample("a", 1, tokens=4096, L=256, forced={256: forced_answer(256, "2", logprob=-25.9, inserted=10)})
    assert accuracies("best-of-n", [first, other], 256)[0][2] == 1.0  # -26 / 260 against -25.9 / 252
    assert accuracies("best-of-n", [first, with_forced(other, inserted=0)], 256)[0][2] == 0.0
    judged = [with_forced(line, scores={"judge": score}) for line, score in ((first, 1.0), (other, 2.0))]
    assert accuracies("best-of-n:judge", judged, 256)[0][2] == 0.0
