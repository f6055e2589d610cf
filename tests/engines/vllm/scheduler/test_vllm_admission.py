"""Admission learns what requests hold, in vLLM's own scheduler: more run at once, and a wrong guess loses nothing."""

import random
from collections import deque
from statistics import mean

import vllm_checkpoints
from vllm_engines import needs_vllm

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import DecodeColumns, DecodeReports, RequestReport, ceil_div
from hyperscale.engines.vllm.scheduler.holdings import HeldShares

pytestmark = needs_vllm
LAYERS, HEADS, N, WINDOW, LENGTH = 4, 2, 32, 32, 2048
GATED = Options(method="dms", cr=8.0, window=WINDOW)
PRUNED = Options(method="tova", cr=8.0)
BLOCKS = 240


def make_scheduler(folder, options=GATED, batched=512):
    import torch
    from vllm import EngineArgs
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.plugin import register

    register.register()
    vllm_checkpoints.write(folder, "qwen3")
    config = EngineArgs(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=LENGTH,
        max_num_seqs=64,
        max_num_batched_tokens=batched,
        hf_overrides={"max_position_embeddings": LENGTH},
        disable_log_stats=True,
    ).create_engine_config()
    config.scheduler_config.async_scheduling = True
    config.cache_config.num_gpu_blocks = BLOCKS
    lists = LAYERS * HEADS
    spec = RaggedSpec(
        block_size=N,
        num_kv_heads=lists,
        head_size=32,
        dtype=torch.float32,
        options=options,
        step_tokens=batched,
        total_lists=lists,
    )
    return AsyncScheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(BLOCKS, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=N,
        hash_block_size=N,
        log_stats=False,
    )


class Holders:
    """A worker as the scheduler sees it: what requests hold grows by a rule, and never beyond their superblocks."""

    def __init__(self, kept):
        self.kept = kept  # request, list, prompt and tokens to those that stay, without the newest
        self.prompt, self.new, self.blocks = {}, {}, {}

    def pages(self, name, tokens):
        old, young = max(tokens - WINDOW, 0), min(tokens, WINDOW)
        return sum(
            ceil_div(young + int(self.kept(name, index, self.prompt[name], old)), N) for index in range(LAYERS * HEADS)
        )

    def run(self, step):
        from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput

        from hyperscale.engines.vllm.step_messages import StepReport

        message = step.kv_connector_metadata
        for update in message.updates:
            held = self.blocks.get((update.request, update.generation), 0)
            assert update.num_kept <= held
            self.blocks[update.request, update.generation] = update.num_kept + len(update.new_blocks)
        done = {new.req_id: new.num_computed_tokens for new in step.scheduled_new_reqs}
        for new in step.scheduled_new_reqs:
            self.prompt[new.req_id] = len(new.prompt_token_ids)
            self.new[new.req_id] = 0
        cached = step.scheduled_cached_reqs
        done.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        names, sampled, reports = list(step.num_scheduled_tokens), [], {}
        for name in names:
            generation, tokens = message.scheduled_tokens[name]
            computed = done[name] + tokens
            known, used = self.prompt[name], self.pages(name, computed)
            # What a chunk needs before it is closed up the bound grants as well: here only what stays is counted.
            assert used <= self.blocks[name, generation] * LAYERS * HEADS, "page over-commit"
            decoded = range(max(done[name] + 1, known), computed + 1)
            reports[name] = RequestReport(generation, computed, used, tuple(self.pages(name, at) for at in decoded))
            sampled.append([7] if computed >= known + self.new[name] else [])
            self.new[name] += len(sampled[-1])
        if names and all(
            tokens == 1 and done[name] >= self.prompt[name] for name, tokens in step.num_scheduled_tokens.items()
        ):
            columns = DecodeColumns(
                tuple(each.pages for each in reports.values()),
                tuple(each.live_entries[0] for each in reports.values()),
                None,
            )
            generations = tuple(each.generation for each in reports.values())
            reports = DecodeReports(
                tuple(names), generations, tuple(each.computed_tokens for each in reports.values()), columns
            )
        meta = KVConnectorOutput(kv_connector_worker_meta=StepReport(reports))
        return ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, sampled, kv_connector_output=meta)


