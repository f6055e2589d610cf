"""Quest as its definition reads; see `stepwise_reference`."""

from stepwise_reference import ReferenceRule


class Quest(ReferenceRule):
    def read(self, layer, head, row, queries):
        page = self.method.page
        pages = [row[i : i + page] for i in range(0, len(row), page)]
        count = self.budget(len(row)) // page
        if layer < self.method.dense_layers:
            count = len(pages)
        return [self._slots(layer, head, pages, query, count, page) for query in queries]

    def _slots(self, layer, head, pages, query, count, page):
        """The slots of the last page and of the ``count - 1`` others of the highest bound."""
        bounds = []
        for positions in pages[:-1]:
            keys = self.keys[layer][head][positions]
            low, high = keys.amin(0), keys.amax(0)
            terms = zip(query.tolist(), low.tolist(), high.tolist(), strict=True)
            bounds.append(sum(max(q * a, q * b) for q, a, b in terms))
        ranked = sorted(range(len(bounds)), key=lambda p: -bounds[p])
        best, rest = ranked[: count - 1], ranked[count - 1 :]
        if best and rest:  # in which order pages are chosen makes no difference
            self.margins.append((bounds[best[-1]] - bounds[rest[0]]) / max(map(abs, bounds)))
        chosen = [len(pages) - 1, *best]
        return sorted(slot for p in chosen for slot in range(p * page, p * page + len(pages[p])))
