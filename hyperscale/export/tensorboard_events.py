"""Writes events of TensorBoard, a line of its charts for each method and each arm.

``RUN/METHOD``: the method's frontier, accuracy over a cost, which is the step; a step is a whole number, so seconds are
written as milliseconds. ``RUN/ARM``: accuracy and costs over L,
which is the step, at each W.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from hyperscale.analysis.frontier import frontier_points
from hyperscale.export.series import collect_series, name_arm
from hyperscale.results.folder import Run
from hyperscale.results.points import COSTS

_EVENTS = "events.out.tfevents.*"
_SCALES = {"seconds": ("milliseconds", 1000)}  # a short chain takes less than a second, and all points one step
_VALUES = ("accuracy", "kv_reads", "peak_kv")


def write(run: Run, out: Path) -> Iterator[Path]:
    """Write a run's events in place of those of an earlier export.

    Yields:
        Every file that was written.

    Raises:
        OSError: The disk is full or fails.
        TaskError: A task is unknown.
    """
    scalars: dict[str, list[tuple[str, float, int]]] = {}  # folder: tag, value, step
    points = run.points()
    for axis in COSTS:
        unit, scale = _SCALES.get(axis, (axis, 1))
        for point in frontier_points(points, axis):
            cost = scale * float(point.costs[axis].mean())
            if math.isfinite(cost):
                place = (f"{point.series.task}/accuracy by {unit}", 100 * float(point.accuracy.mean()), round(cost))
                scalars.setdefault(_folder_name(point.series.method), []).append(place)
    for series in collect_series(run):
        lines = scalars.setdefault(_folder_name(series.arm), [])
        for point in series.points:
            name = f"{series.task.name}/W={point.W}"
            row = point.row()
            lines += [(f"{name}/{value}", row[value], point.L) for value in _VALUES]
    for mean in run.group_means(points):
        lines = scalars.setdefault(_folder_name(name_arm(mean.series)), [])
        row = mean.row()
        lines += [(f"{mean.series.task}/W={mean.W}/{value}", row[value], mean.L) for value in _VALUES]
    for name, lines in scalars.items():
        yield from _write_folder(out / name, lines)


def _write_folder(folder: Path, scalars: list[tuple[str, float, int]]) -> Iterator[Path]:
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(exist_ok=True)
    for old in folder.glob(_EVENTS):  # TensorBoard would show both
        old.unlink()
    writer = SummaryWriter(str(folder))
    try:
        for tag, value, step in scalars:
            writer.add_scalar(tag, value, step)
    finally:
        writer.close()
    yield from folder.glob(_EVENTS)


def _folder_name(name: str) -> str:
    """A name of a folder: those of kvpress's presses have colons."""
    return name.replace(":", "-").replace("/", "-")
