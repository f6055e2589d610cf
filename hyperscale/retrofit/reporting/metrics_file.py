"""Writes the figures of a training as it goes: ``metrics.jsonl``, and TensorBoard's events where it is installed."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hyperscale.retrofit.reporting.step_metrics import StepMetrics
from hyperscale.utils.files import append_whole, write_atomic

METRICS = "metrics.jsonl"
#: Folder of TensorBoard's events.
EVENTS = "tensorboard"


class MetricsFile:
    """The lines of a training; what a killed one wrote after its last state is dropped, since it is done again.

    A full disk costs lines, never the training.

    Args:
        folder: The training's folder.
        steps_done: Steps after which it goes on; 0 if it begins.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        self._path = folder / METRICS
        kept = [line for line in read_metrics(folder) if line["done"] <= steps_done]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._writer = _make_writer(folder / EVENTS, steps_done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def append(self, step: StepMetrics) -> None:
        """Add a line."""
        with suppress(OSError):
            append_whole(self._path, (json.dumps(asdict(step)) + "\n").encode())
            if self._writer is not None:
                saved = sum(step.saved) / len(step.saved)
                for name, value in (
                    ("loss", step.loss),
                    ("kl", step.kl),
                    ("saving/target", step.target),
                    ("saving/reached", saved),
                    ("tokens_per_second", step.tokens_per_second),
                ):
                    self._writer.add_scalar(name, value, step.done)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines so far; one that a kill cut off is left out."""
    lines: list[dict[str, Any]] = []
    with suppress(FileNotFoundError), (folder / METRICS).open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def _make_writer(folder: Path, steps_done: int) -> Any:
    """TensorBoard's writer; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Events of later steps, which a killed training wrote, are hidden by TensorBoard.
    return SummaryWriter(str(folder), purge_step=steps_done + 1)
