"""Attention of one decode step over few lists, in one layer, by every kernel and cut that there is; on a GPU.

Every kernel is timed in a CUDA graph of several layers' caches, one after another, so that no cache is still in the
second-level cache from the last time. Bandwidth is held against that of a large copy, read and written, in the same
run. The best cut of each kernel belongs into `BalancedLaunch.of` and `FEW_LISTS` beside it, and into
`_GRAPH_SPLITS` of `hyperscale/engines/vllm/backends/cuda.py`.

python benchmarks/vllm_few_lists.py                       # the cases of the tables in results/measurements/vllm.md
python benchmarks/vllm_few_lists.py --cases 8x8x5x2280,32x2x6x740 --spread 0.5 --sweep
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from gpu_timing import measure_cases, milliseconds

from hyperscale.engines.vllm.kernels import decode_attention, decode_fa3
from hyperscale.engines.vllm.kernels.arguments import PagedCache
from hyperscale.engines.vllm.kernels.decode.balanced_attention import MOST_LISTS, BalancedLaunch, balanced_attention

DIM, PAGE = 128, 32
SCALE = DIM**-0.5
BYTES = 2 * DIM * 2  # of an entry
# Requests, KV heads, query heads of each, entries of a list: 32 B at 8 chains of 16 K and CR 8; 1.5 B at 32 of 4 K;
# the former with more chains; 7 B and 8 B.
CASES = "8x8x5x2280,32x2x6x740,16x8x5x2280,32x8x5x2280,64x8x5x2280,32x4x7x740,32x8x4x2048,4x8x5x2280"
LAUNCHES = [(2, 32, 4, 5), (4, 32, 4, 5), (2, 32, 4, 7), (3, 32, 4, 7), (2, 64, 4, 5), (1, 64, 4, 5)]
LAUNCHES += [(1, 32, 4, 5), (3, 32, 4, 4), (4, 32, 4, 3), (2, 64, 4, 3), (3, 64, 4, 4), (1, 128, 8, 3), (2, 64, 8, 4)]
LAUNCHES += [(4, 16, 2, 6), (4, 32, 2, 5), (6, 32, 2, 4), (8, 32, 2, 3)]


class Layers:
    """Caches of some layers with lists of the same lengths, pages in random order."""

    def __init__(self, requests: int, heads: int, group: int, entries: int, spread: float, layers: int) -> None:
        """Fill."""
        lens = (entries * torch.exp(spread * torch.randn(requests, heads))).clamp(1, 8 * entries).int()
        pages = (lens + PAGE - 1) // PAGE
        total, width = int(pages.sum()), int(pages.max()) + 1
        self.entries, self.longest = int(lens.sum()), int(lens.max())
        self.lens = lens.cuda()
        self.caches, self.tables = [], []
        for _ in range(layers):
            data = torch.randn(total, 1, PAGE, 2 * DIM, device="cuda", dtype=torch.bfloat16)
            self.caches.append(PagedCache.of(data))
            table = torch.zeros(requests * heads, width, dtype=torch.int32)
            parts = torch.randperm(total).int().split(pages.flatten().tolist())
            for row, part in zip(table, parts, strict=True):
                row[: len(part)] = part
            self.tables.append(table.view(requests, heads, width).cuda())
        self.queries = torch.randn(requests, heads, group, DIM, device="cuda", dtype=torch.bfloat16)
        self.out = torch.empty_like(self.queries)
        self.done = torch.zeros(requests * heads, dtype=torch.int32, device="cuda")
        self.starts = torch.arange(requests * heads + 1, dtype=torch.int32, device="cuda")


def kernels(sweep: bool, most: int) -> dict[str, Callable[[Layers, int], None]]:
    """Kernels and cuts by name, each called with a layer's number; those of few lists only where they are few."""

    def fa3(splits: int, longest: int) -> Callable[[Layers, int], None]:
        def call(layers: Layers, layer: int) -> None:
            arguments = (layers.queries, layers.caches[layer], layers.lens, layers.tables[layer], layers.out)
            decode_fa3.decode_attention(*arguments, layers.starts, SCALE, longest or layers.longest, splits)

        return call

    def parts(launch: tuple[int, int, int, int] | None) -> Callable[[Layers, int], None]:
        def call(layers: Layers, layer: int) -> None:
            arguments = (layers.queries, layers.caches[layer], layers.lens, layers.tables[layer], layers.out)
            cut = None if launch is None else decode_attention.DecodeLaunch(*launch)
            decode_attention.decode_attention(*arguments, SCALE, 16384, cut)

        return call

    def balanced(launch: tuple[Any, ...] | None) -> Callable[[Layers, int], None]:
        def call(layers: Layers, layer: int) -> None:
            arguments = (layers.queries, layers.caches[layer], layers.lens, layers.tables[layer], layers.out)
            balanced_attention(*arguments, layers.done, SCALE, None if launch is None else BalancedLaunch(*launch))

        return call

    found: dict[str, Callable[[Layers, int], None]] = {}
    if decode_fa3.available():
        splits = (32, 0, 1, 2, 3, 4, 6, 8, 16) if sweep else (32, 0, 4)
        found |= {f"fa3, {count or 'its own number of'} parts": fa3(count, 16384 if count else 0) for count in splits}
    found["parts"] = parts(None)
    for shape in [(256, 32, 4, 5), (128, 32, 4, 5), (640, 32, 4, 5)] if sweep else []:
        found[f"parts {shape}"] = parts(shape)
    if most <= MOST_LISTS:
        found["balanced"] = balanced(None)
        for launch in LAUNCHES if sweep else LAUNCHES[:6]:
            found |= {f"balanced {launch}": balanced(launch), f"balanced {launch}, fused": balanced((*launch, True))}
    return found


