"""Generates chains with vLLM: requests in, finished chains out, costs as the ledger defines them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from hyperscale.engines.base import Chain, ChainProgress, Engine, Request, Sampling
from hyperscale.engines.config_check import load_supported_config
from hyperscale.engines.detokenize import Decoder, end_ids
from hyperscale.engines.devices import device_index, device_kind
from hyperscale.engines.loading import check_checkpoint
from hyperscale.engines.sampling import check_sampling
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.harness.compilation import Compilation
from hyperscale.engines.vllm.harness.engine_args import check_method, engine_args
from hyperscale.engines.vllm.harness.process_end import call_workers, explain_error
from hyperscale.engines.vllm.harness.start import start_engine, stop_engine
from hyperscale.engines.vllm.harness.steered_chains import Continuation, SteeredChains
from hyperscale.engines.vllm.harness.whole_chain import WholeChain
from hyperscale.engines.vllm.options import SAMPLING_ARGS
from hyperscale.engines.vocabulary import Vocabulary
from hyperscale.engines.weights_check import check_weights
from hyperscale.errors import EngineError, HyperscaleError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.base import Method
from hyperscale.utils import counter_rng
from hyperscale.utils.hub import cached_folder, load_config, load_tokenizer, split_revision

_SEEDS = 1 << 63
# What shapes the distribution that tokens are drawn from, in `Sampling` as in vLLM's ``SamplingParams``.
_SHAPING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class _CheckpointConfigs:
    """A checkpoint's configurations without its weights, for `end_ids`."""

    def __init__(self, path: str) -> None:
        from transformers import GenerationConfig

        self.config = load_config(path)
        with suppress(OSError):  # not every checkpoint has one
            name, revision = split_revision(path)
            self.generation_config = GenerationConfig.from_pretrained(name, revision=revision)


