"""States what the vLLM engine can run, and builds it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hyperscale.engines.devices import device_kind
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.harness.compilation import Compilation, choose_compilation, describe_compilation
from hyperscale.engines.vllm.method_names import RUNNABLE
from hyperscale.errors import ConfigError, ModelError
from hyperscale.methods.names import VANILLA
from hyperscale.utils.hub import load_config

if TYPE_CHECKING:
    from hyperscale.engines.vllm.harness.engine import VllmEngine
    from hyperscale.methods.core.base import Method


class VllmProvider(EngineProvider):
    """Provider of vLLM with the plugin's ragged cache; an engine loads its own weights and runs all their methods."""

    name = "vllm"
    steering = False

    def check_installed(self) -> None:
        """See `EngineProvider.check_installed`."""
        versions.check()

    def check_methods(self, methods: "Sequence[Method]", device: str) -> None:
        """See `EngineProvider.check_methods`."""
        from hyperscale.engines.vllm.harness.engine_args import check_method

        super().check_methods(methods, device)
        if device_kind(device) == "cuda" and versions.is_for_cpu():
            raise ConfigError("vLLM is installed here for the CPU alone: pass --device cpu, or leave --engine vllm out")
        for method in methods:
            check_method(method)

    def check_model(self, path: str, config: Mapping[str, Any], methods: Sequence[str], device: str) -> None:
        """See `EngineProvider.check_model`."""
        dim = config.get("head_dim") or config.get("hidden_size", 0) // (config.get("num_attention_heads") or 1)
        is_cpu = device_kind(device) == "cpu"
        fits = dim % 32 == 0 if is_cpu else 16 <= dim <= 256 and not dim & (dim - 1)
        if set(methods) != {VANILLA} and not fits:
            sizes = "a multiple of 32 on a CPU" if is_cpu else "a power of two from 16 to 256 on CUDA"
            raise ModelError(f"heads in vLLM have {sizes}, and those of {path} have {dim}: leave --engine vllm out")

    def explain_method(self, method: str) -> str | None:
        """See `EngineProvider.explain_method`."""
        if method in RUNNABLE:
            return None
        return f"{method} does not run in vLLM: leave --engine vllm out, or choose among {', '.join(RUNNABLE)}"

    def explain_kv_dtype(self, kv_dtype: str, methods: Sequence[str]) -> str:
        """See `EngineProvider.explain_kv_dtype`."""
        return "--kv-dtype is the torch engine's: leave --engine vllm or --kv-dtype out"

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
        if method.name in ("vanilla", "dms"):
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
        return choose_compilation(spec.planned_steps, load_config(spec.checkpoint).num_hidden_layers)

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
        )
