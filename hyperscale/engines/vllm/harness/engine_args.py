"""Works out what vLLM is started with: the model class, the method's options, and memory."""

import os
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from hyperscale.engines.config_check import load_supported_config
from hyperscale.engines.devices import device_kind
from hyperscale.engines.families.names import explain_absent
from hyperscale.engines.vllm.arms import ArmsConfig
from hyperscale.engines.vllm.families import architecture
from hyperscale.engines.vllm.harness.compilation import Compilation, compilation_args, prompt_sizes
from hyperscale.engines.vllm.method_names import EXPIRING, HOSTED, RUNNABLE
from hyperscale.engines.vllm.options import ARMS, KEY, PAGE_TOKENS
from hyperscale.errors import MethodError, ModelError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.base import Method
from hyperscale.methods.dmc import DMC
from hyperscale.methods.dms import DMS
from hyperscale.models.context import context_limit
from hyperscale.utils.hub import split_revision

_SMALL_GPU = 8 << 30  # bytes of the smallest GPU that has room for what is called small
# Without a number vLLM takes 2,048 tokens a step for an engine driven step by step. What a step with prompts takes the
# host does not depend on their tokens: of a model that the GPU is done with before, prompts wait for that. A larger one
# keeps the small steps, in which less of a prompt is held before its eviction.
_STEP_TOKENS = 8192
_LARGE_MODEL = 20 << 30  # bytes of weights, whose 2,048 tokens take the better part of a tenth of a second


def check_method(method: Method) -> None:
    """Refuse methods that do not run in vLLM.

    Raises:
        MethodError: It does not run.
    """
    if method.name not in RUNNABLE:
        raise MethodError(
            f"{method.name} does not run in vLLM, which runs {', '.join(RUNNABLE)}: leave --engine vllm out"
        )


def engine_args(
    path: str,
    method: Method,
    *,
    batch_size: int,
    device: str,
    dtype: str,
    vocabulary: int,
    unused: Sequence[int] = (),
    max_tokens: int | None = None,
    gpu_memory: float = 0.9,
    compilation: Compilation = "full",
    methods: Sequence[Method] = (),
    options: Mapping[str, Any] | None = None,
    kv_dtype: str = AUTO,
    tensor_parallel: int = 1,
) -> dict[str, Any]:
    """Arguments of vLLM's ``EngineArgs`` for a checkpoint and a method.

    Args:
        path: A folder or a hub id.
        method: The method; vanilla runs vLLM's own model and cache.
        batch_size: Most requests at once.
        device: "cpu", "cuda" or "cuda:N".
        dtype: Of weights and cache.
        vocabulary: Rows of the output layer up to the last token.
        unused: Those of them that are no tokens.
        max_tokens: Most tokens of a request, its prompt included; the model's limit if less or None.
        gpu_memory: Part of a GPU's memory that vLLM takes.
        compilation: What vLLM prepares on a GPU.
        methods: All methods that the engine runs in turn, by the number of their arm; only ``method`` if empty.
        options: Options of the plugin for all of them, over what follows from the methods.
        kv_dtype: What the cache keeps keys and values in: "auto" for ``dtype``, or a name that vLLM knows. The plugin's
            lists know fp8 only, in a format of their own (`Options.kv_dtype`).
        tensor_parallel: Ranks that share the heads, each on a GPU of its own, or on cores of its own.

    Raises:
        MethodError: A method does not run here.
        ModelError: Nor does the model.
    """
    methods = methods or (method,)
    for each in methods:
        check_method(each)
    config = load_supported_config(path)
    family = config.model_type
    if reason := explain_absent(family, "vLLM"):
        raise ModelError(f"{reason}: use the torch engine")
    uses_plugin = method.name != "vanilla"
    common = {"vocabulary": vocabulary if vocabulary < config.vocab_size else 0, "unused": tuple(unused)}
    arms = [common | _method_options(each, device) | dict(options or {}) for each in methods]
    # The options of the first arm are the engine's own; the others stand beside them.
    additional: dict[str, Any] = {**arms[0], **({ARMS: arms} if len(arms) > 1 else {})}
    length = _longest(config, max_tokens)
    overrides: dict[str, Any] = {
        "architectures": [architecture(family, ragged=uses_plugin)],
        **_gate_keys(config, method),
    }
    if config.rope_parameters.get("rope_type") == "yarn" and length > config.max_position_embeddings:
        overrides["max_position_embeddings"] = context_limit(config.to_dict())  # vLLM takes the file's for it
    name, revision = split_revision(path)
    args: dict[str, Any] = {
        "model": name,
        "tokenizer": name,
        "revision": revision,
        "tokenizer_revision": revision,
        "dtype": dtype,
        "kv_cache_dtype": kv_dtype,
        "hf_overrides": overrides,
        "additional_config": ArmsConfig({KEY: additional}),
        "max_num_seqs": batch_size,
        "max_model_len": length,
        "block_size": PAGE_TOKENS,
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "tensor_parallel_size": tensor_parallel,
        "seed": 0,
    }
    if uses_plugin:
        args["worker_extension_cls"] = "hyperscale.engines.vllm.plugin.arm_switch.ArmSwitch"
    if device == "cpu":
        args |= {"logits_processors": ["hyperscale.engines.vllm.harness.logits_processor:HarnessSampler"]}
        # Of a quantised cache this is more than a full batch needs.
        args |= {"enforce_eager": True, **_cache_bytes(config, batch_size, dtype, length)}
    else:
        # No more than requests can have, as vLLM tries the model with so many; it wants one for each of them.
        step_tokens = max(min(_STEP_TOKENS, batch_size * length), batch_size)
        if not _is_large(config, dtype):
            args["max_num_batched_tokens"] = step_tokens
        # vLLM's own attention cuts lists into parts wherever a step is a graph, prompts' too.
        recorded = recorded_prompts(config, dtype, step_tokens, tensor_parallel) if uses_plugin else []
        args |= {"gpu_memory_utilization": gpu_memory, **compilation_args(compilation, batch_size, recorded)}
        if compilation != "full" and is_small(config, batch_size, dtype, max_tokens, gpu_memory):
            # No more than a run can use, so that vLLM need not try how much there is, and the next engine has room.
            full_batch = _full_batch_bytes(config, batch_size, dtype, length)
            args |= {"gpu_memory_utilization": min(gpu_memory, 0.5), "kv_cache_memory_bytes": full_batch}
    return args


