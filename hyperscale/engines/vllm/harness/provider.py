"""States what the vLLM engine can run, and builds it."""

from collections.abc import Hashable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hyperscale.engines.devices import device_kind
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.harness.compilation import Compilation, choose_compilation, describe_compilation
from hyperscale.engines.vllm.method_names import RUNNABLE
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
        for method in methods:
            check_method(method)

    def explain_method(self, method: str) -> str | None:
        """See `EngineProvider.explain_method`."""
        if method in RUNNABLE:
            return None
        return f"{method} does not run in vLLM, which runs {', '.join(RUNNABLE)}: leave --engine vllm out"

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
