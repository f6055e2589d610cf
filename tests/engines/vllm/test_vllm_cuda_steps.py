"""The CUDA backend without a model: orders of a batch, padding, warm-ups, staged tables and their share of memory."""

import random
import sys
from importlib.resources import files
from types import SimpleNamespace

import pytest
import torch
from documented_flash import attend_as_documented
from interpreted import DEVICE, MARKS
from stepped_worker import HEADS, LAYERS, PROMPTS, SteppedWorker, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig
from vllm_engines import needs_vllm

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import RequestParams, SuperblockUpdate
from hyperscale.engines.vllm.worker.staged_tables import StagedTables
from hyperscale.engines.vllm.worker.tables import EntryTables

pytestmark = [needs_vllm, *MARKS]
TABLES = (
    "slot_of_block",
    "superblocks",
    "num_superblocks",
    "pages_used",
    "page_table",
    "num_pages",
    "lens",
    "newest",
    "expiry",
    "request_params",
)


STORY = [
    (["a", "b"], [5, 20]),
    (["a", "b"], [1, 19]),
    (["a", "b", "c"], [1, 1, 8]),  # the last token of a prompt, which decodes nothing yet
    (["a", "b", "c"], [1, 1, 1]),
    (["a", "b", "c"], [1, 13, 1]),  # decode steps in a chunk, as after a preemption
    (["a", "b", "c"], [1, 1, 1]),
]
RULES = {"dms": Options(method="dms", cr=4, window=3), "window": Options(method="window", cr=3, recent=2), "none": Options(method="none")}  # fmt: skip  # noqa: E501


def state(engine):
    tables = engine.worker.tables
    return {name: getattr(tables, name).cpu().clone() for name in ("pages_used", "num_pages", "lens", "newest")}


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_a_batch_does_not_matter(rule):
    """Nor do rows that pad it, nor warm-ups in between that name superblocks of running requests."""
    mine, other = SteppedWorker(RULES[rule]), SteppedWorker(RULES[rule])
    dice, held = random.Random(3), 0
    for names, sizes in STORY:
        order = list(range(len(names)))
        mixed = sorted(order, key=lambda i: (sizes[i] == 1, dice.random()))  # chunks first
        straight = sorted(order, key=lambda i: sizes[i] != 1)  # decode steps first, as vLLM does
        out, ran = mine.step([names[i] for i in straight], [sizes[i] for i in straight])
        for warm in ([1] * len(names), [3] * len(names)):
            for name in names:
                other.first.setdefault(name, 1 + 9 * list(PROMPTS).index(name))
            before = state(other)
            known = {name: first for name, first in other.first.items() if other.done[name]}
            list(other.forward(names, warm))
            assert all(torch.equal(value, before[key]) for key, value in state(other).items())
            other.first = known
        found, told = other.step([names[i] for i in mixed], [sizes[i] for i in mixed], padding=2)
        assert told == ran
        for name in names:
            torch.testing.assert_close(found[name], out[name], rtol=1e-4, atol=1e-5)
        held = sum(sum(each.live_entries) for each in ran.values())
    assert all(len(each.live_entries) == 1 for each in ran.values())
    dense = sum(mine.done.values()) * LAYERS * HEADS
    assert held == dense if rule == "none" else held < dense


@pytest.mark.parametrize("rule", ["window", "none"])
def test_prompts_of_which_nothing_expires_are_flash_attentions(rule, monkeypatch):
    """Window's are pinned. A chunk with decode steps in it is not: there the window's entries leave."""
    flash, calls = SimpleNamespace(), []

    def attend(*, fa_version, return_softmax_lse, **kwargs):
        calls.append(kwargs["q"])
        return kwargs["out"], attend_as_documented(**kwargs)

    flash.flash_attn_varlen_func = attend
    monkeypatch.setitem(sys.modules, "vllm.vllm_flash_attn", flash)
    plain, other = SteppedWorker(RULES[rule]), SteppedWorker(RULES[rule], fa3=True)
    for names, sizes in STORY:
        order = sorted(range(len(names)), key=lambda i: sizes[i] != 1)
        batch = [names[i] for i in order], [sizes[i] for i in order]
        out, ran = plain.step(*batch)
        assert not calls
        found, told = other.step(*batch)
        prompts = any(size > 1 for size in sizes) and sizes != [1, 13, 1]
        assert len(calls) == (LAYERS if prompts else 0)
        calls.clear()
        assert told == ran
        for name in names:
            torch.testing.assert_close(found[name], out[name], rtol=1e-4, atol=1e-5)


def test_replayed_graphs_are_reported_alike():
    straight, replaying = SteppedWorker(RULES["dms"]), SteppedWorker(RULES["dms"])
    for names, sizes in STORY:
        order = sorted(range(len(names)), key=lambda i: sizes[i] != 1)
        batch = [names[i] for i in order], [sizes[i] for i in order]
        _, ran = straight.step(*batch)
        _, told = replaying.step(*batch, replayed=set(sizes) == {1})
        assert told == ran


