"""States what the engine of presses can run, and builds it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperscale.engines.families.names import explain_absent
from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.transformers_provider import TransformersProvider
from hyperscale.errors import ModelError
from hyperscale.methods.names import KVPRESS_ENGINE

if TYPE_CHECKING:
    from hyperscale.engines.kvpress.engine import KVPressEngine


class KVPressProvider(TransformersProvider):
    """Provider of the engine for presses of kvpress, which run on transformers' own cache, a chain at a time."""

    name = KVPRESS_ENGINE
    stands_in_for = "torch"
    batches = False
    packages = (*TransformersProvider.packages, "kvpress")

    def explain_kv_dtype(self, kv_dtype: str, methods: Sequence[str]) -> str | None:
        """See `EngineProvider.explain_kv_dtype`."""
        if kv_dtype in self.kv_dtypes:
            return None
        return f"{methods[0]} runs on transformers' cache, which is not quantised: leave it or --kv-dtype out"

    def check_model(self, path: str, config: Mapping[str, Any], methods: Sequence[str], device: str) -> None:
        """See `EngineProvider.check_model`."""
        if reason := explain_absent(config.get("model_type"), "the engine of presses"):
            raise ModelError(f"{reason}: leave {methods[0]} out")

    def build(self, spec: EngineSpec, weights: Any) -> "KVPressEngine":
        """See `EngineProvider.build`."""
        from hyperscale.engines.kvpress.engine import KVPressEngine
        from hyperscale.methods.kvpress.method import KVPress

        assert isinstance(spec.method, KVPress), "only presses need this engine"
        model, tokenizer = weights
        return KVPressEngine(model, tokenizer, spec.method)
