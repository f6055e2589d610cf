"""Window: the oldest generated entry leaves when the budget is full."""

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk, WorkerMethod


class WorkerWindow(WorkerMethod):
    """Gives every entry its expiry when it is written.

    By sequence length n, max(0, n - budget(n)) entries have left, oldest first, so the j-th generated entry (from 0)
    leaves at the query that makes the sequence the shortest n with n - budget(n) > j.
    """

    @property
    def keeps_chunks(self) -> bool:
        """See `WorkerMethod.keeps_chunks`: a chunk without decode steps is of a prompt, which is pinned."""
        return True

    def expiries(self, slots: Tensor, positions: Tensor) -> Tensor:
        """Expiry of entries by position; prompts are pinned.

        Args:
            slots: (…) int64.
            positions: (…) int64.
        """
        prompt, L = self.tables.request_params[slots, 0], self.tables.request_params[slots, 1]
        cr, age = self.options.cr, positions - prompt
        floor = self.options.floor(prompt, prompt + L)
        length = floor + age + 1
        grows = self.options.budget_rule == "proportional" and not self.options.kv_budget
        if grows and cr > 1:
            # n - ceil(n / CR) = floor(n (1 - 1 / CR)) has to reach age + 1; rounding may be off by one either way.
            guess = torch.ceil((age + 1).double() * cr / (cr - 1)).long()
            # Of the five candidates around the guess, the smallest n that is enough: (…, 5) int64.
            near = guess[..., None] + torch.arange(-2, 3, device=guess.device)
            enough = near - torch.ceil(near.double() / cr).long() > age[..., None]
            length = torch.maximum(length, torch.where(enough, near, NEVER).amin(-1))
        elif grows:
            length = torch.full_like(length, NEVER)
        return torch.where(age >= 0, (length - 1).clamp(max=NEVER), NEVER).to(torch.int32)

    def decode_expiry(self, batch: DecodeBatch) -> Tensor:
        """See `WorkerMethod.decode_expiry`."""
        return self.expiries(batch.slots, batch.positions)

    def chunk_expiry(self, chunk: RequestChunk) -> Tensor:
        """See `WorkerMethod.chunk_expiry`."""
        positions = torch.arange(chunk.start, chunk.stop, device=self.tables.expiry.device)
        return self.expiries(torch.full_like(positions, chunk.slot), positions).expand(self.tables.heads, -1)
