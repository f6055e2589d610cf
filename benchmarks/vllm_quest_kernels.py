"""What quest launches in a layer of a decode step in vLLM, kernel by kernel; on a GPU.

Each is timed in a CUDA graph of several layers, one after another, so that no layer is still in the second-level cache
from the last time: the new entry's storing beside the bounds of all pages, the choice, and attention to the chosen
pages, dealt out evenly or by parts of equal length. Beside them stands attention to lists of 1/CR of the entries, as
DMS keeps, and attention to all. Floors are bytes over the bandwidth of a large copy in the same run. How much is read
depends on how far the query heads of a group agree: queries are drawn as ``agreement`` times a draw that a group
shares, plus a draw of each head's own. What is printed of attention may go into `BalancedLaunch.of`.

python benchmarks/vllm_quest_kernels.py                   # 1.5 B at 32 of 4 K and of 16 K, 8 B at 16 of 8 K
python benchmarks/vllm_quest_kernels.py --toy             # on the CPU, with TRITON_INTERPRET=1: results, no times
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from gpu_timing import measure_cases, milliseconds
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChosenPages, DecodeRequests, PagedCache
from hyperscale.engines.vllm.kernels.decode.balanced_attention import BalancedLaunch, balanced_attention
from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
from hyperscale.engines.vllm.kernels.decode_update import decode_update
from hyperscale.engines.vllm.kernels.page_bounds import KeyBounds, PageStep, append_and_bound
from hyperscale.engines.vllm.kernels.page_choice import choose_pages
from hyperscale.engines.vllm.worker.tables import EntryTables

PAGE = 32  # entries of a page of the cache
# Requests, KV heads, query heads of each, entries of a list.
CASES = "32x2x6x4096,32x2x6x16384,16x8x4x8192"
LAUNCHES = [(3, 32, 4, 5), (2, 64, 4, 5), (2, 32, 4, 7), (2, 32, 4, 5), (4, 32, 4, 4), (1, 64, 4, 5), (2, 64, 8, 5)]


class Layers:
    """Layers of one decode step, and what quest keeps of them.

    Args:
        case: Requests, KV heads, query heads of each, entries of a list with the new one.
        dim: Of a head.
        size: Entries of quest's pages.
        cr: Its ratio.
        agreement: See the module.
        layers: How many.
        device: Where all of it is; in bfloat16 on a GPU, in float32 elsewhere.
    """

    def __init__(
        self, case: str, dim: int, size: int, cr: float, agreement: float, layers: int, device: torch.device
    ) -> None:
        requests, heads, group, self.entries = map(int, case.split("x"))
        is_gpu = device.type == "cuda"
        options = {"device": device, "dtype": torch.bfloat16 if is_gpu else torch.float32}
        self.size, self.scale, self.layers = size, dim**-0.5, layers
        self.blocks = -(-self.entries // PAGE)  # superblocks of a request: a page of each of its lists
        count = requests * self.blocks + 1
        self.tables = EntryTables(
            layers=layers,
            heads=heads,
            page_tokens=PAGE,
            blocks=count,
            slots=requests,
            max_tokens=self.entries + PAGE,
            device=device,
        )
        tables = self.tables
        order = 1 + torch.randperm(count - 1).view(requests, self.blocks)
        for blocks in order.tolist():
            slot = tables.open_slot(blocks[0], (1, self.entries, 0))
            tables.set_superblocks(slot, 0, blocks)
        # Every list holds all entries but the new one, which every call stores again.
        self.cache = PagedCache.of(torch.randn(count, layers * heads, PAGE, 2 * dim, **options))  # type: ignore[call-overload]
        lists = torch.arange(layers * heads).view(layers, heads, 1)
        table = order[:, None, None] * (layers * heads) + lists
        tables.page_table[1:, :, :, : self.blocks] = table.to(tables.page_table)
        tables.num_pages[1:] = self.blocks
        self.shorten()
        self.requests = DecodeRequests(
            order[:, 0].to(device, torch.int32), torch.full((requests,), self.entries - 1, device=device)
        )
        shared = torch.randn(layers, requests, heads, 1, dim, **options)  # type: ignore[call-overload]
        self.queries = torch.randn(layers, requests, heads, group, dim, **options) + agreement * shared  # type: ignore[call-overload]
        self.keys = torch.randn(layers, requests, heads, dim, **options)  # type: ignore[call-overload]
        pages = -(-self.entries // size)
        least, greatest = torch.zeros(2, layers, requests + 1, heads, pages + 8, dim, **options)  # type: ignore[call-overload]
        for layer in range(layers):
            keys = self.cache.keys[tables.page_table[1:, layer, :, : self.blocks].long()].flatten(2, 3)
            # The last page of quest's may be shorter, and its bounds are not looked at.
            full = keys[:, :, : self.entries // size * size].unflatten(2, (-1, size))
            least[layer, 1:, :, : full.shape[2]] = full.amin(3)
            greatest[layer, 1:, :, : full.shape[2]] = full.amax(3)
        self.bounds = [KeyBounds(size, low, high) for low, high in zip(least, greatest, strict=True)]
        budget = max(int(self.entries / cr) // size, 1)
        longs = {"dtype": torch.int64, "device": device}
        self.step = PageStep(
            torch.full((requests,), budget, **longs),  # type: ignore[call-overload]
            torch.zeros(requests, **longs),  # type: ignore[call-overload]
        )
        self.reads = torch.zeros(requests + 1, **longs)  # type: ignore[call-overload]
        ints = {"dtype": torch.int32, "device": device}
        self.done = torch.zeros(requests, heads, **ints)  # type: ignore[call-overload]
        self.lens = torch.full((layers, requests, heads), self.entries, **ints)  # type: ignore[call-overload]
        self.kept = torch.full_like(self.lens, int(self.entries / cr))
        self.pages = tables.page_table[1:].transpose(0, 1).contiguous()
        self.out = torch.empty_like(self.queries[0])
        self.found: list[Tensor] = []
        self.found = [self.bound(layer) for layer in range(layers)]
        self.chosen = [self.choose(layer) for layer in range(layers)]

    def shorten(self) -> None:
        """Take the new entry out of all lists again."""
        self.tables.lens[1:] = self.entries - 1

    def store(self, layer: int) -> None:
        """Store the new entry, as layers do that read all."""
        of_layer = (self.keys[layer], self.keys[layer], self.lens[layer], self.pages[layer])
        decode_update(self.tables, self.cache, layer, self.requests, *of_layer, appends=True)

    def bound(self, layer: int) -> Tensor:
        """Store the new entry and bound all pages."""
        of_layer = (self.keys[layer], self.keys[layer], self.lens[layer], self.pages[layer])
        of_step = (self.requests, self.step, self.bounds[layer], self.queries[layer])
        return append_and_bound(self.tables, self.cache, layer, *of_step, *of_layer)

    def choose(self, layer: int, found: Tensor | None = None) -> ChosenPages:
        """The choice, by bounds of before if none are given."""
        kept = self.bounds[layer]
        found, pages = self.found[layer] if found is None else found, kept.least.shape[2]
        return choose_pages(self.tables, self.requests, self.step, found, pages, kept.size, self.reads, self.done)

    def attend_parts(self, layer: int) -> None:
        """Attention to chosen pages, by parts of equal length."""
        of_layer = (self.queries[layer], self.cache, self.lens[layer], self.pages[layer], self.out)
        decode_attention(*of_layer, self.scale, self.entries, chosen=self.chosen[layer])

    def attend_evenly(self, layer: int, launch: BalancedLaunch | None = None) -> None:
        """Attention to chosen pages, dealt out evenly."""
        of_layer = (self.queries[layer], self.cache, self.lens[layer], self.pages[layer], self.out)
        balanced_attention(*of_layer, self.done, self.scale, launch, chosen=self.chosen[layer])

    def attend_to(self, lens: Tensor, layer: int) -> None:
        """Attention to the beginnings of the lists."""
        of_layer = (self.queries[layer], self.cache, lens[layer], self.pages[layer], self.out)
        balanced_attention(*of_layer, self.done, self.scale)

    def whole(self, layer: int) -> None:
        """What a layer of quest's launches."""
        chosen = self.choose(layer, self.bound(layer))
        of_layer = (self.queries[layer], self.cache, self.lens[layer], self.pages[layer], self.out)
        balanced_attention(*of_layer, self.done, self.scale, chosen=chosen)


