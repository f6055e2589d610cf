"""Room for one engine in a process: it is kept, switched to another method, or makes way for the next one."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from hyperscale.engines.provider import EngineProvider, EngineSpec

if TYPE_CHECKING:
    from hyperscale.engines.base import Engine


class EngineSlot:
    """At most one engine and one set of shared weights at a time; `close` gives both back.

    Attributes:
        started: What the engine in memory was built from; None if there is none.
        process_key: See `EngineProvider.process_key`, of the engine in memory; None if there is none, or none is named.
    """

    def __init__(self) -> None:
        self.started: EngineSpec | None = None
        self.process_key: Hashable = None
        self._provider: EngineProvider | None = None
        self._spec: EngineSpec | None = None
        self._engine: Engine | None = None
        self._weights_key: Hashable = None
        self._weights: Any = None

    def engine(self, provider: EngineProvider, spec: EngineSpec, whole: Callable[[], EngineSpec]) -> "Engine":
        """An engine with a method in force, made of what is in memory already where that is possible.

        Args:
            provider: The engine's provider.
            spec: What it is to run.
            whole: Gives what it is built from if it has to be started: ``spec`` with the methods that follow in it.

        Raises:
            HyperscaleError: The model cannot be loaded, or the engine does not start.
        """
        if self._engine is not None and type(self._provider) is type(provider) and self._spec == spec:
            return self._engine
        key = provider.process_key(spec)
        if self._engine is not None and key is not None and key == self.process_key:
            self._engine.switch(spec.method)
        else:
            self._close_engine()  # before the next one starts: two may not fit in memory
            built_from = spec if key is None else whole()
            self._engine = provider.build(built_from, self._shared_weights(provider, spec))
            self.process_key, self.started, self._provider = key, built_from, provider
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
        engine, self._engine, self._spec, self._provider = self._engine, None, None, None
        self.started = self.process_key = None
        if engine is not None:
            engine.close()

    def _drop_weights(self) -> None:
        self._weights_key = self._weights = None
