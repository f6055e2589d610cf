"""The reference engine: runs transformers' models on CPU or CUDA, batches continuously, and frees what is evicted."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from hyperscale.engines.base import Chain, ChainProgress, Engine, Request, Sampling
from hyperscale.engines.config_check import check_config
from hyperscale.engines.sampling import check_sampling
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.batch import Batch, ObserveLogits
from hyperscale.engines.torch.static_step import choose_mode
from hyperscale.engines.torch.trial import try_model
from hyperscale.errors import EngineError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.base import Method


class TorchEngine(Engine):
    """Runs a transformers causal LM with one method in force.

    On the CPU, in float32 and float16, a chain is the same, bit for bit, for any batch size and any order of requests:
    every row's arithmetic depends on that row alone. In bfloat16 and on CUDA the noise is the same as well, but matrix
    products may round differently from batch to batch.

    Attributes:
        name: Recorded with results.
        model: The model, in eval mode.
        tokenizer: Its tokenizer.
        method: The method.
        batch_size: Most chains in flight.
        kv_dtype: What the cache stores keys and values in: "auto" for the model's own type, or one of
            `hyperscale.kv.formats.QUANTISED`.
        static: How decode steps are captured, see `hyperscale.engines.torch.static_step`; None if they are not.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        method: Method,
        *,
        batch_size: int = 64,
        device: str = "cpu",
        name: str = "torch",
        kv_dtype: str = AUTO,
        cuda_graphs: bool = True,
    ) -> None:
        """Prepare a model for generation.

        Args:
            model: A transformers causal LM.
            tokenizer: Its tokenizer.
            method: The method.
            batch_size: Most chains in flight.
            device: Where the model is.
            name: Recorded with results.
            kv_dtype: See the class.
            cuda_graphs: Whether decode steps on CUDA are captured in CUDA graphs, where the method allows it.

        Raises:
            EngineError: The batch size is not positive, or the cache cannot be kept in this type.
            MethodError: The method cannot run on this model.
            ModelError: The architecture is not supported.
        """
        if batch_size < 1:
            raise EngineError(f"batch size must be at least 1, not {batch_size}")
        check_config({**model.config.to_dict(), "model_type": model.config.model_type})
        self.model, self.tokenizer, self.method = model, tokenizer, method
        self.batch_size, self.device, self.name, self.kv_dtype = batch_size, torch.device(device), name, kv_dtype
        forward_pass.install_hooks(model)
        try_model(model, tokenizer, self.device)
        self.static = choose_mode(method, model, self.device, kv_dtype) if cuda_graphs else None
        self.start_batch(Sampling())  # refuses a method that cannot run on this model before any work is done

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None = None
    ) -> Iterator[Chain]:
        """See `Engine.generate`.

        Requests are drawn from the iterable as places become free. Neighbours with the same prompt share its prefill.

        Raises:
            EngineError: A request or the sampling settings have no meaning.
        """
        check_sampling(sampling)
        yield from self._finish(self.start_batch(sampling, watch), iter(requests))

    def score(
        self,
        requests: Iterable[Request],
        observe_logits: ObserveLogits,
        watch: Callable[[ChainProgress], None] | None = None,
        *,
        seed: int = 0,
    ) -> Iterator[Chain]:
        """Feed requests with forced tokens through the cache, and show what was predicted for each of them.

        Args:
            requests: As for `generate`, with ``forced_ids``.
            observe_logits: Called in every step with the logits of the tokens that it forces.
            watch: As for `generate`.
            seed: Of the noise of methods that have any.

        Raises:
            EngineError: A request has no meaning.
        """
        yield from self._finish(self.start_batch(Sampling(0.0, seed=seed), watch, observe_logits), iter(requests))

    def _finish(self, batch: Batch, queue: Iterator[Request]) -> Iterator[Chain]:
        """Run a batch until nothing waits and nothing is in flight."""
        while True:
            # Neither mode may leak into the caller's code between two chains.
            with torch.inference_mode(), forward_pass.use_own_attention(self.model):
                chains = batch.advance(queue)
            self.steps += 1
            if chains is None:
                return
            yield from chains

    def start_batch(
        self,
        sampling: Sampling,
        watch: Callable[[ChainProgress], None] | None = None,
        observe_logits: ObserveLogits | None = None,
    ) -> Batch:
        """An empty batch on this engine's model; `generate` runs one to its end, measurements step through it."""
        return Batch(
            self.model,
            self.tokenizer,
            self.method,
            sampling,
            max_chains=self.batch_size,
            device=self.device,
            kv_dtype=self.kv_dtype,
            watch=watch,
            static=self.static,
            observe_logits=observe_logits,
        )
