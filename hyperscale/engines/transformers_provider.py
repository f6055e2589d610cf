"""Shared by the engines that run transformers' models: weights, loaded once for all arms of a run that use them."""

from typing import Any

from hyperscale.engines.provider import EngineProvider, EngineSpec


class TransformersProvider(EngineProvider):
    """Provider of an engine that runs a transformers model in this process."""

    shared_weights = "transformers"

    def load_weights(self, spec: EngineSpec) -> tuple[Any, Any]:
        """Model and tokenizer; see `EngineProvider.load_weights`."""
        from hyperscale.engines.loading import load_model

        return load_model(spec.checkpoint, device=spec.device, dtype=spec.dtype)
