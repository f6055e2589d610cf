# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Plans a chunk before it attends: which of its tokens outlive it, the order of reading, and places to store them.

Attention of steps with prompts is in no CUDA graph, and small models wait for the host to launch it. So the kernel that
plans also makes expiries of verdicts and counts reads, and what plans are written to is allocated once a step.

How many entries a query reads follows from when they expire: all that were stored and the chunk's tokens up to its own,
less those that have expired by its position. How many all queries of a chunk read follows without looking at queries:
each entry is read from its own position, or the chunk's first, until it expires or the chunk ends.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables
from hyperscale.engines.vllm.kernels.chunk.plan_storage import LATEST, ChunkPlan, PlanStorage
from hyperscale.engines.vllm.kernels.common import NEVER, load_expiries, page_of
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches

#: Tokens or entries that a program handles at once, and its warps. Fewer take longer: a round waits for the one before,
#: and a prompt of thousands of tokens is one program a head.
SCAN, WARPS = 4096, 32


class Verdicts(NamedTuple):
    """DMS's rule: token k is gone from query k + w + 1 on if hidden state k + d says so (arXiv 2506.05345, section 3).

    With d = 1 the verdict on a chunk's last token comes with the next chunk, and the chunk's first one is on the token
    before it, which is stored already.

    Attributes:
        values: (tokens, heads), any strides: of each hidden state, whether the token d before it is to go, as bool, or
            as logits, above 0 if it is.
        window: w.
        decision_offset: d, 0 or 1.
    """

    values: Tensor
    window: int
    decision_offset: int = 1


class ReadCounts(NamedTuple):
    """Where the numbers of entries that queries read are added up.

    Attributes:
        since: (requests,) int32, the first position whose reads are wanted; those of earlier ones are left alone. Not
            asked where sums are wanted.
        reads: (heads, tokens) int64, what they are added to; heads may share the numbers (stride 0).
        sums: Whether one number is wanted for each request, of all its queries, which is added at its first token. It
            follows from how long each entry is visible, and takes a third of the kernel's time less.
    """

    since: Tensor
    reads: Tensor
    sums: bool = False


