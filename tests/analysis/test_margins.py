import io
import math

import pytest
from rich.console import Console
from synthetic_samples import chains, points, sample

from hyperscale.analysis import margins
from hyperscale.analysis import published as reference
from hyperscale.analysis.bootstrap import make_bootstraps
from hyperscale.analysis.curves import analyse
from hyperscale.analysis.margins import Margin, compute_margins
from hyperscale.cli.display import margin_tables
from hyperscale.results.points import COSTS

NAN = (math.nan, math.nan)


def shown(found, published=None, width=140):
    console = Console(file=io.StringIO(), width=width, markup=False)
    margin_tables.print_margins(found, console, published)
    return console.file.getvalue()


def lines(problems, **more):
    return [
        line
        for method, cr in (("vanilla", 1), ("dms", 8), ("window", 4))
        for line in chains(method, cr, problems=problems, width=2, **more)
    ]


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (1.25, (-0.04, 2.0), "+1.2 [-0.0, +2.0]"),
        (-3.0, (-4.0, -2.0), "-3.0 [-4.0, -2.0]"),
        (7.0, NAN, "+7.0"),
        (math.nan, NAN, "NA"),
    ],
)
def test_values_and_intervals_as_text(value, interval, text):
    assert margin_tables.format_margin(value, interval) == text


def test_both_axes_of_a_margin_are_printed_with_their_intervals():
    found = analyse(points(lines(20)), ["kv_reads"], n_boot=50).margins
    text = shown(found)
    assert "Margins over vanilla (mini), points, 95 % interval" in text
    dms = next(line for line in text.splitlines() if " dms " in line)
    assert margin_tables.format_margin(found[0].linear, found[0].linear_ci) in dms
    assert margin_tables.format_margin(found[0].log2, found[0].log2_ci) in dms
    assert "[" in dms
    assert "No interval" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_pairs_over_several_methods_are_named_in_full():
    text = shown(analyse(points(lines(12)), ["tokens"], [("dms", "vanilla"), ("dms", "window")], n_boot=20).margins)
    assert "dms − vanilla" in text
    assert "dms − window" in text
    assert "Margins (mini)" in text


def test_few_problems_have_a_plain_message_instead_of_an_interval():
    text = shown(analyse(points(lines(1)), ["tokens"], n_boot=20).margins)
    assert "No intervals with fewer than 10 problems (mini_aime has 1): such margins are mostly noise." in text
    assert "nan" not in text
    assert not any("[" in line for line in text.splitlines())


def test_costs_without_a_common_interval_are_na():
    apart = [sample(f"p{p}") for p in range(12)] + [sample(f"p{p}", method="dms", CR=100.0) for p in range(12)]
    made = analyse(points(apart), ["kv_reads"], n_boot=20)
    text = shown(made.margins)
    assert text.count("NA") == 3  # two values and what they mean
    assert "NA where every point of one method costs as much as or more than every point of the other." in text
    row = margins.to_frame(made.margins).iloc[0]
    assert row[["linear", "linear_low", "log2", "log2_high", "common_low"]].isna().all()


def test_problems_in_common_and_frontiers_that_rarely_meet_are_explained():
    none = Margin("dms", "vanilla", "t", "tokens", math.nan, NAN, math.nan, NAN, NAN, 0)
    rare = Margin("dms", "vanilla", "t", "tokens", 1.0, NAN, 1.0, NAN, (1.0, 2.0), 20)
    assert "no problem in common" in shown([none])
    assert "fewer than half of the resamples" in shown([rare])


def test_the_frame_has_a_row_for_each_margin():
    made = analyse(points(lines(12)), n_boot=20)
    frame = margins.to_frame(made.margins)
    assert list(frame.columns) == list(margins.COLUMNS)
    assert len(frame) == 2 * len(COSTS)
    m = made.margins[3]
    row = frame.iloc[3].to_dict()
    assert (row["a"], row["b"], row["axis"], row["n_problems"]) == (m.a, m.b, m.axis, 12)
    assert (row["linear"], row["linear_low"], row["linear_high"]) == (m.linear, *m.linear_ci)
    assert (row["log2"], row["log2_low"], row["log2_high"]) == (m.log2, *m.log2_ci)
    assert (row["common_low"], row["common_high"]) == m.common_costs