def query_reads(name, query, seen):
    """Entries that a query reads once ``seen`` tokens are known, over all layers and heads, by DMS's rule."""
    window, total = RULES["dms"].window, 0
    for layer in range(LAYERS):
        evicted = tokens(name, layer)[3][1:seen] > 0  # of token k, as hidden state k + 1 says
        gone = torch.cat([evicted, evicted.new_zeros(1, HEADS)]) & (torch.arange(seen)[:, None] + window < query)
        total += int((~gone[: query + 1]).sum())
    return total


@pytest.mark.parametrize("mixed", [False, True])
def test_reports_are_what_queries_read(mixed):
    """Of chunks, of prompts that end with a single token, and of a request that starts anew after a preemption."""
    engine, ends, parts = SteppedWorker(RULES["dms"]), 0, 0
    story = [*STORY, (["a", "b", "c"], [20, 1, 1]), (["a", "c"], [1, 1])]
    for index, (names, sizes) in enumerate(story):
        generation = {"a": 1}
        if index >= len(STORY):  # preempted, and processed again: prompt and decode steps in one chunk
            generation["a"] = 2
        if index == len(STORY):
            engine.done["a"], engine.preempted = 0, {"a": 2}
        order = sorted(range(len(names)), key=lambda i: (sizes[i] != 1) != mixed)
        _, reports = engine.step([names[i] for i in order], [sizes[i] for i in order])
        tables = engine.worker.tables
        for name, size in zip(names, sizes, strict=True):
            told, end, prompt = reports[name], engine.done[name], PROMPTS[name]
            slot = engine.worker.requests[name].slot
            assert told.generation == generation.get(name, 1)
            assert told.computed_tokens == end
            assert told.pages == int(tables.num_pages[slot].sum())
            decoded = range(max(end - size, prompt), end)
            expected = tuple(query_reads(name, query, end) for query in decoded)
            if end == prompt:
                expected, ends = (query_reads(name, prompt, prompt),), ends + (size == 1)
            assert told.live_entries == expected, (index, name)
            part = range(end - size, min(end, prompt))
            reads = sum(query_reads(name, query, end) for query in part)
            assert told.prompt_part == ((part.start, part.stop, reads) if part else None), (index, name)
            parts += bool(part and size > 1)
    assert ends
    assert parts


