"""Builds the part of run.json by which runs are compared, and a description of the machine, which is not compared."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperscale import models
from hyperscale.engines.devices import device_index, device_kind
from hyperscale.run.config.resolve import ResolvedConfig

if TYPE_CHECKING:
    from hyperscale.methods.arm import Arm
    from hyperscale.methods.core.base import Method
    from hyperscale.tasks.task import Task


def identify_run(
    config: ResolvedConfig,
    tasks: "Sequence[Task]",
    methods: "Mapping[Arm, Method]",
    checkpoints: "Mapping[Arm, models.Checkpoint]",
) -> dict[str, Any]:
    """The configuration, versions of tasks, weights and parameters of methods, and the machine."""
    # The hardware does not tell runs apart: it says whose seconds they are.
    return {
        "config": config.compared(),
        "tasks": {task.name: task.version for task in tasks},
        "checkpoints": {str(arm): models.fingerprint(checkpoint.path) for arm, checkpoint in checkpoints.items()},
        "params": {str(arm): method.params() for arm, method in methods.items()},
        "hardware": describe_hardware(config.device),
    }


def describe_hardware(device: str) -> dict[str, Any]:
    """The parts of the machine that a run's speed depends on."""
    import torch

    has_gpu = device_kind(device) == "cuda" and torch.cuda.is_available()
    accelerator = torch.cuda.get_device_name(device_index(device)) if has_gpu else None
    return {
        "platform": sys.platform,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
    }
