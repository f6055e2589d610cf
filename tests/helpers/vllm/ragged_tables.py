"""A cache of plain tensors and a rule that lets anything expire, for tests of the lists without vLLM."""

import torch

from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.rule import Rule


class TensorPages:
    """Pages as (pages, N, head_dim) tensors, attended to list by list."""

    def __init__(self, pages, page_tokens, dim):
        self.keys = torch.full((pages, page_tokens, dim), float("nan"))
        self.values = torch.full((pages, page_tokens, dim), float("nan"))

    def write(self, entries, keys, values):
        assert len(set(entries.tolist())) == len(entries)
        self.keys.view(-1, keys.shape[-1])[entries] = keys
        self.values.view(-1, keys.shape[-1])[entries] = values

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


class Anything(Rule):
    """Entries expire when a function of (slot's key, layer, head, position) says so: late verdicts, bursts, never.

    The entry of position k is gone from query ``expiry(key, layer, head, k)`` on, which is above k.
    """

    def __init__(self, lists, options, expiry):
        super().__init__(lists, options)
        self.expiry = expiry

    def _of(self, slot, layer, positions):
        key = int(self.lists.facts[slot, 2])
        heads = range(self.lists.heads)
        return torch.tensor([[self.expiry(key, layer, head, k) for k in positions] for head in heads])

    def born(self, rows):
        raise NotImplementedError

    def written(self, rows, places):
        for row, (slot, position) in enumerate(zip(rows.slots.tolist(), rows.positions.tolist(), strict=True)):
            entries = self.lists.entries(rows.slots[row : row + 1], rows.layer, places[row : row + 1])[0]
            self.lists.expiry.view(-1)[entries] = self._of(slot, rows.layer, [position])[:, 0].to(torch.int32)

    def born_in(self, span):
        return self._of(span.slot, span.layer, range(span.start, span.stop)).to(torch.int32)


def anything(lists, options, expiry):
    rule = Anything(lists, options, expiry)
    rule.born = lambda rows: NEVER
    return rule


def check_pages(lists, slots):
    """No page is in two places, every page belongs to its request, and every list has pages for its entries."""
    seen = set()
    for slot in slots:
        supply = set(lists.supply[slot, : int(lists.supplied[slot])].tolist())
        owned = list(lists._recycled[slot])
        for layer in range(lists.layers):
            for head in range(lists.heads):
                have = int(lists.capacity[slot, layer, head])
                owned += lists.page_table[slot, layer, head, :have].tolist()
                assert int(lists.lens[slot, layer, head]) <= have * lists.page_tokens
        assert len(owned) == int(lists.bump[slot]) <= len(supply) * lists.size
        assert {page // lists.size for page in owned} <= supply
        assert len(set(owned)) == len(owned)
        assert not seen & set(owned)
        seen |= set(owned)