def light(name, index, prompt, tokens):
    """A twentieth of the tokens stays, more in some heads than in others: less than the options let expect."""
    return 0.04 * (index % 4) * tokens


def surge(name, index, prompt, tokens):
    """The requests of the second half keep all that they generate, which nothing before has announced."""
    new = max(tokens - prompt, 0) if int(name[1:]) >= COUNT // 2 else 0
    return light(name, index, prompt, tokens - new) + new


def pruned(name, index, prompt, tokens):
    """All of a prompt until it ends, and an eighth of it from then on: less than the rule allows."""
    return tokens if tokens + WINDOW < prompt else min(tokens, max(prompt // 8 - WINDOW, 0))


COUNT = 120


def serve(folder, kept, options=GATED):
    """Run all requests; returns the mean number that ran while others waited, preemptions, and costs."""
    from vllm import SamplingParams
    from vllm.v1.request import Request

    scheduler, holders, dice = make_scheduler(folder, options), Holders(kept), random.Random(3)
    wanted, found, costs = {}, {}, {}
    for index in range(COUNT):
        prompt, new = dice.randrange(300, 1200), dice.randrange(50, 400)
        if kept is surge and index >= COUNT // 2:
            prompt, new = prompt // 12, new + 200
        settings = SamplingParams(max_tokens=new, temperature=0, ignore_eos=True)
        scheduler.add_request(Request(f"r{index}", [5] * prompt, settings, None))
        wanted[f"r{index}"] = new
    flying, running, preempted = deque(), [], 0
    while scheduler.has_unfinished_requests():
        step = scheduler.schedule()
        flying.append((step, holders.run(step)))
        preempted += len(step.preempted_req_ids or ())
        if scheduler.waiting:
            running.append(len(scheduler.running))
        if len(flying) > 1:
            for group in scheduler.update_from_output(*flying.popleft()).values():
                for output in group.outputs:
                    found[output.request_id] = found.get(output.request_id, 0) + len(output.new_token_ids)
                    costs[output.request_id] = output.kv_transfer_params
    while flying:
        scheduler.update_from_output(*flying.popleft())
    assert found == wanted
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == BLOCKS - 1
    return mean(running), preempted, costs


def never_learn(monkeypatch, share):
    """Make admission count on one share of what the options let expect, whatever it sees."""
    from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator

    record = SuperblockAllocator.record_usage

    def forget(self, *args):
        record(self, *args)
        for held in self.running.values():
            held.share = None

    monkeypatch.setattr(SuperblockAllocator, "record_usage", forget)
    monkeypatch.setattr(HeldShares, "estimate", lambda self, running: (share, 1.0, 1.0))


def test_more_requests_run_once_it_is_known_what_they_hold(tmp_path, monkeypatch):
    learned, preempted, costs = serve(tmp_path, light)
    with monkeypatch.context() as patch:
        never_learn(patch, 1.0)
        guessed, none, same = serve(tmp_path, light)
    assert learned > 1.25 * guessed
    assert none == 0
    assert preempted <= COUNT // 20
    assert costs == same


def test_requests_that_suddenly_hold_more_cost_preemptions_and_nothing_else(tmp_path, monkeypatch):
    _, preempted, costs = serve(tmp_path, surge)
    with monkeypatch.context() as patch:
        never_learn(patch, 0.1)
        _, thrashed, same = serve(tmp_path, surge)
    assert 0 < preempted <= COUNT // 8
    assert thrashed > 3 * preempted
    assert costs == same


def test_prompts_that_have_been_pruned_leave_room_for_others(tmp_path, monkeypatch):
    """Methods that evict from a prompt at its end hold all of it before; none of their requests is ever preempted."""
    ran, preempted, costs = serve(tmp_path, pruned, PRUNED)
    expected = Options.expected_entries
    with monkeypatch.context() as patch:
        patch.setattr(Options, "expected_entries", lambda self, *sizes, decodes: expected(self, *sizes))
        waited, none, same = serve(tmp_path, pruned, PRUNED)
    assert preempted == none == 0
    assert ran > 1.5 * waited
    assert costs == same