class VllmEngine(Engine):
    """Runs a checkpoint in vLLM with one method in force; `switch` puts another in force that it was started with.

    On the CPU the tokens are drawn as the torch engine draws them
    (`hyperscale.engines.vllm.harness.logits_processor`). On CUDA vLLM's own generators draw, seeded by (seed, problem,
    chain): chains are reproducible, and other ones than the torch engine's. Neighbours with the same prompt each
    prefill it.

    Attributes:
        name: Recorded with results.
        tokenizer: The checkpoint's.
        method: The method.
        batch_size: Most chains in chain.
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
        max_tokens: int | None = None,
        compilation: Compilation = "full",
        methods: Sequence[Method] = (),
        kv_dtype: str = AUTO,
        tensor_parallel: int = 1,
        **more: Any,
    ) -> None:
        """Start vLLM.

        Args:
            path: A folder or a hub id.
            method: The method.
            batch_size: Most chains in chain.
            device: "cpu", "cuda" or "cuda:N".
            dtype: Of weights and cache.
            name: Recorded with results.
            own_process: Whether vLLM's engine runs in a process of its own; None: on CUDA only, and not there if
                nothing is compiled and the cache is small, as starting the process takes longest then.
            gpu_memory: Part of a GPU's memory that vLLM takes.
            max_tokens: Most tokens of a request, its prompt included: vLLM does not start unless its cache has room for
                one such. The model's own limit, if less or None.
            compilation: What vLLM prepares on a GPU.
            methods: All methods that are put in force in turn, this one among them; memory is shared out for the one
                that needs most beside the cache. Only this one if empty.
            kv_dtype: What the cache keeps keys and values in, see `engine_args`.
            tensor_parallel: Ranks that share the heads; more than one run in processes of their own.
            more: Further arguments of vLLM's ``EngineArgs``, which override ours.

        Raises:
            EngineError: vLLM is not here, is a version that has not been tried, or does not start.
            MethodError: The method does not run in vLLM.
            ModelError: The model does not.
        """
        versions.check()
        check_method(method)
        if batch_size < 1:
            raise EngineError(f"batch size must be at least 1, not {batch_size}")
        if more.get("load_format") != "dummy":
            check_checkpoint(path)  # vLLM, too, drops tensors that its class has no place for
        self.method, self.batch_size, self.name = method, batch_size, name
        self._methods, self._arm = tuple(methods or (method,)), 0
        if self._methods[0] != method:  # what vLLM starts with
            self._methods = (method, *(each for each in self._methods if each != method))
        self.tokenizer = load_tokenizer(path)
        configs = _CheckpointConfigs(path)
        self._end_ids = sorted(end_ids(configs, self.tokenizer))
        self._vocabulary = Vocabulary(self.tokenizer, configs.config.vocab_size, self._end_ids)
        self._num_embeddings: int = configs.config.vocab_size
        self._num_rows: int = configs.config.num_hidden_layers * configs.config.num_key_value_heads
        args = engine_args(
            path,
            method,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            vocabulary=self._vocabulary.rows,
            unused=self._vocabulary.unused,
            max_tokens=max_tokens,
            gpu_memory=gpu_memory,
            compilation=compilation,
            methods=self._methods,
            options=more.pop("options", None),
            kv_dtype=kv_dtype,
            tensor_parallel=tensor_parallel,
        )
        is_cpu = device_kind(device) == "cpu"
        self._draws_itself = is_cpu
        gpu = device_index(device)
        if own_process is None:
            # Nothing of the GPU stays with this process but a cache of known size.
            stays = compilation != "full" and "kv_cache_memory_bytes" in args and not gpu
            own_process = not (is_cpu or stays)
        own_process |= tensor_parallel > 1
        self._engine = start_engine(args | more, own_process, is_cpu, gpu=gpu)
        if not Path(path).is_dir():
            self._check_downloaded(path)
        self._max_request_tokens: int = self._engine.model_config.max_model_len
        self._num_requests = 0

    def _check_downloaded(self, path: str) -> None:
        """Hold the weights of a hub repository against the model: only now all of its files are here."""
        try:
            check_weights(cached_folder(path), load_supported_config(path))
        except HyperscaleError:
            self.close()
            raise

    def switch(self, method: Method) -> None:
        """See `Engine.switch`.

        Raises:
            EngineError: The method cannot be put in force, or vLLM stopped.
        """
        assert method in self._methods, "the engine was started for other methods"
        arm = self._methods.index(method)
        if arm != self._arm:
            try:
                call_workers(self._engine, "hyperscale_use_arm", arm)
            except Exception as error:
                raise explain_error(error) from error
        self.method, self._arm = method, arm

    def close(self) -> None:
        """Stop vLLM and give back its memory."""
        stop_engine(self._engine)

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None = None
    ) -> Iterator[Chain]:
        """See `Engine.generate`.

        Raises:
            EngineError: A request or the sampling settings make no sense or cannot be had here, or vLLM stopped.
        """
        check_sampling(sampling)
        if sampling.steering or (sampling.stop and sampling.stop_in_answer):
            yield from self._generate_steered(requests, sampling, watch)
            return
        decoder = Decoder(self.tokenizer, sampling.stop, sampling.marks)
        waiting, running = iter(requests), dict[str, WholeChain]()
        try:
            while True:
                while len(running) < self.batch_size and (request := next(waiting, None)) is not None:
                    running[self._add_request(request, sampling, watch is not None)] = WholeChain(
                        request, perf_counter()
                    )
                if not running:
                    return
                for output in self._step():
                    chain = running[output.request_id]
                    chain.add_output(output, decoder, watch)
                    if output.finished:
                        del running[output.request_id]
                        yield chain.finish(output, decoder, self.method)
        except HyperscaleError:
            raise
        except Exception as error:
            raise explain_error(error) from error
        finally:
            if running:
                with suppress(Exception):
                    self._engine.abort_request(list(running))

    def _generate_steered(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None
    ) -> Iterator[Chain]:
        """Generate chains that the harness looks at token by token: `steered_chains`."""
        steered = SteeredChains(
            self.tokenizer,
            sampling,
            self._ends(sampling),
            batch_size=self.batch_size,
            prefills_densely=self.method.prefills_densely,
            num_rows=self._num_rows if self.method.name != "vanilla" else 0,
            watch=watch,
            submit=self._submit,
            step=self._step,
            abort=self._engine.abort_request,
            check=self._check_request,
        )
        try:
            yield from steered.run(requests)
        except HyperscaleError:
            raise
        except Exception as error:
            raise explain_error(error) from error
        finally:
            steered.stop()

    def _step(self) -> Any:
        self.steps += 1
        return self._engine.step()

    def _add_request(self, request: Request, sampling: Sampling, is_watched: bool) -> str:
        """Give vLLM a whole chain to generate; returns the id by which its outputs come back."""
        self._check_request(request)
        whole = Continuation((), request.L, request.L, self._ends(sampling), is_watched)
        return self._submit(request, sampling, whole, stop=sampling.stop)

    def _ends(self, sampling: Sampling) -> frozenset[int]:
        """Ids that end a chain."""
        return frozenset() if sampling.ignore_ends else frozenset(self._end_ids)

    def _check_request(self, request: Request, branch_tokens: int = 0) -> None:
        """Refuse a request that makes no sense here; a branch may add so many tokens to it."""
        if request.forced_ids:
            raise EngineError(f"request {request.problem}/{request.chain} forces tokens, which does not run in vLLM")
        request.check(context=self._max_request_tokens, vocabulary=self._num_embeddings, branch_tokens=branch_tokens)

    def _submit(
        self, request: Request, sampling: Sampling, continuation: Continuation, stop: tuple[str, ...] | None = None
    ) -> str:
        """Give vLLM a chain to go on with; returns the id by which its outputs come back.

        Args:
            request: The chain's request.
            sampling: How tokens are drawn.
            continuation: What the chain has, and how it goes on.
            stop: Strings that end it in vLLM; None if the harness looks at every token, with its costs.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        key = counter_rng.key(sampling.seed, request.problem, request.chain)
        known = len(continuation.ids)
        extra: dict[str, Any] = {}
        if self.method.name != "vanilla":
            # Requests with stop strings are followed anyway.
            wanted: dict[str, Any] = {"follow": continuation.is_streamed}
            wanted |= {"steps": True} if stop is None else {"cuts": list(request.cuts)}
            chain = {"key": key, "arm": self._arm, "prompt": len(request.prompt_ids), "L": continuation.L}
            extra["kv_transfer_params"] = chain | wanted
        sampling_args: dict[str, Any] = {name: getattr(sampling, name) for name in _SHAPING}
        if self._draws_itself:
            extra[SAMPLING_ARGS] = {
                "key": key,
                "first": known,
                "sampling": sampling_args,
                "vocabulary": self._vocabulary.rows,
            }
            sampling_args = {"temperature": 0.0}  # greedy to vLLM; the logits processor draws
        kind = RequestOutputKind.CUMULATIVE if continuation.is_streamed else RequestOutputKind.FINAL_ONLY
        if stop is None and continuation.is_streamed:
            kind = RequestOutputKind.DELTA
        params = SamplingParams(
            **sampling_args,
            stop=list(stop or ()),
            skip_special_tokens=not stop,  # they may be stop strings; the text is decoded here
            stop_token_ids=sorted(continuation.end_ids),
            # A generator that starts once more must not repeat the draws of the chain's first tokens.
            seed=(counter_rng.key(key, known) if known else key) % _SEEDS,
            max_tokens=continuation.tokens,
            ignore_eos=sampling.ignore_ends,
            logprobs=0,
            output_kind=kind,
            extra_args=extra or None,
        )
        self._num_requests += 1
        number = str(self._num_requests)
        prompt = {"prompt_token_ids": [*request.prompt_ids, *continuation.ids]}
        self._engine.add_request(number, prompt, params)
        return number
