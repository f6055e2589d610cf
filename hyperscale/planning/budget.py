"""Budgets: a ceiling on one cost axis, read from text, and its value for a task."""

import math
import re
from dataclasses import dataclass, field
from typing import Self

from hyperscale.errors import BudgetError
from hyperscale.planning import grid
from hyperscale.planning.costs import AXES, CLOSED_FORM_AXES, Costs, TaskShape

EXAMPLES = "8x, kv_reads=2^28, peak_kv=32Ki, peak_bytes=8GiB, tokens=1M, seconds=600, all"
_NUMBER = re.compile(r"(?P<base>\d+(?:\.\d+)?(?:e\+?\d+)?)(?:\^(?P<power>\d{1,3}))?(?P<unit>[kKMGT]i?)?(?P<bytes>B)?")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


@dataclass(frozen=True)
class Budget:
    """A ceiling on one cost axis, per problem.

    Attributes:
        axis: One of `AXES`.
        amount: The ceiling in the axis's unit, or a multiple of the base point's cost; infinite for ``all``.
        relative: Whether ``amount`` counts base points.
        text: As it was written, for messages and run.json.
    """

    axis: str
    amount: float
    relative: bool
    text: str = field(default="", compare=False)

    @property
    def unlimited(self) -> bool:
        """Whether there is no ceiling."""
        return math.isinf(self.amount)

    @classmethod
    def parse(cls, text: str, axis: str | None = None) -> Self:
        """Read ``8x``, ``all`` or ``AXIS=NUMBER`` (``2^28``, ``1e6``, ``32Ki``, ``1M``, ``8GiB``).

        Args:
            text: The budget.
            axis: The axis that ``Nx`` counts on; kv_reads if None.

        Raises:
            BudgetError: The text is none of these, the number is not positive, or ``axis`` contradicts the text.
        """
        if axis is not None and axis not in AXES:
            raise BudgetError(f"unknown axis {axis!r}: choose one of {', '.join(AXES)}")
        budget = text.strip()
        if budget == "all":
            return cls(axis or "kv_reads", math.inf, relative=True, text=text)
        # A multiple of the base point, on the axis that is given beside it.
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)x", budget):
            return cls._checked(text, axis or "kv_reads", float(match[1]), relative=True)
        # A number on an axis of its own.
        name, sign, number = (part.strip() for part in budget.partition("="))
        if not sign:
            raise BudgetError(
                f"cannot read the budget {budget!r}: write it like {EXAMPLES}, or name one of {', '.join(grid.names())}"
            )
        if name not in AXES:
            raise BudgetError(f"unknown budget axis {name!r} in {budget!r}: choose one of {', '.join(AXES)}")
        if axis not in (None, name):
            raise BudgetError(f"the budget {budget!r} is on {name}, --axis says {axis}: leave one of them out")
        amount = _parse_number(number, budget, allow_bytes=name == "peak_bytes")
        return cls._checked(text, name, amount, relative=False)

    @classmethod
    def _checked(cls, text: str, axis: str, amount: float, *, relative: bool) -> Self:
        if not 0 < amount < math.inf:
            raise BudgetError(f"the budget {text.strip()!r} must be a positive, finite number")
        return cls(axis, amount, relative, text)

    def ceiling(self, task: TaskShape, entry_bytes: int, base_seconds: float | None = None) -> float:
        """The ceiling for a task, in the axis's unit.

        A multiple of the base point always counts its closed form, a chain of exactly the base length: what earlier
        runs happened to measure must not change what a budget means.

        Args:
            task: The task.
            entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads.
            base_seconds: Seconds of the base point, if a speed is known.

        Raises:
            BudgetError: The ceiling is a multiple of the base point's seconds, and these are not known.
        """
        if not self.relative or self.unlimited:
            return self.amount
        if self.axis not in CLOSED_FORM_AXES:
            if base_seconds is None:
                raise BudgetError(
                    f"a budget of {self.amount:g}x in {self.axis} cannot be planned, as the speed of the base point "
                    "is not known: add vanilla to --method, or give the seconds, seconds=600"
                )
            return self.amount * base_seconds
        return self.amount * Costs.predict(task, 1, task.base_length, 1.0, entry_bytes).on(self.axis)


def _parse_number(number: str, text: str, *, allow_bytes: bool) -> float:
    """The number of a budget: ``2^28``, ``1e6``, ``32Ki``; with ``B`` behind it where bytes are counted."""
    match = _NUMBER.fullmatch(number.replace("_", ""))
    if match is None or (match["bytes"] and not allow_bytes):
        raise BudgetError(f"cannot read the number {number!r} of the budget {text!r}: write it like {EXAMPLES}")
    try:  # 2^28 first, then the unit: 2^10Ki is 2^20
        return float(match["base"]) ** int(match["power"] or 1) * _UNITS[match["unit"] or ""]
    except OverflowError:
        return math.inf
