"""Calls functions of static tensors as CUDA graphs, which launch all their kernels at once."""

import gc
import warnings
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from hyperscale.errors import first_line


class StepCalls(Protocol):
    """Calls functions that read and write tensors which never move, and wait for nothing."""

    def run(self, key: tuple[Hashable, ...], function: Callable[[], Tensor]) -> Tensor:
        """Call a function, or repeat what it did when it was called under this key before.

        Args:
            key: What the function's launches depend on: which function it is, by name, and shapes.
            function: The function.

        Returns:
            What it returns; valid until the next call under any key.
        """

    def forget(self) -> None:
        """Tensors that the functions use have been replaced: nothing that was recorded may be repeated."""


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all batches on a device: libraries keep a workspace for every stream that they have seen."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


# Graphs whose capture was broken off: torch's allocator goes on asking them which stream they were recorded on.
_broken: list[torch.cuda.CUDAGraph] = []


class CudaGraphs:
    """Captures a function when it is called a second time under the same key, and replays it from then on.

    The first call is direct: kernels are compiled and libraries get their workspaces, which cannot happen in a capture.
    So what is called only once costs no capture. A function that cannot be captured is called directly ever after, and
    a warning says why.
    """

    def __init__(self, device: torch.device, failed: set[Hashable] | None = None, hint: str = "") -> None:
        """No graphs yet.

        Args:
            device: Where the functions run.
            failed: Names of functions that could not be captured; is added to. Batches that run the same ones share it.
            hint: What a warning of a function that cannot be captured ends with.
        """
        self._hint = hint
        self._device = device
        self._called: set[tuple[Hashable, ...]] = set()
        self._graphs: dict[tuple[Hashable, ...], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._stream = _capture_stream(device)
        # The memory of all graphs, as only one of them runs at a time; None while there is no graph. A pool without
        # graphs must not be captured into again: torch gives it up, even while tensors live in it, such as those that
        # the method's state keeps of a step, or a library's workspace.
        self._pool: Any = None
        self._failed = set() if failed is None else failed

    def run(self, key: tuple[Hashable, ...], function: Callable[[], Tensor]) -> Tensor:
        """See `StepCalls.run`."""
        if key not in self._graphs and key in self._called and key[0] not in self._failed:
            self._capture(key, function)
        if key not in self._graphs:
            self._called.add(key)
            return function()
        graph, result = self._graphs[key]
        graph.replay()
        return result

    def forget(self) -> None:
        """See `StepCalls.forget`."""
        self._graphs.clear()
        self._called.clear()
        self._pool = None

    def _capture(self, key: tuple[Hashable, ...], function: Callable[[], Tensor]) -> None:
        """Record a function, which runs nothing on the device."""
        graph = torch.cuda.CUDAGraph()
        pool = self._pool or torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream(self._device)
        collects = gc.isenabled()
        gc.disable()  # a tensor of somebody else's that is freed now could end the capture
        try:
            # Other threads may go on using the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                result = function()
        except Exception as error:
            reason: BaseException = error
            while reason.__context__ is not None:  # the end of a broken capture raises once more
                reason = reason.__context__
            torch.cuda.set_stream(stream)  # torch leaves the capture's in force
            torch.cuda.synchronize(self._device)
            self._failed.add(key[0])
            _broken.append(graph)
            # What a capture that has been broken off leaves in a pool is unknown: the graphs that are there may go on
            # using it, further ones may not.
            self._pool = None
            warnings.warn(
                f"the {key[0]} part of steps is not captured in CUDA graphs and runs more slowly: "
                f"{first_line(reason)}{self._hint}",
                stacklevel=2,
            )
        else:
            self._graphs[key], self._pool = (graph, result), pool
        finally:
            if collects:
                gc.enable()
