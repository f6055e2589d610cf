"""vLLM's own schedulers with our cache manager and connector, and a worker that has lists but no model."""

import random
from collections import deque

import pytest
import torch
import vllm_checkpoints
from ragged_tables import TensorPages, anything, check_pages
from vllm_engines import needs_vllm

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER, DecodeColumns, DecodeReports
from hyperscale.engines.vllm.worker.cpu import CpuCacheWorker, CpuStep
from hyperscale.engines.vllm.worker.methods import registry
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention
from hyperscale.engines.vllm.worker.tables import EntryTables

pytestmark = needs_vllm
LAYERS, HEADS, N, LENGTH = 2, 2, 32, 512


def make_config(folder, batched, admission):
    from vllm import EngineArgs

    from hyperscale.engines.vllm.plugin import register

    register.register()
    return EngineArgs(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=LENGTH,
        max_num_seqs=16,
        max_num_batched_tokens=batched,
        scheduler_reserve_full_isl=admission,
        disable_log_stats=True,
    ).create_engine_config()


def make_scheduler(config, blocks, options, asynchronous):
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from hyperscale.engines.vllm.cache_spec import RaggedSpec

    config.scheduler_config.async_scheduling = asynchronous
    spec = RaggedSpec(
        block_size=N,
        num_kv_heads=LAYERS * HEADS,
        head_size=32,
        dtype=torch.float32,
        options=options,
        step_tokens=config.scheduler_config.max_num_batched_tokens,
        total_lists=LAYERS * HEADS,
    )
    cache = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
    config.cache_config.num_gpu_blocks = blocks
    made = AsyncScheduler if asynchronous else Scheduler
    return made(
        vllm_config=config,
        kv_cache_config=cache,
        structured_output_manager=StructuredOutputManager(config),
        block_size=N,
        hash_block_size=N,
        log_stats=False,
    )


class Runner:
    """What a model runner does with a step, with random numbers for a model."""

    def __init__(self, blocks, columns, options):
        self.columns, self.read = columns, 0
        self.tables = EntryTables(layers=LAYERS, heads=HEADS, page_tokens=N, blocks=blocks, slots=16, max_tokens=LENGTH)
        if options.hosted:
            from transformers import LlamaConfig

            config = LlamaConfig(
                num_attention_heads=HEADS, num_key_value_heads=HEADS, hidden_size=HEADS * 4, head_dim=4
            )
            shape = ModelShape(HEADS, 4, torch.float32, config)
            method = registry.create(self.tables, options, 0, HEADS, shape, LENGTH)
        else:
            method = anything(self.tables, options, self.expiry)
        self.worker = CpuCacheWorker(
            ReferenceAttention(self.tables, method, TensorPages(blocks * LAYERS * HEADS, N, 4))
        )
        self.first, self.known = {}, {}

    def expiry(self, key, layer, head, position):
        keep = random.Random(f"{key} {layer} {head} {position}").random() < 0.15 * (layer + head + 1) / 3
        return NEVER if keep else position + 9

    def run(self, step):
        """Execute a scheduler's output; returns what vLLM's runner would."""
        from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput

        from hyperscale.engines.vllm.step_messages import StepReport

        instructions = step.kv_connector_metadata
        done = {}
        for new in step.scheduled_new_reqs:
            self.first[new.req_id] = new.block_ids[0][0]
            self.known.setdefault(new.req_id, len(new.prompt_token_ids))
            done[new.req_id] = new.num_computed_tokens
        cached = step.scheduled_cached_reqs
        for index, name in enumerate(cached.req_ids):
            if name in cached.resumed_req_ids:
                self.first[name] = cached.new_block_ids[index][0][0]
            done[name] = cached.num_computed_tokens[index]
        self.worker.begin_step(instructions.updates, instructions.released_requests, instructions.scheduled_tokens)
        sizes = step.num_scheduled_tokens
        names = list(sizes)
        sampled = []
        if names:
            self.attend(names, sizes, done)
        for name in names:
            whole = done[name] + sizes[name] >= self.known[name]
            self.known[name] += whole
            sampled.append([7] if whole else [])
        report = self.worker.report_step()
        check_pages(self.tables, [place.slot for place in self.worker.requests.values()])
        if self.columns and names and self.worker._only_decodes:
            report = self.as_columns(report)
        meta = KVConnectorOutput(kv_connector_worker_meta=StepReport(report))
        order = {name: index for index, name in enumerate(names)}
        return ModelRunnerOutput(names, order, sampled, kv_connector_output=meta)

    def as_columns(self, reports):
        """The reports as CUDA's worker sends them, read when they are booked."""

        def read():
            self.read += 1
            live = tuple(each.live_entries[0] for each in reports.values())
            return DecodeColumns(tuple(each.pages for each in reports.values()), live, None)

        generations = tuple(each.generation for each in reports.values())
        return DecodeReports(
            tuple(reports), generations, tuple(each.computed_tokens for each in reports.values()), read
        )

    def attend(self, names, sizes, done):
        firsts = torch.tensor([self.first[name] for name in names], dtype=torch.int32)
        starts = [sum(sizes[name] for name in names[:i]) for i in range(len(names) + 1)]
        step = self.worker.resolve_slots(CpuStep(firsts, starts, [done[name] + sizes[name] for name in names]))
        single = [index for index, name in enumerate(names) if sizes[name] == 1]
        for layer in range(LAYERS):
            if single:
                q, kv = torch.zeros(len(single), HEADS, 1, 4), torch.zeros(len(single), HEADS, 4)
                slots, ends = (torch.tensor(part)[single] for part in (step.slots, step.computed_tokens))
                rows = DecodeBatch(layer, slots, ends - 1, self.tables.lens[slots, layer].long(), None)
                self.worker.attention.decode(rows, q, kv, kv, 1.0)
            for index, name in enumerate(names):
                if sizes[name] > 1:
                    q, kv = torch.zeros(sizes[name], HEADS, 1, 4), torch.zeros(sizes[name], HEADS, 4)
                    slot, end = step.slots[index], step.computed_tokens[index]
                    span = RequestChunk(layer, slot, end - sizes[name], end, None)
                    _, seen = self.worker.attention.attend_chunk(span, q, kv, kv, 1.0)
                    step.query_reads[starts[index] : starts[index + 1]] += seen


