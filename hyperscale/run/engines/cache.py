"""Keeps the engine of an arm, and the weights that arms share, in memory from the pilot to the end of a run."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.methods.arm import Arm
from hyperscale.run.engines.processes import group_arms, process_key, spec_of, with_methods
from hyperscale.run.prepare import PreparedRun

if TYPE_CHECKING:
    from hyperscale.engines.base import Engine


class EngineCache:
    """At most one engine and one set of shared weights at a time; `close` gives both back.

    Attributes:
        started: What the engine in memory was built from; None if there is none.
    """

    def __init__(self) -> None:
        self.started: EngineSpec | None = None
        self._spec: EngineSpec | None = None
        self._engine: Engine | None = None
        self._process_key: Hashable = None
        self._weights_key: Hashable = None
        self._weights: Any = None

    def engine(self, run: PreparedRun, arm: Arm) -> "Engine":
        """The engine that generates an arm's chains, with what is in memory already where that is possible.

        Raises:
            HyperscaleError: The model cannot be loaded, or the engine does not start.
        """
        provider, spec = spec_of(run, arm)
        if self._engine is not None and self._spec == spec:
            return self._engine
        key = provider.process_key(spec)
        if self._engine is not None and key is not None and key == self._process_key:
            self._engine.switch(spec.method)
        else:
            self._close_engine()  # before the next one starts: two may not fit in memory
            whole = spec
            if key is not None:  # others of the run's arms are to run in it too
                whole = with_methods(run, next(group for group in group_arms(run) if arm in group), spec)
            self._engine = provider.build(whole, self._shared_weights(provider, spec))
            self._process_key, self.started = key, whole
        self._spec = spec
        return self._engine

    def order(self, run: PreparedRun) -> list[Arm]:
        """The arms of a run in an order in which no process is started twice: those of the engine in memory first."""
        groups = group_arms(run)
        if self._process_key is not None:
            groups.sort(key=lambda group: process_key(run, group[0]) != self._process_key)
        return [arm for group in groups for arm in group]

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
        engine, self._engine, self._spec, self._process_key = self._engine, None, None, None
        self.started = None
        if engine is not None:
            engine.close()

    def _drop_weights(self) -> None:
        self._weights_key = self._weights = None
