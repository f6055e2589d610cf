"""Knorm as its definition reads; see `stepwise_reference`."""

from reference_rules.interval import Interval


class Knorm(Interval):
    def score(self, layer, head, positions):
        return [-(sum(x * x for x in self.keys[layer][head][p].tolist()) ** 0.5) for p in positions]
