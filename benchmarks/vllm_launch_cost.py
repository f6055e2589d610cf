"""What the host takes to launch the kernels of a layer of prompts that DMS evicts from; on a GPU.

Their attention is in no CUDA graph: where the host launches more slowly than the GPU works, a small model waits for
it (results/measurements/vllm.md). A line for each kernel, microseconds of a launch:
- whole: as the plugin launches it in the first layer of a step: its arguments put together, and the kernel found;
- repeated: as the plugin launches it in the step's further layers, which keep both (`StepLaunches`);
- binding: Triton's Python alone, which finds the compiled kernel by the arguments;
- compiled: the kernel that was found, launched with the tensors themselves;
- by addresses: the same with addresses in place of tensors, about which the launcher does not ask the driver.
A torch operation on a tiny tensor stands beside them. Kernels are launched for no request (block 0), so that the GPU
has next to nothing to do, and every batch of launches is waited for.

python benchmarks/vllm_launch_cost.py
python benchmarks/vllm_launch_cost.py --allocations 2000      # with as many other tensors in the GPU's memory
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from gpu_timing import copy_bandwidth
from torch import Tensor
from triton.runtime.jit import JITFunction

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk import attention, plan, plan_storage, write
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches
from hyperscale.engines.vllm.worker.staged_tables import StagedTables

LAYERS, HEADS, GROUP, DIM, PAGE = 28, 2, 6, 128, 32  # Qwen2.5-1.5B's
_LAUNCHES = 100


class Launches:
    """Records how kernels are launched, by name: the function, its grid, and its arguments."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Any, Any, tuple[Any, ...], dict[str, Any]]] = {}

    def record(self, work: Callable[[], None]) -> None:
        """Run something and remember its launches."""
        original = JITFunction.run

        def run(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            self.seen[function.fn.__name__] = function, grid, args, kwargs
            return original(function, *args, grid=grid, warmup=warmup, **kwargs)

        JITFunction.run = run
        try:
            work()
        finally:
            JITFunction.run = original


def microseconds(work: Callable[[], Any], device: str) -> float:
    """Of the host, the best of five batches."""
    batches = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(_LAUNCHES):
            work()
        batches.append(time.perf_counter() - start)
        if device == "cuda":
            torch.cuda.synchronize()
    return 1e6 * min(batches) / _LAUNCHES


def measure_kernel(name: str, call: Callable[[StepLaunches], Any], device: str) -> dict[str, float]:
    """Microseconds of a kernel's launch by part."""
    launches, of_step = Launches(), StepLaunches()
    launches.record(lambda: call(of_step))
    function, grid, args, kwargs = launches.seen[name]
    again = Launches()
    again.record(lambda: call(of_step))
    assert not again.seen, "the launch was not repeated"

    def bind() -> Any:
        return function.run(*args, grid=grid, warmup=True, **kwargs)

    compiled = bind()[(*grid, 1, 1)[:3]]
    # What the function's signature has, in order; the launcher passes over what is constant in the kernel.
    names = [parameter.name for parameter in function.params]
    values = [*args, *(kwargs[name] for name in names[len(args) :])]
    addresses = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
    return {
        "whole": microseconds(lambda: call(StepLaunches()), device),
        "repeated": microseconds(lambda: call(of_step), device),
        "binding": microseconds(bind, device),
        "compiled": microseconds(lambda: compiled(*values), device),
        "by addresses": microseconds(lambda: compiled(*addresses), device),
    }


def measure(device: str, tokens: int) -> dict[str, dict[str, float]]:
    """Microseconds by kernel and part."""
    of: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    sizes = {"layers": LAYERS, "heads": HEADS, "page_tokens": PAGE}
    tables = StagedTables(**sizes, blocks=8, slots=2, max_tokens=tokens, device=device)
    cache = PagedCache.of(torch.zeros(8, LAYERS * HEADS, PAGE, 2 * DIM, **of))
    queries, keys = torch.zeros(tokens, HEADS * GROUP, DIM, **of), torch.zeros(tokens, HEADS, DIM, **of)
    out, numbers = torch.empty_like(queries), cast("dict[str, Any]", {"dtype": torch.int32, "device": device})
    verdicts = plan.Verdicts(torch.zeros(tokens, HEADS, device=device), 256)
    # Of block 0, nobody's, and of a single token.
    first = torch.zeros(1, **numbers)
    chunks = ChunkRequests(first, torch.tensor([0, 1], **numbers), first, tokens)
    storage = plan_storage.PlanStorage(LAYERS, HEADS, tokens, 1, torch.device(device), counts=False)
    reads = torch.zeros(tokens, dtype=torch.int64, device=device).expand(HEADS, -1)
    counts = plan.ReadCounts(first, reads, sums=True)
    planned = plan.plan_chunks(tables, 0, chunks, verdicts, storage, counts)
    calls: dict[str, Callable[[StepLaunches], Any]] = {
        "_chunk_plan_kernel": lambda launches: plan.plan_chunks(tables, 0, chunks, verdicts, storage, counts, launches),
        "_chunk_attention_kernel": lambda launches: attention.chunk_attention(
            tables, cache, 0, chunks, planned, queries, keys, keys, out, 0.1, launches=launches
        ),
        "_chunk_write_kernel": lambda launches: write.store_survivors(
            tables, cache, 0, chunks, planned, keys, keys, launches
        ),
    }
    tiny = torch.zeros(8, device=device)
    found = {"a torch operation": {"whole": microseconds(lambda: tiny.add_(1), device)}}
    for name, call in calls.items():
        found[name] = measure_kernel(name, call, device)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--allocations", type=int, default=0, help="tensors of 2 MiB that lie in memory meanwhile")
    arguments = parser.parse_args()
    others = [torch.empty(1 << 21, dtype=torch.uint8, device="cuda") for _ in range(arguments.allocations)]
    print(f"{torch.cuda.get_device_name()}; a copy moves {copy_bandwidth():.0f} GB/s; {len(others)} other tensors")
    for name, parts in measure("cuda", arguments.tokens).items():
        print(f"{name:26}" + "".join(f"  {part} {value:.1f}" for part, value in parts.items()))


if __name__ == "__main__":
    main()
