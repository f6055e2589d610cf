import io
import struct

import numpy as np
import pandas as pd
import pytest
from synthetic_samples import chains, points, points_table, sample

from hyperscale.analysis import published as reference
from hyperscale.analysis.curves import analyse
from hyperscale.errors import ResultsError
from hyperscale.report.plots import figure, styles, write
from hyperscale.report.plots.label_placement import Label, place_labels
from hyperscale.results.points import COLUMNS, COSTS


@pytest.fixture(scope="module")
def lines():
    found = []
    for task in ("mini_aime", "mini_lcb"):
        found += chains("vanilla", 1, problems=24, width=4, task=task)
        for cr in (4, 8):
            found += chains("dms", cr, problems=24, width=4, task=task, skill=0.05)
    return found


@pytest.fixture(scope="module")
def made(lines):
    return analyse(points(lines), n_boot=200)


@pytest.fixture(scope="module")
def drawn(made, tmp_path_factory):
    return write.draw_analysis(made, tmp_path_factory.mktemp("pictures") / "new", formats=write.FORMATS)


def picture(made, axis="kv_reads", published=None, notes=()):
    import matplotlib as mpl

    with mpl.rc_context(figure.RC):
        return figure.draw_figure(made.curves[axis], axis, published, notes)


def test_each_axis_gives_pictures_and_the_numbers_behind_them(drawn):
    ends = (".png", ".svg", ".csv", "-frontier.csv")
    names = [
        f"accuracy-{axis}{end}"
        for axis in ("kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds", "read_bytes")
        for end in ends
    ]
    assert [path.name for path in drawn] == [*names, "margins.csv"]
    assert set(styles.AXES) == set(COSTS)
    for path in drawn:
        if path.suffix == ".png":
            width, height = struct.unpack(">II", path.read_bytes()[16:24])
            assert width == 7 * 200
            assert height > 400
        if path.suffix == ".svg":
            assert path.read_text().rstrip().endswith("</svg>")


def test_the_csv_holds_every_point_and_marks_the_frontier(drawn, lines):
    table = pd.read_csv(drawn[2])
    assert list(table.columns) == [*COLUMNS, "on_frontier"]
    expected = points_table(lines)
    assert sorted(table.accuracy) == pytest.approx(sorted(expected.accuracy))
    for _, group in table.groupby(["task", "method"]):
        best = group[group.on_frontier].sort_values("kv_reads")
        assert best.accuracy.is_monotonic_increasing
        assert best.accuracy.max() == group.accuracy.max()


def test_the_frontier_csv_holds_the_band(drawn, lines):
    table = pd.read_csv(drawn[3])
    assert list(table.columns) == ["task", "model", "method", "cost", "accuracy", "accuracy_low", "accuracy_high"]
    assert set(table.method) == {"vanilla", "dms"}
    inner = table.dropna()
    assert len(inner) > 0.8 * len(table)
    assert (inner.accuracy_low <= inner.accuracy_high).all()
    dms = table[(table.task == "mini_aime") & (table.method == "dms")]
    measured = points_table(lines).query("task == 'mini_aime' and method == 'dms'")
    assert dms.cost.iloc[[0, -1]].tolist() == pytest.approx([measured.kv_reads.min(), measured.kv_reads.max()])
    assert dms.accuracy.max() == pytest.approx(measured.accuracy.max())


@pytest.mark.parametrize("axis", ["kv_reads", "seconds"])
def test_labels_stand_clear_of_each_other_and_inside_their_panel(made, axis):
    drawn = picture(made, axis)
    renderer = drawn.canvas.get_renderer()
    total = 0
    for panel in drawn.axes:
        boxes = [text.get_window_extent(renderer) for text in panel.texts]
        total += len(boxes)
        frame = panel.get_window_extent(renderer)
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert frame.x0 <= box.x0
            assert box.x1 <= frame.x1
        names = {text.get_text() for text in panel.texts}
        assert names <= {f"{w}-{n}-{cr}" for w in (1, 2, 4) for n in ("256", "512", "1K", "2K") for cr in (1, 4, 8)}
    assert total >= 6


@pytest.mark.parametrize("axis", COSTS)
def test_ticks_are_few_powers_of_two(made, axis):
    for panel in picture(made, axis).axes:
        assert panel.get_xscale() == "log"
        ticks = panel.get_xticks()
        assert 3 <= len(ticks) <= 7
        assert np.log2(ticks) == pytest.approx(np.round(np.log2(ticks)))