def check(layers: Layers) -> float:
    """Hold choice and both kinds of attention against plain torch, in the last layer; the share that is read."""
    layer, size = layers.layers - 1, layers.size
    chosen, queries, entries = layers.choose(layer), layers.queries[layer].float(), layers.entries
    current = (entries - 1) // size
    kept = layers.bounds[layer]
    low, high = (part[1:, :, None, :current].float() for part in (kept.least, kept.greatest))
    bounds = torch.where(queries[..., None, :] > 0, high, low).mul_(queries[..., None, :]).sum(-1)
    wanted = min(int(layers.step.budgets[0]) - 1, current)
    by_rank = bounds.argsort(dim=-1, descending=True, stable=True)[..., :wanted]
    read = torch.zeros(*bounds.shape[:3], current + 1, dtype=torch.bool, device=bounds.device)
    read.scatter_(-1, by_rank, value=True)
    read[..., current] = True
    lens = (read.any(2).sum(-1) - 1) * size + (entries - 1) % size + 1
    # Products are summed in another order there, so that now and then a page at the edge is another.
    difference = float((chosen.lens - lens).abs().float().mean()) / entries
    assert difference < 0.01, f"lists read {difference:.1%} of their entries more or less than they should"
    outs = []
    for attend in (layers.attend_evenly, layers.attend_parts):
        attend(layer)
        outs.append(layers.out.float().clone())
    error = float((outs[0] - outs[1]).norm() / outs[1].norm())
    assert error < 2e-2, f"the two kinds of attention differ: {error}"
    return float(chosen.lens.float().mean()) / entries


