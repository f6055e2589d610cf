"""DMC as its definition reads: one token at a time, in prefill as in decode, each row a list of weighted sums."""

import torch
from dense_reference import rotate
from stepwise_reference import ReferenceRule
from torch.nn.functional import linear

LEAST = 2.0**-23


class DMC(ReferenceRule):
    @staticmethod
    def prepare(model, seed):
        """Random neurons that merge a third, a half or two thirds of all tokens.

        At a scale of 100, as trained checkpoints have it, most weights are 0 or 1, and the least weight counts.
        """
        model.config.dmc_cr, model.config.dmc_alpha_scale = 2.0, (100.0, 1.0)[seed % 2]
        model.config.dmc_initial_alpha_offset = (seed % 3 - 1) * 0.5 * model.config.dmc_alpha_scale
        return model

    def run(self, model, ids, prompt):
        scale, offset = model.config.dmc_alpha_scale, model.config.dmc_initial_alpha_offset
        inner = model.model
        cos, sin = (
            x[0] for x in inner.rotary_emb(inner.embed_tokens(torch.tensor([ids])), torch.arange(len(ids))[None])
        )
        size = model.model.layers[0].self_attn.head_dim
        # Per layer and head: the entries as (sum of w k, sum of w v, sum of w, position of the newest token).
        rows = [[[] for _ in range(self.kv_heads)] for _ in inner.layers]
        self.keys = {i: torch.zeros(self.kv_heads, len(ids), size) for i in range(self.layers)}
        logits, held, read = [], [], []
        for t, token in enumerate(ids):
            hidden = inner.embed_tokens(torch.tensor(token))
            for index, layer in enumerate(inner.layers):
                attention = layer.self_attn
                x = layer.input_layernorm(hidden)
                q, k, v = (getattr(attention, f"{n}_proj")(x).view(-1, size) for n in "qkv")
                if hasattr(attention, "q_norm"):
                    q, k = attention.q_norm(q), attention.k_norm(k)
                group = len(q) // len(k)
                out = torch.zeros_like(q)
                for head, row in enumerate(rows[index]):
                    mine = q[head * group : (head + 1) * group]
                    logit = float(k[head, -1]) * scale - offset
                    weight = torch.sigmoid(mine[:, -1].mean() * scale + offset) + LEAST
                    key = torch.cat([k[head, :-1], torch.zeros(1)])
                    if row:
                        self.margins.append(abs(logit) / scale)
                    if row and logit > 0:
                        ks, vs, ws, _ = row.pop()
                        row.append((ks + weight * key, vs + weight * v[head], ws + weight, t))
                    else:
                        row.append((weight * key, weight * v[head], weight, t))
                    keys = torch.stack([rotate(ks / ws, cos[p], sin[p]) for ks, _, ws, p in row])
                    keys[:, -1] = 0
                    self.keys[index][head, t] = keys[-1]
                    values = torch.stack([vs / ws for _, vs, ws, _ in row])
                    for g in range(group):
                        query = torch.cat([mine[g, :-1], torch.zeros(1)])
                        query = rotate(query, cos[t], sin[t])
                        query[-1] = 0
                        out[head * group + g] = (keys @ query * attention.scaling).softmax(0) @ values
                hidden = hidden + attention.o_proj(out.flatten())
                hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
            now = [[[p for *_, p in row] for row in heads] for heads in rows]
            if t == prompt - 1:
                self.start = now
            if t >= prompt:
                logits.append(linear(inner.norm(hidden), model.lm_head.weight))
                held.append(now)
                read.append(sum(len(row) for heads in now for row in heads))
        return logits, held, read
