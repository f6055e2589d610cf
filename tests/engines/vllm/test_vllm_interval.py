"""Prunings in the vLLM engine without vLLM: all layers of many requests at once, against the torch engine's own calls.

What the rules decide of a prompt is asked of a state layer by layer, as the torch engine does.
"""

from types import SimpleNamespace

import pytest
import torch
from interpreted import DEVICE, MARKS
from ragged_tables import TensorPages
from recorded_steps import RecordedCalls

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER, ceil_div
from hyperscale.engines.vllm.worker import rows
from hyperscale.engines.vllm.worker.methods import interval, registry
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.methods.core.base import HostModel
from hyperscale.methods.core.prefill_view import PrefillView

LAYERS, HEADS, GROUP, DIM, N, MOST = 3, 2, 2, 32, 16, 160
SCALE = 0.4
# Of prompts of very different lengths one is not pruned, and the others to different lengths.
PROMPTS, L = (30, 150, 7, 88), 24
# Of each of two lengths some that one recorded pruning serves, and a short one.
ALIKE = (150, 88, 147, 85, 146, 7, 86, 149)
# As rows are that few entries are always kept of.
FEW = (3, 12, 5, 6, 7, 8, 9, 4)
RULES = {
    "snapkv": {"window": 4, "kernel": 3, "rule": "fixed", "pin_prompt": False},
    "rkv": {"window": 3, "rule": "fixed", "pin_prompt": False},
    "keydiff": {},
    "knorm": {},
    "triattention": {"pin_prompt": False},
}
FEW_KEPT = {"rule": "fixed", "pin_prompt": False}


def config():
    from transformers import LlamaConfig

    sizes = {"hidden_size": HEADS * GROUP * DIM, "num_hidden_layers": LAYERS, "num_key_value_heads": HEADS}
    return LlamaConfig(num_attention_heads=HEADS * GROUP, head_dim=DIM, max_position_embeddings=512, **sizes)


