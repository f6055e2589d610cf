"""The slow, obvious reference for rules that depend on what is attended to: one chain, one token, one head at a time.

Every key and value ever made is kept; a row is a list of the positions that live, in the order of their slots. A
`ReferenceRule` says, in plain Python, what happens to the list.
"""

import torch
from dense_reference import rotate
from torch.nn.functional import linear


class ReferenceRule:
    """What a method does to one chain. Subclasses override what they need; they may keep what they like.

    ``rows[layer][head]`` is the list of live positions in slot order; ``self.keys[layer]`` and ``self.values[layer]``
    are (kv_heads, tokens so far, head_dim). ``start`` is a copy of the rows after prefill.
    """

    def __init__(self, method, prompt, L, layers, kv_heads, key):
        self.method, self.prompt, self.L, self.key = method, prompt, L, key
        self.layers, self.kv_heads = layers, kv_heads
        self.margins = []  # how clear each decision was: |difference| of the numbers compared
        self.keys, self.values, self.rows = {}, {}, []

    @staticmethod
    def prepare(model, seed):
        """The model that the method runs on; a retrofit where it needs one."""
        return model

    def run(self, model, ids, prompt):
        """See `run`."""
        return run(model, ids, prompt, self)

    def budget(self, n):
        """Most entries of a row while the n-th token of the sequence is processed."""
        m = self.method
        always = m.recent + (self.prompt if m.pin_prompt else 0)
        share = getattr(m, "budget", None) or (n if m.rule == "proportional" else self.prompt + self.L) / m.cr
        return max(always, int(-(-share // 1)))

    def first_room(self):
        """Entries that may stay of the prompt."""
        return self.budget(self.prompt + 1) - 1

    def prune_prompt(self, layer, queries, weights):
        """Per KV head, the positions of the prompt that stay.

        Queries: (kv_heads, group, P, head_dim), weights: (kv_heads, group, P, P).
        """
        return [list(range(self.prompt)) for _ in range(self.kv_heads)]

    def before_step(self, position):
        """Called before a step; may prune ``self.rows``."""

    def slot(self, layer, head, row, position, queries):
        """Slot that the new entry takes: len(row) to append. Queries: (group, head_dim), after RoPE."""
        return len(row)

    def entry(self, layer, head, position):
        """Hook for mergers: may change ``self.keys[layer][head, …]`` after the slot is taken."""

    def read(self, layer, head, row, queries):
        """Per query head of the group, the slots that it reads."""
        return [list(range(len(row)))] * len(queries)

    def observe(self, layer, weights, position):
        """Weights: per KV head (group, len(row)), of the step that processed ``position``."""

    def evictable(self, row, position):
        """Slots whose entries may make room for the entry of ``position``."""
        pinned = self.prompt if self.method.pin_prompt else 0
        newest = position - self.method.recent + 1  # the entry of ``position`` is one of the recent ones
        return [slot for slot, p in enumerate(row) if slot >= pinned and p < newest]

    def smallest(self, scores):
        """Index of the smallest of a list of floats, the first among equals; remembers how close it was."""
        best = min(range(len(scores)), key=lambda i: scores[i])
        rest = [s for i, s in enumerate(scores) if i != best]
        if rest:
            scale = max(abs(scores[best]), max(abs(s) for s in rest if s != float("inf")) if rest else 0, 1e-9)
            self.margins.append((min(rest) - scores[best]) / scale)
        return best


def projected(attention, name, x):
    """Queries, keys or values (q, k, v) before norm and RoPE; Phi-3 has them in one matrix, in this order."""
    if not hasattr(attention, "qkv_proj"):
        return getattr(attention, name + "_proj")(x)
    heads = attention.config.num_attention_heads
    kv_heads = attention.config.num_key_value_heads
    sizes = [number * attention.head_dim for number in (heads, kv_heads, kv_heads)]
    return attention.qkv_proj(x).split(sizes, -1)["qkv".index(name)]


def run(model, ids, prompt, rule):
    """Process ``ids``, of which ``prompt`` are the prompt.

    Returns: logits after each decode step, rows [step][layer][head] of positions at its end, keys read per step.
    """
    inner, config = model.model, model.config
    # Gemma's and Granite's factors, as their papers and model cards have them.
    embedding_factor = config.hidden_size**0.5 if config.model_type == "gemma" else 1.0
    rule.scaling = inner.layers[0].self_attn.scaling  # the same in all layers
    embedding_factor *= getattr(config, "embedding_multiplier", 1.0)
    residual_factor = getattr(config, "residual_multiplier", 1.0)
    logits_divisor = getattr(config, "logits_scaling", 1.0)

    def embed(tokens):
        return embedding_factor * inner.embed_tokens.weight[torch.tensor(tokens)]

    cos, sin = inner.rotary_emb(inner.embed_tokens(torch.tensor([ids])), torch.arange(len(ids))[None])
    cos, sin = cos[0], sin[0]

    def project(layer, hidden, at):
        attention = layer.self_attn
        x = layer.input_layernorm(hidden)
        projections = []
        for name in ("q", "k", "v"):
            y = projected(attention, name, x).view(len(x), -1, attention.head_dim)
            norm = getattr(attention, name + "_norm", None)
            y = (norm(y) if norm is not None else y).transpose(0, 1)
            turns = name != "v" and getattr(attention, "use_rope", True)
            projections.append(rotate(y, cos[at], sin[at]) if turns else y)
        return projections

    def finish_layer(layer, hidden, out):
        hidden = hidden + residual_factor * layer.self_attn.o_proj(out)
        return hidden + residual_factor * layer.mlp(layer.post_attention_layernorm(hidden))

    hidden = embed(ids[:prompt])
    future = torch.ones(prompt, prompt, dtype=torch.bool).triu(1)
    for index, layer in enumerate(inner.layers):
        q, k, v = project(layer, hidden, slice(0, prompt))
        group = len(q) // len(k)
        scores = q @ k.repeat_interleave(group, 0).transpose(1, 2) * layer.self_attn.scaling
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        out = weights @ v.repeat_interleave(group, 0)
        rule.keys[index], rule.values[index] = k, v
        grouped = q.view(len(k), group, *q.shape[1:]), weights.view(len(k), group, prompt, prompt)
        rule.rows.append(rule.prune_prompt(index, *grouped))
        hidden = finish_layer(layer, hidden, out.transpose(0, 1).reshape(prompt, -1))

    rule.start = [[list(row) for row in rows] for rows in rule.rows]
    logits, held, read = [], [], []
    for position in range(prompt, len(ids)):
        rule.before_step(position)
        hidden = embed([ids[position]])
        count = 0
        for index, layer in enumerate(inner.layers):
            q, k, v = project(layer, hidden, slice(position, position + 1))
            rule.keys[index] = torch.cat([rule.keys[index], k], 1)
            rule.values[index] = torch.cat([rule.values[index], v], 1)
            group = len(q) // len(k)
            out = torch.zeros(len(q), k.shape[2])
            weights_by_head = []
            for head, row in enumerate(rule.rows[index]):
                head_queries = q[head * group : (head + 1) * group, 0]
                slot = rule.slot(index, head, row, position, head_queries)
                row[slot : slot + 1] = [position]
                rule.entry(index, head, position)
                weights_by_slot = torch.zeros(group, len(row))
                union = set()
                for g, slots in enumerate(rule.read(index, head, row, head_queries)):
                    at = [row[s] for s in slots]
                    union |= set(slots)
                    w = (rule.keys[index][head][at] @ head_queries[g] * layer.self_attn.scaling).softmax(0)
                    out[head * group + g] = w @ rule.values[index][head][at]
                    weights_by_slot[g, slots] = w
                count += len(union)
                weights_by_head.append(weights_by_slot)
            rule.observe(index, weights_by_head, position)
            hidden = finish_layer(layer, hidden, out.reshape(1, -1))
        logits.append(linear(inner.norm(hidden)[0], model.lm_head.weight) / logits_divisor)
        held.append([[list(row) for row in rows] for rows in rule.rows])
        read.append(count)
    return logits, held, read
