"""Draws accuracy against one cost: a panel for each task, a frontier for each method."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.curves import Curve, cost_and_accuracy
from hyperscale.analysis.frontier import COVERAGE
from hyperscale.methods.names import rank
from hyperscale.report.plots.label_placement import Label, place_labels
from hyperscale.report.plots.styles import AXES, STYLES, Style, assign_styles, series_name
from hyperscale.results.intervals import MIN_PROBLEMS
from hyperscale.results.points import MeasuredPoint
from hyperscale.utils.quantities import format_length
from hyperscale.utils.sorting import natural_order

if TYPE_CHECKING:
    from hyperscale.analysis.published import PublishedAccuracy, Reference

Floats = NDArray[np.float64]
RC = {
    "font.size": 7.5,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "hyperscale",  # makes SVGs reproducible
    "text.parse_math": False,  # names of models and folders may have two $, between which matplotlib reads mathematics
}
WIDTH = 7.0  # inches: the text width of a page
DPI = 200
_TITLE_WIDTH = 40  # characters of a panel's title in a line
KEY = (
    "labels: W-L-CR",
    "steps: best measured at or under a cost",
    "bands: 95 % bootstrap over problems",
    "bars: 95 % Wilson intervals",
)


def draw_figure(
    curves: Sequence[Curve], axis: str, reference: "Reference | None" = None, notes: Sequence[str] = ()
) -> Any:
    """A matplotlib figure of the curves of one cost axis; make it and save it under `RC`.

    Args:
        curves: At least one.
        axis: Their cost axis, for its name.
        notes: What is to be known of the runs, as that one is unfinished; a line each at the top.
        reference: Published accuracies, drawn as hollow markers at the right of the panels of their tasks: their costs
            are not known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_task = _by_task(curves)
    columns = {1: 1, 2: 2, 4: 2}.get(len(by_task), 3)
    rows = -(-len(by_task) // columns)
    styles = assign_styles((names := _names(curves)).values())
    width = WIDTH if columns > 1 else WIDTH * 0.65
    room = int(19 * width)  # characters of the heading's font
    heading = [shorten(_describe_runs(curves), room), *(line for note in notes for line in textwrap.wrap(note, room))]
    lines = len(heading) + len(_key_lines(curves, width))
    size = (width, 0.52 + 2.55 * rows + 0.13 * lines)
    # Labels are placed by the widths of their texts, which differ a little at another resolution: it is set here.
    picture = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(rows, columns, squeeze=False).ravel()
    for panel, part in zip(panels, by_task.values(), strict=False):
        marks = _published_points(part, reference)
        _draw_panel(panel, part, axis, {id(curve): styles[names[id(curve)]] for curve in part})
        _set_accuracies(panel, part, axis, [point.accuracy for point in marks])
        _draw_published(panel, marks)
    for panel in panels[len(by_task) :]:
        panel.set_visible(False)
    for row in range(rows):  # one label a row, at its left
        in_row = list(by_task.values())[row * columns : (row + 1) * columns]
        panels[row * columns].set_ylabel(accuracy_label([curve for part in in_row for curve in part]))
    below = [*_key_lines(curves, size[0]), *_reference_notes(curves, reference)]
    blank = "\n" * len(below)  # room for the notes
    picture.supxlabel(f"{AXES[axis]}, log2 scale{blank}", fontsize=7.5)
    picture.text(0.5, 0.008, "\n".join(below), ha="center", va="bottom", fontsize=5.5, color="#555555")
    legend = picture.legend(
        handles=[_handle(name, *style) for name, style in styles.items()],
        loc="outside upper center",
        ncols=_legend_columns(styles, size[0]),
        frameon=False,
        title="\n".join(heading),
        title_fontsize=6.5,
    )
    legend.get_title().set_multialignment("center")
    picture.draw_without_rendering()  # fixes the layout, which the placement of labels needs
    for panel, part in zip(panels, by_task.values(), strict=False):
        _write_labels(panel, part, axis, {id(curve): styles[names[id(curve)]] for curve in part})
    return picture


def _key_lines(curves: Sequence[Curve], width: float) -> list[str]:
    """What labels, steps, bands, bars and hollow points are, in lines that fit a picture of so many inches."""
    key = [*KEY] if any(curve.enough for curve in curves) else [*KEY[:2]]
    if any(_is_sparse(point, curve) for curve in curves for point in curve.points):
        key.append("hollow: fewer problems, on no frontier")
    lines = [key[0]]
    for entry in key[1:]:
        longer = f"{lines[-1]}    {entry}"
        # A character of this font takes 0.042 inches.
        lines = [*lines[:-1], longer] if 0.042 * len(longer) < width else [*lines, entry]
    return lines


def strategy_label(strategy: str) -> str:
    """How W chains make one verdict, for titles: the strategy's name, and what scores chains where one does."""
    kind, _, scorer = strategy.partition(":")
    return f"{kind} by {scorer}" if scorer else kind


def shorten(text: str, width: int) -> str:
    """A text of at most so many characters; what is too much is left out of its middle."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[-half:]}"


def _describe_runs(curves: Sequence[Curve]) -> str:
    """Models and runs of a picture's points."""
    models = dict.fromkeys(curve.model for curve in curves)
    runs = dict.fromkeys(point.series.run for curve in curves for point in curve.points)
    named = ", ".join(filter(None, runs))
    return f"{', '.join(models)}: {named if len(runs) == 1 else f'{len(runs)} runs, {named}'}"


def accuracy_label(curves: Sequence[Curve]) -> str:
    """What the y axis of the curves' panels shows; their strategy stands there if they have one in common."""
    strategies = {point.vote for curve in curves for point in curve.points}
    return f"accuracy, {strategy_label(strategies.pop())} (%)" if len(strategies) == 1 else "accuracy (%)"


def _by_task(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.task, []).append(curve)
    return dict(sorted(groups.items(), key=lambda group: natural_order(group[0])))


def _names(curves: Sequence[Curve]) -> dict[int, str]:
    """The legend's name of each curve, by the curve's id: curves hold arrays and do not hash."""
    with_model = len({curve.model for curve in curves}) > 1
    return {id(curve): series_name(curve.method, curve.model, with_model) for curve in curves}


def _legend_columns(names: Iterable[str], width: float) -> int:
    """How many entries of a legend fit side by side in so many inches."""
    # A handle takes about half an inch, a character of the legend's font 0.058.
    count, longest = len(names := list(names)), max(map(len, names))
    return max(1, min(count, int(width / (0.5 + 0.058 * longest))))


def _handle(name: str, colour: str, marker: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=name)


def _draw_panel(panel: Any, curves: Sequence[Curve], axis: str, styles: Mapping[int, Style]) -> None:
    panel.set_title("\n".join(_title_lines(curves)), fontsize=7)
    # From back to front: the band, all points with their errors (faint), the frontier, its points.
    for curve in curves:
        colour, marker = styles[id(curve)]
        _draw_points(panel, curve, axis, colour, marker)
        panel.fill_between(
            curve.cost, curve.low, curve.high, step="post", color=colour, alpha=0.13, linewidth=0, zorder=1
        )
        panel.plot(*_steps(curve, axis).T, color=colour, linewidth=1.2, zorder=4)
        x, y = np.array([cost_and_accuracy(point, axis) for point in curve.frontier]).T
        markersize = 4.4 if marker in "PX*d" else 3.2  # these look smaller than the others at the same size
        panel.plot(
            x, y, marker, color=colour, markersize=markersize, markeredgecolor="white", markeredgewidth=0.3, zorder=5
        )
    _set_costs(panel, curves, axis)
    panel.grid(alpha=0.25, linewidth=0.4)
    panel.tick_params(width=0.6, length=2.5)
    panel.spines[["top", "right"]].set_visible(False)


def _title_lines(curves: Sequence[Curve]) -> list[str]:
    """The task, how many problems and seeds, how chains vote; and where methods were run on unlike problems."""
    seeds = max(point.n_seeds for curve in curves for point in curve.points)
    strategies = ", ".join(sorted({strategy_label(point.vote) for curve in curves for point in curve.points}))
    sets = {id(curve): _problems(curve.frontier) for curve in curves}
    largest = max(len(problems) for problems in sets.values())
    unlike = len(set(sets.values())) > 1
    size = "unlike problems" if unlike else f"{largest} problem{'s' * (largest > 1)}"
    size += f" × {seeds} seeds" if seeds > 1 else ""
    lines = [f"{curves[0].task} ({size}, {strategies})"]
    if unlike:
        several_models = len({curve.model for curve in curves}) > 1
        by_name = {series_name(c.method, c.model, several_models): len(sets[id(c)]) for c in curves}
        lines += textwrap.wrap(_describe_counts(by_name), _TITLE_WIDTH)
    if largest < MIN_PROBLEMS:
        lines.append("too few problems for error bars")
    return lines


def _describe_counts(problems: Mapping[str, int]) -> str:
    """How many problems each of several frontiers has; where most have as many, the others alone are named."""
    ((common, frontiers), *_) = Counter(problems.values()).most_common(1)
    if frontiers == len(problems):
        return f"{common} problems each, not the same ones"
    named = [f"{name} {problems[name]}" for name in sorted(problems, key=rank)]
    if frontiers > 1 and len(problems) > 2:
        others = [f"{name} {problems[name]}" for name in sorted(problems, key=rank) if problems[name] != common]
        return f"{common} problems, but {', '.join(others)}"
    return f"{', '.join(named)} problems"


def _problems(points: Sequence[MeasuredPoint]) -> frozenset[str]:
    return frozenset(problem for point in points for problem in point.problems)


def _is_sparse(point: MeasuredPoint, curve: Curve) -> bool:
    """Whether a point rests on too few of its method's problems to count for the frontier."""
    return len(point.problems) < COVERAGE * max(len(other.problems) for other in curve.points)


def _draw_points(panel: Any, curve: Curve, axis: str, colour: str, marker: str) -> None:
    """Every point, faintly, with its interval where there are enough problems for one; hollow if it is sparse."""
    for sparse in (False, True):
        points = [point for point in curve.points if _is_sparse(point, curve) == sparse]
        if not points:
            continue
        x, y = np.array([cost_and_accuracy(point, axis) for point in points]).T
        style = {"markerfacecolor": "none", "markeredgewidth": 0.5} if sparse else {"markeredgewidth": 0}
        panel.plot(x, y, marker, color=colour, markersize=2, alpha=0.3, linestyle="none", zorder=2, **style)
        barred = [point for point in points if len(point.problems) >= MIN_PROBLEMS]
        if barred:
            x, y = np.array([cost_and_accuracy(point, axis) for point in barred]).T
            error = np.array([_error(point) for point in barred]).T
            panel.errorbar(x, y, error, fmt="none", color=colour, elinewidth=0.5, alpha=0.22, zorder=2)


def _steps(curve: Curve, axis: str) -> Floats:
    """(n, 2) corners of the frontier: flat from each of its points to the cost of the next, and to the last cost."""
    points = np.array([cost_and_accuracy(point, axis) for point in curve.frontier])
    corners = np.repeat(points, 2, axis=0)
    corners[1:-1:2, 0] = points[1:, 0]  # every point's height reaches to the next cost
    corners[-1, 0] = max(curve.cost[-1], corners[-1, 0])  # equal but for rounding where the last point is the dearest
    return corners


def _error(point: MeasuredPoint) -> tuple[float, float]:
    """How far a point's interval reaches below and above it, in percent."""
    low, high = point.interval
    accuracy = float(point.accuracy.mean())
    return 100 * (accuracy - low), 100 * (high - accuracy)


def _set_costs(panel: Any, curves: Sequence[Curve], axis: str) -> None:
    """Powers of two on the x axis, at most six of them, written 16K; three round numbers where there are too few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    panel.set_xscale("log", base=2)
    # Sparse points count for no frontier, and may lie beyond its ends; a log axis has no place for costs of zero.
    of_points = [cost_and_accuracy(point, axis)[0] for curve in curves for point in curve.points]
    costs = np.concatenate([*(curve.cost for curve in curves), [cost for cost in of_points if cost > 0]])
    low, high = np.log2(costs.min()), np.log2(costs.max())
    margin = 0.09 * (high - low) + 0.1 * (high - low < 0.1)
    low, high = low - margin, high + margin
    panel.set_xlim(2**low, 2**high)
    step = int(np.ceil((high - low) / 6))
    ticks = [2.0**k for k in range(int(np.ceil(low)), int(np.floor(high)) + 1) if k % step == 0]
    if len(ticks) < 2:
        ticks = [float(f"{2**x:.3g}") for x in np.linspace(low, high, 5)[1:-1]]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_length(value)))


def _set_accuracies(panel: Any, curves: Sequence[Curve], axis: str, published: Sequence[float]) -> None:
    """The y axis: all of it, or the range of points and bands, at least 20 points, where they take little of it."""
    from matplotlib.ticker import MaxNLocator

    values = [*published, *(cost_and_accuracy(point, axis)[1] for curve in curves for point in curve.points)]
    values += [v for curve in curves for v in (np.nanmin([*curve.low, 100]), np.nanmax([*curve.high, 0]))]
    low, high = min(values), max(values)
    low, high = min(low, high - 20), max(high, low + 20)
    room = 0.09 * (high - low)
    whole = high - low > 60
    panel.set_ylim(-4 if whole else max(low - room, -4), 109 if whole else min(high + room, 109))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, prune=None))


def _published_points(curves: Sequence[Curve], reference: "Reference | None") -> "list[PublishedAccuracy]":
    """A reference's accuracies on a panel's task, of the methods in the panel."""
    methods = [method for method in STYLES if any(curve.method == method for curve in curves)]
    points = reference.accuracy(curves[0].task) if reference else []
    shared = [point for point in points if point.method in methods]
    return sorted(shared, key=lambda point: (methods.index(point.method), point.CR))


def _draw_published(panel: Any, marks: "Sequence[PublishedAccuracy]") -> None:
    """Hollow markers in columns at the panel's right edge, each with its CR below the frame."""
    where = panel.get_yaxis_transform()  # x as a share of the panel's width, y in percent
    for i, point in enumerate(marks):
        colour, marker = STYLES[point.method]
        x = 1.03 + 0.03 * i
        panel.plot(
            x, point.accuracy, marker, transform=where, clip_on=False, markersize=3.2, color=colour, fillstyle="none"
        )
        panel.text(
            x, 0, f"{point.CR:g}", transform=panel.transAxes, ha="center", va="bottom", fontsize=5, color=_ink(colour)
        )


def _reference_notes(curves: Sequence[Curve], reference: "Reference | None") -> list[str]:
    """A line that explains the hollow markers, if there are any."""
    points = [p for part in _by_task(curves).values() for p in _published_points(part, reference)]
    if not points or reference is None:
        return []
    where = " or ".join(dict.fromkeys(f"{point.W}-{format_length(point.L)}" for point in points))
    models = ", ".join(dict.fromkeys(point.model for point in points))
    return [f"hollow, right of a panel: {reference.name}, {models} at {where}-CR, CR below; costs not published"]


def _ink(colour: str) -> tuple[float, ...]:
    """A colour dark enough for small text on white."""
    from matplotlib.colors import to_rgb

    return tuple(0.72 * part for part in to_rgb(colour))


def _write_labels(panel: Any, curves: Sequence[Curve], axis: str, styles: Mapping[int, Style]) -> None:
    """W-L-CR at frontier points: the last and the first of every method, then the steps that gain most."""
    labels: list[tuple[float, Label]] = []  # with weights, the heaviest first
    for curve in curves:
        gains = np.diff([cost_and_accuracy(point, axis)[1] for point in curve.frontier], prepend=0.0)
        for i, point in enumerate(curve.frontier):
            weight = 200.0 if i == len(curve.frontier) - 1 else 100.0 if i == 0 else float(gains[i])
            text = point.label
            labels.append((weight, Label(*cost_and_accuracy(point, axis), text, _ink(styles[id(curve)][0]))))
    labels.sort(key=lambda pair: -pair[0])
    paths = [_steps(curve, axis) for curve in curves]
    points = np.array([cost_and_accuracy(point, axis) for curve in curves for point in curve.points])
    place_labels(panel, [label for _, label in labels[: 4 * len(curves)]], paths, points)