class World:
    """Requests whose prompts lie in lists as chunks would leave them, among pages that belong to somebody else.

    Behind the pages of each list its table still names a page of another request, as a slot's former request leaves it.
    """

    def __init__(self, rule, *, on_cuda, prompts=PROMPTS, params=None, new=L):
        self.prompts, self.new = prompts, new
        tables = EntryTables
        if on_cuda:
            from hyperscale.engines.vllm.worker.staged_tables import StagedTables as tables  # noqa: N813
        blocks = 1 + len(prompts) * (MOST // N + 3)
        self.device = DEVICE if on_cuda else "cpu"
        self.tables = tables(
            layers=LAYERS, heads=HEADS, page_tokens=N, blocks=blocks, slots=9, max_tokens=MOST, device=self.device
        )
        self.shape = ModelShape(HEADS * GROUP, DIM, torch.float32, config())
        options = Options(method=rule, cr=3.0, parameters=tuple((params or RULES[rule]).items()))
        self.method = registry.create(self.tables, options, 0, HEADS, self.shape, MOST)
        draw = torch.Generator().manual_seed(5)
        self.tokens = [
            [torch.randn(LAYERS, heads, P, DIM, generator=draw) for heads in (HEADS * GROUP, HEADS, HEADS)]
            for P in prompts
        ]
        self.slots = {}
        for number, P in enumerate(prompts):
            slot = self.tables.open_slot(1 + number * (MOST // N + 3), (P, new, number))
            first = 1 + number * (MOST // N + 3)
            self.tables.set_superblocks(slot, 0, range(first, first + MOST // N + 3))
            self.method.open_request(slot, P, new, number)
            self.slots[slot] = number
        if on_cuda:
            self.tables.flush()
        self.method.flush()
        self._fill(on_cuda)

    def _fill(self, on_cuda):
        pages = len(self.tables.expiry)
        if on_cuda:
            from hyperscale.engines.vllm.kernels.arguments import PagedCache
            from hyperscale.engines.vllm.worker.cache_rows import CacheRows

            cache = torch.full((pages // LAYERS // HEADS, LAYERS * HEADS, N, 2 * DIM), float("nan"), device=self.device)
            self.cache = PagedCache.of(cache)
            self.rows = CacheRows(self.tables, self.cache, torch.float32)
            self.method.use_kernels()
        else:
            self.cache = TensorPages(pages, N, DIM)
            self.rows = ReferenceAttention(self.tables, self.method, self.cache).rows
        stays = next(slot for slot, number in self.slots.items() if self.prompts[number] == min(self.prompts))
        for slot, number in self.slots.items():
            queries, keys, values = (part.to(self.device) for part in self.tokens[number])
            P = self.prompts[number]
            count = ceil_div(P, N)
            size = LAYERS * HEADS
            virtual = torch.arange(size * count, device=self.device)
            page = self.tables.superblocks[slot, virtual // size] * size + virtual % size
            self.tables.page_table[slot] = int(self.tables.superblocks[stays, 0]) * size
            self.tables.page_table[slot, :, :, :count] = page.view(LAYERS, HEADS, count).to(torch.int32)
            self.tables.num_pages[slot], self.tables.lens[slot] = count, P
            self.tables.pages_used[slot] = len(virtual)
            table = self.tables.page_table[slot].long()
            place = torch.arange(P, device=self.device)
            for part, stored in ((keys, self.cache.keys), (values, self.cache.values)):
                stored[table[:, :, place // N], place % N] = part
            self.tables.expiry[table[:, :, :count].flatten()] = NEVER
            self._learn(slot, queries.transpose(1, 2).contiguous(), P)

    def _learn(self, slot, queries, P):
        """Queries come in two chunks, the second of which is the last token alone."""
        slots = torch.tensor([slot], device=self.device)
        for layer in range(LAYERS):
            self.method.begin_chunks(slots, torch.zeros_like(slots), [2, 2 + P - 1])
            padding = queries.new_full((2, HEADS * GROUP, DIM), float("nan"))
            self.method.record_chunks(layer, torch.cat([padding, queries[layer, : P - 1]]), SCALE)
            self.method.begin(slots, torch.full_like(slots, P - 1))
            self.method.choose_places(layer, queries[layer, P - 1 :], None, None, SCALE, MOST)

    def entries(self, slot):
        """Keys and values of all lists of a request, (layers, heads, entries, head_dim) each."""
        count = int(self.tables.lens[slot, 0, 0])
        assert bool((self.tables.lens[slot] == count).all())
        assert int(self.tables.num_pages[slot].max()) * N >= count
        place = torch.arange(count, device=self.device)
        table = self.tables.page_table[slot].long()[:, :, place // N]
        return [part[table, place % N].cpu() for part in (self.cache.keys, self.cache.values)]

    def wanted(self, number):
        """The same by the torch engine's calls, one prompt and one layer at a time."""
        host_config = SimpleNamespace(num_attention_heads=HEADS * GROUP)
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        attention = SimpleNamespace(head_dim=DIM)
        rotary = LlamaRotaryEmbedding(config())
        state = self.method.method.start(
            HostModel([attention] * LAYERS, host_config, HEADS, 1, torch.device("cpu"), torch.float32, rotary)
        )
        found = []
        for layer in range(LAYERS):
            queries, keys, values = (part[layer] for part in self.tokens[number])
            live, _ = state.prune_prompt(layer, PrefillView(queries, keys, values, SCALE, self.new))
            live = torch.ones(keys.shape[:2], dtype=torch.bool) if live is None else live
            found.append([torch.stack([x[head][live[head]] for head in range(HEADS)]) for x in (keys, values)])
        return [torch.stack(parts) for parts in zip(*found, strict=True)]


def check_entries(world):
    """What lies in the lists is what the torch engine keeps; returns the lists' lengths."""
    for slot, number in world.slots.items():
        for found, wanted in zip(world.entries(slot), world.wanted(number), strict=True):
            assert torch.equal(found, wanted)
    return {int(world.tables.lens[slot, 0, 0]) for slot in world.slots}


def check(rule, *, on_cuda):
    world = World(rule, on_cuda=on_cuda)
    world.method.finish_prompts([(slot, True) for slot in world.slots], world.rows)
    assert len(check_entries(world)) == len(PROMPTS)
    for slot in world.slots:
        size, superblocks = LAYERS * HEADS, set(world.tables.superblocks[slot].tolist())
        count = int(world.tables.num_pages[slot, 0, 0])
        own = world.tables.page_table[slot, :, :, :count].flatten().tolist()
        assert len(set(own)) == len(own)
        assert {page // size for page in own} <= superblocks
        if on_cuda:
            assert int(world.tables.pages_used[slot]) == len(own)


def check_repeated(rule):
    """Rows that are full as those of requests that decode are; of some steps two at once."""
    world = World(rule, on_cuda=True, prompts=ALIKE)
    calls = world.method.calls = RecordedCalls()
    slots = list(world.slots)
    for slot, number in world.slots.items():
        world.method._running[slot].entries = ALIKE[number]
    for step in (slots[:1], slots[1:3], slots[3:6], slots[6:7], slots[7:]):
        world.method.prune_full_rows({slot: ALIKE[world.slots[slot]] for slot in step}, world.rows)
    assert len(check_entries(world)) > 3
    assert len(calls.records) == 2
    assert calls.replays == 3


def check_few(rule):
    """Rows of a few entries, one a step, that one recording serves."""
    recent = "window" if "window" in RULES[rule] else "recent"
    world = World(rule, on_cuda=True, prompts=FEW, params={**FEW_KEPT, recent: 1}, new=2)
    calls = world.method.calls = RecordedCalls()
    for slot, number in world.slots.items():
        world.method._running[slot].entries = FEW[number]
        world.method.prune_full_rows({slot: FEW[number]}, world.rows)
    assert check_entries(world) == {1, 2, 3, 4}
    assert len(calls.records) == 1
    assert calls.replays == len(FEW) - 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pass_bytes", [rows.PASS_BYTES, 40000, 1])
def test_layers_and_requests_are_pruned_together_as_one_by_one(rule, pass_bytes, monkeypatch):
    monkeypatch.setattr(interval, "PASS_BYTES", pass_bytes)
    check(rule, on_cuda=False)


@pytest.mark.parametrize("rule", ["snapkv", "triattention"])
def test_states_are_counted_once(rule):
    """What is taken off the cache's memory is the state itself, and little more."""
    from hyperscale.engines.vllm.worker.staged_tables import StagedTables

    tables = StagedTables(layers=LAYERS, heads=HEADS, page_tokens=N, blocks=9, slots=60, max_tokens=MOST, device="meta")
    options = Options(method=rule, cr=3.0, parameters=tuple(RULES[rule].items()))
    shape = ModelShape(HEADS * GROUP, DIM, torch.float32, config())
    method = registry.create(tables, options, 0, HEADS, shape, MOST)
    state = sum(tensor.nbytes for tensor in method.state.tensors)
    assert state <= registry._bytes_of(method) < 1.05 * state


@pytest.mark.parametrize("pass_bytes", [rows.PASS_BYTES, 40000])
@pytest.mark.parametrize("rule", RULES)
class TestOnCuda:
    pytestmark = MARKS

    def test_layers_and_requests_are_pruned_together_as_one_by_one(self, rule, pass_bytes, monkeypatch):
        monkeypatch.setattr(interval, "PASS_BYTES", pass_bytes)
        check(rule, on_cuda=True)

    def test_a_recorded_pruning_serves_other_requests(self, rule, pass_bytes, monkeypatch):
        """One that is recorded once and repeated, as graphs on a GPU are, with other requests and lengths."""
        monkeypatch.setattr(interval, "PASS_BYTES", pass_bytes)
        check_repeated(rule)

    def test_a_recorded_pruning_serves_rows_of_few_entries(self, rule, pass_bytes, monkeypatch):
        monkeypatch.setattr(interval, "PASS_BYTES", pass_bytes)
        check_few(rule)
