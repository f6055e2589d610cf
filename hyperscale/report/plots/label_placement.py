"""Writes labels beside the points of a plot, where there is room for them and nowhere else."""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

# Directions to try, nearest first, as (dx, dy, horizontal, vertical alignment) with offsets in units of the gap.
_PLACES = [
    (-0.7, 0.7, "right", "bottom"),
    (0.7, -0.7, "left", "top"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0.7, 0.7, "left", "bottom"),
    (-0.7, -0.7, "right", "top"),
]


class Label(NamedTuple):
    """A text wanted at a data point."""

    x: float
    y: float
    text: str
    colour: Any


def place_labels(
    axes: Any,
    labels: Sequence[Label],
    paths: Sequence[Any],
    points: Any = (),
    size: float = 6.0,
    gap: float = 4.0,
) -> list[Any]:
    """Write the labels that fit, the first ones first, each clear of the others, of the paths and of the frame.

    Call it when the axes' limits are final.

    Args:
        axes: matplotlib axes.
        labels: What to write, most important first; what finds no room is left out.
        paths: (n, 2) data coordinates of lines and points that text should not cover.
        points: (n, 2) data coordinates of lesser points, covered only where a label finds no other room.
        size: Font size in points.
        gap: Distance of a text from its point, in points.

    Returns:
        The texts written.
    """
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    # Obstacles in pixels: hard ones (lines and their points) are never covered, soft ones also hold lesser points.
    hard = np.concatenate([_dense(axes.transData.transform(path)) for path in paths]) if paths else np.empty((0, 2))
    soft = np.concatenate([hard, axes.transData.transform(points)]) if len(points) else hard
    boxes: list[Any] = []  # of the texts that stand
    texts = []
    for label in labels:
        # First clear of everything, near the point, then farther; only then over lesser points.
        for obstacles, reach in product((soft, hard), (1.0, 1.8)):
            # Written one after the other, each removed again if it does not fit, until one does.
            attempts = (_write(axes, label, size, gap * reach, where) for where in _PLACES)
            text = next((t for t in attempts if _keep_if_clear(t, renderer, frame, boxes, obstacles)), None)
            if text is not None:
                boxes.append(text.get_window_extent(renderer).padded(2))
                texts.append(text)
                break
    return texts


def _write(axes: Any, label: Label, size: float, gap: float, where: tuple[float, float, str, str]) -> Any:
    dx, dy, horizontal, vertical = where
    return axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(dx * gap, dy * gap),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=size,
        color=label.colour,
        zorder=6,
    )


def _keep_if_clear(text: Any, renderer: Any, frame: Any, boxes: Sequence[Any], obstacles: Any) -> bool:
    """Whether a text stands clear of frame, other texts and obstacles; one that does not is removed again."""
    box = text.get_window_extent(renderer)
    inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
    x, y = obstacles[:, 0], obstacles[:, 1]
    covers = ((box.x0 < x) & (x < box.x1) & (box.y0 < y) & (y < box.y1)).any()
    if inside and not covers and not any(box.overlaps(other) for other in boxes):
        return True
    text.remove()
    return False


def _dense(path: Any) -> Any:
    """A polyline with a vertex at every few pixels, so that a text between two of its vertices is noticed."""
    pieces = [path]
    for start, end in pairwise(path):
        steps = int(min(np.hypot(*(end - start)) // 3, 500))
        if steps:
            pieces.append(start + (end - start) * np.linspace(0, 1, steps + 1)[:, None])
    return np.concatenate(pieces)
