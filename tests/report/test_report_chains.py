"""What a report says of each chain: its verdict, its cuts, where its thinking ends, what a problem's chains come to."""

import dataclasses
from pathlib import Path

import pytest
from report_pages import Page, unpacked
from report_runs import run
from synthetic_samples import forced_answer, sample

from hyperscale import report
from hyperscale.report.html import chains as browser


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"answer": "1"}, "right"),
        ({"answer": "2"}, "wrong"),
        ({"answer": "1", "tokens": 300, "L": 256}, "truncated"),
        ({"answer": None}, "no answer"),
    ],
)
def test_verdicts(fields, verdict):
    assert browser.VERDICTS[browser.verdict_index(sample(**fields))] == verdict


def test_methods_disagree_where_the_vote_of_one_is_right_and_of_another_wrong():
    lines = [sample("p1", c, "vanilla", answer=a) for c, a in enumerate("112")]
    lines += [sample("p1", c, "dms", 4, answer=a) for c, a in enumerate("212")]
    lines += [sample("p10", c, m, answer="1") for c in range(2) for m in ("vanilla", "dms")]
    lines += [sample("p2", 0, "vanilla", answer=None)]
    index, _ = browser.collect_chains([run(Path("r"), lines)], {}, 1000)
    assert [(p["id"], p["disagree"]) for p in index["problems"]] == [("p1", True), ("p2", False), ("p10", False)]
    assert index["problems"][0]["arms"] == [[0, 2, 3, True], [2, 1, 3, False]]
    assert [arm["name"] for arm in index["arms"]] == ["vanilla", "dms", "dms 4×"]


def test_a_forced_answer_counts_where_the_chain_was_cut():
    forced = {
        L: forced_answer(L, "1", tokens=9, kv_reads=10.0 * L, peak_kv=77.0, text=f"</think>{L}") for L in (256, 512)
    }
    line = sample(tokens=600, L=512, answer=None, text="thinking", forced=forced)
    index, blocks = browser.collect_chains([run(Path("r"), [line])], {}, 1000)
    (problem,) = index["problems"]
    (chain,) = problem["chains"]
    assert browser.VERDICTS[chain[4]] == "right"
    assert chain[-1] == [[256, 265, 2560, 77, 256, 0, 1, 1], [512, 521, 5120, 77, 512, 0, 1, 2]]
    assert unpacked(blocks[0]) == ["thinking", "</think>256", "</think>512"]
    assert problem["arms"] == [[0, 1, 1, True]]


@pytest.mark.parametrize(
    ("opened", "text", "thought"),
    [
        ("<think>", "Hm.</think>1", len("Hm.</think>")),
        ("<think>", "Hm.", len("Hm.")),
        ("", "It is 1", 0),  # of a model that does not think
        ("", "[THINK]Hm.[/THINK]1", len("[THINK]Hm.[/THINK]")),
    ],
)
def test_the_thinking_is_told_apart(opened, text, thought):
    line = sample(tokens=600, L=512, answer=None, text=text, opened=opened, forced={512: forced_answer(512, "1")})
    line = dataclasses.replace(line, cuts=tuple(dataclasses.replace(cut, chars=len(text)) for cut in line.cuts))
    index, _ = browser.collect_chains([run(Path("r"), [line])], {}, 1000)
    assert index["problems"][0]["chains"][0][-2] == [thought, 0]


@pytest.mark.parametrize(
    ("kv_dtypes", "series"),
    [
        (("int8", "fp8"), ["vanilla fp8", "vanilla int8"]),
        (("float32", "int8"), ["vanilla", "vanilla int8"]),
        (("int8", "int8"), ["vanilla", "vanilla"]),
    ],
)
def test_arms_have_the_names_of_their_frontiers(kv_dtypes, series):
    runs = [run(Path(f"r{i}"), [sample("p", kv_dtype=kv_dtype)]) for i, kv_dtype in enumerate(kv_dtypes)]
    page = Page(report.render_report(runs, "x"))
    assert sorted(arm["series"] for arm in page.index["arms"]) == series
    assert sorted(page.data["styles"]) == sorted(set(series))
    assert sorted(arm["name"].split(",")[0] for arm in page.index["arms"]) == series


def test_cuts_stand_only_where_they_hold():
    for more, tokens in (({"length_invariant": False}, [600]), ({}, [256, 512, 600])):
        index, _ = browser.collect_chains([run(Path("r"), [sample(tokens=600, **more)])], {}, 1000)
        (problem,) = index["problems"]
        assert [stop[0] for stop in problem["chains"][0][-1]] == tokens


def test_what_chains_come_to_together_depends_on_the_runs_vote():
    runs = [
        run(Path(vote), [sample("p", c, answer=a, method=vote) for c, a in enumerate("221")], vote=vote)
        for vote in ("majority", "pass@k")
    ]
    index, _ = browser.collect_chains(runs, {}, 1000)
    assert [arm[3] for arm in index["problems"][0]["arms"]] == [False, True]
