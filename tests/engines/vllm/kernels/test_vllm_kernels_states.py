"""Decode steps of methods with a state by kernels, beside the state itself: the same places, victims and pages."""

import random

import pytest
import torch
from interpreted import DEVICE, MARKS
from plain_pages import PlainPages
from transformers import LlamaConfig

from hyperscale.engines.vllm.kernels import page_bounds, page_choice, victim_choice
from hyperscale.engines.vllm.kernels.arguments import DecodeRequests, PagedCache
from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods import fused_pages
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk
from hyperscale.engines.vllm.worker.methods.fused import DecodeLayer
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape
from hyperscale.engines.vllm.worker.methods.registry import use_kernels
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.methods.core.victim import VictimState
from hyperscale.methods.quest import PagesState

pytestmark = MARKS
LAYERS, DIM, PAGE, SCALE, SLOTS, MOST = 2, 16, 16, 0.25, 4, 70
PROMPTS = (3, 30, 33, 1)  # tokens; of the last two, the last token comes alone
CASES = {
    "tova": ("tova", 3, {}),
    "tova by head, pinned": ("tova", 2, {"per": "head", "pin_prompt": True, "rule": "proportional", "recent": 3}),
    "h2o": ("h2o", 3, {}),
    "h2o, pinned": ("h2o", 2, {"pin_prompt": True, "heavy": 0.8}),
    "random": ("random", 3, {"pin_prompt": False, "recent": 3}),
    "window": ("window", 3, {"pin_prompt": True, "recent": 2}),
    "streaming": ("streaming", 4, {}),
    "quest": ("quest", 3, {"page": 4, "dense_layers": 1}),
    "quest, proportional": ("quest", 2, {"page": 5, "rule": "proportional", "dense_layers": 0}),
}


