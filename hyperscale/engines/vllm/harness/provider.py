"""States what the vLLM engine can run, and builds it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hyperscale.engines.devices import device_index, device_kind
from hyperscale.engines.families.names import explain_absent
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.cache_types import CACHE_TYPES, CPU_CACHE_TYPES, entry_bytes, installed_cache_types
from hyperscale.engines.vllm.harness.compilation import Compilation, choose_compilation, describe_compilation
from hyperscale.engines.vllm.method_names import RUNNABLE
from hyperscale.engines.vllm.options import LIST_TYPES
from hyperscale.errors import ConfigError, MethodError, ModelError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.names import VANILLA
from hyperscale.utils.hub import load_config

if TYPE_CHECKING:
    from hyperscale.engines.vllm.harness.engine import VllmEngine
    from hyperscale.methods.core.base import Method
    from hyperscale.models.shape import Shape

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes that vLLM's own attention on the CPU is compiled for."""


class VllmProvider(EngineProvider):
    """Provider of vLLM with the plugin's ragged cache; an engine loads its own weights and runs all their methods."""

    name = "vllm"
    scores_texts = False
    kv_dtypes = (AUTO, *CACHE_TYPES)
    gpu_settings = ("gpu_memory", "compilation")

    def check_installed(self) -> None:
        """See `EngineProvider.check_installed`."""
        versions.check()

    def check_methods(self, methods: "Sequence[Method]", device: str, kv_dtype: str = AUTO) -> None:
        """See `EngineProvider.check_methods`."""
        from hyperscale.engines.vllm.harness.engine_args import check_method

        super().check_methods(methods, device, kv_dtype)
        if device_kind(device) == "cpu" and kv_dtype not in (AUTO, *CPU_CACHE_TYPES):
            raise ConfigError(
                f"vLLM keeps no cache of the type {kv_dtype} on the CPU: pass --device cuda, or choose one of "
                f"{', '.join(CPU_CACHE_TYPES)}"
            )
        if device_kind(device) == "cuda" and versions.is_for_cpu():
            raise ConfigError("vLLM is installed here for the CPU alone: pass --device cpu, or leave --engine vllm out")
        for method in methods:
            check_method(method)
        if any(method.name != VANILLA for method in methods):
            versions.check_plugin()

    def check_model(self, path: str, config: Mapping[str, Any], methods: Sequence[str], device: str) -> None:
        """See `EngineProvider.check_model`."""
        if reason := explain_absent(config.get("model_type"), "vLLM"):
            raise ModelError(f"{reason}: leave --engine vllm out")
        if "dms" in methods and (config.get("dms_decision_offset") or 0) > 1:
            raise ModelError(f"the gates of {path} decide later than on the next token: leave --engine vllm out")
        dim = config.get("head_dim") or config.get("hidden_size", 0) // (config.get("num_attention_heads") or 1)
        is_cpu = device_kind(device) == "cpu"
        fits = dim % 32 == 0 if is_cpu else 16 <= dim <= 256 and not dim & (dim - 1)
        if set(methods) != {VANILLA} and not fits:
            sizes = "a multiple of 32 on a CPU" if is_cpu else "a power of two from 16 to 256 on CUDA"
            raise ModelError(f"heads in vLLM have {sizes}, and those of {path} have {dim}: leave --engine vllm out")
        # The plugin's lists are read by the same kernel as vanilla's cache.
        if is_cpu and dim not in CPU_HEADS:
            raise ModelError(
                f"heads in vLLM on a CPU have one of {', '.join(map(str, CPU_HEADS))}, and those of {path} have {dim}: "
                "leave --engine vllm out"
            )

    def check_sharing(
        self, methods: "Sequence[Method]", path: str, config: Mapping[str, Any], ranks: int, device: str
    ) -> None:
        """See `EngineProvider.check_sharing`; the plugin refuses the same when vLLM starts."""
        from hyperscale.engines.vllm.harness.engine_args import is_hosted

        for method in methods:
            if is_hosted(method, device):
                raise MethodError(
                    f"{method.name} looks at all heads of a layer or counts them, and does not run on GPUs that share "
                    "an engine: leave --tensor-parallel out, or run it by itself"
                )
        heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or ranks
        if any(method.name != VANILLA for method in methods) and heads % ranks:
            raise ModelError(
                f"--tensor-parallel {ranks} does not divide the {heads} KV heads of {path}: choose a divisor of them"
            )

    def explain_method(self, method: str) -> str | None:
        """See `EngineProvider.explain_method`."""
        if method in RUNNABLE:
            return None
        return f"{method} does not run in vLLM: leave --engine vllm out, or choose among {', '.join(RUNNABLE)}"

    def explain_kv_dtype(self, kv_dtype: str, methods: Sequence[str]) -> str | None:
        """See `EngineProvider.explain_kv_dtype`."""
        if kv_dtype == AUTO:
            return None
        compressing = [method for method in methods if method != VANILLA]
        if kv_dtype not in self.kv_dtypes:
            others = f"pass --kv-dtype {LIST_TYPES[1]}" if compressing else f"choose one of {', '.join(CACHE_TYPES)}"
            return f"--kv-dtype {kv_dtype} is the torch engine's: leave --engine vllm out, or {others}"
        if compressing and kv_dtype not in LIST_TYPES:
            return (
                f"--kv-dtype {kv_dtype} is a cache of vLLM's own, which only vanilla runs on: run vanilla alone with "
                f"it, or {compressing[0]} with --kv-dtype {LIST_TYPES[1]}"
            )
        known = installed_cache_types()
        if versions.installed() is not None and VANILLA in methods and kv_dtype not in known:
            return (
                f"vLLM {versions.installed()} has no cache of the type {kv_dtype}: choose one of {', '.join(known)}, "
                "or leave --kv-dtype out"
            )
        return None

    def entry_bytes(self, shape: "Shape", method: str, dtype: str, kv_dtype: str) -> int:
        """See `EngineProvider.entry_bytes`; vanilla has vLLM's own cache, the others the plugin's lists."""
        if method == VANILLA and kv_dtype in CACHE_TYPES:
            return entry_bytes(shape, dtype, kv_dtype)
        return super().entry_bytes(shape, method, dtype, kv_dtype)

    def versions(self) -> dict[str, str]:
        """See `EngineProvider.versions`; vLLM has another name where it is built for the CPU."""
        return super().versions() | {"vllm": str(versions.installed())}

    def process_key(self, spec: EngineSpec) -> Hashable:
        """See `EngineProvider.process_key`.

        Vanilla has a process of its own: it is vLLM's own model, attention and cache, which the others are measured
        against. DMS has one too where others run on the same weights, as its gates are part of the compiled model.
        """
        method = spec.method
        gates: Hashable = None
        if method.name in ("vanilla", "dms", "dmc"):
            gates = method.name, *sorted(item for item in method.params().items() if item[0] != "cr")
        own = ("method", "methods", "planned_steps")
        others = [getattr(spec, field.name) for field in fields(spec) if field.name not in own]
        return self.name, gates, *others

    def start_note(self, spec: EngineSpec) -> str | None:
        """See `EngineProvider.start_note`."""
        if device_kind(spec.device) == "cpu":
            return None
        note = describe_compilation(self._compilation(spec), spec.planned_steps)
        return f"{note} (--compilation {spec.compilation})"

    def _compilation(self, spec: EngineSpec) -> Compilation:
        if spec.compilation != "auto":
            return spec.compilation
        from hyperscale.engines.vllm.harness.engine_args import is_small

        config = load_config(spec.checkpoint)
        inside = (
            spec.tensor_parallel == 1
            and not device_index(spec.device)
            and is_small(config, spec.batch_size, spec.dtype, spec.max_tokens, spec.gpu_memory)
        )
        return choose_compilation(spec.planned_steps, config.num_hidden_layers, inside)

    def build(self, spec: EngineSpec, weights: Any) -> "VllmEngine":
        """See `EngineProvider.build`."""
        from hyperscale.engines.vllm.harness.engine import VllmEngine

        return VllmEngine(
            spec.checkpoint,
            spec.method,
            batch_size=spec.batch_size,
            device=spec.device,
            dtype=spec.dtype,
            gpu_memory=spec.gpu_memory,
            max_tokens=spec.max_tokens,
            compilation=self._compilation(spec),
            methods=spec.methods,
            kv_dtype=spec.kv_dtype,
            tensor_parallel=spec.tensor_parallel,
        )
