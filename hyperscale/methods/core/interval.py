"""Base of methods that prune full rows at intervals, instead of evicting one entry a step."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.base import DecodeStep, LayerInput
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState
from hyperscale.methods.core.prefill_view import PrefillView

_LARGEST_PRUNE = 8  # The denominator of a fraction: a pruning takes at most 1/8 of the budget.


@dataclass(frozen=True)
class QueryTokens:
    """Tokens whose queries a state is to learn, the same in all layers.

    Attributes:
        chains: (tokens,) int64, the number of each one's chain.
        positions: (tokens,) int64.
        places: What the state has made of them, once for all layers; of its own kind.
    """

    chains: Tensor
    positions: Tensor
    places: Tensor


class IntervalState(BudgetedState):
    """Rows that only grow between two prunings.

    So slots are in order of position at all times, the newest entries lie in a row's last live slots, and all rows of a
    chain hold equally many. A subclass ranks the entries (`score_rows`), of a prompt as of a full row.
    """

    capturable = True
    method: "IntervalMethod"

    @abstractmethod
    def score_rows(self, layer: int | Tensor, rows: RowEntries, chains: Tensor | None) -> Tensor:
        """How much each entry is worth keeping, the more the better; among equals the older stays.

        Args:
            layer: That of each row of the batch, (batch,) int64; a layer's index if it is a prompt's.
            rows: Entries of some chains, in order of position.
            chains: (batch,) int64, their numbers; None if the only one is a prompt that has just been prefilled.

        Returns:
            (batch, kv_heads, slots) float32; of no meaning where nothing lives.
        """

    def place_queries(self, chains: Tensor, positions: Tensor) -> QueryTokens:
        """Prepare `record_queries` for some tokens.

        Args:
            chains: (tokens,) int64, each one's chain.
            positions: (tokens,) int64. Of one chain at most `Method.prompt_queries` tokens are named, the latest.
        """
        return QueryTokens(chains, positions, chains)

    def record_queries(self, layer: int, queries: Tensor, tokens: QueryTokens, scale: float) -> None:
        """Learn queries, if the rule looks at any.

        Args:
            layer: Layer index.
            queries: (tokens, query_heads, head_dim), after RoPE.
            tokens: Whose they are.
            scale: Factor on the attention scores.
        """

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.prune_prompt`: a prompt with no room for the first generated token is pruned like any full row."""
        budget = self.method.room(view.length, view.L) + 1
        if view.length < budget:
            return None, None
        live = torch.ones(1, *view.keys.shape[:2], dtype=torch.bool, device=view.keys.device)
        scores = self.score_rows(layer, RowEntries(view.keys[None], view.values[None], live), None)
        budgets = torch.full((1,), budget, device=live.device)
        # A pinned prompt is never longer than its budget, so nothing is pinned here.
        return self._survivors(scores, live, budgets, torch.zeros_like(budgets))[0], None

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        self.step = step
        chains = torch.arange(len(step.positions), device=step.positions.device)
        self._tokens = self.place_queries(chains, step.positions)

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        """See `State.write_slots`: rows with no room have been pruned before, so every row appends."""
        self.record_queries(layer, layer_input.queries, self._tokens, layer_input.scale)
        return self.step.lens[layer]

    def chains_to_prune(self, step: DecodeStep) -> Tensor:
        """See `State.chains_to_prune`."""
        self.step = step
        self._limit = self.budget(step)
        return step.lens[0, :, 0] >= self._limit

    def prune(self, layers: Tensor, chains: Tensor, rows: RowEntries) -> Tensor:
        """See `State.prune`.

        A prompt that has been processed, and whose queries are recorded, is pruned in the same way, as a chain whose
        next position is P.
        """
        scores = self.score_rows(layers, rows, chains)
        return self._survivors(scores, rows.live, self._limit[chains], self.pinned(self.step)[chains])

    def _survivors(self, scores: Tensor, live: Tensor, budget: Tensor, pinned: Tensor) -> Tensor:
        """What stays of full rows, as `prune`; ``budget`` and ``pinned`` are (batch,) int64."""
        recent = self.method.recent
        slot = torch.arange(scores.shape[2], device=scores.device)
        # Pinned entries lie in the first slots and recent ones in the last live slots: both rank above all others.
        safe = (slot < pinned[:, None, None]) | (slot >= live.sum(-1, keepdim=True) - recent)
        ranking = scores.masked_fill(safe, float("inf")).masked_fill(~live, float("-inf"))
        ranking = ranking.argsort(dim=-1, descending=True, stable=True)
        size = (budget // _LARGEST_PRUNE).clamp(1, self.method.interval)  # of the pruning
        count = torch.maximum(budget - size, pinned + recent)[:, None, None]
        return torch.zeros_like(live).scatter_(-1, ranking, (slot < count).expand_as(ranking))


@dataclass
class IntervalMethod(BudgetedMethod):
    """Prunes a row that is about to outgrow its budget B down to B - min(interval, B // 8), at least by 1.

    The newest ``recent`` entries and, with ``pin_prompt``, the prompt survive every pruning; F counts them and what a
    pruning takes on top of them, so that rows in which nearly all is safe are not pruned at every step. A prompt with
    no room for the first generated token is pruned once after its dense prefill. Papers that prune every so many tokens
    call B what is left by a pruning; here B is the ceiling, so that no row ever exceeds it, and a pruning takes at most
    an eighth of it (128 of 1024, say), so that rows of small budgets do not stand half empty.

    Parameters:
        interval: The most entries that a pruning takes. A row that is about to outgrow its budget B is pruned to
            B - min(interval, B // 8).
    """

    looks_at_values: ClassVar[bool] = False  # whether the rule reads `RowEntries.values`

    interval: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval < 1:
            raise MethodError(f"interval of {self.name} must be at least 1, not {self.interval}")

    def length_after_pruning(self, budget: int, pinned: int) -> int:
        """Entries that a pruning leaves of a full row of this budget, of which so many are pinned."""
        return max(budget - min(max(budget // _LARGEST_PRUNE, 1), self.interval), pinned + self.recent)

    def always(self, prompt: int) -> int:
        """See `BudgetedMethod.always`."""
        safe = super().always(prompt)
        # With s safe entries and F = s + c, a pruning takes min(interval, F // 8) of F, which is c for c = s // 7.
        return safe + min(max(safe // (_LARGEST_PRUNE - 1), 1), self.interval)
