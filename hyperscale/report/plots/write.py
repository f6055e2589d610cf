"""Pictures and the numbers behind them: a figure a cost axis, a margin table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale import results
from hyperscale.analysis.curves import Analysis, Curve, analyse
from hyperscale.errors import ResultsError
from hyperscale.report.plots.figure import RC, figure
from hyperscale.results.points import COSTS

if TYPE_CHECKING:
    import pandas as pd

    from hyperscale.analysis.published import Reference


def draw(folder: Path | str | Sequence[Path | str], out: Path | str) -> list[Path]:
    """Draw every run in a folder (or in several) and write pictures and the numbers behind them.

    The files are those of `draw_analysis`, on every axis.

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


def draw_samples(samples: Sequence[dict[str, Any]], out: Path, axes: Sequence[str] = COSTS) -> list[Path]:
    """`draw`, for samples at hand and some of the axes."""
    return draw_analysis(analyse(samples, axes), out)


def draw_analysis(
    made: Analysis,
    out: Path,
    reference: "Reference | None" = None,
    wrote: Callable[[Path], None] = lambda _: None,
) -> list[Path]:
    """Write pictures of an analysis and the numbers behind them.

    For each of its axes: ``accuracy-AXIS.png`` and ``.svg``; ``.csv`` holds the points (with those on the frontier
    marked), ``-frontier.csv`` the frontiers with their bands. One ``margins.csv`` holds the margins on every axis.

    Args:
        made: What to draw.
        out: Folder, made if it is missing.
        reference: Published accuracies to mark in the panels of their tasks.
        wrote: Told of each file written.

    Returns:
        The files written.

    Raises:
        ResultsError: ``out`` cannot be written.
    """
    import matplotlib as mpl

    from hyperscale.analysis.margins import frame

    written: list[Path] = []

    def done(path: Path) -> None:
        written.append(path)
        wrote(path)

    try:
        out.mkdir(parents=True, exist_ok=True)
        for axis, curves in made.curves.items():
            if not curves:
                continue
            with mpl.rc_context(RC):
                drawn = figure(curves, axis, reference)
                for suffix in (".png", ".svg"):
                    path = out / f"accuracy-{axis}{suffix}"
                    drawn.savefig(path, metadata={"Date": None} if suffix == ".svg" else None)
                    done(path)
            for kind, table in (("", _points(curves)), ("-frontier", _lines(curves))):
                path = out / f"accuracy-{axis}{kind}.csv"
                table.to_csv(path, index=False)
                done(path)
        if made.margins:
            frame(made.margins).to_csv(out / "margins.csv", index=False)
            done(out / "margins.csv")
    except OSError as error:
        raise ResultsError(f"cannot write pictures in {out} ({error.strerror}): choose another folder") from None
    return written


def _points(curves: Sequence[Curve]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for curve in curves:
        kept = {id(cell) for cell in curve.frontier}
        rows += [{**cell.row(), "on_frontier": id(cell) in kept} for cell in curve.cells]
    return pd.DataFrame(rows)


def _lines(curves: Sequence[Curve]) -> "pd.DataFrame":
    import pandas as pd

    parts = []
    for c in curves:
        names = {"task": c.task, "model": c.model, "method": c.method}
        values = {"cost": c.cost, "accuracy": c.middle, "accuracy_low": c.low, "accuracy_high": c.high}
        parts.append(pd.DataFrame({**names, **values}))
    return pd.concat(parts)
