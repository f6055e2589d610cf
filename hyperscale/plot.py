"""Pictures: accuracy against cost, a panel a task, a frontier a method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperscale import results
from hyperscale.envelope import envelope, evaluate
from hyperscale.errors import ResultsError
from hyperscale.labels import Label, place, short
from hyperscale.margins import band, reliable
from hyperscale.points import Cell, cells

if TYPE_CHECKING:
    import pandas as pd

AXES = {"kv_reads": "KV reads per problem (cache entries)", "peak_kv": "peak KV per problem (cache entries)"}
# Okabe and Ito's colours, which readers with any colour vision tell apart; vanilla is always the black circle.
STYLES = {
    "vanilla": ("#000000", "o"),
    "dms": ("#D55E00", "s"),
    "window": ("#0072B2", "^"),
    "random": ("#009E73", "D"),
}
SPARE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#F0E442")
SPARE_MARKERS = ("v", "P", "X", "<", ">")
RC = {"font.size": 7.5, "axes.linewidth": 0.6, "svg.hashsalt": "hyperscale"}  # the salt makes SVGs reproducible
WIDTH = 7.0  # inches: the text width of a page
STEPS = 100  # places along a frontier's band


@dataclass(frozen=True)
class _Series:
    """A method's points on one task, and its frontier."""

    task: str
    name: str
    cells: list[Cell]
    frontier: list[Cell]
    cost: NDArray[np.float64]
    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def draw(folder: Path | str | Sequence[Path | str], out: Path | str) -> list[Path]:
    """Draw every run in a folder (or in several) and write pictures and the numbers behind them.

    For each axis of `AXES`: ``accuracy-AXIS.png`` and ``.svg``; ``.csv`` holds the points (with those on the
    frontier marked), ``-frontier.csv`` the frontiers with their bands.

    Returns:
        The files written.

    Raises:
        ResultsError: No run, no chains, a corrupt file, or ``out`` cannot be written.
    """
    folders = [folder] if isinstance(folder, str | Path) else list(folder)
    samples = [sample for each in folders for run in results.read(each) for sample in run.samples]
    if not samples:
        raise ResultsError(f"{', '.join(map(str, folders))} holds no finished chain yet: nothing to draw")
    return draw_samples(samples, Path(out))


def draw_samples(samples: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """`draw`, for samples at hand."""
    import matplotlib as mpl

    found = cells(samples)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for axis in AXES:
            series = _series(found, axis)
            with mpl.rc_context(RC):
                figure = _figure(series, axis)
                for suffix in (".png", ".svg"):
                    path = out / f"accuracy-{axis}{suffix}"
                    figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == ".svg" else None)
                    written.append(path)
            for kind, table in (("", _points(series)), ("-frontier", _lines(series))):
                path = out / f"accuracy-{axis}{kind}.csv"
                table.to_csv(path, index=False)
                written.append(path)
    except OSError as error:
        raise ResultsError(f"cannot write pictures in {out} ({error.strerror}): choose another folder") from None
    return written


def _series(found: Sequence[Cell], axis: str) -> list[_Series]:
    several = len({cell.arm.model for cell in found}) > 1
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.arm.task, cell.arm.model, cell.arm.method), []).append(cell)
    made = []
    for (task, model, method), part in groups.items():
        usable = [cell for cell in reliable(part) if _xy(cell, axis)[0] > 0]
        if not usable:  # chains of a single token read nothing
            continue
        x, y = (np.array([_xy(cell, axis)[i] for cell in usable]) for i in (0, 1))
        e = envelope(np.log2(x), y)
        cost = 2 ** np.linspace(e.x[0], e.end, STEPS)
        low, high = band(usable, axis, cost)
        frontier = [usable[i] for i in e.order[e.kept]]
        middle = evaluate(e, np.clip(np.log2(cost), e.x[0], e.end))  # rounding must not leave the interval
        made.append(
            _Series(task, f"{method} ({model})" if several else method, part, frontier, cost, middle, low, high)
        )
    return made


def _xy(cell: Cell, axis: str) -> tuple[float, float]:
    return float(cell.costs[axis].mean()), 100 * float(cell.accuracy.mean())


