"""The cache's pages in plain torch: what the CPU's mechanism stands on, for lists that give up no page."""

import torch

from hyperscale.engines.vllm.kernels.arguments import PagedCache


class PlainPages:
    def __init__(self, cache):
        self.pool = PagedCache.of(cache)
        self.page = self.pool.keys.shape[1]  # entries

    def write(self, entries, keys, values):
        self.pool.keys[entries // self.page, entries % self.page] = keys
        self.pool.values[entries // self.page, entries % self.page] = values

    def move(self, source, target, keys, values):
        self.write(target, keys, values)

    def read(self, pages):
        return self.pool.keys[pages], self.pool.values[pages]

    def copy(self, source, target):
        raise AssertionError("these rules take no page from a list")

    def attend(self, queries, lens, table, scale):
        out = torch.empty_like(queries)
        for i, length in enumerate(lens.tolist()):
            keys, values = (x[table[i].long()].flatten(0, 1)[:length] for x in (self.pool.keys, self.pool.values))
            out[i] = (queries[i] @ keys.T * scale).softmax(-1) @ values
        return out
