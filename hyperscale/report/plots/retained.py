"""Draws accuracy against the share of the prompt that a method keeps: a panel for each task and length of prompts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hyperscale import tasks
from hyperscale.methods.names import VANILLA, rank
from hyperscale.report.plots.figure import DPI, WIDTH, shorten
from hyperscale.report.plots.styles import Style, assign_dashes, assign_styles, series_name
from hyperscale.results.intervals import MIN_PROBLEMS
from hyperscale.results.points import MeasuredPoint, name_caches

if TYPE_CHECKING:
    import pandas as pd

_KEY = "share of the prompt's entries left after prefill"
_BARS = "bars: 95 % Wilson intervals"
_FEW = f"no bars with fewer than {MIN_PROBLEMS} problems"
_FULL = "thin dashes: the full cache"
_KEPT = "at 100 %: methods that keep all entries and read some"


def select_points(points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """The points of context tasks that say what prefill left: of each arm that of the fewest chains and the largest L.

    Those of older folders do not say it. Without any that leaves something out, there is nothing to draw: none then.
    """
    return select_named_points(name_caches(points))


def select_named_points(points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """`select_points` of points that `name_caches` has named."""
    chosen: dict[Any, MeasuredPoint] = {}
    for point in points:
        if tasks.context_of(point.series.task) is None or math.isnan(point.retained):
            continue
        other = chosen.get(point.series)
        if other is None or (-point.W, point.L) > (-other.W, other.L):
            chosen[point.series] = point
    # A share below a thousandth's rounding of 1 is no compression.
    return list(chosen.values()) if any(point.retained < 0.999 for point in chosen.values()) else []


def tabulate_retained(points: Sequence[MeasuredPoint]) -> "pd.DataFrame":
    """The chosen points, a row each."""
    import pandas as pd

    return pd.DataFrame([point.row() for point in sorted(points, key=place)])


def draw_retained(points: Sequence[MeasuredPoint], notes: Sequence[str] = ()) -> Any:
    """A matplotlib figure of the chosen points; make it and save it under `figure.RC`.

    Args:
        points: At least one, by `select_points`.
        notes: What is to be known of the runs, a line each at the top.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(name_and_context(point)[0] for point in points))  # as the runs have them
    columns = sorted({name_and_context(point)[1] for point in points})
    several_models = len({point.series.model for point in points}) > 1
    lines: dict[str, list[MeasuredPoint]] = {}
    for point in sorted(points, key=place):
        name = series_name(point.series.method, point.series.model, several_models)
        lines.setdefault(name, []).append(point)
    styles = assign_styles(lines)
    dashes = assign_dashes(styles)
    width = max(WIDTH * (0.65 if len(columns) == 1 else 1), 1.75 * len(columns))
    models = ", ".join(dict.fromkeys(point.series.model for point in points))
    heading = [shorten(models, int(19 * width)), *notes]
    size = (width, 0.75 + 1.9 * len(rows) + 0.13 * len(heading))
    picture = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for row, task in enumerate(rows):
        for column, context in enumerate(columns):
            panel = panels[row][column]
            here = {
                name: part
                for name, every in lines.items()
                if (part := [point for point in every if name_and_context(point) == (task, context)])
            }
            if not here:
                panel.set_visible(False)
                continue
            problems = max(len(point.problems) for part in here.values() for point in part)
            panel.set_title(f"{task}, {context:,} tokens ({problems} problem{'s' * (problems > 1)})", fontsize=6.5)
            _draw_panel(panel, here, styles, dashes)
        panels[row][0].set_ylabel("accuracy (%)")
    _set_shares(panels[0][0], [100 * point.retained for point in points])
    picture.supxlabel("retained share of the prompt (%), log2 scale\n", fontsize=7.5)
    keeps_all = any(p.retained >= 0.999 and p.series.method.split(" ")[0] != VANILLA for p in points)
    sizes = [len(point.problems) for point in points]
    bars = [*[_BARS] * (max(sizes) >= MIN_PROBLEMS), *[_FEW] * (min(sizes) < MIN_PROBLEMS)]
    full = any(point.series.method.split(" ")[0] == VANILLA for point in points)
    key = "    ".join([_KEY, *bars, *[_FULL] * full, *[_KEPT] * keeps_all])
    picture.text(0.5, 0.008, key, ha="center", va="bottom", fontsize=5.5, color="#555555")
    legend = picture.legend(
        handles=[_handle(name, *style, dashes[name]) for name, style in styles.items()],
        loc="outside upper center",
        ncols=max(1, min(len(styles), int(width / (0.5 + 0.058 * max(map(len, styles)))))),
        frameon=False,
        title="\n".join(heading),
        title_fontsize=6.5,
    )
    legend.get_title().set_multialignment("center")
    return picture


def name_and_context(point: MeasuredPoint) -> tuple[str, int]:
    """A context task's name without its length, and that length in tokens."""
    task = point.series.task
    return tasks.without_context(task), tasks.context_of(task) or 0


def place(point: MeasuredPoint) -> tuple[Any, ...]:
    """What points are sorted by: task, length of context, model, method, and from the smallest share on."""
    return *name_and_context(point), point.series.model, rank(point.series.method), point.retained, point.series


def _handle(name: str, colour: str, marker: str, dash: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=dash, marker=marker, markersize=3.5, linewidth=1.2, label=name)


def _draw_panel(
    panel: Any, lines: dict[str, list[MeasuredPoint]], styles: dict[str, Style], dashes: dict[str, str]
) -> None:
    """One line a method from its smallest share to its largest; the full cache's is a height."""
    for name, points in lines.items():
        colour, marker = styles[name]
        x = [100 * point.retained for point in points]
        y = [100 * float(point.accuracy.mean()) for point in points]
        if points[0].series.method.split(" ")[0] == VANILLA:
            panel.axhline(y[0], color=colour, linewidth=0.7, linestyle="--", zorder=1)
        panel.plot(x, y, marker=marker, color=colour, linestyle=dashes[name], markersize=3.4, linewidth=1.2, zorder=3)
        for share, point in zip(x, points, strict=True):
            if len(point.problems) >= MIN_PROBLEMS:
                low, high = point.interval
                panel.vlines(share, 100 * low, 100 * high, color=colour, linewidth=0.7, alpha=0.55, zorder=2)
    panel.grid(alpha=0.25, linewidth=0.4)
    panel.tick_params(width=0.6, length=2.5)
    panel.spines[["top", "right"]].set_visible(False)


def _set_shares(panel: Any, shares: Sequence[float]) -> None:
    """Halves of 100 % down to the smallest share; all panels share the axes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    halvings = max(1, math.ceil(math.log2(100 / max(min(shares), 1e-3)) - 1e-6))
    panel.set_xscale("log", base=2)
    panel.set_xlim(100 / 2 ** (halvings + 0.25), 100 * 2**0.25)
    step = math.ceil(halvings / 5)
    ticks = [100 / 2**n for n in range(0, halvings + 1, step)]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    panel.set_ylim(-4, 104)
