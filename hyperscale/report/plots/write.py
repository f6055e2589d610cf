"""Writes pictures and the numbers behind them: a figure for each cost axis, and the margins."""

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.analysis.curves import Analysis, Curve
from hyperscale.errors import ResultsError
from hyperscale.report.plots.figure import RC, draw_figure
from hyperscale.utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from hyperscale.analysis.published import Reference


def draw_analysis(
    analysis: Analysis,
    out: Path,
    reference: "Reference | None" = None,
    on_file: Callable[[Path], None] = lambda _: None,
) -> list[Path]:
    """Write pictures of an analysis and the numbers behind them.

    For each of its axes: ``accuracy-AXIS.png`` and ``.svg``; ``.csv`` holds the points (with those on the frontier
    marked), ``-frontier.csv`` the frontiers with their bands. One ``margins.csv`` holds the margins on every axis.

    Args:
        analysis: What to draw.
        out: Folder, made if it is missing.
        reference: Published accuracies to mark in the panels of their tasks.
        on_file: Called with each file written.

    Returns:
        The files written.

    Raises:
        ResultsError: ``out`` cannot be written.
    """
    mpl = _import_matplotlib()
    from hyperscale.analysis.margins import to_frame

    files: list[Path] = []

    def add(path: Path) -> None:
        files.append(path)
        on_file(path)

    try:
        out.mkdir(parents=True, exist_ok=True)
        for axis, curves in analysis.curves.items():
            if not curves:
                continue
            with mpl.rc_context(RC):
                picture = draw_figure(curves, axis, reference)
                for suffix in (".png", ".svg"):
                    path = out / f"accuracy-{axis}{suffix}"
                    metadata = {"Date": None} if suffix == ".svg" else None
                    image = BytesIO()
                    picture.savefig(image, format=suffix[1:], metadata=metadata)
                    write_atomic(path, image.getvalue())
                    add(path)
            for kind, table in (("", _tabulate_points(curves)), ("-frontier", _tabulate_lines(curves))):
                path = out / f"accuracy-{axis}{kind}.csv"
                write_atomic(path, table.to_csv(index=False))
                add(path)
        if analysis.margins:
            write_atomic(out / "margins.csv", to_frame(analysis.margins).to_csv(index=False))
            add(out / "margins.csv")
    except OSError as error:
        raise ResultsError(f"cannot write pictures in {out} ({error.strerror}): choose another folder") from None
    return files


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
