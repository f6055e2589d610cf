"""Knorm: keeps the keys with the smallest norm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.core.scored import ScoredMethod


@dataclass
class Knorm(ScoredMethod):
    """Keeps, at every pruning, the entries whose keys have the smallest L2 norm: score(i) = -|k_i|.

    Keys of a small norm tend to be attended to most. RoPE changes no norm. Prompts are pruned by the same rule. The
    reference code leaves the first two layers whole by default; here, as in kvpress, every layer is pruned.
    """

    name = "knorm"
    summary = "evicts, at intervals, the keys with the largest norm"
    source = "Devoto et al. 2024, arXiv 2406.11430; budget (P + L) / CR of arXiv 2506.05345"

    rule: BudgetRule = "fixed"
    recent: int = 1
    pin_prompt: bool = False

    def score(self, rows: RowEntries) -> Tensor:
        """See `ScoredMethod.score`."""
        norm: Tensor = torch.linalg.vector_norm(rows.keys.to(torch.float32), dim=-1)
        return -norm
