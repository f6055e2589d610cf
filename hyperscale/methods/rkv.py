"""R-KV: keeps what is attended to and does not resemble the rest of its row."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, normalize

from hyperscale.errors import MethodError
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.observed import ObservedMethod, RecentQueries

_PAIRS = 1 << 24  # Similarities that are in memory at once, 64 MiB of them.


def importance(rows: RowEntries, queries: RecentQueries, kernel: int) -> Tensor:
    """I, what the latest queries attend to: (batch, kv_heads, slots) float32.

    0 where nothing lives and in the window, whose entries take no part in the softmax.
    """
    logits = queries.logits(rows.keys).amax(2)  # over the group: (batch, kv_heads, w, slots)
    slot = torch.arange(logits.shape[-1], device=logits.device)
    outside = slot < rows.live.sum(-1, keepdim=True) - queries.vectors.shape[1]
    logits = logits.masked_fill(~outside[:, :, None], float("-inf"))
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).mean(2)
    return max_pool1d(weights, kernel, stride=1, padding=kernel // 2)


def redundancy(rows: RowEntries, threshold: float, retain: int) -> Tensor:
    """R, how much each entry resembles the row's others: (batch, kv_heads, slots) float32, summing to 1."""
    live = rows.live.flatten(0, 1)
    unit = normalize(rows.keys.to(torch.float32), dim=-1, eps=1e-8).flatten(0, 1)
    # All pairs of a row's entries are compared: in blocks of rows, to bound the memory.
    block = max(_PAIRS // live.shape[1] ** 2, 1)
    sums = [
        _sum_similarities(keys, alive, threshold, retain)
        for keys, alive in zip(torch.split(unit, block), torch.split(live, block), strict=True)
    ]
    mean = torch.cat(sums) / live.sum(-1, keepdim=True)
    return torch.softmax(mean.masked_fill(~live, float("-inf")), dim=-1).view(rows.live.shape)


def _sum_similarities(unit: Tensor, live: Tensor, threshold: float, retain: int) -> Tensor:
    """(rows, slots) sum of each entry's similarities, without those that are left out; arguments as `_similarities`."""
    slots = live.shape[1]
    # A long prompt's row alone has too many pairs: it is gone through in blocks of lines.
    block = max(_PAIRS // slots, 1)
    total, *more = (
        _similarities(unit, live, threshold, retain, slice(first, first + block)).sum(1)
        for first in range(0, slots, block)
    )
    for part in more:
        total += part
    return total


def _similarities(unit: Tensor, live: Tensor, threshold: float, retain: int, lines: slice) -> Tensor:
    """(rows, lines, slots) similarity of some entries to each other one, 0 to the most recent of those very similar.

    Args:
        unit: (rows, slots, head_dim), keys of length 1.
        live: (rows, slots) bool.
        threshold: Above this two keys are very similar.
        retain: How many of the most recent very similar entries are left out, of each entry.
        lines: Those entries.
    """
    slot = torch.arange(live.shape[1], device=live.device)
    itself = slot[lines, None] == slot
    pairs = live[:, lines, None] & live[:, None] & ~itself
    similarity = torch.bmm(unit[:, lines], unit.transpose(1, 2)).masked_fill_(~pairs, 0.0)
    near = similarity > threshold
    # Slots are in order of position, so the near entries still to come along a line are the more recent ones.
    count = near.cumsum(-1, dtype=torch.int32)
    more_recent = count[..., -1:] - count
    return similarity.masked_fill_(near & (more_recent < retain), 0.0)


@dataclass
class RKV(ObservedMethod):
    """Keeps, at every pruning, the newest w entries and the best others by score = lambda * I - (1 - lambda) * R.

    I(i) is the weight that the last w queries give to entry i: their scores on the entries older than the window are
    maximised over the group of query heads, put through a softmax, averaged over the queries, and replaced by their
    maximum over ``kernel`` neighbouring slots. R is a softmax over the row of the mean cosine similarity of key i to
    the row's keys (0 to itself), in which every entry leaves out the ``retain`` most recent of the entries that are
    more similar to it than ``threshold``. Prompts are pruned by the same rule.

    Where paper and reference code differ this is the code: the softmax leaves the window out; averaging precedes
    pooling; and of very similar entries the *recent* one is spared (eq. 6 read literally would credit the old one).
    Unlike the code, an entry that resembles no other leaves nothing out (there, entry 0), ``retain`` may exceed 1, and
    lambda is the 0.1 of the paper's experiments (0.07 there). The paper lets a row grow to budget + 128.

    Parameters:
        mix_lambda: lambda, the share of importance.
        threshold: Cosine similarity above which two entries are very similar.
        retain: Very similar entries that are left out, the most recent first.
    """

    name = "rkv"
    summary = "evicts, at intervals, what is attended to little and resembles the rest"
    source = "Cai et al. 2025, arXiv 2505.24133, equations 1 to 7; github.com/Zefan-Cai/R-KV"

    window: int = 8
    kernel: int = 7
    mix_lambda: float = 0.1
    threshold: float = 0.5
    retain: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mix_lambda <= 1:
            raise MethodError(f"mix_lambda of {self.name} must be between 0 and 1, not {self.mix_lambda}")
        if not 0 <= self.threshold <= 1:
            raise MethodError(f"threshold of {self.name} must be between 0 and 1, not {self.threshold}")
        if self.retain < 0:
            raise MethodError(f"retain of {self.name} must not be negative, as {self.retain} is")

    def score(self, rows: RowEntries, queries: RecentQueries) -> Tensor:
        """See `ObservedMethod.score`."""
        gain, loss = importance(rows, queries, self.kernel), redundancy(rows, self.threshold, self.retain)
        return self.mix_lambda * gain - (1 - self.mix_lambda) * loss
