"""One layer of a ragged paged cache, of the shape of Qwen2.5-32B's, filled for measurements."""

from types import SimpleNamespace

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import PagedCache
from hyperscale.engines.vllm.protocol import NEVER

HEADS, GROUP, DIM, PAGE = 8, 5, 128, 32
SCALE = DIM**-0.5
BYTES = 2 * DIM * 2  # of one entry
STATE = ("pages_used", "page_table", "num_pages", "lens", "newest", "expiry")


class Cache:
    """One layer's lists of some requests, filled with random entries, pages in random order."""

    def __init__(self, lens: Tensor, spare: int, device: str) -> None:
        """Fill.

        Args:
            lens: (requests, heads) int64 on the CPU.
            spare: Tokens that every list may still append.
            device: Where.
        """
        count = len(lens)
        pages = (lens + PAGE - 1) // PAGE
        max_pages = int((lens.max() + spare + PAGE - 1) // PAGE) + 1
        blocks_each = [int(-(-int(p.sum() + HEADS * (spare // PAGE + 1)) // HEADS)) for p in pages]
        blocks = 1 + sum(blocks_each)
        order = torch.randperm(blocks - 1) + 1
        self.data = torch.randn(blocks, HEADS, PAGE, 2 * DIM, device=device, dtype=torch.bfloat16)
        self.pool = PagedCache.of(self.data)
        tables = SimpleNamespace(
            page_tokens=PAGE,
            slot_of_block=torch.zeros(blocks, dtype=torch.int32),
            superblocks=torch.zeros(count + 1, max(blocks_each), dtype=torch.int32),
            num_superblocks=torch.tensor([0, *blocks_each], dtype=torch.int32),
            pages_used=torch.tensor([0, *pages.sum(1).tolist()], dtype=torch.int32),
            page_table=torch.zeros(count + 1, 1, HEADS, max_pages, dtype=torch.int32),
            num_pages=torch.zeros(count + 1, 1, HEADS, dtype=torch.int32),
            lens=torch.zeros(count + 1, 1, HEADS, dtype=torch.int32),
            newest=torch.full((count + 1, 1, HEADS), -1, dtype=torch.int32),
            expiry=torch.full((blocks * HEADS, PAGE), NEVER, dtype=torch.int32),
        )
        tables.lens[1:, 0], tables.num_pages[1:, 0] = lens, pages
        first_blocks, begin = [], 0
        for slot, number in enumerate(blocks_each, 1):
            request_blocks = order[begin : begin + number].to(torch.int32)
            begin += number
            tables.superblocks[slot, :number] = request_blocks
            tables.slot_of_block[int(request_blocks[0])] = slot
            first_blocks.append(int(request_blocks[0]))
            pages_in_use = (request_blocks[:, None] * HEADS + torch.arange(HEADS, dtype=torch.int32)).flatten()
            pages_in_use = pages_in_use[: int(pages[slot - 1].sum())]
            pages_in_use = pages_in_use[torch.randperm(len(pages_in_use))]
            for head, part in enumerate(pages_in_use.split(pages[slot - 1].tolist())):
                tables.page_table[slot, 0, head, : len(part)] = part
        for name, table in vars(tables).items():
            if isinstance(table, Tensor):
                setattr(tables, name, table.to(device))
        self.tables = tables
        self.first_blocks = torch.tensor(first_blocks, dtype=torch.int32, device=device)
        self._saved = {name: getattr(self.tables, name).clone() for name in STATE}

    def expire(self, window: int, query: int, share: float) -> None:
        """Let one entry of each list expire at each of the next ``window`` queries, with probability ``share``."""
        lens = self.tables.lens[1:, 0].cpu()
        table = self.tables.page_table[1:, 0].cpu()
        expiry = self.tables.expiry.cpu()
        for r in range(lens.shape[0]):
            for h in range(HEADS):
                steps = torch.nonzero(torch.rand(window) < share)[:, 0]
                places = torch.randperm(int(lens[r, h]))[: len(steps)]
                when = (query + steps[: len(places)]).to(torch.int32)
                expiry[table[r, h, places // PAGE].long(), places % PAGE] = when
        self.tables.expiry.copy_(expiry)
        self._saved["expiry"].copy_(expiry)

    def restore(self) -> None:
        """Undo what kernels did to the tables."""
        for name, tensor in self._saved.items():
            getattr(self.tables, name).copy_(tensor)
