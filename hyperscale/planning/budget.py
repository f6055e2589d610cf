"""Budgets: a ceiling on one cost axis, read from text, and its value for a task.

The closed form of a point's costs is that of an uncompressed cache (`kv.trace`), divided by the CR; `prediction` goes
beyond it where chains have been measured.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hyperscale.errors import BudgetError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.utils.paths import data_dir

AXES = ("kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds")
PREDICTED = AXES[:4]
_FORMS = "8x, kv_reads=2^28, peak_kv=32Ki, peak_bytes=8GiB, tokens=1M, seconds=600, all"
_NUMBER = re.compile(r"(?P<base>\d+(?:\.\d+)?(?:e\+?\d+)?)(?:\^(?P<power>\d{1,3}))?(?P<unit>[kKMGT]i?)?(?P<bytes>B)?")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


@dataclass(frozen=True)
class TaskShape:
    """What the closed form needs to know of a task.

    Attributes:
        name: The task.
        prompt_tokens: Mean prompt length of the problems that run, in tokens.
        base_length: L of the base point, in tokens.
        lengths: L of the candidates, in tokens, ascending.
        answer: Tokens that a forced answer adds at most to a chain that has not ended at L; the base point has none.
    """

    name: str
    prompt_tokens: int
    base_length: int
    lengths: tuple[int, ...]
    answer: int = 0


@dataclass(frozen=True)
class Costs:
    """Predicted costs of a point, per problem.

    Attributes:
        kv_reads: Entries read in decoding, summed over the W chains.
        peak_kv: Largest number of live entries, summed over the W chains.
        peak_bytes: The same in bytes, summed over layers and KV heads.
        tokens: Generated tokens.
        seconds: Time in the batch, summed over the W chains, as in ``points.csv``; None if no speed is known.
    """

    kv_reads: float
    peak_kv: float
    peak_bytes: float
    tokens: float
    seconds: float | None = None

    @classmethod
    def predict(cls, task: TaskShape, W: int, L: int, CR: float, entry_bytes: int) -> Self:
        """Closed form: chains that all run to L, cache entries divided by the CR.

        ``entry_bytes`` is the size of one (key, value) pair summed over layers and KV heads.
        """
        reads = W * dense_reads(task.prompt_tokens, L) / CR
        peak = W * dense_peak(task.prompt_tokens, L) / CR
        return cls(reads, peak, peak * entry_bytes, float(W * L))

    def on(self, axis: str) -> float:
        """The cost on one of `AXES`; NaN if it is not known."""
        value = getattr(self, axis)
        return math.nan if value is None else float(value)

    def times(self, width: float) -> Self:
        """The costs of ``width`` times as many chains that cost as much each."""
        seconds = None if self.seconds is None else width * self.seconds
        return type(self)(
            width * self.kv_reads, width * self.peak_kv, width * self.peak_bytes, width * self.tokens, seconds
        )


@dataclass(frozen=True)
class Budget:
    """A ceiling on one cost axis, per problem.

    Attributes:
        axis: One of `AXES`.
        amount: The ceiling in the axis's unit, or a multiple of the base point's cost; infinite for ``all``.
        relative: Whether ``amount`` counts base points.
    """

    axis: str
    amount: float
    relative: bool

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
        text = text.strip()
        if text == "all":
            return cls(axis or "kv_reads", math.inf, relative=True)
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)x", text):
            return cls._checked(text, axis or "kv_reads", float(match[1]), relative=True)
        name, sign, number = (part.strip() for part in text.partition("="))
        if not sign:
            raise BudgetError(
                f"cannot read the budget {text!r}: write it like {_FORMS}, or name one of {', '.join(_names())}"
            )
        if name not in AXES:
            raise BudgetError(f"unknown budget axis {name!r} in {text!r}: choose one of {', '.join(AXES)}")
        if axis not in (None, name):
            raise BudgetError(f"the budget {text!r} is on {name}, --axis says {axis}: leave one of them out")
        return cls._checked(text, name, _number(number, text, allow_bytes=name == "peak_bytes"), relative=False)

    @classmethod
    def _checked(cls, text: str, axis: str, amount: float, *, relative: bool) -> Self:
        if not 0 < amount < math.inf:
            raise BudgetError(f"the budget {text!r} must be a positive, finite number")
        return cls(axis, amount, relative)

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
        if self.axis not in PREDICTED:
            if base_seconds is None:
                raise BudgetError(
                    f"a budget of {self.amount:g}x in {self.axis} cannot be planned, as the speed of the base point "
                    "is not known: add vanilla to --method, or give the seconds, seconds=600"
                )
            return self.amount * base_seconds
        return self.amount * Costs.predict(task, 1, task.base_length, 1.0, entry_bytes).on(self.axis)


def _number(number: str, text: str, *, allow_bytes: bool) -> float:
    match = _NUMBER.fullmatch(number.replace("_", ""))
    if match is None or (match["bytes"] and not allow_bytes):
        raise BudgetError(f"cannot read the number {number!r} of the budget {text!r}: write it like {_FORMS}")
    try:
        return float(match["base"]) ** int(match["power"] or 1) * _UNITS[match["unit"] or ""]
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Grid:
    """A named grid of candidates, a file of ``budgets/``.

    Attributes:
        name: The file's name without ``.yaml``.
        description: One line.
        budget: The budget it stands for where ``--budget`` names it.
        widths: W of the candidates.
        crs: Nominal CRs of methods for which neither the user nor a checkpoint names any.
        lengths: L of the candidates; a task runs those that are among its own. None: all of the task's.
    """

    name: str
    description: str
    budget: str
    widths: tuple[int, ...]
    crs: tuple[float, ...]
    lengths: tuple[int, ...] | None = None

    @classmethod
    def load(cls, name: str) -> Self:
        """Read ``budgets/<name>.yaml``.

        Raises:
            BudgetError: There is no such file, or it is malformed.
        """
        path = data_dir("budgets") / f"{name}.yaml"
        if name not in _names():
            raise BudgetError(f"unknown grid {name!r}: choose one of {', '.join(_names())}")
        import yaml

        try:
            raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
            lengths = raw.get("lengths")
            return cls(
                name,
                str(raw["description"]),
                str(raw["budget"]),
                tuple(sorted(int(w) for w in raw["widths"])),
                tuple(sorted(float(c) for c in raw["crs"])),
                None if lengths is None else tuple(sorted(int(n) for n in lengths)),
            )
        except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BudgetError(f"{path} is malformed ({error!r}): it needs description, budget, widths, crs") from None


def available() -> dict[str, str]:
    """Names of the shipped grids, with a line each."""
    return {name: Grid.load(name).description for name in _names()}


def _names() -> list[str]:
    folder: Path = data_dir("budgets")
    return sorted(path.stem for path in folder.glob("*.yaml"))
