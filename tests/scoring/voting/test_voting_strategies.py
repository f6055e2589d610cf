"""Strategies as columns of points: what each makes of the same stored chains, and forced answers in their places."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from synthetic_samples import sample

from hyperscale.errors import ConfigError, ResultsError
from hyperscale.kv.trace import dense_reads
from hyperscale.results.points import points
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
    table = points(made or lines(), {"mini_aime": vote})
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
    early = sample("a", 0, answer="1", tokens=600, limit=1024, logprobs=[-256.0, -300.0, -400.0], inserted=[128, 0, 0])
    early |= {"answers": ["2", "2", "1"], "correct": [False, False, True]}
    late = sample("a", 1, answer="1", tokens=500, limit=1024, logprobs=[-300.0, -650.0], inserted=[0, 0])
    late |= {"answers": ["1", "1"], "correct": [True, True]}
    # At 256 the means are -256/128 and -300/256; at 512, -300/512 and -650/500; at the end, -400/600.
    for L, accuracy in ((256, 1.0), (512, 0.0), (1024, 1.0)):
        assert accuracies("best-of-n", [early, late], L)[0][2] == accuracy
    for line in (early, late):
        del line["logprobs"], line["inserted"]  # as older versions stored it
    with pytest.raises(ResultsError, match="no log-probability at L = 256"):
        points([early, late], {"mini_aime": "best-of-n"})
    early["answers"], late["answers"] = [None, None, "3"], [None, "1"]
    early["correct"], late["correct"] = [False] * 3, [False, True]
    assert accuracies("best-of-n", [early, late], 1024)[0][2] == 0.0  # -1 / 600 against -1 / 500, the stored totals
    early["logprob"] = -2.0
    assert accuracies("best-of-n", [early, late], 1024)[0][2] == 1.0


def test_scores_of_a_reward_model_are_read_from_the_samples():
    made = lines()
    for line in made:
        line["scores"] = {"judge": [float(line["chain"])]}
    found, vote = accuracies("best-of-n:judge", made)
    assert vote == {"best-of-n:judge"}
    assert found[4] == pytest.approx(subsets(lambda p, s: ANSWERS[p][max(c for c in s if ANSWERS[p][c])] == "1", 4))
    with pytest.raises(ResultsError, match="no score by other"):
        points(made, {"mini_aime": "best-of-n:other"})


def test_the_vote_of_a_run_stands_in_for_the_tasks_own():
    assert set(points(lines(vote="mean@k")).vote) == {"mean@k"}
    assert set(points(lines(vote=None)).vote) == {"majority"}
    frame = pd.DataFrame([*lines(), *(line | {"run": "s", "vote": "pass@all"} for line in lines())])
    assert set(points(frame)[["run", "vote"]].itertuples(index=False, name=None)) == {
        ("r", "majority"),
        ("s", "pass@all"),
    }


def test_unknown_strategies_are_refused():
    for name in ("luck", "best-of-n:", "majority:x", ""):
        with pytest.raises(ConfigError, match=r"unknown strategy.*of majority, pass@k, pass@all, mean@k, best-of-n"):
            strategies.get(name)


def branch(at, answer, tokens=6, **more):
    reads = float(dense_reads(50, at + tokens))
    line = {"at": at, "tokens": at + tokens, "text": "", "finish": "stop", "kv_reads": reads, "peak_kv": 55.0 + at}
    return {**line, "logprob": -3.0, "inserted": 1, "seconds": 0.5, "answer": answer, "correct": answer == "1", **more}


def test_a_branch_stands_where_a_chain_was_cut():
    ended = sample("a", 0, answer="1", tokens=300, limit=1024, branches=[branch(256, "2")])
    never = sample("a", 1, tokens=4096, limit=1024, branches=[branch(256, None, finish="length"), branch(512, "1")])
    never["branches"].append(branch(1024, "3"))
    table = points([ended, never], {"mini_aime": "mean@k"}).query("W == 1").set_index("L")
    assert list(table.accuracy) == [0, 100, 50]
    assert list(table.tokens) == [262, (300 + 518) / 2, (300 + 1030) / 2]
    assert table.kv_reads[256] == dense_reads(50, 262)
    assert table.peak_kv[512] == (349 + 567) / 2
    assert table.seconds[256] == pytest.approx((256 / 300 + 256 / 1024) / 2 + 0.5)
    assert list(table.truncated) == [50, 0, 0]
    assert list(table.no_answer) == [0, 0, 0]
    assert (table.realised_cr == 1).all()


def test_a_cut_without_its_branch_makes_no_point():
    made = [sample("a", 0, tokens=4096, limit=1024, branches=[branch(512, "1")])]
    assert set(points(made, {"mini_aime": "mean@k"}).L) == {512}
    ended_at_the_limit = sample("a", 0, answer="1", tokens=1024, limit=1024, branches=[])
    assert list(points([ended_at_the_limit], {"mini_aime": "mean@k"}).L) == [1024]


def test_branches_are_scored_by_what_was_drawn():
    made = [
        sample("a", 0, tokens=4096, limit=256, branches=[branch(256, "1", logprob=-26.0, inserted=2)]),
        sample("a", 1, tokens=4096, limit=256, branches=[branch(256, "2", logprob=-25.9, inserted=10)]),
    ]
    assert accuracies("best-of-n", made, 256)[0][2] == 1.0  # -26 / 260 against -25.9 / 252
    made[1]["branches"][0]["inserted"] = 0
    assert accuracies("best-of-n", made, 256)[0][2] == 0.0
    for line, score in zip(made, (1.0, 2.0), strict=True):
        line["branches"][0]["scores"] = {"judge": score}
    assert accuracies("best-of-n:judge", made, 256)[0][2] == 0.0
