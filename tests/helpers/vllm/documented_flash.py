"""FlashAttention as it documents itself, where there is none."""

from itertools import pairwise

import torch


def attend_as_documented(
    *, q, k, v, out, cu_seqlens_q, max_seqlen_q, max_seqlen_k, softmax_scale, causal,
    cu_seqlens_k=None, seqused_k=None, block_table=None,
):  # fmt: skip
    """``flash_attn_varlen_func`` by its documentation; causal masks are aligned to the last key. Returns log sums."""
    assert causal
    log_sums = torch.zeros(q.shape[1], len(q), device=q.device)
    starts = cu_seqlens_q.tolist()
    assert starts[-1] == len(q)
    for sequence, (begin, end) in enumerate(pairwise(starts)):
        assert end - begin <= max_seqlen_q
        if block_table is None:
            first, last = cu_seqlens_k[sequence : sequence + 2].tolist()
            keys, values = k[first:last], v[first:last]
        else:
            length, size = int(seqused_k[sequence]), k.shape[1]
            pages = block_table[sequence, : -(-length // size)].long()
            keys, values = (part[pages].flatten(0, 1)[:length] for part in (k, v))
        assert end - begin <= len(keys) <= max_seqlen_k
        group = q.shape[1] // keys.shape[1]
        keys, values = (part.double().repeat_interleave(group, dim=1) for part in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", q[begin:end].double(), keys) * softmax_scale
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(len(keys) - (end - begin) + 1)
        scores = scores.masked_fill(future.to(scores.device), float("-inf"))
        weights = scores.softmax(-1)
        log_sums[:, begin:end] = scores.logsumexp(-1)
        out[begin:end] = torch.einsum("hqk,khd->qhd", weights, values).to(out.dtype)
    return log_sums