def requests(count, seed, continued=False, params=None):
    """Requests of any lengths; ``continued``: the same behind any number of their tokens."""
    from vllm import SamplingParams
    from vllm.v1.request import Request

    dice = random.Random(seed)
    for index in range(count):
        prompt, new = dice.randrange(1, 200), dice.randrange(1, 120)
        known = random.Random(index).randrange(new) if continued else 0
        sampling = SamplingParams(max_tokens=new - known, temperature=0, ignore_eos=True)
        chain = ({"prompt": prompt, "L": new} if continued else {}) | (params or {})
        sampling.extra_args = {"kv_transfer_params": {"key": index, "cuts": [1, 30], "steps": True, **chain}}
        yield Request(f"r{index}", [5] * (prompt + known), sampling, None)


DMS = Options(method="dms", cr=4.0, window=8)


def serve(
    config, blocks, asynchronous, columns, seen=lambda scheduler: None, options=DMS, continued=False, params=None
):
    """Run 30 requests; returns new tokens and costs of each, and how many ran at most, were preempted and read late."""
    scheduler = make_scheduler(config, blocks, options, asynchronous)
    runner, wanted, found, costs = Runner(blocks, columns, options), {}, {}, {}
    generated = {request.request_id: request.max_tokens for request in requests(30, seed=blocks)}
    for request in requests(30, seed=blocks, continued=continued, params=params):
        scheduler.add_request(request)
        wanted[request.request_id] = request.max_tokens
    flying, most, preempted = deque(), 0, 0
    while scheduler.has_unfinished_requests():
        step = scheduler.schedule()
        flying.append((step, runner.run(step)))
        seen(scheduler)
        most = max(most, len(scheduler.running))
        preempted += len(step.preempted_req_ids or ())
        if len(flying) > asynchronous:  # one step behind, as the asynchronous scheduler runs
            for group in scheduler.update_from_output(*flying.popleft()).values():
                for output in group.outputs:
                    found[output.request_id] = found.get(output.request_id, 0) + len(output.new_token_ids)
                    costs[output.request_id] = output.kv_transfer_params
    while flying:
        scheduler.update_from_output(*flying.popleft())
    assert found == wanted
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == blocks - 1
    assert {name: cost["tokens"] for name, cost in costs.items()} == generated
    return costs, most, preempted, runner.read


@pytest.mark.parametrize(
    ("blocks", "batched", "admission", "asynchronous"),
    [
        (60, 64, True, True),
        (24, 64, False, False),
        (24, 64, False, True),
        (40, 512, True, True),
        pytest.param(60, 64, True, False, marks=pytest.mark.slow),
        pytest.param(40, 512, True, False, marks=pytest.mark.slow),
    ],
)
def test_all_tokens_come_and_all_blocks_go_back(blocks, batched, admission, asynchronous, tmp_path):
    """Also where reports of decode steps are booked together, later: at the same costs."""
    vllm_checkpoints.write(tmp_path, "qwen3")
    config, waiting = make_config(tmp_path, batched, admission), []
    costs, most, preempted, _ = serve(config, blocks, asynchronous, columns=False)
    assert most > 1
    assert preempted > 0 or admission
    late, most, preempted, read = serve(
        config,
        blocks,
        asynchronous,
        columns=True,
        seen=lambda scheduler: waiting.append(len(scheduler.connector.channel._waiting_reports)),
    )
    assert late == costs
    assert most > 1
    assert preempted > 0 or admission
    assert read > 0
    assert max(waiting) > 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_bound_that_is_too_low_is_noticed(asynchronous, tmp_path, monkeypatch):
    from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator

    bound = SuperblockAllocator.upper_bound
    monkeypatch.setattr(
        SuperblockAllocator, "upper_bound", lambda self, holding, tokens: max(bound(self, holding, tokens) - 1, 1)
    )
    with pytest.raises(AssertionError, match=r"over-commit|in use were taken away"):
        test_all_tokens_come_and_all_blocks_go_back(60, 64, True, asynchronous, tmp_path)


