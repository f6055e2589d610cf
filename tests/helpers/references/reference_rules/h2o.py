"""H2O as its definition reads; see `stepwise_reference`."""

from stepwise_reference import ReferenceRule


class H2O(ReferenceRule):
    def safe(self, n):
        """How many of the newest entries stay while the n-th token is processed."""
        free = self.budget(n) - (self.prompt if self.method.pin_prompt else 0)
        return max(free - int(free * self.method.heavy), 1)

    def lightest(self, layer, head, positions):
        return positions[self.smallest([self.received[layer][head][p] for p in positions])]

    def prune_prompt(self, layer, queries, weights):
        self.received = getattr(self, "received", {})
        self.received[layer] = [{p: float(mine[:, :, p].sum()) for p in range(self.prompt)} for mine in weights]
        rows = super().prune_prompt(layer, queries, weights)
        for head, row in enumerate(rows):
            while len(row) > self.first_room():
                row.remove(self.lightest(layer, head, row[: len(row) - (self.safe(self.prompt + 1) - 1)]))
        return rows

    def slot(self, layer, head, row, position, queries):
        if len(row) < self.budget(position + 1):
            return len(row)
        pinned = self.prompt if self.method.pin_prompt else 0
        old = [p for p in row if p >= pinned and p <= position - self.safe(position + 1)]
        return row.index(self.lightest(layer, head, old))

    def observe(self, layer, weights, position):
        for head, (row, mine) in enumerate(zip(self.rows[layer], weights, strict=True)):
            for slot, p in enumerate(row):
                self.received[layer][head][p] = self.received[layer][head].get(p, 0.0) + float(mine[:, slot].sum())
