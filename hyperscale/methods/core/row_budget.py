"""The budget of a row: the most live entries it may hold. Counts are whole numbers, or tensors of them.

With n the tokens of the sequence so far, P those of the prompt, L the most new ones, and F the entries that are always
kept, the budget is
  proportional: max(F, ceil(n / CR)), a rule that knows no maximum length;
  fixed:        max(F, ceil((P + L) / CR)), as budgets are set in arXiv 2506.05345.
A budget in tokens, B, is max(F, B) at every length, and no ratio has a part in it.

The module imports no torch, because a scheduler computes budgets in a process that has no use for tensors.
"""

from math import ceil
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

BudgetRule = Literal["proportional", "fixed"]

Count = TypeVar("Count", int, "Tensor")


def budget_floor(rule: BudgetRule, cr: float, always: Count, total: Count) -> Count:
    """The part of the budget that does not depend on the sequence so far.

    Args:
        rule: The budget rule.
        cr: Nominal compression ratio.
        always: F.
        total: P + L.
    """
    return always if rule == "proportional" else _at_least(always, total, cr)


def row_budget(rule: BudgetRule, cr: float, floor: Count, tokens: Count) -> Count:
    """The budget of a row.

    Args:
        rule: The budget rule.
        cr: Nominal compression ratio.
        floor: What `budget_floor` gives.
        tokens: n, the token being processed included.
    """
    return floor if rule == "fixed" else _at_least(floor, tokens, cr)


def _at_least(entries: Count, tokens: Count, cr: float) -> Count:
    """max(entries, ceil(tokens / CR)); tensors divide in float64, so that they round as Python's numbers do."""
    # Methods of tensors, not functions of torch: this module does not import it.
    if isinstance(tokens, int):
        return max(entries, ceil(tokens / cr))
    return (tokens.double() / cr).ceil().long().clamp(min=entries)
