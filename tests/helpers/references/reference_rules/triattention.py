"""TriAttention as the terms of its paper read; see `stepwise_reference`."""

import math

import torch

from reference_rules.interval import Observed


def unrotated(vectors, positions):
    """Complex numbers (vectors, frequencies), and the frequencies; the base is the default of the tiny models."""
    half = vectors.shape[1] // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    pairs = torch.complex(vectors[:, :half].double(), vectors[:, half:].double())
    return pairs * torch.exp(-1j * omega * torch.tensor(positions)[:, None]), omega


class TriAttention(Observed):
    def score(self, layer, head, positions):
        pinned = self.prompt if self.method.pin_prompt else 0
        rivals = [i for i, p in enumerate(positions) if p >= pinned]
        best = [-math.inf] * len(positions)
        for g in range(len(self.queries[layer][head][0])):
            scores = self._of_head(layer, head, g, positions)
            mean = sum(scores[i] for i in rivals) / len(rivals)
            deviation = math.sqrt(sum((scores[i] - mean) ** 2 for i in rivals) / len(rivals))
            best = [max(b, (s - mean) / max(deviation, 1e-6)) for b, s in zip(best, scores, strict=True)]
        return best

    def _of_head(self, layer, head, g, positions):
        every = torch.stack([q[g] for q in self.queries[layer][head]])
        queries, omega = unrotated(every, range(len(every)))
        keys, _ = unrotated(self.keys[layer][head][positions], positions)
        centre, size = queries.mean(0), queries.abs().mean(0)
        scores = []
        for p, key in zip(positions, keys, strict=True):
            amplitude, phase = centre.abs() * key.abs(), (centre * key.conj()).angle()
            offsets = [2**i for i in range(64) if 2**i <= self.method.horizon]
            terms = [(amplitude * torch.cos(omega * (len(every) + d - p) + phase)).sum() for d in offsets]
            scores.append(float(sum(terms) / len(terms) + ((size - centre.abs()) * key.abs()).sum()))
        return scores
