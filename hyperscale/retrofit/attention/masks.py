"""Says which keys each query may see in rows of packed documents, in the form that attention is computed in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


@dataclass(frozen=True)
class PackingMasks:
    """Which keys each query may see in rows of packed documents.

    Attributes:
        document: (batch, sequence) number of the document a token belongs to; those of a document lie side by side.
        window: Age up to which a key is seen whatever its verdict.
        full: Block mask of all earlier keys of the same document (FlexAttention only).
        near: Block mask of those inside the window.
        far: Block mask of those outside the window.
        starts: (batch, sequence) int32, where the token's document begins (own kernels only).
        ends: One past where it ends.
    """

    document: Tensor
    window: int
    full: BlockMask | None = None
    near: BlockMask | None = None
    far: BlockMask | None = None
    starts: Tensor | None = None
    ends: Tensor | None = None

    @classmethod
    def build(cls, document: Tensor, window: int | None = None, *, fused: bool = False) -> "PackingMasks":
        """Masks for rows of packed documents.

        On a CPU attention is computed densely, and the documents are all it needs.

        Args:
            document: (batch, sequence) number of the document a token belongs to.
            window: The window, if keys may have a bias.
            fused: For the project's own kernels; otherwise for FlexAttention on CUDA.
        """
        if fused:
            starts, ends = document_spans(document)
            return cls(document, window or 0, starts=starts, ends=ends)
        if document.device.type != "cuda":
            return cls(document, window or 0)
        batch, length = document.shape

        def same_document(b: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return document[b, q] == document[b, k]

        def blocks(rule: Callable[[Tensor, Tensor], Tensor]) -> BlockMask:
            """The block mask of (query, key) pairs of one document that keep a rule."""
            return _compiled_block_mask()(
                lambda b, h, q, k: same_document(b, q, k) & rule(q, k), batch, None, length, length, document.device
            )

        # The masks are the same for all heads (None), and made once a batch for all layers.
        full = blocks(lambda q, k: q >= k)
        if window is None:
            return cls(document, 0, full)
        return cls(
            document,
            window,
            full,
            near=blocks(lambda q, k: (q >= k) & (q - k <= window)),
            far=blocks(lambda q, k: q - k > window),
        )


def document_spans(document: Tensor) -> tuple[Tensor, Tensor]:
    """Where the document of each token begins and, one past it, where it ends, each (batch, sequence) int32."""
    length = document.shape[1]
    index = torch.arange(length, device=document.device, dtype=torch.int32).expand_as(document)
    changes = document[:, 1:] != document[:, :-1]
    edge = changes.new_ones(len(document), 1)
    starts = torch.where(torch.cat([edge, changes], 1), index, 0).cummax(1).values
    ends = torch.where(torch.cat([changes, edge], 1), index + 1, length).flip(1).cummin(1).values.flip(1)
    return starts.contiguous(), ends.contiguous()


@cache
def _compiled_block_mask() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask, dynamic=False)
