"""DMS with a borrowed neuron as the codes of the two formats compute it: masked attention in transformers' own model.

Nothing of the package is used. A hook on the queries before RoPE reads the neuron and zeroes it; the attention function
that transformers calls builds the mask from what was read.
"""

import torch
from transformers import AttentionInterface

NAME = "dms_formats_reference"


def logits(model, ids, *, window, scale, offset, later, after_rope):
    """Logits (tokens, vocabulary) of full attention under the evictions.

    ``later`` is 1 where hidden state i + 1 decides on token i, and 0 where hidden state i does; ``after_rope`` says
    whether the neuron is zeroed a second time after RoPE. A flagged key is seen while it is at most ``window`` old.
    """
    config = model.config
    group = config.num_attention_heads // config.num_key_value_heads
    dim = model.model.layers[0].self_attn.head_dim
    neurons = {}

    def read_and_zero(module, inputs, output):
        queries = output.clone().view(1, len(ids), -1, dim)
        neurons[module.layer] = queries[0, :, ::group, -1].clone()
        queries[:, :, ::group, -1] = 0
        return queries.view(output.shape)

    def attend(module, query, key, value, attention_mask, scaling, **_):
        evict = neurons[module.layer_idx].T * scale - offset > 0  # (kv_heads, tokens)
        if later:
            evict = torch.cat([evict[:, 1:], torch.zeros_like(evict[:, :1])], 1)
        if after_rope:
            query = query.clone()
            query[:, ::group, :, -1] = 0
        place = torch.arange(len(ids))
        age = place[:, None] - place[None, :]
        visible = (age >= 0) & ~(evict[:, None, :] & (age > window))
        scores = query @ key.repeat_interleave(group, 1).transpose(2, 3) * scaling
        scores = scores.masked_fill(~visible.repeat_interleave(group, 0)[None], float("-inf"))
        return (scores.softmax(-1) @ value.repeat_interleave(group, 1)).transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, attend)
    before, hooks = config._attn_implementation, []
    for index, layer in enumerate(model.model.layers):
        source = getattr(layer.self_attn, "q_norm", layer.self_attn.q_proj)
        source.layer = index
        hooks.append(source.register_forward_hook(read_and_zero))
    model.set_attn_implementation(NAME)
    try:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(before)
        for hook in hooks:
            hook.remove()


NVIDIA = {"later": 1, "after_rope": True}
FASTDMS = {"later": 0, "after_rope": False}
