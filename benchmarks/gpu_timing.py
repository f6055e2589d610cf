"""Times of work on a GPU, and the bandwidth they are held against."""

import statistics
import time
from collections.abc import Callable

import torch


def nothing() -> None:
    """Before a measurement that needs no preparation."""


def milliseconds(
    work: Callable[[], None], calls: int = 1, before: Callable[[], None] = nothing, graph: bool = True
) -> float:
    """Median time of one of the ``calls`` calls that ``work`` makes; ``before`` is not timed.

    With ``graph`` they are captured once and replayed, so that the host's launches cost nothing.
    """
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        before()
        work()  # compiles
        torch.cuda.synchronize()
        cuda_graph = torch.cuda.CUDAGraph()
        if graph:
            with torch.cuda.graph(cuda_graph, stream=stream):
                work()
        run, times = cuda_graph.replay if graph else work, []
        for _ in range(7):
            before()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / calls)
    return statistics.median(times[2:])


def launch_microseconds(work: Callable[[], None], before: Callable[[], None]) -> float:
    """Median host time of a call, without waiting for the device; ``before`` is not timed."""
    times = []
    for _ in range(20):
        before()
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        times.append(1e6 * (time.perf_counter() - start))
        torch.cuda.synchronize()
    return statistics.median(times)


def copy_bandwidth() -> float:
    """GB/s of a device-to-device copy, bytes read plus bytes written."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    # Not from a graph, where a copy reaches two thirds of that (2,752 and 4,223 GB/s on an H200).
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source), graph=False) / 1e6


def measure_cases(cases: str, measure: Callable[[str, float], None]) -> None:
    """Measure cases, separated by commas, one after another; ``measure`` takes a case and a copy's GB/s."""
    copy = copy_bandwidth()
    name, processors = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).multi_processor_count
    print(f"{name}, {processors} multiprocessors; a copy moves {copy:.0f} GB/s")
    for case in cases.split(","):
        measure(case, copy)
        torch.cuda.empty_cache()
