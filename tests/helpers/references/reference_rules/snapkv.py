"""Decode-time SnapKV as its definition reads; see `stepwise_reference`."""

from reference_rules.interval import Observed


class SnapKV(Observed):
    def score(self, layer, head, positions):
        kernel, window = self.method.kernel, self.method.recent
        older = len(positions) - window
        last = self.last(layer, head)
        group = len(last[0][1])
        total = [0.0] * older
        for g in range(group):
            mean = [0.0] * older
            for at, query in last:
                seen = [p for p in positions if p <= at]
                weights = self.scores(layer, head, query, seen)[g].softmax(0).tolist()
                for i in range(older):
                    mean[i] += weights[i] / len(last)
            for i in range(older):
                near = self.neighbours(mean, i)
                total[i] += (sum(near) / kernel if self.method.pooling == "avg" else max(near)) / group
        return total + [0.0] * window
