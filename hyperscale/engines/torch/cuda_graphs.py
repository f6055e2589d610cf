"""Calls the functions of a decode step as CUDA graphs, which launch all their kernels at once."""

import gc
import warnings
from collections.abc import Callable, Hashable
from functools import cache
from typing import Protocol

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


class CudaGraphs:
    """Captures a function when it is called a second time under the same key, and replays it from then on.

    The first call is direct: kernels are compiled and libraries get their workspaces, which cannot happen in a capture.
    So what is called only once costs no capture. A function that cannot be captured is called directly ever after, and
    a warning says why.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._called: set[tuple[Hashable, ...]] = set()
        self._graphs: dict[tuple[Hashable, ...], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._stream = _capture_stream(device)
        self._pool = torch.cuda.graph_pool_handle()  # one for all: only one of them runs at a time
        self._failed: set[Hashable] = set()  # names of functions that cannot be captured

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

    def _capture(self, key: tuple[Hashable, ...], function: Callable[[], Tensor]) -> None:
        """Record a function, which runs nothing on the device."""
        graph = torch.cuda.CUDAGraph()
        collects = gc.isenabled()
        gc.disable()  # a tensor of somebody else's that is freed now could end the capture
        try:
            # Other threads may go on using the device meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = function()
        except Exception as error:
            reason: BaseException = error
            while reason.__context__ is not None:  # the end of a broken capture raises once more
                reason = reason.__context__
            self._failed.add(key[0])
            torch.cuda.synchronize(self._device)
            self._pool = torch.cuda.graph_pool_handle()  # what a capture leaves that has been broken off is unknown
            warnings.warn(
                f"the {key[0]} part of decode steps is not captured in CUDA graphs and runs more slowly: "
                f"{first_line(reason)} (--no-cuda-graphs silences this)",
                stacklevel=2,
            )
        else:
            self._graphs[key] = graph, result
        finally:
            if collects:
                gc.enable()
