"""TriAttention: keeps the keys that the mean query, rotated to future positions, fits best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.base import Entrant, HostModel
from hyperscale.methods.core.interval import IntervalMethod, IntervalState, QueryTokens
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.methods.core.rotary import require_rope
from hyperscale.methods.core.row_budget import BudgetRule


class QuerySums(IntervalState):
    """Sums over the queries of a chain so far, before RoPE, one complex number per frequency.

    Attributes:
        sums: (layers, max_chains, query_heads, head_dim / 2) complex64, of the queries; it is ``tensors[1]``.
        sizes: The same in float32, of their absolute values; it is ``tensors[2]``.
    """

    method: "TriAttention"

    def __init__(self, method: "TriAttention", host: HostModel) -> None:
        super().__init__(method, host)
        self._omega = _frequencies(host)
        # Scores are linear in the query's rotation, so the mean over future offsets is one mean rotation.
        offsets = 2.0 ** torch.arange(method.horizon.bit_length(), device=host.device)
        self._mean_ahead = self._rotation(offsets).mean(0)
        shape = (host.layers, host.max_chains, host.config.num_attention_heads, len(self._omega))
        self.sums = torch.zeros(shape, dtype=torch.complex64, device=host.device)
        self.sizes = torch.zeros(shape, dtype=torch.float32, device=host.device)
        self.tensors = (self._facts, self.sums, self.sizes)
        self._prompt: dict[int, tuple[Tensor, Tensor]] = {}  # the same of the prompt prefilled last, by layer

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.prune_prompt`."""
        queries = _complex_pairs(view.queries) * self.unrotation(torch.arange(view.length, device=view.queries.device))
        self._prompt[layer] = queries.sum(1), queries.abs().sum(1)
        return super().prune_prompt(layer, view)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`."""
        super().admit(first, entrants, prompt)
        for layer, (total, size) in self._prompt.items():
            self.sums[layer, first : first + len(entrants)] = total
            self.sizes[layer, first : first + len(entrants)] = size

    def open_chains(self, chains: Tensor, facts: Tensor) -> None:
        """See `BudgetedState.open_chains`: nothing has been added up yet."""
        super().open_chains(chains, facts)
        for sums in (self.sums, self.sizes):
            sums.index_fill_(1, chains, 0)

    def place_queries(self, chains: Tensor, positions: Tensor) -> QueryTokens:
        """See `IntervalState.place_queries`: how to take RoPE back."""
        return QueryTokens(chains, positions, self.unrotation(positions)[:, None])

    def record_queries(self, layer: int, queries: Tensor, tokens: QueryTokens, scale: float) -> None:
        """See `IntervalState.record_queries`."""
        # At the next pruning, the sums then hold as many queries as the chain has processed tokens.
        vectors = _complex_pairs(queries) * tokens.places
        # As real numbers, which a GPU adds up by index.
        torch.view_as_real(self.sums[layer]).index_add_(0, tokens.chains, torch.view_as_real(vectors))
        self.sizes[layer].index_add_(0, tokens.chains, vectors.abs())

    def score_rows(self, layer: int | Tensor, rows: RowEntries, chains: Tensor | None) -> Tensor:
        """See `IntervalState.score_rows`."""
        slots = rows.live.shape[2]
        slot = torch.arange(slots, device=rows.keys.device)
        if chains is None:  # the queries so far are those of the prompt, none of which is pinned if it is pruned
            assert isinstance(layer, int)
            count, rivals = torch.full((1,), slots, device=slot.device), rows.live
            total, size = (sums[None] for sums in self._prompt[layer])
        else:
            count, rivals = self.step.positions[chains], slot >= self.pinned(self.step)[chains, None, None]
            total, size, rivals = self.sums[layer, chains], self.sizes[layer, chains], rivals & rows.live
        # Means over the queries so far; `future` is the mean query seen from the positions that are still to come.
        centre, size = total / count[:, None, None], size / count[:, None, None]
        future = centre * (self._rotation(count) * self._mean_ahead)[:, None]
        return self.method.score(rows, future, size - centre.abs(), rivals)

    def unrotation(self, positions: Tensor) -> Tensor:
        """The factor that takes RoPE back, (positions, head_dim / 2) complex64, contiguous."""
        return self._rotation(positions).conj().resolve_conj()

    def _rotation(self, positions: Tensor) -> Tensor:
        """The rotation by RoPE at some positions: (positions, head_dim / 2) complex64."""
        angle = positions.to(torch.float64)[:, None] * self._omega
        return torch.complex(angle.cos().to(torch.float32), angle.sin().to(torch.float32))


def _complex_pairs(vectors: Tensor) -> Tensor:
    """The two entries that RoPE rotates together as one complex number: (…, head_dim) to (…, head_dim / 2)."""
    real, imaginary = vectors.to(torch.float32).chunk(2, dim=-1)
    return torch.complex(real.contiguous(), imaginary.contiguous())


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """(batch, query_heads, any) with (batch * kv_heads, slots, any) to (batch * kv_heads, group, slots), one a row."""
    return torch.bmm(queries.reshape(len(keys), -1, keys.shape[2]), keys.transpose(1, 2))


def _frequencies(host: HostModel) -> Tensor:
    """Radians a position of each pair, (head_dim / 2,) float64.

    Raises:
        MethodError: They change with the length of the text, or RoPE does not rotate whole heads in every layer.
    """
    require_rope(host.attentions, host.other_rope, "triattention")
    rotary: Any = host.rotary
    attention: Any = host.attentions[0]
    kind = getattr(rotary, "rope_type", "default")
    if kind in ("dynamic", "longrope"):
        raise MethodError(
            f"triattention needs fixed rotary frequencies, and this model's ({kind}) depend on the length"
        )
    if 2 * len(rotary.inv_freq) != attention.head_dim:
        raise MethodError("triattention needs a model whose rotary embedding covers whole heads")
    frequencies: Tensor = rotary.inv_freq.to(host.device, torch.float64)
    return frequencies


@dataclass
class TriAttention(IntervalMethod):
    """Keeps, at every pruning, the entries that queries of the future are likely to look for.

    Queries before RoPE lie around a centre, so with E over the chain's queries so far, omega_f the frequencies of RoPE
    and every pair of entries as a complex number, a key k at position p is scored, for a query head, as
      mean over d of sum_f Re(E[q_f] conj(k_f) exp(i omega_f (n + d - p))) + sum_f (E|q_f| - |E q_f|) |k_f|,
    n being the next position and d = 1, 2, 4, … up to ``horizon``. Scores are standardised per query head over the
    entries that may leave, and an entry is worth its highest score in the group.

    The reference code takes E from files, computed once per model on a text of the user's; here it is the running mean
    over the chain's own queries, prompt and generated, so that nothing but the model is needed and a chain does not
    depend on others. Its reported runs keep the same entries of a KV head in all layers, by the mean over layers; here
    each layer decides for itself, its option ``per_layer_perhead_pruning``. As there, the prompt is pinned and counts.

    Parameters:
        horizon: The most positions to look ahead.
    """

    name = "triattention"
    summary = "evicts, at intervals, what the mean query, rotated to future positions, fits least"
    source = "Mao et al. 2026, arXiv 2604.04921, and its code; budget (P + L) / CR of arXiv 2506.05345"
    state = QuerySums

    rule: BudgetRule = "fixed"
    recent: int = 1
    horizon: int = 65536

    def rope_rule(self, config: Any) -> str:
        """See `Method.rope_rule`."""
        return self.name

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < 1:
            raise MethodError(f"horizon of triattention must be at least 1 position, not {self.horizon}")

    def prompt_queries(self, prompt: int) -> int:
        """See `Method.prompt_queries`: their mean counts."""
        return prompt

    def score(self, rows: RowEntries, future: Tensor, spread: Tensor, rivals: Tensor) -> Tensor:
        """How much each entry is worth keeping, as `ScoredMethod.score`, by what is known of the chain's queries.

        Args:
            rows: Keys, after RoPE, and values, (batch, kv_heads, entries, head_dim) each, and which of them live.
            future: (batch, query_heads, head_dim / 2) complex64, the mean query, rotated to future positions.
            spread: As future, float32: E|q| - |E q|.
            rivals: (batch, kv_heads, entries) bool, the live entries that are not pinned.

        Returns:
            (batch, kv_heads, entries) float32; of no meaning where nothing lives.
        """
        batch, heads, entries = rows.live.shape
        keys = rows.keys.to(torch.float32).flatten(0, 1)
        # Re(q conj(k)) is the real product of the vectors of real and imaginary parts, which a key is.
        scores = _products(torch.cat([future.real, future.imag], -1), keys)
        scores = (scores + _products(spread, torch.hypot(*keys.chunk(2, dim=-1)))).view(batch, heads, -1, entries)
        # Heads of a group are compared by how far an entry stands out among those that may leave.
        # Standardised per query head over the rivals: heads may differ in scale and in mean.
        mask, number = rivals[:, :, None], rivals.sum(-1)[:, :, None, None]
        mean = torch.where(mask, scores, 0.0).sum(-1, keepdim=True) / number
        away = (scores - mean).masked_fill_(~mask, 0.0)
        deviation = (away.square().sum(-1, keepdim=True) / number).sqrt_().clamp_(min=1e-6)
        return (away / deviation).amax(2)
