import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from synthetic_samples import LENGTHS, chains, points, points_table, sample, with_whole
from voting_reference import majority

from hyperscale.errors import TaskError
from hyperscale.kv.trace import dense_reads
from hyperscale.results.points import COLUMNS, table
from hyperscale.results.sample_file import format_line, parse
from hyperscale.utils.quantities import format_length


def point(table, W, L, CR=1.0, **more):
    rows = table[(table.W == W) & (table.L == L) & (table.CR == CR)]
    for name, value in more.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_columns_stand_in_the_order_of_the_contract():
    table = points_table([sample()])
    assert " ".join(table.columns) == (
        "run model method engine task W L CR realised_cr n_problems n_seeds accuracy accuracy_se "
        "vote kv_reads peak_kv peak_bytes tokens seconds truncated no_answer kv_budget accuracy_low accuracy_high "
        "context kv_dtype read_bytes given_up prefill_kv prefill_reads retained n_tasks"
    )
    assert list(points_table([]).columns) == list(COLUMNS)


def test_what_prefill_leaves_and_reads_stands_beside_the_costs_of_decoding():
    """By hand: problems of 40 and 60 tokens keep 10 and 30, mean over problems however many chains each has."""
    short = [sample("a", chain, prompt_tokens=40, prefill_kv=10.0, prefill_reads=820.0) for chain in range(2)]
    long = [sample("b", chain, prompt_tokens=60, prefill_kv=30.0, prefill_reads=1830.0) for chain in range(4)]
    table = points_table(short + long)
    one, two = point(table, 1, 256), point(table, 2, 256)
    assert (one.prefill_kv, one.prefill_reads, one.retained) == (20, 1325, 40)
    assert (two.prefill_kv, two.prefill_reads, two.retained) == (40, 1325, 40)  # chains share the prompt's reads
    old = [replace(line, prefill_kv=None, prefill_reads=None) for line in short + long]
    costs = ["prefill_kv", "prefill_reads", "retained"]
    assert points_table(old)[costs].isna().all(axis=None)
    pd.testing.assert_frame_equal(points_table(old).drop(columns=costs), table.drop(columns=costs))
    assert b"prefill" not in format_line(old[0])  # as older versions wrote them
    assert parse(format_line(short[0])) == short[0]


def test_a_chain_gives_every_shorter_length_by_cutting():
    table = points_table([sample(tokens=600, prompt_tokens=10)])
    assert list(table.L) == list(LENGTHS)
    for L, tokens, accuracy in ((256, 256, 0), (512, 512, 0), (1024, 600, 100), (2048, 600, 100)):
        row = point(table, 1, L)
        assert (row.tokens, row.accuracy, row.kv_reads) == (tokens, accuracy, dense_reads(10, tokens))
        assert row.peak_kv == 10 + tokens - 1
        assert (row.peak_bytes, row.read_bytes) == (100 * row.peak_kv, 100 * row.kv_reads)
        assert row.seconds == pytest.approx(tokens / 600)


def test_accuracy_is_the_expectation_over_subsets_and_costs_scale_with_width():
    answers = {"a": ["1", "2", "1", None], "b": ["3", "1", "2", "2"], "c": ["1", "1", "1", "1"]}
    tokens = {"a": 100, "b": 200, "c": 240}
    lines = [sample(p, c, answer=x, tokens=tokens[p]) for p, xs in answers.items() for c, x in enumerate(xs)]
    table = points_table(lines)
    for W in (1, 2, 4):
        by_problem = [np.mean([majority(s) == "1" for s in combinations(xs, W)]) for xs in answers.values()]
        row = point(table, W, 256)
        assert row.accuracy == pytest.approx(100 * np.mean(by_problem))
        assert row.accuracy_se == pytest.approx(100 * np.std(by_problem, ddof=1) / np.sqrt(3))
        assert row.kv_reads == pytest.approx(W * np.mean([dense_reads(50, t) for t in tokens.values()]))
        assert row.tokens == pytest.approx(W * np.mean(list(tokens.values())))
        assert row.vote == "majority"


def test_code_tasks_count_a_success_if_any_chain_passes():
    lines = [sample("a", c, answer=str(c), right=c == 2, task="mini_lcb") for c in range(4)]
    table = points_table(lines)
    assert [point(table, W, 2048).accuracy for W in (1, 2, 4)] == pytest.approx([25, 50, 100])
    assert set(table.vote) == {"pass@k"}


def test_chains_of_a_length_count_only_up_to_it():
    long = [sample("a", 0, tokens=300, L=2048)]
    short = [sample("a", c, answer="2", tokens=300, L=512) for c in (1, 2, 3)]
    table = points_table(long + short)
    assert list(table[table.L == 512].W) == [1, 2, 4]
    assert list(table[table.L == 2048].W) == [1]
    assert point(table, 1, 512).accuracy == 25
    assert point(table, 1, 2048).accuracy == 100


def test_no_point_stands_at_a_length_that_the_run_did_not_look_at():
    """Else the chains that ended before it would, which are the easy ones."""
    lines = [sample("easy", tokens=100)] * 9 + [sample("hard", answer="2", tokens=2048)]
    hard = lines[-1]
    blind = replace(hard, cuts=(hard.whole,))
    assert list(points_table(lines).L) == list(LENGTHS)
    assert list(points_table([*lines[:-1], blind]).L) == [2048]


