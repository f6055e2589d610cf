"""The mechanism of the vLLM engine without vLLM: book, allocator and attention against brute force, at random."""

import random
from collections import deque
from itertools import pairwise

import pytest
import torch
from ragged_tables import TensorPages, anything, check_pages

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER, RequestParams
from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator
from hyperscale.engines.vllm.worker.cpu import CpuCacheWorker, CpuStep
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention
from hyperscale.engines.vllm.worker.tables import EntryTables

N, DIM, GROUP = 4, 8, 2


class Block:
    def __init__(self, block_id):
        self.block_id = block_id


class BlockPool:
    """What the book needs of vLLM's pool; block 0 is the null block."""

    def __init__(self, blocks):
        self.free, self.blocks = deque(Block(i) for i in range(1, blocks)), blocks

    def get_new_blocks(self, count):
        assert count <= len(self.free)
        return [self.free.popleft() for _ in range(count)]

    def free_blocks(self, blocks):
        self.free.extend(blocks)
        assert len({block.block_id for block in self.free}) == len(self.free) < self.blocks

    def get_num_free_blocks(self):
        return len(self.free)


class World:
    """A scheduler and a worker that run random requests, every entry of which is known by brute force."""

    def __init__(self, seed, *, bursts, lag, blocks=60, chunk=12, bound=None):
        self.random = random.Random(seed)
        self.layers, self.heads = self.random.choice([(1, 1), (2, 1), (1, 3), (2, 2)])
        self.torch = torch.Generator().manual_seed(seed)
        size = self.layers * self.heads
        self.pool, options = BlockPool(blocks), Options(method="dms", cr=4.0, window=3)
        self.allocator = SuperblockAllocator(size, N, self.pool, options, chunk)
        if bound:
            self.allocator.upper_bound = bound(self.allocator.upper_bound)
        tables = EntryTables(
            layers=self.layers, heads=self.heads, page_tokens=N, blocks=blocks, slots=6, max_tokens=100
        )
        pages = TensorPages(blocks * size, N, DIM)
        self.worker = CpuCacheWorker(ReferenceAttention(tables, anything(tables, options, self.expiry), pages))
        self.lag, self.bursts, self.chunk = lag, bursts, chunk
        self.reports, self.requests, self.names = deque(), {}, 0

    def expiry(self, key, layer, head, position):
        noise = random.Random(f"{key} {layer} {head} {position}")
        if noise.random() < 0.25:
            return NEVER
        after = position + 1 + noise.randrange(12)
        # Bursts: everything that goes goes at multiples of 16, also many entries at once.
        return -(-after // 16) * 16 if self.bursts else position + 1 + 5

    def tensors(self, request, count):
        heads = self.layers * self.heads
        made = torch.randn(3, count, heads * GROUP, DIM, generator=self.torch)
        q, k, v = made[0], made[1, :, :heads], made[2, :, :heads]
        request["keys"], request["values"] = (
            torch.cat([request[name], new]) for name, new in (("keys", k), ("values", v))
        )
        return q, k, v

    def arrive(self):
        self.names += 1
        name, total = f"r{self.names}", self.random.randrange(2, 80)
        prompt = self.random.randrange(1, total)
        self.allocator.add_request(name, RequestParams(prompt, total - prompt, self.names))
        empty = torch.zeros(0, self.layers * self.heads, DIM)
        self.requests[name] = {"prompt": prompt, "total": total, "done": 0, "keys": empty, "values": empty}

    def schedule(self):
        """What vLLM's scheduler does: the running first, preempting the last where it must, then the waiting."""
        step, budget = {}, self.chunk
        running = [name for name in self.requests if name in self.allocator.running]
        while running and budget:
            name = running.pop(0)
            request = self.requests[name]
            left = (request["prompt"] if request["done"] < request["prompt"] else request["done"] + 1) - request["done"]
            tokens = min(left, budget)
            while self.allocator.count_missing(name, request["done"] + tokens) > self.pool.get_num_free_blocks():
                victim = running.pop() if running else name
                self.preempt(victim)
                if victim == name:
                    break
            else:
                step[name] = tokens
                self.allocator.allocate(name, request["done"] + tokens)
                budget -= tokens
        for name, request in self.requests.items():
            if name not in self.allocator.running and name not in step and budget and len(self.allocator.running) < 6:
                tokens = min(request["prompt"], budget)
                fits = self.allocator.count_to_admit(name) <= self.pool.get_num_free_blocks()
                if not fits or self.allocator.count_missing(name, tokens) > self.pool.get_num_free_blocks():
                    break
                self.allocator.allocate(name, tokens)
                step[name], budget = tokens, budget - tokens
        return step

    def preempt(self, name):
        request = self.requests[name]
        self.pool.free_blocks(self.allocator.release(name))
        empty = torch.zeros(0, self.layers * self.heads, DIM)
        request.update(done=0, keys=empty, values=empty)

    def run(self, steps):
        for _ in range(steps):
            if len(self.requests) < 8 and self.random.random() < 0.5:
                self.arrive()
            step = self.schedule()
            while len(self.reports) > self.lag or (self.reports and not step):
                for name, ran in self.reports.popleft().items():
                    self.allocator.record_usage(name, ran.generation, ran.pages, ran.computed_tokens)
            self.execute(step)
            for name in list(step):
                request = self.requests[name]
                if request["done"] == request["total"] or self.random.random() < 0.01:
                    del self.requests[name]
                    self.pool.free_blocks(self.allocator.release(name))
                    self.allocator.remove_request(name)
        return self

    def execute(self, step):
        updates, released_requests = self.allocator.take_updates()
        held = self.allocator.running
        self.worker.begin_step(
            updates, released_requests, {name: (held[name].generation, tokens) for name, tokens in step.items()}
        )
        self.check_supply()
        if not step:
            return
        firsts = torch.tensor([held[name].blocks[0].block_id for name in step], dtype=torch.int32)
        computed_tokens = [self.requests[name]["done"] + tokens for name, tokens in step.items()]
        starts = [sum(list(step.values())[:i]) for i in range(len(step) + 1)]
        described = self.worker.resolve_slots(CpuStep(firsts, starts, computed_tokens))
        data = {name: self.tensors(self.requests[name], tokens) for name, tokens in step.items()}
        live = dict.fromkeys(step, 0)
        for layer in range(self.layers):
            self.attend(layer, step, described, data, live)
        for name, end in zip(step, computed_tokens, strict=True):
            self.requests[name]["done"] = end
        check_pages(self.worker.attention.tables, [place.slot for place in self.worker.requests.values()])
        report = self.worker.report_step()
        check_pages(self.worker.attention.tables, [place.slot for place in self.worker.requests.values()])
        for name, ran in report.items():
            if ran.computed_tokens > self.requests[name]["prompt"]:
                assert ran.live_entries[-1] == live[name]
        self.reports.append(report)

    def check_supply(self):
        """Hold what the worker believes a request has against what the book has given it."""
        tables = self.worker.attention.tables
        for name, holding in self.allocator.running.items():
            slot = self.worker.requests[name].slot
            given = [block.block_id for block in holding.blocks]
            assert tables.superblocks[slot, : int(tables.num_superblocks[slot])].tolist() == given

    def attend(self, layer, step, described, data, live):
        attention, heads = self.worker.attention, slice(layer * self.heads, (layer + 1) * self.heads)
        single = [i for i, tokens in enumerate(step.values()) if tokens == 1]
        names = list(step)
        found = {}
        if single:
            slots = torch.tensor([described.slots[i] for i in single])
            positions = torch.tensor([described.computed_tokens[i] - 1 for i in single])
            rows = DecodeBatch(layer, slots, positions, attention.tables.lens[slots, layer].long(), None)
            q, k, v = (torch.cat([data[names[i]][part] for i in single]) for part in range(3))
            q = q.view(len(single), -1, GROUP, DIM)[:, heads]
            out = attention.decode(rows, q, k[:, heads], v[:, heads], DIM**-0.5)
            found |= {names[i]: out[row : row + 1] for row, i in enumerate(single)}
        for i, (name, tokens) in enumerate(step.items()):
            if tokens > 1:
                q, k, v = data[name]
                end = described.computed_tokens[i]
                span = RequestChunk(layer, described.slots[i], end - tokens, end, None)
                q = q.view(tokens, -1, GROUP, DIM)[:, heads]
                found[name], seen = attention.attend_chunk(span, q, k[:, heads], v[:, heads], DIM**-0.5)
                described.query_reads[described.starts[i] : described.starts[i + 1]] += seen
        for name, out in found.items():
            live[name] += self.compare(layer, name, out, data[name][0])

    def compare(self, layer, name, out, queries):
        """Hold a layer's outputs against full attention with a mask; returns what the last query saw."""
        request, count = self.requests[name], len(queries)
        end, saw = request["done"] + count, 0
        for head in range(self.heads):
            row = layer * self.heads + head
            keys, values = request["keys"][:, row], request["values"][:, row]
            gone = torch.tensor([self.expiry(int(name[1:]), layer, head, k) for k in range(end)])
            for t in range(count):
                query = end - count + t
                visible = (torch.arange(end) <= query) & (query < gone)
                scores = queries[t].view(-1, GROUP, DIM)[row] @ keys[:end].T * DIM**-0.5
                want = scores.masked_fill(~visible, float("-inf")).softmax(-1) @ values[:end]
                torch.testing.assert_close(out[t, head], want, rtol=1e-4, atol=1e-5)
            saw += int(visible.sum())
        return saw


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_runs(seed, bursts, lag):
    world = World(seed, bursts=bursts, lag=lag).run(60)
    for name in list(world.requests):
        world.pool.free_blocks(world.allocator.release(name))
    assert world.pool.get_num_free_blocks() == world.pool.blocks - 1


def test_a_small_pool_preempts_and_never_runs_out():
    preempted = []
    for seed in range(6):
        world = World(seed, bursts=False, lag=1, blocks=32)
        world.allocator.count_to_admit = lambda name: 1  # it learns what requests hold, and would let too few in
        original = world.preempt
        world.preempt = lambda name, original=original: (preempted.append(name), original(name))
        world.run(80)
    assert preempted


def test_superblocks_return_while_a_request_runs():
    world = World(3, bursts=True, lag=0)
    held = []
    world.arrive()
    (request,) = world.requests.values()
    request.update(total=79, prompt=2)
    world.allocator._params["r1"] = RequestParams(2, 77, 1)
    while world.requests:
        world.execute(step := world.schedule())
        for name, ran in world.reports.popleft().items():
            world.allocator.record_usage(name, ran.generation, ran.pages, ran.computed_tokens)
            held.append(len(world.allocator.running[name].blocks))
        assert step
        if request["done"] == 79:
            break
    assert any(b < a for a, b in pairwise(held))


def test_a_bound_that_is_too_low_is_noticed():
    def lower(needed):
        return lambda holding, tokens: max(needed(holding, tokens) - 1, 1)

    def runs():
        for seed in range(10):
            World(seed, bursts=False, lag=0, bound=lower).run(60)

    with pytest.raises(AssertionError, match="over-commit"):
        runs()
