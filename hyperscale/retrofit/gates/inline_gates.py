"""Decides inside attention, from queries and keys before RoPE: borrowed neurons of DMS, and merges of DMC.

In training as in the published code, with z = (logit + noise) / tau::

    alpha = sigmoid(z)                     a soft decision: the token is merged, or its entry evicted, by that much
    bias  = log(1 - alpha) = logsigmoid(-z)        added to the scores of the entry once the decision is in force

Under the gates of inference (logit > 0) the neurons have no gradient, yet they train with the weights, and where
nothing holds the compression it drifts. So the decisions that are counted have there the gradient of the probability
with which training's noise would have decided so::

    alpha = [logit > 0] + sigmoid(logit) - stop_gradient(sigmoid(logit))

DMC: query t sees the running mean up to t; the decision of token t + 1 hides that mean from later queries, who see the
mean that goes on. So DMC is attention to means under the mask of a delayed eviction whose window is 0.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from hyperscale.methods.core.dmc_merge import MergeConfig, merge_decisions, rotate_means, running_sums, weighted_terms
from hyperscale.methods.core.dms_gate import GateConfig, borrowed_logits, rotate_borrowed
from hyperscale.methods.core.rotary import Projected, rotate

#: Score added to an entry that is gone; finite so that bfloat16 arithmetic on it stays exact.
GONE = -1e4
#: Modes as numbers: one compiled graph serves them all.
CODES = {"off": 0, "noisy": 1, "hard": 2}


@dataclass(frozen=True)
class InlineGates:
    """What a layer needs to decide by itself.

    Attributes:
        config: Settings; their type says which of the two rules it is.
        cos: (batch, sequence, head_dim), of RoPE.
        sin: As cos.
        noise: (batch, kv_heads, sequence), of the decisions.
        first: (batch, sequence) bool, the tokens of each document whose decision is on none of it: the first d.
        mode: Scalar, one of `CODES`.
        visible: Scalar, the part of the borrowed neurons that attention still sees.
    """

    config: GateConfig | MergeConfig
    cos: Tensor
    sin: Tensor
    noise: Tensor
    first: Tensor
    mode: Tensor
    visible: Tensor

    def apply(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values after RoPE; alpha and log(1 - alpha) of each entry, (batch, sequence, kv_heads).

        Alpha is for the compression loss: attention has no part in its gradient under the gates of inference.

        Args:
            query: (batch, heads, sequence, head_dim), before RoPE.
            key: (batch, kv_heads, sequence, head_dim), before RoPE.
            value: As key.
        """
        projections = Projected(query, key, value, partial(rotate, cos=self.cos, sin=self.sin), prompt=True)
        if isinstance(self.config, MergeConfig):
            logits, weights = merge_decisions(query, key, self.config)
            alpha, bias, counted = self._decide(logits)
            sums = running_sums(weighted_terms(key, value, weights), alpha)
            query, key, value = rotate_means(projections, sums, self.visible)
        else:
            _, bias, counted = self._decide(borrowed_logits(query, key.shape[1], self.config).transpose(1, 2))
            query, key, value = rotate_borrowed(projections, self.config, self.visible)
        # The decision on a token's entry is made by the token `_later` after it: shift, and leave the last entries
        # alone. (batch, kv_heads, sequence) → (batch, sequence, kv_heads)
        later = self._later
        counted, bias = (pad(decision[..., later:], (0, later)).transpose(1, 2) for decision in (counted, bias))
        return query.to(value.dtype), key.to(value.dtype), value, counted, bias

    @property
    def _later(self) -> int:
        """Tokens after which the decision on a token is made: 1 under DMC, whose next token may be merged into it."""
        return self.config.decision_offset if isinstance(self.config, GateConfig) else 1

    def _decide(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha, log(1 - alpha), and alpha as it is counted, (batch, kv_heads, sequence), from logits of that shape."""
        z = (logits + self.noise) / self.config.tau
        verdict = (logits > 0).to(logits.dtype)
        # Chosen by tensors, not by Python: a branch would be another compiled graph for each mode.
        hard = self.mode == CODES["hard"]
        alpha = torch.where(hard, verdict, torch.sigmoid(z))
        bias = torch.where(hard, verdict * GONE, logsigmoid(-z).clamp_min(GONE))
        probability = torch.sigmoid(logits)
        counted = torch.where(hard, verdict + (probability - probability.detach()), alpha)
        in_force = self.mode != CODES["off"]
        if self._later:
            in_force = in_force & ~self.first[:, None]
        return alpha * in_force, bias * in_force, counted * in_force
