"""Host time of a decode step in vLLM's scheduler and in the plugin's own part of the worker, without a model or a GPU.

The real scheduler and its KV connector run with a worker of the CUDA kind on CPU tensors, whose forward pass is left
out: lists grow on the host as DMS's would. So what is timed is Python, and torch operations as cheap as a launch; not
the kernel that brings the tables up to date, which is interpreted here. The work of vLLM's model runner, which is the
same with and without the plugin, is not in it. Times are of the processor.

python benchmarks/vllm_host.py --chains 32 --steps 400
python benchmarks/vllm_host.py --chains 64 --context 2048 --answers 300 --step-tokens 2048

With --answers so many requests come one after the other, each a prompt of --context tokens and 48 tokens of answer, so
that most steps have prompts in them; their means are over all steps.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections import deque
from itertools import accumulate
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from transformers import Qwen2Config

from hyperscale.engines.vllm.kernels.decode.step_report import ROWS
from hyperscale.engines.vllm.options import Options

PARTS = ("schedule", "begin", "report", "update")
ANSWER_TOKENS = 48


def make_scheduler(folder: Path, arguments: argparse.Namespace, ours: bool) -> Any:
    """The asynchronous scheduler with a cache that has room for all."""
    from vllm import EngineArgs
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.families import architecture
    from hyperscale.engines.vllm.plugin.register import register

    register()
    options = {"method": "hashed", "cr": arguments.cr, "window": 256}
    more: dict[str, Any] = {
        "hf_overrides": {"architectures": [architecture("qwen2")]},
        "additional_config": {"hyperscale": options},
    }
    tokens = arguments.context + arguments.steps + 600
    config = EngineArgs(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        block_size=32,
        max_model_len=tokens,
        max_num_seqs=arguments.chains,
        max_num_batched_tokens=arguments.step_tokens,
        **(more if ours else {}),
    ).create_engine_config()
    config.scheduler_config.async_scheduling = True
    lists = arguments.layers * arguments.heads
    blocks = (tokens // 32 + 3) * arguments.chains + 1
    shape: dict[str, Any] = {"block_size": 32, "head_size": 32, "dtype": torch.float32}
    spec: Any = FullAttentionSpec(num_kv_heads=arguments.heads, **shape)
    if ours:
        spec = RaggedSpec(
            num_kv_heads=lists,
            options=Options(method="hashed", cr=arguments.cr, window=256),
            step_tokens=arguments.step_tokens,
            total_lists=lists,
            **shape,
        )
    config.cache_config.num_gpu_blocks = blocks
    return AsyncScheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=32,
        hash_block_size=32,
        log_stats=False,
    )


class Runner:
    """As much of a model runner as the scheduler needs."""

    def __init__(self, scheduler: Any, arguments: argparse.Namespace, ours: bool) -> None:
        self.scheduler, self.worker, self.known = scheduler, None, {}
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.cr = arguments.cr
        self.interpreted = 0.0  # seconds of this step
        self._ordered: list[str] = []  # requests of a step with prompts, as in its batch
        if ours:
            from hyperscale.engines.vllm.kernels import table_changes
            from hyperscale.engines.vllm.kernels.arguments import PagedCache
            from hyperscale.engines.vllm.worker.cuda import CudaCacheWorker
            from hyperscale.engines.vllm.worker.methods.registry import create
            from hyperscale.engines.vllm.worker.staged_tables import StagedTables

            shape = {"layers": arguments.layers, "heads": arguments.heads, "page_tokens": 32}
            tables = StagedTables(
                **shape,
                blocks=scheduler.cache_config.num_gpu_blocks,
                slots=arguments.chains,
                max_tokens=arguments.context + arguments.steps + 600,
            )
            cache = torch.zeros(1, arguments.layers * arguments.heads, 32, 64)
            options = Options(method="hashed", cr=arguments.cr, window=256)
            method = create(tables, options, 0, arguments.heads)
            self.worker = CudaCacheWorker(tables, method, PagedCache.of(cache), False)
            self._pass_over(table_changes, "change_tables")

    def _pass_over(self, module: Any, launch: str) -> None:
        """Let a kernel's time not count: Triton's interpreter takes a thousand times as long as a launch."""
        original = getattr(module, launch)

        def timed(*arguments: Any) -> None:
            start = time.process_time()
            original(*arguments)
            self.interpreted += time.process_time() - start

        setattr(module, launch, timed)

    def run(self, step: Any) -> Any:
        """Execute a scheduler's output; only the plugin's part is timed."""
        from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput

        from hyperscale.engines.vllm.step_messages import StepReport

        for new in step.scheduled_new_reqs:
            self.known[new.req_id] = len(new.prompt_token_ids)
        done = {new.req_id: new.num_computed_tokens for new in step.scheduled_new_reqs}
        cached = step.scheduled_cached_reqs
        done.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        names, sampled, output = list(step.num_scheduled_tokens), [], None
        for name in names:
            whole = done[name] + step.num_scheduled_tokens[name] >= self.known[name]
            self.known[name] += whole
            sampled.append([7] if whole else [])
        if self.worker is not None:
            message, start = step.kv_connector_metadata, time.process_time()
            self.interpreted = 0.0
            self.worker.begin_step(message.updates, message.released_requests, message.scheduled_tokens)
            self._resolve({name: (done[name], step.num_scheduled_tokens[name]) for name in names})
            self.seconds["begin"] += time.process_time() - start - self.interpreted
            self._grow()
            start = time.process_time()
            report = self.worker.report_step()
            output = KVConnectorOutput(kv_connector_worker_meta=StepReport(report))
            self.seconds["report"] += time.process_time() - start
        order = {name: index for index, name in enumerate(names)}
        return ModelRunnerOutput(names, order, sampled, kv_connector_output=output)

    def _resolve(self, sizes: dict[str, tuple[int, int]]) -> None:
        """What the first layer's attention works out for all layers where there are prompts, in no graph."""
        from hyperscale.engines.vllm.worker.cuda_step import CudaStep

        assert self.worker is not None
        if all(tokens == 1 for _, tokens in sizes.values()):
            return
        ordered = self._ordered = sorted(sizes, key=lambda name: sizes[name][1] > 1)
        starts = [0, *accumulate(sizes[name][1] for name in ordered)]
        blocks = [self.worker.tables.superblocks[self.worker.requests[name].slot, 0] for name in ordered]
        step = CudaStep(
            first_blocks=torch.stack(blocks).int(),
            offsets=torch.tensor(starts, dtype=torch.int32),
            computed_tokens=torch.tensor([sum(sizes[name]) for name in ordered], dtype=torch.int32),
            starts=starts,
            num_decodes=sum(tokens == 1 for _, tokens in sizes.values()),
            longest=max(map(sum, sizes.values())),
        )
        self.worker.resolve_step(step)

    def _grow(self) -> None:
        """What the kernels would do: lists as long as the ratio says, and pages for them."""
        assert self.worker is not None
        tables = self.worker.tables
        for place in self.worker.requests.values():
            entries = min(place.computed_tokens, 256) + max(place.computed_tokens - 256, 0) / self.cr
            tables.lens[place.slot] = int(entries)
            tables.pages_used[place.slot] = -(-int(entries) // 32) * tables.num_lists
        # Of the kernel, which is part of a decode step's graph.
        step, rows = self.worker._step, tables.pages_used.shape[0]
        numbers = self.worker._decode_reporter.numbers
        if step is not None and step.report is not None:
            slots = [self.worker.requests[name].slot for name in self._ordered]
            step.report.gathered[ROWS * rows : ROWS * rows + len(slots)] = torch.tensor(slots)
            numbers = step.report.gathered[: ROWS * rows].view(ROWS, rows)
        numbers[0], numbers[1] = tables.pages_used, tables.num_superblocks
        numbers[2] = tables.lens.flatten(1).sum(1)


def measure(folder: Path, arguments: argparse.Namespace, ours: bool) -> dict[str, float]:
    """Microseconds a step by part."""
    from vllm import SamplingParams
    from vllm.v1.request import Request

    scheduler = make_scheduler(folder, arguments, ours)
    runner, steps, flying = Runner(scheduler, arguments, ours), [], deque()
    answer = ANSWER_TOKENS if arguments.answers else arguments.steps + 500
    waiting = deque(range(arguments.answers or arguments.chains))
    profiler = cProfile.Profile()
    calm = 0  # steps that count; of decode steps those of all chains
    while calm < arguments.steps + 20 and (waiting or scheduler.has_unfinished_requests()):
        while waiting and scheduler.get_num_unfinished_requests() < arguments.chains:
            settings = SamplingParams(max_tokens=answer, temperature=0, ignore_eos=True)
            number = waiting.popleft()
            prompt = [5] * (arguments.context - 7 * (number % arguments.chains))
            scheduler.add_request(Request(f"r{number}", prompt, settings, None))
        if calm == 20:
            runner.seconds = dict.fromkeys(PARTS, 0.0)
            steps.clear()
            if arguments.profile:
                profiler.enable()
        before, start = dict(runner.seconds), time.process_time()
        step = scheduler.schedule()
        runner.seconds["schedule"] += time.process_time() - start
        flying.append((step, runner.run(step)))
        if len(flying) > 1:
            start = time.process_time()
            scheduler.update_from_output(*flying.popleft())
            runner.seconds["update"] += time.process_time() - start
        is_full = len(step.num_scheduled_tokens) == arguments.chains == step.total_num_scheduled_tokens
        calm += is_full or bool(arguments.answers)
        steps.append({part: runner.seconds[part] - before[part] for part in PARTS})
    if arguments.profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    found = {part: 1e6 * statistics.mean(step[part] for step in steps) for part in PARTS}
    found["median step"] = 1e6 * statistics.median(sum(step.values()) for step in steps)
    found["mean step"] = 1e6 * statistics.mean(sum(step.values()) for step in steps)
    return found


def main() -> None:
    """Measure stock vLLM's scheduler and the plugin's, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=32)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--cr", type=float, default=8)
    parser.add_argument("--answers", type=int, default=0, help="requests that are mostly prompt, one after another")
    parser.add_argument("--step-tokens", type=int, default=8192, help="most tokens of a step")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64}
        limits = {"vocab_size": 512, "max_position_embeddings": 1 << 17}
        Qwen2Config(architectures=["Qwen2ForCausalLM"], num_hidden_layers=1, **sizes, **limits).save_pretrained(folder)
        print("microseconds a step; begin and report are the plugin's part of the worker")
        for name, ours in (("stock", False), ("ours", True)):
            found = measure(Path(folder), arguments, ours)
            print(f"{name:6s}", "  ".join(f"{part} {value:.0f}" for part, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
