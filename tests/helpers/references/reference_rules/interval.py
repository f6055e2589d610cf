"""Rules that fill a row and prune it, as `hyperscale.methods.core.interval` words them; see `stepwise_reference`."""

from stepwise_reference import ReferenceRule


class Interval(ReferenceRule):
    """Subclasses say how much the entry of each position of a row is worth."""

    def score(self, layer, head, positions):
        """One float per position of the row, the higher the better."""
        raise NotImplementedError

    def prune_size(self, budget):
        return max(min(self.method.interval, budget // 8), 1)

    def budget(self, n):
        m = self.method
        safe = m.recent + (self.prompt if m.pin_prompt else 0)
        always = max(b for b in range(safe, 2 * safe + 2) if b - self.prune_size(b) == safe)
        share = m.budget or (n if m.rule == "proportional" else self.prompt + self.L) / m.cr
        return max(always, int(-(-share // 1)))

    def prune(self, layer, head, row, budget):
        m = self.method
        pinned = self.prompt if m.pin_prompt else 0
        left = max(budget - self.prune_size(budget), pinned + m.recent)
        newest = row[len(row) - m.recent :]
        others = [p for p in row if p >= pinned and p not in newest]
        worth = dict(zip(row, self.score(layer, head, row), strict=True))
        leaving = len(others) + pinned + len(newest) - left
        ranked = sorted(others, key=lambda p: (worth[p], -p))  # among equals the youngest leaves
        if 0 < leaving < len(ranked):
            last, first = worth[ranked[leaving - 1]], worth[ranked[leaving]]
            self.margins.append((first - last) / max(abs(first), abs(last), 1e-9))
        others = sorted(ranked[leaving:])
        return [*range(pinned), *others, *newest]

    def prune_prompt(self, layer, queries, weights):
        rows = super().prune_prompt(layer, queries, weights)
        budget = self.budget(self.prompt + 1)
        if self.prompt < budget:
            return rows
        return [self.prune(layer, head, row, budget) for head, row in enumerate(rows)]

    def before_step(self, position):
        budget = self.budget(position + 1)
        for layer, rows in enumerate(self.rows):
            for head, row in enumerate(rows):
                if len(row) >= budget:
                    row[:] = self.prune(layer, head, row, budget)


class Observed(Interval):
    """Remembers every query: ``self.queries[layer][head][position]`` is (group, head_dim)."""

    def prune_prompt(self, layer, queries, weights):
        self.queries = getattr(self, "queries", {})
        self.queries[layer] = [list(mine.transpose(0, 1)) for mine in queries]
        return super().prune_prompt(layer, queries, weights)

    def slot(self, layer, head, row, position, queries):
        self.queries[layer][head].append(queries)
        return len(row)

    def last(self, layer, head):
        """Positions and queries of the last w tokens."""
        every = self.queries[layer][head]
        first = len(every) - self.method.recent
        return [(first + i, q) for i, q in enumerate(every[first:])]

    def scores(self, layer, head, query, positions):
        """(group, positions) scaled products."""
        keys = self.keys[layer][head][positions]
        return query @ keys.T * self.scaling

    def neighbours(self, values, i):
        """Values at distance up to kernel // 2."""
        half = self.method.kernel // 2
        return [values[j] for j in range(i - half, i + half + 1) if 0 <= j < len(values)]
