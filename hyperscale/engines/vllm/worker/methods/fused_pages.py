"""Decode steps of quest: what is read of each list are the pages that `choose_pages` finds."""

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.decode.balanced_attention import FEW_LISTS, balanced_attention
from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
from hyperscale.engines.vllm.kernels.page_bounds import KeyBounds, PageStep, append_and_bound
from hyperscale.engines.vllm.kernels.page_choice import choose_pages
from hyperscale.engines.vllm.worker.methods.fused import DecodeLayer, FusedDecode, update
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.methods.quest import PagesState, Quest

_MOST_GROUP = 31  # query heads of a KV head: each has a bit of an int32


class FusedPages(FusedDecode):
    """See `FusedDecode`."""

    _step: PageStep

    def __init__(self, method: WorkerHosted) -> None:
        super().__init__(method.tables)
        self.method = method
        slots, _, heads = self.tables.lens.shape
        self._done = torch.zeros(slots, heads, dtype=torch.int32, device=self.tables.lens.device)

    @staticmethod
    def serves(method: WorkerHosted) -> bool:
        """Whether a method's state is of this kind, on a model that the kernels know."""
        return isinstance(method.state, PagesState) and method.shape.query_heads <= _MOST_GROUP * method.tables.heads

    @property
    def _state(self) -> PagesState:
        state = self.method.state
        assert isinstance(state, PagesState)
        return state

    @property
    def _quest(self) -> Quest:
        method = self.method.method
        assert isinstance(method, Quest)
        return method

    def begin(self, slots: Tensor, positions: Tensor) -> None:
        """See `FusedDecode.begin`."""
        quest, tables = self._quest, self.tables
        floor = self._state.tensors[0][1, slots]
        budgets = quest.row_budget(floor, positions + 1) // quest.recent
        self._step = PageStep(budgets, self.in_prompt(slots, positions).to(torch.int64))
        # The first layers read everything, the new entries too; the others are added as they are read.
        dense = min(quest.dense_layers, tables.layers)
        entries = tables.lens[slots, :dense].flatten(1).sum(1) + dense * tables.heads
        self.method.reads.index_copy_(0, slots, entries.to(torch.int64))
        if not self.method.reserved:  # pages that no request has reached yet take no memory
            self._state.reserve(self.method.widest, 0)

    def store(self, layer: DecodeLayer) -> None:
        """See `FusedDecode.store`; where pages are chosen `attend` does it, in one kernel with their bounds."""
        if layer.layer < self._quest.dense_layers:
            update(self.tables, layer, appends=True)

    def attend(self, layer: DecodeLayer) -> bool:
        """See `FusedDecode.attend`."""
        number = layer.layer - self._quest.dense_layers
        if number < 0:
            return False
        state, of_step = self._state, (layer.requests, self._step)
        kept = KeyBounds(self._quest.recent, state.least[number], state.greatest[number])
        tokens = (layer.queries, layer.keys, layer.values, layer.lens, layer.pages)
        bounds = append_and_bound(self.tables, layer.cache, layer.layer, *of_step, kept, *tokens)
        pages = (kept.least.shape[2], kept.size)
        chosen = choose_pages(self.tables, *of_step, bounds, *pages, self.method.reads, self._done)
        arguments = (layer.queries, layer.cache, layer.lens, layer.pages, layer.out)
        if layer.lens.numel() <= FEW_LISTS:
            balanced_attention(*arguments, self._done, layer.scale, chosen=chosen)
        else:
            decode_attention(*arguments, layer.scale, layer.width, chosen=chosen)
        return True
