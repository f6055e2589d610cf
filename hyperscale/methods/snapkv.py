"""SnapKV at decode time: rows are cut, again and again, by what the latest queries attend to."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from hyperscale.errors import MethodError
from hyperscale.kv.cache import RowEntries
from hyperscale.methods.core.base import Host, State
from hyperscale.methods.core.observed import ObservedMethod, ObservedState, observed
from hyperscale.methods.core.row_budget import BudgetRule


class _Snap(ObservedState):
    def __init__(self, method: "SnapKV", host: Host) -> None:
        super().__init__(method, host)
        self._snap = method

    def rank(self, queries: Tensor, ages: Tensor, rows: RowEntries) -> Tensor:
        scores = observed(queries, rows.keys, self._scale)
        slot = torch.arange(scores.shape[-1], device=scores.device)
        length = rows.live[:, 0].sum(-1)
        younger = slot >= (length[:, None] - ages)[:, None, None, :, None]
        weights = torch.softmax(scores.masked_fill_(younger, float("-inf")), dim=-1, dtype=torch.float32).mean(3)
        # Pooling must not carry the window's own weights over to its neighbours.
        outside = slot < length[:, None, None, None] - self._window
        return self._snap.pooled(torch.where(outside, weights, 0.0).flatten(1, 2)).view_as(weights).mean(2)


class SnapKV(ObservedMethod):
    """Keeps, at every cut, the newest w entries and those to which their queries attend most.

    With A(j, i) the weight that query j gives to entry i among all live entries, the score of an entry older than the
    window is the mean over the group of query heads of pool_i(mean over the last w queries j of A(j, i)); pool is an
    average (or maximum) over ``kernel`` neighbouring slots. Prompts are cut by the same rule; see `IntervalMethod` for
    when and by how much rows are cut.

    The paper compresses the prompt once and keeps all that is generated; the repeated form is the baseline that R-KV
    (arXiv 2505.24133) compares with. The reference code has no groups and lets every query head choose; averaging over
    the group is kvpress's way. Once rows have been cut, pooling neighbours are neighbours among the survivors. Defaults
    are kernel 5 and averages, the reference code's; its window, 32 to 64, would fill small budgets: ours is 16.
    """

    name = "snapkv"
    summary = "evicts, at intervals, what the latest queries attend to least"
    source = "Li et al. 2024, arXiv 2404.14469; at decode time as in arXiv 2505.24133"

    def __init__(
        self,
        cr: float = 8.0,
        rule: BudgetRule | None = None,
        window: int = 16,
        pin_prompt: bool | None = None,
        interval: int = 128,
        kernel: int = 5,
        pooling: Literal["avg", "max"] = "avg",
    ) -> None:
        super().__init__(cr, rule, window, pin_prompt, interval, kernel)
        if pooling not in ("avg", "max"):
            raise MethodError(f"pooling of {self.name} must be 'avg' or 'max', not {pooling!r}")
        self.pooling = pooling

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        return {**super().params(), "pooling": self.pooling}

    def pooled(self, scores: Tensor) -> Tensor:
        """(some, rows, slots) float32, each pooled with its neighbours; beyond the ends there are zeros."""
        pool = avg_pool1d if self.pooling == "avg" else max_pool1d
        return pool(scores, self.kernel, stride=1, padding=self.kernel // 2)

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _Snap(self, host)
