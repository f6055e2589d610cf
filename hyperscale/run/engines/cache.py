"""Keeps the engine of an arm, and the weights that arms share, in memory from the pilot to the end of a run."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from hyperscale.engines.provider import EngineSpec
from hyperscale.executors.slot import EngineSlot
from hyperscale.methods.arm import Arm
from hyperscale.run.engines.processes import group_arms, process_key, spec_of, with_methods
from hyperscale.run.prepare import PreparedRun

if TYPE_CHECKING:
    from hyperscale.engines.base import Engine
    from hyperscale.executors.faults import Fault
    from hyperscale.executors.pooled_engine import PooledEngine


class EngineCache:
    """The engine of a run, or its engines side by side; `close` gives them back."""

    def __init__(self) -> None:
        self._slot = EngineSlot()
        self._pool: PooledEngine | None = None
        self._pool_key: Hashable = None

    @property
    def started(self) -> EngineSpec | None:
        """What the engine in this process was built from; None if there is none."""
        return self._slot.started

    def engine(self, run: PreparedRun, arm: Arm, tell: Callable[[str], None] = lambda text: None) -> "Engine":
        """The engine that generates an arm's chains, with what is in memory already where that is possible.

        Args:
            run: The run.
            arm: The arm.
            tell: Called with what a user should know of engines side by side while they work.

        Raises:
            HyperscaleError: The model cannot be loaded, or the engine does not start.
        """
        provider, spec = spec_of(run, arm)

        def whole() -> EngineSpec:  # others of the run's arms are to run in it too
            return with_methods(run, next(group for group in group_arms(run) if arm in group), spec)

        if not run.placement.is_pool:
            return self._slot.engine(provider, spec, whole)
        from hyperscale.executors.pooled_engine import PooledEngine

        if self._pool is None:
            executor = run.placement.make_executor()
            self._pool = PooledEngine(executor, run.placement.engines, run.config.stall_timeout)
        self._pool.tell = tell
        self._pool.use(provider, spec, whole())
        self._pool_key = provider.process_key(spec)
        return self._pool

    def take_faults(self) -> "list[Fault]":
        """What went wrong with engines side by side since this was asked last."""
        if self._pool is None:
            return []
        faults, self._pool.faults = self._pool.faults, []
        return faults

    def order(self, run: PreparedRun) -> list[Arm]:
        """The arms of a run in an order in which no process is started twice: those of the engine in memory first."""
        groups = group_arms(run)
        in_memory = self._slot.process_key or self._pool_key
        if in_memory is not None:
            groups.sort(key=lambda group: process_key(run, group[0]) != in_memory)
        return [arm for group in groups for arm in group]

    def close(self) -> None:
        """Close the engines, if there are any, and give back the weights."""
        self._slot.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None
