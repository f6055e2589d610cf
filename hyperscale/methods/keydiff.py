"""KeyDiff: keys that point where the other keys of their row point are given up."""

import torch
from torch import Tensor

from hyperscale.kv.cache import RowEntries
from hyperscale.methods.core.base import Host, State
from hyperscale.methods.core.interval import IntervalMethod, IntervalState
from hyperscale.methods.core.row_budget import BudgetRule


class _Distinct(IntervalState):
    def rate(self, layer: int, rows: RowEntries, chains: Tensor | None) -> Tensor:
        keys = rows.keys.to(torch.float32).flatten(0, 1)
        length = torch.linalg.vector_norm(keys, dim=-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        unit = (keys / length).masked_fill_(~rows.live.flatten(0, 1)[..., None], 0.0)
        # Dividing by the number and the anchor's own length would change no order within a row.
        anchor = unit.sum(1, keepdim=True)
        return -torch.bmm(unit, anchor.transpose(1, 2)).view(rows.live.shape)


class KeyDiff(IntervalMethod):
    """Keeps, at every cut, the entries whose keys are least similar to the mean direction of the row's keys.

    With k_i the keys after RoPE, the anchor is the mean over the row's live entries of k_i / |k_i|, and the entries
    with the greatest cos(k_i, anchor) leave. No attention and no query is looked at. Prompts are cut by the same rule;
    see `IntervalMethod` for when and by how much rows are cut.

    The paper prefills in blocks and cuts after each; here the prompt is prefilled densely and cut once, as for all
    methods. When the cache is full it cuts back to its budget after each block or token, here from B to below it. It
    protects no recent entries, so by default ``recent`` is 1: only the newest is safe from the cut.
    """

    name = "keydiff"
    summary = "evicts, at intervals, the keys closest to the mean direction"
    source = "Park et al. 2025, arXiv 2504.15364; budget (P + L) / CR of arXiv 2506.05345"
    default_rule = "fixed"
    default_pin = False

    def __init__(
        self,
        cr: float = 8.0,
        rule: BudgetRule | None = None,
        recent: int = 1,
        pin_prompt: bool | None = None,
        interval: int = 128,
    ) -> None:
        super().__init__(cr, rule, recent, pin_prompt, interval)

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _Distinct(self, host)
