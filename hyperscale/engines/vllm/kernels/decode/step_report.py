# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Gathers what a step is reported with, of all slots in one kernel, which can be the last of a CUDA graph.

Of a step with chunks it also notes which slot each request of the batch has: their queries' reads lie in its order.
"""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import KernelTables
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches

ROWS = 4  # of what is gathered: pages in use, superblocks, entries, entries read
_BLOCK = 1024


@triton.jit(do_not_specialize=["first_stride", "requests", "slots"])
def _step_report_kernel(
    # a step's own
    out,
    first_blocks,
    first_stride,
    requests,
    # what steps share
    pages_used,
    num_superblocks,
    lens,
    reads,
    slot_of_block,
    slots,
    num_lists,
    BLOCK: tl.constexpr,
    HAS_READS: tl.constexpr,
):
    # Grid (slots,): a program adds up the lists of one slot, and finds the slot of the request of its number.
    slot = tl.program_id(0)
    for request in range(slot, requests, slots):
        first = tl.load(first_blocks + request * first_stride)
        tl.store(out + 4 * slots + request, tl.load(slot_of_block + first))  # behind the rows
    total = tl.zeros((BLOCK,), tl.int32)
    for begin in range(0, num_lists, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        total += tl.load(lens + slot.to(tl.int64) * num_lists + index, mask=index < num_lists, other=0)
    tl.store(out + slot, tl.load(pages_used + slot))
    tl.store(out + slots + slot, tl.load(num_superblocks + slot))
    tl.store(out + 2 * slots + slot, tl.sum(total, 0))
    if HAS_READS:
        tl.store(out + 3 * slots + slot, tl.load(reads + slot).to(tl.int32))


def gather_step_report(
    tables: KernelTables,
    reads: Tensor | None,
    out: Tensor,
    first_blocks: Tensor | None = None,
    launches: StepLaunches | None = None,
) -> None:
    """Gather the numbers of all slots.

    Args:
        tables: The worker's tables.
        reads: (slots,) int64, entries that each slot's last decode step read; None if it read all that there were.
        out: int32, contiguous; written: `ROWS` rows of (slots,), which are pages in use, superblocks, entries of all
            lists, and ``reads`` if there are any. Behind them a number a request, the slot that it has.
        first_blocks: (requests,) int32, any stride: of the requests of the batch; None if their slots are not wanted.
        launches: Of these tables; None to launch it anew.
    """
    launches = launches or StepLaunches()
    requests = 0 if first_blocks is None else len(first_blocks)
    firsts = tables.slot_of_block if first_blocks is None else first_blocks
    of_step, shared = (out, firsts, firsts.stride(0), requests), (tables, reads)
    if launches.repeat(_step_report_kernel, of_step, shared):
        return
    slots, num_lists = len(tables.lens), tables.lens.stride(0)
    launches.begin(
        _step_report_kernel,
        (slots,),
        of_step,
        shared,
        tables.pages_used,
        tables.num_superblocks,
        tables.lens,
        tables.lens if reads is None else reads,
        tables.slot_of_block,
        slots,
        num_lists,
        BLOCK=min(triton.next_power_of_2(num_lists), _BLOCK),
        HAS_READS=reads is not None,
        num_warps=4,
    )
