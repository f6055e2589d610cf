"""The harness's engine on vLLM: requests in, finished chains out, costs as the ledger defines them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

from hyperscale.engines.base import Chain, ChainProgress, Engine, Request, Sampling
from hyperscale.engines.detokenize import Decoder, end_ids
from hyperscale.engines.sampling import check_sampling
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.harness.engine_args import check_method, engine_args
from hyperscale.engines.vllm.harness.process import Checkpoint, start, stopped
from hyperscale.engines.vllm.options import DRAWS
from hyperscale.errors import EngineError, HyperscaleError
from hyperscale.kv.trace import KVTrace, dense_peak, dense_reads
from hyperscale.methods.core.base import Method
from hyperscale.utils import counter_rng

_SEEDS = 1 << 63


@dataclass
class _Flight:
    """A request that vLLM has."""

    request: Request
    started: float
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reads: float = 0.0


class VllmEngine(Engine):
    """Runs a checkpoint in vLLM with one method in force.

    On the CPU the tokens are drawn as the torch engine draws them
    (`hyperscale.engines.vllm.harness.logits_processor`). On CUDA vLLM's own generators draw, seeded by (seed, problem,
    chain): chains are reproducible, and other ones than the torch engine's. Neighbours with the same prompt each
    prefill it.

    Attributes:
        name: Recorded with results.
        tokenizer: The checkpoint's.
        method: The method.
        batch_size: Most chains in flight.
    """

    def __init__(
        self,
        path: str,
        method: Method,
        *,
        batch_size: int = 64,
        device: str = "cpu",
        dtype: str = "float32",
        name: str = "vllm",
        own_process: bool | None = None,
        gpu_memory: float = 0.9,
        longest: int | None = None,
        **more: Any,
    ) -> None:
        """Start vLLM.

        Args:
            path: A folder or a hub id.
            method: The method.
            batch_size: Most chains in flight.
            device: "cpu" or "cuda".
            dtype: Of weights and cache.
            name: Recorded with results.
            own_process: Whether vLLM's engine runs in a process of its own; None: on CUDA only.
            gpu_memory: Part of a GPU's memory that vLLM takes.
            longest: Most tokens of a request, its prompt included: vLLM does not start unless its cache has room for
                one such. The model's own limit, if less or None.
            more: Further arguments of vLLM's ``EngineArgs``, which override ours.

        Raises:
            EngineError: vLLM is not here, is a version that nobody has tried, or does not start.
            MethodError: The method does not run in vLLM.
            ModelError: The model does not.
        """
        from transformers import AutoTokenizer

        versions.check()
        check_method(method, device)
        if batch_size < 1:
            raise EngineError(f"batch size must be at least 1, not {batch_size}")
        self.method, self.batch_size, self.name = method, batch_size, name
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self._ends = sorted(end_ids(Checkpoint(path), self.tokenizer))
        args = engine_args(
            path,
            method,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            vocabulary=len(self.tokenizer),
            longest=longest,
            gpu_memory=gpu_memory,
        )
        args["additional_config"]["hyperscale"] |= more.pop("options", {})
        self._draws = device == "cpu"
        self._engine = start(args | more, device == "cuda" if own_process is None else own_process, device == "cpu")
        self._longest: int = self._engine.model_config.max_model_len
        self._numbers = 0

    def close(self) -> None:
        """Stop vLLM and give back its memory."""
        with suppress(Exception):
            self._engine.engine_core.shutdown()
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None = None
    ) -> Iterator[Chain]:
        """See `Engine.generate`.

        Raises:
            EngineError: A request or the sampling settings make no sense or cannot be had here, or vLLM stopped.
        """
        check_sampling(sampling)
        if sampling.steering:
            raise EngineError("longer chains and forced answers do not run in vLLM: leave --engine vllm out")
        decoder = Decoder(self.tokenizer, sampling.stop)
        waiting, flying = iter(requests), dict[str, _Flight]()
        try:
            while True:
                while len(flying) < self.batch_size and (request := next(waiting, None)) is not None:
                    flying[self._add(request, sampling, watch is not None)] = _Flight(request, perf_counter())
                if not flying:
                    return
                for output in self._engine.step():
                    flight = flying[output.request_id]
                    self._take(flight, output, decoder, watch)
                    if output.finished:
                        del flying[output.request_id]
                        yield self._chain(flight, output, decoder)
        except HyperscaleError:
            raise
        except Exception as error:
            raise stopped(error) from error
        finally:
            if flying:
                with suppress(Exception):
                    self._engine.abort_request(list(flying))

    def _add(self, request: Request, sampling: Sampling, watched: bool) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        name = f"{request.problem}/{request.chain}"
        if not request.prompt_ids or request.L < 1:
            raise EngineError(f"request {name} needs a prompt and at least one new token to generate")
        if request.forced:
            raise EngineError(f"request {name} forces tokens, which does not run in vLLM")
        total = len(request.prompt_ids) + request.L
        if total > self._longest:
            raise EngineError(
                f"request {name} may need {total} tokens, the model takes {self._longest}: choose a smaller --length"
            )
        key = counter_rng.key(sampling.seed, request.problem, request.chain)
        extra: dict[str, Any] = {}
        if self.method.name != "vanilla":
            extra["kv_transfer_params"] = {"checkpoints": list(request.cuts), "key": key, "follow": True}
        draws: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if self._draws:
            extra[DRAWS] = {"key": key, **draws, "vocabulary": len(self.tokenizer)}
            draws = {"temperature": 0.0}
        params = SamplingParams(
            **draws,
            stop=list(sampling.stop),
            stop_token_ids=self._ends,
            seed=key % _SEEDS,
            max_tokens=request.L,
            logprobs=0,
            output_kind=RequestOutputKind.CUMULATIVE if watched else RequestOutputKind.FINAL_ONLY,
            extra_args=extra or None,
        )
        self._numbers += 1
        number = str(self._numbers)
        self._engine.add_request(number, {"prompt_token_ids": list(request.prompt_ids)}, params)
        return number

    def _take(
        self, flight: _Flight, output: Any, decoder: Decoder, watch: Callable[[ChainProgress], None] | None
    ) -> None:
        """Book an output, and show its newest token."""
        completion = output.outputs[0]
        if completion.finish_reason not in (None, "stop", "length"):
            raise EngineError(
                f"vLLM ended request {flight.request.problem}/{flight.request.chain}: {completion.finish_reason}"
            )
        flight.ids = list(completion.token_ids)
        flight.logprobs = [row[token].logprob for row, token in zip(completion.logprobs, flight.ids, strict=False)]
        if watch is None:
            return
        n = len(flight.ids)
        ids = list(flight.ids)
        costs = output.kv_transfer_params or {}
        reads = costs.get("kv_reads", dense_reads(len(flight.request.prompt_ids), n))
        entries = reads - flight.reads if n > 1 else costs.get("peak_kv", len(flight.request.prompt_ids))
        flight.reads = reads
        watch(ChainProgress(flight.request, n, entries, lambda: decoder.text(ids)))

    def _chain(self, flight: _Flight, output: Any, decoder: Decoder) -> Chain:
        request, ids = flight.request, flight.ids
        text = decoder.text(ids)
        finish: Literal["stop", "length"] = "stop" if output.outputs[0].finish_reason == "stop" else "length"
        return Chain(
            problem=request.problem,
            chain=request.chain,
            prompt_tokens=len(request.prompt_ids),
            token_ids=tuple(ids),
            text=text,
            finish=finish,
            logprob=sum(flight.logprobs),
            trace=self._trace(flight, output.kv_transfer_params, decoder, text),
            seconds=perf_counter() - flight.started,
        )

    def _trace(self, flight: _Flight, costs: dict[str, Any] | None, decoder: Decoder, text: str) -> KVTrace:
        prompt, n = len(flight.request.prompt_ids), len(flight.ids)
        marks: Sequence[Sequence[float]]
        if self.method.name == "vanilla":
            lengths = sorted({c for c in flight.request.cuts if c < n} | {n})
            marks = [(at, dense_reads(prompt, at), dense_peak(prompt, at)) for at in lengths]
        else:
            if not costs or costs["tokens"] != n:
                raise EngineError(f"vLLM did not tell what {flight.request.problem}/{flight.request.chain} cost")
            marks = costs["marks"]
        lengths = [int(mark[0]) for mark in marks]
        return KVTrace(
            lengths=tuple(lengths),
            kv_reads=tuple(float(mark[1]) for mark in marks),
            peak_kv=tuple(float(mark[2]) for mark in marks),
            chars=tuple(decoder.count_chars(flight.ids[:at], text) for at in lengths),
            logprobs=tuple(sum(flight.logprobs[:at]) for at in lengths),
            inserted=(0,) * len(lengths),
        )
