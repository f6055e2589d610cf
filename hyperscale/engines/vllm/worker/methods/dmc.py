"""DMC: token t is merged into the entry before it iff its key says so (arXiv 2403.09636); `hyperscale.methods.dmc`.

A merge is an eviction with a change of the new entry: the entry of token t - 1 is gone from query t on, and the one of
token t is the mean of both. So the lists work as for DMS with w = 0, in decode steps, in chunks and where a request
starts anew. What is special is `merge`, which makes the means before RoPE, as means of keys are made there. It keeps,
of each list's newest entry, the sums of weighted keys, of weighted values and of weights.
"""

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.dms import WorkerDMS
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.methods.core.dmc_merge import MergeConfig, merge_decisions, running_sums, weighted_terms


class WorkerDMC(WorkerDMS):
    """See the module.

    Attributes:
        config: The checkpoint's settings.
        sums: (layers, slots, heads, 2 head_dim + 1) float32: of each list's newest entry.
    """

    def __init__(self, tables: EntryTables, options: Options, shape: ModelShape) -> None:
        """Nothing summed yet."""
        super().__init__(tables, options)
        self.config = MergeConfig.from_hf(shape.config)
        sizes = (tables.layers, len(tables.lens), tables.heads, 2 * shape.head_dim + 1)
        self.sums = torch.zeros(sizes, device=tables.expiry.device)

    def merge(
        self,
        layer: int,
        slots: Tensor,
        offsets: Tensor,
        longest: int,
        positions: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        logits: Tensor,
    ) -> None:
        """Decide which tokens are merged, and make the means that attention sees in their place.

        Args:
            layer: The layer.
            slots: (requests,) int64.
            offsets: (requests + 1,), where each one's tokens begin.
            longest: The most tokens of a request in this step.
            positions: (tokens,) int64.
            queries: (tokens, query heads, head_dim), before RoPE, as all of these.
            keys: (tokens, heads, head_dim); written: mean keys.
            values: As keys; written: mean values.
            logits: (tokens, heads) float32; written: above 0 where a token is merged.
        """
        by_head = [part.transpose(0, 1)[None] for part in (queries, keys, values)]
        decisions, weights = merge_decisions(by_head[0], by_head[1], self.config)
        merges = (decisions > 0) & (positions > 0)
        terms = weighted_terms(by_head[1], by_head[2], weights)[0]  # (heads, tokens, size)
        # A request's first token in this step may go on with the entry that the last step left.
        before = self.sums[layer][slots].transpose(0, 1)
        if longest == 1:  # decode steps alone: a token is a request
            terms = torch.where(merges[0, ..., None], terms + before, terms)
            self.sums[layer][slots] = terms.transpose(0, 1)
        else:
            first, last = offsets[:-1].long(), offsets[1:].long() - 1
            terms[:, first] += torch.where(merges[0][:, first, None], before, 0.0)
            inner = merges.index_fill(-1, first, value=False)  # an assignment would wait for the device
            terms = running_sums(terms[None], inner, longest)[0]
            self.sums[layer][slots] = terms[:, last].transpose(0, 1)
        means = (terms[..., :-1] / terms[..., -1:]).transpose(0, 1)
        keys.copy_(means[..., : keys.shape[-1]])
        values.copy_(means[..., keys.shape[-1] :])
        logits.copy_(torch.where(merges[0].T, 1.0, -1.0))
