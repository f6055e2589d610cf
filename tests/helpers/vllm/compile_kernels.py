"""Compile every kernel for Hopper, without a GPU: what triton's interpreter accepts, it may refuse.

Run as a program, without TRITON_INTERPRET; prints a line per kernel: name, bytes of shared memory.
"""

from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from hyperscale.engines.torch import row_kernels
from hyperscale.engines.vllm.kernels import (
    decode_attention,
    decode_update,
    page_bounds,
    page_choice,
    query_sums,
    table_changes,
    victim_choice,
)
from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, DecodeRequests, PagedCache, Victims
from hyperscale.engines.vllm.kernels.chunk import append as chunk_append
from hyperscale.engines.vllm.kernels.chunk import attention as chunk_attention
from hyperscale.engines.vllm.kernels.chunk import plan as chunk_plan
from hyperscale.engines.vllm.kernels.chunk import received as chunk_received
from hyperscale.engines.vllm.kernels.chunk import write as chunk_write
from hyperscale.engines.vllm.kernels.decode import balanced_attention, step_report, token_merge
from hyperscale.retrofit.attention import fused as training_attention


class Hopper:
    """As much of a driver as compiling asks for."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


def compile_only(run):
    def compiled(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        assert kernel.asm["cubin"]
        print(self.fn.__name__, kernel.metadata.shared)  # noqa: T201
        return kernel

    return compiled


def every_kernel(dtype, heads, group, dim, page, fp8=False):
    def ints(*shape):
        return torch.zeros(shape, dtype=torch.int32)

    blocks, layers, slots, most, requests, tokens = 20, 4, 6, 40, 4, 256
    width, stored = (dim + 2, torch.uint8) if fp8 else (dim, dtype)
    pool = PagedCache.of(torch.zeros(blocks, layers * heads, page, 2 * width, dtype=stored))
    tables = SimpleNamespace(
        page_tokens=page,
        slot_of_block=ints(blocks),
        superblocks=ints(slots, most),
        num_superblocks=ints(slots),
        pages_used=ints(slots),
        page_table=ints(slots, layers, heads, most),
        num_pages=ints(slots, layers, heads),
        lens=ints(slots, layers, heads),
        newest=ints(slots, layers, heads),
        request_params=torch.zeros(slots, 3, dtype=torch.int64),
        expiry=ints(blocks * layers * heads, page),
    )
    q, k = torch.zeros(tokens, heads * group, dim, dtype=dtype), torch.zeros(tokens, heads, dim, dtype=dtype)
    verdicts, first, positions = torch.zeros(tokens, heads, dtype=torch.bool), ints(requests, 7)[:, 0], ints(requests)
    live, table = ints(requests, heads), ints(requests, heads, most)
    rows = DecodeRequests(first, positions)
    new = (k[:requests], k[:requests], live, table)
    logits = torch.zeros(heads, tokens, dtype=dtype).T[:requests]
    decode_update.decode_update(tables, pool, 2, rows, *new, verdicts=logits, window=16)
    decode_update.decode_update(tables, pool, 2, rows, *new, verdicts=verdicts[:requests], window=16)
    decode_update.decode_update(tables, pool, 2, rows, *new, verdicts=verdicts[:requests], window=16, on_new=True)
    decode_update.decode_update(tables, pool, 2, rows, *new, new_expiry=positions)
    sums, merged = torch.zeros(slots, heads, 2 * dim + 1), torch.zeros(requests, heads)
    long = torch.zeros(requests, dtype=torch.int64)
    token_merge.merge_tokens(q[:requests], k[:requests], k[:requests], merged, long, long, sums, 100.0, 5.0)
    table_changes.change_tables(tables, torch.zeros(40, dtype=torch.int64), 2, (2, 13, 2))
    numbers = ints(step_report.ROWS * slots + requests)
    step_report.gather_step_report(tables, None, numbers, first)
    step_report.gather_step_report(tables, torch.zeros(slots, dtype=torch.int64), numbers)
    folded = q[:requests].unflatten(1, (heads, group))
    for fused in (False, True):
        cut = balanced_attention.BalancedLaunch.of(dtype, dim, requests * heads, fp8)._replace(fused=fused)
        balanced_attention.balanced_attention(folded, pool, live, table, torch.empty_like(folded), ints(32), 0.1, cut)
    decode_attention.decode_attention(folded, pool, live, table, torch.empty_like(folded), 0.1, 2048)
    states(tables, pool, rows, new, folded)
    chunks = ChunkRequests(first, ints(requests + 1), positions, 64)
    logits = torch.zeros(heads, tokens, dtype=dtype).T
    counts = chunk_plan.ReadCounts(positions, torch.zeros(tokens, dtype=torch.int64).expand(heads, -1))
    for said in (chunk_plan.Verdicts(verdicts, 16, 0), chunk_plan.Verdicts(logits, 16, 1), ints(heads, tokens)):
        chunk_plan.plan_chunks(tables, 2, chunks, said)
        chunk_plan.plan_chunks(tables, 2, chunks, said, counts=counts._replace(sums=True))
        plan = chunk_plan.plan_chunks(tables, 2, chunks, said, counts=counts)
    launch = (tables, pool, 2, chunks, plan, q, k, k, torch.empty_like(q), 0.1)
    chunk_attention.chunk_attention(*launch)
    chunk_append.make_room(tables, chunks, torch.zeros(requests, dtype=torch.int64))
    log_sums = torch.zeros(tokens, heads * group)
    chunk_attention.chunk_attention(*launch, log_sums=log_sums)
    sums, ids = chunk_received.LogSums(log_sums, heads * group, group, 1), torch.zeros(slots, dtype=torch.int64)
    chunk_received.add_received(tables, pool, 2, chunks, q, sums, ids, ids, 0, 500, 0.1)
    chunk_append.append_chunks(tables, pool, 2, chunks, k, k)
    chunk_write.store_survivors(tables, pool, 2, chunks, plan, k, k)
    sums = torch.zeros(slots, heads * group, dim // 2, dtype=torch.complex64)
    ids, factors = torch.zeros(requests, dtype=torch.int64), torch.zeros(tokens, dim // 2, dtype=torch.complex64)
    query_sums.add_decode_queries(sums, sums.real.contiguous(), q[:requests], ids, factors)
    pieces, spans = (torch.tensor(part) for part in query_sums.cut_chunks([0, 64, 128, 192, 256]))
    query_sums.add_chunk_queries(
        sums, sums.real.contiguous(), q, query_sums.ChunkPieces(ids, factors, 0, pieces, spans)
    )
    every_row_kernel(dtype, group, dim)


def every_row_kernel(dtype, group, dim):
    rows, width = 64, 512
    long = torch.zeros(4, rows, dtype=torch.int64)
    queries, selected = torch.zeros(rows, group, dim, dtype=dtype), torch.zeros(rows, group, width, dtype=torch.bool)
    row_kernels.write(queries[:, 0].contiguous(), queries[:, 0].contiguous(), long[0], long[0], long[1:])
    row_kernels.attend(queries, long[0], long[1:], 0.1)
    row_kernels.attend(queries, long[0], long[1:], 0.1, width=width, with_weights=True)
    row_kernels.attend(queries, long[0], long[1:], 0.1, width=width, selected=selected)


def states(tables, pool, rows, new, queries):
    """What decode steps of methods with a state add: places by slot, victims, chosen pages."""
    requests, heads, group, dim = queries.shape
    (slots, layers), capacity, pages = tables.lens.shape[:2], 520, 40

    def longs(*shape):
        return torch.zeros(shape, dtype=torch.int64)

    victims = longs(layers, slots, heads)
    decode_update.decode_update(tables, pool, 2, rows, *new, targets=longs(requests, heads))
    decode_update.decode_update(tables, pool, 2, rows, *new, victims=Victims(victims, longs(requests)))
    decode_update.decode_update(tables, pool, 2, rows, *new, appends=True)
    scores, sums = torch.zeros(requests, heads, group, capacity), torch.zeros(requests, heads, group)
    attention = (queries, pool, *new[2:], torch.empty_like(queries), 0.1, capacity)
    decode_attention.decode_attention(*attention, scores=scores, log_sums=sums)
    position = torch.zeros(layers, slots, heads, capacity, dtype=torch.int32)
    last_queries = queries.new_zeros(slots, layers, heads * group, dim)
    of_requests = victim_choice.VictimStep(*longs(4, requests))
    for score, share in ((None, True), (position.float(), False)):
        kept = victim_choice.VictimTables(victims, position, score, last_queries)
        victim_choice.choose_victims(tables, 2, rows, of_requests, kept, queries, scores, sums, share)
    bounds = page_bounds.KeyBounds(16, *queries.new_zeros(2, slots, heads, pages, dim))
    of_requests, done = page_bounds.PageStep(*longs(2, requests)), torch.zeros(requests, heads, dtype=torch.int32)
    found = page_bounds.append_and_bound(tables, pool, 2, rows, of_requests, bounds, queries, *new)
    chosen = page_choice.choose_pages(tables, rows, of_requests, found, pages, 16, longs(slots), done)
    decode_attention.decode_attention(*attention, chosen=chosen)
    balanced_attention.balanced_attention(*attention[:5], done, 0.1, chosen=chosen)


def every_training_kernel(dtype, heads, group, dim):
    q, k = (torch.zeros(1, 256, count, dim, dtype=dtype).transpose(1, 2) for count in (heads * group, heads))
    starts = torch.zeros(1, 256, dtype=torch.int32)
    for bias in (torch.zeros(1, heads, 256), None):
        out, sums = training_attention._attend(q, k, k, bias, starts, starts, 16, 0.1)
        training_attention._attend_backward(out, q, k, k, bias, starts, starts, out, sums, 16, 0.1)


if __name__ == "__main__":
    driver.set_active(Hopper())
    JITFunction.run = compile_only(JITFunction.run)
    every_kernel(torch.bfloat16, 8, 5, 128, 32)
    every_kernel(torch.float16, 2, 2, 64, 16)
    every_kernel(torch.float32, 4, 2, 32, 16)
    every_kernel(torch.bfloat16, 8, 5, 128, 32, fp8=True)
    every_kernel(torch.float32, 4, 2, 32, 16, fp8=True)
    every_training_kernel(torch.bfloat16, 2, 6, 128)
    every_training_kernel(torch.bfloat16, 3, 3, 64)
    every_training_kernel(torch.float16, 2, 2, 256)
    every_training_kernel(torch.bfloat16, 2, 2, 80)
