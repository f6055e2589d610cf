"""Dynamic Memory Compression: each head appends the new pair or merges it into its newest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import NEVER, PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel, LayerInput, Method, State
from hyperscale.methods.core.dmc_merge import MergeConfig, merge_decisions, rotate_means, running_sums, weighted_terms
from hyperscale.methods.core.rotary import Projected, require_rope


class _Merging(State):
    """Of each row's newest entry the sums of weighted keys (before RoPE), of weighted values, and of weights.

    ``tensors[0]`` is (layers, max_chains, kv_heads, 2 head_dim + 1).
    """

    capturable = True
    rotates = True

    def __init__(self, method: "DMC", host: HostModel) -> None:
        super().__init__(method, host)
        rule = method.rope_rule(host.config)
        if not rule:
            raise MethodError("dmc needs a checkpoint retrofitted with DMC, and this model is none")
        require_rope(host.attentions, host.other_rope, rule)
        self._config = MergeConfig.from_hf(host.config)
        size = 2 * int(host.attentions[0].head_dim) + 1  # type: ignore[arg-type]
        self._sums = torch.zeros(host.layers, host.max_chains, host.kv_heads, size, device=host.device)
        self._end = torch.zeros(host.layers, host.kv_heads, size, device=host.device)  # of the prompt prefilled last
        self.tensors = (self._sums,)

    def rotate(self, layer: int, projected: Projected) -> tuple[Tensor, Tensor, Tensor]:
        logits, weights = merge_decisions(projected.queries, projected.keys, self._config)
        sums, merges = weighted_terms(projected.keys, projected.values, weights), logits > 0
        if projected.prompt:
            merges[..., 0] = False
            sums = running_sums(sums, merges)
            self._end[layer] = sums[0, :, -1]
            following = torch.arange(1, merges.shape[2] + 1, device=merges.device)
            # The prefix sums leave one partial mean a token. It is seen by its own token, and lives on unless the next
            # token is merged into it.
            self._expiry = torch.full_like(merges[0], NEVER, dtype=torch.int64)
            self._expiry[:, :-1] = torch.where(merges[0, :, 1:], following[:-1], NEVER)
        else:
            chains = self._lens.shape[1]
            self._merges = merges[:chains, :, 0]
            # A token that is merged adds to the sums of the newest entry; any other starts new ones.
            newest = self._sums[layer, :chains]
            newest.mul_(self._merges[..., None]).add_(sums[:chains, :, 0])
            sums[:chains, :, 0] = newest
        return rotate_means(projected, sums)

    def expiry(self, layer: int, hidden: Tensor) -> Tensor:
        return self._expiry

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        self._sums[:, first : first + len(entrants)] = self._end[:, None]

    def begin(self, step: DecodeStep) -> None:
        self._lens = step.lens

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        # A merge overwrites the newest entry with the mean that now includes the token.
        # A row's newest entry is its last: a prompt leaves its entries in order, and later ones are appended.
        return self._lens[layer] - self._merges.to(torch.int64)


@dataclass
class DMC(Method):
    """Merges token t into the entry before it iff alpha_t = 1, by a weighted mean; else it is a new entry.

    Per layer and KV head, with x the neuron of the key and y the mean neuron of its queries (`methods.core.dmc_merge`):
      alpha_t = [scale x_t > offset],   omega_t = sigmoid(scale y_t + offset) + 2^-23,
      z_t = alpha_t z_{t-1} + omega_t,  k'_t = (alpha_t z_{t-1} k'_{t-1} + omega_t k_t) / z_t, and v' likewise.
    Keys are averaged before RoPE, and the mean gets the position of its newest token. Query t sees the mean up to t
    itself; later queries see it only if token t + 1 is not merged into it. Prefill and decode obey the same rule. The
    compression ratio is the checkpoint's own: it is a property of the trained neurons.

    Counted are entries, as for every method. The sums of each row's newest entry, in float32, come on top: they take
    about as much as two entries of half precision a row, whatever the length. The least weight is the reference code's
    (there it is that of the type of the queries); trained neurons use it, as in an entry none of whose tokens weighs
    more, all weigh the same. The reference code by default averages the newest 12 tokens of an entry only, to make its
    training cheaper; here all count, as in the paper's equation.

    Parameters:
        cr: Nominal compression ratio, which chooses the checkpoint; the neurons are the checkpoint's.
    """

    name = "dmc"
    summary = "Dynamic Memory Compression: learned, per head, appends a token or merges it into the one before"
    source = "Nawrot et al. 2024, arXiv 2403.09636; NVIDIA Megatron-LM, branch DMC, megatron/contrib/dmc"
    kind = "merger"
    retrofit_kind = "dmc"
    prefills_densely = False
    state = _Merging

    cr: float = 8.0

    def rope_rule(self, config: Any) -> str:
        """See `Method.rope_rule`; nothing of a model that is no retrofit."""
        return "" if getattr(config, "dmc_cr", None) is None else self.name
