"""The picture of accuracy against what is left of prompts, in a plot and in the report: its points and their places."""

import io

import matplotlib as mpl
import pytest
from rich.console import Console
from synthetic_samples import points, sample

from hyperscale.analysis.curves import analyse
from hyperscale.analysis.frontier import frontier_points
from hyperscale.cli.display.result_tables import print_points
from hyperscale.report.html.frontiers import collect_numbers
from hyperscale.report.plots.figure import RC, draw_figure
from hyperscale.report.plots.retained import draw_retained, select_points, tabulate_retained


def chains(task, method, CR, right, kept, **more):
    """Twelve problems, of which so many are right."""
    for n in range(12):
        answer = "1" if n < right else "2"
        yield sample(
            f"p{n}", 0, method, CR, answer, tokens=20, L=64, prompt_tokens=512, prefill_kv=kept, task=task, **more
        )


@pytest.fixture
def lines():
    made = []
    for task in ("vt@512", "vt@1024"):
        made += [*chains(task, "vanilla", 1.0, 12, 512.0), *chains(task, "tova", 2.0, 9, 256.0)]
        made += chains(task, "tova", 8.0, 3, 64.0)
    return made


def test_a_panel_a_length_a_line_a_method(lines):
    chosen = select_points(points([*lines, *chains("mini_aime", "tova", 8.0, 6, 64.0)]))
    with mpl.rc_context(RC):
        picture = draw_retained(chosen)
    panels = {panel.get_title().split(" (")[0]: panel for panel in picture.axes}
    assert list(panels) == ["vt, 512 tokens", "vt, 1,024 tokens"]
    for panel in panels.values():
        drawn = [line.get_xydata().tolist() for line in panel.lines if line.get_linestyle() == "-"]
        assert [[12.5, 25.0], [50.0, 75.0]] in drawn
        assert [[100.0, 100.0]] in drawn
        low, high = panel.get_xlim()
        assert low < 12.5 < 100 < high
    assert set(tabulate_retained(chosen).task) == {"vt@512", "vt@1024"}


def test_names_with_dollars_are_no_mathematics():
    with mpl.rc_context(RC):
        picture = draw_retained(select_points(points([*chains("vt@512", "tova", 2.0, 9, 256.0, model="a$b_{$c")])))
    picture.savefig(io.BytesIO())


def test_tasks_stand_in_the_order_of_the_runs_and_what_keeps_all_is_explained(lines):
    first = [*chains("vt@512", "tova", 2.0, 9, 256.0), *chains("niah_single@512", "quest", 2.0, 9, 512.0)]
    with mpl.rc_context(RC):
        picture = draw_retained(select_points(points(first)))
        other = draw_retained(select_points(points(lines)))
    titles = [panel.get_title() for panel in picture.axes]
    assert titles == ["vt, 512 tokens (12 problems)", "niah_single, 512 tokens (12 problems)"]
    assert [
        "keep all entries" in " ".join(text.get_text() for text in figure.texts) for figure in (picture, other)
    ] == [True, False]


def test_the_key_speaks_of_what_is_drawn(lines):
    few = [chain for chain in lines if chain.problem in ("p0", "p1")]
    with mpl.rc_context(RC):
        keys = [
            " ".join(text.get_text() for text in draw_retained(select_points(points(chains))).texts)
            for chains in (lines, few, [chain for chain in lines if chain.method != "vanilla"])
        ]
    assert ["Wilson intervals" in key for key in keys] == [True, False, True]
    assert ["no bars" in key for key in keys] == [False, True, False]
    assert ["full cache" in key for key in keys] == [True, True, False]


def test_lengths_are_shown_from_the_shortest_on_wherever_they_are_listed(lines, capsys):
    late = [*reversed(lines)]  # as chains lie that finished in another order
    every = points(late)
    analysis = analyse(every, n_boot=20)
    wanted = ["vt@512", "vt@1024"]
    for listed in (analysis.answers, analysis.margins, analysis.curves["kv_reads"], frontier_points(every, "kv_reads")):
        assert list(dict.fromkeys(getattr(each, "series", each).task for each in listed)) == wanted
    data = collect_numbers(every)
    assert list(dict.fromkeys(row[data["columns"].index("task")] for row in data["points"])) == wanted
    with mpl.rc_context(RC):
        picture = draw_figure(analysis.curves["kv_reads"], "kv_reads")
    assert [panel.get_title().split(" ")[0] for panel in picture.axes] == wanted
    print_points(every, Console(width=200))
    out = capsys.readouterr().out
    assert out.index("vt@512") < out.index("vt@1024")


def test_nothing_is_drawn_where_nothing_was_left_out_or_nobody_says(lines):
    assert not select_points(points(chains("vt@512", "vanilla", 1.0, 12, 512.0)))
    assert not select_points(points(chains("vt@512", "tova", 2.0, 12, None)))
    assert not select_points(points(chains("mini_aime", "tova", 8.0, 6, 64.0)))


def test_the_report_has_the_points_of_the_plot(lines):
    fp8 = chains("vt@512", "tova", 8.0, 5, 64.0, kv_dtype="fp8")
    every = points([*lines, *fp8, *chains("mini_aime", "tova", 8.0, 6, 64.0)])
    data = collect_numbers(every)
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["points"]]
    told = {
        (f"{panel['task']}@{panel['context']}", line["name"]): [
            (rows[i]["task"], rows[i]["series"], rows[i]["retained"], rows[i]["accuracy"]) for i in line["points"]
        ]
        for panel in data["shares"]
        for line in panel["lines"]
    }
    drawn = {}
    for row in tabulate_retained(select_points(every)).itertuples():
        drawn.setdefault((row.task, row.method), []).append(
            (row.task, row.method, pytest.approx(row.retained), pytest.approx(row.accuracy))
        )
    assert told == drawn
    assert ("vt@512", "tova fp8") in told
    assert [line["name"] for panel in data["shares"] for line in panel["lines"] if line["full"]] == ["vanilla"] * 2
    assert collect_numbers(points(chains("mini_aime", "tova", 8.0, 6, 64.0)))["shares"] == []