def test_pictures_are_reproducible(lines, drawn, tmp_path):
    again = write.draw_analysis(analyse(points(lines), ["kv_reads"], n_boot=200), tmp_path, formats=write.FORMATS)[:4]
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in drawn[:4]]


def test_curves_of_several_models_are_told_apart():
    lines = [sample(f"p{p}", model=model) for p in range(3) for model in ("small", "large")]
    assert set(figure._names(analyse(points(lines)).curves["kv_reads"]).values()) == {
        "vanilla (small)",
        "vanilla (large)",
    }


@pytest.mark.parametrize("tasks", [["mini_aime"], ["mini_gpqa", "mini_aime", "mini_lcb"]])
def test_a_long_legend_stays_in_the_picture(tasks):
    models = [f"some-model-of-{n}b" for n in (7, 14, 32, 70)]
    lines = [
        sample(f"p{p}", task=task, model=model, method=method)
        for p in range(2)
        for task in tasks
        for model in models
        for method in ("vanilla", "dms", "streaming")
    ]
    drawn = picture(analyse(points(lines), ["kv_reads"]))
    box = drawn.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= drawn.bbox.width
    assert [axes.get_title().split(" ")[0] for axes in drawn.axes if axes.get_visible()] == sorted(tasks)


def test_a_single_chain_can_be_drawn_and_chains_without_reads_are_left_out(tmp_path):
    single = analyse(points([sample(tokens=30)]))
    assert len(write.draw_analysis(single, tmp_path / "one", formats=write.FORMATS)) == 4 * len(COSTS)
    assert [path.name for path in write.draw_analysis(single, tmp_path / "png")] == [
        f"accuracy-{axis}.png" for axis in COSTS
    ]
    nothing = analyse(points([sample(tokens=1)]), ["kv_reads"])
    assert nothing.curves == {"kv_reads": []}
    assert write.draw_analysis(nothing, tmp_path / "none") == []


def test_few_problems_have_neither_bands_nor_bars_and_the_panel_says_so():
    few, enough = (analyse(points(chains("vanilla", 1, problems=n, width=2)), ["tokens"]) for n in (9, 10))
    curve = few.curves["tokens"][0]
    assert not curve.enough
    assert np.isnan([curve.low, curve.high]).all()
    assert np.isfinite(enough.curves["tokens"][0].low).any()
    titles = [picture(each, "tokens").axes[0].get_title() for each in (few, enough)]
    assert titles[0] == "mini_aime (9 problems, majority)\ntoo few problems for error bars"
    assert titles[1] == "mini_aime (10 problems, majority)"
    bars = [
        [c for c in picture(each, "tokens").axes[0].collections if hasattr(c, "get_segments")] for each in (few, enough)
    ]
    assert bars[0] == []
    assert max(np.ptp(s[:, 1]) for c in bars[1] for s in c.get_segments() if len(s)) > 1


def test_the_frontier_is_drawn_in_steps():
    """Flat from every point to the cost of the next: what no point reaches is never drawn."""
    made = analyse(points(chains("dms", 8, problems=20, width=4)), ["tokens"], n_boot=50)
    (curve,) = made.curves["tokens"]
    x, y = figure._steps(curve, "tokens").T
    assert (np.diff(x) >= 0).all()
    for cost in np.linspace(x[0], x[-1], 50):
        best = max(100 * point.accuracy.mean() for point in curve.points if point.costs["tokens"].mean() <= cost + 1e-9)
        assert y[x <= cost + 1e-9].max() == pytest.approx(best)
        assert curve.middle[np.searchsorted(curve.cost, cost + 1e-9) - 1] <= best + 1e-9
    assert set(np.round(curve.middle, 6)) <= set(np.round(y, 6))


