"""A layer's step in plain torch: what expires, what is written and where, and attention over lists of any lengths.

This is the mechanism that all methods share, as the CPU runs it; CUDA's kernels do the same. It stands on four
operations of the cache (`Pages`); everything else is arithmetic on the tables of `EntryTables`.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, EntryOrder, RequestChunk, WorkerMethod
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.tables import EntryTables

_QUERY_BLOCK = 512  # queries of a chunk that attend at once: bounds the memory of the mask and the scores


class Pages(Protocol):
    """The cache tensor of all lists, in whatever layout its attention wants."""

    def write(self, entries: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store entries: (n,) int64 as `EntryTables.entry_numbers` names them, keys and values (n, head_dim)."""

    def move(self, source: Tensor, target: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store entries in other places, any of which may be the source of another.

        Args:
            source: (n,) int64, where they are.
            target: (n,) int64, where they go, each place once.
            keys: (n, head_dim), as `read` gave them: a cache that stores what it reads may write these.
            values: As keys.
        """

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


class _PageRows:
    """See `Rows`."""

    def __init__(self, tables: EntryTables, pages: Pages) -> None:
        self._tables, self._pages = tables, pages

    def read(self, slots: Tensor, layer: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first places of one layer, (requests, heads, count, head_dim) each; 0 past an end."""
        tables = self._tables
        table = tables.page_table[slots, layer, :, : -(-count // tables.page_tokens)].long()
        keys, values = self._pages.read(table.flatten())
        shape = (*table.shape[:2], table.shape[2] * tables.page_tokens, keys.shape[-1])
        # Behind a list's end lies what somebody else has left, which need not be finite.
        empty = (torch.arange(count, device=slots.device) >= tables.lens[slots, layer][..., None])[..., None]
        keys, values = (part.reshape(shape)[:, :, :count].masked_fill(empty, 0) for part in (keys, values))
        return keys, values

    def read_keys(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        """See `Rows.read_keys`."""
        return torch.stack([self.read(slots, layer, count)[0] for layer in range(layers.start, layers.stop)], 1)

    def read_values(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        """See `Rows.read_values`."""
        return torch.stack([self.read(slots, layer, count)[1] for layer in range(layers.start, layers.stop)], 1)

    def move(self, slots: Tensor, layers: slice, source: Tensor, counts: Tensor) -> None:
        """See `Rows.move`."""
        tables, count = self._tables, source.shape[3]
        place, head = torch.arange(count, device=slots.device), torch.arange(tables.heads, device=slots.device)
        stored = (place < counts[:, None, None]).expand(-1, tables.heads, -1)  # the others may have no page
        for number, layer in enumerate(range(layers.start, layers.stop)):
            width = int(source[:, number].max()) + 1
            index = source[:, number, :, :, None]
            keys, values = (
                part.gather(2, index.expand(-1, -1, -1, part.shape[3])) for part in self.read(slots, layer, width)
            )
            origin, target = (
                tables.page_table[slots[:, None, None], layer, head[:, None], places // tables.page_tokens].long()
                * tables.page_tokens
                + places % tables.page_tokens
                for places in (source[:, number], place)
            )
            self._pages.move(origin[stored], target[stored], keys[stored], values[stored])

    def shrink(self, kept: Sequence[tuple[int, int]]) -> None:
        """See `Rows.shrink`; the lengths say how many entries there are."""
        for slot, _ in kept:
            for layer in range(self._tables.layers):
                self._tables.recycle_empty_pages(slot, layer)


class ReferenceAttention:
    """One worker's cache: its tables, its method and its pages."""

    def __init__(self, tables: EntryTables, method: WorkerMethod, pages: Pages) -> None:
        self.tables, self.method, self.pages = tables, method, pages
        self.rows = _PageRows(tables, pages)

    def decode(self, batch: DecodeBatch, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Write one entry into every list of a layer, in place of an expired one if there is any, and attend.

        Args:
            batch: The requests.
            queries: (requests, heads, group, head_dim), after RoPE.
            keys: (requests, heads, head_dim), after RoPE.
            values: As keys.
            scale: Factor on the scores.

        Returns:
            (requests, heads, group, head_dim).
        """
        if isinstance(self.method, WorkerHosted):
            return self._decode_hosted(self.method, batch, queries, keys, values, scale)
        tables, slots, layer = self.tables, batch.slots, batch.layer

        # Evict. Attention knows no mask, so whatever has expired must be out of the list: at most one entry may stay,
        # which the new one overwrites.
        self.method.lower_expiries(batch)
        is_expired = self._expired(batch)
        if bool((is_expired.sum(-1) > 1).any()):  # a method that lets several go at once
            batch = self._close_gaps(batch, is_expired)
            is_expired = self._expired(batch)

        # Choose a place, the expired entry's or the next at the end, and append a page where the end has none.
        any_expired = is_expired.any(-1)
        places = torch.where(any_expired, is_expired.to(torch.uint8).argmax(-1), batch.lens)
        tables.append_pages(slots, layer, (places >= tables.num_pages[slots, layer] * tables.page_tokens).long())

        # Write the entry, its expiry, and the new length.
        entries = tables.entry_numbers(slots, layer, places)
        dim = keys.shape[-1]
        self.pages.write(entries.flatten(), keys.reshape(-1, dim), values.reshape(-1, dim))
        expiry = self.method.decode_expiry(batch)
        if isinstance(expiry, Tensor):
            expiry = (expiry if expiry.ndim == entries.ndim else expiry[:, None]).expand_as(entries)
        tables.expiry.view(-1)[entries] = expiry
        tables.newest[slots, layer] = places.to(torch.int32)
        lens = torch.maximum(batch.lens, places + 1).to(torch.int32)
        tables.lens[slots, layer] = lens
        self.method.record_places(batch, places)

        # Attend: every (request, KV head) is a sequence of its own.
        width = -(-int(lens.max()) // tables.page_tokens)
        table = tables.page_table[slots, layer, :, :width].flatten(0, 1)
        out = self.pages.attend(queries.flatten(0, 1), lens.flatten(), table.contiguous(), scale)
        grouped_out: Tensor = out.view(queries.shape)
        return grouped_out

    def _decode_hosted(
        self, method: WorkerHosted, batch: DecodeBatch, queries: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> Tensor:
        """As `decode`, for a method that names the places itself."""
        tables, slots, layer = self.tables, batch.slots, batch.layer
        if layer == 0:
            method.begin(slots, batch.positions)
        flat_queries = queries.flatten(1, 2)
        width = int(batch.lens.max()) + 1
        places, selected = method.choose_places(layer, flat_queries, keys, values, scale, width)
        tables.append_pages(slots, layer, (places >= tables.num_pages[slots, layer] * tables.page_tokens).long())
        entries, dim = tables.entry_numbers(slots, layer, places), keys.shape[-1]
        self.pages.write(entries.flatten(), keys.reshape(-1, dim), values.reshape(-1, dim))
        tables.expiry.view(-1)[entries] = NEVER
        lens = torch.maximum(batch.lens, places + 1).to(torch.int32)
        tables.lens[slots, layer] = lens
        if selected is None and not method.needs_weights:
            columns = -(-int(lens.max()) // tables.page_tokens)
            table = tables.page_table[slots, layer, :, :columns].flatten(0, 1).contiguous()
            out = self.pages.attend(queries.flatten(0, 1), lens.flatten(), table, scale).view(queries.shape)
        else:
            row_keys, row_values = self.rows.read(slots, layer, width)
            visible = (torch.arange(width, device=lens.device) < lens[..., None])[:, :, None]
            scores = queries @ row_keys.transpose(2, 3) * scale  # (requests, heads, group, width)
            scores = scores.masked_fill(~(visible if selected is None else visible & selected), float("-inf"))
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
            out = weights.to(row_values.dtype) @ row_values
            if method.needs_weights:
                method.observe(layer, weights)
        if layer == tables.layers - 1:
            method.end()
        return out

    def _expired(self, batch: DecodeBatch) -> Tensor:
        """(requests, heads, places) bool: entries that the queries no longer see."""
        # Lists are ragged; they are looked at as wide as the longest one, and masked by their lengths.
        tables = self.tables
        width = -(-max(int(batch.lens.max()), 1) // tables.page_tokens)
        table = tables.page_table[batch.slots, batch.layer, :, :width].long()
        expiry = tables.expiry[table].flatten(2)
        in_list = torch.arange(expiry.shape[2], device=expiry.device) < batch.lens[..., None]
        is_expired: Tensor = in_list & (expiry <= batch.positions[:, None, None])
        return is_expired

    def _close_gaps(self, batch: DecodeBatch, is_expired: Tensor) -> DecodeBatch:
        """Leave at most one expired entry in any list, and give back the pages that then are empty."""
        for row in torch.nonzero((is_expired.sum(-1) > 1).any(-1))[:, 0].tolist():
            slot = int(batch.slots[row])
            candidates = self._read_lists(slot, batch.layer)
            # The first expired entry stays: the new one takes its place.
            is_removed = is_expired[row] & (is_expired[row].cumsum(-1) > 1)
            in_list = torch.arange(is_removed.shape[-1], device=is_removed.device) < batch.lens[row][:, None]
            survives = (in_list & ~is_removed)[:, : candidates[2].shape[1]]
            newest = self.tables.newest[slot, batch.layer].long()
            num_stored = candidates[2].shape[1]
            self._rewrite(slot, batch.layer, candidates, survives, newest, None, num_stored)
        lens = self.tables.lens[batch.slots, batch.layer].long()
        return DecodeBatch(batch.layer, batch.slots, batch.positions, lens, batch.verdicts)

    def attend_chunk(
        self, chunk: RequestChunk, queries: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attend with a chunk of one request's tokens to what is stored and to the chunk; store what survives it.

        Args:
            chunk: The chunk.
            queries: (tokens, heads, group, head_dim), after RoPE.
            keys: (tokens, heads, head_dim), after RoPE.
            values: As keys.
            scale: Factor on the scores.

        Returns:
            (tokens, heads, group, head_dim), and (tokens,) int64: the entries, of all heads, that each query read.
        """
        self.method.lower_expiries_before(chunk)
        if isinstance(self.method, WorkerHosted):
            self.method.keep_queries(chunk.slot, chunk.layer, queries.flatten(1, 2), chunk.start, scale)

        # Candidates: the stored entries, padded to the longest list, then the chunk's tokens.
        stored_keys, stored_values, stored_expiry = self._read_lists(chunk.slot, chunk.layer)
        num_stored = stored_expiry.shape[1]
        all_keys = torch.cat([stored_keys, keys.transpose(0, 1)], 1)
        all_values = torch.cat([stored_values, values.transpose(0, 1)], 1)
        expiry = torch.cat([stored_expiry, self.method.chunk_expiry(chunk)], 1)
        in_list = torch.arange(num_stored, device=expiry.device) < self.tables.lens[chunk.slot, chunk.layer][:, None]
        position = torch.arange(chunk.start, chunk.stop, device=expiry.device)

        # A query sees what has not expired at its position; of the chunk, only tokens up to its own.
        # Reads are counted here as they cannot be known from lengths: entries expire while the chunk is processed.
        out, reads = torch.empty_like(queries), torch.empty_like(position)
        for begin in range(0, len(position), _QUERY_BLOCK):
            block = slice(begin, begin + _QUERY_BLOCK)
            query = position[block, None]
            visible = query < expiry[:, None]  # (heads, queries, candidates)
            visible[:, :, :num_stored] &= in_list[:, None]
            visible[:, :, num_stored:] &= position <= query
            reads[block] = visible.sum((0, 2))
            attention = scaled_dot_product_attention(
                queries[block].permute(1, 2, 0, 3),
                all_keys[:, None].expand(-1, queries.shape[2], -1, -1),
                all_values[:, None].expand(-1, queries.shape[2], -1, -1),
                attn_mask=visible[:, None],
                scale=scale,
            )
            out[block] = attention.permute(2, 0, 1, 3)

        # Store what the next query, at position ``stop``, will see.
        in_chunk = torch.ones(len(expiry), len(position), dtype=torch.bool, device=expiry.device)
        survives = torch.cat([in_list, in_chunk], 1) & (expiry > chunk.stop)
        order = self.method.order_after(chunk, num_stored)
        newest = torch.full((len(expiry),), expiry.shape[1] - 1, device=expiry.device)
        candidates = (all_keys, all_values, expiry)
        self._rewrite(chunk.slot, chunk.layer, candidates, survives, newest, order, num_stored)
        return out, reads

    def _read_lists(self, slot: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """A request's entries of a layer: keys and values (heads, longest, head_dim), expiries (heads, longest).

        Places that hold no entry are zeros: what lies there is another request's, and may not be finite.
        """
        tables = self.tables
        longest = int(tables.lens[slot, layer].max())
        table = tables.page_table[slot, layer, :, : -(-longest // tables.page_tokens)].long()
        keys, values = self.pages.read(table.flatten())
        shape = (tables.heads, table.shape[1] * tables.page_tokens, keys.shape[-1])
        expiry = tables.expiry[table].flatten(1)[:, :longest]
        empty = (torch.arange(longest, device=table.device) >= tables.lens[slot, layer][:, None])[..., None]
        keys, values = keys.reshape(shape)[:, :longest], values.reshape(shape)[:, :longest]
        return keys.masked_fill(empty, 0), values.masked_fill(empty, 0), expiry

    def _rewrite(
        self,
        slot: int,
        layer: int,
        candidates: tuple[Tensor, Tensor, Tensor],
        survives: Tensor,
        newest: Tensor,
        order: EntryOrder | None,
        num_stored: int,
    ) -> None:
        """Make the survivors a request's lists of a layer, closed up, or in the order that the method asks for.

        Args:
            slot: The request's slot.
            layer: The layer.
            candidates: Keys and values (heads, candidates, head_dim), expiries (heads, candidates).
            survives: (heads, candidates) bool; not looked at if there is an order.
            newest: (heads,) int64, which candidate is the newest token's.
            order: Where entries are to lie; None if any order will do.
            num_stored: How many of the candidates, all in front and by their places, the lists have already.
        """
        tables, (keys, values, expiry) = self.tables, candidates
        if order is None:
            # A stable sort of "is removed" brings the survivors to the front and keeps their order.
            source, lens = torch.argsort((~survives).to(torch.uint8), dim=1, stable=True), survives.sum(1)
        else:
            source, lens = order.source, order.lens
        in_list = torch.arange(source.shape[1], device=source.device) < lens[:, None]
        slots = torch.tensor([slot], device=source.device)
        pages = -(-lens // tables.page_tokens)
        tables.append_pages(slots, layer, (pages - tables.num_pages[slots, layer][0]).clamp(min=0)[None])
        # Candidates are copies, so writing over the entries that they were read from does no harm.
        head, place = torch.nonzero(in_list, as_tuple=True)
        origin = source[head, place]
        page = tables.page_table[slot, layer, head, place // tables.page_tokens].long()
        entries = page * tables.page_tokens + place % tables.page_tokens
        # Entries that the lists have had move first: what is new may lie where they were.
        moves = origin < num_stored
        moved_place = origin.clamp(max=max(num_stored - 1, 0))
        moved_page = tables.page_table[slot, layer, head, moved_place // tables.page_tokens].long()
        moved = moved_page * tables.page_tokens + moved_place % tables.page_tokens
        new_keys, new_values = keys[head, origin], values[head, origin]
        self.pages.move(moved[moves], entries[moves], new_keys[moves], new_values[moves])
        self.pages.write(entries[~moves], new_keys[~moves], new_values[~moves])
        tables.expiry.view(-1)[entries] = expiry[head, origin].to(torch.int32)
        tables.lens[slot, layer] = lens.to(torch.int32)
        tables.newest[slot, layer] = (in_list & (source == newest[:, None])).to(torch.uint8).argmax(1).to(torch.int32)
        tables.recycle_empty_pages(slot, layer)

    def compact(self, slot: int) -> None:
        """Give superblocks back that a request no longer fills (`EntryTables.compact`)."""
        if moves := self.tables.compact(slot):
            self.pages.copy(*torch.tensor(moves, device=self.tables.expiry.device).T)
