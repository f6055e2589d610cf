"""Shards a model over the processes of a training by FSDP2, layer by layer, and gathers it again.

Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", arXiv 2304.11277; torch's second
form of it, `torch.distributed.fsdp.fully_shard`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from hyperscale.methods.core.dms_gate import attach_gates
from hyperscale.retrofit.low_rank.updates import LowRankUpdates, find_updated, read_scale
from hyperscale.retrofit.parallel.ranks import Ranks
from hyperscale.retrofit.parallel.sharded_loading import is_empty


class ShardedRoot(nn.Module):
    """Runs whatever uses the model's embedding, last norm and output layer, which are gathered meanwhile.

    A loss in parts calls the output layer outside of the model's own forward pass, so that is not enough of a root.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        """What a function returns."""
        return function()


def shard_model(
    model: Any, ranks: Ranks, device: torch.device, fill: Callable[[Any], None] | None = None
) -> Callable[[Callable[[], Any]], Any]:
    """Shard a transformers causal LM in place; it moves to the device as its layers are sharded.

    Args:
        model: The model; the same on all processes.
        ranks: They.
        device: This process's.
        fill: Gives a sharded model its values (`sharded_loading.fill_model`), if it has no storage yet.

    Returns:
        What a function that uses the model has to be run by.
    """
    mesh = init_device_mesh(device.type, (ranks.count,))
    # Gradients of bfloat16 weights are summed in float32.
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32)}
    for layer in model.model.layers:
        fully_shard(layer, **options)
    root = ShardedRoot(model)
    fully_shard(root, **options)
    if is_empty(model):
        assert fill is not None, "nothing gives it its values"
        root.to_empty(device=device)
        fill(model)
    else:
        root.to(device)  # buffers
    return root


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; the tensor itself if it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_part_of(whole: Tensor, part: Tensor) -> Tensor:
    """This process's part of a tensor that is sharded as another one; the part itself if that one is not."""
    if not isinstance(whole, DTensor):
        return part
    placement = whole.device_mesh, whole.placements
    sharded: Tensor = DTensor.from_local(part, *placement, run_check=False, shape=whole.shape, stride=whole.stride())
    return sharded


def whole_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor, gathered; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_state(model: Any, ranks: Ranks, dtype: torch.dtype) -> dict[str, Tensor]:
    """The whole state of a sharded model, on the CPU of the first process; empty on the others. A collective."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        whole = whole_tensor(value)
        if ranks.is_first:
            state[name] = whole.to("cpu", dtype if whole.is_floating_point() else whole.dtype)
    return state


def gather_model(model: Any, ranks: Ranks) -> Any:
    """A whole model of the same weights in bfloat16, on the CPU of the first process; None on the others. A collective.

    Args:
        model: A sharded causal LM with gates.
        ranks: The processes.
    """
    from transformers import AutoModelForCausalLM

    state = gather_state(model, ranks, torch.bfloat16)
    if not ranks.is_first:
        return None
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
        attach_gates(whole)
        if updated := find_updated(model):  # merged when it is saved
            LowRankUpdates(whole, *read_scale(updated[0][1]))
    whole.load_state_dict(state, assign=True)
    whole.tie_weights()
    return whole
