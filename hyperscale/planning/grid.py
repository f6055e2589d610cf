"""Named grids of candidates, the files of ``budgets/``: which W and L a plan chooses from."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hyperscale.errors import BudgetError
from hyperscale.utils.paths import data_dir
from hyperscale.utils.validation import validate
from hyperscale.utils.yaml_files import read_yaml

_REMEDY = "a grid has description, budget, widths and crs, and may have lengths"


class Grid(BaseModel):
    """A named grid of candidates.

    Attributes:
        name: The file's name without ``.yaml``.
        description: One line.
        budget: The budget it stands for where ``--budget`` names it.
        widths: W of the candidates, ascending.
        crs: Nominal CRs of methods for which neither the user nor a checkpoint names any, ascending.
        lengths: L of the candidates, ascending; a task runs those that are among its own. None: all of the task's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    budget: str
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    crs: tuple[Annotated[float, Field(ge=1)], ...] = Field(min_length=1)
    lengths: tuple[Annotated[int, Field(ge=1)], ...] | None = None

    @field_validator("widths", "crs", "lengths")
    @classmethod
    def _ascending(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(sorted(values))

    @classmethod
    def load(cls, name: str) -> Self:
        """Read ``budgets/<name>.yaml``.

        Raises:
            BudgetError: There is no such file, or it is malformed.
        """
        # Only shipped grids have names; a path would be taken for one otherwise.
        if name not in names():
            raise BudgetError(f"unknown grid {name!r}: choose one of {', '.join(names())}")
        file = read_yaml(data_dir("budgets") / f"{name}.yaml", BudgetError, _REMEDY)
        return validate(cls, {"name": name, **file.values}, BudgetError, file.place, _REMEDY)

    def lengths_of(self, task: str, lengths: Sequence[int]) -> list[int]:
        """Those of a task's L that are among the candidates.

        Raises:
            BudgetError: None is.
        """
        if len(lengths) == 1:  # a task without a choice
            return list(lengths)
        common = [L for L in lengths if self.lengths is None or L in self.lengths]
        if not common:
            raise BudgetError(
                f"the grid {self.name!r} has none of the lengths of {task} ({', '.join(map(str, lengths))}): choose "
                "another grid"
            )
        return common


def available() -> dict[str, str]:
    """Names of the shipped grids, with a line each."""
    return {name: Grid.load(name).description for name in names()}


def names() -> list[str]:
    """Names of the shipped grids."""
    return sorted(path.stem for path in data_dir("budgets").glob("*.yaml"))
