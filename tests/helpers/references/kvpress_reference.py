"""The slow, obvious reference of presses: each row evicts by a plain score, computed from keys and queries anew."""

import dense_reference
import torch

from hyperscale.kv.prefilled import NEVER


def keydiff(keys, queries, scale):
    directions = [key / key.norm() for key in keys]
    anchor = sum(directions) / len(keys)
    return torch.stack([-(key @ anchor) / (key.norm() * anchor.norm()) for key in keys])


def knorm(keys, queries, scale):
    return torch.stack([-(key @ key).sqrt() for key in keys])


def each_head(score):
    """A rule that looks at the keys of each head alone."""
    return lambda keys, queries, scale: torch.stack([score(k, queries, scale) for k in keys])


def tova(keys, queries, scale):
    """Attention of the newest query, mean over all query heads; the newest entry stays."""
    group = len(queries) // len(keys)
    weights = [(queries[i] @ keys[i // group].T * scale).softmax(-1) for i in range(len(queries))]
    mean = sum(weights) / len(weights)
    mean[-1] = 2.0
    return mean.expand(len(keys), -1)


SCORES = {
    "KeyDiffPress": each_head(keydiff),
    "KnormPress": each_head(knorm),
    "TOVAPress": tova,
}
"""(keys (kv_heads, entries, head_dim), newest query (query_heads, head_dim), scale) to (kv_heads, entries)."""


def projections(model, layer, hidden):
    """Queries and keys after RoPE of all tokens, each (heads, tokens, head_dim), from a layer's input."""
    attention = model.model.layers[layer].self_attn
    tokens = hidden.shape[1]
    cos, sin = model.model.rotary_emb(hidden, torch.arange(tokens)[None])
    x = model.model.layers[layer].input_layernorm(hidden)[0]
    found = []
    for name in ("q", "k"):
        y = getattr(attention, name + "_proj")(x).view(tokens, -1, attention.head_dim)
        norm = getattr(attention, name + "_norm", None)
        found.append(dense_reference.rotate((norm(y) if norm is not None else y).transpose(0, 1), cos[0], sin[0]))
    return found


def evicts(model, score, prompt, interval, target, margins):
    """Expiries of a press that keeps the ``target`` best entries of each head after every ``interval`` steps.

    ``target`` is a number, or a function of the tokens so far. ``margins`` gets the distance of decisions from ties.
    """

    def expiry(layer, hidden):
        queries, keys = projections(model, layer, hidden)
        gone = torch.full(keys.shape[:2], NEVER)
        alive = [list(range(prompt)) for _ in keys]
        for q in range(prompt, keys.shape[1]):
            for row in alive:
                row.append(q)
            size = target(q + 1) if callable(target) else target
            if (q - prompt + 1) % interval or len(alive[0]) <= size:
                continue
            rows = torch.stack([keys[head, row] for head, row in enumerate(alive)])
            scores = score(rows, queries[:, q], model.model.layers[layer].self_attn.scaling)
            for head, row in enumerate(alive):
                order = scores[head].argsort(descending=True)
                last, first = scores[head, order[size - 1]], scores[head, order[size]]
                margins.append(float((last - first) / max(last.abs(), first.abs())))
                for index in order[size:].tolist():
                    gone[head, row[index]] = q + 1
                alive[head] = [row[index] for index in order[:size].tolist()]
        return gone

    return expiry


def thresholded(model, prompt, window, threshold, margins):
    """Expiries of a DMSPress over key norms: what leaves the window is masked from the next step on."""

    def expiry(layer, hidden):
        keys = projections(model, layer, hidden)[1]
        gone = torch.full(keys.shape[:2], NEVER)
        for head in range(len(keys)):
            for k, key in enumerate(keys[head]):
                margins.append(abs(float(-key.norm()) / threshold - 1))
                if -key.norm() < threshold:
                    gone[head, k] = max(k + window, prompt - 1) + 1
        return gone

    return expiry
