"""A model of a real shape with random weights in vLLM, its provider and its folder: for measurements of speed."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.engines.base import Chain, ChainProgress, Request, Sampling
from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.vllm.harness.provider import VllmProvider

if TYPE_CHECKING:
    from hyperscale.engines.vllm.harness.engine import VllmEngine

#: Steps between two looks at vLLM's gauges.
LOOK_EVERY = 32


@dataclass
class DummyWeights(VllmProvider):
    """Starts vLLM with random weights.

    Attributes:
        options: The plugin's, over those of the method, as ``{"method": "hashed"}``; None for the method's own.
        usage: A folder where each engine's process writes what `watch_usage` tells; None for nothing.
    """

    options: dict[str, Any] | None = None
    usage: str | None = None

    def build(self, spec: EngineSpec, weights: Any) -> "VllmEngine":
        """See `EngineProvider.build`."""
        from hyperscale.engines.vllm.harness.engine import VllmEngine

        engine = VllmEngine(
            spec.checkpoint,
            spec.method,
            batch_size=spec.batch_size,
            device=spec.device,
            dtype=spec.dtype,
            gpu_memory=spec.gpu_memory,
            max_tokens=spec.max_tokens,
            compilation="none" if spec.compilation == "auto" else spec.compilation,
            tensor_parallel=spec.tensor_parallel,
            load_format="dummy",
            disable_log_stats=self.usage is None,
            **({} if self.options is None else {"options": self.options}),
        )
        if self.usage is not None:
            watch_usage(engine, Path(self.usage))
        return engine


def watch_usage(engine: "VllmEngine", folder: Path) -> None:
    """Write into the folder, after all chains of each `generate`, how full the engine's cache was at most.

    In ``PROCESS-NUMBER.json``: the most requests that ran at once, GiB of KV cache that they held at most (of all GPUs
    of the engine together), GiB that there are, and how many were preempted. vLLM's own gauges, every 32 steps.
    """
    llm, generate, step = engine._engine, engine.generate, engine._step
    config, cache = llm.model_config.hf_text_config, llm.vllm_config.cache_config
    heads = config.num_hidden_layers * config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    entry_bytes = 2 * width * llm.model_config.dtype.itemsize
    gib = cache.num_gpu_blocks * cache.block_size * heads * entry_bytes / 2**30
    most: dict[str, float] = {}
    steps = 0

    def look() -> dict[str, float]:
        return {metric.name: metric.value for metric in llm.get_metrics() if hasattr(metric, "value")}

    def watched_step() -> Any:
        nonlocal steps
        outputs = step()
        steps += 1
        if steps % LOOK_EVERY == 0:
            for name, value in look().items():
                most[name] = max(most.get(name, 0.0), value)
        return outputs

    number = 0

    def watched_generate(
        requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None = None
    ) -> Iterator[Chain]:
        nonlocal number
        most.clear()
        before = look().get("vllm:num_preemptions", 0.0)
        yield from generate(requests, sampling, watch)
        told = {
            "requests": most.get("vllm:num_requests_running", 0.0),
            "kv_gib": most.get("vllm:kv_cache_usage_perc", 0.0) * gib,
            "cache_gib": gib,
            "preemptions": look().get("vllm:num_preemptions", 0.0) - before,
        }
        (folder / f"{os.getpid()}-{number}.json").write_text(json.dumps(told), encoding="utf-8")
        number += 1

    engine.generate, engine._step = watched_generate, watched_step  # type: ignore[method-assign]


def write_folder(folder: Path, model_type: str, sizes: dict[str, Any]) -> None:
    """Write a configuration and a tokenizer that has a word for every row of the vocabulary; no weights.

    A text becomes its bytes. transformers reads the tokenizer of a Qwen2 model as byte-level BPE whatever it is, and
    gives it an end of texts if it has none.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, PreTrainedTokenizerFast

    AutoConfig.for_model(
        model_type, architectures=[f"{model_type.capitalize()}ForCausalLM"], eos_token_id=None, **sizes
    ).save_pretrained(folder)
    # The last row is the end: random weights draw it once in as many tokens.
    end, size = "<|endoftext|>", sizes["vocab_size"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"t{i}" for i in range(len(alphabet), size - 1)), end]
    tokenizer = Tokenizer(models.BPE(dict(zip(words, range(size), strict=True)), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
