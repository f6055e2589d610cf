"""Base of methods that rank the entries of a row by their keys and values alone."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.interval import IntervalMethod, IntervalState


class ScoredState(IntervalState):
    """Nothing but the budgets: the method's score is a function of the entries."""

    method: "ScoredMethod"

    def score_rows(self, layer: int | Tensor, rows: RowEntries, chains: Tensor | None) -> Tensor:
        """See `IntervalState.score_rows`."""
        return self.method.score(rows)


@dataclass
class ScoredMethod(IntervalMethod):
    """Keeps, at every pruning, the entries with the highest `score`; `IntervalMethod` says when and how much."""

    state = ScoredState

    @abstractmethod
    def score(self, rows: RowEntries) -> Tensor:
        """How much each entry is worth keeping, the more the better; among equals the older stays.

        A row's scores must not depend on the other rows, not even in their rounding: use elementwise operations, sums
        within a row, and one matrix product a row (`torch.bmm`).

        Args:
            rows: Keys, after RoPE, and values, (batch, kv_heads, entries, head_dim) each, in order of position, and
                which of them live, (batch, kv_heads, entries).

        Returns:
            (batch, kv_heads, entries) float32; of no meaning where nothing lives.
        """
