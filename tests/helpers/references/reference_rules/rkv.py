"""R-KV as its definition reads; see `stepwise_reference`."""

from math import exp, sqrt

from reference_rules.interval import Observed


def softmax(values):
    top = max(values)
    raised = [exp(v - top) for v in values]
    return [r / sum(raised) for r in raised]


class RKV(Observed):
    def score(self, layer, head, positions):
        m = self.method
        older = len(positions) - m.recent
        mean = [0.0] * older
        for _, query in self.last(layer, head):
            scores = self.scores(layer, head, query, positions[:older])
            weights = softmax([max(column) for column in scores.T.tolist()])
            mean = [a + w / m.recent for a, w in zip(mean, weights, strict=True)]
        wanted = [max(self.neighbours(mean, i)) for i in range(older)]
        alike = self.redundancy([self.keys[layer][head][p].tolist() for p in positions])
        worth = [m.mix_lambda * a - (1 - m.mix_lambda) * b for a, b in zip(wanted, alike[:older], strict=True)]
        return worth + [0.0] * m.recent

    def redundancy(self, keys):
        n = len(keys)
        norms = [sqrt(sum(x * x for x in key)) for key in keys]
        links = [[0.0] * n for _ in keys]
        for i in range(n):
            for j in range(n):
                if i != j:
                    links[i][j] = sum(a * b for a, b in zip(keys[i], keys[j], strict=True)) / (norms[i] * norms[j])
                    self.margins.append(100 * abs(links[i][j] - self.method.threshold))  # one of very many
        for row in links:
            near = [j for j in range(n) if row[j] > self.method.threshold]
            for j in near[len(near) - min(self.method.retain, len(near)) :]:
                row[j] = 0.0
        return softmax([sum(row[j] for row in links) / n for j in range(n)])
