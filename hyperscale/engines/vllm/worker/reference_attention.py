"""Attention over lists of their own lengths, and what a step writes: the mechanism that all rules share.

It stands on three operations of the cache (`Pages`); everything else is arithmetic on the tables of `Lists`.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hyperscale.engines.vllm.worker.rule import Layout, Rows, Rule, Span
from hyperscale.engines.vllm.worker.tables import Lists

_BLOCK = 512  # queries of a chunk that attend at once: bounds the mask and the scores


class Pages(Protocol):
    """The cache tensor of all lists, in whatever layout its attention wants."""

    def write(self, entries: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store entries; ``entries`` (n,) int64 as `Lists.entries` names them, keys and values (n, head_dim)."""

    def read(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (n, N, head_dim) of pages (n,) int64."""

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy whole pages; (n,) int64 each, no page in both."""

    def attend(self, queries: Tensor, lens: Tensor, table: Tensor, scale: float) -> Tensor:
        """Attention of one query a list.

        Args:
            queries: (lists, group, head_dim).
            lens: (lists,) int32, entries of each list, at least one.
            table: (lists, pages) int32.
            scale: Factor on the scores.

        Returns:
            (lists, group, head_dim).
        """


class Ragged:
    """One worker's cache: its tables, its rule and its pages."""

    def __init__(self, lists: Lists, rule: Rule, pages: Pages) -> None:
        self.lists, self.rule, self.pages = lists, rule, pages

    def decode(self, rows: Rows, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Write one entry into every list of a layer, in place of an expired one if there is any, and attend.

        Args:
            rows: The requests.
            queries: (requests, heads, group, head_dim), after RoPE.
            keys: (requests, heads, head_dim), after RoPE.
            values: As keys.
            scale: Factor on the scores.

        Returns:
            (requests, heads, group, head_dim).
        """
        lists, slots, layer = self.lists, rows.slots, rows.layer
        self.rule.lower(rows)
        expired = self._expired(rows)
        if bool((expired.sum(-1) > 1).any()):  # a rule that lets several go at once
            rows = self._close_gaps(rows, expired)
            expired = self._expired(rows)
        any_expired = expired.any(-1)
        places = torch.where(any_expired, expired.to(torch.uint8).argmax(-1), rows.lens)
        lists.allocate(slots, layer, (places >= lists.capacity[slots, layer] * lists.page_tokens).long())
        entries = lists.entries(slots, layer, places)
        dim = keys.shape[-1]
        self.pages.write(entries.flatten(), keys.reshape(-1, dim), values.reshape(-1, dim))
        born = self.rule.born(rows)
        lists.expiry.view(-1)[entries] = born[:, None].expand_as(entries) if isinstance(born, Tensor) else born
        lists.last[slots, layer] = places.to(torch.int32)
        lens = torch.maximum(rows.lens, places + 1).to(torch.int32)
        lists.lens[slots, layer] = lens
        self.rule.written(rows, places)
        width = -(-int(lens.max()) // lists.page_tokens)
        table = lists.page_table[slots, layer, :, :width].flatten(0, 1)
        out = self.pages.attend(queries.flatten(0, 1), lens.flatten(), table.contiguous(), scale)
        found: Tensor = out.view(queries.shape)
        return found

    def _expired(self, rows: Rows) -> Tensor:
        """(requests, heads, places) bool: entries that the queries no longer see."""
        lists = self.lists
        width = -(-max(int(rows.lens.max()), 1) // lists.page_tokens)
        table = lists.page_table[rows.slots, rows.layer, :, :width].long()
        expiry = lists.expiry[table].flatten(2)
        filled = torch.arange(expiry.shape[2], device=expiry.device) < rows.lens[..., None]
        expired: Tensor = filled & (expiry <= rows.positions[:, None, None])
        return expired

    def _close_gaps(self, rows: Rows, expired: Tensor) -> Rows:
        """Leave at most one expired entry in any list, and give back the pages that then are empty."""
        for row in torch.nonzero((expired.sum(-1) > 1).any(-1))[:, 0].tolist():
            slot = int(rows.slots[row])
            stored = self._stored(slot, rows.layer)
            # The first expired entry stays: the new one takes its place.
            gone = expired[row] & (expired[row].cumsum(-1) > 1)
            filled = torch.arange(gone.shape[-1], device=gone.device) < rows.lens[row][:, None]
            alive = (filled & ~gone)[:, : stored[2].shape[1]]
            self._rewrite(slot, rows.layer, stored, alive, self.lists.last[slot, rows.layer].long(), None)
        lens = self.lists.lens[rows.slots, rows.layer].long()
        return Rows(rows.layer, rows.slots, rows.positions, lens, rows.verdicts)

    def chunk(self, span: Span, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Attend with a chunk of one request's tokens to what is stored and to the chunk; store what survives it.

        Args:
            span: The chunk.
            queries: (tokens, heads, group, head_dim), after RoPE.
            keys: (tokens, heads, head_dim), after RoPE.
            values: As keys.
            scale: Factor on the scores.

        Returns:
            (tokens, heads, group, head_dim), and (tokens,) int64: the entries, of all heads, that each query saw.
        """
        self.rule.lower_before(span)
        stored_keys, stored_values, stored_expiry = self._stored(span.slot, span.layer)
        have = stored_expiry.shape[1]
        all_keys = torch.cat([stored_keys, keys.transpose(0, 1)], 1)
        all_values = torch.cat([stored_values, values.transpose(0, 1)], 1)
        expiry = torch.cat([stored_expiry, self.rule.born_in(span)], 1)
        filled = torch.arange(have, device=expiry.device) < self.lists.lens[span.slot, span.layer][:, None]
        position = torch.arange(span.start, span.stop, device=expiry.device)
        out, seen = torch.empty_like(queries), torch.empty_like(position)
        for begin in range(0, len(position), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            q = position[block, None]
            visible = q < expiry[:, None]  # (heads, queries, keys)
            visible[:, :, :have] &= filled[:, None]
            visible[:, :, have:] &= position <= q
            seen[block] = visible.sum((0, 2))
            attended = scaled_dot_product_attention(
                queries[block].permute(1, 2, 0, 3),
                all_keys[:, None].expand(-1, queries.shape[2], -1, -1),
                all_values[:, None].expand(-1, queries.shape[2], -1, -1),
                attn_mask=visible[:, None],
                scale=scale,
            )
            out[block] = attended.permute(2, 0, 1, 3)
        fresh = torch.ones(len(expiry), len(position), dtype=torch.bool, device=expiry.device)
        alive = torch.cat([filled, fresh], 1) & (expiry > span.stop)
        layout = self.rule.layout(span, have)
        newest = torch.full((len(expiry),), expiry.shape[1] - 1, device=expiry.device)
        self._rewrite(span.slot, span.layer, (all_keys, all_values, expiry), alive, newest, layout)
        return out, seen

    def _stored(self, slot: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """A request's entries of a layer: keys and values (heads, most, head_dim), expiries (heads, most).

        Places that hold no entry are zeros: what lies there is another request's, and may not be finite.
        """
        lists = self.lists
        most = int(lists.lens[slot, layer].max())
        table = lists.page_table[slot, layer, :, : -(-most // lists.page_tokens)].long()
        keys, values = self.pages.read(table.flatten())
        shape = (lists.heads, table.shape[1] * lists.page_tokens, keys.shape[-1])
        expiry = lists.expiry[table].flatten(1)[:, :most]
        empty = (torch.arange(most, device=table.device) >= lists.lens[slot, layer][:, None])[..., None]
        keys, values = keys.reshape(shape)[:, :most], values.reshape(shape)[:, :most]
        return keys.masked_fill(empty, 0), values.masked_fill(empty, 0), expiry

    def _rewrite(
        self,
        slot: int,
        layer: int,
        candidates: tuple[Tensor, Tensor, Tensor],
        alive: Tensor,
        newest: Tensor,
        layout: Layout | None,
    ) -> None:
        """Make the entries that are alive a request's lists of a layer, closed up, or in the order that is asked for.

        Args:
            slot: The request's slot.
            layer: The layer.
            candidates: Keys and values (heads, candidates, head_dim), expiries (heads, candidates).
            alive: (heads, candidates) bool; not looked at if there is a layout.
            newest: (heads,) int64, which candidate is the newest token's.
            layout: Where entries are to lie; None if any order will do.
        """
        lists, (keys, values, expiry) = self.lists, candidates
        if layout is None:
            source, lens = torch.argsort((~alive).to(torch.uint8), dim=1, stable=True), alive.sum(1)
        else:
            source, lens = layout.source, layout.lens
        filled = torch.arange(source.shape[1], device=source.device) < lens[:, None]
        slots = torch.tensor([slot], device=source.device)
        pages = -(-lens // lists.page_tokens)
        lists.allocate(slots, layer, (pages - lists.capacity[slots, layer][0]).clamp(min=0)[None])
        head, place = torch.nonzero(filled, as_tuple=True)
        origin = source[head, place]
        page = lists.page_table[slot, layer, head, place // lists.page_tokens].long()
        entries = page * lists.page_tokens + place % lists.page_tokens
        self.pages.write(entries, keys[head, origin], values[head, origin])
        lists.expiry.view(-1)[entries] = expiry[head, origin].to(torch.int32)
        lists.lens[slot, layer] = lens.to(torch.int32)
        lists.last[slot, layer] = (filled & (source == newest[:, None])).to(torch.uint8).argmax(1).to(torch.int32)
        lists.shorten(slot, layer)

    def compact(self, slot: int) -> None:
        """Give superblocks back that a request no longer fills (`Lists.compact`)."""
        if moves := self.lists.compact(slot):
            self.pages.copy(*torch.tensor(moves, device=self.lists.expiry.device).T)
