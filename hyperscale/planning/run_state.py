"""Says how far a run's folder is: chains done of those that its plan asks for, by method and CR."""

from collections.abc import Iterable
from dataclasses import dataclass

from hyperscale.planning.plan_file import PLAN_FILE, planned_chains
from hyperscale.results.folder import Run
from hyperscale.results.manifest import POINTS


@dataclass(frozen=True)
class ArmState:
    """Chains of a method at a CR.

    Attributes:
        name: As `Arm` writes it: ``dms 8×``.
        done: Finished chains.
        planned: Chains that the plan asks for; None where the folder does not say.
        given_up: Chains that are missing for good, as engines were lost with their problems.
    """

    name: str
    done: int
    planned: int | None
    given_up: int = 0


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        arms: In the order that they run.
        finished: Whether all chains are there but those that were given up. Folders of older versions, whose plan does
            not say how many chains it asks for, are taken to be finished if they have points, and those without a plan
            always.
    """

    arms: tuple[ArmState, ...]
    finished: bool

    @property
    def done(self) -> int:
        """Finished chains."""
        return sum(arm.done for arm in self.arms)

    @property
    def planned(self) -> int | None:
        """Chains that the plan asks for; None where the folder does not say."""
        counts = [arm.planned for arm in self.arms]
        return None if None in counts else sum(count for count in counts if count is not None)

    def __str__(self) -> str:
        chains = f"{self.done:,} chains" if self.planned is None else f"{self.done:,} of {self.planned:,} chains"
        return f"{self.done:,} chains" if self.finished else f"unfinished, {chains}"


def state_of(run: Run) -> RunState:
    """How far a run is that has been read."""
    done: dict[str, int] = {}
    for sample in run.samples:
        done[str(sample.arm)] = done.get(str(sample.arm), 0) + 1
    planned = planned_chains(run.folder)
    names = dict.fromkeys([*(planned or {}), *done])
    given_up: dict[str, int] = {}
    for fault in run.faults:
        if fault.problem is not None:
            given_up[fault.arm] = given_up.get(fault.arm, 0) + fault.chains
    arms = tuple(
        ArmState(name, done.get(name, 0), planned.get(name, 0) if planned else None, given_up.get(name, 0))
        for name in names
    )
    if planned:
        finished = all(arm.done + arm.given_up >= (arm.planned or 0) for arm in arms)
    else:
        finished = (run.folder / POINTS).is_file() or not (run.folder / PLAN_FILE).is_file()
    return RunState(arms, finished)


def unfinished_notes(runs: Iterable[Run]) -> list[str]:
    """A sentence for each run that is not finished: its accuracies are of what finished first."""
    states = [(run, state_of(run)) for run in runs]
    return [
        f"{run.name} is {state}: quick chains finish first, so its accuracies will change"
        for run, state in states
        if not state.finished
    ]