CONTINUED = {
    "dms": DMS,
    "tova": Options(method="tova", cr=4.0),
    "snapkv": Options(method="snapkv", cr=4.0, parameters=(("pin_prompt", False), ("rule", "fixed"), ("window", 4))),
}


@pytest.mark.parametrize(
    ("rule", "asynchronous"),
    [
        ("dms", False),
        ("dms", True),
        ("tova", True),
        ("snapkv", False),
        pytest.param("tova", False, marks=pytest.mark.slow),
        pytest.param("snapkv", True, marks=pytest.mark.slow),
    ],
)
def test_continuations_cost_what_whole_requests_do(rule, asynchronous, tmp_path):
    """Behind any number of their tokens, in chunks or a token a step, and where they are preempted meanwhile."""
    vllm_checkpoints.write(tmp_path, "qwen3")
    config = make_config(tmp_path, 64, admission=False)
    more = {"columns": rule != "dms", "options": CONTINUED[rule]}
    whole, *_ = serve(config, 24, asynchronous, **more)
    costs, most, preempted, _ = serve(config, 24, asynchronous, continued=True, **more)
    assert costs == whole
    assert most > 1
    assert (preempted > 0) == (rule == "dms")


@pytest.mark.parametrize("rule", ["dms", "tova"])
def test_a_continuation_in_the_wrong_portions_is_noticed(rule, tmp_path, monkeypatch):
    from hyperscale.engines.vllm.scheduler import channel

    monkeypatch.setattr(channel, "continue_behind", lambda request, prompt_tokens, stepwise: None)
    with pytest.raises(AssertionError):
        test_continuations_cost_what_whole_requests_do(rule, False, tmp_path)


HOSTED = {
    "snapkv": {"window": 4, "pin_prompt": False},
    "keydiff": {},
    "triattention": {},
    "tova": {},
    "streaming": {"rule": "proportional"},
    "quest": {},
}


LOOSE, TIGHT = (30, 64, True), (20, 24, False)
#: Each method meets one of the two, and each of the two some methods that prune and some that give up entries.
HOSTED_RUNS = [
    pytest.param(
        rule, *room, marks=() if (room is TIGHT) == (rule in ("keydiff", "tova", "quest")) else pytest.mark.slow
    )
    for rule in HOSTED
    for room in (LOOSE, TIGHT)
]


@pytest.mark.parametrize(("rule", "blocks", "batched", "admission"), HOSTED_RUNS)
def test_requests_of_methods_with_states_are_never_preempted(rule, blocks, batched, admission, tmp_path):
    """They wait instead, also where vLLM is told to admit without looking; the worker would notice a page too few."""
    vllm_checkpoints.write(tmp_path, "qwen3")
    options = Options(method=rule, cr=4.0, parameters=tuple(HOSTED[rule].items()))
    config, waited = make_config(tmp_path, batched, admission), []
    for columns in (False, True):
        _, most, preempted, _ = serve(
            config,
            blocks,
            asynchronous=columns,
            columns=columns and rule != "quest",
            seen=lambda scheduler: waited.append(len(scheduler.waiting)),
            options=options,
        )
        assert preempted == 0
        assert 1 < most < 16
        assert max(waited) > 10


@pytest.mark.parametrize(
    ("length", "continued"),
    [
        (1, True),
        (LENGTH + 1, False),
        (1 << 70, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, False), (LENGTH + 1, True), (1 << 70, False))),
    ],
)
def test_a_length_that_a_request_cannot_have_is_ignored(length, continued, tmp_path):
    """Less would reserve too little of a request that may not be preempted, and more overruns what methods keep."""
    vllm_checkpoints.write(tmp_path, "qwen3")
    options, config = Options(method="quest", cr=4.0), make_config(tmp_path, 64, True)
    costs, _, preempted, _ = serve(config, 30, False, False, options=options, continued=continued, params={"L": length})
    assert preempted == 0
    assert sum(cost.get("ignored") == ["L"] for cost in costs.values()) >= 29  # one may generate a single token


def test_a_reservation_that_is_too_low_preempts(tmp_path, monkeypatch):
    from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator

    whole = SuperblockAllocator._reserve
    monkeypatch.setattr(SuperblockAllocator, "_reserve", lambda self, *arguments: whole(self, *arguments) // 2)
    with pytest.raises(AssertionError):
        test_requests_of_methods_with_states_are_never_preempted("keydiff", 30, 64, True, tmp_path)
