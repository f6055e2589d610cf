"""R-KV: rows are cut by attention and by how much an entry resembles others."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, normalize

from hyperscale.errors import MethodError
from hyperscale.kv.cache import RowEntries
from hyperscale.methods.core.base import Host, State
from hyperscale.methods.core.observed import ObservedMethod, ObservedState, observed
from hyperscale.methods.core.row_budget import BudgetRule

_PAIRS = 1 << 24  # Similarities that are in memory at once, 64 MiB of them.


def importance(queries: Tensor, rows: RowEntries, scale: float, kernel: int) -> Tensor:
    """I, what the latest queries (some, w, query_heads, head_dim) attend to: (some, kv_heads, slots) float32.

    0 where nothing lives and in the window, whose entries take no part in the softmax.
    """
    scores = observed(queries, rows.keys, scale).amax(2)
    slot = torch.arange(scores.shape[-1], device=scores.device)
    outside = slot < rows.live.sum(-1, keepdim=True) - queries.shape[1]
    scores = scores.masked_fill(~outside[:, :, None], float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).mean(2)
    return max_pool1d(weights, kernel, stride=1, padding=kernel // 2)


def redundancy(rows: RowEntries, threshold: float, retain: int) -> Tensor:
    """R, how much each entry resembles the row's others: (some, kv_heads, slots) float32, summing to 1."""
    live = rows.live.flatten(0, 1)
    unit = normalize(rows.keys.to(torch.float32), dim=-1, eps=1e-8).flatten(0, 1)
    block = max(_PAIRS // live.shape[1] ** 2, 1)
    total = [
        _links(keys, alive, threshold, retain).sum(1)
        for keys, alive in zip(torch.split(unit, block), torch.split(live, block), strict=True)
    ]
    mean = torch.cat(total) / live.sum(-1, keepdim=True)
    share = torch.softmax(mean.masked_fill(~live, float("-inf")), dim=-1)
    return share.view(rows.live.shape)


def _links(unit: Tensor, live: Tensor, threshold: float, retain: int) -> Tensor:
    """(rows, slots, slots) similarity of each entry to each other one, less its most recent likenesses."""
    itself = torch.eye(live.shape[1], dtype=torch.bool, device=live.device)
    pairs = live[:, :, None] & live[:, None] & ~itself
    similar = torch.bmm(unit, unit.transpose(1, 2)).masked_fill_(~pairs, 0.0)
    near = similar > threshold
    found = near.cumsum(-1, dtype=torch.int32)
    more_recent = found[..., -1:] - found
    return similar.masked_fill_(near & (more_recent < retain), 0.0)


class _Distinct(ObservedState):
    def __init__(self, method: "RKV", host: Host) -> None:
        super().__init__(method, host)
        self._rkv = method

    def rank(self, queries: Tensor, ages: Tensor, rows: RowEntries) -> Tensor:
        rkv = self._rkv
        wanted = importance(queries, rows, self._scale, rkv.kernel)
        return rkv.mix_lambda * wanted - (1 - rkv.mix_lambda) * redundancy(rows, rkv.threshold, rkv.retain)


class RKV(ObservedMethod):
    """Keeps, at every cut, the newest w entries and the best others by Z = lambda * I - (1 - lambda) * R.

    I(i) is the weight that the last w queries give to entry i: their scores on the entries older than the window are
    maximised over the group of query heads, put through a softmax, averaged over the queries, and replaced by their
    maximum over ``kernel`` neighbouring slots. R is a softmax over the row of the mean cosine similarity of key i to
    the row's keys (0 to itself), in which every entry leaves out its ``retain`` most recent likenesses, those of a
    similarity above ``threshold``. Prompts are cut by the same rule; see `IntervalMethod` for when and by how much.

    Where paper and reference code differ this is the code: the softmax leaves the window out; averaging precedes
    pooling; and what is left out of the means speeds the *recent* likeness (eq. 6 read literally would credit the old
    one). Unlike the code, an entry without a likeness leaves nothing out (there, entry 0), ``retain`` may exceed 1, and
    lambda is the 0.1 of the paper's experiments (0.07 there). The paper lets a row grow to budget + 128.
    """

    name = "rkv"
    summary = "evicts, at intervals, what is attended to little and resembles the rest"
    source = "Cai et al. 2025, arXiv 2505.24133, equations 1 to 7; github.com/Zefan-Cai/R-KV"

    def __init__(
        self,
        cr: float = 8.0,
        rule: BudgetRule | None = None,
        window: int = 8,
        pin_prompt: bool | None = None,
        interval: int = 128,
        kernel: int = 7,
        mix_lambda: float = 0.1,
        threshold: float = 0.5,
        retain: int = 1,
    ) -> None:
        super().__init__(cr, rule, window, pin_prompt, interval, kernel)
        if not 0 <= mix_lambda <= 1:
            raise MethodError(f"mix_lambda of {self.name} must be between 0 and 1, not {mix_lambda}")
        if not 0 <= threshold <= 1:
            raise MethodError(f"threshold of {self.name} must be between 0 and 1, not {threshold}")
        if retain < 0:
            raise MethodError(f"retain of {self.name} must not be negative, as {retain} is")
        self.mix_lambda, self.threshold, self.retain = mix_lambda, threshold, retain

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        own = {"mix_lambda": self.mix_lambda, "threshold": self.threshold, "retain": self.retain}
        return {**super().params(), **own}

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _Distinct(self, host)
