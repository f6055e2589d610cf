"""Three rules over one mechanism: each sets when entries expire, the mechanism does the rest.

A rule may give a new entry its expiry (window), lower the expiry of a stored one when its verdict comes (DMS), or
choose a victim and let it expire at once (random). The definitions are those of `hyperscale.methods`.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.rule import Rows, Rule, Span
from hyperscale.engines.vllm.worker.tables import Lists
from hyperscale.methods.core.row_budget import budget_floor

if TYPE_CHECKING:
    from hyperscale.engines.vllm.scheduler.cache_spec import RaggedSpec


class Learned(Rule):
    """DMS: key k is gone from query k + w + 1 on if hidden state k + 1 says so (arXiv 2506.05345, section 3)."""

    gated = True

    def lower(self, rows: Rows) -> None:
        """See `Rule.lower`."""
        assert rows.verdicts is not None, "the model has gates"
        last = self.lists.last[rows.slots, rows.layer].long()
        entries = self.lists.entries(rows.slots, rows.layer, last)
        gone = (rows.positions + self.options.window)[:, None].expand_as(entries).to(torch.int32)
        evict = rows.verdicts & (rows.lens > 0)
        self.lists.expiry.view(-1)[entries[evict]] = gone[evict]

    def lower_before(self, span: Span) -> None:
        """See `Rule.lower_before`."""
        if span.start:
            assert span.verdicts is not None, "the model has gates"
            slots = torch.tensor([span.slot], device=span.verdicts.device)
            entries = self.lists.entries(slots, span.layer, self.lists.last[slots, span.layer].long())[0]
            self.lists.expiry.view(-1)[entries[span.verdicts[0]]] = span.start + self.options.window

    def born_in(self, span: Span) -> Tensor:
        """See `Rule.born_in`."""
        assert span.verdicts is not None, "the model has gates"
        expiry = super().born_in(span)
        positions = torch.arange(span.start, span.stop - 1, device=expiry.device, dtype=torch.int32)
        gone = (positions + self.options.window + 1).expand(len(expiry), -1)
        # The verdict on the chunk's last token comes with the next one.
        expiry[:, :-1] = torch.where(span.verdicts[1:].T, gone, NEVER)
        return expiry


class Recent(Rule):
    """Window: the oldest generated entry leaves when the budget is full.

    By sequence length n, max(0, n - budget(n)) entries have left, oldest first, so the j-th generated entry (from 0)
    leaves at the query that makes the sequence the shortest n with n - budget(n) > j.
    """

    def expiries(self, slots: Tensor, positions: Tensor) -> Tensor:
        """Expiry of entries by position; prompts are pinned.

        Args:
            slots: (…) int64.
            positions: (…) int64.
        """
        prompt, new = self.lists.facts[slots, 0], self.lists.facts[slots, 1]
        cr, age = self.options.cr, positions - prompt
        least = budget_floor(self.options.share, cr, prompt + self.options.recent, prompt + new)
        length = least + age + 1
        if self.options.share == "proportional" and cr > 1:
            # n - ceil(n / CR) = floor(n (1 - 1 / CR)) has to reach age + 1; rounding may be off by one either way.
            guess = torch.ceil((age + 1).double() * cr / (cr - 1)).long()
            near = guess[..., None] + torch.arange(-2, 3, device=guess.device)
            enough = near - torch.ceil(near.double() / cr).long() > age[..., None]
            length = torch.maximum(length, torch.where(enough, near, NEVER).amin(-1))
        elif self.options.share == "proportional":
            length = torch.full_like(length, NEVER)
        return torch.where(age >= 0, (length - 1).clamp(max=NEVER), NEVER).to(torch.int32)

    def born(self, rows: Rows) -> Tensor:
        """See `Rule.born`."""
        return self.expiries(rows.slots, rows.positions)

    def born_in(self, span: Span) -> Tensor:
        """See `Rule.born_in`."""
        positions = torch.arange(span.start, span.stop, device=self.lists.expiry.device)
        return self.expiries(torch.full_like(positions, span.slot), positions).expand(self.lists.heads, -1)


def make(lists: Lists, options: Options, first_head: int, all_heads: int) -> Rule:
    """The rule that the options name.

    Args:
        lists: The worker's tables.
        options: The engine's options.
        first_head: This worker's first KV head among all.
        all_heads: KV heads of a layer of the whole model.
    """
    if options.rule == "random":
        from hyperscale.engines.vllm.worker.random_rule import Uniform

        return Uniform(lists, options, first_head, all_heads)
    kinds: dict[str, type[Rule]] = {"none": Rule, "dms": Learned, "hashed": Learned, "window": Recent}
    return kinds[options.rule](lists, options)


def rule_of(lists: Lists, spec: "RaggedSpec") -> Rule:
    """The rule of a worker, which knows the worker's place among the tensor-parallel ranks."""
    from vllm.distributed import get_tensor_model_parallel_rank

    return make(lists, spec.options, get_tensor_model_parallel_rank() * lists.heads, spec.rows // lists.layers)
