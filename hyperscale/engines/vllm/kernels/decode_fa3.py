"""Decode attention through vLLM's FlashAttention 3, which reads paged lists of any lengths at nearly full bandwidth.

What it needs of the layout, and has here:
* a sequence per list: one query token, G query heads, 1 KV head; so queries (requests, H * G, D) are read as
  (requests * H, G, D), which costs nothing if they are contiguous, and a copy if they are a slice of qkv;
* keys and values as (pages, N, 1, D) with D contiguous; pages and entries may be strided, so views of one cache tensor
  will do. If N does not divide the kernel's block of keys, as 16 and 32 do not fill it, it gathers entries with plain
  asynchronous copies instead of the tensor copy engine: more instructions, the same bytes;
* ``seqused_k`` (lists,) and ``block_table`` (lists, pages), int32, the latter with contiguous rows: `decode_update`
  leaves both in that form. A list without entries, as padding has, gives zeros;
* no mask: what a query must not see is not in the list, which is why `decode_update` leaves no gaps.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import PagedCache


@cache
def available() -> bool:
    """Whether vLLM is installed with FlashAttention 3 for the device."""
    try:
        from vllm.vllm_flash_attn import is_fa_version_supported
    except ImportError:
        return False
    return torch.cuda.is_available() and bool(is_fa_version_supported(3))


def arguments(
    queries: Tensor,
    cache: PagedCache,
    lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    starts: Tensor,
    scale: float,
    longest: int,
) -> dict[str, Any]:
    """What ``flash_attn_varlen_func`` is called with; see `decode_attention`."""
    # FlashAttention knows sequences with KV heads of equal lengths; here every list is a sequence with one KV head.
    requests, heads, group, dim = queries.shape
    sequences = (requests * heads, group, dim)  # a sequence per list, of one query token
    assert all(tensor.is_contiguous() for tensor in (lens, block_table, out))
    assert cache.scales is None, "FlashAttention knows no scales of entries"
    return {
        "q": queries.reshape(sequences),
        "k": cache.keys[:, :, None],
        "v": cache.values[:, :, None],
        "out": out.view(sequences),
        "cu_seqlens_q": starts[: requests * heads + 1],
        "max_seqlen_q": 1,
        "seqused_k": lens.view(-1),
        "max_seqlen_k": longest,
        "block_table": block_table.view(requests * heads, -1),
        "softmax_scale": scale,
        "causal": False,
    }


def decode_attention(
    queries: Tensor,
    cache: PagedCache,
    lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    starts: Tensor,
    scale: float,
    longest: int,
    splits: int = 0,
) -> None:
    """The same as `hyperscale.engines.vllm.kernels.decode_attention`, in half precision on Hopper.

    Args:
        queries: (requests, heads, group, head_dim), after RoPE.
        cache: The cache.
        lens: (requests, heads) int32, contiguous, entries of each list.
        block_table: (requests, heads, pages) int32.
        out: As queries, contiguous; written.
        starts: 0, 1, 2, … int32, at least requests * heads + 1 of them: kept by the caller, made once.
        scale: Factor on the scores.
        longest: At least the entries of the longest list; only steers how lists are split.
        splits: Parts of each list; 0 lets the kernel choose by ``longest``. Under a CUDA graph fix it.
    """
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    kwargs = arguments(queries, cache, lens, block_table, out, starts, scale, longest)
    flash_attn_varlen_func(**kwargs, num_splits=splits, fa_version=3)
