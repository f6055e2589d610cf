"""A hostile program, the world that it attacks, and the assertions that many of them share."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repository import ROOT

from hyperscale.scoring.sandbox.program import Outcome

TRY = """
import os, sys
def tried(*attempts):
    found = []
    for attempt in attempts:
        try:
            found.append(repr(attempt()))
        except BaseException as error:
            found.append("!" + type(error).__name__)
    return found
"""


@dataclass
class World:
    """What is outside: a folder with a secret, listeners that count their visitors, a process that may be hurt.

    ``earlier`` stands in the program before, in its input and in its output; ``later`` in the input of the second test.
    """

    folder: Path
    secret: str
    expected: str
    tcp: int
    udp: int
    abstract: str
    victim: int
    level: str
    earlier: str
    later: str
    visitors: Callable[[], int]
    victim_runs: Callable[[], bool]

    def fill(self, source: str) -> str:
        words = {
            "@FOLDER@": str(self.folder),
            "@HOME@": str(Path.home()),
            "@TCP@": str(self.tcp),
            "@UDP@": str(self.udp),
            "@ABSTRACT@": self.abstract,
            "@VICTIM@": str(self.victim),
            "@TEST@": str(os.getpid()),
            "@REPOSITORY@": str(ROOT),
        }
        for word, value in words.items():
            source = source.replace(word, value)
        return source


@dataclass
class Case:
    """A hostile program; ``check`` asserts what must not have happened. ``x`` is 7, which is not what is expected."""

    name: str
    about: str
    source: str
    check: Callable[[Outcome, World], None]
    kind: str = "functional"
    none: bool = True  # whether the level ``none`` must hold it too: it promises nothing about files
    landlock: bool = False  # whether it is Landlock that holds it at ``none``

    @property
    def runs_into_time(self) -> bool:
        """Whether the clock may stop it; any other must not be stopped by it on a busy machine either."""
        return getattr(self.check, "runs_into_time", False)


CASES: list[Case] = []


def case(
    name: str, source: str, kind: str = "functional", none: bool = True, landlock: bool = False
) -> Callable[[Any], Any]:
    def keep(check: Callable[[Outcome, World], None]) -> Callable[[Outcome, World], None]:
        CASES.append(Case(name, about, TRY + source, check, kind, none and about != "files", landlock))
        return check

    about = sys._getframe(1).f_globals["__name__"].rpartition(".")[2]  # the file the program stands in
    return keep


def refused(outcome: Outcome, world: World) -> None:
    """Every attempt of the program raised; the guard may already refuse a module that it needs."""
    if outcome.status == "error" and world.level == "guard":
        return
    assert outcome.status == "ok", outcome
    assert outcome.output, "it attempted nothing"
    assert all(text.startswith("!") for text in outcome.output), outcome.output


def stopped(*statuses: str) -> Callable[[Outcome, World], None]:
    def check(outcome: Outcome, _: World) -> None:
        assert outcome.status in statuses, outcome

    check.runs_into_time = "timeout" in statuses  # type: ignore[attr-defined]
    return check


def count_cases() -> list[tuple[str | int, ...]]:
    """Hostile programs by kind and level: rows of (kind, bwrap, unshare, guard, none), the sum last."""
    kinds = sorted({item.about for item in CASES})
    rows = [(kind, [item for item in CASES if item.about == kind]) for kind in kinds] + [("all", CASES)]
    return [(kind, *[len(items)] * 3, sum(item.none for item in items)) for kind, items in rows]
