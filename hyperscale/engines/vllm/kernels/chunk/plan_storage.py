"""What is planned of a step's chunks, and the memory that the plans of its layers are written to.

A plan is made by `hyperscale.engines.vllm.kernels.chunk.plan`; attention and the writing of entries go by it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LATEST = 64  # passing tokens that share one entry of `ChunkPlan.latest`


@dataclass(frozen=True)
class ChunkPlan:
    """What the chunks of one layer do; tokens are named by their number in their request's chunk.

    The layers of a step write theirs one after another, over each other but where a shape begins with layers.

    Attributes:
        expiry: (heads, tokens) int32, of each token.
        lasting: (heads, tokens) int32; in each request's part, first the tokens that the next query will see, in order.
        passing: (heads, tokens) int32, likewise those that are gone by then.
        rank: (heads, tokens) int32, lasting tokens up to and including each.
        latest: (layers, heads, blocks) int32, the latest expiry of each ``LATEST`` of ``passing``; request r begins at
            offsets[r] // LATEST + r.
        places: (heads, tokens) int32, where in the list each of ``lasting`` goes.
        num_stored: (requests, heads) int32, entries of each list before the chunk.
        num_lasting: (requests, heads) int32, tokens that will be stored.
        gone: (layers, heads, tokens) int32; in each request's part, how many entries expire at each of its positions,
            those that expired before at the first; None if reads are not counted query by query.
    """

    expiry: Tensor
    lasting: Tensor
    passing: Tensor
    rank: Tensor
    latest: Tensor
    places: Tensor
    num_stored: Tensor
    num_lasting: Tensor
    gone: Tensor | None


class PlanStorage:
    """What the plans of a step's layers are written to, one layer after another."""

    def __init__(
        self, layers: int, heads: int, tokens: int, requests: int, device: torch.device, *, counts: bool
    ) -> None:
        """Allocate it.

        Args:
            layers: Of the model.
            heads: KV heads.
            tokens: Of the batch.
            requests: With chunks.
            device: The cache's.
            counts: Whether reads are counted query by query.
        """
        # The kernel writes all that is read of these.
        parts = _aligned_parts(5, (heads, tokens), device)
        self._expiry, self._lasting, self._passing, self._rank, self._places = parts
        self._num_stored, self._num_lasting = _aligned_parts(2, (requests, heads), device)
        # Each request begins a block of its own: at most one more for each than the tokens fill.
        blocks = tokens // LATEST + requests + 1
        self._latest = torch.zeros((layers, heads, blocks), dtype=torch.int32, device=device)
        shape = (layers, heads, tokens)
        self._gone = torch.zeros(shape, dtype=torch.int32, device=device) if counts else None
        self._plan: ChunkPlan | None = None

    def plan(self, expiry: Tensor | None = None) -> ChunkPlan:
        """The plan that a layer writes; the same object in all layers, unless other expiries are given.

        Args:
            expiry: (heads, tokens) int32, contiguous, if it is known.
        """
        expiry = self._expiry if expiry is None else expiry
        if self._plan is None or self._plan.expiry is not expiry:
            self._plan = ChunkPlan(
                expiry,
                self._lasting,
                self._passing,
                self._rank,
                self._latest,
                self._places,
                self._num_stored,
                self._num_lasting,
                self._gone,
            )
        return self._plan


def _aligned_parts(count: int, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
    """Tensors of int32 in one allocation, each contiguous and at a multiple of 16 bytes.

    Triton compiles another kernel for pointers elsewhere, and would do so in the middle of serving, for lengths of
    prompts that did not occur before.
    """
    size = shape[0] * shape[1]
    parts = torch.empty((count, -(-size // 4) * 4), dtype=torch.int32, device=device)
    return tuple(part.view(shape) for part in parts[:, :size].unbind())
