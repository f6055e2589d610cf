"""A run as JSON Lines for machines, one event a line; docs/machines.md is the schema."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hyperscale.run.observer import Load, Observer
from hyperscale.run.progress import Tally

if TYPE_CHECKING:
    from hyperscale.methods.arm import Arm
    from hyperscale.results.points import MeasuredPoint
    from hyperscale.results.samples import Sample
    from hyperscale.run.planned_run import PlannedRun
    from hyperscale.run.prepare import PreparedRun, Problem
    from hyperscale.run.verification import Compression

SCHEMA = 1
INTERVAL = 2.0  # seconds between two events of progress


class Events(Observer):
    """Writes every event to a file as it happens."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._started = out, time.monotonic()
        self._tallies: dict[Arm, Tally] = {}
        self._told = -math.inf

    def stage(self, text: str) -> None:
        """See `Observer`."""
        self._write("stage", {"text": text})

    def pilot(self, arm: "Arm", done: int, total: int) -> None:
        """See `Observer`."""
        if done in (0, total) or self._due():
            self._write("pilot", {**_names(arm), "done": done, "total": total})

    def planned(self, run: "PlannedRun", folder: Path) -> None:
        """See `Observer`; dry runs too."""
        plan, counts = run.plan, {name: n * len(run.config.seeds) for name, n in run.counts.items()}
        points = [
            {
                "task": point.task,
                **_names(point.arm),
                "W": point.W,
                "L": point.L,
                "predicted_by": point.source,
                **asdict(point.costs),
            }
            for point in plan.points
        ]
        arms = run.arms
        totals = {
            "chains": sum(n * len(plan.chains(arm, task)) for arm in arms for task, n in counts.items()),
            "tokens_most": sum(plan.max_tokens(arm, counts) for arm in arms),
            "tokens_expected": sum(plan.expected_tokens(arm, counts) for arm in arms),
        }
        about = {"folder": str(folder), "model": run.config.model, "budget": run.config.budget.text}
        bounds = {"axis": plan.budget.axis, "ceilings": plan.ceilings, "dominated": plan.n_dominated}
        self._write("planned", about | bounds | totals | {"points": points})

    def opened(self, folder: Path, finished: int) -> None:
        """See `Observer`."""
        self._write("opened", {"folder": str(folder), "finished": finished})

    def note(self, text: str) -> None:
        """See `Observer`."""
        self._write("note", {"text": text})

    def arm_started(self, arm: "Arm", samples: "Sequence[Sample]", load: Load) -> None:
        """See `Observer`."""
        self._tallies[arm] = Tally(load, samples)
        self._progress(arm)

    def chain(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """See `Observer`."""
        tally = self._tallies[arm]
        tally.add(sample)
        if tally.done < tally.total and self._due():
            self._progress(arm)

    def arm_finished(self, arm: "Arm") -> None:
        """See `Observer`."""
        self._progress(arm)

    def finished(
        self,
        run: "PreparedRun",
        folder: Path,
        points: "Sequence[MeasuredPoint]",
        compression: "Sequence[Compression]",
    ) -> None:
        """See `Observer`."""
        rows = [
            {**_names(each.arm), "chains": each.chains, "realised_cr": each.realised}
            | {"peak_cr": each.peak, "budget_used": each.used}
            for each in compression
        ]
        about = {"folder": str(folder), "chains": sum(each.chains for each in compression)}
        self._write("finished", about | {"compression": rows, "points": [point.row() for point in points]})

    def failed(self, message: str) -> None:
        """The run ends here, with this error."""
        self._write("failed", {"message": message})

    def _progress(self, arm: "Arm") -> None:
        self._told = time.monotonic()
        self._write("progress", {**_names(arm), **asdict(self._tallies[arm].figures())})

    def _due(self) -> bool:
        return time.monotonic() - self._told >= INTERVAL

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        self._told = time.monotonic()
        passed = round(time.monotonic() - self._started, 3)
        write(self._out, {"event": event, "schema": SCHEMA, "elapsed": passed, **values})


def write(out: IO[str], value: Mapping[str, Any]) -> None:
    """One line of JSON, at once; numbers that do not exist are null."""
    out.write(json.dumps(_exact(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
    out.flush()


def _exact(value: Any) -> Any:
    """A value of JSON's own types: JSON has neither NaN nor infinity, and knows nothing of numpy's numbers."""
    if isinstance(value, Mapping):
        return {str(name): _exact(each) for name, each in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Iterable):
        return [_exact(each) for each in value]
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _names(arm: "Arm") -> dict[str, Any]:
    return {"method": arm.method, "CR": arm.CR}
