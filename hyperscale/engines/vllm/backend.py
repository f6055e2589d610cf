"""What the backends of all devices share: a step's description, and the way from vLLM's batch to the mechanism."""

from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionImpl, AttentionMetadataBuilder

from hyperscale.engines.vllm.rules import Rows, Span
from hyperscale.engines.vllm.worker import Step, Worker


class RaggedBuilder(AttentionMetadataBuilder[Step]):
    """Describes a step to the attention layers."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Step:
        """See vLLM's base class."""
        common = common_attn_metadata
        n = common.num_reqs
        return Step(
            first_blocks=common.block_table_tensor[:n, 0],
            starts=common.query_start_loc_cpu[: n + 1].tolist(),
            covered=common.seq_lens[:n].tolist(),
        )


class RaggedImpl(AttentionImpl):
    """The object that vLLM's attention layer keeps; `attend` does the work."""

    def __init__(self, num_heads: int, head_size: int, scale: float, num_kv_heads: int, *args: Any, **kw: Any) -> None:
        self.num_heads, self.head_size, self.scale, self.num_kv_heads = num_heads, head_size, scale, num_kv_heads

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Never called: the layers call an operator of our own, which takes the verdicts too."""
        raise NotImplementedError


def attend(
    step: Step, layer: int, queries: Tensor, keys: Tensor, values: Tensor, logits: Tensor, out: Tensor, scale: float
) -> None:
    """Attention of one layer for a batch of decode steps and chunks.

    Args:
        step: The batch.
        layer: The layer.
        queries: (tokens, query heads, head_dim), after RoPE; tokens past the batch are padding.
        keys: (tokens, heads, head_dim), after RoPE.
        values: As keys.
        logits: (tokens, heads), DMS's; above 0 evicts the token before. (tokens, 0) if the model has no gates.
        out: (tokens, query heads, head_dim), written.
        scale: Factor on the scores.
    """
    worker = Worker.current
    assert worker is not None, "the cache is set up before the first step"
    step = worker.resolve(step)
    ragged, heads = worker.ragged, keys.shape[1]
    verdicts = logits > 0 if logits.shape[1] else None
    grouped = queries.view(len(queries), heads, -1, queries.shape[-1])
    result = out.view(grouped.shape)
    sizes = [b - a for a, b in zip(step.starts, step.starts[1:], strict=False)]
    single = [index for index, size in enumerate(sizes) if size == 1]
    if single:
        at = torch.tensor([step.starts[index] for index in single])
        slots = torch.tensor([step.slots[index] for index in single])
        positions = torch.tensor([step.covered[index] - 1 for index in single])
        lens = ragged.lists.lens[slots, layer].long()
        rows = Rows(layer, slots, positions, lens, None if verdicts is None else verdicts[at])
        result[at] = ragged.decode(rows, grouped[at], keys[at], values[at], scale)
    for index, size in enumerate(sizes):
        if size > 1:
            part = slice(step.starts[index], step.starts[index + 1])
            covered = step.covered[index]
            chosen = None if verdicts is None else verdicts[part]
            span = Span(layer, step.slots[index], covered - size, covered, chosen)
            result[part], seen = ragged.chunk(span, grouped[part], keys[part], values[part], scale)
            step.seen[part] += seen
