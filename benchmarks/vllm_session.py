"""Timing of a vLLM engine: prefill, and decode steps of requests that have a given length."""

import cProfile
import pstats
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any

from garbage import collected

OURS = {
    **dict.fromkeys(
        ("_decode_update_kernel", "_chunk_write_kernel", "_chunk_plan_kernel"),
        "update",
    ),
    **dict.fromkeys(("_chunk_append_kernel", "_chunk_room_kernel", "_victims_kernel", "_token_merge_kernel"), "update"),
    **dict.fromkeys(
        (
            *("_decode_parts_kernel", "_decode_combine_kernel", "_chunk_attention_kernel"),
            *("_pieces_kernel", "_sum_pieces_kernel"),
        ),
        "attention",
    ),
}
"""The plugin's kernels."""

_HOST_STEPS = 50  # whose Python is profiled
CORE_STEPS = 100  # of the engine's core alone
_CALM_STEPS = 5  # that only decode, before any is timed
_SPARE = 64  # tokens that a request could still draw after it has been timed
_GAP_US = 8.0  # between two kernels of one graph there is less; more is a wait for the host

THEIRS = {
    "update": ("reshape_and_cache",),
    "attention": ("flash", "fmha", "attention"),
    "gemm": ("gemm", "cutlass", "nvjet", "xmma", "matmul", "cublas", "splitk"),
}
"""Parts of other kernels' names, in the order in which they are looked for; what has none of them is "other"."""


def kind(kernel: str) -> str:
    """What a kernel of this name does."""
    name = kernel.lower()
    return OURS.get(kernel) or next((kind for kind, parts in THEIRS.items() if any(p in name for p in parts)), "other")