def test_a_panel_of_unlike_problems_and_of_sparse_points_says_so():
    lines = chains("vanilla", 1, problems=20, width=2) + chains("dms", 8, problems=12, width=2)
    drawn = picture(analyse(points(lines), ["tokens"], n_boot=20), "tokens")
    assert drawn.axes[0].get_title() == "mini_aime (unlike problems, majority)\nvanilla 20, dms 12 problems"
    assert "hollow" not in drawn.texts[-1].get_text()
    # The same number, but not the same ones.
    other = [sample(f"p{p}", method=method, tokens=100) for m, method in enumerate("ab") for p in range(m, 12 + m)]
    title = picture(analyse(points(other), ["tokens"], n_boot=20), "tokens").axes[0].get_title()
    assert title == "mini_aime (unlike problems, majority)\n12 problems each, not the same ones"
    # Where most have as many, only the others are named.
    assert (
        figure._describe_counts({"vanilla": 20, "h2o": 14, "dms": 20, "tova": 9}) == "20 problems, but tova 9, h2o 14"
    )
    # A run of few problems beside a full one: its points are hollow, and the key says what that is.
    brief = points(chains("vanilla", 1, problems=3, width=2), run="brief")
    drawn = picture(
        analyse(points(chains("vanilla", 1, problems=20, width=2)) + brief, ["tokens"], n_boot=20), "tokens"
    )
    assert any("hollow: fewer problems, on no frontier" in text.get_text() for text in drawn.texts)
    assert any(line.get_markerfacecolor() == "none" for line in drawn.axes[0].lines)


def test_points_beyond_the_ends_of_every_frontier_stand_in_the_panel():
    whole = [sample(f"p{p}", L=512, tokens=600 if p % 2 else 260) for p in range(20)]
    brief = [sample(f"p{p}", tokens=1900) for p in range(5)]  # too few problems for the frontier
    made = analyse(points(whole) + points(brief, run="brief"), ["tokens"], n_boot=20)
    panel = picture(made, "tokens").axes[0]
    (hollow,) = (line for line in panel.lines if line.get_markerfacecolor() == "none")
    low, high = panel.get_xlim()
    assert max(hollow.get_xdata()) == 1900
    assert low < min(hollow.get_xdata())
    assert max(hollow.get_xdata()) < high


@pytest.mark.parametrize("tasks", [("mini_aime",), ("mini_aime", "mini_gpqa"), ("mini_aime", "mini_gpqa", "mini_lcb")])
def test_head_and_key_stay_in_the_picture(tasks):
    lines = [line for task in tasks for line in chains("vanilla", 1, problems=12, width=2, task=task)]
    brief = points(chains("vanilla", 1, problems=3, width=2), run="brief")  # its points are hollow, which the key says
    drawn = picture(analyse(points(lines, run="a-run-of-a-long-name-" * 9) + brief, ["tokens"], n_boot=20), "tokens")
    renderer = drawn.canvas.get_renderer()
    key = next(text for text in drawn.texts if "labels: W-L-CR" in text.get_text())
    assert "hollow" in key.get_text()
    for text in (key, drawn.legends[0].get_title()):
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= drawn.bbox.width
    label = next(text for text in drawn.texts if "log2 scale" in text.get_text())
    written = label.get_window_extent(renderer).y1  # of its first line, above the room that it keeps free
    assert key.get_window_extent(renderer).y1 < written


def test_the_legend_names_model_runs_and_what_is_to_be_known_of_them():
    made = analyse(points(chains("vanilla", 1, problems=12, width=2), run="first"), ["tokens"], n_boot=20)
    drawn = picture(made, "tokens", notes=["first is unfinished"])
    assert drawn.legends[0].get_title().get_text() == "mini: first\nfirst is unfinished"
    renderer = drawn.canvas.get_renderer()
    box = drawn.legends[0].get_window_extent(renderer)
    assert not box.overlaps(drawn.axes[0].title.get_window_extent(renderer))
    assert figure.shorten("a-long-name-of-a-run", 9) == "a-lo…-run"


def test_names_with_dollars_are_no_mathematics():
    lines = [line for model in ("runs/a$b_{$c", "m$v1_$x") for line in chains("vanilla", 1, problems=12, model=model)]
    made = picture(analyse(points(lines), n_boot=20), notes=["runs/a$b_{$c is unfinished"])
    made.savefig(io.BytesIO())  # outside of the context, as a notebook does
    assert "a$b_{$c" in made.legends[0].get_title().get_text()


def test_seeds_are_named_in_the_panel():
    lines = [sample(f"p{p}", seed=seed) for p in range(12) for seed in (0, 1, 2)]
    assert picture(analyse(points(lines))).axes[0].get_title() == "mini_aime (12 problems × 3 seeds, majority)"


