"""Three rules over one mechanism: each sets when entries expire, the mechanism does the rest.

A rule may give a new entry its expiry (window), lower the expiry of a stored one when its verdict comes (DMS), or
choose a victim and let it expire at once (random). The definitions are those of `hyperscale.methods`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.engines.vllm.lists import NEVER, Lists
from hyperscale.engines.vllm.options import Options


@dataclass(frozen=True)
class Rows:
    """The requests of one decode step in one layer.

    Attributes:
        layer: The layer.
        slots: (requests,) int64.
        positions: (requests,) int64, of the tokens being processed.
        lens: (requests, heads) int64, entries before anything is written.
        verdicts: (requests, heads) bool, DMS's verdict on the token before; None if the model has no gates.
    """

    layer: int
    slots: Tensor
    positions: Tensor
    lens: Tensor
    verdicts: Tensor | None


@dataclass(frozen=True)
class Span:
    """A chunk of one request's tokens in one layer.

    Attributes:
        layer: The layer.
        slot: The request's slot.
        start: Position of its first token.
        stop: Position after its last token.
        verdicts: (tokens, heads) bool, on the token before each; None if the model has no gates.
    """

    layer: int
    slot: int
    start: int
    stop: int
    verdicts: Tensor | None


@dataclass(frozen=True)
class Layout:
    """Where a rule that counts slots wants a request's entries after a chunk.

    Attributes:
        source: (heads, most entries) int64, for each place the entry that goes there: a place in the list as it was, or
            ``have`` + the number of a token of the chunk.
        lens: (heads,) int64, entries of each list.
    """

    source: Tensor
    lens: Tensor


class Rule:
    """Keeps everything; what a rule does not override it does not do."""

    gated = False

    def __init__(self, lists: Lists, options: Options) -> None:
        self.lists, self.options = lists, options

    def lower(self, rows: Rows) -> None:
        """Lower expiries of stored entries before a decode step looks for expired ones."""

    def born(self, rows: Rows) -> Tensor | int:
        """Expiry of the entries that a decode step writes, (requests,) or one for all."""
        return NEVER

    def written(self, rows: Rows, places: Tensor) -> None:
        """Learn where a decode step wrote; (requests, heads) int64."""

    def lower_before(self, span: Span) -> None:
        """Lower expiries of stored entries before a chunk looks at them."""

    def born_in(self, span: Span) -> Tensor:
        """Expiry of the chunk's own entries, (heads, tokens) int32."""
        shape = (self.lists.heads, span.stop - span.start)
        return torch.full(shape, NEVER, dtype=torch.int32, device=self.lists.expiry.device)

    def layout(self, span: Span, have: int) -> Layout | None:
        """Where entries are to lie after the chunk; None if any order will do."""
        return None


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
        least = prompt + self.options.recent
        if self.options.share == "fixed":
            least = torch.maximum(least, torch.ceil((prompt + new).double() / cr).long())
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
        from hyperscale.engines.vllm.uniform import Uniform

        return Uniform(lists, options, first_head, all_heads)
    kinds: dict[str, type[Rule]] = {"none": Rule, "dms": Learned, "hashed": Learned, "window": Recent}
    return kinds[options.rule](lists, options)
