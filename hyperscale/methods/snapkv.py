"""SnapKV at decode time: keeps, at every pruning, what the latest queries attend to most."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from hyperscale.errors import MethodError
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.observed import ObservedMethod, RecentQueries


@dataclass
class SnapKV(ObservedMethod):
    """Keeps, at every pruning, the newest w entries and those to which their queries attend most.

    With A(j, i) the weight that query j gives to entry i among all live entries, and i older than the window,
      score(i) = mean over the group of query heads of pool_i(mean over the last w queries j of A(j, i));
    pool is an average (or maximum) over ``kernel`` neighbouring slots. Prompts are pruned by the same rule.

    The paper compresses the prompt once and keeps all that is generated; the repeated form is the baseline that R-KV
    (arXiv 2505.24133) compares with. The reference code has no groups and lets every query head choose; averaging over
    the group is kvpress's way. Once rows have been pruned, pooling neighbours are neighbours among the survivors.
    Defaults are kernel 5 and averages, the reference code's; its window, 32 to 64, would fill small budgets: ours is
    16.

    Parameters:
        pooling: "avg" or "max".
    """

    name = "snapkv"
    summary = "evicts, at intervals, what the latest queries attend to least"
    source = "Li et al. 2024, arXiv 2404.14469; at decode time as in arXiv 2505.24133"

    pooling: Literal["avg", "max"] = "avg"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in ("avg", "max"):
            raise MethodError(f"pooling of {self.name} must be 'avg' or 'max', not {self.pooling!r}")

    def score(self, rows: RowEntries, queries: RecentQueries) -> Tensor:
        """See `ObservedMethod.score`."""
        logits = queries.logits(rows.keys)
        slot = torch.arange(logits.shape[-1], device=logits.device)
        length = rows.live[:, 0].sum(-1)  # of any head: all rows of a chain hold equally many
        # A query sees the entries up to its own; slots of the window that are younger, or dead, are masked.
        younger = slot >= (length[:, None] - queries.ages)[:, None, None, :, None]
        weights = torch.softmax(logits.masked_fill_(younger, float("-inf")), dim=-1, dtype=torch.float32).mean(3)
        # Pooling must not carry the window's own weights over to its neighbours.
        outside = slot < length[:, None, None, None] - self.window
        return self._pool(torch.where(outside, weights, 0.0).flatten(1, 2)).view_as(weights).mean(2)

    def _pool(self, scores: Tensor) -> Tensor:
        """(batch, rows, slots) float32, each pooled with its neighbours; beyond the ends there are zeros."""
        pool = avg_pool1d if self.pooling == "avg" else max_pool1d
        return pool(scores, self.kernel, stride=1, padding=self.kernel // 2)
