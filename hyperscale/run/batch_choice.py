"""Chooses how many chains decode together in a run that names no number: in vLLM on a GPU, what the cache has room for.

A compressed cache gains its speed by the chains that fit beside each other. The number is the most that vLLM has at
once; where memory allows fewer, the others wait.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil
from typing import TYPE_CHECKING

from hyperscale.engines.devices import device_kind
from hyperscale.methods.names import SELECTORS
from hyperscale.planning.roofline import chains_that_fit
from hyperscale.run.config.resolve import SET_FOR_RUN, ResolvedConfig
from hyperscale.run.planned_run import usable_memory

if TYPE_CHECKING:
    from hyperscale.methods.arm import Arm
    from hyperscale.models.shape import Shape
    from hyperscale.planning.prediction import Predictor
    from hyperscale.planning.roofline import Gpu
    from hyperscale.run.planned_run import PlannedTask

MOST_CHOSEN = 256
"""Most chains that a run has together which names no number: vLLM's own default on most cards, and as many as ran at
several sizes of model (results/measurements/vllm.md). The plan says where more would be a fifth faster or more."""
_GRAPH_STEP = 8
"""vLLM records decode steps of every eighth number of chains up to `MOST_CHOSEN`: a full batch of another number takes
a graph more."""


def with_batch_size(
    config: ResolvedConfig,
    gpu: "Gpu | None",
    shape: "Shape",
    tasks: "Sequence[PlannedTask]",
    arms: "Sequence[Arm]",
    predictor: "Predictor",
    engines: int,
) -> ResolvedConfig:
    """The configuration with the number of chains that decode together in an engine, and with the reason for it.

    It changes nothing where the user named a number, on a CPU and in other engines than vLLM. Else there are as many as
    fit of the chains of which most fit, by what the plan predicts; no more than a method of the run has at a time, and
    no fewer than the model's default. Between these it is a multiple of 8.

    Args:
        config: The configuration, with its engine and on its device.
        gpu: The GPU of an engine, or those that share one; None if it is not known.
        shape: The model.
        tasks: The tasks, with the lengths that fit.
        arms: The methods with their CRs.
        predictor: Predicts what a chain holds.
        engines: How many engines share the chains.

    Raises:
        BudgetError: The grid has no length of a task.
    """
    if config.engine != "vllm" or device_kind(config.device) != "cuda":
        return config
    size, weights = config.batch_size, shape.weight_bytes(config.dtype)
    if config.names_batch_size:
        why = f" ({SET_FOR_RUN})"
    elif gpu is None or weights is None:
        lack = "memory of the GPU" if gpu is None else "size of the weights"
        why = f": the default, as the {lack} is not known here (--batch-size)"
    else:
        room: dict[Arm, tuple[int, int]] = {}
        for arm, task in product(arms, tasks):
            for L in config.grid.lengths_of(task.shape.name, task.shape.lengths):
                peak = predictor.predict_chain(task.shape, arm, L)[0].peak_bytes
                fit = chains_that_fit(gpu, weights, peak, usable_memory(config))
                room[arm] = max(room.get(arm, (0, 0)), (fit, L))
        width = max((1 if arm.method in config.alike else max(config.grid.widths) for arm in arms), default=1)
        size, reason = _choose(size, room, ceil(sum(task.count for task in tasks) * width / engines))
        why = f": {reason} (--batch-size)"
    each = " in each engine" if engines > 1 else ""
    return config.model_copy(update={"batch_size": size, "batch_choice": f"{size} chains together{each}{why}"})


def _choose(least: int, room_of_arm: "Mapping[Arm, tuple[int, int]]", chains: int) -> tuple[int, str]:
    """The number, and why in words for the plan.

    Args:
        least: The model's default.
        room_of_arm: For each method with its CR, how many chains fit, and of which L.
        chains: Of a method in an engine, at a time.
    """
    arm = max(room_of_arm, key=lambda arm: room_of_arm[arm])
    # A selector's tables hold bounds of all pages for each place of the batch, filled or not (a sixteenth of a full
    # cache of the longest request): places that its own chains cannot fill would take its cache from it.
    if selectors := [arm for arm in room_of_arm if arm.method in SELECTORS]:
        arm = min(selectors, key=lambda arm: room_of_arm[arm])
    fit, L = room_of_arm[arm]
    room = f"the cache has room for {fit:,} of {arm} at L={L:,}"
    in_room, in_use = fit - fit % _GRAPH_STEP, chains + -chains % _GRAPH_STEP
    size = min(in_room, in_use, MOST_CHOSEN)
    if size <= least:
        return least, f"the default; {room}" if in_room <= in_use else f"the default; a method has {chains:,} at a time"
    if size == in_room:
        return size, room
    if size == in_use:
        return size, f"a method has {chains:,} at a time; {room}"
    return size, f"the most unless more are asked for; {room}"