def is_small(config: Any, batch_size: int, dtype: str, max_tokens: int | None, gpu_memory: float) -> bool:
    """Whether the weights, and all that a run can use of a cache as if dense, fit the part of a small GPU.

    An engine with such a cache stays in the process of the run, unless its code is compiled: another one would import
    vLLM once more.

    Args:
        config: The checkpoint's.
        batch_size: Most requests at once.
        dtype: Of the cache.
        max_tokens: Most tokens of a request; the model's limit if less or None.
        gpu_memory: Part of a GPU's memory that vLLM may take.
    """
    cache = _full_batch_bytes(config, batch_size, dtype, _longest(config, max_tokens))
    return cache + _weight_bytes(config, dtype) <= gpu_memory * _SMALL_GPU


def recorded_prompts(config: Any, dtype: str, step_tokens: int, tensor_parallel: int = 1) -> list[int]:
    """Tokens of steps with prompts that CUDA graphs are recorded for (`prompt_sizes`); none of a large model.

    Args:
        config: The checkpoint's.
        dtype: Of the weights.
        step_tokens: Most tokens of a step.
        tensor_parallel: GPUs that share each layer.
    """
    if _is_large(config, dtype):
        return []
    return prompt_sizes(_layer_weights(config) // tensor_parallel, step_tokens)


def _is_large(config: Any, dtype: str) -> bool:
    return _weight_bytes(config, dtype) >= _LARGE_MODEL


def _layer_weights(config: Any) -> int:
    """Weights of a layer's matrices."""
    heads, dim = _heads_and_dim(config)
    attention = 2 * (config.num_attention_heads + heads) * dim
    return int(config.hidden_size * (attention + 3 * config.intermediate_size))


def _weight_bytes(config: Any, dtype: str) -> int:
    """Bytes of a model's matrices, by its configuration."""
    embeddings = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
    return int((config.num_hidden_layers * _layer_weights(config) + embeddings) * _width(dtype))


def _heads_and_dim(config: Any) -> tuple[int, int]:
    """KV heads, and the size of a head."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_key_value_heads, dim


def _width(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


def _longest(config: Any, max_tokens: int | None) -> int:
    """Most tokens of a request."""
    context = context_limit(config.to_dict()) or config.max_position_embeddings
    return min(max_tokens or context, context)


def is_hosted(method: Method, device: str) -> bool:
    """Whether the plugin runs a method by its own state (`Options.hosted`)."""
    return (
        method.name in HOSTED
        or (method.name in EXPIRING and not method.params().get("pin_prompt", True))
        or (method.name, device_kind(device)) == ("random", "cuda")
    )


def _method_options(method: Method, device: str) -> dict[str, Any]:
    """The plugin's options for a method; vanilla runs without the plugin."""
    if method.name == "vanilla":
        return {"method": "none"}
    params = method.params()
    options: dict[str, Any] = {"method": method.name, "cr": method.cr}
    if isinstance(method, DMS | DMC):
        return options  # the rest is the checkpoint's
    if is_hosted(method, device):
        options["parameters"] = {name: value for name, value in params.items() if name != "cr"}
    else:
        options |= {"recent": params["recent"], "budget_rule": params["rule"]}
        options |= {"kv_budget": params["budget"]} if "budget" in params else {}
    return options


def _gate_keys(config: Any, method: Method) -> dict[str, Any]:
    """Every key of a checkpoint's gates, wherever its files state it, and deciding as the run asks."""
    return method.gate(config).to_hf() if isinstance(method, DMS) else {}


def _cache_bytes(config: Any, batch_size: int, dtype: str, length: int) -> dict[str, int]:
    """Room in the cache for a full batch of the longest requests, but at most half of the memory that is free."""
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return {}
    return {"kv_cache_memory_bytes": min(_full_batch_bytes(config, batch_size, dtype, length), _free_memory() // 2)}


def _full_batch_bytes(config: Any, batch_size: int, dtype: str, length: int) -> int:
    """Bytes of a full batch of the longest requests.

    Each request has a block in advance (`hyperscale.engines.vllm.scheduler.superblocks`); vLLM keeps one as its null
    block.
    """
    heads, dim = _heads_and_dim(config)
    blocks = batch_size * (ceil(length / PAGE_TOKENS) + 1) + 1
    return int(blocks * PAGE_TOKENS * config.num_hidden_layers * heads * 2 * dim * _width(dtype))


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 << 30
