"""DMS: key k is gone from query k + w + 1 on if hidden state k + d says so (arXiv 2506.05345, section 3).

With d = 1 (NVIDIA's format) the verdict on a token comes with the next token, so it lowers the expiry of an entry that
is stored already. With d = 0 (FastDMS's) a new entry is given its expiry when it is written.
"""

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk, WorkerMethod


class WorkerDMS(WorkerMethod):
    """See the module."""

    counts_prompts = True

    def lower_expiries(self, batch: DecodeBatch) -> None:
        """See `WorkerMethod.lower_expiries`."""
        if not self.options.decision_offset:
            return
        assert batch.verdicts is not None, "the model has gates"
        newest = self.tables.newest[batch.slots, batch.layer].long()
        entries = self.tables.entry_numbers(batch.slots, batch.layer, newest)
        # The verdict is on token k = position - 1: its expiry is k + w + 1.
        expiry = (batch.positions + self.options.window)[:, None].expand_as(entries).to(torch.int32)
        evict = batch.verdicts & (batch.lens > 0)
        self.tables.expiry.view(-1)[entries[evict]] = expiry[evict]

    def decode_expiry(self, batch: DecodeBatch) -> Tensor | int:
        """See `WorkerMethod.decode_expiry`."""
        if self.options.decision_offset:
            return NEVER
        assert batch.verdicts is not None, "the model has gates"
        return torch.where(batch.verdicts, (batch.positions + self.options.window + 1)[:, None], NEVER).to(torch.int32)

    def lower_expiries_before(self, chunk: RequestChunk) -> None:
        """See `WorkerMethod.lower_expiries_before`."""
        if chunk.start and self.options.decision_offset:  # the chunk's first verdict is on the token before the chunk
            assert chunk.verdicts is not None, "the model has gates"
            slots = torch.tensor([chunk.slot], device=chunk.verdicts.device)
            newest = self.tables.newest[slots, chunk.layer].long()
            entries = self.tables.entry_numbers(slots, chunk.layer, newest)[0]
            self.tables.expiry.view(-1)[entries[chunk.verdicts[0]]] = chunk.start + self.options.window

    def chunk_expiry(self, chunk: RequestChunk) -> Tensor:
        """See `WorkerMethod.chunk_expiry`."""
        assert chunk.verdicts is not None, "the model has gates"
        expiry = super().chunk_expiry(chunk)
        # Of d = 1, the verdict on the chunk's last token comes with the next one.
        later = self.options.decision_offset
        known = chunk.stop - chunk.start - later
        positions = torch.arange(chunk.start, chunk.start + known, device=expiry.device, dtype=torch.int32)
        evicted_expiry = (positions + self.options.window + 1).expand(len(expiry), -1)
        expiry[:, :known] = torch.where(chunk.verdicts[later:].T, evicted_expiry, NEVER)
        return expiry
