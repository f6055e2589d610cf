"""States what the torch engine can run, and builds it."""

from typing import TYPE_CHECKING, Any

from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.transformers_provider import TransformersProvider
from hyperscale.kv.formats import AUTO, QUANTISED

if TYPE_CHECKING:
    from hyperscale.engines.torch.engine import TorchEngine


class TorchProvider(TransformersProvider):
    """Provider of the reference engine: every method that follows the contract in `hyperscale.methods` runs."""

    name = "torch"
    kv_dtypes = (AUTO, *QUANTISED)
    gpu_settings = ("cuda_graphs",)

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
