"""Records how full vLLM runs: requests at once, steps, preemptions and blocks, from a scheduler in this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any


@dataclass
class Occupancy:
    """What one run did to the scheduler.

    Attributes:
        steps: Steps of the engine.
        running: Requests running after each step.
        waiting: Requests that wait for room, likewise.
        blocks: Blocks in use after each step, the null block not counted.
        preempted: Request to how often it was preempted.
        total: Blocks of the pool, likewise.
    """

    steps: int = 0
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    preempted: dict[str, int] = field(default_factory=dict)
    total: int = 0

    @property
    def preemptions(self) -> int:
        """All of them."""
        return sum(self.preempted.values())

    @property
    def crowded(self) -> float:
        """Mean number of requests that run while others wait for room: what the memory holds."""
        full = [running for running, waiting in zip(self.running, self.waiting, strict=True) if waiting]
        return sum(full) / max(len(full), 1)


def watch_scheduler(engine: Any) -> Occupancy:
    """Have an engine's steps counted from now on.

    Args:
        engine: An ``LLMEngine`` whose core runs in this process.
    """
    scheduler, occupancy = engine.engine_core.engine_core.scheduler, Occupancy()
    pool = scheduler.kv_cache_manager.block_pool
    occupancy.total = pool.num_gpu_blocks - 1
    step: Callable[[], Any] = engine.step

    @wraps(step)
    def step_and_count() -> Any:
        outputs = step()
        occupancy.steps += 1
        occupancy.running.append(len(scheduler.running))
        occupancy.waiting.append(len(scheduler.waiting))
        occupancy.blocks.append(occupancy.total - pool.get_num_free_blocks())
        for request in scheduler.requests.values():
            if request.num_preemptions:
                occupancy.preempted[request.request_id] = request.num_preemptions
        return outputs

    engine.step = step_and_count
    return occupancy
