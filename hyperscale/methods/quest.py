"""Quest: keeps everything; each query reads the pages whose keys could fit it best."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel, LayerInput
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState
from hyperscale.methods.core.row_budget import BudgetRule

_PASS_BYTES = 64 << 20  # of the keys of a prompt whose bounds are found at once


class PagesState(BudgetedState):
    """Elementwise bounds of the keys of each page; slot s holds position s and belongs to page s // ``page``.

    Attributes:
        least: (sparse layers, max_chains, kv_heads, pages, head_dim) in the model's type; 0 for pages not begun. It is
            ``tensors[1]``.
        greatest: Likewise; ``tensors[2]``.
    """

    capturable = True
    method: "Quest"

    def __init__(self, method: "Quest", host: HostModel) -> None:
        super().__init__(method, host)
        self._page_size = method.recent
        attention: Any = host.attentions[0]
        shape = (max(0, host.layers - method.dense_layers), host.max_chains, host.kv_heads, 0, attention.head_dim)
        self.least = torch.zeros(shape, dtype=host.dtype, device=host.device)
        self.greatest = self.least.clone()

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`."""
        super().admit(first, entrants, prompt)
        size, chains = self._page_size, slice(first, first + len(entrants))
        count = -(-prompt.length // size)
        self._widen(count)
        sparse = prompt.keys[self.method.dense_layers :]
        # Several layers at once, as many as are copied in little memory.
        step = max(_PASS_BYTES // max(sparse[0].nbytes, 1), 1) if sparse else 1
        full = prompt.length // size * size
        for begin in range(0, len(sparse), step):
            keys = torch.stack(list(sparse[begin : begin + step]))[:, None]  # (layers, 1, kv_heads, P, head_dim)
            pages = keys[..., :full, :].view(*keys.shape[:3], full // size, size, keys.shape[4])
            rest = keys[..., full:, :]
            for table, bound in ((self.least, torch.amin), (self.greatest, torch.amax)):
                rows = table[begin : begin + step, chains]
                rows.zero_()
                rows[..., : full // size, :] = bound(pages, 4)
                if full < prompt.length:  # the last page, which is not full
                    rows[..., count - 1, :] = bound(rest, 3)

    def reserve(self, slots: int, tokens: int) -> None:
        """See `State.reserve`."""
        self._widen(-(-slots // self._page_size))

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        self._lens = step.lens
        self._page = (step.positions // self._page_size)[:, None]
        self._begins = (step.positions % self._page_size == 0)[:, None, None, None]  # whether the token begins a page
        self._reads = (self.budget(step) // self._page_size)[:, None, None, None]  # pages that a query reads

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        """See `State.write_slots`."""
        return self._lens[layer]

    def select(self, layer: int, layer_input: LayerInput) -> Tensor | None:
        """See `State.select`."""
        chains, heads, dim = layer_input.keys.shape
        queries = layer_input.queries.view(chains, heads, -1, dim)
        layer -= self.method.dense_layers
        if layer < 0:
            return torch.ones((), dtype=torch.bool, device=queries.device).expand(*queries.shape[:3], layer_input.width)
        self._widen(-(-layer_input.width // self._page_size))
        self._update_bounds(layer, layer_input.keys)
        least, greatest = self.least[layer, :chains, :, None], self.greatest[layer, :chains, :, None]
        # The greatest product that a key within a page's bounds could have, (chains, kv_heads, group, pages): each
        # dimension takes the bound of the query's sign. Elementwise, not as a matrix product, which may round a page's
        # bound by how many pages others have.
        bound = torch.where(queries[..., None, :] > 0, greatest, least).mul_(queries[..., None, :])
        bound = bound.sum(-1, dtype=torch.float32)
        # The page being filled always ranks first; pages not begun, last.
        page = torch.arange(bound.shape[3], device=bound.device)
        current = self._page[:, :, None, None]
        bound = bound.masked_fill_(page == current, float("inf")).masked_fill_(page > current, float("-inf"))
        order = bound.argsort(dim=-1, descending=True, stable=True)
        # From a choice of pages to one of slots; the last page may reach beyond the row's room.
        read = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order, (page < self._reads).expand_as(order))
        return read.repeat_interleave(self._page_size, dim=-1)[..., : layer_input.width]

    def _update_bounds(self, layer: int, keys: Tensor) -> None:
        """Take a new key, (chains, kv_heads, head_dim), into the bounds of the page being filled."""
        chains, heads, dim = keys.shape
        index = self._page[:, :, None, None].expand(chains, heads, 1, dim)
        for table, wider in ((self.least, torch.minimum), (self.greatest, torch.maximum)):
            # A page that begins now has no bounds yet: what the table holds for it does not count.
            bounds, new = table[layer, :chains], keys[:, :, None]
            bounds.scatter_(2, index, torch.where(self._begins, new, wider(bounds.gather(2, index), new)))

    def _widen(self, pages: int) -> None:
        missing = pages - self.least.shape[3]
        if missing > 0:
            fill = (0, 0, 0, max(missing, self.least.shape[3] // 2))
            self.least, self.greatest = pad(self.least, fill), pad(self.greatest, fill)
        self.tensors = (self._facts, self.least, self.greatest)


@dataclass
class Quest(BudgetedMethod):
    """Reads B // page pages of each row per query head, at least 1: the page being filled and those of highest bound.

    The bound of a page on q·k is sum_d max(q_d min_d, q_d max_d), with min and max over the page's keys after RoPE.
    Nothing is evicted and the prompt is prefilled densely; the first ``dense_layers`` layers read everything. B is
    max(page, ceil((P + L) / CR)) or, with ``rule="proportional"``, max(page, ceil(n / CR)). A page has
    max(16, 2 CR) entries by default, as in arXiv 2506.05345. The reads that are counted are the distinct entries that
    the query heads of a group read, each once, without the bounds of the pages: they exceed B where heads disagree.

    As in the reference code the first 2 layers are dense by default, and as in its kernels the page being filled is
    always read; its code for evaluation lets that page compete and reads at least 3 pages.

    In the torch engine what is not chosen is masked in attention, so time does not fall with reads: the pages differ
    between the heads of a group, and gathering them with PyTorch copies each before it is read, which at usual ratios
    moves more memory than reading the row once. In vLLM on CUDA a kernel follows the page table, which gains time in
    long rows.

    Parameters:
        page: Entries of a page; by default max(16, 2 CR).
        dense_layers: First layers that read everything.
    """

    name = "quest"
    summary = "keeps everything, reads the pages with the highest bound on q·k"
    source = "Tang et al. 2024, arXiv 2406.10774; page and budget of arXiv 2506.05345"
    kind = "selector"
    state = PagesState

    rule: BudgetRule = "fixed"
    # No parameters: the page being filled is always read, and there is nothing to pin, as nothing leaves.
    recent: int = field(init=False)
    pin_prompt: bool = field(init=False, default=False)
    page: int | None = None
    dense_layers: int = 2

    def __post_init__(self) -> None:
        if self.page is None:
            self.page = max(16, ceil(2 * self.cr))
        if self.page < 1:
            raise MethodError(f"page of quest must be at least 1 entry, not {self.page}")
        if self.dense_layers < 0:
            raise MethodError(f"dense_layers of quest must be at least 0, not {self.dense_layers}")
        self.recent = self.page
        super().__post_init__()

    def allowance(self, prompt: int, tokens: int, L: int) -> None:
        """See `Method.allowance`: B is per query head, and what a row reads depends on how far heads disagree."""
