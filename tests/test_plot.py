import json
import struct

import numpy as np
import pandas as pd
import pytest
from synthetic import chains, sample

from hyperscale import plot
from hyperscale.errors import ResultsError
from hyperscale.labels import Label, place, short
from hyperscale.points import COLUMNS, cells, points


@pytest.fixture(scope="module")
def lines():
    found = []
    for task in ("mini_aime", "mini_lcb"):
        found += chains("vanilla", 1, problems=24, width=4, task=task)
        for cr in (4, 8):
            found += chains("dms", cr, problems=24, width=4, task=task, skill=0.05)
    return found


@pytest.fixture(scope="module")
def drawn(lines, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures") / "new"
    return plot.draw_samples(lines, out)


def test_each_axis_gives_pictures_and_the_numbers_behind_them(drawn):
    assert [path.name for path in drawn] == [
        f"accuracy-{axis}{end}" for axis in ("kv_reads", "peak_kv") for end in (".png", ".svg", ".csv", "-frontier.csv")
    ]
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
    expected = points(lines)
    assert sorted(table.accuracy) == pytest.approx(sorted(expected.accuracy))
    for _, group in table.groupby(["task", "method"]):
        best = group[group.on_frontier].sort_values("kv_reads")
        assert best.accuracy.is_monotonic_increasing
        assert best.accuracy.max() == group.accuracy.max()


def test_the_frontier_csv_holds_the_band(drawn, lines):
    table = pd.read_csv(drawn[3])
    assert list(table.columns) == ["task", "method", "cost", "accuracy", "accuracy_low", "accuracy_high"]
    assert set(table.method) == {"vanilla", "dms"}
    inner = table.dropna()
    assert len(inner) > 0.8 * len(table)
    assert (inner.accuracy_low <= inner.accuracy_high).all()
    dms = table[(table.task == "mini_aime") & (table.method == "dms")]
    measured = points(lines).query("task == 'mini_aime' and method == 'dms'")
    assert dms.cost.iloc[[0, -1]].tolist() == pytest.approx([measured.kv_reads.min(), measured.kv_reads.max()])
    assert dms.accuracy.max() == pytest.approx(measured.accuracy.max())


def test_labels_stand_clear_of_each_other_and_inside_their_panel(lines):
    figure = plot._figure(plot._series(cells(lines), "kv_reads"), "kv_reads")
    renderer = figure.canvas.get_renderer()
    total = 0
    for panel in figure.axes:
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


def test_ticks_are_few_powers_of_two(lines):
    figure = plot._figure(plot._series(cells(lines), "kv_reads"), "kv_reads")
    for panel in figure.axes:
        assert panel.get_xscale() == "log"
        ticks = panel.get_xticks()
        assert 3 <= len(ticks) <= 7
        assert np.log2(ticks) == pytest.approx(np.round(np.log2(ticks)))


def test_pictures_are_reproducible(lines, drawn, tmp_path):
    again = plot.draw_samples(lines, tmp_path)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in drawn]


def test_many_methods_and_models_have_styles_of_their_own():
    styles = plot._styles([*(f"m{i}" for i in range(9)), "vanilla", "dms"])
    assert len(styles) == len(set(styles.values())) == 11
    lines = [sample(f"p{p}", model=model) for p in range(3) for model in ("small", "large")]
    assert {s.name for s in plot._series(cells(lines), "kv_reads")} == {"vanilla (small)", "vanilla (large)"}


def test_a_single_chain_can_be_drawn_and_chains_without_reads_are_left_out(tmp_path):
    plot.draw_samples([sample(tokens=30)], tmp_path / "one")
    assert plot._series(cells([sample(tokens=1)]), "kv_reads") == []


def test_draw_reads_run_folders(lines, tmp_path):
    folder = tmp_path / "results" / "r"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 1, "config": {}}))
    with pytest.raises(ResultsError, match="no finished chain"):
        plot.draw(folder.parent, tmp_path)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:40]))
    assert all(path.exists() for path in plot.draw(folder.parent, tmp_path / "out"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write pictures"):
        plot.draw([folder], tmp_path / "file")
    with pytest.raises(ResultsError, match="no folder"):
        plot.draw(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("number", "text"), [(256, "256"), (1024, "1K"), (2**14, "16K"), (2**20, "1M"), (1500, "1500")]
)
def test_short_numbers(number, text):
    assert short(number) == text


def test_labels_without_room_are_left_out_the_least_important_first():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    labels = [Label(0.5, 0.5, f"label {i}", "k") for i in range(40)]
    written = place(axes, labels, [np.array([[0.0, 0.5], [1.0, 0.5]])])
    assert written[0].get_text() == "label 0"
    assert 0 < len(written) < 40
    assert len(axes.texts) == len(written)