@contextmanager
def timed(owner: Any, method: str, seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add up the seconds that calls of a method take, until the end of the context."""
    original, before = getattr(owner, method), vars(owner).get(method)

    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    setattr(owner, method, call)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, method)
        else:
            setattr(owner, method, before)


def live_entries(worker: Any, names: Iterable[str]) -> int:
    """Entries that a rank's lists hold of these requests."""
    wanted = set(names)
    slots = [place.slot for name, place in worker.requests.items() if name in wanted]
    return int(worker.tables.lens[slots].sum())


class LiveEntries:
    """What a worker of vLLM can be asked for besides."""

    def live_entries(self, names: list[str]) -> int:
        """See the function of this name; of this rank's heads."""
        from hyperscale.engines.vllm.worker.cache_worker import CacheWorker

        return live_entries(CacheWorker.current, names)


class Session:
    """An engine and the requests that were given to it.

    Of an engine whose core has a process of its own, `prefill` and `decode_by_outputs` are all that works.
    """

    def __init__(self, engine: Any, *, own_process: bool = False) -> None:
        self.engine, self.count, self.own_process = engine, 0, own_process
        self.added_time = 0.0  # when the latest request was given to the engine
        self.is_shared = engine.vllm_config.parallel_config.tensor_parallel_size > 1

    @property
    def scheduler(self) -> Any:
        """The core's, which must be in this process."""
        return self.engine.engine_core.engine_core.scheduler

    def add(self, prompt: int, new: int, logprobs: int | None = None) -> str:
        """Add a request of so many tokens; no two prompts are alike."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.count += 1
        vocabulary = self.engine.model_config.get_vocab_size()
        ids = [(7 * i + 13 * self.count * (i % 31) + self.count) % (vocabulary - 1) for i in range(prompt)]
        settings = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False, logprobs=logprobs)
        settings.output_kind = RequestOutputKind.DELTA
        self.added_time = time.perf_counter()
        self.engine.add_request(str(self.count), {"prompt_token_ids": ids}, settings)
        return str(self.count)

    def steps(self) -> Iterator[int]:
        """Run; yields the new tokens of each step."""
        while self.engine.has_unfinished_requests():
            yield sum(len(output.outputs[0].token_ids) for output in self.engine.step())

    def core_steps(self) -> Iterator[int]:
        """Run the engine's core alone, as it does in a process of its own; yields the new tokens of each step."""
        while True:
            outputs = self.engine.engine_core.get_output().outputs
            yield sum(len(output.new_token_ids) for output in outputs)

    def prefill(self, length: int) -> float:
        """Seconds from a request's arrival to its first token.

        A core in a process of its own begins while the request is still being added, so that is timed with it.
        """
        self.add(length, 1)
        start = self.added_time if self.own_process else time.perf_counter()
        list(self.steps())
        return time.perf_counter() - start

    def decoding(self) -> bool:
        """Whether every request that runs has its first token."""
        running = self.scheduler.running
        return bool(running) and all(request.num_computed_tokens > request.num_prompt_tokens for request in running)

    def decode(
        self, requests: int, length: int, steps: int, spare: int, profiled: int, *, host: bool = False
    ) -> dict[str, Any]:
        """Bring requests to a length, wait until those that run only decode, and time ``steps`` steps of them.

        With ``host``, steps follow in which Python's profiler says where the host's time goes.
        """
        host_steps = _HOST_STEPS if host else 0
        most = spare + steps + profiled + CORE_STEPS + host_steps
        names = [self.add(length, most) for _ in range(requests)]
        start, calm_steps, running, step_tokens = time.perf_counter(), 0, 0, self.steps()
        while calm_steps < _CALM_STEPS:  # nobody else is let in, and no prompt is left
            next(step_tokens)
            calm_steps = calm_steps + 1 if self.decoding() and len(self.scheduler.running) == running else 0
            running = len(self.scheduler.running)
        fill_seconds = time.perf_counter() - start
        preemptions_before = self.preemptions()
        times, tokens = [], 0
        with collected() as collector:
            for _ in range(steps):
                before = time.perf_counter()
                tokens += next(step_tokens)
                times.append(time.perf_counter() - before)
        entries, mean = self.entries(), 1e3 * sum(times) / steps
        waiting = len(self.scheduler.waiting)
        where = self.where(step_tokens, profiled, profiled)
        gaps = where.pop("gaps", 0.0)
        core_ms, core_tokens, core_parts = self.core(CORE_STEPS)
        attending = where.get("attention", 0.0)
        measurements = {
            "requests": running,
            "waiting": waiting,
            "fill_s": fill_seconds,
            "ms_per_step": mean,
            "median_ms": 1e3 * statistics.median(times),
            "slowest_ms": [1e3 * seconds for seconds in sorted(times)[-5:]],
            "collector_ms": collector["collector"],
            "tokens_per_s": tokens / sum(times),
            "kv_gib": entries * self.entry_bytes() / 2**30,
            "attention_gb_per_s": entries * self.entry_bytes() / attending / 1e6 if attending else 0.0,
            "core_ms_per_step": core_ms,
            "core_tokens_per_s": 1e3 * core_tokens / core_ms,
            "core_parts_ms": core_parts,
            "gaps_ms": gaps,
            "core_idle_ms": max(core_ms - sum(where.values()), 0.0) if where else 0.0,
            "preemptions": self.preemptions() - preemptions_before,
            "where": {**where, "idle": max(mean - sum(where.values()), 0.0)} if where else {},
        }
        if host:
            profiler = cProfile.Profile()
            profiler.enable()
            for _ in range(host_steps):
                next(step_tokens)
            profiler.disable()
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
        self.engine.abort_request(names)
        while self.engine.has_unfinished_requests():
            self.engine.step()
        return measurements

    def decode_by_outputs(self, requests: int, length: int, steps: int, spare: int) -> dict[str, Any]:
        """Time what comes out of an engine whose core has a process of its own, while ``requests`` requests decode.

        They are brought to a length and wait for each other's first token. Then time runs until ``steps`` tokens for
        each have come; which steps they came from is not seen, so a step's milliseconds are worked out from tokens.
        "paused" are requests that got fewer tokens than others meanwhile, as when they are preempted.

        Raises:
            RuntimeError: Not all of them run at once, so a request ends before the others are timed.
        """
        names = [self.add(length, spare + _CALM_STEPS + steps + _SPARE) for _ in range(requests)]
        times, tokens = list[float](), Counter(dict.fromkeys(names, 0))
        with collected():  # now, as the core does not wait for it: what comes out meanwhile would be taken for quick
            start, waiting, calm_steps = time.perf_counter(), set(names), 0
            while calm_steps < _CALM_STEPS or not self.engine.engine_core.outputs_queue.empty():
                outputs = self.engine.step()
                calm_steps += bool(outputs) and not waiting
                waiting -= {output.request_id for output in outputs if output.outputs[0].token_ids}
                if any(output.finished for output in outputs):
                    raise RuntimeError(f"one of {requests} requests ended before all ran at once: offer fewer")
            fill_seconds = time.perf_counter() - start
            start = before = time.perf_counter()
            while tokens.total() < steps * requests:
                outputs = self.engine.step()
                if any(output.finished for output in outputs):
                    raise RuntimeError("a request ended while others were timed: offer fewer")
                for output in outputs:
                    tokens[output.request_id] += len(output.outputs[0].token_ids)
                if outputs:
                    now = time.perf_counter()
                    times.append(now - before)
                    before = now
        seconds = before - start
        self.engine.abort_request(names)
        # It is answered after all that the core has still done for the others.
        self.prefill(1)
        return {
            "requests": requests,
            "waiting": 0,
            "fill_s": fill_seconds,
            "ms_per_step": 1e3 * seconds * requests / tokens.total(),
            "median_ms": 1e3 * statistics.median(times),
            "slowest_ms": [1e3 * seconds for seconds in sorted(times)[-5:]],
            "outputs": len(times),
            "tokens_per_s": tokens.total() / seconds,
            "paused": sum(count < max(tokens.values()) for count in tokens.values()),
        }

    def answer(self, requests: int, length: int, new: int, profiled: int, *, host: bool = False) -> dict[str, Any]:
        """Time requests that are mostly prompt: steps with prompts in them, whose attention is in no CUDA graph.

        With ``host``, Python's profiler looks on, and says where the host's time goes; it makes all of it slower.
        """
        self.add(length, new, logprobs=0)  # compiles what is compiled at first use
        list(self.steps())
        for _ in range(requests):
            self.add(length, new, logprobs=0)  # as `hyperscale run` asks for them
        step_tokens = self.steps()
        profiler = cProfile.Profile()
        if host:
            profiler.enable()
        steps = 0
        with self.host_parts() as parts:
            start = time.perf_counter()
            for _ in step_tokens:
                steps += 1
            seconds = time.perf_counter() - start
        profiler.disable()
        if host:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(60)
        where: dict[str, float] = {}
        if profiled:  # as many again, of which some steps are looked at
            for _ in range(requests):
                self.add(length, new, logprobs=0)
            step_tokens = self.steps()
            for _ in range(steps // 3):
                next(step_tokens)
            where = self.where(step_tokens, profiled, profiled)
            list(step_tokens)
        return {
            "requests_per_s": requests / seconds,
            "prompt_tokens_per_s": requests * length / seconds,
            "steps": steps,
            "ms_per_step": 1e3 * seconds / steps,
            "tokens_per_step": requests * (length + new) / steps,
            "host_ms": {name: 1e3 * spent / steps for name, spent in parts.items()},
            "where": where,
        }

    def core(self, steps: int) -> tuple[float, float, dict[str, float]]:
        """Milliseconds and new tokens of a step of the engine's core alone, and by part; means over steps.

        The part "wait" is for the device: where it is nothing, the device waits for the host.
        """
        step_tokens = self.core_steps()
        next(step_tokens)
        with collected(), self.host_parts() as seconds:
            start = time.perf_counter()
            tokens = sum(next(step_tokens) for _ in range(steps))
            total = time.perf_counter() - start
        return 1e3 * total / steps, tokens / steps, {name: 1e3 * spent / steps for name, spent in seconds.items()}

    @contextmanager
    def host_parts(self) -> Iterator[dict[str, float]]:
        """Seconds of the host by part of the engine's core, added up until the end of the context; "wait" as in `core`.

        "report" and "begin" are the plugin's, once a step; "layers" is what it does in attention layers, launches
        included, of steps that are no whole CUDA graphs. The last three are part of "execute_model".
        """
        core, seconds = self.engine.engine_core.engine_core, dict[str, float]()
        with ExitStack() as stack:
            parts = {"schedule": (core.scheduler, "schedule"), "update": (core.scheduler, "update_from_output")}
            parts |= {name: (core.model_executor, name) for name in ("execute_model", "sample_tokens")}
            with suppress(ImportError):
                from vllm.v1.worker.gpu.async_utils import AsyncOutput

                parts["wait"] = (AsyncOutput, "get_output")
            if self.engine.vllm_config.additional_config and not self.is_shared:
                from hyperscale.engines.vllm.backends.cuda import CudaRaggedImpl
                from hyperscale.engines.vllm.worker.cuda import CudaCacheWorker

                parts |= {"begin": (CudaCacheWorker, "begin_step"), "report": (CudaCacheWorker, "report_step")}
                parts["layers"] = (CudaRaggedImpl, "attend")
            for name, (owner, method) in parts.items():
                stack.enter_context(timed(owner, method, seconds, name))
            yield seconds

    def preemptions(self) -> int:
        """Of all requests so far that are still there."""
        return sum(request.num_preemptions for request in self.scheduler.requests.values())

    def entry_bytes(self) -> float:
        """Bytes of a key and its value, scales included, mean over layers and heads."""
        from hyperscale.engines.vllm.cache_types import CACHE_TYPES, entry_bytes
        from hyperscale.kv.formats import vector_bytes
        from hyperscale.models.shape import Shape

        model, config = self.engine.model_config, self.engine.model_config.hf_config
        dim, dtype = model.get_head_size(), str(model.dtype).removeprefix("torch.")
        if self.engine.vllm_config.additional_config:
            additional = self.engine.vllm_config.additional_config
            return 2 * vector_bytes(additional["hyperscale"].get("kv_dtype", "auto"), dim, model.dtype.itemsize)
        shape = Shape(config.num_hidden_layers, config.num_key_value_heads, dim)
        cache_type = self.engine.vllm_config.cache_config.cache_dtype
        total = entry_bytes(shape, dtype, cache_type) if cache_type in CACHE_TYPES else shape.entry_bytes(dtype)
        return total / (shape.layers * shape.kv_heads)

    def entries(self) -> int:
        """Entries that a decode step reads, over all layers and heads."""
        from hyperscale.engines.vllm.worker.cache_worker import CacheWorker

        names = list(self.scheduler.requests)
        if CacheWorker.current is not None:
            return live_entries(CacheWorker.current, names)
        if self.is_shared and self.engine.vllm_config.additional_config:
            return sum(self.engine.collective_rpc("live_entries", args=(names,)))
        config = self.engine.model_config.hf_config
        tokens = sum(request.num_computed_tokens for request in self.scheduler.running)
        return tokens * config.num_hidden_layers * config.num_key_value_heads

    def where(self, step_tokens: Iterator[int], steps: int, share: int) -> dict[str, float]:
        """Milliseconds in each kind of kernel over some steps, divided by ``share``; empty without a GPU.

        "gaps" are the short ones between kernels that follow each other, as in a graph.
        """
        import torch
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        if not steps or not torch.cuda.is_available():
            return {}
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(steps):
                next(step_tokens, 0)
            torch.cuda.synchronize()
        milliseconds = dict.fromkeys(["attention", "update", "gemm", "other"], 0.0)
        for event in profiler.key_averages():
            milliseconds[kind(event.key)] += event.self_device_time_total / 1e3 / share
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profiler.events() or ()
            if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
        )
        gaps, end = 0.0, float("inf")
        for begin, stop in spans:
            gaps += begin - end if 0 < begin - end < _GAP_US else 0.0
            end = stop if end == float("inf") else max(end, stop)
        milliseconds["gaps"] = gaps / 1e3 / share
        return milliseconds
