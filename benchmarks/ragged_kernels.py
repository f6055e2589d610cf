"""The kernels of the ragged paged cache on one layer of a Qwen2.5-32B-like model: right first, then how fast.

40 query heads, 8 KV heads, head_dim 128, bfloat16, pages of 32 entries. All times are of CUDA graphs (no launch gaps),
medians; the bandwidth they are held against is that of a large device-to-device copy in the same run.

1. Decode at 64 requests x 16K tokens, uncompressed and at 1/8 with lengths spread log-normally over lists: update
   (evict, write, allocate) and attention, in triton and, where vLLM has it, FlashAttention 3.
2. Prefill of 16K tokens in chunks, without eviction and with 7 of 8 tokens evicted after a window of 256, against
   torch's dense causal attention over all tokens at once.

Usage: python benchmarks/ragged_kernels.py [--sweep] [--requests 64] [--context 16384] …
"""

import argparse
import time

import torch
from gpu_timing import copy_bandwidth, launch_microseconds, milliseconds
from ragged_cache import BYTES, DIM, GROUP, HEADS, PAGE, SCALE, STATE, Cache
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from hyperscale.engines.vllm.kernels import decode_attention, decode_fa3
from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, DecodeRequests
from hyperscale.engines.vllm.kernels.chunk import attention as chunk_attention
from hyperscale.engines.vllm.kernels.chunk import plan as chunk_plan
from hyperscale.engines.vllm.kernels.chunk import write as chunk_write
from hyperscale.engines.vllm.kernels.chunk.plan_storage import ChunkPlan
from hyperscale.engines.vllm.kernels.decode_update import decode_update
from hyperscale.engines.vllm.protocol import NEVER

DECODE_SHAPES = [(512, 64, 4, 5), (512, 64, 4, 3), (512, 32, 2, 5), (256, 32, 4, 5), (1024, 32, 4, 5)]
PREFILL_SHAPES = [(128, 32, 4, 4), (128, 64, 8, 3), (128, 32, 8, 5), (64, 32, 4, 5), (64, 64, 4, 3)]


def error(out: Tensor, reference: Tensor) -> float:
    """Relative error in the Frobenius norm; NaN stays NaN."""
    return float((out.double() - reference).norm() / reference.norm())


# -- decode ---------------------------------------------------------------------------------------------------------


