"""KeyDiff as its definition reads; see `stepwise_reference`."""

from reference_rules.interval import Interval


class KeyDiff(Interval):
    def score(self, layer, head, positions):
        keys = [self.keys[layer][head][p] for p in positions]
        anchor = sum(k / k.norm() for k in keys) / len(keys)
        # Scaled by the anchor's length, which is the same for all: near 0 the cosine itself is all rounding.
        return [-float(k @ anchor / k.norm()) for k in keys]
