"""Keeps what the keys of prompts that are being processed have received of attention so far, for H2O; on CUDA."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk.received import LogSums, add_received
from hyperscale.engines.vllm.worker.rows import PASS_BYTES, Rows
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.utils.device_copy import upload


@dataclass(frozen=True)
class WeighedPrompt(PrefillView):
    """A prompt whose queries have been weighed as they came.

    Attributes:
        total: (layers, kv_heads, P) float32, what `received` gives.
    """

    total: Tensor

    def received(self) -> Tensor:
        """See `PrefillView.received`."""
        return self.total


class ReceivedAttention:
    """See the module; sums are (layers, heads, P) float32, of each prompt."""

    def __init__(self, tables: EntryTables) -> None:
        self._tables = tables
        self._addresses = torch.zeros(len(tables.lens), dtype=torch.int64, device=tables.expiry.device)
        self._sums: dict[int, Tensor] = {}
        self._opened: list[int] = []

    def open(self, slot: int, prompt: int) -> None:
        """Nothing of a prompt has been processed."""
        shape = (self._tables.layers, self._tables.heads, prompt)
        self._sums[slot] = torch.zeros(shape, dtype=torch.float32, device=self._addresses.device)
        self._opened.append(slot)

    def flush(self) -> None:
        """Tell the device where the sums are."""
        if self._opened:
            addresses = [self._sums[slot].data_ptr() for slot in self._opened]
            slots, values = upload([*self._opened, *addresses], self._addresses.device).view(2, -1)
            self._addresses[slots] = values
            self._opened.clear()

    def close(self, slot: int) -> None:
        """A prompt has been evicted from, or its request is gone."""
        self._sums.pop(slot, None)
        if slot in self._opened:
            self._opened.remove(slot)

    def view(self, slot: int, layers: range, keys: Tensor, scale: float, L: int) -> WeighedPrompt:
        """Layers of a prompt, without its queries and values.

        Args:
            slot: The request's slot.
            layers: The layers.
            keys: (layers, heads, P, head_dim).
            scale: See `PrefillView`.
            L: Likewise.
        """
        total = self._sums[slot][layers.start : layers.stop]
        return WeighedPrompt(keys[:, :, :0], keys, keys[:, :, :0], scale, L, total)

    def add_chunks(
        self,
        cache: PagedCache,
        layer: int,
        chunks: ChunkRequests,
        queries: Tensor,
        log_sums: LogSums,
        base: int,
        longest: int,
        scale: float,
    ) -> None:
        """Add the attention of chunks of more than one token; see `add_received`."""
        prompts = self._tables.request_params[:, 0]
        arguments = (layer, chunks, queries, log_sums, self._addresses, prompts, base, longest, scale)
        add_received(self._tables, cache, *arguments)

    def add_alone(
        self, alone: Sequence[tuple[int, int]], last_queries: Tensor, rows: Rows, key_bytes: int, scale: float
    ) -> None:
        """Add the attention of tokens of prompts that came one by one in a step, which is rare.

        Args:
            alone: Slots, and tokens of each sequence with this one.
            last_queries: (slots, layers, query heads, head_dim), the tokens' queries.
            rows: The lists.
            key_bytes: Of a key.
            scale: Factor on the scores.
        """
        tables = self._tables
        for slot, count in alone:
            slots = upload([slot], self._addresses.device)
            dim = last_queries.shape[-1]
            queries = last_queries[slot].view(tables.layers, tables.heads, -1, dim)
            layers = max(PASS_BYTES // (tables.heads * count * key_bytes), 1)
            for first in range(0, tables.layers, layers):
                part = slice(first, min(first + layers, tables.layers))
                scores = queries[part] @ rows.read_keys(slots, part, count)[0].transpose(2, 3) * scale
                weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
                self._sums[slot][part, :, :count] += weights.sum(2)
