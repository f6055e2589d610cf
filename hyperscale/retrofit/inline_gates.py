"""Gates that decide inside attention, from queries and keys before RoPE: borrowed neurons of DMS, and merges of DMC.

In training as in the published code: a soft decision is sigmoid((logit + noise) / tau), a token is merged by that much,
and entries are hidden by log(1 - alpha). Query t sees the partial mean up to t; it is hidden from later queries by the
decision of token t + 1. So DMC is attention to means under the mask of a delayed eviction whose window is 0.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from hyperscale.methods.core.dmc_merge import MergeConfig, decisions, rotate_means, running, weighted
from hyperscale.methods.core.dms_gate import GateConfig, borrowed_logits, rotate_borrowed
from hyperscale.methods.core.rotary import Projected, rotate

#: Score added to an entry that is gone; finite so that bfloat16 arithmetic on it stays exact.
GONE = -1e4
#: Modes as numbers: one compiled graph serves them all.
CODES = {"off": 0, "noisy": 1, "hard": 2}


@dataclass(frozen=True)
class Inside:
    """What a layer needs to decide by itself.

    Attributes:
        config: Settings; they say which of the two rules it is.
        cos: (batch, sequence, head_dim), of RoPE.
        sin: As cos.
        noise: (batch, kv_heads, sequence), of the decisions.
        first: (batch, sequence) bool, the first token of each document, which is merged into nothing.
        mode: Scalar, one of `CODES`.
        left: Scalar, what attention still sees of the neurons.
    """

    config: GateConfig | MergeConfig
    cos: Tensor
    sin: Tensor
    noise: Tensor
    first: Tensor
    mode: Tensor
    left: Tensor

    def apply(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values after RoPE; alpha and log(1 - alpha) of each entry, (batch, sequence, kv_heads).

        Args:
            query: (batch, heads, sequence, head_dim), before RoPE.
            key: (batch, kv_heads, sequence, head_dim), before RoPE.
            value: As key.
        """
        projected = Projected(query, key, value, partial(rotate, cos=self.cos, sin=self.sin), prompt=True)
        if isinstance(self.config, MergeConfig):
            logits, weights = decisions(query, key, self.config)
            alpha, bias = self._gates(logits)
            sums = running(weighted(key, value, weights), alpha)
            query, key, value = rotate_means(projected, sums, self.left)
        else:
            alpha, bias = self._gates(borrowed_logits(query, key.shape[1], self.config).transpose(1, 2))
            query, key, value = rotate_borrowed(projected, self.left)
        # The verdict on a token's entry comes from the next token.
        alpha, bias = (pad(each[..., 1:], (0, 1)).transpose(1, 2) for each in (alpha, bias))
        return query.to(value.dtype), key.to(value.dtype), value, alpha, bias

    def _gates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        z = (logits + self.noise) / self.config.tau
        verdict = (logits > 0).to(logits.dtype)
        hard = self.mode == CODES["hard"]
        alpha = torch.where(hard, verdict, torch.sigmoid(z))
        bias = torch.where(hard, verdict * GONE, logsigmoid(-z).clamp_min(GONE))
        counts = (self.mode != CODES["off"]) & ~self.first[:, None]
        return alpha * counts, bias * counts