def test_a_reference_stands_beside_the_tasks_it_has():
    paper = reference.load("paper")

    def beside(model, a="dms", b="vanilla", task="aime24", axis="kv_reads"):
        return margin_tables.format_reference(Margin(a, b, task, axis, 1.0, NAN, 1.0, NAN, (1, 2), 30, model), paper)

    assert beside("qwen-r1-7b") == "+15.0"
    assert beside("qwen-r1-7b", a="vanilla", b="dms") == "-15.0"
    assert beside("other") == "+10.6 / +15.0 / +12.0"
    assert beside("qwen-r1-32b", b="tova", task="math500", axis="peak_kv") == "-0.1"
    assert beside("qwen-r1-7b", axis="tokens") == beside("mini", task="mini_aime") == "·"
    strategies = {"aime24": "majority"}
    text = shown(
        analyse(points(lines(12, task="aime24"), strategy_of_task=strategies), ["kv_reads"], n_boot=20).margins, paper
    )
    assert "+10.6 / +15.0 / +12.0" in text
    assert "paper: published values, without intervals" in text


def test_a_run_of_other_tasks_is_told_so_and_shown_the_reference_by_itself():
    text = shown(analyse(points(lines(12)), ["peak_kv"], n_boot=20).margins, reference.load("paper"))
    assert "No margin here is in paper, whose tasks are aime24, math500, gpqa_diamond, livecodebench. Its own:" in text
    assert "livecodebench, dms − vanilla, peak_kv: +7.4 (qwen-r1-1.5b), +8.5 (qwen-r1-7b), +16.7 (qwen-r1-32b)" in text
    assert "kv_reads" not in text
    assert "·" not in text  # no column without a value


def test_without_a_margin_nothing_is_printed():
    assert shown(analyse(points(chains("vanilla", 1, problems=3, width=1)), ["tokens"], n_boot=5).margins) == ""


def test_the_end_of_a_run_has_reads_and_peak():
    console = Console(file=io.StringIO(), width=140, markup=False)
    margins = compute_margins(make_bootstraps(points(lines(10))).values(), axes=margin_tables.AXES)
    margin_tables.print_margins(margins, console)
    text = console.file.getvalue()
    assert text.count("kv_reads") == text.count("peak_kv") == 2


def test_caches_of_several_types_have_frontiers_of_their_own():
    """Fewer entries, fewer bits, or both: curves of one method apart, each with its bytes."""
    full = points(lines(12), run="full")
    packed = points(lines(12, kv_dtype="fp8", kv_entry_bytes=26), run="packed")
    made = analyse([*full, *packed], ["read_bytes", "peak_bytes", "kv_reads"], n_boot=20)
    names = {"vanilla", "dms", "window", "vanilla fp8", "dms fp8", "window fp8"}
    assert {curve.method for curve in made.curves["read_bytes"]} == names
    assert {(m.a, m.b) for m in made.margins} == {(name, "vanilla") for name in names - {"vanilla"}}
    cheapest = {axis: {curve.method: curve.cost[0] for curve in made.curves[axis]} for axis in made.curves}
    for axis in ("read_bytes", "peak_bytes"):
        assert cheapest[axis]["dms fp8"] == pytest.approx(cheapest[axis]["dms"] * 0.26)
    assert cheapest["kv_reads"]["dms fp8"] == pytest.approx(cheapest["kv_reads"]["dms"])
    # Of one type alone the names stay as they are.
    assert {curve.method for curve in analyse(packed, n_boot=20).curves["kv_reads"]} == {"vanilla", "dms", "window"}