def test_the_y_axis_is_whole_or_as_narrow_as_the_points():
    wide = analyse(points(chains("vanilla", 1, problems=20, width=4)), ["tokens"])
    assert picture(wide, "tokens").axes[0].get_ylim() == (-4, 109)
    flat = [sample(f"p{p}", answer="1" if p % 2 else "2", tokens=100) for p in range(30)]
    low, high = picture(analyse(points(flat), ["tokens"]), "tokens").axes[0].get_ylim()
    assert 20 < high - low < 70
    assert low < 50 < high


def test_published_accuracies_stand_right_of_the_panels_of_their_tasks():
    paper = reference.load("paper")
    lines = [
        line
        for task in ("aime24", "mini_lcb")
        for method, cr in (("vanilla", 1), ("dms", 8), ("window", 4))
        for line in chains(method, cr, problems=12, width=2, task=task)
    ]
    panels = picture(
        analyse(points(lines, strategy_of_task={"aime24": "majority"}), ["kv_reads"]), published=paper
    ).axes
    hollow = [[line for line in panel.lines if line.get_fillstyle() == "none"] for panel in panels]
    assert [float(line.get_ydata()[0]) for line in hollow[0]] == [53.3, 53.3, 50.0]  # vanilla, dms at CR 4 and 8
    assert all(line.get_xdata()[0] > 1 for line in hollow[0])
    assert hollow[1] == []


def test_a_folder_that_cannot_be_written_is_refused(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot write pictures.*choose another folder"):
        write.draw_analysis(made, tmp_path / "file")


STRATEGIES = {
    "majority": "majority",
    "pass@k": "pass@k",
    "pass@all": "pass@all",
    "mean@k": "mean@k",
    "best-of-n": "best-of-n by logprob",
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_title_and_y_axis_name_the_strategy(strategy):
    lines = chains("vanilla", 1, problems=12, width=2)
    panel = picture(
        analyse(points(lines, strategy_of_task={"mini_aime": strategy}), ["tokens"], n_boot=20), "tokens"
    ).axes[0]
    assert panel.get_title() == f"mini_aime (12 problems, {STRATEGIES[strategy]})"
    assert panel.get_ylabel() == f"accuracy, {STRATEGIES[strategy]} (%)"


def test_panels_of_unlike_strategies_share_the_plain_label_and_a_panel_names_all_of_its_own():
    tasks = {"mini_aime": "majority", "mini_lcb": "pass@k"}
    lines = [line for task in tasks for line in chains("vanilla", 1, problems=12, width=2, task=task)]
    first, second = picture(analyse(points(lines, strategy_of_task=tasks), ["tokens"], n_boot=20), "tokens").axes
    assert first.get_ylabel() == "accuracy (%)"
    assert (first.get_title(), second.get_title()) == (
        "mini_aime (12 problems, majority)",
        "mini_lcb (12 problems, pass@k)",
    )
    mixed = [point for vote in ("mean@k", "majority") for point in points(lines[:24], run=vote, vote=vote)]
    panel = picture(analyse(mixed, ["tokens"], n_boot=20), "tokens").axes[0]
    assert panel.get_title() == "mini_aime (12 problems, majority, mean@k)"
    assert panel.get_ylabel() == "accuracy (%)"


def test_labels_without_room_are_left_out_the_least_important_first():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    small = Figure(figsize=(1, 1))
    FigureCanvasAgg(small)
    axes = small.add_axes((0, 0, 1, 1))
    labels = [Label(0.5, 0.5, f"label {i}", "k") for i in range(40)]
    written = place_labels(axes, labels, [np.array([[0.0, 0.5], [1.0, 0.5]])])
    assert written[0].get_text() == "label 0"
    assert 0 < len(written) < 40
    assert len(axes.texts) == len(written)


def test_labels_avoid_lesser_points_where_there_is_room():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def where(points):
        small = Figure(figsize=(3, 3))
        FigureCanvasAgg(small)
        axes = small.add_axes((0, 0, 1, 1))
        (text,) = place_labels(axes, [Label(0.5, 0.5, "1-2K-8", "k")], [np.array([[0.5, 0.5]])], points)
        return axes.transData.inverted().transform(text.get_window_extent(small.canvas.get_renderer()))

    (x0, y0), (x1, y1) = where(())
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    (x0, y0), (x1, y1) = where(np.array([centre]))
    assert not (x0 < centre[0] < x1 and y0 < centre[1] < y1)
    everywhere = np.array([(x, y) for x in np.linspace(0, 1, 60) for y in np.linspace(0, 1, 60)])
    assert where(everywhere).shape == (2, 2)  # better there than nowhere
