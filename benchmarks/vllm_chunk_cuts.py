"""How the attention of a prompt with DMS's verdicts is best cut into programs, on a GPU.

A prompt of one chunk, of which verdicts by chance keep 1 / CR behind a window. For each case, KV HEADSxQUERY HEADS OF
EACHxTOKENS, and each cut, ROWSxBLOCKxWARPSxSTAGES (`ChunkLaunch`), the table has microseconds of the kernel alone by
torch's profiler, and how far its output is from that of the usual cut. Cuts compile at first use: --processes do that
side by side beforehand.

python benchmarks/vllm_chunk_cuts.py
python benchmarks/vllm_chunk_cuts.py --cases 2x6x4096 --cuts 128x64x8x5,64x64x4x3
TRITON_INTERPRET=1 python benchmarks/vllm_chunk_cuts.py --toy               # the same code, small, on the CPU
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk import plan as chunk_plan
from hyperscale.engines.vllm.kernels.chunk.attention import ChunkLaunch, chunk_attention
from hyperscale.engines.vllm.worker.staged_tables import StagedTables

PAGE, SCALE = 32, 0.1
CASES = "2x6x4096,2x6x16384,4x7x4096,8x5x4096"
CUTS = (
    "128x32x4x4,128x32x4x5,128x32x4x3,128x32x4x6,128x16x4x5,128x64x4x2,128x64x8x5,128x64x8x4,128x64x8x3,128x64x8x2,"
    "128x64x4x3,128x32x8x5,128x32x8x3,128x128x8x2,128x128x8x3,256x32x8x4,64x64x4x5,64x64x4x3,64x64x4x2,64x64x8x3,"
    "64x32x4x5,64x32x4x3,64x32x2x4,64x128x4x2"
)


class Case(NamedTuple):
    """A layer's shape, and a prompt.

    Attributes:
        heads: KV heads.
        group: Query heads of each.
        tokens: Of the prompt.
        dim: Of a head.
        window: Tokens for which an evicted one stays.
    """

    heads: int
    group: int
    tokens: int
    dim: int
    window: int

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.heads}x{self.group}x{self.tokens}"


class Prompt:
    """A prompt's tensors, and the plan of its chunk."""

    def __init__(self, case: Case, cr: float, device: str) -> None:
        """Drawn by a seed."""
        torch.manual_seed(0)
        tokens, heads = case.tokens, case.heads
        blocks = 2 * tokens // PAGE + 8
        self.tables = StagedTables(
            layers=2,
            heads=heads,
            page_tokens=PAGE,
            blocks=blocks,
            slots=2,
            max_tokens=2 * tokens,
            device=torch.device(device),
        )
        slot = self.tables.open_slot(1, (tokens, tokens, 0))
        self.tables.set_superblocks(slot, 0, range(1, blocks - 2))
        self.tables.flush()
        of = {"device": device, "dtype": torch.float32 if device == "cpu" else torch.bfloat16}
        self.cache = PagedCache.of(torch.zeros(blocks, 2 * heads, PAGE, 2 * case.dim, **of))
        self.queries = torch.randn(tokens, heads * case.group, case.dim, **of)
        self.keys, self.values = torch.randn(2, tokens, heads, case.dim, **of)
        number = {"dtype": torch.int32, "device": device}
        self.chunks = ChunkRequests(
            torch.tensor([1], **number), torch.tensor([0, tokens], **number), torch.tensor([0], **number), tokens
        )
        evicts = torch.rand(tokens, heads, device=device) < 1 - 1 / cr
        verdicts = chunk_plan.Verdicts(torch.where(evicts, 1.0, -1.0), case.window)
        storage = chunk_plan.PlanStorage(2, heads, tokens, 1, torch.device(device), counts=False)
        self.plan = chunk_plan.plan_chunks(self.tables, 0, self.chunks, verdicts, storage, None)

    def attend(self, launch: ChunkLaunch | None = None) -> Tensor:
        """What the kernel makes of it, (tokens, query heads, head_dim)."""
        out = torch.empty_like(self.queries)
        arguments = (self.queries, self.keys, self.values, out)
        chunk_attention(self.tables, self.cache, 0, self.chunks, self.plan, *arguments, SCALE, launch)
        return out


def parse_cut(text: str) -> ChunkLaunch:
    """A cut by its name."""
    return ChunkLaunch(*map(int, text.split("x")))


def compile_cut(case: Case, cr: float, device: str, cut: str) -> str | None:
    """Run a cut once; why it cannot, if so."""
    try:
        Prompt(case, cr, device).attend(parse_cut(cut))
        if device != "cpu":
            torch.cuda.synchronize()
    except Exception as error:  # of too much shared memory, mostly
        return str(error).splitlines()[0]
    return None


def microseconds(prompt: Prompt, launch: ChunkLaunch | None) -> float:
    """Of the kernel alone, the mean of 20."""
    from torch.profiler import ProfilerActivity, profile

    prompt.attend(launch)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(20):
            prompt.attend(launch)
        torch.cuda.synchronize()
    (kernel,) = (event for event in profiler.key_averages() if "_chunk_attention_kernel" in event.key)
    return float(kernel.device_time_total / kernel.count)


def main() -> None:
    """Compile, time, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES, help="KV headsxquery heads of eachxtokens")
    parser.add_argument("--cuts", default=CUTS, help="query rowsxkeys of a stepxwarpsxstages")
    parser.add_argument("--cr", type=float, default=8, help="1 / CR of the tokens stay")
    parser.add_argument("--window", type=int, default=256, help="tokens for which an evicted one stays")
    parser.add_argument("--dim", type=int, default=128, help="of a head")
    parser.add_argument("--processes", type=int, default=8, help="that compile side by side")
    parser.add_argument("--toy", action="store_true", help="small ones on the CPU, in Triton's interpreter")
    arguments = parser.parse_args()
    device = "cpu" if arguments.toy else "cuda"
    if arguments.toy:
        arguments.cases, arguments.cuts, arguments.window, arguments.dim = "2x3x96", "32x16x4x1,16x32x4x1", 16, 16
    cuts = arguments.cuts.split(",")
    cases = [Case(*map(int, name.split("x")), arguments.dim, arguments.window) for name in arguments.cases.split(",")]
    # Of cases with the same numbers of heads one is enough.
    shapes = {(case.heads, case.group): case for case in reversed(cases)}
    asked = [(case, cut) for case in shapes.values() for cut in cuts]
    with ProcessPoolExecutor(1 if arguments.toy else arguments.processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(compile_cut, case, arguments.cr, device, cut) for case, cut in asked]
        failures = {
            (case.heads, case.group, cut): future.result() for (case, cut), future in zip(asked, futures, strict=True)
        }
    for case in cases:
        prompt = Prompt(case, arguments.cr, device)
        usual = prompt.attend().double()
        print(f"{case.name}: the usual cut is {'x'.join(map(str, ChunkLaunch.of(prompt.queries.dtype, case.dim)))}")
        for cut in cuts:
            if why := failures[case.heads, case.group, cut]:
                print(f"  {cut:14} does not run: {why[:80]}", flush=True)
                continue
            apart = float((prompt.attend(parse_cut(cut)).double() - usual).norm() / usual.norm())
            spent = "" if arguments.toy else f"{microseconds(prompt, parse_cut(cut)):8.1f} us, "
            print(f"  {cut:14} {spent}{apart:.1e} apart", flush=True)


if __name__ == "__main__":
    main()
