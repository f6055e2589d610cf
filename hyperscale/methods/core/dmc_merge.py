"""Decisions, weights and running weighted means of DMC, computed from queries, keys and values before RoPE.

Source: Nawrot et al. 2024, arXiv 2403.09636, and NVIDIA Megatron-LM, branch DMC, megatron/contrib/dmc. The decision is
read from the last dimension of each key, the weight from the last dimension of its group's queries, averaged; attention
sees all of these as 0, before RoPE and after it. (The paper says the first dimension; that it is the last is the code's
choice.) In models that normalise queries and keys they are read after that.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.errors import ModelError
from hyperscale.methods.core.rotary import Projected, scale_neurons


@dataclass(frozen=True)
class MergeConfig:
    """Settings of the decisions, as kept in a checkpoint's ``config.json``.

    Attributes:
        alpha_scale: Factor on the neurons; 1 in the reference code. Larger where a norm bounds what a neuron can be.
        initial_offset: Subtracted from a decision's logit and added to a weight's, so that neurons of 0 merge nothing.
        tau: Temperature of the Gumbel-sigmoid in training.
        cr: Nominal compression ratio the checkpoint was trained to.
    """

    alpha_scale: float = 1.0
    initial_offset: float = 5.0
    tau: float = 0.1
    cr: float = 1.0

    @classmethod
    def from_hf(cls, config: Any) -> "MergeConfig":
        """Read the ``dmc_*`` keys of a transformers configuration.

        Raises:
            ModelError: It has none.
        """
        if getattr(config, "dmc_cr", None) is None:
            raise ModelError("the checkpoint has no dmc_* keys in config.json: it was not retrofitted with DMC")
        return cls(
            alpha_scale=float(getattr(config, "dmc_alpha_scale", cls.alpha_scale)),
            initial_offset=float(getattr(config, "dmc_initial_alpha_offset", cls.initial_offset)),
            tau=float(getattr(config, "dmc_tau", cls.tau)),
            cr=float(config.dmc_cr),
        )

    def to_hf(self) -> dict[str, Any]:
        """The ``dmc_*`` keys to write into a checkpoint's configuration."""
        return {
            "dmc_alpha_scale": self.alpha_scale,
            "dmc_initial_alpha_offset": self.initial_offset,
            "dmc_tau": self.tau,
            "dmc_cr": self.cr,
        }


def merge_decisions(queries: Tensor, keys: Tensor, config: MergeConfig) -> tuple[Tensor, Tensor]:
    """Logits of merging each token into the one before it (iff above 0), and each token's weight in a mean.

    Args:
        queries: (batch, query_heads, tokens, head_dim), before RoPE.
        keys: (batch, kv_heads, tokens, head_dim), before RoPE.
        config: The settings.

    Returns:
        Both (batch, kv_heads, tokens), float32; weights are in (0, 1].
    """
    logits = keys[..., -1].to(torch.float32) * config.alpha_scale - config.initial_offset
    batch, kv_heads, tokens, _ = keys.shape
    mean = queries[..., -1].to(torch.float32).reshape(batch, kv_heads, -1, tokens).mean(2)
    # The least weight keeps a mean of tokens that all weigh nothing finite.
    return logits, torch.sigmoid(mean * config.alpha_scale + config.initial_offset) + torch.finfo(torch.float32).eps


def weighted_terms(keys: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Terms of a mean: (batch, kv_heads, tokens, 2 head_dim + 1) of weighted keys, weighted values, and weights."""
    terms = torch.cat([keys, values, torch.ones_like(keys[..., :1])], dim=-1).to(torch.float32)
    return terms * weights[..., None]


def running_sums(terms: Tensor, merges: Tensor, longest: int | None = None) -> Tensor:
    """Sums a_t = x_t + m_t a_{t-1} for all t, in log2(tokens) rounds.

    Args:
        terms: x, (batch, kv_heads, tokens, size).
        merges: m, (batch, kv_heads, tokens), 0 for the first token of a sequence.
        longest: At least the tokens of the longest sequence, where several stand behind each other.
    """
    # A scan by doubling. Before each round, terms[t] holds what a_t gets from the last ``reach`` tokens, and
    # unbroken[t] the product of the last ``reach`` decisions: how much of the sum at t - reach goes on into t. In a
    # retrofit decisions are numbers between 0 and 1.
    reach, unbroken = 1, merges.to(terms.dtype)
    while reach < min(terms.shape[2], longest or terms.shape[2]):
        terms = terms + unbroken[..., None] * pad(terms[:, :, :-reach], (0, 0, reach, 0))
        unbroken = unbroken * pad(unbroken[..., :-reach], (reach, 0))
        reach *= 2
    return terms


def rotate_means(projected: Projected, sums: Tensor, visible: Tensor | float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, mean keys and mean values after RoPE, without the neurons; a mean key has its newest token's position.

    Args:
        projected: Queries, and the keys and values that were summed, before RoPE.
        sums: Of `weighted_terms`.
        visible: The part of the neurons that attention still sees: 0, or more while a retrofit fades them out.
    """
    size, dtype = projected.keys.shape[-1], projected.values.dtype
    means = sums[..., :-1] / sums[..., -1:]
    keys, values = means[..., :size].to(projected.keys.dtype), means[..., size:].to(dtype)

    def hide_neurons(vectors: Tensor) -> Tensor:
        # RoPE turns part of the neuron's partner into its place, hence the second time.
        return scale_neurons(projected.rope(scale_neurons(vectors, visible)), visible)

    return hide_neurons(projected.queries), hide_neurons(keys), values