def _figure(series: Sequence[_Series], axis: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(s.task for s in series))
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    styles = _styles(list(dict.fromkeys(s.name for s in series)))
    figure = Figure(figsize=(WIDTH, 0.55 + 2.55 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, task in zip(panels, tasks, strict=False):
        _panel(panel, [s for s in series if s.task == task], axis, styles)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    for panel in panels[: len(tasks) : columns]:
        panel.set_ylabel("accuracy (%)")
    figure.supxlabel(AXES[axis], fontsize=7.5)
    handles = [_handle(name, *style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.draw_without_rendering()  # settles the layout, which the labels need
    for panel, task in zip(panels, tasks, strict=False):
        _label(panel, [s for s in series if s.task == task], axis, styles)
    return figure


def _styles(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    others = [name for name in names if name not in STYLES]
    spare = {  # five colours and five markers make 25 pairs
        name: (SPARE_COLOURS[i % 5], SPARE_MARKERS[(i + i // 5) % 5]) for i, name in enumerate(others)
    }
    return {name: STYLES.get(name) or spare[name] for name in names}


def _handle(name: str, colour: str, marker: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=name)


def _panel(panel: Any, series: Sequence[_Series], axis: str, styles: dict[str, tuple[str, str]]) -> None:
    first = series[0].cells[0]
    most = max(len(cell.problems) for s in series for cell in s.cells)
    vote = "majority" if first.vote == "majority" else "pass@W"
    panel.set_title(f"{series[0].task} ({most} problems, {vote})", fontsize=7)
    for s in series:
        colour, marker = styles[s.name]
        x, y = np.array([_xy(cell, axis) for cell in s.cells]).T
        error = [cell.row()["accuracy_se"] for cell in s.cells]
        panel.errorbar(
            x, y, error, fmt=marker, color=colour, markersize=2, elinewidth=0.5, alpha=0.22, markeredgewidth=0, zorder=2
        )
        panel.fill_between(s.cost, s.low, s.high, color=colour, alpha=0.13, linewidth=0, zorder=1)
        panel.plot(s.cost, s.middle, color=colour, linewidth=1.2, zorder=4)
        x, y = np.array([_xy(cell, axis) for cell in s.frontier]).T
        panel.plot(x, y, marker, color=colour, markersize=3.2, markeredgecolor="white", markeredgewidth=0.3, zorder=5)
    _ticks(panel, series)


def _ticks(panel: Any, series: Sequence[_Series]) -> None:
    """Powers of two on the x axis, at most six of them, written 16K."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    panel.set_xscale("log", base=2)
    costs = np.concatenate([s.cost for s in series])
    low, high = np.log2(costs.min()), np.log2(costs.max())
    margin = 0.09 * (high - low) + 0.1 * (high == low)
    low, high = low - margin, high + margin
    panel.set_xlim(2**low, 2**high)
    step = int(np.ceil((high - low) / 6))
    ticks = [2.0**k for k in range(int(np.ceil(low)), int(np.floor(high)) + 1) if k % step == 0]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    panel.set_ylim(-4, 109)
    panel.set_yticks(range(0, 101, 20))
    panel.grid(alpha=0.25, linewidth=0.4)
    panel.tick_params(width=0.6, length=2.5)
    panel.spines[["top", "right"]].set_visible(False)


def _label(panel: Any, series: Sequence[_Series], axis: str, styles: dict[str, tuple[str, str]]) -> None:
    """W-L-CR at frontier points: the last and the first of every method, then the steps that gain most."""
    ranked: list[tuple[float, Label]] = []
    for s in series:
        gains = np.diff([_xy(cell, axis)[1] for cell in s.frontier], prepend=0.0)
        for i, cell in enumerate(s.frontier):
            weight = 200.0 if i == len(s.frontier) - 1 else 100.0 if i == 0 else float(gains[i])
            text = f"{cell.W}-{short(cell.L)}-{cell.arm.CR:g}"
            ranked.append((weight, Label(*_xy(cell, axis), text, styles[s.name][0])))
    ranked.sort(key=lambda pair: -pair[0])
    paths = [np.column_stack([s.cost, s.middle]) for s in series]
    place(panel, [label for _, label in ranked[: 4 * len(series)]], paths)


def _points(series: Sequence[_Series]) -> "pd.DataFrame":
    import pandas as pd

    rows = [{**cell.row(), "on_frontier": any(cell is kept for kept in s.frontier)} for s in series for cell in s.cells]
    return pd.DataFrame(rows)


def _lines(series: Sequence[_Series]) -> "pd.DataFrame":
    import pandas as pd

    columns = ("cost", "middle", "low", "high")
    parts = [pd.DataFrame({"task": s.task, "method": s.name, **{c: getattr(s, c) for c in columns}}) for s in series]
    return pd.concat(parts).rename(columns={"middle": "accuracy", "low": "accuracy_low", "high": "accuracy_high"})