def test_methods_that_depend_on_the_maximum_length_are_never_cut():
    lines = [sample("a", 0, "h2o", 4.0, L=L, tokens=200, length_invariant=False) for L in (512, 2048)]
    table = points_table(lines)
    assert list(table.L) == [512, 2048]
    free = points_table([replace(line, length_invariant=True) for line in lines])
    assert list(free.L) == list(LENGTHS)
    assert set(free.W) == {1}  # one chain, generated for two maximum lengths, is one chain


def test_seeds_of_a_problem_are_one_cluster():
    one = [sample(p, 0, answer=x) for p, x in (("a", "1"), ("b", "2"))]
    other = [sample(p, 0, answer=x, seed=1) for p, x in (("a", "1"), ("b", "1"))]
    row = point(points_table(one + other), 1, 2048)
    assert (row.n_problems, row.n_seeds, row.accuracy) == (2, 2, 75)
    assert row.accuracy_se == pytest.approx(100 * np.std([1, 0.5], ddof=1) / np.sqrt(2))


def test_problems_with_missing_chains_are_left_out_of_wide_points():
    lines = [sample("a", c) for c in range(4)] + [sample("b", c, answer="2") for c in range(3)]
    table = points_table(lines)
    assert [(r.W, r.n_problems, r.accuracy) for r in table[table.L == 2048].itertuples()] == [
        (1, 2, 50),
        (2, 2, 50),
        (4, 1, 100),
    ]
    assert np.isnan(point(table, 4, 2048).accuracy_se)


def test_realised_cr_is_dense_reads_over_reads():
    lines = [sample("a", 0, "dms", 8.0, tokens=600), sample("b", 0, "dms", 8.0, tokens=200)]
    assert points_table(lines).realised_cr.to_numpy() == pytest.approx(8)
    lines[0] = replace(lines[0], cuts=tuple(replace(cut, kv_reads=2 * cut.kv_reads) for cut in lines[0].cuts))
    dense = dense_reads(50, 600) + dense_reads(50, 200)
    assert point(points_table(lines), 1, 2048, 8.0).realised_cr == pytest.approx(
        dense / (2 * dense_reads(50, 600) / 8 + dense_reads(50, 200) / 8)
    )


def test_series_are_kept_apart():
    lines = [sample(), sample(method="dms", CR=4.0), sample(method="dms", CR=8.0)]
    rows = table(points(lines) + points([sample()], run="s"))
    assert len(rows.groupby(["run", "method", "CR"])) == 4
    assert set(rows.n_problems) == {1}


def test_points_do_not_depend_on_the_order_of_the_chains():
    lines = chains("vanilla", 1, problems=6)
    pd.testing.assert_frame_equal(points_table(lines[::-1]), points_table(lines), check_exact=False)


def test_widths_of_the_run_stand_beside_the_powers_of_two():
    lines = [sample(p, c, answer=str(c)) for p in "ab" for c in range(6)]
    for widths, shown in (((), [1, 2, 4]), ((1, 3), [1, 2, 3, 4]), ((6, 7), [1, 2, 4, 6])):
        rows = points_table(lines, widths=widths)
        assert list(rows[rows.L == 2048].W) == shown
    rows = points_table(lines, widths=(3,), strategy_of_task={"mini_aime": "pass"})
    assert point(rows, 3, 2048).accuracy == pytest.approx(50)  # half of the triples hold the right one
    assert set(points_table(lines, widths=(3,), strategy_of_task={"mini_aime": "pass@all"}).W) == {6}


def test_unknown_tasks_are_typed_errors():
    with pytest.raises(TaskError, match="unknown task"):
        points_table([sample(task="elsewhere")])
    assert set(points_table([sample(task="elsewhere", tokens=600)], strategy_of_task={"elsewhere": "pass"}).L) == {
        256,
        512,
        2048,
    }


def test_cells_hold_the_points_before_averaging():
    lines = chains("vanilla", 1, problems=10)
    for cell, row in zip(points(lines), points_table(lines).itertuples(), strict=True):
        assert 100 * cell.accuracy.mean() == pytest.approx(row.accuracy)
        assert cell.costs["kv_reads"].mean() == pytest.approx(row.kv_reads)
        assert cell.label == f"{row.W}-{format_length(row.L)}-1"


def test_importing_the_frontier_needs_neither_torch_nor_pandas():
    code = (
        "import sys, hyperscale.analysis.frontier; sys.exit(bool({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_truncated_and_unanswered_chains_are_counted_apart_from_wrong_ones():
    lines = [
        sample("a", 0, tokens=300),
        sample("a", 1, tokens=300, answer="2"),  # wrong: neither
        sample("a", 2, tokens=300, answer=None),  # ended without an answer
        sample("a", 3, tokens=4096),  # cut off at every L
        sample("b", 0, tokens=300),
        sample("b", 1, tokens=300),
    ]
    answered = with_whole(sample("c", 0, tokens=4096), answer="1", correct=True)  # cut off, but after it had answered
    table = points_table([*lines, answered])
    for L, truncated, no_answer in ((256, 100, 0), (512, 100 * (1 / 4 + 0 + 1) / 3, 100 / 12)):
        row = point(table, 1, L)
        assert (row.truncated, row.no_answer) == pytest.approx((truncated, no_answer))
    row = point(table, 1, 2048)
    assert (row.truncated, row.no_answer) == pytest.approx((100 / 12, 100 / 12))
    row = point(table, 4, 2048)  # of the problems with four chains
    assert (row.truncated, row.no_answer) == (25, 25)
