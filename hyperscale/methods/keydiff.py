"""KeyDiff: gives up the keys that point where the other keys of their row point."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.core.scored import ScoredMethod


@dataclass
class KeyDiff(ScoredMethod):
    """Keeps, at every pruning, the entries whose keys are least similar to the mean direction of the row's keys.

    With k_i the keys after RoPE, the anchor is the mean over the row's live entries of k_i / |k_i|, and
      score(i) = -cos(k_i, anchor).
    No attention and no query is looked at. Prompts are pruned by the same rule.

    The paper prefills in blocks and prunes after each; here the prompt is prefilled densely and pruned once, as for all
    methods. When the cache is full it prunes to its budget after each block or token, here from B to below it. It
    protects no recent entries, so by default ``recent`` is 1: only the newest is safe from pruning.
    """

    name = "keydiff"
    summary = "evicts, at intervals, the keys closest to the mean direction"
    source = "Park et al. 2025, arXiv 2504.15364; budget (P + L) / CR of arXiv 2506.05345"

    rule: BudgetRule = "fixed"
    recent: int = 1
    pin_prompt: bool = False

    def score(self, rows: RowEntries) -> Tensor:
        """See `ScoredMethod.score`."""
        # One row a matrix: (batch * kv_heads, entries, head_dim).
        keys = rows.keys.to(torch.float32).flatten(0, 1)
        norm = torch.linalg.vector_norm(keys, dim=-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        unit = (keys / norm).masked_fill_(~rows.live.flatten(0, 1)[..., None], 0.0)
        # Dividing by the number of keys and by the anchor's own length would change no order within a row.
        anchor = unit.sum(1, keepdim=True)
        return -torch.bmm(unit, anchor.transpose(1, 2)).view(rows.live.shape)