def reference_list(cache: Cache, queries: Tensor, row: int, head: int) -> Tensor:
    """Attention of one list in float64, (group, head_dim)."""
    length = int(cache.tables.lens[row + 1, 0, head])
    pages = cache.tables.page_table[row + 1, 0, head, : -(-length // PAGE)].long()
    k = cache.pool.keys[pages].flatten(0, 1)[:length].double()
    v = cache.pool.values[pages].flatten(0, 1)[:length].double()
    return (queries[row, head].double() @ k.T * SCALE).softmax(-1) @ v


def decode(name: str, lens: Tensor, context: int, copy: float, sweep: bool) -> None:
    """Check and time one decode step's kernels."""
    requests, steps, window = len(lens), 32, 256
    cache = Cache(lens, steps + 4, "cuda")
    if name != "dense":
        cache.expire(window, context, 7 / 8)
    of = {"device": "cuda", "dtype": torch.bfloat16}
    queries = torch.randn(requests, HEADS, GROUP, DIM, **of)
    keys, values = torch.randn(2, steps, requests, HEADS, DIM, **of)
    verdicts = torch.rand(steps, requests, HEADS, device="cuda") < (0 if name == "dense" else 7 / 8)
    live = torch.zeros(requests, HEADS, dtype=torch.int32, device="cuda")
    table = torch.zeros(requests, HEADS, cache.tables.page_table.shape[-1], dtype=torch.int32, device="cuda")
    positions = [torch.full((requests,), context + step, device="cuda") for step in range(steps)]
    out = torch.empty_like(queries)
    longest = context + steps

    def update(step: int) -> None:
        decode_update(
            cache.tables,
            cache.pool,
            0,
            DecodeRequests(cache.first_blocks, positions[step]),
            keys[step],
            values[step],
            live,
            table,
            verdicts=verdicts[step],
            window=window,
        )

    def updates() -> None:
        for step in range(steps):
            update(step)

    ms_per_update = milliseconds(updates, steps, before=cache.restore)
    growth = float((live.double().mean() - lens.double().mean()) / steps)

    def attend() -> None:
        decode_attention.decode_attention(queries, cache.pool, live, table, out, SCALE, longest)

    out.fill_(float("nan"))
    attend()
    lists = [(int(i) // HEADS, int(i) % HEADS) for i in torch.randperm(requests * HEADS)[:24]]
    reference = torch.stack([reference_list(cache, queries, *index) for index in lists])
    max_error = error(torch.stack([out[index] for index in lists]), reference)
    assert max_error < 1e-2, f"decode attention is wrong: {max_error}"
    entries = int(live.sum())

    def line(label: str, ms: float) -> None:
        rate = entries * BYTES / ms / 1e6
        print(f"  {label:<28} {ms:8.3f} ms {rate:7.0f} GB/s {rate / copy:6.1%} of copy", flush=True)

    print(f"decode, {name}: {entries / 1e6:.2f} M entries, {entries * BYTES / 1e9:.2f} GB; error {max_error:.1e}")
    print(
        f"  update {1e3 * ms_per_update:.1f} us a step; lists grow by {growth:.2f} entries a step (without eviction 1)"
    )
    line("attention, triton", milliseconds(attend))
    for shape in DECODE_SHAPES if sweep else []:
        launch = decode_attention.DecodeLaunch(*shape)
        line(
            f"  {shape}",
            milliseconds(
                lambda launch=launch: decode_attention.decode_attention(
                    queries, cache.pool, live, table, out, SCALE, longest, launch
                )
            ),
        )
    if decode_fa3.available():
        starts = torch.arange(requests * HEADS + 1, dtype=torch.int32, device="cuda")
        fa3_out = torch.full_like(out, float("nan"))

        def flash() -> None:
            decode_fa3.decode_attention(queries, cache.pool, live, table, fa3_out, starts, SCALE, longest)

        flash()
        max_error = error(torch.stack([fa3_out[index] for index in lists]), reference)
        assert max_error < 1e-2, f"FlashAttention 3 on folded lists is wrong: {max_error}"
        line("attention, FlashAttention 3", milliseconds(flash))

    def both() -> None:
        update(0)
        attend()

    host = launch_microseconds(both, cache.restore)
    print(f"  host time to launch update and attention: {host:.0f} us")


def ragged_lens(requests: int, context: int, ratio: int) -> Tensor:
    """Lengths with mean context / ratio, spread log-normally, at least 256 and at most the context."""
    spread = torch.exp(0.8 * torch.randn(HEADS) + 0.2 * torch.randn(requests, HEADS))
    lens = spread / spread.mean() * context / ratio
    for _ in range(5):  # clipping shifts the mean
        lens = (lens * (context / ratio / lens.clamp(256, context).mean())).clamp(256, context)
    return lens.long()


# -- prefill --------------------------------------------------------------------------------------------------------


class Prompt:
    """One prompt of a layer, and its prefill in chunks."""

    def __init__(self, tokens: int, share: float, window: int) -> None:
        of = {"device": "cuda", "dtype": torch.bfloat16}
        self.tokens, self.window = tokens, window
        self.queries = torch.randn(tokens, HEADS * GROUP, DIM, **of)
        self.keys, self.values = torch.randn(2, tokens, HEADS, DIM, **of)
        self.verdicts = torch.rand(tokens, HEADS, device="cuda") < share
        self.out = torch.empty_like(self.queries)
        self.cache = Cache(torch.zeros(1, HEADS, dtype=torch.int64), tokens, "cuda")

    def chunks(self, size: int) -> list[tuple[slice, ChunkRequests]]:
        """The steps of a prefill."""
        steps = []
        for start in range(0, self.tokens, size):
            count = min(size, self.tokens - start)
            offsets = torch.tensor([0, count], dtype=torch.int32, device="cuda")
            starts = torch.tensor([start], dtype=torch.int32, device="cuda")
            steps.append((slice(start, start + count), ChunkRequests(self.cache.first_blocks, offsets, starts, count)))
        return steps

    def plan(self, part: slice, chunks: ChunkRequests) -> ChunkPlan:
        """Before the attention of a chunk."""
        tables = self.cache.tables
        verdicts = chunk_plan.Verdicts(self.verdicts[part], self.window)
        return chunk_plan.plan_chunks(tables, 0, chunks, verdicts)

    def attend(
        self,
        part: slice,
        chunks: ChunkRequests,
        plan: ChunkPlan,
        shape: chunk_attention.ChunkLaunch | None = None,
    ) -> None:
        """Its attention."""
        q, k, v = self.queries[part], self.keys[part], self.values[part]
        chunk_attention.chunk_attention(
            self.cache.tables, self.cache.pool, 0, chunks, plan, q, k, v, self.out[part], SCALE, shape
        )

    def write(self, part: slice, chunks: ChunkRequests, plan: ChunkPlan) -> None:
        """After it."""
        chunk_write.store_survivors(
            self.cache.tables, self.cache.pool, 0, chunks, plan, self.keys[part], self.values[part]
        )

    def run(self, steps: list[tuple[slice, ChunkRequests]], shape: chunk_attention.ChunkLaunch | None = None) -> None:
        """The whole prefill."""
        for part, chunks in steps:
            plan = self.plan(part, chunks)
            self.attend(part, chunks, plan, shape)
            self.write(part, chunks, plan)

    def check(self) -> float:
        """Error of some queries' outputs against masked attention in float64."""
        position = torch.arange(self.tokens, device="cuda")
        verdicts = torch.cat([self.verdicts[1:], torch.zeros_like(self.verdicts[:1])])
        expiry = torch.where(verdicts, (position + self.window + 1)[:, None], NEVER)
        sample = torch.cat([torch.randint(0, self.tokens, (24,)), torch.tensor([0, self.tokens - 1])]).cuda()
        k, v = self.keys.double(), self.values.double()
        errors = []
        for query in sample.tolist():
            visible = (position[:, None] <= query) & (query < expiry)  # (tokens, heads)
            q = self.queries[query].double().view(HEADS, GROUP, DIM)
            scores = torch.einsum("hgd,khd->hgk", q, k) * SCALE
            weights = scores.masked_fill(~visible.T[:, None], float("-inf")).softmax(-1)
            reference = torch.einsum("hgk,khd->hgd", weights, v)
            errors.append(error(self.out[query].view(HEADS, GROUP, DIM), reference))
        return max(errors)


def dense_prefill(tokens: int) -> float:
    """Milliseconds of torch's dense causal attention, the faster of its two back ends."""
    of = {"device": "cuda", "dtype": torch.bfloat16}
    q, k, v = torch.randn(3, 1, HEADS * GROUP, tokens, DIM, **of)
    best = float("inf")
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                ms = milliseconds(lambda: scaled_dot_product_attention(q, k, v, is_causal=True), graph=False)
        except RuntimeError as problem:
            print(f"  torch {backend.name}: {str(problem).splitlines()[0]}")
            continue
        rate = 2 * HEADS * GROUP * DIM * tokens**2 / ms / 1e9
        print(f"  torch {backend.name:<26} {ms:8.3f} ms {rate:7.0f} TFLOP/s", flush=True)
        best = min(best, ms)
    return best


def prefill(tokens: int, sizes: list[int], sweep: bool) -> None:
    """Check and time a whole prefill of one layer."""
    print(f"prefill of {tokens} tokens, one layer")
    dense = dense_prefill(tokens)
    for share, name in ((0.0, "no eviction"), (7 / 8, "7/8 evicted")):
        prompt = Prompt(tokens, share, window=256)
        restore = prompt.cache.restore
        for size in sizes:
            steps = prompt.chunks(size)
            prompt.out.fill_(float("nan"))
            ms = milliseconds(lambda p=prompt, s=steps: p.run(s), before=restore)
            max_error = prompt.check()
            assert max_error < 1e-2, f"prefill attention is wrong: {max_error}"
            live_share = float(prompt.cache.tables.lens[1].double().mean()) / tokens
            label = f"{name}, chunks of {size}"
            ratio = f"{dense / ms:5.2f}x dense; {live_share:.1%} kept"
            print(f"  {label:<32} {ms:8.3f} ms {ratio}; error {max_error:.1e}", flush=True)
        for shape in PREFILL_SHAPES if sweep else []:
            launch = chunk_attention.ChunkLaunch(*shape)
            ms = milliseconds(lambda p=prompt, s=steps, g=launch: p.run(s, g), before=restore)
            print(f"    {shape!s:<30} {ms:8.3f} ms {dense / ms:5.2f}x dense", flush=True)
        last_chunk(prompt, steps)


def last_chunk(prompt: Prompt, steps: list[tuple[slice, ChunkRequests]]) -> None:
    """Print where the time of a prefill's last chunk goes."""
    tables = prompt.cache.tables
    prompt.cache.restore()
    prompt.run(steps[:-1])
    tensors = {name: getattr(tables, name).clone() for name in STATE}

    def back() -> None:
        for name, value in tensors.items():
            getattr(tables, name).copy_(value)

    host = launch_microseconds(lambda: prompt.run(steps[-1:]), back)
    part, chunks = steps[-1]
    planning = milliseconds(lambda: discard(prompt.plan(part, chunks)), before=back)
    back()
    plan = prompt.plan(part, chunks)
    attend = milliseconds(lambda: prompt.attend(part, chunks, plan))
    write = milliseconds(lambda: prompt.write(part, chunks, plan))
    parts = f"plan {planning:.3f}, attention {attend:.3f}, write {write:.3f} ms"
    print(f"    last chunk: {parts}; host time to launch {host:.0f} us", flush=True)


def discard(result: object) -> None:
    """Ignore a result."""


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--context", type=int, default=16384)
    parser.add_argument("--ratio", type=int, default=8)
    parser.add_argument("--chunks", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--sweep", action="store_true", help="other launch shapes of the attention kernels, too")
    args = parser.parse_args()
    began = time.perf_counter()
    torch.manual_seed(0)
    import triton

    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, triton {triton.__version__}")
    copy = copy_bandwidth()
    print(f"copy: {copy:.0f} GB/s, read and written")
    decode(f"1/{args.ratio}", ragged_lens(args.requests, args.context, args.ratio), args.context, copy, args.sweep)
    torch.cuda.empty_cache()
    decode("dense", torch.full((args.requests, HEADS), args.context), args.context, copy, False)
    torch.cuda.empty_cache()
    prefill(args.context, args.chunks, args.sweep)
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
