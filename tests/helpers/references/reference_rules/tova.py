"""TOVA as its definition reads; see `stepwise_reference`."""

from stepwise_reference import ReferenceRule


class TOVA(ReferenceRule):
    def prune_prompt(self, layer, queries, weights):
        last = self._scores([w[:, -1] for w in weights])
        kept = [list(range(self.prompt)) for _ in last]
        pinned = self.prompt if self.method.pin_prompt else 0
        for row, scores in zip(kept, last, strict=True):
            newest = range(self.prompt - self.method.recent + 1, self.prompt)
            while len(row) > self.first_room():
                victims = [p for p in row if p >= pinned and p not in newest]
                row.remove(victims[self.smallest([scores[p] for p in victims])])
        return kept

    def _scores(self, weights):
        """Per KV head, one number per slot."""
        sums = [w.sum(0) for w in weights]
        return [(sum(sums) if self.method.per == "layer" else mine).tolist() for mine in sums]

    def slot(self, layer, head, row, position, queries):
        return len(row) if len(row) < self.budget(position + 1) else self.victims[layer][head]

    def observe(self, layer, weights, position):
        self.victims = getattr(self, "victims", {})
        self.victims[layer] = []
        for row, scores in zip(self.rows[layer], self._scores(weights), strict=True):
            slots = self.evictable(row, position + 1)
            best = slots[self.smallest([scores[s] for s in slots])] if slots else None
            self.victims[layer].append(best)
