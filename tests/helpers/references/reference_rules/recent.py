"""Window and attention sinks as their definitions read; see `stepwise_reference`."""

from stepwise_reference import ReferenceRule


class Window(ReferenceRule):
    def fixed(self):
        """How many of the first positions are never evicted."""
        return self.prompt if self.method.pin_prompt else 0

    def prune_prompt(self, layer, queries, weights):
        row = list(range(self.prompt))
        while len(row) > self.first_room():
            row.remove(min(p for p in row if p >= self.fixed()))
        return [list(row) for _ in range(self.kv_heads)]

    def slot(self, layer, head, row, position, queries):
        if len(row) < self.budget(position + 1):
            return len(row)
        return row.index(min(p for p in row if p >= self.fixed()))


class Streaming(Window):
    def fixed(self):
        return max(super().fixed(), self.method.sinks)

    def budget(self, n):
        return max(super().budget(n), self.fixed() + self.method.recent)
