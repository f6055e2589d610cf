"""Works out how many engines a run has side by side, of how many GPUs, and who places them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hyperscale.engines.devices import device_index, device_kind
from hyperscale.errors import ConfigError
from hyperscale.executors.executor import EngineResources, Executor
from hyperscale.run.config.resolve import ResolvedConfig


@dataclass(frozen=True)
class Placement:
    """Where the engines of a run are.

    Attributes:
        executor: Name of what places them.
        engines: How many there are side by side.
        resources: What each takes.
        gpus: Names of this machine's GPUs that they are given, as in ``CUDA_VISIBLE_DEVICES``; empty on the CPU and
            over a cluster.
        address: Of the cluster.
        unused: GPUs that are left over.
    """

    executor: str
    engines: int
    resources: EngineResources
    gpus: tuple[str, ...] = ()
    address: str | None = None
    unused: int = 0

    @property
    def is_pool(self) -> bool:
        """Whether engines run in processes of their own; a single one on this machine runs in the run's process."""
        return self.executor != "local" or self.engines > 1

    def make_executor(self) -> Executor:
        """The executor, with nothing started yet.

        Raises:
            EngineError: Ray is not installed, or there is no cluster.
        """
        if self.executor == "ray":
            from hyperscale.executors.ray import RayExecutor

            return RayExecutor(self.resources, self.address)
        from hyperscale.executors.local import LocalExecutor

        return LocalExecutor(self.resources, self.engines, self.gpus)

    def describe(self) -> str | None:
        """The placement in a sentence for the plan; None if there is nothing to say."""
        if not self.is_pool and self.resources.gpus <= 1:
            return None
        engines = "one engine" if self.engines == 1 else f"{self.engines} engines side by side"
        each = "" if self.engines == 1 else " each"
        size = f" of {self.resources.gpus} GPUs{each}" if self.resources.gpus > 1 else ""
        if self.resources.gpus == 1:
            size = f" on a GPU{each}"
        where = " on a Ray cluster" if self.executor == "ray" else ""
        unused = "one GPU is" if self.unused == 1 else f"{self.unused} GPUs are"
        return f"Engines: {engines}{size}{where}" + (f"; {unused} left over" if self.unused else "")


def place_engines(config: ResolvedConfig) -> Placement:
    """The placement of a run whose device is known; looks at this machine, or at the cluster.

    Raises:
        ConfigError: There are fewer GPUs than asked for, or no machine has as many as share an engine.
        EngineError: Ray is not installed, or there is no cluster.
    """
    if config.tensor_parallel > 1 and config.engine != "vllm":
        raise ConfigError(
            f"--tensor-parallel {config.tensor_parallel}: only vLLM shares one engine among GPUs, and this run is on "
            f"{config.engine}: pass --engine vllm, which says why it does not run here"
        )
    if config.executor == "ray":
        from hyperscale.executors import ray

        machines = ray.count_gpus(config.address) if device_kind(config.device) == "cuda" else []
        return _place(config, machines, "the cluster")
    if device_kind(config.device) == "cpu":
        return _place(config, [], "this machine")
    names = _visible_gpus()
    index = device_index(config.device)
    if index is not None:
        if (config.gpus or 1) * config.tensor_parallel > 1 or (config.engines or 1) > 1:
            raise ConfigError(f"--device {config.device} is one GPU: pass --device cuda to use several")
        return Placement("local", 1, EngineResources(1))
    placement = _place(config, [len(names)], "this machine")
    used = placement.engines * placement.resources.gpus
    return Placement(
        placement.executor, placement.engines, placement.resources, names[:used], None, unused=placement.unused
    )


def plan_placement(config: ResolvedConfig) -> Placement:
    """The placement that a run will have on a machine that is not looked at: as many GPUs as were asked for, else one.

    Raises:
        ConfigError: There are fewer GPUs than asked for.
    """
    needed = (config.engines or 1) * config.tensor_parallel
    return _place(config, [max(config.gpus or 0, needed)], "it")


def _place(config: ResolvedConfig, machines: Sequence[int], where: str) -> Placement:
    """The placement on machines of so many GPUs each; those that share an engine are on one machine."""
    if device_kind(config.device) == "cpu":
        if config.gpus is not None or config.tensor_parallel > 1:
            raise ConfigError("--gpus and --tensor-parallel need GPUs, and this run is on the CPU: pass --engines N")
        return Placement(config.executor, config.engines or 1, EngineResources(), address=config.address)
    each = config.tensor_parallel
    asked = config.engines * each if config.engines else config.gpus
    there = sum(machines)
    total = asked or there
    if total > there:
        raise ConfigError(f"{total} GPUs are asked for, and {where} has {there}: pass a smaller --gpus or --engines")
    if not there:
        raise ConfigError(
            f"this run is on CUDA, and {where} has no GPUs: add a machine with some, or pass --device cpu"
        )
    if total < each:
        raise ConfigError(f"--tensor-parallel {each}: {where} offers {total} GPUs: pass a smaller one")
    room = sum(gpus // each for gpus in machines)  # what is left of each machine is of no use to an engine
    if (config.engines or 1) > room:
        sizes = f"{len(machines)} machines here, of at most {max(machines)} GPUs, have room for {room} such engines"
        advice = "a smaller --engines or --tensor-parallel" if room else f"--tensor-parallel {max(machines)} or less"
        raise ConfigError(
            f"--tensor-parallel {each}: GPUs that share an engine are on one machine, and the {sizes}: pass {advice}"
        )
    engines = config.engines or min(total // each, room)
    return Placement(
        config.executor, engines, EngineResources(each), address=config.address, unused=total - engines * each
    )


def _visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as a child's ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else []
    return tuple(names[:count]) if len(names) >= count > 0 else tuple(map(str, range(count)))