class TorchOperations(TorchDispatchMode):
    """Counts them."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_step_with_a_prompt_is_few_operations(monkeypatch):
    """The host's operations around the layers, which the device waits for; kernels of the plugin's own not counted."""
    from hyperscale.engines.vllm.kernels import table_changes

    engine, launched = SteppedWorker(RULES["dms"]), []
    assert engine.step(["a", "b"], [5, 20])[1]
    original = table_changes.change_tables
    engine.first["c"] = 19
    update = SuperblockUpdate("c", 1, 0, tuple(range(19, 28)), RequestParams(PROMPTS["c"], 50, 1))
    passing = engine.forward(["c"], [9])
    next(passing)
    monkeypatch.setattr(table_changes, "change_tables", lambda *arguments: launched.append(arguments))
    with TorchOperations() as begun:
        engine.worker.begin_step([update], ["a"], {"c": (1, 9)})
    original(*launched.pop())
    next(passing)
    with TorchOperations() as reported:
        report = engine.worker.report_step()
    assert report()["c"].computed_tokens == 9
    assert begun.count <= 4
    assert reported.count <= 4
    monkeypatch.undo()
    engine.done["c"] = 9
    passing = engine.forward(["c"], [1])
    next(passing)
    monkeypatch.setattr(table_changes, "change_tables", launched.append)
    engine.worker.begin_step([], [], {"c": (1, 1)})
    assert not launched  # nothing has changed


def test_staged_tables_end_as_the_others_do():
    shape = {"layers": 2, "heads": 2, "page_tokens": 32, "blocks": 60, "slots": 5, "max_tokens": 200}
    plain, staged = EntryTables(**shape), StagedTables(**shape, device=DEVICE)
    dice, slots = random.Random(0), {}
    for step in range(40):
        for _ in range(dice.randint(0, 3)):
            if slots and dice.random() < 0.4:
                slot = dice.choice(sorted(slots))
                del slots[slot]
                plain.close_slot(slot)
                staged.close_slot(slot)
            elif len(slots) < 5:
                request_params = (dice.randint(1, 50), dice.randint(1, 50), dice.randint(-(1 << 63), (1 << 63) - 1))
                block = dice.randint(1, 59)
                slot = plain.open_slot(block, request_params)
                assert staged.open_slot(block, request_params) == slot
                slots[slot] = 0
        for slot in dice.sample(sorted(slots), len(slots) // 2):
            kept = dice.randint(0, slots[slot])
            added = [dice.randint(1, 59) for _ in range(dice.randint(0, 6 - kept))]
            plain.set_superblocks(slot, kept, added)
            staged.set_superblocks(slot, kept, added)
            slots[slot] = kept + len(added)
        staged.flush()
        for name in TABLES:
            mine, theirs = getattr(plain, name), getattr(staged, name).cpu()
            if name in ("superblocks", "num_superblocks"):  # of slots in use
                mine, theirs = mine[sorted(slots)], theirs[sorted(slots)]
            assert torch.equal(mine, theirs), (step, name)


def test_live_entries_are_counted_in_any_number_of_parts(monkeypatch):
    from hyperscale.engines.vllm.worker import tables as module

    tables = EntryTables(layers=5, heads=3, page_tokens=4, blocks=40, slots=2, max_tokens=60)
    draw = torch.Generator().manual_seed(0)
    for table, most in ((tables.expiry, 100), (tables.page_table, len(tables.expiry)), (tables.lens, 50)):
        table.copy_(torch.randint(most, table.shape, generator=draw))
    for query in (0, 30, 99):
        expected = sum(
            int(tables.expiry[tables.page_table[1, layer, head, place // 4], place % 4] > query)
            for layer in range(5)
            for head in range(3)
            for place in range(int(tables.lens[1, layer, head]))
        )
        for at_once in (1, 300, 400, 1 << 21):  # a layer, one, two, all
            monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", at_once)
            assert tables.count_live(1, query) == expected
    tables.lens.zero_()
    assert tables.count_live(1, 0) == 0


def test_the_tables_leave_the_cache_what_fits():
    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.worker.memory import table_bytes
    from hyperscale.errors import EngineError

    model = SimpleNamespace(get_num_layers=lambda parallel: 4, max_model_len=4096)
    config = SimpleNamespace(
        model_config=model,
        parallel_config=None,
        scheduler_config=SimpleNamespace(max_num_seqs=16),
        cache_config=SimpleNamespace(kv_cache_memory_bytes=None),
    )
    spec = RaggedSpec(
        block_size=32,
        num_kv_heads=8,
        head_size=64,
        dtype=torch.bfloat16,
        options=Options(),
        step_tokens=512,
        total_lists=8,
    )
    for memory in (5 << 20, 64 << 20, (1 << 30) + 12345):
        taken = table_bytes(config, spec, memory)
        blocks = (memory - taken) // spec.page_size_bytes
        assert blocks * spec.page_size_bytes + StagedTables.for_engine(config, spec, blocks, "meta").nbytes <= memory
        more = (blocks + 1) * spec.page_size_bytes + StagedTables.for_engine(config, spec, blocks + 1, "meta").nbytes
        assert more > memory
    assert (
        StagedTables.for_engine(config, spec, 7, "meta").nbytes
        == StagedTables.for_engine(config, spec, 7, "cpu").nbytes
    )
    with pytest.raises(EngineError, match="lower --max-num-seqs or --max-model-len"):
        table_bytes(config, spec, 1 << 16)
    config.cache_config.kv_cache_memory_bytes = 1 << 20
    assert table_bytes(config, spec, 1 << 20) == 0


def test_the_largest_state_of_all_arms_has_room(monkeypatch):
    """Methods that run in turn: what the largest keeps is taken off the cache, whichever runs first."""
    import vllm.distributed

    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.worker.memory import table_bytes
    from hyperscale.engines.vllm.worker.methods import registry

    monkeypatch.setattr(vllm.distributed, "get_tensor_model_parallel_rank", lambda: 0)
    shape = AutoConfig.from_pretrained(files("hyperscale") / "mini" / "weights" / "base")
    model = SimpleNamespace(
        get_num_layers=lambda parallel: shape.num_hidden_layers,
        max_model_len=1024,
        get_num_attention_heads=lambda parallel: shape.num_attention_heads,
        get_head_size=lambda: shape.head_dim,
        dtype=torch.float32,
        hf_config=shape,
    )
    config = SimpleNamespace(
        model_config=model,
        parallel_config=None,
        scheduler_config=SimpleNamespace(max_num_seqs=8),
        cache_config=SimpleNamespace(kv_cache_memory_bytes=None),
    )
    arms = [Options(method=name, cr=4.0) for name in ("streaming", "tova", "snapkv", "keydiff", "triattention")]

    def spec(*options):
        lists = shape.num_hidden_layers * shape.num_key_value_heads
        return RaggedSpec(
            block_size=32,
            num_kv_heads=lists,
            head_size=shape.head_dim,
            dtype=torch.float32,
            options=options[0],
            step_tokens=512,
            total_lists=lists,
            arms=options,
        )

    alone = []
    for options in arms:
        alone.append(registry.most_bytes(spec(options), config))
        tables = StagedTables.for_engine(config, spec(options), 1, DEVICE)
        method = registry.create_for_worker(tables, spec(options), config, options)
        assert registry._bytes_of(method) == alone[-1]  # as on a device with memory
    assert len(set(alone)) == len(arms)
    assert registry.most_bytes(spec(*arms), config) == registry.most_bytes(spec(*arms[::-1]), config) == max(alone)
    with_states, without = (
        table_bytes(config, spec(*all_arms), 1 << 30) for all_arms in (arms, [Options(method="none")])
    )
    assert max(alone) * 0.9 < with_states - without <= max(alone)
