"""States what the torch engine can run, and builds it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.transformers_provider import TransformersProvider
from hyperscale.kv.formats import AUTO, QUANTISED

if TYPE_CHECKING:
    from hyperscale.engines.torch.engine import TorchEngine
    from hyperscale.methods.core.base import Method


class TorchProvider(TransformersProvider):
    """Provider of the reference engine: every method that follows the contract in `hyperscale.methods` runs."""

    name = "torch"
    kv_dtypes = (AUTO, *QUANTISED)
    gpu_settings = ("cuda_graphs",)

    def check_rules(self, methods: "Sequence[Method]", path: str, config: Mapping[str, Any], kv_dtype: str) -> None:
        """See `EngineProvider.check_rules`."""
        import torch

        from hyperscale.engines.families.needs import family_config
        from hyperscale.engines.families.rope_form import explain_rope_of
        from hyperscale.engines.torch.static_step import head_size
        from hyperscale.kv.quantization import make_codec
        from hyperscale.methods.core.rotary import require_rope
        from hyperscale.models.gate_files import complete_config

        completed = family_config(config)
        complete_config(completed, path)
        make_codec(kv_dtype, head_size(completed), torch.float32)  # which refuses heads that it cannot store
        for method in methods:
            if rule := method.rope_rule(completed):
                require_rope((), explain_rope_of(completed), rule)

    def build(self, spec: EngineSpec, weights: Any) -> "TorchEngine":
        """See `EngineProvider.build`."""
        from hyperscale.engines.torch.engine import TorchEngine

        model, tokenizer = weights
        return TorchEngine(
            model,
            tokenizer,
            spec.method,
            batch_size=spec.batch_size,
            device=spec.device,
            kv_dtype=spec.kv_dtype,
            cuda_graphs=spec.cuda_graphs,
        )
