"""Lets an engine run another of its arms, in every worker: the method is made anew, its graphs are recorded again.

An arm is one of the methods that an engine was started with (`hyperscale.engines.vllm.arms`). The harness calls
`ArmSwitch.hyperscale_use_arm` between two arms, when no request is running; the scheduler learns of the change from the
first request of the next arm.
"""

from typing import Any

import torch
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.config import CUDAGraphMode, set_current_vllm_config
from vllm.distributed.kv_transfer import get_kv_transfer_group


class ArmSwitch:
    """What a worker of vLLM's can do besides: vLLM adds it to its workers' class (``worker_extension_cls``)."""

    vllm_config: Any
    model_runner: Any

    def hyperscale_use_arm(self, arm: int) -> None:
        """Run by another method from now on.

        Args:
            arm: Its number among those that the engine was started with.

        Raises:
            MethodError: It cannot run on this model.
        """
        # Graphs of whole decode steps have the former method's kernels and the addresses of its tables in them.
        had_graphs = _drop_full_graphs(self.model_runner)
        connector: Any = get_kv_transfer_group()
        with set_current_vllm_config(self.vllm_config):
            connector.use_arm(arm)
            if had_graphs:
                torch.cuda.empty_cache()
                self.model_runner.capture_model()


def _drop_full_graphs(runner: Any) -> bool:
    """Drop the graphs of whole decode steps; returns whether there were any.

    Those of what lies between attention layers stay: no method is in them, and when graphs are recorded again each of
    their sizes runs once more, and is replayed.
    """
    # vLLM's older runner keeps graphs in wrappers around the model, the newer one keeps those of whole steps itself.
    wrappers = [
        wrapper
        for wrapper in list(CUDAGraphWrapper._all_instances)
        if wrapper.runtime_mode == CUDAGraphMode.FULL and wrapper.concrete_cudagraph_entries
    ]
    manager = getattr(runner, "cudagraph_manager", None)
    graphs = getattr(manager, "graphs", {})
    if not wrappers and not graphs:
        return False
    torch.accelerator.synchronize()
    _keep_pool()
    for wrapper in wrappers:
        wrapper.clear_graphs()
    if manager is not None:
        graphs.clear()
        manager._graphs_captured = False
    return True


_kept: list[torch.cuda.CUDAGraph] = []


def _keep_pool() -> None:
    """Record a graph of nothing much in the pool that vLLM's graphs share, once.

    A pool ends with its last graph, and CUDA's allocator takes no other graph into one that has ended.
    """
    if _kept:
        return
    from vllm.platforms import current_platform

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=current_platform.get_global_graph_pool()):
        torch.zeros(1, device="cuda")
    _kept.append(graph)
