"""The slow, obvious reference of the ragged cache: every token is remembered with its expiry, attention is masked.

A world has requests whose tokens have random keys and values and an expiry each. A step processes some tokens of some
requests in one layer, through the kernels; what they return and leave in the cache is compared with what the expiries
alone say, in float64.
"""

from types import SimpleNamespace

import torch

from hyperscale.kv.quantization import Fp8

NEVER = 2**31 - 1  # written out: the reference shares nothing with the code under test
POISON = float("nan")


class World:
    """One worker's cache with requests in it.

    Attributes:
        keys: Per request (tokens so far and to come, layers, heads, head_dim).
        expiry: Per request (tokens, layers, heads) int64: first query that no longer sees the token.
        done: Tokens processed, per (request, layer).
        decoded: Whether the last of them was a decode step, likewise.
    """

    def __init__(
        self, *, requests, layers=2, heads=2, group=2, dim=32, page=16, tokens=96, dtype=torch.float32, device="cpu",
        window=None, rate=0.6, seed=0, fp8=False,
    ):  # fmt: skip
        draw = torch.Generator().manual_seed(seed)
        self.layers, self.heads, self.group, self.dim, self.page = layers, heads, group, dim, page
        self.requests, self.window, self.device, self.dtype = requests, window, device, dtype
        shape = (tokens, layers, heads, dim)

        def normal(*size):
            return torch.randn(*size, generator=draw).to(dtype).to(device)

        self.keys = [normal(*shape) for _ in range(requests)]
        self.values = [normal(*shape) for _ in range(requests)]
        self.queries = [normal(tokens, layers, heads * group, dim) for _ in range(requests)]
        self.flags = [torch.rand(shape[:3], generator=draw) < rate for _ in range(requests)]
        self.expiry = []
        for flags in self.flags:
            position = torch.arange(tokens)[:, None, None]
            if window is None:  # any expiry that is later than the token, many at the same query
                later = position + 1 + torch.randint(0, 40, shape[:3], generator=draw)
                gone = (later + 7) // 8 * 8
            else:
                gone = position + window + 1
            self.expiry.append(torch.where(flags, gone, torch.full_like(gone, NEVER)))
        self.done = {(r, layer): 0 for r in range(requests) for layer in range(layers)}
        self.decoded = dict.fromkeys(self.done, False)

        size, slots = layers * heads, requests + 2
        most = -(-tokens // page) + 1
        blocks = 1 + requests * (most + 1) + 3
        of = {"dtype": torch.int32, "device": device}
        order = (torch.randperm(blocks - 1, generator=draw) + 1).tolist()
        self.blocks_of = [order[r * (most + 1) : (r + 1) * (most + 1)] for r in range(requests)]
        self.slots = (torch.randperm(slots - 1, generator=draw)[:requests] + 1).tolist()
        # A cache of bytes is one of fp8: 255 is not a number as a code, nor are two of them as a scale.
        self.codec = Fp8("fp8", dim, dtype) if fp8 else None
        self.cache = torch.full(
            (blocks, size, page, 2 * (self.codec.width if fp8 else dim)),
            255 if fp8 else POISON,
            dtype=torch.uint8 if fp8 else dtype,
            device=device,
        )
        self.tables = SimpleNamespace(
            page_tokens=page,
            slot_of_block=torch.zeros(blocks, **of),
            superblocks=torch.zeros(slots, most + 3, **of),
            num_superblocks=torch.zeros(slots, **of),
            pages_used=torch.zeros(slots, **of),
            page_table=torch.full((slots, layers, heads, most), -7, **of),
            num_pages=torch.zeros(slots, layers, heads, **of),
            lens=torch.zeros(slots, layers, heads, **of),
            newest=torch.zeros(slots, layers, heads, **of),
            expiry=torch.full((blocks * size, page), -5, **of),
        )
        for slot, owned in zip(self.slots, self.blocks_of, strict=True):
            self.tables.slot_of_block[owned[0]] = slot
            self.tables.superblocks[slot, : len(owned)] = torch.tensor(owned, **of)
            self.tables.num_superblocks[slot] = len(owned)

    def first_blocks(self, members):
        """As a column of a wider table, the way vLLM hands it over; -1 is padding."""
        table = torch.full((len(members), 3), 12345, dtype=torch.int32, device=self.device)
        table[:, 0] = torch.tensor([self.blocks_of[r][0] if r >= 0 else 0 for r in members])
        return table[:, 0]

    def gather(self, tensors, members, spans, layer):
        """Tokens of the batch in one tensor, as a strided view of a wider one."""
        parts = [tensors[r][a:b, layer] for r, (a, b) in zip(members, spans, strict=True)]
        joined = torch.cat(parts)
        wide = torch.full((len(joined), joined[0].numel() + 8), POISON, dtype=joined.dtype, device=joined.device)
        wide[:, : joined[0].numel()] = joined.flatten(1)
        return wide[:, : joined[0].numel()].unflatten(1, joined.shape[1:])

    def verdicts(self, members, spans, layer):
        """On the token before each; of a first token, nonsense that nobody may use."""
        parts = []
        for r, (a, b) in zip(members, spans, strict=True):
            before = torch.arange(a - 1, b - 1)
            parts.append(torch.where((before >= 0)[:, None], self.flags[r][before.clamp(min=0), layer], True))
        return torch.cat(parts).to(self.device)

    # -- what must be -----------------------------------------------------------------------------------------------

    def stored_as(self, tensor):
        """Keys or values as they are read from the cache."""
        return tensor if self.codec is None else self.codec.decode(self.codec.encode(tensor))

    def attention(self, r, a, b, layer, scale, exact=0):
        """Masked attention of queries [a, b) to all tokens, (b - a, heads * group, dim) float64.

        The last ``exact`` tokens are read as they are, the others as they are stored.
        """
        q = self.queries[r][a:b, layer].double().cpu().unflatten(1, (self.heads, self.group))
        parts = (self.keys[r][:b, layer], self.values[r][:b, layer])
        k, v = (torch.cat([self.stored_as(x[: b - exact]), x[b - exact :]]).double().cpu() for x in parts)
        scores = torch.einsum("qhgd,khd->hgqk", q, k) * scale
        visible = self.visible(r, a, b, layer)
        weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(-1)
        return torch.einsum("hgqk,khd->qhgd", weights, v).flatten(1, 2)

    def visible(self, r, a, b, layer):
        """(heads, queries, keys) bool."""
        query, key = torch.arange(a, b)[:, None], torch.arange(b)
        return (key <= query) & (query < self.expiry[r][:b, layer].T[:, None])

    def stored(self, r, layer, head, tokens, query):
        """Of the first ``tokens`` tokens those that ``query`` has to find: {position: expiry as known by then}."""
        found = {}
        for position in range(tokens):
            expiry = int(self.expiry[r][position, layer, head])
            if self.window is not None and position == tokens - 1:
                expiry = NEVER  # the verdict is yet to come
            if expiry > query:
                found[position] = expiry
        return found

    def read_pages(self):
        """Keys and values of all pages, (pages, 2, page, dim): the layout written out."""
        if self.codec is None:
            return self.cache.view(-1, 2, self.page, self.dim)
        pages = self.cache.view(-1, self.page * 2 * self.codec.width)
        codes, scales = pages.split([2 * self.page * self.dim, 4 * self.page], dim=1)
        scales = scales.view(len(pages), self.page, 2, 2).transpose(1, 2)  # of keys, then of values; of 2 bytes each
        stored = torch.cat([scales, codes.view(len(pages), 2, self.page, self.dim)], -1)
        return self.codec.decode(stored)

    def check_lists(self):
        """Every list holds exactly what it has to, and nothing was written outside of the pages that lists have."""
        tables, pages = self.tables, self.read_pages().cpu()
        table, num_pages, lens = tables.page_table.cpu(), tables.num_pages.cpu(), tables.lens.cpu()
        expiry, last = tables.expiry.cpu(), tables.newest.cpu()
        used = {}
        for (r, layer), done in self.done.items():
            for head in range(self.heads):
                slot = self.slots[r]
                count, have = int(lens[slot, layer, head]), int(num_pages[slot, layer, head])
                owned = table[slot, layer, head, :have].tolist()
                for page in owned:
                    assert page not in used, "a page in two lists"
                    used[page] = r
                # A decode step removes what its own query no longer sees, a chunk what the next one does not.
                want = self.stored(r, layer, head, done, done - self.decoded[r, layer])
                assert count == len(want)
                assert have * self.page >= count
                entries = {}
                for place in range(count):
                    page, at = owned[place // self.page], place % self.page
                    entries[tuple(pages[page, 0, at].tolist())] = (pages[page, 1, at], int(expiry[page, at]), place)
                assert len(entries) == count
                for position, expires in want.items():
                    key = tuple(self.stored_as(self.keys[r][position, layer, head]).cpu().tolist())
                    value, found, place = entries[key]
                    assert torch.equal(value, self.stored_as(self.values[r][position, layer, head]).cpu())
                    assert found == expires
                    if position == done - 1:
                        assert int(last[slot, layer, head]) == place
        size = self.layers * self.heads
        for r, slot in enumerate(self.slots):
            mine = [page for page, owner in used.items() if owner == r]
            assert int(tables.pages_used[slot]) == len(mine)
            superblocks = self.blocks_of[r]
            assert sorted(mine) == sorted(superblocks[v // size] * size + v % size for v in range(len(mine)))
        others = torch.tensor([page not in used for page in range(len(pages))])
        untouched = self.cache.view(len(pages), -1).cpu()[others]
        is_poison = untouched.isnan() if self.codec is None else untouched == 255
        assert bool(is_poison.all()), "written outside of one's pages"
        assert bool((expiry[others] == -5).all())
        assert bool((table[0] == -7).all())
        assert not bool(lens[0].any() | num_pages[0].any() | tables.pages_used[0].any())