class Side:
    """Requests under a method; its decode steps are taken by kernels if ``fused``, else by the state."""

    def __init__(self, rule, heads, group, *, fused):
        name, cr, params = rule
        self.shape = heads, group, DIM
        self.tables = EntryTables(
            layers=LAYERS, heads=heads, page_tokens=PAGE, blocks=40, slots=SLOTS, max_tokens=MOST, device=DEVICE
        )
        options = Options(method=name, cr=float(cr), parameters=tuple(params.items()))
        config = LlamaConfig(hidden_size=heads * group * DIM, num_attention_heads=heads * group, head_dim=DIM)
        shape = ModelShape(heads * group, DIM, torch.float32, config)
        self.method = WorkerHosted(self.tables, options, options.make_method(), shape, MOST)
        cache = torch.full((40, LAYERS * heads, PAGE, 2 * DIM), float("nan"), device=DEVICE)
        self.cache, self.plain = PagedCache.of(cache), ReferenceAttention(self.tables, self.method, PlainPages(cache))
        if fused:
            use_kernels(self.method)
            self.method.received = None  # prompts are processed in plain torch on either side
            assert self.method.fused is not None
        self.slots = []
        for request, prompt in enumerate(PROMPTS):
            slot = self.tables.open_slot(1 + 9 * request, (prompt, MOST - prompt, 77 + request))
            self.tables.set_superblocks(slot, 0, range(1 + 9 * request, 9 + 9 * request))
            self.method.open_request(slot, prompt, MOST - prompt, 77 + request)
            self.slots.append(slot)

    def chunk(self, request, stop, layer, queries, keys, values):
        chunk = RequestChunk(layer, self.slots[request], 0, stop, None)
        self.plain.attend_chunk(chunk, queries.view(stop, *self.shape), keys, values, SCALE)

    def step(self, requests, positions, tokens):
        """Outputs of all layers of a decode step; requests of -1 pad the batch, in kernels only."""
        real = [i for i, request in enumerate(requests) if request >= 0]
        positions = torch.tensor(positions, device=DEVICE)
        if self.method.fused is None:
            slots = torch.tensor([self.slots[requests[i]] for i in real], device=DEVICE)
            outs = []
            for layer, (queries, keys, values) in enumerate(tokens):
                lens = self.tables.lens[slots, layer].long()
                batch = DecodeBatch(layer, slots, positions[real], lens, None)
                rows = queries[real].view(-1, *self.shape), keys[real], values[real]
                outs.append(self.plain.decode(batch, *rows, SCALE))
            return outs, real
        first = torch.tensor([0 if r < 0 else 1 + 9 * r for r in requests], dtype=torch.int32, device=DEVICE)
        self.method.begin(self.tables.slot_of_block[first.long()].long(), positions)
        outs = []
        for layer, (queries, keys, values) in enumerate(tokens):
            lens = torch.full((len(requests), self.shape[0]), -3, dtype=torch.int32, device=DEVICE)
            pages = torch.full((*lens.shape, self.tables.page_table.shape[-1]), -9, dtype=torch.int32, device=DEVICE)
            queries = queries.view(-1, *self.shape)
            out = torch.full_like(queries, float("nan"))
            rows = DecodeRequests(first, positions)
            call = DecodeLayer(
                self.cache, layer, rows, queries, keys, values, lens, pages, out, SCALE, self.method.widest
            )
            self.method.fused.store(call)
            if not self.method.fused.attend(call):
                decode_attention(queries, self.cache, lens, pages, out, SCALE, call.width)
            assert not out[[i for i, request in enumerate(requests) if request < 0]].any()
            outs.append(out[real])
        return outs, real

    def lists(self, request):
        """Keys and values of a request's lists by layer, and their lengths."""
        slot = torch.tensor([self.slots[request]], device=DEVICE)
        count = int(self.tables.lens[slot].max())
        return [self.plain.rows.read(slot, layer, count) for layer in range(LAYERS)], self.tables.lens[slot].tolist()

    def kept(self, request):
        """What the state keeps of a request's entries, or of their pages."""
        state, fused = self.method.state, self.method.fused
        by_slot = fused is not None and fused.by_slot
        tensors = [
            tensor[:, self.slots[request]] for tensor in (state.tensors if by_slot else self.method.stored.tensors)
        ]
        longest = int(self.tables.lens[self.slots[request]].max())
        if isinstance(state, VictimState):
            _, position, score, victim = tensors
            return [victim, position[..., :longest], score[..., :longest]]
        if isinstance(state, PagesState):
            pages = -(-longest // self.method.method.recent)
            return [tensor[:, :, :pages] for tensor in tensors[1:] if len(tensor)]
        return tensors


def draw_tokens(count, heads, group, tied, generator):
    """Queries, keys and values of a layer. Where ties are wanted, numbers are whole and few, so all sums are exact."""
    shapes = (count, heads * group, DIM), (count, heads, DIM), (count, heads, DIM)
    if not tied:
        return [torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes]
    return [(torch.rand(shape, generator=generator) < 0.1).float().to(DEVICE) for shape in shapes]


def compare(mine, theirs, requests):
    for request in requests:
        rows, lens = mine.lists(request)
        other_rows, other_lens = theirs.lists(request)
        assert lens == other_lens
        torch.testing.assert_close(rows, other_rows, rtol=0, atol=0)
        torch.testing.assert_close(mine.kept(request), theirs.kept(request), rtol=1e-4, atol=1e-6)
    if mine.method.selects:
        slots = [mine.slots[request] for request in requests]
        assert mine.method.reads[slots].tolist() == theirs.method.reads[slots].tolist()


RUNS = [(case, False) for case in CASES]
RUNS += [(case, True) for case in ("tova", "tova by head, pinned", "h2o, pinned", "quest", "quest, proportional")]
#: Of a rule with ties and without, or in two variants, one runs by default.
SLOW = [
    ("tova", False),
    ("h2o", False),
    ("quest", False),
    ("tova by head, pinned", True),
    ("quest, proportional", True),
]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(victim_choice, "TILE", 32)  # so that lists take several blocks
    monkeypatch.setattr(page_bounds, "BLOCK", 16)
    monkeypatch.setattr(page_choice, "MOST_LISTED", 8)


@pytest.mark.parametrize(
    ("case", "tied"),
    [
        pytest.param(*run, id=f"{run[0]}{', ties' * run[1]}", marks=pytest.mark.slow if run in SLOW else ())
        for run in RUNS
    ],
)
def test_kernels_decide_as_the_state_does(case, tied):
    seed = RUNS.index((case, tied))
    heads, group = (2, 2) if tied else ((1, 5), (2, 3), (3, 1))[seed % 3]
    story(CASES[case], heads, group, tied, seed)


def test_chosen_pages_of_many_lists_are_read_too(monkeypatch):
    """With many lists attention is cut otherwise, and reads the same pages."""
    monkeypatch.setattr(fused_pages, "FEW_LISTS", 0)
    story(CASES["quest"], 2, 3, False, 0)


def test_another_page_shows(monkeypatch):
    """The comparison notices a page that is read in another's place, though as many entries are read."""
    choose = fused_pages.choose_pages

    def tamper(*arguments):
        chosen = choose(*arguments)
        if int(chosen.numbers[0, 0, 0]) == 1:  # page 0 was not chosen
            chosen.numbers[0, 0, 0] = 0
        return chosen

    monkeypatch.setattr(fused_pages, "choose_pages", tamper)
    with pytest.raises(AssertionError):
        story(CASES["quest"], 1, 1, False, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_more_rules_and_shapes(seed):
    draw = random.Random(seed)
    name = ("tova", "h2o", "quest", "random", "window", "streaming")[seed % 6]
    params = {"rule": draw.choice(["proportional", "fixed"])}
    if name == "quest":
        params |= {"page": draw.choice([1, 3, 7, 16, 24]), "dense_layers": draw.choice([0, 1, 2, 3])}
    else:
        params["pin_prompt"] = draw.random() < 0.5
    if name in ("tova", "random", "window"):
        params["recent"] = draw.choice([1, 2, 5])
    if name == "tova":
        params["per"] = draw.choice(["layer", "head"])
    if name == "h2o":
        params["heavy"] = draw.choice([0.0, 0.3, 1.0])
    heads, group = draw.choice([(1, 1), (1, 7), (2, 4), (3, 2), (5, 1)])
    story((name, draw.choice([1.5, 2, 3, 6]), params), heads, group, False, seed)


def test_another_victim_shows():
    """The comparison notices a list that gives up another entry than the state chose."""

    def tamper(side):
        victim = side.method.state.victim
        victim[:] = (victim + 1) % 20

    with pytest.raises(AssertionError):
        story(CASES["tova"], 1, 2, False, 0, tamper)


def story(rule, heads, group, tied, seed, tamper=lambda side: None):
    """Some prompts, then decode steps of changing batches, by kernels and by the state; all is compared after each."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    sides = [Side(rule, heads, group, fused=fused) for fused in (True, False)]
    done = {}
    for request, prompt in enumerate(PROMPTS):
        size = prompt - 1 if request >= 2 else prompt
        for layer in range(LAYERS if size else 0):
            tokens = draw_tokens(size, heads, group, tied, generator)
            for side in sides:
                side.chunk(request, size, layer, *tokens)
        done[request] = size
        if size == prompt:
            for side in sides:
                side.method.finish_prompts([(side.slots[request], False)], side.plain.rows)
    for step in range(16):
        # Not always all of them, in any order, and now and then padded; those whose prompts end alone go first.
        requests = [r for r in done if step < 2 or draw.random() < 0.8] or [0]
        draw.shuffle(requests)
        requests += [-1] * min(draw.randint(0, 2), SLOTS + 1 - len(requests))
        positions = [done[r] if r >= 0 else draw.randint(0, 99) for r in requests]
        tokens = [draw_tokens(len(requests), heads, group, tied, generator) for _ in range(LAYERS)]
        (outs, real), (wanted, _) = (side.step(requests, positions, tokens) for side in sides)
        torch.testing.assert_close(outs, wanted, rtol=1e-4, atol=1e-5)
        for request in (requests[i] for i in real):
            done[request] += 1
            for side in sides:
                if done[request] == PROMPTS[request]:
                    side.method.finish_prompts([(side.slots[request], True)], side.plain.rows)
                else:
                    side.method.count_step(side.slots[request], done[request])
        tamper(sides[0])
        compare(*sides, [request for request in done if request in requests and done[request] > PROMPTS[request]])
