"""Draws a training in one picture: its losses, the ratio over steps, and what each KV head keeps."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hyperscale.retrofit.reporting.records import CheckpointRecord
from hyperscale.utils.files import write_atomic

PICTURE = "training.png"
#: The least loss that is drawn: the axis is logarithmic, and a loss begins at 0.
_LEAST = 1e-6


def draw_training(folder: Path, metrics: Sequence[Mapping[str, Any]], checkpoints: Sequence[CheckpointRecord]) -> None:
    """Write the picture.

    Args:
        folder: Where to.
        metrics: Lines of ``metrics.jsonl``.
        checkpoints: The records; the last one's heads are drawn.
    """
    from matplotlib.figure import Figure  # without pyplot: no window system is looked for

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    losses, ratios, heads = figure.subplots(1, 3)
    steps = [line["done"] for line in metrics]
    for key, label in (("loss", "loss"), ("kl", "KL to the teacher")):
        losses.plot(steps, [max(line[key], _LEAST) for line in metrics], label=label)
    losses.set(yscale="log", xlabel="optimiser step", ylabel="nats a token", title="Losses")
    for share, label, style in (
        ([line["target"] for line in metrics], "aimed at", "--"),
        ([sum(line["saved"]) / len(line["saved"]) for line in metrics], "reached in training", "-"),
    ):
        ratios.plot(steps, [1 / max(1 - value, _LEAST) for value in share], style, label=label)
    ratios.set(xlabel="optimiser step", ylabel="compression ratio", title="Ratio")
    for axes in (losses, ratios):
        axes.grid(alpha=0.3)
        axes.legend()
        axes.locator_params(axis="x", integer=True)
        _shade_hard_phases(axes, metrics)
    last = checkpoints[-1]
    if last.kept:
        colours = heads.imshow(last.kept, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        figure.colorbar(colours, ax=heads, label="share of entries kept")
    heads.set(xlabel="KV head", ylabel="layer", title=f"Kept at {last.cr:g}×, held-out text")
    heads.locator_params(integer=True)
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    write_atomic(folder / PICTURE, image.getvalue())


def _shade_hard_phases(axes: Any, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Shade the steps with inference's gates: a branch, after which the curves fall back to the trunk."""
    begin = None
    for line in [*metrics, {"mode": "end", "done": metrics[-1]["done"]}] if metrics else []:
        if line["mode"] == "hard" and begin is None:
            begin = line["done"]
        elif line["mode"] != "hard" and begin is not None:
            axes.axvspan(begin, line["done"], color="grey", alpha=0.15)
            begin = None
