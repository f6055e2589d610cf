"""A cache of plain tensors and a method that lets anything expire, for tests of the lists without vLLM."""

import torch

from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod


class TensorPages:
    """Pages as (pages, N, head_dim) tensors, attended to list by list."""

    def __init__(self, pages, page_tokens, dim):
        self.keys = torch.full((pages, page_tokens, dim), float("nan"))
        self.values = torch.full((pages, page_tokens, dim), float("nan"))

    def write(self, entries, keys, values):
        assert len(set(entries.tolist())) == len(entries)
        self.keys.view(-1, keys.shape[-1])[entries] = keys
        self.values.view(-1, keys.shape[-1])[entries] = values

    def move(self, source, target, keys, values):
        """By the places alone, as a cache that stores something else than it reads has to."""
        stored = [part.flatten(0, 1)[source] for part in (self.keys, self.values)]
        assert torch.equal(stored[0], keys)
        assert torch.equal(stored[1], values)
        self.write(target, *stored)

    def read(self, pages):
        return self.keys[pages], self.values[pages]

    def copy(self, source, target):
        assert not set(source.tolist()) & set(target.tolist())
        self.keys[target], self.values[target] = self.keys[source], self.values[source]

    def attend(self, queries, lens, table, scale):
        out = torch.empty_like(queries)
        for row, (length, pages) in enumerate(zip(lens.tolist(), table.long(), strict=True)):
            keys, values = self.keys[pages].flatten(0, 1)[:length], self.values[pages].flatten(0, 1)[:length]
            out[row] = (queries[row] @ keys.T * scale).softmax(-1) @ values
        return out


class Anything(WorkerMethod):
    """Entries expire when a function of (slot's key, layer, head, position) says so: late verdicts, bursts, never.

    The entry of position k is gone from query ``expiry(key, layer, head, k)`` on, which is above k.
    """

    def __init__(self, tables, options, expiry):
        super().__init__(tables, options)
        self.expiry = expiry

    def _of(self, slot, layer, positions):
        key = int(self.tables.request_params[slot, 2])
        heads = range(self.tables.heads)
        return torch.tensor([[self.expiry(key, layer, head, k) for k in positions] for head in heads])

    def decode_expiry(self, batch):
        raise NotImplementedError

    def record_places(self, batch, places):
        for row, (slot, position) in enumerate(zip(batch.slots.tolist(), batch.positions.tolist(), strict=True)):
            entries = self.tables.entry_numbers(batch.slots[row : row + 1], batch.layer, places[row : row + 1])[0]
            self.tables.expiry.view(-1)[entries] = self._of(slot, batch.layer, [position])[:, 0].to(torch.int32)

    def chunk_expiry(self, chunk):
        return self._of(chunk.slot, chunk.layer, range(chunk.start, chunk.stop)).to(torch.int32)


def anything(tables, options, expiry):
    method = Anything(tables, options, expiry)
    method.decode_expiry = lambda batch: NEVER
    return method


def check_pages(tables, slots):
    """No page is in two places, every page belongs to its request, and every list has pages for its entries."""
    pages_of_earlier_slots = set()
    for slot in slots:
        superblocks = set(tables.superblocks[slot, : int(tables.num_superblocks[slot])].tolist())
        pages = list(tables._recycled_pages[slot])
        for layer in range(tables.layers):
            for head in range(tables.heads):
                have = int(tables.num_pages[slot, layer, head])
                pages += tables.page_table[slot, layer, head, :have].tolist()
                assert int(tables.lens[slot, layer, head]) <= have * tables.page_tokens
        assert len(pages) == int(tables.pages_used[slot]) <= len(superblocks) * tables.num_lists
        assert {page // tables.num_lists for page in pages} <= superblocks
        assert len(set(pages)) == len(pages)
        assert not pages_of_earlier_slots & set(pages)
        pages_of_earlier_slots |= set(pages)