def measure(case: str, arguments: argparse.Namespace, copy: float) -> None:
    """Time all kernels on one case and print a line each."""
    requests, heads, group, entries = map(int, case.split("x"))
    entry_bytes = 2 * arguments.dim * 2
    held = requests * heads * entries * entry_bytes
    count = max(2, min(8, (2 << 30) // held))
    of_method = (arguments.dim, arguments.size, arguments.cr, arguments.agreement)
    layers = Layers(case, *of_method, count, torch.device("cuda"))
    share = check(layers)
    print(
        f"{requests} requests, {heads} KV heads, group {group}, {entries} entries a list; {share:.3f} of them are read "
        f"(a head: {1 / arguments.cr:.3f})"
    )
    of_bounds = held / arguments.size
    works: dict[str, tuple[Callable[[int], object], float]] = {
        "store (1 kernel)": (layers.store, 0),
        "store and bounds (1 kernel)": (layers.bound, of_bounds),
        "choice (1 kernel)": (layers.choose, 0),
        "attention by equal parts (2 kernels)": (layers.attend_parts, held * share),
        "attention dealt out evenly (1 kernel)": (layers.attend_evenly, held * share),
        "all of a layer (3 kernels)": (layers.whole, of_bounds + held * share),
        f"attention to lists of 1/{arguments.cr:g}": (partial(layers.attend_to, layers.kept), held / arguments.cr),
        "attention to all": (partial(layers.attend_to, layers.lens), held),
    }
    for launch in LAUNCHES if arguments.sweep else LAUNCHES[:3]:
        cut = BalancedLaunch(*launch, fused=True)
        works[f"attention dealt out evenly {launch}"] = partial(layers.attend_evenly, launch=cut), held * share
    for name, (call, moved) in works.items():

        def work(call: Callable[[int], object] = call) -> None:
            for layer in range(count):
                call(layer)

        try:
            microseconds = 1e3 * statistics.median(milliseconds(work, count, layers.shorten) for _ in range(2))
        except Exception as problem:
            print(f"  {name:<45} {type(problem).__name__}: {str(problem).splitlines()[0][:90]}", flush=True)
            continue
        print(f"  {name:<45} {microseconds:7.1f} us, floor {moved / copy / 1e3:6.1f}", flush=True)


def main() -> None:
    """Measure the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES, help="requests x KV heads x query heads of each x entries, commas")
    parser.add_argument("--cr", type=float, default=8.0)
    parser.add_argument("--size", type=int, default=16, help="entries of quest's pages")
    parser.add_argument("--dim", type=int, default=128, help="of a head")
    parser.add_argument("--agreement", type=float, default=0.0, help="of the query heads of a group")
    parser.add_argument("--sweep", action="store_true", help="more cuts of attention")
    parser.add_argument("--toy", action="store_true", help="check results at a tiny size, on the CPU")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.toy:
        layers = Layers("2x2x3x150", 16, 4, 3.0, arguments.agreement, 2, torch.device("cpu"))
        layers.shorten()
        layers.store(0)
        layers.whole(1)
        print(f"results agree; {check(layers):.3f} of the entries are read")
        return
    measure_cases(arguments.cases, lambda case, copy: measure(case, arguments, copy))


if __name__ == "__main__":
    main()
