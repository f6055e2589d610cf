"""Lists why a configuration of vLLM's cannot run with the plugin, each reason with what to do instead."""

import platform
from importlib.util import find_spec
from typing import Any

from hyperscale.engines.vllm import devices
from hyperscale.engines.vllm.options import Options
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.dms_config import has_gates

CONNECTOR = "RaggedConnector"
FULL_GRAPHS_REASON = "whose idle steps replay a graph that would write where a request may be"


def list_refusals(vllm_config: Any, options: Options) -> list[str]:
    """Reasons why this configuration cannot run, each with what to do instead."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    parallel, config = vllm_config.parallel_config, vllm_config.model_config.hf_config
    device = devices.current_device()
    kv_heads, ranks = model.get_total_num_kv_heads(), parallel.tensor_parallel_size
    transfer = vllm_config.kv_transfer_config
    gated = has_gates(config)
    layers = set(getattr(config, "layer_types", None) or ())
    checks = {
        "the method dms needs a checkpoint retrofitted with DMS, and config.json has no dms_* keys: run "
        "`hyperscale retrofit`, or choose another method": options.method == "dms" and not gated,
        "the method dmc needs a checkpoint retrofitted with DMC, and config.json has no dmc_* keys: run `hyperscale "
        "retrofit --method dmc`, or choose another method": (
            options.method == "dmc" and getattr(config, "dmc_cr", None) is None
        ),
        "one verdict for all KV heads of a layer (dms_alpha_per 'layer') would have to be sent between ranks: leave "
        "--tensor-parallel-size out": (
            ranks > 1 and options.method == "dms" and gated and getattr(config, "dms_alpha_per", "head") != "head"
        ),
        f"tensor parallelism over {ranks} ranks replicates {kv_heads} KV heads, whose entries would count twice: use "
        f"at most {kv_heads} ranks": kv_heads < ranks,
        "pipeline parallelism splits the layers that share one cache: use tensor parallelism": (
            parallel.pipeline_parallel_size > 1
        ),
        "context parallelism cuts sequences by position, which evicted entries have none of": (
            getattr(parallel, "decode_context_parallel_size", 1) > 1
            or getattr(parallel, "prefill_context_parallel_size", 1) > 1
        ),
        "speculative decoding writes drafts over evicted entries, which a rejection cannot bring back": (
            vllm_config.speculative_config is not None
        ),
        f"lists keep keys and values in the model's own type or in fp8, not in {cache.cache_dtype}: leave "
        "--kv-cache-dtype out or pass fp8": (
            cache.cache_dtype not in ("auto", str(model.dtype).removeprefix("torch."))
        ),
        "another KV connector would move pages, which have no positions here: leave --kv-transfer-config out": (
            transfer is not None and transfer.kv_connector != CONNECTOR
        ),
        "KV offloading moves pages, which have no positions here: leave it out": (
            bool(getattr(cache, "kv_offloading_size", None))
        ),
        "--kv-sharing-fast-prefill skips the prompt in layers that share a cache, which all do here: leave it out": (
            bool(getattr(cache, "kv_sharing_fast_prefill", False))
        ),
        "layers with a sliding window have a cache of another shape": (
            bool(layers - {"full_attention"}) or bool(getattr(cache, "sliding_window", None))
        ),
        "dual chunk attention and attention in both directions (is_causal) see other keys than the methods expect": (
            bool(getattr(config, "dual_chunk_attention_config", None)) or not getattr(config, "is_causal", True)
        ),
        "LoRA has not been tried": vllm_config.lora_config is not None,
        "the CPU backend reads the layout of vLLM's x86 kernel: head sizes and block sizes that are multiples of 32": (
            device == "cpu"
            and (platform.machine() not in ("x86_64", "AMD64") or model.get_head_size() % 32 or cache.block_size % 32)
        ),
        "there is no backend for this device: CUDA and x86 have one, or leave the plugin out with VLLM_PLUGINS=''": (
            not device
        ),
        f"the method {options.method} looks at all heads of a layer or counts them, and has not been tried with tensor "
        "parallelism: use one rank": options.hosted and ranks > 1,
        "reserve_output_fraction must be 1 for a method whose requests are never preempted": (
            options.hosted and options.reserve_output_fraction < 1
        ),
        "the method hashed needs a cr": options.method == "hashed" and options.cr <= 1,
        **(_refusals_on_cuda(vllm_config, options) if device == "cuda" else {}),
        "models with multi-head latent attention have no KV heads": bool(getattr(model, "use_mla", False)),
    }
    return [reason for reason, holds in checks.items() if holds]


def _refusals_on_cuda(vllm_config: Any, options: Options) -> dict[str, bool]:
    """What the kernels cannot do; reasons and whether they hold."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    dim, dtype = model.get_head_size(), str(model.dtype).removeprefix("torch.")
    return {
        "the kernels for CUDA are written in Triton, which is not installed: `pip install triton`": (
            find_spec("triton") is None
        ),
        f"head sizes must be powers of two from 16 to 256 on CUDA, not {dim}": not (
            16 <= dim <= 256 and _is_power_of_two(dim)
        ),
        f"block sizes must be powers of two from 16 to 256 on CUDA, not {cache.block_size}: leave --block-size out": (
            not (16 <= cache.block_size <= 256 and _is_power_of_two(cache.block_size))
        ),
        f"the kernels for CUDA know float32, float16 and bfloat16, not {dtype}: choose one with --dtype": (
            dtype not in ("float32", "float16", "bfloat16")
        ),
        f"lists in {options.kv_dtype} need a GPU of compute capability 8.9 or newer: leave kv_dtype and "
        "--kv-cache-dtype out": options.kv_dtype != AUTO and not devices.has_float8(),
        # By default `configure` has switched them off there: what is left was asked for.
        f"full_graphs do not go with data parallelism, {FULL_GRAPHS_REASON}: leave one of them out": (
            options.full_graphs and vllm_config.parallel_config.data_parallel_size > 1
        ),
    }


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
