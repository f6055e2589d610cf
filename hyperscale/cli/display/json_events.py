"""Writes a run as JSON Lines for programs, one event a line; docs/machines.md is the schema."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hyperscale.run.observer import ArmSize, RunObserver
from hyperscale.run.progress.arm_progress import ArmProgress

if TYPE_CHECKING:
    from hyperscale.analysis.answers import Answer
    from hyperscale.methods.arm import Arm
    from hyperscale.results.points import MeasuredPoint
    from hyperscale.results.samples import Sample
    from hyperscale.run.planned_run import PlannedRun
    from hyperscale.run.prepare import Problem
    from hyperscale.run.verification import Compression

SCHEMA = 1
INTERVAL = 2.0  # seconds between two events of progress


class JsonObserver(RunObserver):
    """Writes every event to a file as it happens."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._start = out, time.monotonic()
        self._arms: dict[Arm, ArmProgress] = {}
        self._last_event = -math.inf

    def on_stage(self, text: str) -> None:
        """See `RunObserver`."""
        self._write("stage", {"text": text})

    def on_pilot(self, arm: "Arm", done: int, total: int) -> None:
        """See `RunObserver`."""
        if done in (0, total) or self._progress_is_due():
            self._write("pilot", {**_names(arm), "done": done, "total": total})

    def on_plan(self, run: "PlannedRun", folder: Path) -> None:
        """See `RunObserver`; dry runs too."""
        # Every seed generates all chains of the plan.
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
        totals: dict[str, Any] = {
            "chains": sum(n * len(plan.chains(arm, task)) for arm in arms for task, n in counts.items()),
            "tokens_most": sum(plan.max_tokens(arm, counts) for arm in arms),
            "tokens_expected": sum(plan.expected_tokens(arm, counts) for arm in arms),
        }
        about = {"folder": str(folder), "model": run.config.model, "budget": run.config.budget.text}
        about |= {"prompts": run.prompts, "engine": run.config.engine, "engine_choice": run.config.engine_choice}
        about["kv_dtype"] = run.config.kv_dtype
        config = run.config
        batch = {"batch_size": config.batch_size, "batch_choice": config.batch_choice}
        sampling = {
            name: {"value": getattr(config, name), "from": source} for name, source in config.sampling_sources.items()
        }
        bounds = {"axis": plan.budget.axis, "ceilings": plan.ceilings, "dominated": plan.n_dominated}
        self._write("planned", about | batch | bounds | totals | {"sampling": sampling, "points": points})

    def on_open(self, folder: Path, n_chains: int) -> None:
        """See `RunObserver`."""
        self._write("opened", {"folder": str(folder), "finished": n_chains})

    def on_note(self, text: str) -> None:
        """See `RunObserver`."""
        self._write("note", {"text": text})

    def on_arm_start(self, arm: "Arm", samples: "Sequence[Sample]", size: ArmSize) -> None:
        """See `RunObserver`."""
        first = next(iter(self._arms), arm)
        self._arms[arm] = ArmProgress(size, samples, (str(first), self._arms[first]) if first != arm else None)
        self._write_progress(arm)

    def on_chain(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """See `RunObserver`."""
        progress = self._arms[arm]
        progress.add(sample)
        if progress.done < progress.total and self._progress_is_due():
            self._write_progress(arm)

    def on_arm_end(self, arm: "Arm") -> None:
        """See `RunObserver`."""
        self._write_progress(arm)

    def on_finish(
        self,
        run: "PlannedRun",
        folder: Path,
        points: "Sequence[MeasuredPoint]",
        compression: "Sequence[Compression]",
    ) -> None:
        """See `RunObserver`."""
        from hyperscale.analysis.answer_shares import answer_notes
        from hyperscale.analysis.answers import find_answers
        from hyperscale.analysis.bootstrap import make_bootstraps

        answers = find_answers(make_bootstraps(points).values(), run.plan.budget.axis, run.plan.ceilings)
        rows = [
            {**_names(result.arm), "chains": result.chains, "realised_cr": result.realised_cr}
            | {"peak_cr": result.peak_cr, "budget_used": result.budget_used}
            for result in compression
        ]
        about = {"folder": str(folder), "chains": sum(result.chains for result in compression)}
        self._write(
            "finished",
            about
            | {"answers": answers_as_values(answers), "compression": rows}
            | {"points": [point.row() for point in points], "notes": answer_notes(points)},
        )

    def on_failure(self, message: str) -> None:
        """Write that an error ended the run."""
        self._write("failed", {"message": message})

    def _write_progress(self, arm: "Arm") -> None:
        # The schema of events calls the accuracy so far "right".
        figures = asdict(self._arms[arm].figures())
        figures = {"right" if name == "accuracy" else name: value for name, value in figures.items()}
        figures["right_at"] = [share._asdict() for share in figures["right_at"]]
        self._write("progress", {**_names(arm), **figures})

    def _progress_is_due(self) -> bool:
        return time.monotonic() - self._last_event >= INTERVAL

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        self._last_event = time.monotonic()
        elapsed = round(self._last_event - self._start, 3)
        write_json_line(self._out, {"event": event, "schema": SCHEMA, "elapsed": elapsed, **values})


def write_json_line(out: IO[str], value: Mapping[str, Any]) -> None:
    """One line of JSON, at once; numbers that do not exist are null."""
    # Where the output is not UTF-8, as JSON has to be, every other character than ASCII is escaped.
    is_utf8 = (getattr(out, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    out.write(json.dumps(_to_json(value), ensure_ascii=not is_utf8, allow_nan=False, separators=(",", ":")) + "\n")
    out.flush()


def answers_as_values(answers: "Sequence[Answer]") -> list[dict[str, Any]]:
    """Answers for programs, with their sentences for people; accuracies and differences in percentage points."""
    from hyperscale.analysis.sentences import write_sentences

    return [
        {
            **{name: getattr(answer, name) for name in ("model", "task", "axis", "ceiling")},
            "best": [
                {
                    **{"method": best.method, "cost": best.cost, **_point(best.point)},
                    **{f"accuracy_{end}": 100 * value for end, value in best.interval._asdict().items()},
                }
                for best in answer.bests
            ],
            "matches": [
                {
                    **{"method": match.method, "verdict": str(match.verdict), "cost": match.cost},
                    **{"base_cost": match.base_cost, **_point(match.point)},
                    **{"difference": match.difference.value, "difference_low": match.difference.low},
                    **{"difference_high": match.difference.high, "n_problems": match.difference.n_problems},
                }
                for match in answer.matches
            ],
            "sentences": write_sentences(answer),
        }
        for answer in answers
    ]


def _point(point: "MeasuredPoint | None") -> dict[str, Any]:
    """A point's W, L and CR, and its accuracy in percent; nothing where there is none."""
    if point is None:
        return dict.fromkeys(("W", "L", "CR", "kv_budget", "accuracy"))
    row = point.row()
    return {name: row[name] for name in ("W", "L", "CR", "kv_budget", "accuracy")}


def _to_json(value: Any) -> Any:
    """A value of JSON's own types: JSON has neither NaN nor infinity, and knows nothing of numpy's numbers."""
    if isinstance(value, Mapping):
        return {str(name): _to_json(entry) for name, entry in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Iterable):
        return [_to_json(entry) for entry in value]
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _names(arm: "Arm") -> dict[str, Any]:
    return {"method": arm.method, "CR": arm.CR} | ({"kv_budget": arm.kv_budget} if arm.kv_budget else {})
