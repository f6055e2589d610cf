"""The slow, obvious reference: full attention over all tokens with a dense mask per head, rules as Python loops."""

import torch
from torch.nn.functional import linear

from hyperscale.kv.prefilled import NEVER
from hyperscale.utils import counter_rng


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def forward(model, ids, expiry, borrowed=False, zeroing="before_and_after_rope"):
    """Full attention over ``ids``: key k of a head is visible to query q iff k <= q < expiry(layer, hidden)[head, k].

    With ``borrowed``, the last dimension of each group's first query is 0 when ``zeroing`` says so.

    Returns: logits (tokens, vocabulary), keys per layer (kv_heads, tokens, head_dim), expiry per layer.
    """
    inner = model.model
    hidden = inner.embed_tokens(torch.tensor([ids]))
    positions = torch.arange(len(ids))
    cos, sin = inner.rotary_emb(hidden, positions[None])
    keys, expiries = [], []
    for index, layer in enumerate(inner.layers):
        attention = layer.self_attn
        dim = attention.head_dim
        gone = expiry(index, hidden)
        x = layer.input_layernorm(hidden)[0]

        def heads(name, x=x, attention=attention, dim=dim):
            y = getattr(attention, name + "_proj")(x).view(len(ids), -1, dim)
            norm = getattr(attention, name + "_norm", None)
            return (norm(y) if norm is not None else y).transpose(0, 1)

        q, k, v = heads("q"), rotate(heads("k"), cos[0], sin[0]), heads("v")
        group = len(q) // len(k)
        lent = range(0, len(q), group) if borrowed else ()
        for head in lent if zeroing != "never" else ():
            q[head, :, -1] = 0
        q = rotate(q, cos[0], sin[0])
        for head in lent if zeroing == "before_and_after_rope" else ():
            q[head, :, -1] = 0
        visible = (positions[None, :] <= positions[:, None])[None] & (positions[None, :, None] < gone[:, None, :])
        out = torch.zeros_like(q)
        for head in range(len(q)):
            scores = q[head] @ k[head // group].T * attention.scaling
            out[head] = scores.masked_fill(~visible[head // group], float("-inf")).softmax(-1) @ v[head // group]
        hidden = hidden + attention.o_proj(out.transpose(0, 1).reshape(1, len(ids), -1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        keys.append(k)
        expiries.append(gone)
    return linear(inner.norm(hidden)[0], model.lm_head.weight), keys, expiries


def live(expiry, query):
    """Which keys (kv_heads, tokens) a query sees."""
    return (torch.arange(expiry.shape[1]) <= query) & (query < expiry)


def reads_and_peak(expiries, prompt, tokens, pending=1):
    """Brute-force count over the full masks: (reads, peak), summed over layers and heads, after ``tokens`` tokens.

    ``pending`` is the number of last tokens on which no verdict has come.
    """
    counts = [sum(int(live(e, q).sum()) for e in expiries) for q in range(prompt, prompt + tokens - 1)]
    # The end of prefill holds what the next query may still see; the verdicts on the last tokens are yet to come.
    pending = min(pending, prompt)
    first = sum(int((e[:, : prompt - pending] > prompt).sum()) + pending * len(e) for e in expiries)
    return sum(counts), max([first, *counts])


def keep_all(kv_heads):
    return lambda layer, hidden: torch.full((kv_heads, hidden.shape[1]), NEVER)


def dms(model, margins=None):
    """Verdict on token i from hidden state i + d; a flagged key is gone from query i + w + 1 on."""
    config = model.config

    def neurons(layer, hidden):
        attention = layer.self_attn
        queries = attention.q_proj(layer.input_layernorm(hidden))[0].view(hidden.shape[1], -1, attention.head_dim)
        if hasattr(attention, "q_norm"):
            queries = attention.q_norm(queries)
        group = config.num_attention_heads // config.num_key_value_heads
        return torch.stack([queries[:, head * group, -1] for head in range(config.num_key_value_heads)], 1)

    later = getattr(config, "dms_decision_offset", 1)

    def expiry(layer, hidden):
        layer = model.model.layers[layer]
        attention = layer.self_attn
        if config.dms_separate_alpha:
            raw = attention.dms_proj_alpha(attention.dms_proj_alpha_norm(hidden))[0]
        else:
            raw = neurons(layer, hidden)
        logits = raw * config.dms_alpha_scale - config.dms_initial_alpha_offset
        if config.dms_alpha_per == "layer":
            logits = logits[:, [0] * config.num_key_value_heads]
        if margins is not None:
            margins.append(float(logits.abs().min()))
        gone = torch.full(logits.T.shape, NEVER)
        for head in range(logits.shape[1]):
            for i in range(len(logits) - later):
                if logits[i + later, head] > 0:
                    gone[head, i] = i + config.dms_window_size + 1
        return gone

    return expiry


def pinned(method, prompt, length, max_new, layers, kv_heads, victim):
    """Expiries of a pinned method: ``victim(layer, head, slots, step)`` names the slot to evict.

    ``slots`` is the row as the cache stores it: the position of the token in each slot.
    """
    result = []
    for layer in range(layers):
        gone = torch.full((kv_heads, length), NEVER)
        for head in range(kv_heads):
            slots = list(range(prompt))
            for q in range(prompt, length):
                proportional = -(-(q + 1) // method.cr)
                fixed = -(-(prompt + max_new) // method.cr)
                share = proportional if method.rule == "proportional" else fixed
                if len(slots) < max(prompt + method.recent, share):
                    slots.append(q)
                else:
                    slot = victim(layer, head, slots, q - prompt)
                    gone[head, slots[slot]] = q
                    slots[slot] = q
        result.append(gone)
    return result


def oldest(prompt):
    return lambda layer, head, slots, step: slots.index(min(slots[prompt:]))


def at_random(prompt, recent, kv_heads, key):
    def victim(layer, head, slots, step):
        newest = sorted(slots[prompt:])[len(slots) - prompt - recent + 1 :]
        candidates = [slot for slot in range(prompt, len(slots)) if slots[slot] not in newest]
        bits = counter_rng.mix(counter_rng.mix(torch.tensor([key]), step), layer * kv_heads + head)
        return candidates[int(counter_rng.uniform(bits) * len(candidates))]

    return victim