def measure(case: str, arguments: argparse.Namespace, copy: float) -> None:
    """Time all kernels on one case, check that they agree, and print a line each."""
    requests, heads, group, entries = map(int, case.split("x"))
    # Enough layers that their bytes do not fit the second-level cache, and few enough for memory.
    layers_count = max(2, min(16, (600 << 20) // max(requests * heads * entries * BYTES, 1)))
    layers = Layers(requests, heads, group, entries, arguments.spread, layers_count)
    floor = layers.entries * BYTES / copy / 1e3
    print(
        f"{requests} requests, {heads} KV heads, group {group}, {entries} entries a list: floor {floor:.1f} us a layer"
    )
    reference, lines = None, []
    for name, call in kernels(arguments.sweep, requests * heads).items():

        def work(call: Callable[[Layers, int], None] = call) -> None:
            for layer in range(layers_count):
                call(layers, layer)

        try:
            call(layers, 0)
            result = layers.out.float().clone()
            reference = result if reference is None else reference
            error = float((result - reference).norm() / reference.norm())
            microseconds = 1e3 * statistics.median(milliseconds(work, layers_count) for _ in range(3))
        except Exception as problem:
            print(f"  {name:<28} {type(problem).__name__}: {str(problem).splitlines()[0][:90]}", flush=True)
            continue
        assert error < 2e-2, f"{name} is wrong: {error}"
        lines.append((microseconds, name))
    for microseconds, name in sorted(lines):
        rate = layers.entries * BYTES / microseconds / 1e3
        print(f"  {name:<28} {microseconds:7.1f} us {rate:6.0f} GB/s {rate / copy:6.1%} of copy", flush=True)


def main() -> None:
    """Measure the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES, help="requests x KV heads x query heads of each x entries, commas")
    parser.add_argument("--spread", type=float, default=0.0, help="of the logarithms of lengths")
    parser.add_argument("--sweep", action="store_true", help="more cuts of each kernel")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    measure_cases(arguments.cases, lambda case, copy: measure(case, arguments, copy))


if __name__ == "__main__":
    main()