@triton.jit(do_not_specialize=["layer", "tokens", "blocks", "window"])
def _chunk_plan_kernel(
    # a layer's own
    verdicts,
    layer,
    window,
    # what the method says: expiries, or verdicts of which they are made
    chunk_expiry,
    verdict_stride,
    verdict_head_stride,
    # the requests
    first_blocks,
    first_stride,
    offsets,
    starts,
    # the tables
    slot_of_block,
    superblocks,
    superblocks_stride,
    num_superblocks,
    pages_used,
    page_table,
    table_pages,
    num_pages,
    lens,
    newest_places,
    expiry,
    # the plan, see `ChunkPlan`
    lasting,
    passing,
    ranks,
    latest,
    places,
    stored_out,
    lasting_out,
    gone,
    # where reads are added up, see `ReadCounts`
    count_from,
    reads_out,
    reads_stride,
    # numbers
    layers,
    heads,
    tokens,
    blocks,
    N: tl.constexpr,
    LATEST: tl.constexpr,
    SCAN: tl.constexpr,
    HAS_VERDICTS: tl.constexpr,
    LATER: tl.constexpr,
    COUNTS_READS: tl.constexpr,
    SUMS_READS: tl.constexpr,
):
    # Grid (requests, heads): a program plans one list and the chunk's tokens of its head.
    request, head = tl.program_id(0), tl.program_id(1)
    base = tl.load(offsets + request)
    count = tl.load(offsets + request + 1) - base
    start = tl.load(starts + request).to(tl.int32)
    next_query = start + count
    chunk = head.to(tl.int64) * tokens + base  # where the chunk's part of a (heads, tokens) tensor begins
    of_layer = layer.to(tl.int64) * heads + head
    maxima = latest + of_layer * blocks + base // LATEST + request
    ends = gone + of_layer * tokens + base
    says = verdicts + base.to(tl.int64) * verdict_stride + head * verdict_head_stride

    # Sort the chunk's tokens: ``lasting`` those that the next query will see, ``passing`` the others, both in order. A
    # token's number among the former is a running sum; among the latter it is its index less that.
    num_lasting = count * 0
    num_reads = count.to(tl.int64) * 0
    for begin in range(0, count, SCAN):
        index = begin + tl.arange(0, SCAN)
        inside = index < count
        if HAS_VERDICTS:
            # The verdict on a token stands LATER tokens after it; the chunk's last LATER tokens have none yet.
            has_verdict = index + LATER < count
            verdict = tl.load(says + (index + LATER).to(tl.int64) * verdict_stride, mask=has_verdict, other=0)
            expires = tl.where(has_verdict & (verdict > 0), start + index + window + 1, NEVER)
            tl.store(chunk_expiry + chunk + index, expires, mask=inside)
        else:
            expires = tl.load(chunk_expiry + chunk + index, mask=inside, other=0)
        is_lasting = inside & (expires > next_query)
        rank = num_lasting + tl.cumsum(is_lasting.to(tl.int32), 0)
        tl.store(ranks + chunk + index, rank, mask=inside)
        tl.store(lasting + chunk + rank - 1, index, mask=is_lasting)
        is_passing = inside & (expires <= next_query)
        tl.store(passing + chunk + index - rank, index, mask=is_passing)
        # Lanes of one block share an entry of ``latest``, hence the atomic.
        tl.atomic_max(maxima + (index - rank) // LATEST, expires, mask=is_passing)
        if COUNTS_READS:
            tl.atomic_add(ends + expires - start, 1, mask=inside & (expires < next_query))
        if SUMS_READS:
            read = tl.minimum(expires, next_query) - (start + index)
            num_reads += tl.sum(tl.where(inside, read, 0).to(tl.int64), 0)
        num_lasting += tl.sum(is_lasting.to(tl.int32), 0)

    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    if slot == 0:  # a warm-up: it attends to its own tokens and stores nothing
        tl.store(stored_out + request * heads + head, 0)
        tl.store(lasting_out + request * heads + head, 0)
        return

    # Places for the lasting tokens: first those of entries that the next query no longer sees, then the list's end.
    list_ = (slot.to(tl.int64) * layers + layer) * heads + head
    pages = page_table + list_ * table_pages
    num_stored = tl.load(lens + list_)
    newest = num_stored * 0 - 1
    verdict_expiry = newest * 0 + NEVER
    if HAS_VERDICTS and LATER > 0:  # the chunk's first verdict is on the token before it, which is stored
        newest = tl.load(newest_places + list_)
        evict = (start > 0) & (count > 0) & (newest >= 0)
        evict = evict & (tl.load(says, mask=evict, other=0) > 0)
        verdict_expiry = tl.where(evict, start + window, verdict_expiry)
        newest_page = tl.load(pages + newest // N, mask=evict, other=0).to(tl.int64)
        tl.store(expiry + newest_page * N + newest % N, verdict_expiry, mask=evict)
    gaps = num_stored * 0
    for begin in range(0, num_stored, SCAN):
        index = begin + tl.arange(0, SCAN)
        expires = load_expiries(index, num_stored, pages, expiry, newest, verdict_expiry, N)
        is_gap = (index < num_stored) & (expires <= next_query)
        rank = gaps + tl.cumsum(is_gap.to(tl.int32), 0) - 1
        tl.store(places + chunk + rank, index, mask=is_gap & (rank < num_lasting))
        gaps += tl.sum(is_gap.to(tl.int32), 0)
        if COUNTS_READS:
            is_gone = (index < num_stored) & (expires < next_query)
            tl.atomic_add(ends + tl.maximum(expires - start, 0), 1, mask=is_gone)
        if SUMS_READS:
            read = tl.maximum(tl.minimum(expires, next_query) - start, 0)
            num_reads += tl.sum(tl.where(index < num_stored, read, 0).to(tl.int64), 0)
    for begin in range(gaps, num_lasting, SCAN):
        rank = begin + tl.arange(0, SCAN)
        tl.store(places + chunk + rank, num_stored + rank - gaps, mask=rank < num_lasting)

    # Pages for what the list grows by. One atomic takes all of them: other lists' programs draw from the same counter.
    length = num_stored - gaps + num_lasting
    pages_before = tl.load(num_pages + list_)
    new_pages = (length + N - 1) // N - pages_before
    if new_pages > 0:
        first = tl.atomic_add(pages_used + slot, new_pages)
        for begin in range(0, new_pages, SCAN):
            index = begin + tl.arange(0, SCAN)
            page = page_of(first + index, slot, superblocks, superblocks_stride, num_superblocks, layers * heads)
            tl.store(pages + pages_before + index, page, mask=index < new_pages)
        tl.store(num_pages + list_, pages_before + new_pages)
    tl.store(lens + list_, length)
    tl.store(stored_out + request * heads + head, num_stored)
    tl.store(lasting_out + request * heads + head, num_lasting)

    if SUMS_READS:
        # Heads may share the number, and so may layers, whose kernels run one after another.
        tl.atomic_add(reads_out + head * reads_stride + base, num_reads)
    if COUNTS_READS:
        tl.debug_barrier()  # all of the program's threads have counted what expires
        since = tl.load(count_from + request)
        num_gone = num_stored * 0
        for begin in range(0, count, SCAN):
            index = begin + tl.arange(0, SCAN)
            # Not from the multiprocessor's own cache, which does not see what atomics have added up.
            expired = tl.load(ends + index, mask=index < count, other=0, cache_modifier=".cg")
            reads = num_stored + index + 1 - num_gone - tl.cumsum(expired, 0)
            # Shared as above.
            wanted = (index < count) & (start + index >= since)
            tl.atomic_add(reads_out + head * reads_stride + base + index, reads.to(tl.int64), mask=wanted)
            num_gone += tl.sum(expired, 0)


def plan_chunks(
    tables: KernelTables,
    layer: int,
    chunks: ChunkRequests,
    expiry: Tensor | Verdicts,
    storage: PlanStorage | None = None,
    counts: ReadCounts | None = None,
    launches: StepLaunches | None = None,
) -> ChunkPlan:
    """Sort a layer's tokens into those that stay and those that pass, and make room for the former.

    Lengths and pages of the lists change here; entries do not before `store_survivors`, so that the chunk can attend
    to them in between. `ChunkPlan.num_stored` says how many there are until then. Of stored entries the verdict on the
    token before the chunk lowers the expiry.

    Args:
        tables: The worker's tables; changed.
        layer: The layer.
        chunks: The requests, each once; those of block 0 attend to their own tokens and leave the tables alone.
        expiry: (heads, tokens) int32, contiguous, of each token; each is later than the token's own position. Or
            verdicts, of which expiries are made.
        storage: Of the step, made for counting if reads are counted query by query; one of its own if None.
        counts: Where it is added up how many entries the queries of the chunks read. None if nobody asks.
        launches: Of the step; None to launch it anew.

    Returns:
        The plan. What lies outside of all chunks is undefined.
    """
    known, verdicts = (None, expiry) if isinstance(expiry, Verdicts) else (expiry, Verdicts(expiry.T, 0, 0))
    values = verdicts.values  # not read where expiries are known
    tokens, heads = values.shape
    count, layers = len(chunks.starts), tables.page_table.shape[1]
    if storage is None:
        storage = PlanStorage(layers, heads, tokens, count, values.device, counts=counts is not None)
    plan = storage.plan(known)
    assert counts is None or counts.sums or plan.gone is not None
    launches = launches or StepLaunches()
    of_layer = (values.view(torch.uint8) if values.dtype == torch.bool else values, layer, verdicts.window)
    shared = (tables, chunks, plan, counts)
    if launches.repeat(_chunk_plan_kernel, of_layer, shared):
        return plan
    launches.begin(
        _chunk_plan_kernel,
        (count, heads),
        of_layer,
        shared,
        plan.expiry,
        *values.stride(),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.superblocks,
        tables.superblocks.stride(0),
        tables.num_superblocks,
        tables.pages_used,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.num_pages,
        tables.lens,
        tables.newest,
        tables.expiry,
        plan.lasting,
        plan.passing,
        plan.rank,
        plan.latest,
        plan.places,
        plan.num_stored,
        plan.num_lasting,
        plan.places if plan.gone is None else plan.gone,
        chunks.offsets if counts is None else counts.since,
        chunks.offsets if counts is None else counts.reads,
        0 if counts is None else counts.reads.stride(0),
        layers,
        heads,
        tokens,
        plan.latest.shape[2],
        N=tables.page_tokens,
        LATEST=LATEST,
        SCAN=SCAN,
        HAS_VERDICTS=known is None,
        LATER=verdicts.decision_offset,
        COUNTS_READS=counts is not None and not counts.sums,
        SUMS_READS=counts is not None and counts.sums,
        num_warps=WARPS,
    )
    return plan
