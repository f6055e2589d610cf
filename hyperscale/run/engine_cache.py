"""Keeps the engine of an arm, and the weights that arms share, in memory from the pilot to the end of a run."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from hyperscale.engines import registry
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.methods.arm import Arm
from hyperscale.run.prepare import PreparedRun

if TYPE_CHECKING:
    from hyperscale.engines.base import Engine


class EngineCache:
    """At most one engine and one set of shared weights at a time; `close` gives both back."""

    def __init__(self) -> None:
        self._spec: EngineSpec | None = None
        self._engine: Engine | None = None
        self._weights_key: Hashable = None
        self._weights: Any = None

    def engine(self, run: PreparedRun, arm: Arm) -> "Engine":
        """The engine that generates an arm's chains, with what is in memory already where that is possible.

        Raises:
            HyperscaleError: The model cannot be loaded, or the engine does not start.
        """
        provider = registry.choose(run.config.engine, arm.method)
        spec = EngineSpec(
            checkpoint=run.checkpoints[arm].path,
            method=run.methods[arm],
            batch_size=run.config.batch_size,
            device=run.config.device,
            dtype=run.config.dtype,
            kv_dtype=run.config.kv_dtype,
            gpu_memory=run.config.gpu_memory,
            max_tokens=run.max_sequence_tokens,
        )
        if self._engine is None or self._spec != spec:
            self._close_engine()  # before the next one starts: two may not fit in memory
            self._engine = provider.build(spec, self._shared_weights(provider, spec))
            self._spec = spec
        return self._engine

    def _shared_weights(self, provider: EngineProvider, spec: EngineSpec) -> Any:
        """The weights that an engine shares with those before it; None if it loads its own."""
        kind = provider.shared_weights
        key = None if kind is None else (kind, spec.checkpoint, spec.device, spec.dtype)
        if key != self._weights_key:
            self._drop_weights()  # before others come: two models at once may not fit
            if key is not None:
                self._weights = provider.load_weights(spec)
                self._weights_key = key
        return self._weights

    def close(self) -> None:
        """Close the engine, if there is one, and give back the weights."""
        self._close_engine()
        self._drop_weights()

    def _close_engine(self) -> None:
        engine, self._engine, self._spec = self._engine, None, None
        if engine is not None:
            engine.close()

    def _drop_weights(self) -> None:
        self._weights_key = self._weights = None
