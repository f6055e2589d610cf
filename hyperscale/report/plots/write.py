"""Writes pictures and the numbers behind them: a figure for each cost axis, and the margins."""

import os
from collections.abc import Callable, Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.analysis.curves import Analysis, Curve
from hyperscale.errors import ResultsError
from hyperscale.report.plots.figure import RC, draw_figure
from hyperscale.report.plots.retained import draw_retained, select_points, tabulate_retained
from hyperscale.results.points import MeasuredPoint
from hyperscale.utils.files import write_atomic

FORMATS = ("png", "svg", "csv")

if TYPE_CHECKING:
    import pandas as pd

    from hyperscale.analysis.published import Reference


def draw_analysis(
    analysis: Analysis,
    out: Path,
    reference: "Reference | None" = None,
    on_file: Callable[[Path], None] = lambda _: None,
    *,
    formats: Collection[str] = ("png",),
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write pictures of an analysis, and the numbers behind them.

    For each of its axes: ``accuracy-AXIS.png`` and ``.svg``; of the format csv, ``.csv`` holds the points (with those
    on the frontier marked), ``-frontier.csv`` the frontiers with their bands, and one ``margins.csv`` the margins on
    every axis. Where context tasks' prompts were evicted from, ``accuracy-retained`` has accuracy against what is left.

    Args:
        analysis: What to draw.
        out: Folder, made if it is missing.
        reference: Published accuracies to mark in the panels of their tasks.
        on_file: Called with each file written.
        formats: Of `FORMATS`.
        notes: What is to be known of the runs, a line each at the top of every picture.

    Returns:
        The files written.

    Raises:
        ResultsError: ``out`` cannot be written.
    """
    mpl = _import_matplotlib()
    from hyperscale.analysis.margins import to_frame

    files: list[Path] = []

    def add(path: Path, contents: bytes | str) -> None:
        write_atomic(path, contents)
        files.append(path)
        on_file(path)

    try:
        out.mkdir(parents=True, exist_ok=True)
        for axis, curves in analysis.curves.items():
            if not curves:
                continue
            images = [name for name in ("png", "svg") if name in formats]
            with mpl.rc_context(RC):
                picture: Any = draw_figure(curves, axis, reference, notes) if images else None
                for name in images:
                    add(out / f"accuracy-{axis}.{name}", _render(picture, name))
            if "csv" in formats:
                add(out / f"accuracy-{axis}.csv", _tabulate_points(curves).to_csv(index=False))
                add(out / f"accuracy-{axis}-frontier.csv", _tabulate_lines(curves).to_csv(index=False))
        if chosen := select_points(analysis.points):
            _write_retained(chosen, out, formats, notes, add)
        if analysis.margins and "csv" in formats:
            add(out / "margins.csv", to_frame(analysis.margins).to_csv(index=False))
    except BrokenPipeError:  # of whoever is told of files: nobody reads the output any more
        raise
    except OSError as error:
        raise ResultsError(f"cannot write pictures in {out} ({error.strerror}): choose another folder") from None
    return files


def _write_retained(
    points: Sequence[MeasuredPoint],
    out: Path,
    formats: Collection[str],
    notes: Sequence[str],
    add: Callable[[Path, bytes | str], None],
) -> None:
    """Write ``accuracy-retained`` in the formats."""
    images = [name for name in ("png", "svg") if name in formats]
    with _import_matplotlib().rc_context(RC):
        picture = draw_retained(points, notes) if images else None
        for name in images:
            add(out / f"accuracy-retained.{name}", _render(picture, name))
    if "csv" in formats:
        add(out / "accuracy-retained.csv", tabulate_retained(points).to_csv(index=False))


def _render(picture: Any, image_format: str) -> bytes:
    """A figure's file."""
    image = BytesIO()
    picture.savefig(image, format=image_format, metadata={"Date": None} if image_format == "svg" else None)
    return image.getvalue()


def _import_matplotlib() -> Any:
    """Import matplotlib whatever MPLBACKEND says: Agg draws here, and a name that is unknown stops the import."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return mpl


def _tabulate_points(curves: Sequence[Curve]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for curve in curves:
        frontier = {id(point) for point in curve.frontier}
        rows += [{**point.row(), "on_frontier": id(point) in frontier} for point in curve.points]
    return pd.DataFrame(rows)


def _tabulate_lines(curves: Sequence[Curve]) -> "pd.DataFrame":
    import pandas as pd

    parts = []
    for c in curves:
        names = {"task": c.task, "model": c.model, "method": c.method}
        values = {"cost": c.cost, "accuracy": c.middle, "accuracy_low": c.low, "accuracy_high": c.high}
        parts.append(pd.DataFrame({**names, **values}))
    return pd.concat(parts)
