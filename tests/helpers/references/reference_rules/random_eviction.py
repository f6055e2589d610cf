"""Random eviction as its definition reads; see `stepwise_reference`."""

import torch
from stepwise_reference import ReferenceRule

from hyperscale.utils import counter_rng


class Random(ReferenceRule):
    def prune_prompt(self, layer, queries, weights):
        return [self._some(layer * self.kv_heads + head) for head in range(self.kv_heads)]

    def _some(self, row):
        """Of the prompt, the newest and those that drew the highest numbers."""
        if self.prompt <= self.first_room():
            return list(range(self.prompt))
        stream = counter_rng.mix(torch.tensor([counter_rng.key("random", "prompt")]), row)
        newest = list(range(max(0, self.prompt - self.method.recent + 1), self.prompt))
        rest = range(self.prompt - len(newest))
        rest = sorted(rest, key=lambda p: -float(counter_rng.uniform(counter_rng.mix(stream, p))))
        return sorted(rest[: self.first_room() - len(newest)] + newest)

    def slot(self, layer, head, row, position, queries):
        if len(row) < self.budget(position + 1):
            return len(row)
        slots = self.evictable(row, position)
        bits = counter_rng.mix(
            counter_rng.mix(torch.tensor([self.key]), position - self.prompt), layer * self.kv_heads + head
        )
        return slots[int(counter_rng.uniform(bits) * len(slots))]
