"""Attention of chunks of which nothing expires, through vLLM's FlashAttention 3: dense prompts, as fast as vLLM's own.

Prompts that begin in this step attend to themselves alone, exactly as vLLM's own model does. Other chunks have been
stored when they attend: then every list is a sequence with one KV head, whose entries are in order of position, and its
queries are aligned to its end. See `hyperscale.engines.vllm.kernels.decode_fa3` for what is needed of the layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import PagedCache
from hyperscale.engines.vllm.kernels.chunk.received import LogSums


@dataclass(frozen=True)
class ChunkSequences:
    """The chunks of a step as FlashAttention is told of them.

    Attributes:
        base: The chunks' first token in the batch.
        offsets: (chunks + 1,) int32, where each one's tokens begin, counted from ``base``.
        longest: Tokens of the longest chunk.
        lists: Where a chunk has earlier tokens; None if none has.
    """

    base: int
    offsets: Tensor
    longest: int
    lists: "ListSequences | None"


@dataclass(frozen=True)
class ListSequences:
    """The lists of the chunks, head by head, as sequences.

    Attributes:
        slots: (chunks,) int64.
        starts: (heads * chunks + 1,) int32, where each one's queries begin, all tokens of a head side by side.
        lens: (heads * chunks,) int32, entries of each, the chunk's own included.
        longest: At least the entries of the longest.
    """

    slots: Tensor
    starts: Tensor
    lens: Tensor
    longest: int


def make_sequences(
    offsets: Tensor, starts: Sequence[int], slots: Tensor, lens: Tensor, heads: int, longest: int, *, begins: bool
) -> ChunkSequences:
    """The chunks of a step.

    Args:
        offsets: (chunks + 1,) int32, where each one's tokens begin in the batch.
        starts: The same on the host.
        slots: (chunks,) int64.
        lens: (chunks,) int32, tokens of each request, the chunk's included.
        heads: KV heads of a layer.
        longest: At least the tokens of the longest request.
        begins: Whether all of the requests begin in this step.
    """
    tokens, relative = starts[-1] - starts[0], offsets - offsets[0]
    lists = None
    if not begins:
        head = torch.arange(heads, dtype=torch.int32, device=offsets.device)[:, None] * tokens
        ends = (head + relative[1:]).flatten()
        list_starts = torch.cat([relative[:1], ends])
        lists = ListSequences(slots, list_starts, lens.repeat(heads), longest)
    return ChunkSequences(starts[0], relative, max(b - a for a, b in pairwise(starts)), lists)


def arguments(
    sequences: ChunkSequences,
    cache: PagedCache,
    table: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    scale: float,
) -> dict[str, Any]:
    """What ``flash_attn_varlen_func`` is called with; see `chunk_attention`. Lists have an ``out`` of their own."""
    queries, keys, values, out = (part[sequences.base :] for part in (queries, keys, values, out))
    common = {"max_seqlen_q": sequences.longest, "softmax_scale": scale, "causal": True}
    lists = sequences.lists
    if lists is None:
        spans = {"cu_seqlens_q": sequences.offsets, "cu_seqlens_k": sequences.offsets}
        return {**common, **spans, "q": queries, "k": keys, "v": values, "out": out, "max_seqlen_k": sequences.longest}
    (tokens, _, dim), heads = queries.shape, keys.shape[1]
    by_head = queries.reshape(tokens, heads, -1, dim).transpose(0, 1).reshape(heads * tokens, -1, dim)
    return {
        **common,
        "q": by_head,
        "k": cache.keys[:, :, None],
        "v": cache.values[:, :, None],
        "out": torch.empty_like(by_head),
        "cu_seqlens_q": lists.starts,
        "seqused_k": lists.lens,
        "max_seqlen_k": lists.longest,
        "block_table": table[lists.slots].transpose(0, 1).flatten(0, 1),
    }


def chunk_attention(
    sequences: ChunkSequences,
    cache: PagedCache,
    table: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    scale: float,
) -> LogSums:
    """Causal attention of every chunk to its list, in which the chunk has been stored, in half precision on Hopper.

    Args:
        sequences: The chunks.
        cache: The cache.
        table: (slots, heads, pages) int32, the pages of the layer's lists.
        queries: (tokens, query heads, head_dim) of the whole batch, after RoPE.
        keys: (tokens, heads, head_dim), likewise.
        values: As keys.
        out: As queries; written for the tokens of the chunks.
        scale: Factor on the scores.

    Returns:
        The logarithm of each query's sum of exponentials.
    """
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    kwargs = arguments(sequences, cache, table, queries, keys, values, out, scale)
    _, log_sums = flash_attn_varlen_func(**kwargs, fa_version=3, return_softmax_lse=True)
    if sequences.lists is not None:
        store_by_token(kwargs["out"], out[sequences.base :], keys.shape[1])
    return strides_of(log_sums, sequences, keys.shape[1])


def strides_of(log_sums: Tensor, sequences: ChunkSequences, heads: int) -> LogSums:
    """From what FlashAttention gives, a row a query head and a column a query."""
    row, column = log_sums.stride()
    if sequences.lists is None:
        return LogSums(log_sums, column, len(log_sums) // heads * row, row)
    return LogSums(log_sums, column, log_sums.shape[1] // heads * column, row)


def store_by_token(by_head: Tensor, out: Tensor, heads: int) -> None:
    """Bring (heads * tokens, group, head_dim) to (tokens, query heads, head_dim)."""
    tokens, _, dim = out.shape
    out.view(tokens, heads, -1, dim).copy_(by_head.view(heads, tokens, -1, dim).transpose(0, 1))
